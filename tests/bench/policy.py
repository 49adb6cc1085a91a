"""The time of one decision on 20 statements, including the time to build the request."""

import statistics
import time

from labkit.policy import Policy, Principal, Request, evaluate

TIMES = 20_000
ROLE = "arn:aws:iam::123456789012:role/my-role"
SESSION = "arn:aws:sts::123456789012:assumed-role/my-role/my-session"
BUCKET = "arn:aws:s3:::bucket-16"
CONTEXT = {
    "aws:CurrentTime": "2026-01-01T00:00:00Z",
    "aws:EpochTime": "1767225600",
    "aws:PrincipalTag/team": "blue",
    "aws:RequestedRegion": "us-east-1",
    "aws:SecureTransport": "true",
    "aws:SourceIp": "10.1.2.3",
    "aws:UserAgent": "Boto3/1.43",
    "aws:userid": "AROAEXAMPLE:my-session",
}
# One allowed by a late statement, one without a statement near it, and one denied after every condition was checked.
REQUESTS = {
    "allowed": ("s3:GetObject", f"{BUCKET}/blue/key"),
    "no statement": ("sqs:SendMessage", "arn:aws:sqs:us-east-1:123456789012:queue"),
    "by conditions": ("s3:GetObject", f"{BUCKET}/red/key"),
}


def decisions() -> str:
    """Measure allowed and denied requests (medians), and a denial together with its reason."""
    policies, boundary = _identity(), _boundary()
    lines = []
    for name, (action, resource) in REQUESTS.items():
        decide = _decide(policies, boundary, action, resource)
        assert decide().allowed is (name == "allowed"), name
        lines.append(f"{name} {_median(decide):.1f} µs")
    denied = _decide(policies, boundary, *REQUESTS["by conditions"])
    return f"{', '.join(lines)}, with its reason {_median(lambda: denied().reason):.1f} µs"


def _identity() -> list[Policy]:
    """Two policies: actions by name and by wildcard, a resource with a variable, two Denies, a few conditions."""
    statements = [_allow(number) for number in range(15)]
    inside = {"IpAddress": {"aws:SourceIp": ["192.168.0.0/16", "10.0.0.0/8"]}, "Bool": {"aws:SecureTransport": "true"}}
    own = {
        "Effect": "Allow",
        "Action": ["s3:GetObject*", "s3:ListBucket"],
        "Resource": [f"{BUCKET}/${{aws:PrincipalTag/team}}/*", f"{BUCKET}/shared/*"],
        "Condition": inside,
    }
    elsewhere = own | {
        "Resource": f"{BUCKET}/*",
        "Condition": inside | {"StringEquals": {"aws:PrincipalTag/team": ["red", "green"]}},
    }
    denies = [
        {"Effect": "Deny", "NotAction": "s3:*", "Resource": "*", "Condition": {"StringNotEquals": {
            "aws:RequestedRegion": ["us-east-1", "eu-west-1"]}}},
        {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "false"}}},
    ]  # fmt: skip
    last = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
    return [_policy("first", *statements[:8], *denies), _policy("second", *statements[8:], elsewhere, own, last)]


def _allow(number: int) -> dict:
    statement = {
        "Sid": f"Statement{number}",
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:Put*", "s3:List*"] if number % 2 else [f"dynamodb:Get{number}", "dynamodb:Q*"],
        "Resource": [f"arn:aws:s3:::bucket-{number}", f"arn:aws:s3:::bucket-{number}/*"],
    }
    condition = {"StringLike": {"aws:PrincipalTag/team": "bl*"}, "DateGreaterThan": {"aws:CurrentTime": "2020-01-01"}}
    return statement | ({"Condition": condition} if number % 3 == 0 else {})


def _boundary() -> Policy:
    return _policy("limit", {"Effect": "Allow", "Action": ["s3:*", "dynamodb:*"], "Resource": "*"}, kind="boundary")


def _policy(name: str, *statements: dict, kind: str = "identity") -> Policy:
    return Policy.parse({"Version": "2012-10-17", "Statement": list(statements)}, kind=kind, name=name)


def _decide(policies: list[Policy], boundary: Policy, action: str, resource: str):
    def decide():
        request = Request(Principal.role_session(SESSION, ROLE), action, resource, CONTEXT)
        return evaluate(request, identity=policies, boundary=boundary)

    return decide


def _median(call) -> float:
    """Return the median time of a call, in microseconds."""
    taken = []
    for _ in range(TIMES):
        started = time.perf_counter_ns()
        call()
        taken.append(time.perf_counter_ns() - started)
    return statistics.median(taken) / 1000
