"""The organization: its API for the account that manages it, and what its policies deny in the accounts below.

https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps_evaluation.html
"""

import json
from functools import partial

import pytest
from botocore.exceptions import ClientError

from labkit.simulator.aws.organizations import MANAGEMENT_ID
from tests.simulator.aws.conftest import (
    ACCOUNT,
    ADMINISTRATOR,
    ISSUER,
    MANAGEMENT,
    SUBJECT,
    Irsa,
    refused,
    trust_policy,
)

SCP, RCP = "SERVICE_CONTROL_POLICY", "RESOURCE_CONTROL_POLICY"
OTHER, ENTRANCE = "222222222222", "OrganizationAccountAccessRole"
ADMIN_ARN = f"arn:aws:iam::{ACCOUNT}:user/administrator"
POD_ARN = f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod"
EXPLICIT = "with an explicit deny in a service control policy"
SILENT = "because no service control policy allows the {} action"
BY_RESOURCE = "with an explicit deny in a resource control policy"
MALFORMED = "The provided policy document does not meet the requirements of the specified policy type."
DENIED = "You don't have permissions to access this resource."


def statement(effect="Deny", action="s3:GetObject", resource="*", **more):
    return {"Effect": effect, "Action": action, "Resource": resource, **more}


def document(*statements, **more):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements), **more})


class Managing:
    """The account that manages the organization."""

    def __init__(self, aws):
        self.aws = aws
        self.api = self.client("organizations")
        self.root = self.api.list_roots()["Roots"][0]["Id"]

    def client(self, service):
        return self.aws.new_client(service, MANAGEMENT.access_key_id, MANAGEMENT.secret_access_key)

    def policy(self, content, policy_type=SCP, name="bound"):
        made = self.api.create_policy(Name=name, Description="", Type=policy_type, Content=content)
        return made["Policy"]["PolicySummary"]["Id"]

    def attach(self, target, *statements, policy_type=SCP, name="bound"):
        policy_id = self.policy(document(*statements), policy_type, name)
        self.api.attach_policy(PolicyId=policy_id, TargetId=target)
        return policy_id

    def enable_resource_control(self):
        self.api.enable_policy_type(RootId=self.root, PolicyType=RCP)

    def unit(self, name, parent=None):
        made = self.api.create_organizational_unit(ParentId=parent or self.root, Name=name)
        return made["OrganizationalUnit"]["Id"]


@pytest.fixture
def managing(aws):
    return Managing(aws)


@pytest.fixture
def pod(aws, irsa):
    irsa.permit({"Effect": "Allow", "Action": "*", "Resource": "*"})
    return irsa.assume()["Credentials"]


def read(aws, pod):
    return aws.client("s3", pod).get_object(Bucket=Irsa.bucket, Key="hello.txt")


def said(caller, action, resource, tail):
    return f"User: {caller} is not authorized to perform: {action} on resource: {resource} {tail}"


OBJECT = f'"arn:aws:s3:::{Irsa.bucket}/hello.txt"'


# The organization, and who may call its API


def test_the_learners_account_is_a_member_with_full_access(aws, managing):
    organization = aws.client("organizations").describe_organization()["Organization"]
    assert organization["MasterAccountId"] == MANAGEMENT_ID
    assert organization == managing.api.describe_organization()["Organization"]
    assert {account["Id"] for account in managing.api.list_accounts()["Accounts"]} == {MANAGEMENT_ID, ACCOUNT}
    for target in (managing.root, ACCOUNT):
        attached = managing.api.list_policies_for_target(TargetId=target, Filter=SCP)["Policies"]
        assert [policy["Name"] for policy in attached] == ["FullAWSAccess"]
        assert attached[0]["Arn"] == "arn:aws:organizations::aws:policy/service_control_policy/p-FullAWSAccess"
    assert managing.client("sts").get_caller_identity()["Account"] == MANAGEMENT_ID


def test_the_organization_has_the_same_ids_in_every_lab(aws, managing):
    first = managing.api.describe_organization()["Organization"]["Id"], managing.root
    aws.begin_anew()
    assert first == (managing.api.describe_organization()["Organization"]["Id"], Managing(aws).root)


