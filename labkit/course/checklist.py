"""A checklist of one page, in Markdown: the steps of the lab, as commands for a cluster of the learner's own."""

import json
import shlex
from pathlib import Path
from textwrap import indent

from labkit import documents
from labkit.course import progress
from labkit.run_parameters import Parameters

ACCOUNT = "111122223333"
ISSUER = "https://oidc.eks.REGION.amazonaws.com/id/ID"
PAGE = Path(__file__).with_suffix(".md")


def markdown(parameters: Parameters, file: Path | None = None) -> str:
    """Return the checklist for these parameters. The ticks come from the learner's progress file."""
    done = progress.read(file).steps
    account = parameters.account_id or ACCOUNT
    partition = "aws"
    trust = documents.trust_policy(parameters, f"arn:{partition}:iam::{account}:oidc-provider/{ISSUER[8:]}")
    ticks = {step: "x" if step in done else " " for step in ("oidc_provider", "iam_role", "pod", "credentials")}
    given = {name: value for name, value in parameters.given.items() if name != "target"}
    return PAGE.read_text(encoding="utf-8").format(
        **ticks,
        annotation_done="x" if "service_account" in done else " ",
        **parameters.model_dump(
            include={"service_account", "namespace", "cluster", "region", "role_name", "policy_arn"}
        ),
        again="".join(f" -p {shlex.quote(f'{name}={value}')}" for name, value in given.items()),
        names="" if given else " once you add `-p account_id=… -p cluster=… -p role_name=…`",
        issuer=ISSUER[8:],
        trust=indent(json.dumps(trust, indent=2), "  "),
        annotation=documents.ROLE_ANNOTATION,
        role_arn=f"arn:{partition}:iam::{account}:role/{parameters.role_name}",
    )
