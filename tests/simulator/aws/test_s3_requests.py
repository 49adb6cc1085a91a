"""S3's errors for invalid headers and parameters."""

import hashlib
from base64 import b64encode

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import refused

NOT_OURS = "The Content-MD5 you specified did not match what we received."
NO_DIGEST = "The Content-MD5 you specified was invalid."
TWICE = "Cannot provide multiple Tags with the same key"
HEADER_TWICE = (
    "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name "
    "duplicates."
)


def digest(content):
    return b64encode(hashlib.md5(content).digest()).decode()


@pytest.fixture
def s3(aws, irsa):
    return aws.client("s3")


@pytest.fixture
def upload(s3, irsa):
    return s3.create_multipart_upload(Bucket=irsa.bucket, Key="new")["UploadId"]


@pytest.mark.parametrize("given", ["", "foo", "Zm9v", digest(b"x")[:-2]])
def test_s3_refuses_a_malformed_content_md5(s3, irsa, given):
    put = {"Bucket": irsa.bucket, "Key": "new", "Body": b"x", "ContentMD5": given}
    error = refused(lambda: s3.put_object(**put), 400, "InvalidDigest", NO_DIGEST)["Error"]
    assert (error["Content-MD5"] or "") == given


def test_s3_refuses_an_object_or_part_that_does_not_match_its_content_md5(s3, irsa, upload):
    put = {"Bucket": irsa.bucket, "Key": "new", "Body": b"x"}
    error = refused(lambda: s3.put_object(**put, ContentMD5=digest(b"y")), 400, "BadDigest", NOT_OURS)["Error"]
    assert (error["ExpectedDigest"], error["CalculatedDigest"]) == (digest(b"y"), digest(b"x"))
    part = {"UploadId": upload, "PartNumber": 1, "ContentMD5": digest(b"y")}
    refused(lambda: s3.upload_part(**put, **part), 400, "BadDigest", NOT_OURS)
    assert "new" not in [each["Key"] for each in s3.list_objects_v2(Bucket=irsa.bucket)["Contents"]]
    s3.put_object(**put, ContentMD5=digest(b"x"))


def test_s3_checks_content_md5_even_if_only_some_keys_may_be_deleted(aws, irsa):
    irsa.permit({"Effect": "Allow", "Action": "s3:DeleteObject", "Resource": f"arn:aws:s3:::{irsa.bucket}/a"})
    s3, keys = aws.client("s3", irsa.assume()["Credentials"]), [{"Key": "a"}, {"Key": "b"}]
    aws.client("s3").put_object(Bucket=irsa.bucket, Key="a", Body=b"")

    def add_digest(request, **_):
        request.headers["Content-MD5"] = digest(request.body if right else b"y")

    right = False
    s3.meta.events.register("before-sign.s3.DeleteObjects", add_digest)
    delete = {"Bucket": irsa.bucket, "Delete": {"Objects": keys}}
    refused(lambda: s3.delete_objects(**delete), 400, "BadDigest", NOT_OURS)
    right = True
    answer = s3.delete_objects(**delete)
    assert ([each["Key"] for each in answer["Deleted"]], [each["Key"] for each in answer["Errors"]]) == (["a"], ["b"])


@pytest.mark.parametrize(("operation", "parameter", "argument"), [
    ("list_objects", "MaxKeys", "maxKeys"),
    ("list_objects_v2", "MaxKeys", "maxKeys"),
    ("list_object_versions", "MaxKeys", "maxKeys"),
    ("list_multipart_uploads", "MaxUploads", "max-uploads"),
    ("list_parts", "MaxParts", "max-parts"),
])  # fmt: skip
def test_s3_refuses_a_page_size_below_zero_or_above_2147483647(s3, irsa, upload, operation, parameter, argument):
    of_upload = {"Key": "new", "UploadId": upload} if operation == "list_parts" else {}

    def read(size):
        return getattr(s3, operation)(Bucket=irsa.bucket, **of_upload, **{parameter: size})

    message = f"Argument {argument} must be an integer between 0 and 2147483647"
    error = refused(lambda: read(-1), 400, "InvalidArgument", message)["Error"]
    assert (error["ArgumentName"], error["ArgumentValue"]) == (argument, "-1")
    read(0)
    read(2**31 - 1)
    with pytest.raises(ClientError, match="not an integer or within integer range"):
        read(2**31)


