"""The bucket that the pod reads, with one object in it."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from labkit.steps.ownership import OwnedResource, Owner, in_words, of_tags, roles_trusting, run_of

if TYPE_CHECKING:
    import boto3

    from labkit.workspace import Workspace

KEY, BODY = "hello.txt", b"hello from the lab\n"


def ensure(lab: "Workspace") -> None:
    """Create the bucket and the object if they are missing."""
    s3, name = lab.aws.client("s3"), lab.parameters.bucket
    if not _exists(s3.head_bucket, Bucket=name):
        create(lab.aws, name)
        try:
            s3.put_bucket_tagging(Bucket=name, Tagging={"TagSet": lab.tags})
        except BaseException:
            # Without the tag, the bucket would have no owner, and a removal would keep it.
            s3.delete_bucket(Bucket=name)
            raise
    if not _exists(s3.head_object, Bucket=name, Key=KEY):
        s3.put_object(Bucket=name, Key=KEY, Body=BODY)


def _exists(head: Callable[..., object], **named: str) -> bool:
    try:
        head(**named)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
        return False
    return True


def create(session: "boto3.Session", name: str) -> None:
    """Create a bucket in the session's region.

    https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html
    """
    region = session.region_name
    elsewhere = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    session.client("s3").create_bucket(Bucket=name, **elsewhere)


def resources(lab: "Workspace") -> Iterator[OwnedResource]:
    """Yield the account's buckets, each with its owner. `OwnedResource.delete` also deletes a bucket's objects."""
    s3 = lab.aws.client("s3")
    for bucket in s3.list_buckets()["Buckets"]:
        name = bucket["Name"]
        try:
            tags = s3.get_bucket_tagging(Bucket=name)["TagSet"]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            # A bucket may refuse even its account's administrators. Such a bucket isn't the run's.
            if code == "AccessDenied" and name != lab.parameters.bucket:
                continue
            if code != "NoSuchTagSet":
                raise
            tags = []
        owner = of_tags(lab, tags, same_name=name == lab.parameters.bucket)
        used = _used(lab) if owner is Owner.THIS_RUN and not lab.connection.is_embedded else ""
        yield OwnedResource(f"bucket {name}{used}", owner, partial(_delete, s3, name))


def _used(lab: "Workspace") -> str:
    """Return a note about other runs that may still use the bucket."""
    roles = roles_trusting(lab, ":oidc-provider/")
    others = [role["RoleName"] for role, tags in roles if run_of(tags) not in (None, lab.run)]
    use = in_words(sorted(others), "of another run may still use it", "of other runs may still use it")
    return f" ({use})" if others else ""


def _delete(s3: Any, name: str) -> None:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        for item in page.get("Contents", []):
            s3.delete_object(Bucket=name, Key=item["Key"])
    s3.delete_bucket(Bucket=name)
