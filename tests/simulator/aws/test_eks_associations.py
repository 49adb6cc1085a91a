"""EKS beside the cluster itself: the OIDC provider of its users, Pod Identity associations, and tags."""

import json
import re

import pytest

from labkit.simulator.aws.clusters import associated
from labkit.simulator.aws.own_state import OwnState
from tests.simulator.aws.conftest import ACCOUNT, ISSUER, REGION, Irsa, refused, trust_policy

EKS = f"arn:aws:eks:{REGION}:{ACCOUNT}:"
OIDC = {"identityProviderConfigName": "users", "issuerUrl": "https://users.example.com", "clientId": "kubectl"}
USERS = {"type": "oidc", "name": "users"}
ASSOCIATED = {"clusterName": "blue", "namespace": "default", "serviceAccount": "my-service-account"}
INVALID, IN_USE = (400, "InvalidParameterException"), (409, "ResourceInUseException")
NOT_FOUND = 404, "ResourceNotFoundException"
NO_CLUSTER = "No cluster found for name: none."


FOR_PODS = {
    "Effect": "Allow",
    "Principal": {"Service": "pods.eks.amazonaws.com"},
    "Action": ["sts:AssumeRole", "sts:TagSession"],
}


@pytest.fixture
def eks(aws, irsa):
    """EKS with the cluster blue; the role admits its service account by IRSA and by Pod Identity."""
    policy = trust_policy()
    irsa.trust({**policy, "Statement": [*policy["Statement"], FOR_PODS]})
    eks = aws.client("eks")
    eks.create_cluster(name="blue", roleArn=irsa.role_arn, resourcesVpcConfig={})
    return eks


# The OIDC provider of a cluster's users.


def test_an_identity_provider_config_is_described_until_it_is_disassociated(eks):
    assert eks.list_identity_provider_configs(clusterName="blue")["identityProviderConfigs"] == []
    given = OIDC | {"groupsClaim": "groups", "groupsPrefix": "oidc:", "requiredClaims": {"team": "blue"}}
    made = eks.associate_identity_provider_config(clusterName="blue", oidc=given, tags={"team": "blue"})
    assert made["tags"] == {"team": "blue"}
    assert made["update"]["type"] == "AssociateIdentityProviderConfig"
    assert made["update"]["params"] == [{"type": "IdentityProviderConfig", "value": json.dumps([USERS])}]
    assert eks.list_identity_provider_configs(clusterName="blue")["identityProviderConfigs"] == [USERS]
    described = eks.describe_identity_provider_config(clusterName="blue", identityProviderConfig=USERS)
    config = described["identityProviderConfig"]["oidc"]
    arn = config.pop("identityProviderConfigArn")
    assert re.fullmatch(EKS + r"identityproviderconfig/blue/oidc/users/[0-9a-f-]{36}", arn)
    kept = {"clusterName": "blue", "usernameClaim": "sub", "tags": {"team": "blue"}, "status": "ACTIVE"}
    assert config == given | kept
    gone = eks.disassociate_identity_provider_config(clusterName="blue", identityProviderConfig=USERS)
    assert gone["update"]["type"] == "DisassociateIdentityProviderConfig"
    assert eks.list_identity_provider_configs(clusterName="blue")["identityProviderConfigs"] == []


def test_eks_refuses_the_cluster_s_own_issuer_as_an_identity_provider_of_its_users(eks):
    message = "Incorrect Identity Provider URL configuration. "
    message += "The Identity Provider URL cannot be same as OpenID Connect (OIDC) issuer URL"
    for url in (ISSUER, f"{ISSUER}/"):
        refused(
            lambda url=url: eks.associate_identity_provider_config(clusterName="blue", oidc=OIDC | {"issuerUrl": url}),
            *INVALID,
            message,
        )


def test_eks_refuses_a_second_identity_provider_config(eks):
    eks.associate_identity_provider_config(clusterName="blue", oidc=OIDC)
    another = OIDC | {"identityProviderConfigName": "others"}
    for oidc in (OIDC, another):
        refused(
            lambda oidc=oidc: eks.associate_identity_provider_config(clusterName="blue", oidc=oidc),
            *IN_USE,
            "The cluster already has the identity provider config users.",
        )


