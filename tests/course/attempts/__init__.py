"""Tries at each exercise: ten near-misses, each with what the live lab then finds, and five right answers."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kubernetes.client import CoreV1Api

from labkit import Lab

KEY = "eks.amazonaws.com/role-arn"
Try = Callable[[Lab, str], None]
"""Does in the lab what a learner's cell would do; the text is the exercise's name."""


@dataclass(frozen=True)
class Attempt:
    """One try at an exercise."""

    exercise: str
    do: Try
    said: str = ""
    """Part of what a near-miss's check finds; empty for a right answer."""
    title: str = ""
    """The try's name, for one that only `make lessons` runs; empty for the others, whose function is named."""

    @property
    def name(self) -> str:
        return f"{self.exercise}-{self.title or self.do.__name__.strip('_')}"


@dataclass
class Attempts:
    """The tries at the exercises of one notebook."""

    all: list[Attempt] = field(default_factory=list)

    def wrong(self, exercise: str, said: str) -> Callable[[Try], Try]:
        return self._add(exercise, said)

    def right(self, exercise: str) -> Callable[[Try], Try]:
        return self._add(exercise, "")

    def more(self, exercise: str, wrong: dict[str, tuple[str, Try]], right: dict[str, Try]) -> None:
        """Add tries by their names. Only `make lessons` runs them."""
        tries = {**wrong, **{title: ("", do) for title, do in right.items()}}
        self.all += [Attempt(exercise, do, said, title) for title, (said, do) in tries.items()]

    def _add(self, exercise: str, said: str) -> Callable[[Try], Try]:
        def added(do: Try) -> Try:
            self.all.append(Attempt(exercise, do, said))
            return do

        return added


def annotate(lab: Lab, namespace: str, account: str, **annotations: str | None) -> None:
    patch = {"metadata": {"annotations": annotations}}
    CoreV1Api(lab.kubernetes).patch_namespaced_service_account(account, namespace, patch)


def role_arn(lab: Lab, role: str) -> str:
    return str(lab.aws.client("iam").get_role(RoleName=role)["Role"]["Arn"])


def trust_policy(lab: Lab, role: str) -> dict[str, Any]:
    document: dict[str, Any] = lab.aws.client("iam").get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
    return document


def update_trust(lab: Lab, role: str, document: dict[str, Any] | str) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    lab.aws.client("iam").update_assume_role_policy(RoleName=role, PolicyDocument=text)


def admit_account(lab: Lab, role: str) -> None:
    """Let everybody of the role's account become the role, without a token."""
    document = trust_policy(lab, role)
    everybody = {"AWS": f"arn:aws:iam::{lab.account_id}:root"}
    document["Statement"].append({"Effect": "Allow", "Principal": everybody, "Action": "sts:AssumeRole"})
    update_trust(lab, role, document)


def put_policy(lab: Lab, role: str, name: str, *statements: dict[str, Any]) -> None:
    document = json.dumps({"Version": "2012-10-17", "Statement": [*statements]})
    lab.aws.client("iam").put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=document)
