"""A checklist of one page, in Markdown: the steps of the lab, as commands for a cluster of the learner's own."""

import json
import shlex
from pathlib import Path
from textwrap import indent

from labkit import documents
from labkit.course import progress
from labkit.policy.arn import Arn
from labkit.run_parameters import Parameters, partitions

ACCOUNT = "111122223333"
PAGE = Path(__file__).with_suffix(".md")


def markdown(parameters: Parameters, file: Path | None = None) -> str:
    """Return the checklist for these parameters. The ticks come from the learner's progress file."""
    done = progress.read(file).steps
    account = parameters.account_id or ACCOUNT
    partition = next(each for each in partitions() if parameters.region in each["regions"])
    issuer = f"oidc.eks.REGION.{partition['outputs']['dnsSuffix']}/id/ID"
    arn = Arn(partition["id"], "iam", "", account, "")
    trust = documents.trust_policy(parameters, str(arn.sibling(f"oidc-provider/{issuer}")))
    ticks = {step: "x" if step in done else " " for step in ("oidc_provider", "iam_role", "pod", "credentials")}
    given = {name: value for name, value in parameters.given.items() if name != "target"}
    return PAGE.read_text(encoding="utf-8").format(
        **ticks,
        annotation_done="x" if "service_account" in done else " ",
        **parameters.model_dump(include={"service_account", "namespace", "cluster", "region", "role_name"}),
        again="".join(f" -p {shlex.quote(f'{name}={value}')}" for name, value in given.items()),
        names="" if given else " once you add `-p account_id=… -p cluster=… -p role_name=…`",
        issuer=issuer,
        trust=indent(json.dumps(trust, indent=2), "  "),
        annotation=documents.ROLE_ANNOTATION,
        role_arn=arn.sibling(f"role/{parameters.role_name}"),
        policy_arn=Arn.parse(parameters.policy_arn)._replace(partition=arn.partition),
    )
