import pytest

from labkit.policy import Policy

ISSUER = "oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
PROVIDER = f"arn:aws:iam::123456789012:oidc-provider/{ISSUER}"


@pytest.fixture
def issuer():
    return ISSUER


@pytest.fixture
def provider():
    return PROVIDER


@pytest.fixture
def web_identity():
    """Build a trust policy as the lab writes it. Keywords replace fields of its one statement; None drops a field."""

    def build(**changes):
        statement = {
            "Effect": "Allow",
            "Principal": {"Federated": PROVIDER},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {
                "StringEquals": {
                    f"{ISSUER}:sub": "system:serviceaccount:default:my-service-account",
                    f"{ISSUER}:aud": "sts.amazonaws.com",
                }
            },
        } | changes
        kept = {field: value for field, value in statement.items() if value is not None}
        return {"Version": "2012-10-17", "Statement": [kept]}

    return build


@pytest.fixture
def policy():
    """Build a policy from statements, as if read from storage."""

    def build(*statements, kind="identity", name="under-test", version="2012-10-17"):
        return Policy.read({"Version": version, "Statement": list(statements)}, kind=kind, name=name)

    return build