def test_a_member_account_may_not_manage_its_organization(aws, managing, pod):
    for call in (
        lambda api: api.list_roots(),
        lambda api: api.list_policies(Filter=SCP),
        lambda api: api.list_policies_for_target(TargetId=ACCOUNT, Filter=SCP),
        lambda api: api.create_policy(Name="x", Description="", Type=SCP, Content=document(statement())),
        lambda api: api.detach_policy(PolicyId="p-FullAWSAccess", TargetId=ACCOUNT),
    ):
        refused(lambda call=call: call(aws.client("organizations")), 400, "AccessDeniedException", DENIED)
    managing.api.register_delegated_administrator(AccountId=ACCOUNT, ServicePrincipal="ssm.amazonaws.com")
    aws.client("organizations").list_policies_for_target(TargetId=ACCOUNT, Filter=SCP)
    refused(
        lambda: aws.client("organizations").detach_policy(PolicyId="p-FullAWSAccess", TargetId=ACCOUNT),
        400, "AccessDeniedException", DENIED,
    )  # fmt: skip


def test_the_learner_s_account_enters_others_but_not_the_managing_account(aws, managing):
    for sts in (aws.client("sts"), managing.client("sts")):
        entered = sts.assume_role(RoleArn=f"arn:aws:iam::{OTHER}:role/{ENTRANCE}", RoleSessionName="me")
        assert entered["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{OTHER}:assumed-role/{ENTRANCE}/me"
    managing.client("sts").assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{ENTRANCE}", RoleSessionName="me")
    with pytest.raises(ClientError, match="is not authorized to perform: sts:AssumeRole"):
        aws.client("sts").assume_role(RoleArn=f"arn:aws:iam::{MANAGEMENT_ID}:role/{ENTRANCE}", RoleSessionName="me")
    assert OTHER in {account["Id"] for account in managing.api.list_accounts()["Accounts"]}


def test_the_managing_account_creates_an_account_and_enters_it(aws, managing):
    made = managing.api.create_account(AccountName="new", Email="new@example.com")["CreateAccountStatus"]
    assert made["State"] == "SUCCEEDED"
    role = f"arn:aws:iam::{made['AccountId']}:role/{ENTRANCE}"
    entered = managing.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    aws.client("s3", entered).list_buckets()


def test_no_policy_of_the_organization_limits_an_account_that_was_removed(aws, managing):
    managing.attach(ACCOUNT, statement(action="sqs:*"))
    with pytest.raises(ClientError, match=EXPLICIT):
        aws.client("sqs").list_queues()
    delegated = {"AccountId": ACCOUNT, "ServicePrincipal": "access-analyzer.amazonaws.com"}
    managing.api.register_delegated_administrator(**delegated)
    remove = managing.api.remove_account_from_organization
    for account_id, code, message in (
        (ACCOUNT, "ConstraintViolationException", "deregister"),
        (MANAGEMENT_ID, "MasterCannotLeaveOrganizationException", "You can't remove a management account"),
        (OTHER, "AccountNotFoundException", "You specified an account that doesn't exist."),
    ):
        with pytest.raises(ClientError, match=message) as caught:
            remove(AccountId=account_id)
        assert caught.value.response["Error"]["Code"] == code
    managing.api.deregister_delegated_administrator(**delegated)
    remove(AccountId=ACCOUNT)
    assert [account["Id"] for account in managing.api.list_accounts()["Accounts"]] == [MANAGEMENT_ID]
    aws.client("sqs").list_queues()
    message = "Your account is not a member of an organization."
    describe = aws.client("organizations").describe_organization
    refused(describe, 400, "AWSOrganizationsNotInUseException", message)


def test_a_condition_can_ask_for_the_organization_of_caller_and_resource(aws, managing, irsa):
    organization = managing.api.describe_organization()["Organization"]["Id"]
    for condition, allowed in (
        ({"StringEquals": {"aws:PrincipalOrgID": organization, "aws:ResourceOrgID": organization}}, True),
        ({"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": f"{organization}/{managing.root}/*"}}, True),
        ({"StringEquals": {"aws:PrincipalOrgID": "o-anotherone"}}, False),
    ):
        irsa.permit(statement("Allow", Condition=condition))
        session = irsa.assume()["Credentials"]
        if allowed:
            read(aws, session)
        else:
            with pytest.raises(ClientError, match="because no identity-based policy allows"):
                read(aws, session)


