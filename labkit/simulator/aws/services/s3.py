"""S3: check the permissions that a request needs, then let moto answer it.

What differs from AWS:

- Public access: an unsigned request is always denied, whatever a bucket policy or an ACL says. ACLs and Block Public
  Access are kept, but not evaluated. A bucket that disables ACLs (the default) accepts them all the same.
- Bucket policies: AWS also refuses condition keys that don't exist or that don't fit the actions.
- Virtual-hosted addresses: not supported. The bucket is always in the path.
- Uploads by a form (presigned POST): refused.
- S3 Control: the operations that moto lacks, such as those on access grants and batch jobs, are refused.
  Administrators may use all others, such as those on access points. Other callers may use only the operations on the
  account's Block Public Access. S3 Control's host name doesn't begin with the account id, because such a name doesn't
  resolve here.
- Directory buckets: not supported.
- KMS: `aws:kms` is stored as a header. Nothing is encrypted, and callers need no permission on a key.
- Settings without effect: lifecycle and replication rules, website hosting and inventory are only stored.
- Redirects: the lab sends none, because its endpoint has the buckets of all regions.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-policy-language-overview.html
"""

import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from labkit.policy import Decision, MalformedPolicy, Policy
from labkit.policy.reference import actions_on
from labkit.policy.validation import listed
from labkit.policy.wildcards import wildcard
from labkit.simulator.aws import call
from labkit.simulator.aws.actions.requests import check_path
from labkit.simulator.aws.actions.s3 import NOT_ALLOWED, UnknownCall, derive, tags_in, timed
from labkit.simulator.aws.answers import PROLOG, Refusal, fault, not_emulated, render, xml
from labkit.simulator.aws.authorization import Grant, administers, denial, stored_policy, underivable, with_reference
from labkit.simulator.aws.backend import Backend, FakeBucket, FakeDeleteMarker
from labkit.simulator.aws.call import S3_CONTROL, Api, AwsRequest, Call, CannotDerive, Permission, Response, copy_source
from labkit.simulator.aws.iam_validation import missing_principals
from labkit.simulator.aws.s3_requests import MALFORMED, check_complete, check_digest, check_names
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Administrator, Caller, IamUser, Session
from labkit.simulator.aws.trail_parameters import TrailParameters
from labkit.simulator.event_loop import in_thread_if_large

BUCKET = "arn:aws:s3:::"
EXPECTED_OWNERS = ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner")
OF_BUCKET_POLICY = ("GetBucketPolicy", "PutBucketPolicy", "DeleteBucketPolicy")
CHECKSUMS = ("CRC32", "CRC32C", "CRC64NVME", "SHA1", "SHA256")
# moto fails on these if the object doesn't exist.
OF_ITS_OBJECT = ("DeleteObjectTagging", "SelectObjectContent")
# For these, moto looks only at the path. It would delete the bucket, list it, or read the object.
NOT_KNOWN_TO_MOTO = {
    f"{verb}Bucket{what}"
    for what in ("AnalyticsConfiguration", "IntelligentTieringConfiguration", "MetricsConfiguration", "RequestPayment")
    for verb in ("Get", "Put", "Delete")
} | {"DeleteBucketInventoryConfiguration", "GetObjectRetention"}
MOST_KEYS = 1000  # of DeleteObjects
XML = "http://s3.amazonaws.com/doc/2006-03-01/"
# The operations that CloudTrail knows by another name.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/cloudtrail-logging-s3-info.html
EVENT_NAMES = {"ListObjectsV2": "ListObjects"} | {
    f"{verb}{operation}": f"{verb}{event}"
    for verb in ("Delete", "Get", "Put")
    for operation, event in (
        ("BucketAccelerateConfiguration", "AccelerateConfiguration"),
        ("BucketLifecycleConfiguration", "BucketLifecycle"),
        ("BucketNotificationConfiguration", "BucketNotification"),
        ("ObjectLockConfiguration", "BucketObjectLockConfiguration"),
        ("PublicAccessBlock", "BucketPublicAccessBlock"),
    )
}
RECORDED_HEADERS = ("x-amz-acl", "x-amz-copy-source", "x-amz-server-side-encryption", "x-amz-storage-class")
# Parameters of the query that sign the request, or carry no information.
NOT_RECORDED = {
    "awsaccesskeyid", "signature", "x-amz-content-sha256", "x-amz-credential", "x-amz-security-token",
    "x-amz-signature", "x-id",
}  # fmt: skip
NOT_APPLICABLE = "Action does not apply to any resource(s) in statement"


