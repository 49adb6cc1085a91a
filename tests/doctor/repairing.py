"""A repair's AWS commands for IAM and S3, applied to recorded evidence."""

import copy
import json
import re
import shlex
from typing import Any

Answers = dict[str, Any]


def commands(repair: str) -> list[str]:
    """The commands of a repair, without comments and without the test that stops them after a change by somebody else.

    `tests/doctor/test_workloads_live.py` runs the lines as they are.
    """
    lines = [re.split(r" \|\| (?:{ )?echo ", line)[0].removesuffix(" &&") for line in repair.splitlines()]
    return [line for line in lines if not line.startswith(("#", "test "))]


def repaired(answers: Answers, repair: str) -> Answers:
    """Return the answers after a repair's lines have run. An unknown line fails the test."""
    after, account_id = copy.deepcopy(answers), "123456789012"
    for line in commands(repair):
        if line.startswith("(export "):
            account_id = line.partition("arn:aws:iam::")[2][:12]
        elif line == ")":
            account_id = "123456789012"
        # In the record, the new pod is the same as the old one.
        elif not line.startswith(("kubectl delete pod", "echo ", "printf ")):
            words = _words(line)
            assert words[0] == "aws", line
            Account(after, account_id).run(words[1], words[2], _options(words[3:]))
    return after


class Account:
    """One account's part of the answers."""

    def __init__(self, answers: Answers, account_id: str):
        self.answers, self.account_id = answers, account_id

    def run(self, service: str, operation: str, options: dict[str, list[str]]) -> None:
        self.thumbprints = options.get("thumbprint-list", [])
        getattr(self, f"{service}_{operation}".replace("-", "_"))(
            {key: v[0] if v else "" for key, v in options.items()}
        )

    def key(self, call: str) -> str:
        return f"{call} ({self.account_id})"

    def role(self, options: dict[str, str]) -> dict[str, Any]:
        return self.answers[self.key(f"iam:GetRole {options['role-name']}")]

    def iam_create_open_id_connect_provider(self, options: dict[str, str]) -> None:
        name = options["url"].removeprefix("https://")
        arn = f"arn:aws:iam::{self.account_id}:oidc-provider/{name}"
        self.answers.setdefault(self.key("iam:ListOpenIDConnectProviders"), []).append({"Arn": arn})
        made = {"Url": name, "ClientIDList": [options["client-id-list"]], "ThumbprintList": [], "Tags": []}
        self.answers[self.key(f"iam:GetOpenIDConnectProvider {name}")] = made

    def iam_add_client_id_to_open_id_connect_provider(self, options: dict[str, str]) -> None:
        self.provider(options)["ClientIDList"].append(options["client-id"])

    def iam_update_open_id_connect_provider_thumbprint(self, options: dict[str, str]) -> None:
        self.provider(options)["ThumbprintList"] = self.thumbprints

    def provider(self, options: dict[str, str]) -> dict[str, Any]:
        name = options["open-id-connect-provider-arn"].partition(":oidc-provider/")[2]
        return self.answers[self.key(f"iam:GetOpenIDConnectProvider {name}")]

    def iam_create_role(self, options: dict[str, str]) -> None:
        name = options["role-name"]
        self.answers[self.key(f"iam:GetRole {name}")] = {
            "Arn": f"arn:aws:iam::{self.account_id}:role/{name}",
            "RoleName": name,
            "AssumeRolePolicyDocument": json.loads(options["assume-role-policy-document"]),
        }
        self.answers[self.key(f"iam:ListAttachedRolePolicies {name}")] = []

    def iam_update_assume_role_policy(self, options: dict[str, str]) -> None:
        self.role(options)["AssumeRolePolicyDocument"] = json.loads(options["policy-document"])

    def iam_attach_role_policy(self, options: dict[str, str]) -> None:
        attached = self.answers[self.key(f"iam:ListAttachedRolePolicies {options['role-name']}")]
        attached.append({"PolicyName": "", "PolicyArn": options["policy-arn"]})

    def iam_delete_role_policy(self, options: dict[str, str]) -> None:
        self.answers[self.key(f"iam:ListRolePolicies {options['role-name']}")].remove(options["policy-name"])

    def iam_put_role_policy(self, options: dict[str, str]) -> None:
        """Let every recorded simulation of the policy's first action answer "allowed" from now on."""
        (statement,) = json.loads(options["policy-document"])["Statement"]
        for call in self.answers:
            if call.startswith("iam:SimulatePrincipalPolicy") and statement["Action"][0] in call:
                self.answers[call] = {"EvalDecision": "allowed"}

    def s3api_put_bucket_policy(self, options: dict[str, str]) -> None:
        self.answers[self.key(f"s3:GetBucketPolicy {options['bucket']}")] = options["policy"]


def _words(line: str) -> list[str]:
    """The words of a line, as a shell splits it."""
    return shlex.split(line)


def _options(words: list[str]) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for word in words:
        if word.startswith("--"):
            name = word.removeprefix("--")
            options[name] = []
        else:
            options[name].append(word)
    return options