# Service control policies


def test_a_service_control_policy_at_any_level_denies_everybody_in_the_account(aws, managing, pod):
    inner = managing.unit("inner", managing.unit("outer"))
    managing.api.move_account(AccountId=ACCOUNT, SourceParentId=managing.root, DestinationParentId=inner)
    outer = managing.api.list_parents(ChildId=inner)["Parents"][0]["Id"]
    for level in (managing.root, outer, inner, ACCOUNT):
        policy_id = managing.attach(level, statement(), name=f"at {level}")
        for client, who in ((aws.client("s3", pod), POD_ARN), (aws.client("s3"), ADMIN_ARN)):
            refused(
                lambda client=client: client.get_object(Bucket=Irsa.bucket, Key="hello.txt"),
                403, "AccessDenied", said(who, "s3:GetObject", OBJECT, EXPLICIT),
            )  # fmt: skip
        assert f'of the service control policy "at {level}", refuses' in aws.last()["lab"]["reason"]
        managing.api.detach_policy(PolicyId=policy_id, TargetId=level)
        read(aws, pod)


def test_a_service_control_policy_at_every_level_has_to_allow_a_call(aws, managing, pod):
    unit = managing.unit("unit")
    managing.api.move_account(AccountId=ACCOUNT, SourceParentId=managing.root, DestinationParentId=unit)
    managing.attach(unit, statement("Allow", ["s3:List*", "iam:*", "organizations:*"]))
    managing.api.detach_policy(PolicyId="p-FullAWSAccess", TargetId=unit)
    tail = SILENT.format("s3:GetObject")
    refused(lambda: read(aws, pod), 403, "AccessDenied", said(POD_ARN, "s3:GetObject", OBJECT, tail))
    aws.client("s3", pod).list_objects_v2(Bucket=Irsa.bucket)
    aws.client("iam").list_roles()
    with pytest.raises(ClientError, match=SILENT.format("sqs:listqueues")):
        aws.client("sqs").list_queues()


def test_an_explicit_deny_of_the_organization_is_reported_before_a_missing_allow(aws, managing, pod, irsa):
    irsa.permit(statement("Allow", "sqs:*"))
    managing.attach(ACCOUNT, statement("Allow", "sqs:*"), statement())
    managing.api.detach_policy(PolicyId="p-FullAWSAccess", TargetId=ACCOUNT)
    refused(lambda: read(aws, pod), 403, "AccessDenied", said(POD_ARN, "s3:GetObject", OBJECT, EXPLICIT))


def test_a_service_control_policy_limits_a_session_but_not_the_exchange(aws, managing, irsa):
    managing.attach(ACCOUNT, statement(action="*"))
    session = irsa.assume()["Credentials"]
    aws.client("sts", session).get_caller_identity()
    refused(lambda: read(aws, session), 403, "AccessDenied", said(POD_ARN, "s3:GetObject", OBJECT, EXPLICIT))


def test_a_bucket_policy_does_not_lift_a_service_control_policy(aws, managing, pod, irsa):
    bucket_policy = document(statement("Allow", resource=f"arn:aws:s3:::{Irsa.bucket}/*", Principal={"AWS": POD_ARN}))
    aws.client("s3").put_bucket_policy(Bucket=Irsa.bucket, Policy=bucket_policy)
    irsa.permit(statement("Allow", "sqs:*"))
    read(aws, pod)
    managing.attach(ACCOUNT, statement())
    refused(lambda: read(aws, pod), 403, "AccessDenied", said(POD_ARN, "s3:GetObject", OBJECT, EXPLICIT))


def test_service_control_policies_do_not_limit_the_managing_account(aws, managing, pod):
    managing.attach(managing.root, statement(action="*"))
    managing.client("s3").create_bucket(Bucket="managing")
    managing.client("iam").create_user(UserName="ann")
    with pytest.raises(ClientError, match=EXPLICIT):
        aws.client("iam").create_user(UserName="ann")
    with pytest.raises(ClientError, match=EXPLICIT):
        aws.client("s3").create_bucket(Bucket="mine")


