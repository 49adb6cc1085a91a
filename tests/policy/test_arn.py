"""Parsing an ARN into its parts, and writing it back."""

import pytest

from labkit.policy.arn import Arn


@pytest.mark.parametrize(("text", "parts", "name"), [
    ("arn:aws:iam::123456789012:role/a/reader", ("aws", "iam", "", "123456789012", "role/a/reader"), "reader"),
    ("arn:aws-cn:s3:::bucket/a:b", ("aws-cn", "s3", "", "", "bucket/a:b"), "a:b"),
    ("arn:aws:sqs:us-east-1:123456789012:queue", ("aws", "sqs", "us-east-1", "123456789012", "queue"), "queue"),
    ("arn:aws:iam::aws:policy/Admin", ("aws", "iam", "", "aws", "policy/Admin"), "Admin"),
])  # fmt: skip
def test_an_arn_is_parsed_and_written_back_unchanged(text, parts, name):
    arn = Arn.parse(text)
    assert (arn.partition, arn.service, arn.region, arn.account, arn.resource) == parts
    assert arn.name == name
    assert str(arn) == text
    assert Arn.find(text) == arn
    assert str(arn.sibling("x/y")) == text.removesuffix(parts[4]) + "x/y"


@pytest.mark.parametrize("text", ["", "*", "role/x", "arn:aws:iam::123456789012", "urn:aws:iam::123456789012:role/x"])
def test_parse_raises_for_text_that_is_not_an_arn(text):
    assert Arn.find(text) is None
    with pytest.raises(ValueError, match="is not an ARN"):
        Arn.parse(text)


@pytest.mark.parametrize(("resource", "path", "issuer"), [
    ("role/reader", "/", ""),
    ("role/team/a/reader", "/team/a/", ""),
    ("policy/service-role/reader", "/service-role/", ""),
    ("oidc-provider/example.com/id/A", "/example.com/id/", "example.com/id/A"),
])  # fmt: skip
def test_an_arn_s_path_and_issuer_are_read_from_its_resource(resource, path, issuer):
    arn = Arn.parse(f"arn:aws:iam::123456789012:{resource}")
    assert (arn.path, arn.issuer) == (path, issuer)
