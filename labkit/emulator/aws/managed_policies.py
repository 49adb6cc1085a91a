"""AWS's managed policies, brought into moto's IAM one by one when one is attached or read.

moto loads all of them or none; all of them parsed at once cost about 50 MiB.
"""

import json
import re
from typing import Any

from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.iam.models import AWSManagedPolicy, IAMBackend

_ARN = re.compile(r"arn:aws:iam::aws:policy/(?:.*/)?([^/]+)")
_NAME = re.compile(r'^ "([^"]+)":\{', re.MULTILINE)
_decoder = json.JSONDecoder()


def load(backend: IAMBackend, arn: str) -> None:
    """Makes the AWS managed policy with this ARN known to ``backend``; nothing happens where there is none."""
    found = _ARN.fullmatch(arn)
    if not found or arn in backend.managed_policies:
        return
    key = f'\n "{found[1]}":'
    at = aws_managed_policies_data.find(key)
    if at >= 0:
        _add(backend, found[1], _decoder.raw_decode(aws_managed_policies_data, at + len(key))[0], arn)


def load_all(backend: IAMBackend) -> None:
    """Makes all of them known, for a list of them."""
    for found in _NAME.finditer(aws_managed_policies_data):
        name = found[1]
        _add(backend, name, _decoder.raw_decode(aws_managed_policies_data, found.end() - 1)[0])


def _add(backend: IAMBackend, name: str, data: dict[str, Any], arn: str = "") -> None:
    policy = AWSManagedPolicy.from_data(name, backend.account_id, backend.region_name, data)
    if arn in ("", policy.arn):
        policy.id = data.get("PolicyId") or policy.id
        if backend.managed_policies.setdefault(policy.arn, policy) is policy:
            # Else moto takes it for one of the account's own.
            backend.aws_managed_policies.append(policy)
