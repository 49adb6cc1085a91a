"""Read a run's documents from AWS, and change AWS to match other documents.

The run's documents include the HTTP answers that a fault puts in place of the issuer's public documents.
"""

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from labkit.course.faults.situation import Document, Situation
from labkit.errors import LabError
from labkit.policy.arn import Arn
from labkit.simulator import ISSUER_DOCUMENTS, Folder

if TYPE_CHECKING:
    from labkit.workspace import Workspace


def read_documents(lab: "Workspace", situation: Situation, accounts: set[str]) -> None:
    """Fill the situation with the run's documents in AWS. Look for providers and roles in all these accounts."""
    for account_id in sorted(accounts):
        iam = _iam(lab, account_id)
        situation.providers |= _providers(iam)
        situation.roles |= _roles(lab, iam)
    situation.bucket_policy = _bucket_policy(lab)
    situation.associations = _associations(lab)
    situation.identity_provider_configs = _identity_provider_configs(lab)
    situation.published = _published(lab)


def make(lab: "Workspace", now: Situation, wanted: Situation) -> None:
    """Change AWS from the state `now` to the state `wanted`. Create no associations: `associate` creates them later.

    Also make the calls in `wanted.refused`, so that CloudTrail records them.

    Raises `LabError` if the lab can't enter an account. Also raises `LabError` if a call in
    `wanted.refused` succeeds, or fails with an error code that differs from the call's `code`.
    """
    for account_id in sorted(now.accounts | wanted.accounts):
        iam = _iam(lab, account_id)
        _make_providers(iam, _of(account_id, now.providers), _of(account_id, wanted.providers))
        _make_roles(iam, _of(account_id, now.roles), _of(account_id, wanted.roles))
    if now.bucket_policy != wanted.bucket_policy:
        _make_bucket_policy(lab, wanted.bucket_policy)
    _make_eks(lab, now, wanted)
    for call in wanted.refused:
        _try(lab, call)
    for document in ISSUER_DOCUMENTS:
        _publish(lab, document, wanted.published.get(document))


def _iam(lab: "Workspace", account_id: str) -> Any:
    session = lab.aws if account_id == lab.account_id else lab.connection.account(account_id)
    if session is None:
        raise LabError(f"The lab can't enter the account {account_id}.", next="choose another fault")
    return session.client("iam")


def _of(account_id: str, documents: dict[str, Document]) -> dict[str, Document]:
    return {arn: document for arn, document in documents.items() if Arn.parse(arn).account == account_id}


def _providers(iam: Any) -> dict[str, Document]:
    providers = {}
    for listed in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]:
        provider = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=listed["Arn"])
        providers[listed["Arn"]] = {
            "Url": f"https://{provider['Url'].removeprefix('https://')}",
            "ClientIDList": sorted(provider["ClientIDList"]),
            "ThumbprintList": provider["ThumbprintList"],
            "Tags": provider.get("Tags", []),
        }
    return providers


def _make_providers(iam: Any, now: dict[str, Document], wanted: dict[str, Document]) -> None:
    for arn in now.keys() - wanted.keys():
        iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    for arn, provider in wanted.items():
        present = now.get(arn)
        if present is None:
            given = {key: value for key, value in provider.items() if value}
            iam.create_open_id_connect_provider(**given)
            continue
        for audience in set(present["ClientIDList"]) - set(provider["ClientIDList"]):
            iam.remove_client_id_from_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=audience)
        for audience in set(provider["ClientIDList"]) - set(present["ClientIDList"]):
            iam.add_client_id_to_open_id_connect_provider(OpenIDConnectProviderArn=arn, ClientID=audience)
        if present["ThumbprintList"] != provider["ThumbprintList"]:
            iam.update_open_id_connect_provider_thumbprint(
                OpenIDConnectProviderArn=arn, ThumbprintList=provider["ThumbprintList"]
            )
        if present["Tags"] != provider["Tags"]:
            keys = [tag["Key"] for tag in present["Tags"]]
            iam.untag_open_id_connect_provider(OpenIDConnectProviderArn=arn, TagKeys=keys)
            iam.tag_open_id_connect_provider(OpenIDConnectProviderArn=arn, Tags=provider["Tags"])


