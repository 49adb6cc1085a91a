"""Check bucket policies as S3 does before it stores them.

What differs from AWS: S3 also refuses condition keys that don't exist or that don't fit the actions.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
"""

from typing import Any

from labkit.policy import MalformedPolicy, Policy
from labkit.policy.validation import listed
from labkit.policy.wildcards import wildcard
from labkit.simulator.aws.actions.s3 import BUCKET_READS, NOT_WRITTEN, ON_BUCKET, ON_OBJECT
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.iam_documents import missing_principals
from labkit.simulator.aws.refusals import Refusal

ARN = "arn:aws:s3:::"
# The actions on a bucket, in lower case.
BUCKETS = {
    f"s3:{name}".lower()
    for name in (
        *(f"Get{action or operation}" for operation, action in BUCKET_READS.values()),
        *(f"Put{action or operation}" for key, (operation, action) in BUCKET_READS.items() if key not in NOT_WRITTEN),
        *(action for _, action in ON_BUCKET.values()),
        "CreateBucket", "CreateBucketMetadataTableConfiguration", "DeleteBucketMetadataTableConfiguration",
        "DeleteBucketPolicy", "DeleteBucketWebsite", "GetBucketAbac", "GetBucketMetadataTableConfiguration",
        "ListTagsForResource", "PutBucketAbac", "TagResource", "UntagResource",
        "UpdateBucketMetadataInventoryTableConfiguration", "UpdateBucketMetadataJournalTableConfiguration",
    )
}  # fmt: skip
# The actions on an object, in lower case.
OBJECTS = {
    f"s3:{name}".lower()
    for name in (
        *(action.format(word) for _, *needed in ON_OBJECT.values() for action in needed for word in ("", "Version")),
        "BypassGovernanceRetention", "GetObjectTorrent", "GetObjectVersionForReplication", "GetObjectVersionTorrent",
        "InitiateReplication", "ObjectOwnerOverrideToBucketOwner", "PutObject", "ReplicateDelete", "ReplicateObject",
        "ReplicateTags", "UpdateObjectEncryption",
    )
}  # fmt: skip
NOT_APPLICABLE = "Action does not apply to any resource(s) in statement"


def check(document: str, bucket: str, backend: Backend) -> None:
    """Raise ``Refusal`` if S3 would refuse this policy for the bucket."""
    try:
        policy = Policy.parse(document, kind="resource", name="bucket policy")
    except MalformedPolicy as malformed:
        raise _malformed(malformed.message, malformed.message) from malformed
    if missing := missing_principals(policy.document, backend):
        raise _malformed("Invalid principal in policy", f"the policy names {missing[0]}, which does not exist")
    for statement in listed(policy.document["Statement"]):
        for resource in listed(statement.get("Resource", [])):
            named = resource.removeprefix(ARN).partition("/")[0]
            if named != bucket and not set("*?$") & set(named):
                raise _malformed("Policy has invalid resource", f"{resource} is not in the bucket {bucket}")
        for action in listed(statement.get("Action", [])):
            _check_action(action, statement)


def _check_action(action: str, statement: dict[str, Any]) -> None:
    covers = wildcard(action.lower())
    on_buckets, on_objects = any(map(covers, BUCKETS)), any(map(covers, OBJECTS))
    if not on_buckets and not on_objects:
        raise _malformed("Policy has invalid action", f"S3 has no action {action} on a bucket or an object")
    resources = listed(statement.get("Resource", []))
    # A pattern without a slash also matches objects.
    named = any((on_buckets and "/" not in each) or (on_objects and {*each} & {*"/*?"}) for each in resources)
    if resources and not named:
        raise _malformed(NOT_APPLICABLE, f"{action} is not an action on {' or '.join(resources)}")


def _malformed(message: str, reason: str) -> Refusal:
    return Refusal(400, "MalformedPolicy", message, reason)