@pytest.mark.parametrize(("changes", "message"), [
    ({"issuerUrl": "http://users.example.com"}, "The issuer URL http://users.example.com is invalid"),
    ({"issuerUrl": "https://users.example.com?a=b"}, "The issuer URL https://users.example.com?a=b is invalid"),
    ({"clientId": None}, "1 validation error detected: Value null at 'oidc.clientId' failed"),
    ({"identityProviderConfigName": "a b"}, "The identity provider config name a b is invalid."),
])  # fmt: skip
def test_eks_refuses_an_invalid_identity_provider_config(eks, changes, message):
    oidc = {name: value for name, value in (OIDC | changes).items() if value is not None}
    with pytest.raises(eks.exceptions.InvalidParameterException) as caught:
        eks.associate_identity_provider_config(clusterName="blue", oidc=oidc)
    assert caught.value.response["Error"]["Message"].startswith(message)


def test_an_unknown_identity_provider_config_is_not_found(eks):
    eks.associate_identity_provider_config(clusterName="blue", oidc=OIDC)
    named = {"type": "oidc", "name": "others"}
    for call in (eks.describe_identity_provider_config, eks.disassociate_identity_provider_config):
        message = "No identity provider config found for name: others."
        refused(lambda call=call: call(clusterName="blue", identityProviderConfig=named), *NOT_FOUND, message)
        message = "The identity provider config type must be oidc."
        refused(
            lambda call=call: call(clusterName="blue", identityProviderConfig=USERS | {"type": "saml"}),
            *INVALID,
            message,
        )
    refused(lambda: eks.associate_identity_provider_config(clusterName="none", oidc=OIDC), *NOT_FOUND, NO_CLUSTER)


# Pod Identity.


def test_an_association_is_described_updated_and_deleted(aws, eks, irsa):
    made = eks.create_pod_identity_association(**ASSOCIATED, roleArn=irsa.role_arn, tags={"team": "blue"})
    association = made["association"]
    identifier = association["associationId"]
    assert re.fullmatch(r"a-[a-z0-9]{17}", identifier)
    assert association["associationArn"] == f"{EKS}podidentityassociation/blue/{identifier}"
    assert association["roleArn"] == irsa.role_arn
    assert association["tags"] == {"team": "blue"}
    named = {"clusterName": "blue", "associationId": identifier}
    assert eks.describe_pod_identity_association(**named)["association"] == association
    aws.clock.advance(minutes=1)
    policy = json.dumps({"Version": "2012-10-17", "Statement": [FOR_PODS]})
    other = irsa.iam.create_role(RoleName="other", AssumeRolePolicyDocument=policy)["Role"]["Arn"]
    updated = eks.update_pod_identity_association(**named, roleArn=other)["association"]
    assert updated["roleArn"] == other
    assert updated["modifiedAt"] > updated["createdAt"] == association["createdAt"]
    assert eks.delete_pod_identity_association(**named)["association"] == updated
    refused(lambda: eks.describe_pod_identity_association(**named), *NOT_FOUND, f"Association not found: {identifier}")
    assert (
        eks.create_pod_identity_association(**ASSOCIATED, roleArn=other)["association"]["associationId"] != identifier
    )


def test_eks_refuses_a_second_association_of_a_service_account(eks, irsa):
    made = eks.create_pod_identity_association(**ASSOCIATED, roleArn=irsa.role_arn)["association"]
    refused(
        lambda: eks.create_pod_identity_association(**ASSOCIATED, roleArn=irsa.role_arn),
        *IN_USE,
        f"Association already exists: {made['associationId']}",
    )