@pytest.mark.parametrize("size", [-1, 0, 10_001])
def test_list_buckets_refuses_a_page_size_outside_1_to_10000(s3, size):
    message = "Argument max-buckets must be an integer between 1 and 10000"
    refused(lambda: s3.list_buckets(MaxBuckets=size), 400, "InvalidArgument", message)
    assert s3.list_buckets(MaxBuckets=1)["Buckets"]
    assert s3.list_buckets(MaxBuckets=10_000)["Buckets"]


def test_s3_refuses_two_tags_with_the_same_key(aws, irsa, s3):
    tagging = {"TagSet": [{"Key": "a", "Value": "1"}, {"Key": "a", "Value": "2"}]}
    refused(lambda: s3.put_bucket_tagging(Bucket=irsa.bucket, Tagging=tagging), 400, "InvalidTag", TWICE)
    irsa.permit({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    for client in (s3, aws.client("s3", irsa.assume()["Credentials"])):
        of_hello = {"Bucket": irsa.bucket, "Key": "hello.txt", "Tagging": tagging}
        refused(lambda client=client, of=of_hello: client.put_object_tagging(**of), 400, "InvalidTag", TWICE)
        of_new = {"Bucket": irsa.bucket, "Key": "new", "Tagging": "a=1&a=2"}
        for make in (client.put_object, client.create_multipart_upload):
            error = refused(lambda make=make, of=of_new: make(**of), 400, "InvalidArgument", HEADER_TWICE)["Error"]
            assert (error["ArgumentName"], error["ArgumentValue"]) == ("x-amz-tagging", "a=1&a=2")
    assert s3.get_object_tagging(Bucket=irsa.bucket, Key="hello.txt")["TagSet"] == []


@pytest.mark.parametrize(
    ("keys", "message"), [(["a", "a"], TWICE), (["a", "aws:b"], "System tags cannot be added/updated by requester")]
)
def test_s3_refuses_bucket_tags_with_repeated_or_reserved_keys(s3, keys, message):
    tags = [{"Key": key, "Value": "1"} for key in keys]
    new = {"Bucket": "tagged-bucket", "CreateBucketConfiguration": {"Tags": tags}}
    refused(lambda: s3.create_bucket(**new), 400, "InvalidTag", message)
    tagging = {"Bucket": "irsa-lab", "Tagging": {"TagSet": tags}}
    refused(lambda: s3.put_bucket_tagging(**tagging), 400, "InvalidTag", message)
    assert [each["Name"] for each in s3.list_buckets()["Buckets"]] == ["irsa-lab"]
    del tags[1]
    s3.create_bucket(**new)
    assert s3.get_bucket_tagging(Bucket="tagged-bucket")["TagSet"] == tags
    s3.create_bucket(Bucket="tagged-bucket")  # in us-east-1, S3 accepts this, and changes nothing
    assert s3.get_bucket_tagging(Bucket="tagged-bucket")["TagSet"] == tags
    s3.put_bucket_tagging(**tagging)


@pytest.mark.parametrize("given", [{}, {"ObjectOwnership": "ObjectWriter"}])
def test_a_new_bucket_has_ownership_controls(s3, given):
    s3.create_bucket(Bucket="owned", **given)
    rules = s3.get_bucket_ownership_controls(Bucket="owned")["OwnershipControls"]["Rules"]
    assert rules == [{"ObjectOwnership": "BucketOwnerEnforced"} | given]
    s3.delete_bucket_ownership_controls(Bucket="owned")
    with pytest.raises(ClientError, match="OwnershipControlsNotFoundError"):
        s3.get_bucket_ownership_controls(Bucket="owned")


@pytest.mark.parametrize(("operation", "on"), [
    ("put_object", {"Key": "new"}),
    ("create_multipart_upload", {"Key": "new"}),
    ("copy_object", {"Key": "new", "CopySource": "irsa-lab/hello.txt"}),
    ("put_object_acl", {"Key": "hello.txt"}),
    ("put_bucket_acl", {}),
    ("create_bucket", {"Bucket": "tagged-bucket"}),
])  # fmt: skip
def test_s3_refuses_an_unknown_acl(s3, irsa, operation, on):
    def call(acl):
        return getattr(s3, operation)(**{"Bucket": irsa.bucket} | on, ACL=acl)

    # S3's error doesn't have a message here.
    error = refused(lambda: call("foo"), 400, "InvalidArgument", None)["Error"]
    assert (error["ArgumentName"], error["ArgumentValue"]) == ("x-amz-acl", "foo")
    call("public-read")
