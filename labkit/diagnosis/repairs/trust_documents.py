"""The trust policy as it should be: what is there, with what is wrong put right and the rest left as it is."""

import copy

from labkit import documents
from labkit.diagnosis.evidence import Evidence
from labkit.diagnosis.evidence.reading import Document
from labkit.diagnosis.evidence.trust import NOBODY, actions_of, allows_action, federated_of, principals_of
from labkit.documents import PolicyDocument


def alone(evidence: Evidence) -> PolicyDocument:
    """The policy that admits this service account, and says nothing else."""
    document = documents.trust_policy(evidence.parameters, evidence.provider_arn)
    document["Statement"][0]["Condition"]["StringEquals"][f"{evidence.provider_name}:aud"] = evidence.audience
    return document


def corrected(evidence: Evidence) -> Document:
    """The policy with the statement that comes nearest put right, and without what denies the service account."""
    trust, right = evidence.trust, _right(evidence)
    statements = [statement for statement in trust.statements if not trust.denies(statement)]
    nearest = trust.nearest
    # A statement for a service is that service's; of several, one that names another service account is that one's.
    if (
        nearest is not None
        and nearest in statements
        and not principals_of(nearest, "Service")
        and (len(statements) == 1 or trust.names_subject(nearest))
    ):
        statements[statements.index(nearest)] = _like(nearest, right)
    elif not any(trust.statement_admits(statement) for statement in statements):
        statements.append(right)
    return _with(evidence, statements)


def narrowed(evidence: Evidence) -> Document:
    """The policy with one statement for this service account, in the place of those that admit it and others."""
    right, is_in = _right(evidence), False
    statements: list[Document] = []
    for statement in evidence.trust.statements:
        if statement.get("Effect") != "Allow" or not _is_of_cluster(evidence, statement):
            statements.append(statement)
        elif not is_in:
            statements.append(_like(statement, right))
            is_in = True
    return _with(evidence, statements)


def with_audience(evidence: Evidence) -> Document:
    """The policy with a condition on `aud` in each statement that admits a token for anybody."""
    statements = copy.deepcopy(evidence.trust.statements)
    for statement in statements:
        if evidence.trust.statement_admits(statement, audience=NOBODY):
            condition = statement.setdefault("Condition", {})
            condition.setdefault("StringEquals", {})[f"{evidence.provider_name}:aud"] = evidence.audience
    return _with(evidence, statements)


def _right(evidence: Evidence) -> Document:
    return dict(alone(evidence)["Statement"][0])


def _like(present: Document, right: Document) -> Document:
    """The right statement, with the name and the further actions of the one in whose place it comes."""
    made = {"Sid": present["Sid"], **right} if "Sid" in present else dict(right)
    if "Action" in present and allows_action(present) and not any("*" in action for action in actions_of(present)):
        made["Action"] = present["Action"]
    return made


def _is_of_cluster(evidence: Evidence, statement: Document) -> bool:
    """Whether it lets service accounts of the cluster take the role."""
    trusted = statement.get("Principal") == "*" or evidence.provider_arn in federated_of(statement)
    return trusted and allows_action(statement)


def _with(evidence: Evidence, statements: list[Document]) -> Document:
    present = evidence.trust.document
    rest = {key: value for key, value in present.items() if key not in ("Version", "Statement")}
    return {"Version": present.get("Version", "2012-10-17"), **rest, "Statement": statements}
