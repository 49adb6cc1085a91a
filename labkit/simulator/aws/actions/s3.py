"""The permissions that S3's requests need.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

import math
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import parse_qsl
from xml.etree import ElementTree

from labkit.simulator.aws.answers import Refusal
from labkit.simulator.aws.call import (
    BUCKET_NAME,
    S3_CONTROL,
    AwsRequest,
    Call,
    CannotDerive,
    Context,
    Permission,
    copy_source,
    pass_role,
)
from labkit.simulator.clock import Clock

# For each sub-resource of a bucket: the word in the operations' names, and the word in the actions' names if different.
BUCKET_READS = {
    "accelerate": ("BucketAccelerateConfiguration", "AccelerateConfiguration"),
    "acl": ("BucketAcl", ""),
    "analytics": ("BucketAnalyticsConfiguration", "AnalyticsConfiguration"),
    "cors": ("BucketCors", "BucketCORS"),
    "encryption": ("BucketEncryption", "EncryptionConfiguration"),
    "intelligent-tiering": ("BucketIntelligentTieringConfiguration", "IntelligentTieringConfiguration"),
    "inventory": ("BucketInventoryConfiguration", "InventoryConfiguration"),
    "lifecycle": ("BucketLifecycleConfiguration", "LifecycleConfiguration"),
    "location": ("BucketLocation", ""),
    "logging": ("BucketLogging", ""),
    "metrics": ("BucketMetricsConfiguration", "MetricsConfiguration"),
    "notification": ("BucketNotificationConfiguration", "BucketNotification"),
    "object-lock": ("ObjectLockConfiguration", "BucketObjectLockConfiguration"),
    "ownershipControls": ("BucketOwnershipControls", ""),
    "policy": ("BucketPolicy", ""),
    "policyStatus": ("BucketPolicyStatus", ""),
    "publicAccessBlock": ("PublicAccessBlock", "BucketPublicAccessBlock"),
    "replication": ("BucketReplication", "ReplicationConfiguration"),
    "requestPayment": ("BucketRequestPayment", ""),
    "tagging": ("BucketTagging", ""),
    "versioning": ("BucketVersioning", ""),
    "website": ("BucketWebsite", ""),
}
NOT_WRITTEN = {"location", "policyStatus"}
# A bucket's policy and website have delete actions of their own. Deleting another configuration needs its put action.
DELETED = {"policy": "DeleteBucketPolicy", "website": "DeleteBucketWebsite"}
NOT_DELETED = {"accelerate", "acl", "logging", "notification", "object-lock", "requestPayment", "versioning"}
NOT_ALLOWED = "The specified method is not allowed against this resource."

OBJECT_SUBRESOURCES = {"acl", "attributes", "legal-hold", "restore", "retention", "select", "tagging", "uploads"}
BUCKET_SUBRESOURCES = {*BUCKET_READS, "delete", "uploads", "versions"}
OPTIONS = {
    "bucket-region", "continuation-token", "delimiter", "encoding-type", "fetch-owner", "id", "key-marker",
    "list-type", "marker", "max-buckets", "max-keys", "max-parts", "max-uploads", "part-number-marker", "partNumber",
    "prefix", "response-cache-control", "response-content-disposition", "response-content-encoding",
    "response-content-language", "response-content-type", "response-expires", "select-type", "start-after",
    "upload-id-marker", "uploadId", "version-id-marker", "versionId", "x-id",
}  # fmt: skip
CONDITION_HEADERS = (
    "if-match", "if-none-match", "x-amz-acl", "x-amz-bucket-namespace", "x-amz-content-sha256", "x-amz-copy-source",
    "x-amz-grant-full-control", "x-amz-grant-read", "x-amz-grant-read-acp", "x-amz-grant-write",
    "x-amz-grant-write-acp", "x-amz-metadata-directive", "x-amz-object-ownership", "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id", "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-object-annotation-directive", "x-amz-storage-class", "x-amz-website-redirect-location",
)  # fmt: skip
RETAIN_UNTIL = "s3:object-lock-retain-until-date"
# The condition keys of an object's lock, and the headers that set it.
LOCK_HEADERS = {
    "s3:object-lock-event-hold": "x-amz-object-lock-event-hold",
    "s3:object-lock-event-hold-duration-days": "x-amz-object-lock-event-hold-duration-days",
    "s3:object-lock-legal-hold": "x-amz-object-lock-legal-hold",
    "s3:object-lock-mode": "x-amz-object-lock-mode",
    RETAIN_UNTIL: "x-amz-object-lock-retain-until-date",
}
# Condition keys from a request's body, by the operation and the XML element.
FROM_BODY = {
    "CreateBucket": {"LocationConstraint": "s3:locationconstraint"},
    "PutBucketInventoryConfiguration": {"Field": "s3:InventoryAccessibleOptionalFields"},
    "PutObjectLegalHold": {"Status": "s3:object-lock-legal-hold"},
    "PutObjectRetention": {"Mode": "s3:object-lock-mode", "RetainUntilDate": RETAIN_UNTIL},
}
# Whether an operation that needs s3:PutObject creates an object, or only a part of one.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
CREATES = {
    "CompleteMultipartUpload": "true",
    "CopyObject": "true",
    "CreateMultipartUpload": "false",
    "PutObject": "true",
    "UploadPart": "false",
    "UploadPartCopy": "false",
}
BYPASS = "x-amz-bypass-governance-retention"
# Keys without a value are known to be absent: the lab has no access points, grants or jobs, no fault injection, and no
# buckets whose tags count in conditions.
KNOWN = frozenset(f"s3:{name}" for name in CONDITION_HEADERS) | LOCK_HEADERS.keys() | {
    "s3:accessgrantsinstancearn", "s3:accesspointnetworkorigin", "s3:accesspointtag/", "s3:authtype", "s3:buckettag/",
    "s3:dataaccesspointaccount", "s3:dataaccesspointarn", "s3:delimiter", "s3:destinationregion",
    "s3:existingobjecttag/", "s3:inventoryaccessibleoptionalfields", "s3:isreplicationpauserequest",
    "s3:locationconstraint", "s3:max-keys", "s3:object-lock-remaining-retention-days", "s3:objectcreationoperation",
    "s3:prefix", "s3:requestobjecttag/", "s3:requestobjecttagkeys", "s3:resourceaccount", "s3:signatureage",
    "s3:signatureversion", "s3:tlsversion", "s3:versionid",
}  # fmt: skip

# The operations on a bucket, and the actions that they need.
ON_BUCKET = {
    ("HEAD", ""): ("HeadBucket", "ListBucket"),
    ("DELETE", ""): ("DeleteBucket", "DeleteBucket"),
    ("GET", "versions"): ("ListObjectVersions", "ListBucketVersions"),
    ("GET", "uploads"): ("ListMultipartUploads", "ListBucketMultipartUploads"),
}
# The operations on an object, by method, sub-resource and whether an upload is named. `{}` becomes "Version" where the
# call names a version.
ON_OBJECT = {
    ("GET", "", False): ("GetObject", "GetObject{}"),
    ("HEAD", "", False): ("HeadObject", "GetObject{}"),
    ("GET", "", True): ("ListParts", "ListMultipartUploadParts"),
    ("GET", "acl", False): ("GetObjectAcl", "GetObject{}Acl"),
    ("GET", "tagging", False): ("GetObjectTagging", "GetObject{}Tagging"),
    ("GET", "attributes", False): ("GetObjectAttributes", "GetObject{}", "GetObject{}Attributes"),
    ("GET", "retention", False): ("GetObjectRetention", "GetObjectRetention"),
    ("GET", "legal-hold", False): ("GetObjectLegalHold", "GetObjectLegalHold"),
    ("PUT", "acl", False): ("PutObjectAcl", "PutObject{}Acl"),
    ("PUT", "tagging", False): ("PutObjectTagging", "PutObject{}Tagging"),
    ("PUT", "retention", False): ("PutObjectRetention", "PutObjectRetention"),
    ("PUT", "legal-hold", False): ("PutObjectLegalHold", "PutObjectLegalHold"),
    ("POST", "", True): ("CompleteMultipartUpload", "PutObject"),
    ("POST", "select", False): ("SelectObjectContent", "GetObject"),
    ("POST", "restore", False): ("RestoreObject", "RestoreObject"),
    ("DELETE", "", False): ("DeleteObject", "DeleteObject{}"),
    ("DELETE", "", True): ("AbortMultipartUpload", "AbortMultipartUpload"),
    ("DELETE", "tagging", False): ("DeleteObjectTagging", "DeleteObject{}Tagging"),
}
BYPASSING = {"DeleteObject", "PutObjectRetention"}
# Deleting the account's Block Public Access needs its put action.
# https://docs.aws.amazon.com/AmazonS3/latest/API/API_control_DeletePublicAccessBlock.html
ON_ACCOUNT = {"GET": ("Get", "Get"), "PUT": ("Put", "Put"), "DELETE": ("Delete", "Put")}


TAGGED_TWICE = (
    "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name "
    "duplicates."
)


class UnknownCall(CannotDerive):
    """The lab doesn't know the call's method or sub-resource. moto would mistake the call for another."""


_FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")


def derive(request: AwsRequest, deleted_keys: list[tuple[str, str | None]]) -> AwsRequest:
    """Return the call with its operation and the permissions that it needs.

    ``deleted_keys`` are the keys and version ids in the body of a DeleteObjects call. Each key needs a permission.
    Raises :class:`CannotDerive` if the lab doesn't know the permissions.
    """
    call, bucket, key = request.call, request.bucket, request.key
    if not BUCKET_NAME.fullmatch(bucket) and (bucket or key):
        raise CannotDerive("S3 calls on a bucket with an invalid name")
    if call.path.startswith(S3_CONTROL):
        return _on_account(request)
    if not bucket and (call.method != "GET" or _subresources(call)):
        fields = {"Method": call.method, "ResourceType": "SERVICE"}
        raise Refusal(405, "MethodNotAllowed", NOT_ALLOWED, fields=fields)
    if call.method in ("POST", "PUT") and call.headers.get("content-type", "").lower().startswith(_FORMS):
        raise CannotDerive("S3 calls with a form as the body")
    subresource = _subresource(call, BUCKET_SUBRESOURCES if not key else OBJECT_SUBRESOURCES)
    if not bucket:
        return replace(request, operation="ListBuckets", needed=(_permission(call, "ListAllMyBuckets", "*", shown=""),))
    if not key:
        operation, needed = _on_bucket(call, f"arn:aws:s3:::{bucket}", subresource, deleted_keys)
    else:
        operation, needed = _on_object(request, f"arn:aws:s3:::{bucket}/{key}", subresource)
    needed = tuple(_with_parameters(call, operation, each) for each in needed)
    if operation == "PutBucketReplication":
        roles = _elements(call.body, "Role")
        needed += tuple(pass_role(role, "s3.amazonaws.com", needed[0].resource) for role in roles)
    return replace(request, operation=operation, needed=needed)


def timed(call: Call, permission: Permission, clock: Clock) -> Context:
    """Return condition keys that depend on the time: a presigned URL's age (ms) and an object lock's remaining days.

    https://docs.aws.amazon.com/AmazonS3/latest/API/bucket-policy-s3-sigv4-conditions.html
    """
    context: Context = {}
    if signed := call.query.get("X-Amz-Date"):
        at = datetime.strptime(signed, "%Y%m%dT%H%M%S%z").timestamp()
        context["s3:signatureAge"] = str(max(0, int((clock.now() - at) * 1000)))
    until = permission.context.get(RETAIN_UNTIL)
    if isinstance(until, str) and (ends := _seconds(until)) is not None:
        context["s3:object-lock-remaining-retention-days"] = str(math.ceil((ends - clock.now()) / 86400))
    return context


def _seconds(text: str) -> float | None:
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _with_parameters(call: Call, operation: str, permission: Permission) -> Permission:
    context = dict(permission.context)
    if operation in CREATES and permission.action == "s3:PutObject":
        context["s3:ObjectCreationOperation"] = CREATES[operation]
    for element, key in FROM_BODY.get(operation, {}).items():
        if values := _elements(call.body, element):
            context[key] = values if len(values) > 1 else values[0]
    return replace(permission, context=context)


def _on_bucket(
    call: Call, arn: str, subresource: str, deleted: list[tuple[str, str | None]]
) -> tuple[str, tuple[Permission, ...]]:
    match call.method, subresource:
        case "GET", "":
            operation, *actions = "ListObjectsV2" if call.query.get("list-type") == "2" else "ListObjects", "ListBucket"
        case "PUT", "":
            operation, *actions = "CreateBucket", *_create_actions(call)
        case "POST", "delete":
            return "DeleteObjects", _deletions(call, arn, deleted)
        case route if route in ON_BUCKET:
            operation, *actions = ON_BUCKET[route]
        case _:
            operation, *actions = _configuration(call.method, subresource)
    return operation, tuple(_permission(call, action, arn) for action in actions)


def _deletions(call: Call, arn: str, deleted: list[tuple[str, str | None]]) -> tuple[Permission, ...]:
    if BYPASS in call.headers:
        raise CannotDerive("the S3 call DeleteObjects that bypasses a retention")
    return tuple(
        _permission(call, f"DeleteObject{'Version' if version else ''}", f"{arn}/{key}") for key, version in deleted
    )


def _configuration(method: str, subresource: str) -> tuple[str, str]:
    """Return the name and the IAM action (without ``s3:``) of an operation on a bucket's configuration."""
    if subresource in BUCKET_READS:
        name, action = BUCKET_READS[subresource]
        action = action or name
        if method == "GET":
            return f"Get{name}", f"Get{action}"
        if method == "PUT" and subresource not in NOT_WRITTEN:
            return f"Put{name}", f"Put{action}"
        if method == "DELETE" and subresource not in NOT_WRITTEN | NOT_DELETED:
            return f"Delete{name}", DELETED.get(subresource, f"Put{action}")
    raise UnknownCall(f"the S3 call {method} /BUCKET?{subresource}")


