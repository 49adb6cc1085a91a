"""Policies that name a deleted user or role: IAM shows the principal's unique id in place of the principal's ARN.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html#principal-roles
"""

import json
from typing import Any

from labkit.policy.validation import listed


def renamed(document: str, arn: str, unique_id: str) -> str:
    """Return the policy ``document`` with ``unique_id`` instead of ``arn``, the ARN of a deleted principal."""
    if arn not in document:
        return document
    policy = json.loads(document)
    for statement in listed(policy.get("Statement", [])):
        for element in ("Principal", "NotPrincipal"):
            principal = statement.get(element)
            if isinstance(principal, dict) and (named := principal.get("AWS")):
                principal["AWS"] = _replaced(named, arn, unique_id)
    return json.dumps(policy)


def _replaced(named: Any, arn: str, unique_id: str) -> Any:
    if isinstance(named, list):
        return [_replaced(name, arn, unique_id) for name in named]
    return unique_id if named == arn else named
