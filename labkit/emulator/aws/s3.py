"""S3: the permissions that a request needs, and then moto.

What AWS does and this module does not:

- Public access: an unsigned request is always denied, whatever a bucket policy or an ACL says. ACLs and Block Public
  Access are kept and not evaluated.
- Virtual-hosted addresses: the bucket is always in the path.
- Uploads by a form (presigned POST): refused.
- S3 Control (access points, grants, batch jobs): only an administrator's calls reach moto. Directory buckets: not
  there.
- KMS: `aws:kms` is kept as a header; nothing is encrypted, and no permission on a key is needed.
- Lifecycle and replication rules, website hosting and inventory are kept, and nothing follows from them.
- Redirects: one endpoint has the buckets of all regions.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-policy-language-overview.html
"""

from dataclasses import replace
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from labkit.emulator.aws.accounts import administers
from labkit.emulator.aws.actions.permission import CannotDerive, Permission
from labkit.emulator.aws.actions.s3 import Operation, derive
from labkit.emulator.aws.answers import PROLOG
from labkit.emulator.aws.authorization import Authorization, denial, stored_policy, underivable
from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import Call, Response
from labkit.emulator.aws.errors import Refusal, fault
from labkit.emulator.aws.iam_documents import missing_principals
from labkit.emulator.aws.s3_path import copy_source, split
from labkit.emulator.aws.sessions import Administrator, Caller
from labkit.policy import MalformedPolicy, Policy
from labkit.policy.validation import listed

BUCKET = "arn:aws:s3:::"
EXPECTED_OWNERS = ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner")
XML = "http://s3.amazonaws.com/doc/2006-03-01/"