def test_associations_are_listed_by_namespace_and_service_account_a_page_at_a_time(eks, irsa):
    for namespace in ("default", "team"):
        for name in ("one", "two", "three"):
            eks.create_pod_identity_association(
                clusterName="blue", namespace=namespace, serviceAccount=name, roleArn=irsa.role_arn
            )

    def listed(**wanted):
        pages = eks.get_paginator("list_pod_identity_associations").paginate(clusterName="blue", **wanted)
        return [(one["namespace"], one["serviceAccount"]) for page in pages for one in page["associations"]]

    everything = [(namespace, name) for namespace in ("default", "team") for name in ("one", "two", "three")]
    assert listed() == everything
    assert listed(PaginationConfig={"PageSize": 2}) == everything
    assert listed(namespace="team", PaginationConfig={"PageSize": 1}) == everything[3:]
    assert listed(namespace="team", serviceAccount="two") == [("team", "two")]
    assert listed(serviceAccount="two") == [("default", "two"), ("team", "two")]
    first = eks.list_pod_identity_associations(clusterName="blue", maxResults=1)
    shown = {"clusterName", "namespace", "serviceAccount", "associationArn", "associationId"}
    assert set(first["associations"][0]) == shown
    for wrong in ({"maxResults": 101}, {"nextToken": "none"}):
        with pytest.raises(eks.exceptions.InvalidParameterException):
            eks.list_pod_identity_associations(clusterName="blue", **wrong)