# The model of S3 Control. Its calls are signed for S3.
CONTROL = Api("s3control", protocol="s3", is_rest=True, invalid="InvalidRequest")


class S3(Service):
    """S3."""

    api = call.S3
    stores = ("s3", "s3control")
    resource_types = {"bucketName": "AWS::S3::Bucket"}
    event_names = EVENT_NAMES
    data_events = re.compile("DeleteObjects|HeadBucket|ListMultipartUploads|ListObject")

    def read(self, request: AwsRequest, caller: Caller) -> AwsRequest:
        """Return the request with its operation, its permissions and its bucket's account.

        Raises ``Refusal`` if the request is invalid.
        """
        _check_checksum(request.call)
        check_names(request)
        if request.call.path.startswith(S3_CONTROL):
            check_path(replace(request, api=CONTROL))
        try:
            request = derive(request, [(key, version) for key, version, _ in _keys_to_delete(request.call)])
            request = replace(request, needed=tuple(map(with_reference, request.needed)))
        except CannotDerive as unknown:
            if (source := request.call.headers.get("x-amz-copy-source")) and copy_source(source) is None:
                # moto would look for the source in any account.
                said = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
                raise Refusal(400, "InvalidArgument", said, str(unknown)) from unknown
            return replace(request, unread=unknown)
        # The first permission is on the bucket that the call names.
        owner = self._owner(request, request.needed[0]) if request.needed else ""
        return request if owner in ("", caller.account_id) else replace(request, account_id=owner)

    async def authorize(self, request: AwsRequest, caller: Caller) -> Grant:
        """Grant a request if the caller has all needed permissions. Otherwise, raise the denial."""
        grant = await in_thread_if_large(len(request.call.body), self._granted, request, caller)
        await in_thread_if_large(len(request.call.body), check_digest, request.call)
        return grant

    def _granted(self, request: AwsRequest, caller: Caller) -> Grant:
        if request.unread:
            bucket = self.backend.bucket(request.bucket)
            own = bucket is None or bucket.account_id == caller.account_id
            if own and not isinstance(caller, IamUser) and administers(caller, request.call, self.backend):
                self.authorization.require_organization(caller, request, str(request.unread))
                if isinstance(request.unread, UnknownCall):
                    raise not_emulated(request, str(request.unread))
                return Grant(request)
            raise underivable(caller, request, str(request.unread)) from request.unread
        # The last permission of a copy is on its source.
        others = [self._owner(request, permission) or caller.account_id for permission in request.needed[1:]]
        owners = [request.account_id, *others]
        _check_owners(request, owners)
        own = isinstance(caller, Administrator) and {*owners} <= {caller.account_id}
        own = own and not self.authorization.organization.member(caller.account_id).is_bound
        if own and not self._may_deny(request):
            self._check_policy_to_store(request)
            return Grant(request)
        if request.operation == "DeleteObjects":
            return self._may_delete(request, caller)
        reason = ""
        for permission in (*request.needed, *self._copied_tags(request)):
            reason = self._require(request, caller, permission)
        _check_policy_s_account(request, caller)
        self._check_policy_to_store(request)
        return Grant(request, reason)

    async def respond(self, grant: Grant, caller: Caller) -> tuple[Response, Session | None]:
        """Return the answer to a granted call. No call of S3 opens a session."""
        return await self._answer(grant, caller), None

    async def _answer(self, grant: Grant, caller: Caller) -> Response:
        request = grant.request
        denied = ({"Key": key, "Code": "AccessDenied", "Message": message} for key, message in grant.refused)
        errors = "".join(xml({"Error": error}) for error in denied)
        if errors and len(grant.refused) == len(request.needed):
            body = f'{PROLOG}<DeleteResult xmlns="{XML}">{errors}</DeleteResult>'
            return Response(200, [("content-type", "application/xml")], body.encode())
        check_complete(request)
        self._check_exists(request)
        if request.operation in NOT_KNOWN_TO_MOTO:
            raise not_emulated(request, "moto confuses this operation with another one.")
        if request.operation == "CreateBucket":
            return await self.backend.run(self._create_bucket, request)
        if request.operation == "DeleteBucket":
            return await self.backend.run(self._delete_bucket, request)
        response = await self.backend.answer(request)
        if response.status == 200 and errors:
            response.body = response.body.replace(b"</DeleteResult>", errors.encode() + b"</DeleteResult>")
        if response.status == 404 and request.operation in ("GetObject", "HeadObject"):
            # A caller who may not list the bucket doesn't learn that an object is missing.
            listing = replace(request.needed[0], action="s3:ListBucket", resource=BUCKET + request.bucket)
            self._require(request, caller, listing)
            if marker := self._delete_marker(request):
                return _deleted(request, response, marker.version_id)
        return response

    @classmethod
    def trail_parameters(cls, request: AwsRequest) -> TrailParameters:
        """Return the bucket, the key, the query, and those headers that CloudTrail records."""
        call = request.call
        named = {"bucketName": request.bucket, "Host": call.headers.get("host", ""), "key": request.key}
        query = {name: value for name, value in call.query_pairs if name.lower() not in NOT_RECORDED}
        headers = {name: call.headers[name] for name in RECORDED_HEADERS if name in call.headers}
        return TrailParameters({name: value for name, value in named.items() if value} | query | headers)

    @classmethod
    def is_data_event(cls, request: AwsRequest) -> bool:
        """Whether the call is on an object, or one of `data_events`."""
        return bool(request.key) or super().is_data_event(request)

    @classmethod
    def event_code(cls, request: AwsRequest, code: str) -> str:
        """Return a name in place of 404, which is all that an answer to HEAD says."""
        return ("NoSuchKey" if request.key else "NoSuchBucket") if code == "404" else code

    def _create_bucket(self, request: AwsRequest) -> Response:
        """Create a bucket with its tags and its object ownership. moto would ignore the tags, and set no ownership.

        https://docs.aws.amazon.com/AmazonS3/latest/userguide/about-object-ownership.html
        """
        existed, response = self.backend.bucket(request.bucket), self.backend.answer_in_thread(request)
        if (bucket := self.backend.bucket(request.bucket)) and not existed:
            rule: Any = bucket.ownership_rule or "BucketOwnerEnforced"  # moto's type isn't the one that moto uses
            bucket.ownership_rule = rule
            if request.call.body.strip() and (tags := dict(tags_in(request.call.body))):
                self.backend.store("s3", "aws", bucket.account_id).put_bucket_tagging(bucket.name, tags)
        return response

    def _delete_bucket(self, request: AwsRequest) -> Response:
        """Delete a bucket and its tags. moto would keep the tags."""
        bucket, response = self.backend.bucket(request.bucket), self.backend.answer_in_thread(request)
        if bucket and not self.backend.bucket(request.bucket):
            tagger = self.backend.store("s3", "aws", bucket.account_id).tagger
            tagger.delete_all_tags_for_resource(bucket.arn)
        return response

    def _object_tags(self, name: str, key: str) -> dict[str, str]:
        """Return the tags of an object; empty if the object doesn't exist or has a delete marker."""
        bucket = self.backend.bucket(name)
        arn = getattr(bucket.keys.get(key), "arn", None) if bucket else None
        if not bucket or not arn:
            return {}
        tags: dict[str, str] = self.backend.store("s3", "aws", bucket.account_id).tagger.get_tag_dict_for_resource(arn)
        return tags

    def _delete_marker(self, request: AwsRequest) -> FakeDeleteMarker | None:
        """Return the delete marker that is the requested version of a key; None if the version isn't a delete marker.

        Without a version in the request, use the current version.
        """
        bucket = self.backend.bucket(request.bucket)
        versions = bucket.keys.getlist(request.key, []) if bucket else []
        chosen = [each for each in versions if request.version in (None, str(each.version_id))][-1:]
        return chosen[0] if chosen and isinstance(chosen[0], FakeDeleteMarker) else None

    def _check_exists(self, request: AwsRequest) -> None:
        if request.unread or not request.bucket or request.operation == "CreateBucket":
            return
        bucket = self.backend.bucket(request.bucket)
        if bucket is None:
            about = {"BucketName": request.bucket}
            raise Refusal(404, "NoSuchBucket", "The specified bucket does not exist", fields=about)
        if request.operation in OF_ITS_OBJECT and request.key not in bucket.keys:
            raise Refusal(404, "NoSuchKey", "The specified key does not exist.", fields={"Key": request.key})
        upload = request.call.query.get("uploadId")
        if request.operation in ("UploadPart", "UploadPartCopy") and upload not in bucket.multiparts:
            said = "The specified upload does not exist. The upload ID may be invalid, or the upload may have been "
            raise Refusal(404, "NoSuchUpload", f"{said}aborted or completed.", fields={"UploadId": upload or ""})

    def _may_deny(self, request: AwsRequest) -> bool:
        """Whether a bucket policy could deny this call when the lab's administrator makes the call."""
        # Like AWS's root user, the administrator may always read, replace and delete a bucket policy.
        if all(permission.action.endswith("BucketPolicy") for permission in request.needed):
            return False
        return any(self._bucket_policy(request, permission) for permission in request.needed)

    def _check_policy_to_store(self, request: AwsRequest) -> None:
        if request.operation == "PutBucketPolicy":
            _check_policy(request.call.body.decode("utf-8", "replace"), request.bucket, self.backend)

    def _copied_tags(self, request: AwsRequest) -> list[Permission]:
        """Return the permissions that CopyObject needs to copy the object's tags.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
        """
        if request.operation != "CopyObject" or request.call.headers.get("x-amz-tagging-directive") == "REPLACE":
            return []
        source, target = request.needed[-1], request.needed[0]
        if not self._object_tags(*_named(source)):
            return []
        return [replace(source, action="s3:GetObjectTagging"), replace(target, action="s3:PutObjectTagging")]

    def _require(self, request: AwsRequest, caller: Caller, permission: Permission) -> str:
        decision = self._decide(request, caller, permission)
        if not decision.allowed:
            raise denial(caller, request, permission, decision)
        return decision.reason

    def _decide(self, request: AwsRequest, caller: Caller, permission: Permission) -> Decision:
        bucket_policy, owner = self._bucket_policy(request, permission), self._owner(request, permission)
        tagged = self._with_tags(permission, owner or caller.account_id)
        tagged.context.update(timed(request.call, permission, self.authorization.clock))
        return self.authorization.decide(caller, request, tagged, resource_policy=bucket_policy, owner=owner)

    def _may_delete(self, request: AwsRequest, caller: Caller) -> Grant:
        """Grant a DeleteObjects call, but only for the keys that the caller may delete."""
        refused, kept, reason = [], ElementTree.Element("Delete"), ""
        for permission, (key, _, element) in zip(request.needed, _keys_to_delete(request.call), strict=True):
            decision = self._decide(request, caller, permission)
            reason = decision.reason
            if decision.allowed:
                kept.append(element)
            else:
                refused.append((key, denial(caller, request, permission, decision).message))
        allowed = replace(request, call=replace(request.call, body=ElementTree.tostring(kept)))
        return Grant(allowed, reason, tuple(refused))

    def _bucket(self, request: AwsRequest, permission: Permission) -> FakeBucket | None:
        # CreateBucket is always about the caller's own account, even if another account has the name.
        if request.operation == "CreateBucket":
            return None
        return self.backend.bucket(_named(permission)[0])

    def _owner(self, request: AwsRequest, permission: Permission) -> str:
        bucket = self._bucket(request, permission)
        return bucket.account_id if bucket else ""

    def _bucket_policy(self, request: AwsRequest, permission: Permission) -> Policy | None:
        bucket = self._bucket(request, permission)
        document: str | bytes | None = bucket.policy if bucket else None
        if not bucket or not document:
            return None
        text = document.decode() if isinstance(document, bytes) else document
        return stored_policy(text, "resource", f"bucket policy of {bucket.name}")

    def _with_tags(self, permission: Permission, owner: str) -> Permission:
        bucket, key = _named(permission)
        tags = self._object_tags(bucket, key) if key else {}
        about = {f"s3:ExistingObjectTag/{name}": value for name, value in tags.items()}
        about["s3:ResourceAccount"] = owner
        return replace(permission, context={**permission.context, **about})


