"""What S3 lets a role session and the administrator do with objects, buckets and bucket policies."""

import hashlib
import hmac
import json

import botocore.auth
import httpx
from botocore.awsrequest import AWSRequest

from labkit.simulator.aws import signature
from tests.simulator.aws.conftest import (
    ADMINISTRATOR,
    ADMINISTRATOR_CREDENTIALS,
    REGION,
    by_hand,
    code_of,
    permit,
    refused,
)


def test_s3_decides_separately_about_each_key_of_a_delete(aws, irsa):
    administrator = aws.client("s3")
    for key in ("mine/a", "mine/b", "yours"):
        administrator.put_object(Bucket="irsa-lab", Key=key, Body=b"")
    irsa.permit(permit("s3:DeleteObject", resource="arn:aws:s3:::irsa-lab/mine/*"))
    s3 = aws.client("s3", irsa.assume()["Credentials"])
    objects = [{"Key": "mine/a"}, {"Key": "yours"}, {"Key": "mine/b"}]
    answer = s3.delete_objects(Bucket="irsa-lab", Delete={"Objects": objects})
    assert sorted(entry["Key"] for entry in answer["Deleted"]) == ["mine/a", "mine/b"]
    assert [(entry["Key"], entry["Code"]) for entry in answer["Errors"]] == [("yours", "AccessDenied")]
    left = administrator.list_objects_v2(Bucket="irsa-lab")["Contents"]
    assert [entry["Key"] for entry in left] == ["hello.txt", "yours"]


def test_copying_an_object_needs_permission_to_read_its_source(aws, irsa):
    aws.client("s3").put_object(Bucket="irsa-lab", Key="secret", Body=b"secret")
    irsa.permit(
        permit("s3:PutObject", "s3:GetObject", resource="arn:aws:s3:::irsa-lab/public/*"),
        permit("s3:GetObject", resource="arn:aws:s3:::irsa-lab/secret;*"),
    )
    s3 = aws.client("s3", irsa.assume()["Credentials"])

    def copy(source):
        return s3.copy_object(Bucket="irsa-lab", Key="public/copy", CopySource=source)

    _, code, message = code_of(lambda: copy("irsa-lab/secret"))
    assert code == "AccessDenied"
    assert 's3:GetObject on resource: "arn:aws:s3:::irsa-lab/secret"' in message
    # moto cuts a source off at these characters. The gate must not authorize one key while moto copies another.
    for source in ("irsa-lab/secret;x", "irsa-lab/secret#x"):
        assert code_of(lambda source=source: copy(source))[1] in ("AccessDenied", "NoSuchKey")
    # A source must be a bucket and a key, for the administrator, too: another account could own anything else.
    for source in ("nothing", "//irsa-lab/secret", "arn:aws:s3:us-east-1:123456789012:accesspoint/a/object/b"):
        for client in (s3, aws.client("s3")):
            parameters = {"Bucket": "irsa-lab", "Key": "public/copy", "CopySource": source}
            status, code, message = code_of(
                lambda client=client, parameters=parameters: client.copy_object(**parameters)
            )
            assert (status, code) == (400, "InvalidArgument")
            assert message.startswith("Copy Source must mention the source bucket and key")
    s3.put_object(Bucket="irsa-lab", Key="public/a b+c;d", Body=b"abc")
    copy({"Bucket": "irsa-lab", "Key": "public/a b+c;d"})
    assert s3.get_object(Bucket="irsa-lab", Key="public/copy")["Body"].read() == b"abc"