class S3:
    """S3's operations."""

    def __init__(self, backend: Backend, authorization: Authorization):
        self._backend = backend
        self._authorization = authorization

    def bucket_region(self, call: Call) -> str | None:
        """The region of the bucket that is asked for; None where there is no bucket."""
        bucket = self._backend.bucket(split(call.path)[0])
        return bucket.region_name if bucket else None

    async def answer(self, call: Call, caller: Caller) -> Response:
        """moto's answer to an S3 request, if the caller may do all that it takes."""
        try:
            deleted = _keys_to_delete(call)
            operation = derive(call, [(key, version) for key, version, _ in deleted])
        except CannotDerive as unknown:
            if (source := call.headers.get("x-amz-copy-source")) and copy_source(source) is None:
                # moto would look for it in any account.
                said = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
                raise Refusal(400, "InvalidArgument", said, str(unknown)) from unknown
            bucket = self._backend.bucket(split(call.path)[0])
            own = bucket is None or bucket.account_id == caller.account_id
            if own and (isinstance(caller, Administrator) or administers(caller, call, self._backend)):
                return await self._backend.answer(call)
            raise underivable(caller, call, str(unknown)) from unknown
        call.notes["operation"] = operation.name
        # The first permission is on the bucket that is asked for, the last one of a copy on its source.
        owners = [self._owner(call, permission) or caller.account_id for permission in operation.permissions]
        _check_owners(call, owners)
        call.account_id = owners[0] if owners else caller.account_id
        if (
            isinstance(caller, Administrator)
            and {*owners} <= {caller.account_id}
            and not self._may_deny(call, operation)
        ):
            self._check_policy(call, operation)
            return await self._passed_on(call, operation)
        if operation.name == "DeleteObjects":
            return await self._delete_objects(call, caller, operation, deleted)
        for permission in (*operation.permissions, *self._copied_tags(call, operation)):
            call.notes["reason"] = self._require(call, caller, permission)
        self._check_policy(call, operation)
        response = await self._passed_on(call, operation)
        if response.status == 404 and operation.name in ("GetObject", "HeadObject"):
            # Whoever may not list a bucket is not told what is not in it.
            needed = operation.permissions[0]
            self._require(call, caller, replace(needed, action="s3:ListBucket", resource=BUCKET + operation.bucket))
        return response

    async def _passed_on(self, call: Call, operation: Operation) -> Response:
        if operation.name == "DeleteBucket":
            return await self._backend.delete_bucket(call, operation.bucket)
        return await self._backend.answer(call)

    def _may_deny(self, call: Call, operation: Operation) -> bool:
        """Whether a bucket's policy could deny this to the administrator, who may always mend the policy itself.

        On AWS that is left to the account's root user, whom the administrator stands for, too.
        """
        if all(permission.action.endswith("BucketPolicy") for permission in operation.permissions):
            return False
        return any(self._bucket_policy(call, permission) for permission in operation.permissions)

    def _check_policy(self, call: Call, operation: Operation) -> None:
        """Raises the refusal of a bucket's policy that is none, or that names nobody or another bucket."""
        if operation.name != "PutBucketPolicy":
            return
        try:
            policy = Policy.parse(call.body.decode("utf-8", "replace"), kind="resource", name="bucket policy")
        except MalformedPolicy as malformed:
            raise Refusal(400, "MalformedPolicy", malformed.message) from malformed
        if missing := missing_principals(policy.document, self._backend):
            told = f"the policy names {missing[0]}, which is not there"
            raise Refusal(400, "MalformedPolicy", "Invalid principal in policy", told)
        bucket = split(call.path)[0]
        for statement in listed(policy.document["Statement"]):
            for resource in listed(statement.get("Resource", [])):
                named = resource.removeprefix(BUCKET).partition("/")[0]
                if named != bucket and not set("*?$") & set(named):
                    told = f"{resource} is not of the bucket {bucket}"
                    raise Refusal(400, "MalformedPolicy", "Policy has invalid resource", told)

    def _copied_tags(self, call: Call, operation: Operation) -> list[Permission]:
        """What it takes to copy an object's tags with it.

        https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
        """
        if operation.name != "CopyObject" or call.headers.get("x-amz-tagging-directive") == "REPLACE":
            return []
        source, target = operation.permissions[-1], operation.permissions[0]
        if not self._backend.object_tags(*split("/" + source.resource.removeprefix(BUCKET))):
            return []
        return [replace(source, action="s3:GetObjectTagging"), replace(target, action="s3:PutObjectTagging")]

    def _require(self, call: Call, caller: Caller, permission: Permission) -> str:
        bucket_policy, owner = self._bucket_policy(call, permission), self._owner(call, permission)
        permission = self._with_tags(permission, owner or caller.account_id)
        return self._authorization.require(caller, call, permission, resource_policy=bucket_policy, owner=owner).reason

    async def _delete_objects(
        self, call: Call, caller: Caller, operation: Operation, deleted: list[tuple[str, str | None, Any]]
    ) -> Response:
        """Each key is decided by itself; those that are refused are answered as errors among the results."""
        errors, allowed, reason = [], [], ""
        for permission, (key, _, element) in zip(operation.permissions, deleted, strict=True):
            bucket_policy, owner = self._bucket_policy(call, permission), self._owner(call, permission)
            asked = self._with_tags(permission, owner or caller.account_id)
            decision = self._authorization.decide(caller, call, asked, resource_policy=bucket_policy, owner=owner)
            reason = decision.reason
            if decision.allowed:
                allowed.append(element)
            else:
                refusal = denial(caller, call, permission, decision)
                call.notes["lab"] = {"refusedKeys": [*call.notes.get("lab", {}).get("refusedKeys", []), key]}
                errors.append(
                    f"<Error><Key>{escape(key)}</Key><Code>AccessDenied</Code>"
                    f"<Message>{escape(refusal.message)}</Message></Error>"
                )
        call.notes["reason"] = reason
        if not allowed:
            body = f'{PROLOG}<DeleteResult xmlns="{XML}">{"".join(errors)}</DeleteResult>'
            return Response(200, [("content-type", "application/xml")], body.encode())
        kept = ElementTree.Element("Delete")
        kept.extend(allowed)
        passed_on = replace(call, body=ElementTree.tostring(kept))
        response = await self._backend.answer(passed_on)
        if response.status == 200 and errors:
            response.body = response.body.replace(b"</DeleteResult>", "".join(errors).encode() + b"</DeleteResult>")
        return response

    def _bucket(self, call: Call, permission: Permission) -> Any:
        # Whoever makes a bucket asks for one of its own, also where the name is taken in another account.
        if call.operation == "CreateBucket":
            return None
        return self._backend.bucket(permission.resource.removeprefix(BUCKET).partition("/")[0])

    def _owner(self, call: Call, permission: Permission) -> str:
        """The account of the bucket; empty where there is none."""
        bucket = self._bucket(call, permission)
        return bucket.account_id if bucket else ""

    def _bucket_policy(self, call: Call, permission: Permission) -> Policy | None:
        bucket = self._bucket(call, permission)
        document = bucket.policy if bucket else None
        if not document:
            return None
        text = document.decode() if isinstance(document, bytes) else document
        return stored_policy(text, "resource", f"bucket policy of {bucket.name}")

    def _with_tags(self, permission: Permission, owner: str) -> Permission:
        bucket, key = split("/" + permission.resource.removeprefix(BUCKET))
        tags = self._backend.object_tags(bucket, key) if key else {}
        about = {f"s3:ExistingObjectTag/{name}": value for name, value in tags.items()}
        about["s3:ResourceAccount"] = owner
        return replace(permission, context={**permission.context, **about})


def _check_owners(call: Call, owners: list[str]) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-owner-condition.html"""
    for header, owner in zip(EXPECTED_OWNERS, (*owners[:1], *owners[-1:]), strict=False):
        if (expected := call.headers.get(header)) and expected != owner:
            raise fault(call, "denied", f"{header} is {expected}, and the bucket is of the account {owner}")


def _keys_to_delete(call: Call) -> list[tuple[str, str | None, Any]]:
    """Key, version id and element of each object in a DeleteObjects call; none for any other call."""
    if call.method != "POST" or "delete" not in call.query:
        return []
    try:
        root = ElementTree.fromstring(call.body)  # noqa: S314 - expat 2.4 and newer bound the expansion of entities
    except ElementTree.ParseError as error:
        told = "The XML you provided was not well-formed or did not validate against our published schema"
        raise Refusal(400, "MalformedXML", told) from error
    found = []
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    for element in root.iter("Object"):
        if len(element.findall("Key")) != 1 or len(element.findall("VersionId")) > 1:
            raise Refusal(400, "MalformedXML", "The XML you provided does not name one key for each object")
        version = element.findtext("VersionId")
        found.append((element.findtext("Key") or "", version or None, element))
    if not found:
        raise Refusal(400, "MalformedXML", "The XML you provided names no object")
    return found