def _on_object(request: AwsRequest, arn: str, subresource: str) -> tuple[str, tuple[Permission, ...]]:
    call, upload = request.call, "uploadId" in request.call.query
    if (call.method, subresource) == ("PUT", ""):
        return _put(call, arn, upload=upload)
    if (call.method, subresource, upload) == ("POST", "uploads", False):
        operation, *actions = "CreateMultipartUpload", *_write_actions(call)
    elif route := ON_OBJECT.get((call.method, subresource, upload)):
        operation, *actions = route
    elif (call.method, subresource) == ("POST", ""):
        raise Refusal(405, "MethodNotAllowed", NOT_ALLOWED)
    else:
        raise UnknownCall(f"the S3 call {call.method} /BUCKET/KEY?{subresource}")
    if operation in BYPASSING and BYPASS in call.headers:
        actions.append("BypassGovernanceRetention")
    version = "" if request.version is None else "Version"
    needed = tuple(_permission(call, action.format(version), arn) for action in actions)
    if operation == "PutObjectTagging":
        needed = tuple(replace(each, context=each.context | _tags(tags_in(call.body))) for each in needed)
    return operation, needed


def _put(call: Call, arn: str, *, upload: bool) -> tuple[str, tuple[Permission, ...]]:
    if upload != ("partNumber" in call.query):
        reason = "uploadId and partNumber must be specified together"
        raise Refusal(400, "InvalidArgument", "This operation does not accept a query-string.", reason)
    actions = ("PutObject",) if upload else _write_actions(call)
    needed = tuple(_permission(call, action, arn) for action in actions)
    if not (source := call.headers.get("x-amz-copy-source")):
        return "UploadPart" if upload else "PutObject", needed
    # Access points have another form: their ARN wouldn't be the ARN of the object.
    if (parts := copy_source(source)) is None:
        raise CannotDerive("the S3 call CopyObject from a source that is not BUCKET/KEY")
    bucket, key, version = parts
    read = _permission(call, "GetObjectVersion" if version else "GetObject", f"arn:aws:s3:::{bucket}/{key}")
    return "UploadPartCopy" if upload else "CopyObject", (*needed, read)