def _roles(lab: "Workspace", iam: Any) -> dict[str, Document]:
    roles = {}
    for page in iam.get_paginator("list_roles").paginate():
        for listed in page["Roles"]:
            if not listed["RoleName"].startswith(lab.parameters.role_name):
                continue
            role = iam.get_role(RoleName=listed["RoleName"])["Role"]
            tags = role.get("Tags") or []
            if role["RoleName"] == lab.parameters.role_name or lab.tags[-1] in tags:
                roles[role["Arn"]] = _role(iam, role)
    return roles


def _role(iam: Any, role: Document) -> Document:
    name = role["RoleName"]
    attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
    return {
        "Description": role.get("Description") or "",
        "AssumeRolePolicyDocument": role["AssumeRolePolicyDocument"],
        "MaxSessionDuration": role["MaxSessionDuration"],
        "PermissionsBoundary": (role.get("PermissionsBoundary") or {}).get("PermissionsBoundaryArn", ""),
        "Attached": sorted(policy["PolicyArn"] for policy in attached),
        "Inline": {
            policy: iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"] for policy in inline
        },
        "Tags": role.get("Tags") or [],
    }


def _make_roles(iam: Any, now: dict[str, Document], wanted: dict[str, Document]) -> None:
    for arn, present in now.items():
        if arn not in wanted:
            _make_policies(iam, _name(arn), present, {"Attached": [], "Inline": {}})
            iam.delete_role(RoleName=_name(arn))
    for arn, role in wanted.items():
        name = _name(arn)
        trust_policy = json.dumps(role["AssumeRolePolicyDocument"])
        if arn in now:
            present = now[arn]
        else:
            iam.create_role(
                RoleName=name,
                Path=Arn.parse(arn).path,
                AssumeRolePolicyDocument=trust_policy,
                # IAM keeps an empty description, which isn't the same as a missing one.
                **({"Description": role["Description"]} if role["Description"] else {}),
                MaxSessionDuration=role["MaxSessionDuration"],
                Tags=role["Tags"],
            )
            present = {**role, "PermissionsBoundary": "", "Attached": [], "Inline": {}}
        if present["AssumeRolePolicyDocument"] != role["AssumeRolePolicyDocument"]:
            iam.update_assume_role_policy(RoleName=name, PolicyDocument=trust_policy)
        if any(present[key] != role[key] for key in ("MaxSessionDuration", "Description")):
            iam.update_role(
                RoleName=name, MaxSessionDuration=role["MaxSessionDuration"], Description=role["Description"]
            )
        if role["PermissionsBoundary"] and present["PermissionsBoundary"] != role["PermissionsBoundary"]:
            iam.put_role_permissions_boundary(RoleName=name, PermissionsBoundary=role["PermissionsBoundary"])
        if present["PermissionsBoundary"] and not role["PermissionsBoundary"]:
            iam.delete_role_permissions_boundary(RoleName=name)
        if present["Tags"] != role["Tags"]:
            iam.untag_role(RoleName=name, TagKeys=[tag["Key"] for tag in present["Tags"]])
            iam.tag_role(RoleName=name, Tags=role["Tags"])
        _make_policies(iam, name, present, role)


def _make_policies(iam: Any, name: str, now: Document, wanted: Document) -> None:
    for arn in set(now["Attached"]) - set(wanted["Attached"]):
        iam.detach_role_policy(RoleName=name, PolicyArn=arn)
    for arn in set(wanted["Attached"]) - set(now["Attached"]):
        iam.attach_role_policy(RoleName=name, PolicyArn=arn)
    for policy in now["Inline"].keys() - wanted["Inline"].keys():
        iam.delete_role_policy(RoleName=name, PolicyName=policy)
    for policy, document in wanted["Inline"].items():
        if now["Inline"].get(policy) != document:
            iam.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))


def _name(arn: str) -> str:
    return Arn.parse(arn).name