@pytest.mark.parametrize(("changes", "status", "code"), [
    ({"namespace": "No Namespace"}, 400, "InvalidParameterException"),
    ({"serviceAccount": ""}, 400, "InvalidParameterException"),
    ({"roleArn": "arn:aws:iam::999999999999:role/my-role"}, 400, "InvalidParameterException"),
    ({"roleArn": "my-role"}, 400, "InvalidParameterException"),
    ({"clusterName": "none"}, 404, "ResourceNotFoundException"),
    ({"targetRoleArn": "arn:aws:iam::999999999999:role/target"}, 501, "NotImplemented"),
])  # fmt: skip
def test_eks_refuses_an_invalid_association(eks, changes, status, code):
    with pytest.raises(eks.exceptions.ClientError) as caught:
        eks.create_pod_identity_association(**ASSOCIATED | {"roleArn": Irsa.role_arn} | changes)
    answer = caught.value.response
    assert (answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"]) == (status, code)
    assert eks.list_pod_identity_associations(clusterName="blue")["associations"] == []


def test_eks_refuses_an_association_s_role_that_is_missing_or_does_not_trust_eks(eks, irsa):
    made = eks.create_pod_identity_association(**ASSOCIATED, roleArn=irsa.role_arn)["association"]
    named = {"clusterName": "blue", "associationId": made["associationId"]}
    missing = f"arn:aws:iam::{ACCOUNT}:role/none"
    for role_arn, message in (
        (missing, "Role provided in the request does not exist."),
        (irsa.role_arn, "Trust policy of the role provided is invalid."),
    ):
        irsa.trust(trust_policy())
        for call in (
            lambda role_arn=role_arn: eks.create_pod_identity_association(
                **ASSOCIATED | {"serviceAccount": "another"}, roleArn=role_arn
            ),
            lambda role_arn=role_arn: eks.update_pod_identity_association(**named, roleArn=role_arn),
        ):
            refused(call, *INVALID, message)


def test_eks_refuses_an_association_s_role_whose_trust_policy_lacks_tag_session(eks, irsa):
    """https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html"""
    irsa.trust({"Version": "2012-10-17", "Statement": [{**FOR_PODS, "Action": "sts:AssumeRole"}]})
    given, message = ASSOCIATED | {"roleArn": irsa.role_arn}, "Trust policy of the role provided is invalid."
    refused(lambda: eks.create_pod_identity_association(**given), *INVALID, message)
    assert eks.create_pod_identity_association(**given, disableSessionTags=True)["association"]


def test_eks_refuses_an_association_id_of_the_wrong_length(eks):
    message = "The parameter associationId should be 19 characters long."
    refused(lambda: eks.delete_pod_identity_association(clusterName="blue", associationId="None"), *INVALID, message)


# Both.


def test_associations_and_provider_configs_end_with_their_cluster(eks, irsa):
    eks.create_pod_identity_association(**ASSOCIATED, roleArn=irsa.role_arn)
    eks.associate_identity_provider_config(clusterName="blue", oidc=OIDC)
    eks.delete_cluster(name="blue")
    message = "No cluster found for name: blue."
    refused(lambda: eks.list_pod_identity_associations(clusterName="blue"), *NOT_FOUND, message)
    eks.create_cluster(name="blue", roleArn=irsa.role_arn, resourcesVpcConfig={})
    assert eks.list_pod_identity_associations(clusterName="blue")["associations"] == []
    assert eks.list_identity_provider_configs(clusterName="blue")["identityProviderConfigs"] == []


def test_a_session_needs_permission_on_the_association_or_config_itself(aws, eks, irsa):
    """The cluster's ARN isn't enough. Conditions on the tags of the association or config count."""
    tags = {"team": "blue"}
    made = eks.create_pod_identity_association(**ASSOCIATED, roleArn=irsa.role_arn, tags=tags)["association"]
    eks.associate_identity_provider_config(clusterName="blue", oidc=OIDC, tags=tags)
    described = eks.describe_identity_provider_config(clusterName="blue", identityProviderConfig=USERS)
    config_arn = described["identityProviderConfig"]["oidc"]["identityProviderConfigArn"]
    session = aws.client("eks", irsa.assume()["Credentials"])
    association = {"clusterName": "blue", "associationId": made["associationId"]}
    config = {"clusterName": "blue", "identityProviderConfig": USERS}
    for method, action, arn, parameters in (
        ("describe_pod_identity_association", "DescribePodIdentityAssociation", made["associationArn"], association),
        ("delete_pod_identity_association", "DeletePodIdentityAssociation", made["associationArn"], association),
        ("describe_identity_provider_config", "DescribeIdentityProviderConfig", config_arn, config),
        ("disassociate_identity_provider_config", "DisassociateIdentityProviderConfig", config_arn, config),
    ):
        allowed = {"Effect": "Allow", "Action": f"eks:{action}", "Resource": arn}
        elsewhere = {"StringNotEquals": {"aws:ResourceTag/team": "blue"}}
        who = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod is not authorized to perform: eks:{action}"
        for statement in (allowed | {"Resource": f"{EKS}cluster/blue"}, allowed | {"Condition": elsewhere}):
            irsa.permit(statement)
            refused(
                lambda method=method, parameters=parameters: getattr(session, method)(**parameters),
                403, "AccessDeniedException",
                f"{who} on resource: {arn} because no identity-based policy allows the eks:{action} action",
            )  # fmt: skip
        irsa.permit(allowed | {"Condition": {"StringEquals": {"aws:ResourceTag/team": "blue"}}})
        getattr(session, method)(**parameters)


def test_updating_an_association_needs_iam_pass_role(aws, eks, irsa):
    made = eks.create_pod_identity_association(**ASSOCIATED, roleArn=irsa.role_arn)["association"]
    session = aws.client("eks", irsa.assume()["Credentials"])
    named = {"clusterName": "blue", "associationId": made["associationId"]}
    update = {"Effect": "Allow", "Action": "eks:UpdatePodIdentityAssociation", "Resource": "*"}
    irsa.permit(update)
    with pytest.raises(session.exceptions.ClientError, match="is not authorized to perform: iam:PassRole"):
        session.update_pod_identity_association(**named, roleArn=irsa.role_arn)
    to_pods = {"StringEquals": {"iam:PassedToService": "pods.eks.amazonaws.com"}}
    irsa.permit(update, {"Effect": "Allow", "Action": "iam:PassRole", "Resource": "*", "Condition": to_pods})
    session.update_pod_identity_association(**named, roleArn=irsa.role_arn)


def test_a_policy_can_limit_the_issuers_that_a_session_associates(aws, eks, irsa):
    session = aws.client("eks", irsa.assume()["Credentials"])
    allowed = {"Effect": "Allow", "Action": "eks:AssociateIdentityProviderConfig", "Resource": "*"}
    for issuer, permitted in (("https://other.example.com", False), (OIDC["issuerUrl"], True)):
        irsa.permit(allowed | {"Condition": {"StringEquals": {"eks:issuerUrl": issuer}}})
        if permitted:
            session.associate_identity_provider_config(clusterName="blue", oidc=OIDC)
        else:
            with pytest.raises(session.exceptions.ClientError, match="AccessDeniedException"):
                session.associate_identity_provider_config(clusterName="blue", oidc=OIDC)


# Tags of a cluster and of its parts.


@pytest.fixture
def tagged(eks, irsa):
    """The ARNs of a cluster and of one part of each kind that EKS tags. Each has the tag team=blue."""
    tags = {"team": "blue"}
    arn = f"{EKS}cluster/blue"
    eks.tag_resource(resourceArn=arn, tags=tags)
    entry = eks.create_access_entry(clusterName="blue", principalArn=irsa.role_arn, tags=tags)["accessEntry"]
    associated = eks.create_pod_identity_association(**ASSOCIATED, roleArn=irsa.role_arn, tags=tags)["association"]
    eks.associate_identity_provider_config(clusterName="blue", oidc=OIDC, tags=tags)
    config = eks.describe_identity_provider_config(clusterName="blue", identityProviderConfig=USERS)
    nodes = {"nodegroupName": "nodes", "nodeRole": irsa.role_arn, "subnets": ["subnet-1"]}
    profile = {"fargateProfileName": "profile", "podExecutionRoleArn": irsa.role_arn}
    selectors = [{"namespace": "default"}]
    return {
        "cluster": arn,
        "access entry": entry["accessEntryArn"],
        "association": associated["associationArn"],
        "config": config["identityProviderConfig"]["oidc"]["identityProviderConfigArn"],
        "node group": eks.create_nodegroup(clusterName="blue", **nodes, tags=tags)["nodegroup"]["nodegroupArn"],
        "profile": eks.create_fargate_profile(clusterName="blue", **profile, selectors=selectors, tags=tags)[
            "fargateProfile"
        ]["fargateProfileArn"],
    }


def test_eks_tags_a_cluster_and_each_of_its_parts_by_arn(eks, tagged, irsa):
    for arn in tagged.values():
        eks.tag_resource(resourceArn=arn, tags={"team": "red", "stage": "test"})
        eks.untag_resource(resourceArn=arn, tagKeys=["stage", "unknown"])
        assert eks.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "red"}, arn
    described = eks.describe_access_entry(clusterName="blue", principalArn=irsa.role_arn)["accessEntry"]
    assert described["tags"] == {"team": "red"}
    assert eks.describe_nodegroup(clusterName="blue", nodegroupName="nodes")["nodegroup"]["tags"] == {"team": "red"}


