"""Recorded evidence of a healthy lab with changes in the trust policy, and the doctor's findings."""

from labkit import doctor
from labkit.doctor.evidence import Evidence, Reads
from tests.doctor import recording
from tests.doctor.recording import healthy


def arn(name):
    return f"arn:aws:iam::{recording.ACCOUNT_ID}:oidc-provider/{name}"


def examine(answers, **settings):
    return doctor.examine(Evidence(recording.PARAMETERS, recording.CONNECTION, reads=Reads(answers), **settings))


def found(answers, **settings):
    return [finding.id for finding in examine(answers, **settings).findings]


def document(answers):
    return answers[recording.ROLE]["AssumeRolePolicyDocument"]


def trusting(*changes):
    """A healthy lab with these changes in the trust policy's only statement."""
    answers = healthy()
    for change in changes:
        change(document(answers)["Statement"][0])
    return answers


def principal(**names):
    return lambda statement: statement.update(Principal=names)


def wants(claim, value, operator="StringEquals", issuer=recording.NAME):
    """Return a change that replaces a statement's condition on a claim. The value None only removes it."""

    def change(statement):
        for block in statement["Condition"].values():
            for key in [key for key in block if key.endswith(f":{claim}")]:
                del block[key]
        if value is not None:
            statement["Condition"].setdefault(operator, {})[f"{issuer}:{claim}"] = value
        statement["Condition"] = {name: block for name, block in statement["Condition"].items() if block}

    return change


def sub(text, operator="StringEquals"):
    return wants("sub", f"system:serviceaccount:{text}", operator)


MISSING = healthy() | {recording.ROLE: None, recording.ATTACHED: None}