def test_a_condition_in_a_service_control_policy_spares_the_role_it_names(aws, managing, irsa):
    spared = {"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/my-role"}}
    managing.attach(ACCOUNT, statement(action="s3:*", Condition=spared))
    irsa.permit({"Effect": "Allow", "Action": "*", "Resource": "*"})
    read(aws, irsa.assume()["Credentials"])
    with pytest.raises(ClientError, match=EXPLICIT):
        aws.client("s3").list_buckets()


def test_a_deny_counts_by_its_action_if_the_lab_cannot_know_the_resource(aws, managing):
    ses = aws.client("ses")
    denied = statement(action="ses:VerifyEmailIdentity", resource="arn:aws:ses:*:*:identity/another")
    managing.attach(ACCOUNT, denied, name="on one")
    ses.list_identities()
    refused(
        lambda: ses.verify_email_identity(EmailAddress="ann@example.com"),
        403, "AccessDenied", f"User: {ADMIN_ARN} is not authorized to perform: ses:VerifyEmailIdentity {EXPLICIT}",
    )  # fmt: skip


def test_a_service_control_policy_denies_assume_role(aws, managing, irsa):
    trust = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    irsa.iam.create_role(RoleName="next", AssumeRolePolicyDocument=document(trust))
    role = f"arn:aws:iam::{ACCOUNT}:role/next"
    policy_id = managing.attach(ACCOUNT, statement(action="sts:AssumeRole"))
    refused(
        lambda: aws.client("sts").assume_role(RoleArn=role, RoleSessionName="me"),
        403, "AccessDenied", said(ADMIN_ARN, "sts:AssumeRole", role, EXPLICIT),
    )  # fmt: skip
    managing.api.detach_policy(PolicyId=policy_id, TargetId=ACCOUNT)
    aws.client("sts").assume_role(RoleArn=role, RoleSessionName="me")


def test_the_simulator_says_what_the_organization_allows(aws, managing, irsa):
    def simulated():
        return irsa.iam.simulate_principal_policy(PolicySourceArn=irsa.role_arn, ActionNames=["s3:GetObject"])

    (result,) = simulated()["EvaluationResults"]
    assert (result["EvalDecision"], result["OrganizationsDecisionDetail"]) == (
        "allowed",
        {"AllowedByOrganizations": True},
    )
    managing.attach(ACCOUNT, statement())
    (result,) = simulated()["EvaluationResults"]
    detail = {"AllowedByOrganizations": False}
    assert (result["EvalDecision"], result["OrganizationsDecisionDetail"]) == ("explicitDeny", detail)
    assert result["MatchedStatements"] == []


# Resource control policies


def control(action, **condition):
    more = {"Condition": condition} if condition else {}
    return statement(action=action, Principal="*", **more)


def test_a_resource_control_policy_limits_the_web_identity_exchange(aws, managing, irsa):
    name = ISSUER.removeprefix("https://")
    managing.enable_resource_control()
    managing.attach(
        managing.root, control("sts:AssumeRoleWithWebIdentity", StringEquals={f"{name}:sub": SUBJECT}), policy_type=RCP
    )
    message = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    refused(irsa.assume, 403, "AccessDenied", f"{message} {BY_RESOURCE}")
    reason = 'statement 1 of the resource control policy "bound", refuses sts:AssumeRoleWithWebIdentity'
    assert reason in aws.last()["lab"]["reason"]
    subject = "system:serviceaccount:default:another"
    irsa.trust(trust_policy(Condition={"StringEquals": {f"{name}:sub": subject}}))
    irsa.assume(WebIdentityToken=aws.issuer.token(sub=subject))


@pytest.mark.parametrize(("operator", "refuses"), [("StringEquals", True), ("StringNotEquals", False)])
def test_a_resource_control_policy_reads_the_role_s_account_in_both_exchanges(aws, managing, irsa, operator, refuses):
    managing.enable_resource_control()
    denial = control("sts:AssumeRole*", **{operator: {"aws:ResourceAccount": ACCOUNT}})
    managing.attach(ACCOUNT, denial, policy_type=RCP)
    principals = {"Federated": Irsa.provider_arn, "AWS": f"arn:aws:iam::{ACCOUNT}:root"}
    irsa.trust(trust_policy(Principal=principals, Action="sts:AssumeRole*", Condition=None))
    assumed = partial(aws.client("sts").assume_role, RoleArn=irsa.role_arn, RoleSessionName="me")
    for exchange in (irsa.assume, assumed):
        if refuses:
            with pytest.raises(ClientError, match="with an explicit deny in a resource control policy"):
                exchange()
        else:
            assert exchange()["Credentials"]