@pytest.mark.parametrize("key", ["aws:team", "Aws:team"])
def test_eks_calls_that_take_tags_refuse_keys_that_begin_with_aws(eks, tagged, irsa, key):
    message = "aws: prefixed tag key names are not allowed for external use."
    tags = {"stage": "test", key: "blue"}
    for arn in tagged.values():
        refused(lambda arn=arn: eks.tag_resource(resourceArn=arn, tags=tags), 400, "BadRequestException", message)
        assert eks.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "blue"}, arn
    nodes = {"nodegroupName": "more", "nodeRole": irsa.role_arn, "subnets": ["subnet-1"]}
    other = ASSOCIATED | {"serviceAccount": "other", "roleArn": irsa.role_arn}
    for call in (
        lambda: eks.create_cluster(name="red", roleArn=irsa.role_arn, resourcesVpcConfig={}, tags=tags),
        lambda: eks.create_nodegroup(clusterName="blue", **nodes, tags=tags),
        lambda: eks.create_pod_identity_association(**other, tags=tags),
    ):
        refused(call, *INVALID, message)
    assert eks.list_clusters()["clusters"] == ["blue"]


def test_a_session_tags_only_the_resources_that_its_policy_and_their_tags_allow(aws, irsa, tagged):
    session = aws.client("eks", irsa.assume()["Credentials"])
    for arn in tagged.values():
        allowed = {"Effect": "Allow", "Action": "eks:TagResource", "Resource": arn}
        for statement in (
            allowed | {"Resource": arn + "-not"},
            allowed | {"Condition": {"StringNotEquals": {"aws:ResourceTag/team": "blue"}}},
            allowed | {"Condition": {"StringEquals": {"aws:RequestTag/stage": "live"}}},
        ):
            irsa.permit(statement)
            with pytest.raises(session.exceptions.ClientError, match="is not authorized to perform: eks:TagResource"):
                session.tag_resource(resourceArn=arn, tags={"stage": "test"})
        irsa.permit(allowed | {"Condition": {"StringEquals": {"aws:ResourceTag/team": "blue"}}})
        session.tag_resource(resourceArn=arn, tags={"stage": "test"})