def _named(permission: Permission) -> tuple[str, str]:
    bucket, _, key = permission.resource.removeprefix(BUCKET).partition("/")
    return bucket, key


def _deleted(request: AwsRequest, response: Response, version: str) -> Response:
    """Return S3's answer for an object with the delete marker ``version``.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/DeleteMarker.html
    """
    if request.version is not None:
        fields = {"Method": request.call.method, "ResourceType": "DeleteMarker"}
        response = render(request, Refusal(405, "MethodNotAllowed", NOT_ALLOWED, fields=fields))
        response.headers.append(("allow", "DELETE"))
    about = {"x-amz-delete-marker": "true", "x-amz-version-id": version}
    response.headers = [pair for pair in response.headers if pair[0].lower() not in about] + [*about.items()]
    return response


def _check_checksum(call: Call) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html"""
    for header in ("x-amz-sdk-checksum-algorithm", "x-amz-checksum-algorithm"):
        if (given := call.headers.get(header)) and given.upper() not in CHECKSUMS:
            message = "Checksum algorithm provided is unsupported. Please try again with any of the valid types: "
            raise Refusal(400, "InvalidRequest", f"{message}[{', '.join(CHECKSUMS)}]", f"{header}: {given}")


def _check_owners(request: AwsRequest, owners: list[str]) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html"""
    for header, owner in zip(EXPECTED_OWNERS, (*owners[:1], *owners[-1:]), strict=False):
        if (expected := request.call.headers.get(header)) and expected != owner:
            raise fault(request, "denied", f"{header} is {expected}, but the account {owner} owns the bucket")