def test_a_bucket_policy_denies_the_administrator_who_can_still_delete_the_policy(aws, irsa):
    s3 = aws.client("s3")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": "arn:aws:s3:::irsa-lab/*"}
    deny_bucket = deny | {"Resource": "arn:aws:s3:::irsa-lab"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [deny, deny_bucket]})
    s3.put_bucket_policy(Bucket="irsa-lab", Policy=document)
    status, code, message = code_of(lambda: s3.delete_object(Bucket="irsa-lab", Key="hello.txt"))
    assert (status, code) == (403, "AccessDenied")
    assert message.endswith("with an explicit deny in a resource-based policy")
    refused = s3.delete_objects(Bucket="irsa-lab", Delete={"Objects": [{"Key": "hello.txt"}]})
    assert [entry["Code"] for entry in refused["Errors"]] == ["AccessDenied"]
    s3.delete_bucket_policy(Bucket="irsa-lab")
    s3.delete_object(Bucket="irsa-lab", Key="hello.txt")


def test_s3_refuses_a_malformed_bucket_policy(aws, irsa):
    actual = code_of(lambda: aws.client("s3").put_bucket_policy(Bucket="irsa-lab", Policy="{}"))
    assert actual[:2] == (400, "MalformedPolicy")


def test_a_bucket_does_not_get_the_tags_of_a_deleted_one_of_the_same_name(aws, irsa):
    s3 = aws.client("s3")
    irsa.permit(permit("s3:DeleteBucket", resource="*"))
    for deletes in (s3, aws.client("s3", irsa.assume()["Credentials"])):
        s3.create_bucket(Bucket="twice")
        assert code_of(lambda: s3.get_bucket_tagging(Bucket="twice"))[:2] == (404, "NoSuchTagSet")
        s3.put_bucket_tagging(Bucket="twice", Tagging={"TagSet": [{"Key": "team", "Value": "blue"}]})
        s3.put_object(Bucket="twice", Key="key", Body=b"")
        assert code_of(lambda deletes=deletes: deletes.delete_bucket(Bucket="twice"))[1] == "BucketNotEmpty"
        assert s3.get_bucket_tagging(Bucket="twice")["TagSet"] == [{"Key": "team", "Value": "blue"}]
        s3.delete_object(Bucket="twice", Key="key")
        deletes.delete_bucket(Bucket="twice")
    s3.create_bucket(Bucket="twice")
    assert code_of(lambda: s3.get_bucket_tagging(Bucket="twice"))[:2] == (404, "NoSuchTagSet")
    s3.delete_bucket(Bucket="twice")


def test_getting_a_delete_marker_fails_by_its_key_and_by_its_version(aws, irsa):
    s3, key = aws.client("s3"), {"Bucket": irsa.bucket, "Key": "hello.txt"}
    s3.put_bucket_versioning(Bucket=irsa.bucket, VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(**key, Body=b"again")
    marker = s3.delete_object(**key)["VersionId"]
    not_allowed = "The specified method is not allowed against this resource."
    for client in (s3, aws.client("s3", irsa.assume()["Credentials"])):
        for of, status, code, message in (
            ({}, 404, "NoSuchKey", "The specified key does not exist."),
            ({"VersionId": marker}, 405, "MethodNotAllowed", not_allowed),
        ):
            answer = refused(lambda client=client, of=of: client.get_object(**key, **of), status, code, message)
            headers = answer["ResponseMetadata"]["HTTPHeaders"]
            assert (headers["x-amz-delete-marker"], headers["x-amz-version-id"]) == ("true", marker)
            assert headers.get("allow") == ("DELETE" if of else None)
            assert answer["Error"].get("ResourceType") == ("DeleteMarker" if of else None)


def test_a_condition_on_the_prefix_limits_which_keys_a_session_lists(aws, irsa):
    statement = permit("s3:ListBucket", resource="arn:aws:s3:::irsa-lab")
    irsa.permit(statement | {"Condition": {"StringLike": {"s3:prefix": "home/*"}}})
    s3 = aws.client("s3", irsa.assume()["Credentials"])
    s3.list_objects_v2(Bucket="irsa-lab", Prefix="home/me")
    assert code_of(lambda: s3.list_objects_v2(Bucket="irsa-lab"))[:2] == (403, "AccessDenied")
    assert code_of(lambda: s3.head_bucket(Bucket="irsa-lab")) == (403, "403", "Forbidden")


def test_a_session_uploads_in_parts_and_needs_permission_for_each_sub_resource(aws, irsa):
    irsa.permit(permit("s3:PutObject", "s3:AbortMultipartUpload", "s3:GetBucketTagging", "s3:GetObject"))
    s3 = aws.client("s3", irsa.assume()["Credentials"])
    target = {"Bucket": "irsa-lab", "Key": "parts"}
    upload = s3.create_multipart_upload(**target)["UploadId"]
    part = s3.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"one part")
    parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    s3.complete_multipart_upload(**target, UploadId=upload, MultipartUpload=parts)
    assert s3.get_object(**target)["Body"].read() == b"one part"
    assert code_of(lambda: s3.get_bucket_tagging(Bucket="irsa-lab"))[:2] == (404, "NoSuchTagSet")
    assert code_of(lambda: s3.get_bucket_policy(Bucket="irsa-lab"))[:2] == (403, "AccessDenied")
    assert code_of(lambda: s3.put_object(**target, Tagging="a=b"))[:2] == (403, "AccessDenied")


def test_s3_takes_an_upload_in_signed_chunks_and_refuses_a_changed_chunk(aws, irsa):
    """SDKs other than botocore send this to an http endpoint. Each chunk's signature continues the one before it."""
    body, kind = b"a" * 70_000, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    url = f"{aws.endpoint}/irsa-lab/chunks"

    def send(spoil):
        headers = {"X-Amz-Decoded-Content-Length": str(len(body)), "Content-Encoding": "aws-chunked"}
        request = AWSRequest("PUT", url, data=b"", headers=headers)
        signer = botocore.auth.S3SigV4Auth(ADMINISTRATOR_CREDENTIALS, "s3", REGION)
        signer.payload = lambda _: kind
        signer.add_auth(request)
        stamp = request.headers["X-Amz-Date"]
        key = signature.signing_key(ADMINISTRATOR.secret_access_key, stamp[:8], REGION, "s3")
        previous, framed = request.headers["Authorization"].rpartition("Signature=")[2], b""
        for piece in (body[:65536], body[65536:], b""):
            hashed = hashlib.sha256(piece).hexdigest()
            scope = f"{stamp[:8]}/{REGION}/s3/aws4_request"
            text = "\n".join(("AWS4-HMAC-SHA256-PAYLOAD", stamp, scope, previous, signature.EMPTY, hashed))
            previous = hmac.digest(key, text.encode(), "sha256").hex()
            framed += f"{len(piece):x};chunk-signature={previous}\r\n".encode() + piece + b"\r\n"
        return httpx.put(url, content=spoil(framed), headers=dict(request.headers), trust_env=False, timeout=60)

    assert send(lambda framed: framed).status_code == 200
    assert aws.client("s3").get_object(Bucket="irsa-lab", Key="chunks")["Body"].read() == body
    answer = send(lambda framed: framed.replace(b"aaa", b"aab", 1))
    assert (answer.status_code, "SignatureDoesNotMatch" in answer.text) == (403, True)


def test_s3_refuses_an_unknown_checksum_algorithm(aws, irsa):
    for header in ("x_amz_sdk_checksum_algorithm", "x_amz_checksum_algorithm"):
        answer = by_hand(aws, "s3", "PUT", f"/{irsa.bucket}/hello.txt", b"x", **{header: "a=b"})
        assert (answer.status_code, "<Code>InvalidRequest</Code>" in answer.text) == (400, True)
        assert "valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]" in answer.text
    assert aws.client("s3").get_object(Bucket=irsa.bucket, Key="hello.txt")["Body"].read() == b"hello"