def _try(lab: "Workspace", call: Document) -> None:
    """Make a call that IAM refuses, so that CloudTrail records the call."""
    try:
        getattr(lab.aws.client("iam"), call["operation"])(**call["arguments"])
        code = "no error"
    except ClientError as error:
        code = error.response["Error"]["Code"]
    if code != call["code"]:
        raise LabError(f"IAM answered {call['operation']} with {code} instead of {call['code']}.", next="labkit mend")


def _bucket_policy(lab: "Workspace") -> Document | None:
    try:
        answer = lab.aws.client("s3").get_bucket_policy(Bucket=lab.parameters.bucket)
        policy: Document = json.loads(answer["Policy"])
        return policy
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("NoSuchBucketPolicy", "NoSuchBucket"):
            raise
        return None


def _make_bucket_policy(lab: "Workspace", policy: Document | None) -> None:
    s3, bucket = lab.aws.client("s3"), lab.parameters.bucket
    if policy is None:
        s3.delete_bucket_policy(Bucket=bucket)
    else:
        s3.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def _associations(lab: "Workspace") -> list[Document]:
    describe = lab.aws.client("eks").describe_pod_identity_association
    described = [describe(**each)["association"] for each in _listed_associations(lab)]
    return [{"roleArn": association["roleArn"], "tags": association["tags"]} for association in described]


def _listed_associations(lab: "Workspace") -> list[dict[str, str]]:
    listed = lab.aws.client("eks").list_pod_identity_associations(**_subject(lab))["associations"]
    return [{"clusterName": each["clusterName"], "associationId": each["associationId"]} for each in listed]


def _subject(lab: "Workspace") -> dict[str, str]:
    names = lab.parameters
    return {"clusterName": names.cluster, "namespace": names.namespace, "serviceAccount": names.service_account}


def _identity_provider_configs(lab: "Workspace") -> list[Document]:
    eks, cluster = lab.aws.client("eks"), lab.parameters.cluster
    kept = ("identityProviderConfigName", "issuerUrl", "clientId")
    configs = []
    for reference in eks.list_identity_provider_configs(clusterName=cluster)["identityProviderConfigs"]:
        config = eks.describe_identity_provider_config(clusterName=cluster, identityProviderConfig=reference)
        configs.append({key: config["identityProviderConfig"]["oidc"][key] for key in kept})
    return configs


def associate(lab: "Workspace", wanted: Situation) -> None:
    """Create the wanted Pod Identity associations, except those that EKS refuses as invalid.

    Call this function last, after the pods are created: a pod that is created after its association gets Pod
    Identity's variables instead of IRSA's. The existing associations have been deleted before, by `make`.
    """
    eks = lab.aws.client("eks")
    for association in wanted.associations:
        with suppress(eks.exceptions.InvalidParameterException):
            eks.create_pod_identity_association(**_subject(lab), **association)


def _make_eks(lab: "Workspace", now: Situation, wanted: Situation) -> None:
    eks, cluster = lab.aws.client("eks"), lab.parameters.cluster
    for association in _listed_associations(lab) if now.associations else []:
        eks.delete_pod_identity_association(**association)
    if now.identity_provider_configs != wanted.identity_provider_configs:
        for config in now.identity_provider_configs:
            reference = {"type": "oidc", "name": config["identityProviderConfigName"]}
            eks.disassociate_identity_provider_config(clusterName=cluster, identityProviderConfig=reference)
        for config in wanted.identity_provider_configs:
            eks.associate_identity_provider_config(clusterName=cluster, oidc=config)


def _published(lab: "Workspace") -> dict[str, Document]:
    published = Folder.find().published
    answers = {document: published.override(lab.issuer, document).get() for document in ISSUER_DOCUMENTS}
    return {document: {"status": answer.status, "body": answer.body} for document, answer in answers.items() if answer}


def _publish(lab: "Workspace", document: str, answer: Document | None) -> None:
    override = Folder.find().published.override(lab.issuer, document)
    if answer is None:
        override.clear()
    else:
        override.set(answer["status"], answer["body"])