def test_conditions_on_an_access_entry_count_when_its_tags_are_listed(aws, irsa, tagged):
    session = aws.client("eks", irsa.assume()["Credentials"])
    arn = tagged["access entry"]
    allowed = {"Effect": "Allow", "Action": "eks:ListTagsForResource", "Resource": arn}
    irsa.permit(allowed | {"Condition": {"StringEquals": {"eks:principalArn": "arn:aws:iam::123456789012:role/other"}}})
    with pytest.raises(session.exceptions.ClientError, match="is not authorized"):
        session.list_tags_for_resource(resourceArn=arn)
    keys = {"eks:principalArn": irsa.role_arn, "eks:clusterName": "blue"}
    irsa.permit(allowed | {"Condition": {"StringEquals": keys}})
    assert session.list_tags_for_resource(resourceArn=arn)["tags"] == {"team": "blue"}


def test_eks_finds_no_tags_of_an_arn_that_does_not_exist(eks, tagged):
    elsewhere = tagged["access entry"].replace(REGION, "eu-central-1")
    of_none = f"{EKS}nodegroup/none/nodes/1"
    for arn in (f"{EKS}cluster/none", of_none, tagged["association"] + "x", elsewhere, "arn:aws:s3:::bucket", "blue"):
        for method, given in (
            ("list_tags_for_resource", {}),
            ("tag_resource", {"tags": {"a": "b"}}),
            ("untag_resource", {"tagKeys": ["a"]}),
        ):
            with pytest.raises(eks.exceptions.NotFoundException) as caught:
                getattr(eks, method)(resourceArn=arn, **given)
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 404
            assert arn in caught.value.response["Error"]["Message"]


# In the lab's file.


def test_a_call_writes_only_its_own_association_and_the_order_stays(aws, eks, tmp_path, monkeypatch):
    facts, written, own = aws.clusters.known[REGION, "blue"], [], OwnState(tmp_path / "own.db")
    monkeypatch.setattr(aws.gate._own, "_database", own._database)
    monkeypatch.setattr(aws.gate._own, "_parts", {})

    def rows() -> list[str]:
        changed = [sql for sql in written if facts.arn in sql]
        written.clear()
        return changed

    def create(name: str) -> str:
        made = eks.create_pod_identity_association(**{**ASSOCIATED, "serviceAccount": name}, roleArn=Irsa.role_arn)
        return made["association"]["associationId"]

    ids = [create(f"account-{number}") for number in range(30)]
    own._database._connection.set_trace_callback(written.append)
    first, gone, last = ids.pop(0), ids.pop(3), create("last")
    assert [last in sql for sql in rows()] == [True]
    eks.update_pod_identity_association(clusterName="blue", associationId=first, disableSessionTags=True)
    assert [first in sql for sql in rows()] == [True]
    eks.tag_resource(resourceArn=f"{EKS}podidentityassociation/blue/{last}", tags={"team": "blue"})
    assert ['"team": "blue"' in sql for sql in rows()] == [True]
    eks.delete_pod_identity_association(clusterName="blue", associationId=gone)
    assert [gone in sql for sql in rows()] == [True]
    own.close()
    stored = OwnState(tmp_path / "own.db")
    kept = associated(stored, facts.arn)["pod_identity"]
    assert [*kept._associations.items()] == [*facts.pod_identity._associations.items()]
    assert [*kept._associations] == [first, *ids, last]
    stored.keep_part(facts.arn, None)
    stored.close()
    assert OwnState(tmp_path / "own.db").entries(facts.arn) == []