def _check_policy_s_account(request: AwsRequest, caller: Caller) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketPolicy.html"""
    if request.operation in OF_BUCKET_POLICY and caller.account_id != request.account_id:
        reason = f"only a caller of the account {request.account_id}, which owns the bucket, may use its bucket policy"
        fields = {"Method": request.call.method, "ResourceType": "BUCKETPOLICY"}
        raise Refusal(405, "MethodNotAllowed", NOT_ALLOWED, reason, fields=fields)


def _keys_to_delete(call: Call) -> list[tuple[str, str | None, Any]]:
    """Return the key, version id and XML element of each object in a DeleteObjects call."""
    if call.method != "POST" or "delete" not in call.query:
        return []
    try:
        root = ElementTree.fromstring(call.body)  # noqa: S314 - expat 2.4 and newer bound the expansion of entities
    except ElementTree.ParseError as error:
        raise Refusal(400, "MalformedXML", MALFORMED) from error
    keys = []
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    for element in root.iter("Object"):
        if len(element.findall("Key")) != 1 or len(element.findall("VersionId")) > 1:
            raise Refusal(400, "MalformedXML", "The XML you provided does not name one key for each object")
        version = element.findtext("VersionId")
        keys.append((element.findtext("Key") or "", version or None, element))
    if not keys:
        raise Refusal(400, "MalformedXML", "The XML you provided names no object")
    if len(keys) > MOST_KEYS:
        raise Refusal(400, "MalformedXML", MALFORMED, f"{len(keys)} objects are named, but the limit is {MOST_KEYS}")
    return keys


def _check_policy(document: str, bucket: str, backend: Backend) -> None:
    """Raise ``Refusal`` if S3 would refuse this policy for the bucket.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/security_iam_service-with-iam.html
    """
    try:
        policy = Policy.parse(document, kind="resource", name="bucket policy")
    except MalformedPolicy as malformed:
        raise _malformed(malformed.message, malformed.message) from malformed
    if missing := missing_principals(policy.document, backend):
        raise _malformed("Invalid principal in policy", f"the policy names {missing[0]}, which does not exist")
    for statement in listed(policy.document["Statement"]):
        for resource in listed(statement.get("Resource", [])):
            named = resource.removeprefix(BUCKET).partition("/")[0]
            if named != bucket and not set("*?$") & set(named):
                raise _malformed("Policy has invalid resource", f"{resource} is not in the bucket {bucket}")
        for action in listed(statement.get("Action", [])):
            _check_action(action, statement)


def _check_action(action: str, statement: dict[str, Any]) -> None:
    covers = wildcard(action.lower())
    on_buckets, on_objects = (
        any(covers(f"s3:{name}".lower()) for name in actions_on("s3", resource)) for resource in ("bucket", "object")
    )
    if not on_buckets and not on_objects:
        raise _malformed("Policy has invalid action", f"S3 has no action {action} on a bucket or an object")
    resources = listed(statement.get("Resource", []))
    # A pattern without a slash also matches objects.
    named = any((on_buckets and "/" not in each) or (on_objects and {*each} & {*"/*?"}) for each in resources)
    if resources and not named:
        raise _malformed(NOT_APPLICABLE, f"{action} is not an action on {' or '.join(resources)}")


def _malformed(message: str, reason: str) -> Refusal:
    return Refusal(400, "MalformedPolicy", message, reason)