def test_a_resource_control_policy_limits_every_caller_of_the_account_s_buckets(aws, managing, irsa):
    managing.enable_resource_control()
    role = f"arn:aws:iam::{OTHER}:role/{ENTRANCE}"
    entered = aws.client("sts").assume_role(RoleArn=role, RoleSessionName="me")["Credentials"]
    theirs = aws.client("s3", entered)
    theirs.create_bucket(Bucket="theirs")
    theirs.put_object(Bucket="theirs", Key="k", Body=b"")
    for bucket, client in ((Irsa.bucket, theirs), ("theirs", aws.client("s3"))):
        allowed = document(statement("Allow", "s3:*", f"arn:aws:s3:::{bucket}/*", Principal="*"))
        (aws.client("s3") if bucket == Irsa.bucket else theirs).put_bucket_policy(Bucket=bucket, Policy=allowed)
        client.get_object(Bucket=bucket, Key="hello.txt" if bucket == Irsa.bucket else "k")
    managing.attach(ACCOUNT, control("s3:*"), policy_type=RCP)
    with pytest.raises(ClientError, match=BY_RESOURCE):
        theirs.get_object(Bucket=Irsa.bucket, Key="hello.txt")
    with pytest.raises(ClientError, match=BY_RESOURCE):
        aws.client("s3").get_object(Bucket=Irsa.bucket, Key="hello.txt")
    aws.client("s3").get_object(Bucket="theirs", Key="k")
    # Resource control policies don't limit IAM.
    aws.client("iam").list_roles()


# What a policy may contain, and how many there may be


@pytest.mark.parametrize(("policy_type", "content", "taken"), [
    (SCP, document(statement()), True),
    (SCP, document({"Effect": "Allow", "NotAction": "iam:*", "NotResource": "arn:aws:s3:::x"}), True),
    (SCP, document(statement("Allow", Condition={"Bool": {"aws:SecureTransport": "true"}})), True),
    (SCP, document(statement(action="s3:*Object")), True),
    (SCP, document(statement(Principal="*")), False),
    (SCP, document({"Effect": "Deny", "Action": "s3:*"}), False),
    (SCP, document(statement("Forbid")), False),
    (SCP, json.dumps({"Statement": [statement()]}), False),
    (SCP, document(statement(Sid="not this")), False),
    (SCP, document(statement(action="GetObject")), False),
    (SCP, document(statement(Condition={"StringIs": {"aws:userid": "x"}})), False),
    (SCP, "no json", False),
    (RCP, document(control("s3:*")), True),
    (RCP, document(control(["s3:*", "sts:AssumeRole*"], Bool={"aws:SecureTransport": "false"})), True),
    (RCP, document(statement("Allow", "s3:*", Principal="*")), False),
    (RCP, document(statement()), False),
    (RCP, document(statement(Principal={"AWS": ACCOUNT})), False),
    (RCP, document(control("*")), False),
    (RCP, document(control(["s3:*", "ec2:RunInstances"])), False),
    (RCP, document(control("SQS:SendMessage")), True),
    (RCP, document({"Effect": "Deny", "Principal": "*", "NotAction": "s3:*", "Resource": "*"}), False),
    (RCP, document({"Effect": "Deny", "NotPrincipal": {"AWS": ACCOUNT}, "Action": "s3:*", "Resource": "*"}), False),
])  # fmt: skip
def test_organizations_takes_only_a_policy_with_content_that_its_type_allows(managing, policy_type, content, taken):
    if taken:
        managing.policy(content, policy_type)
        return
    refused(lambda: managing.policy(content, policy_type), 400, "MalformedPolicyDocumentException", MALFORMED)
    policy_id = managing.policy(document(statement() if policy_type == SCP else control("s3:*")), policy_type)
    refused(
        lambda: managing.api.update_policy(PolicyId=policy_id, Content=content),
        400, "MalformedPolicyDocumentException", MALFORMED,
    )  # fmt: skip