def _write_actions(call: Call) -> tuple[str, ...]:
    actions = ["PutObject"]
    if any(name == "x-amz-acl" or name.startswith("x-amz-grant-") for name in call.headers):
        actions.append("PutObjectAcl")
    if "x-amz-tagging" in call.headers:
        actions.append("PutObjectTagging")
    if LOCK_HEADERS["s3:object-lock-legal-hold"] in call.headers:
        actions.append("PutObjectLegalHold")
    if any(name in call.headers for name in ("x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date")):
        actions.append("PutObjectRetention")
    return tuple(actions)


def _create_actions(call: Call) -> tuple[str, ...]:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html"""
    actions = ["CreateBucket"]
    acl = call.headers.get("x-amz-acl", "private")
    if acl != "private" or any(name.startswith("x-amz-grant-") for name in call.headers):
        actions.append("PutBucketAcl")
    if "x-amz-bucket-object-lock-enabled" in call.headers:
        actions += ["PutBucketObjectLockConfiguration", "PutBucketVersioning"]
    if "x-amz-object-ownership" in call.headers:
        actions.append("PutBucketOwnershipControls")
    if b"Tag" in call.body:
        actions.append("TagResource")
    return tuple(actions)


def _on_account(request: AwsRequest) -> AwsRequest:
    call, what = request.call, "AccountPublicAccessBlock"
    if call.path != f"{S3_CONTROL}configuration/publicAccessBlock" or call.method not in ON_ACCOUNT:
        raise CannotDerive("this S3 Control call")
    _subresource(call, set())
    operation, action = ON_ACCOUNT[call.method]
    needed = (_permission(call, f"{action}{what}", "*", shown=""),)
    return replace(request, bucket="", key="", operation=f"{operation}{what}", needed=needed)


def _permission(call: Call, action: str, resource: str, shown: str | None = None) -> Permission:
    return Permission(f"s3:{action}", resource, _context(call), KNOWN, shown=shown)


def _subresource(call: Call, known: set[str]) -> str:
    if len(call.query) < len(call.query_pairs):
        raise CannotDerive(f"the S3 call {call.method} with a parameter given twice")
    names = _subresources(call)
    if len(names) > 1 or any(name not in known for name in names):
        raise UnknownCall(f"the S3 call {call.method} with the query {'&'.join(sorted(names))}")
    return names[0] if names else ""


def _subresources(call: Call) -> list[str]:
    return [name for name, _ in call.query_pairs if name not in OPTIONS and not name.lower().startswith("x-amz-")]


def _context(call: Call) -> Context:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/amazon-s3-policy-keys.html"""
    context: Context = {
        "s3:signatureversion": "AWS4-HMAC-SHA256",
        "s3:authType": "REST-QUERY-STRING" if "X-Amz-Signature" in call.query else "REST-HEADER",
        # The lab's endpoint takes the place of AWS's endpoint, which uses TLS.
        "s3:TlsVersion": "1.3",
    }
    for key, name in LOCK_HEADERS.items():
        if name in call.headers:
            context[key] = call.headers[name]
    for name in ("prefix", "delimiter", "max-keys"):
        if name in call.query:
            context[f"s3:{name}"] = call.query[name]
    if "versionId" in call.query:
        context["s3:VersionId"] = call.query["versionId"]
    for name in CONDITION_HEADERS:
        if name in call.headers:
            context[f"s3:{name}"] = call.headers[name]
    if tagging := call.headers.get("x-amz-tagging"):
        tags = parse_qsl(tagging, keep_blank_values=True)
        if len(dict(tags)) < len(tags):
            about = {"ArgumentName": "x-amz-tagging", "ArgumentValue": tagging}
            raise Refusal(400, "InvalidArgument", TAGGED_TWICE, fields=about)
        context |= _tags(tags)
    return context


def _tags(tags: list[tuple[str, str]]) -> Context:
    context: Context = {f"s3:RequestObjectTag/{name}": value for name, value in tags}
    return context | {"s3:RequestObjectTagKeys": [name for name, _ in tags]}


def tags_in(document: bytes) -> list[tuple[str, str]]:
    """Return the keys and values of the tags in a call's body. Raises `Refusal` if a key appears twice."""
    tags = [(tag.findtext("Key") or "", tag.findtext("Value") or "") for tag in _read_xml(document).iter("Tag")]
    if len(dict(tags)) < len(tags):
        raise Refusal(400, "InvalidTag", "Cannot provide multiple Tags with the same key")
    return tags


def _elements(document: bytes, name: str) -> list[str]:
    return [(each.text or "").strip() for each in _read_xml(document).iter(name)] if document.strip() else []


def _read_xml(document: bytes) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(document)  # noqa: S314 - expat 2.4 and newer bound the expansion of entities
    except ElementTree.ParseError as error:
        raise CannotDerive("S3 calls with a body that is not XML") from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root
