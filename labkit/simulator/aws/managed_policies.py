"""Managed policies. AWS's own are one long text in moto's data. A policy is only parsed and loaded when it's needed.

All parsed policies would take about 50 MiB of memory.
"""

import base64
import hashlib
import json
import re
from typing import Any

from labkit.policy.arn import Arn
from labkit.simulator.aws.backend import AWSManagedPolicy, Backend, IAMBackend, aws_managed_policies_data, every

_ARN = re.compile(r"arn:aws:iam::aws:policy/(?:.*/)?([^/]+)")
_NAME = re.compile(r'^ "([^"]+)":\{', re.MULTILINE)
_decoder = json.JSONDecoder()


def document(backend: Backend, arn: str) -> str | None:
    """Return the document of a managed policy's default version; None if the policy doesn't exist."""
    account_id = named.account if (named := Arn.find(arn)) else ""
    iam = backend.iam(backend.account_id if account_id == "aws" else account_id)
    if iam is None:
        return None
    load(iam, arn)
    policy = iam.managed_policies.get(arn)
    return next((v.document for v in policy.versions if v.is_default), None) if policy else None


def load(iam: IAMBackend, arn: str) -> None:
    """Load the AWS managed policy with this ARN into ``iam``; do nothing if AWS has no such policy."""
    if arn not in iam.managed_policies and (policy := _find(arn)):
        _add(iam, *policy, arn)


def load_all(iam: IAMBackend) -> None:
    """Load all AWS managed policies into ``iam``, so that a call can list them."""
    for match in _NAME.finditer(aws_managed_policies_data):
        _add(iam, match[1], _decoder.raw_decode(aws_managed_policies_data, match.end() - 1)[0])


def unload(iam: IAMBackend) -> None:
    """Remove unused AWS managed policies from ``iam``. They can be loaded again on demand."""
    iam.managed_policies, iam.aws_managed_policies = in_use(iam)


def in_use(iam: IAMBackend) -> tuple[dict[str, Any], list[Any]]:
    """Return managed policies as a pair: a dictionary by ARN, and a list.

    The dictionary has all policies of customers, and the used policies of AWS. The list has only the used policies of
    AWS. A policy of AWS is used if it's attached, or if it's a permissions boundary.
    """
    bounding = boundaries(iam)
    used = [one for one in iam.aws_managed_policies if one.attachment_count or one.arn in bounding]
    unused = {one.arn for one in iam.aws_managed_policies} - {one.arn for one in used}
    return {arn: one for arn, one in iam.managed_policies.items() if arn not in unused}, used


def boundaries(iam: IAMBackend) -> set[str | None]:
    """The ARNs of all policies that are permissions boundaries of roles or users."""
    return {getattr(one, "permissions_boundary_arn", None) for kind in ("roles", "users") for one in every(iam, kind)}


def _find(arn: str) -> tuple[str, dict[str, object]] | None:
    """Return the name and the content of an AWS managed policy. Return None if moto has no such policy.

    The policy is found by the name at the end of ``arn``. The path before the name is ignored.
    """
    if not (match := _ARN.fullmatch(arn)):
        return None
    key = f'\n "{match[1]}":'
    at = aws_managed_policies_data.find(key)
    return (match[1], _decoder.raw_decode(aws_managed_policies_data, at + len(key))[0]) if at >= 0 else None


def _add(iam: IAMBackend, name: str, content: dict[str, Any], arn: str = "") -> None:
    policy = AWSManagedPolicy.from_data(name, iam.account_id, iam.region_name, content)
    if arn in ("", policy.arn):
        # The policy gets the same id whenever it is loaded; moto does not know all of AWS's ids.
        made = base64.b32encode(hashlib.sha256(policy.arn.encode()).digest()).decode()
        policy.id = content.get("PolicyId") or f"ANPA{made[:17]}"
        if iam.managed_policies.setdefault(policy.arn, policy) is policy:
            # Without this, moto would take it for the account's own policy.
            iam.aws_managed_policies.append(policy)