def test_a_change_to_a_policy_counts_at_once(aws, managing, pod):
    policy_id = managing.attach(ACCOUNT, statement(action="sqs:*"))
    read(aws, pod)
    managing.api.update_policy(PolicyId=policy_id, Content=document(statement()))
    with pytest.raises(ClientError, match=EXPLICIT):
        read(aws, pod)
    managing.api.disable_policy_type(RootId=managing.root, PolicyType=SCP)
    read(aws, pod)


def test_organizations_refuses_too_many_or_too_large_policies(managing):
    for number in range(9):
        managing.attach(ACCOUNT, statement(), name=f"policy {number}")
    one_too_many = managing.policy(document(statement()))
    refused(
        lambda: managing.api.attach_policy(PolicyId=one_too_many, TargetId=ACCOUNT),
        400, "ConstraintViolationException",
        "You have attached the maximum number of policies to the specified target.",
    )  # fmt: skip
    refused(
        lambda: managing.policy(document(*[statement(Sid=f"s{n}") for n in range(150)]), name="long"),
        400, "ConstraintViolationException", "You have exceeded the maximum policy size.",
    )  # fmt: skip


def test_organizations_refuses_to_attach_twice_or_to_detach_the_last_policy(managing):
    detach, attach = managing.api.detach_policy, managing.api.attach_policy
    refused(
        lambda: detach(PolicyId="p-FullAWSAccess", TargetId=ACCOUNT), 400, "ConstraintViolationException",
        "You cannot remove the last policy attached to the specified target. "
        "You must have at least one attached at all times.",
    )  # fmt: skip
    policy_id = managing.policy(document(statement()))
    refused(
        lambda: detach(PolicyId=policy_id, TargetId=ACCOUNT), 400, "PolicyNotAttachedException",
        "The policy isn't attached to the specified target in the specified root.",
    )  # fmt: skip
    attach(PolicyId=policy_id, TargetId=ACCOUNT)
    refused(
        lambda: attach(PolicyId=policy_id, TargetId=ACCOUNT), 400, "DuplicatePolicyAttachmentException",
        "The selected policy is already attached to the specified target.",
    )  # fmt: skip
    rcp = managing.policy(document(control("s3:*")), RCP, "resources")
    message = "This operation can be performed only for enabled policy types."
    refused(lambda: attach(PolicyId=rcp, TargetId=ACCOUNT), 400, "PolicyTypeNotEnabledException", message)
    managing.enable_resource_control()
    attach(PolicyId=rcp, TargetId=ACCOUNT)
    with pytest.raises(ClientError, match="RCPFullAWSAccess"):
        detach(PolicyId="p-RCPFullAWSAccess", TargetId=ACCOUNT)
    with pytest.raises(ClientError, match="managed by AWS"):
        managing.api.update_policy(PolicyId="p-FullAWSAccess", Content=document(statement()))


def test_an_organizational_unit_that_is_not_empty_stays(managing):
    unit = managing.unit("unit")
    with pytest.raises(ClientError, match="DuplicateOrganizationalUnitException"):
        managing.unit("unit")
    with pytest.raises(ClientError, match="ParentNotFoundException"):
        managing.unit("unit", "ou-none-00000000")
    managing.api.move_account(AccountId=ACCOUNT, SourceParentId=managing.root, DestinationParentId=unit)
    with pytest.raises(ClientError, match="OrganizationalUnitNotEmptyException"):
        managing.api.delete_organizational_unit(OrganizationalUnitId=unit)
    managing.api.move_account(AccountId=ACCOUNT, SourceParentId=unit, DestinationParentId=managing.root)
    managing.api.delete_organizational_unit(OrganizationalUnitId=unit)
    targets = managing.api.list_targets_for_policy(PolicyId="p-FullAWSAccess")["Targets"]
    assert unit not in {target["TargetId"] for target in targets}


def test_the_managing_account_s_access_key_needs_its_own_secret(aws):
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        aws.new_client("sts", MANAGEMENT.access_key_id, ADMINISTRATOR.secret_access_key).get_caller_identity()
