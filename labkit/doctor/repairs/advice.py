"""Advice, for cases in which every command could harm someone.

The advice says which object stays unchanged, and how to find out who needs the object. All commands are comments.
"""

import json
import shlex

from labkit.doctor.evidence import Evidence, accounts, known
from labkit.doctor.evidence.probe import CallerIdentity
from labkit.doctor.repairs.words import listed, said, shown
from labkit.documents import ROLE_ANNOTATION
from labkit.policy.arn import Arn
from labkit.policy.written import WrittenCondition

# The longest trust policy in IAM, in characters without white space: by default, and with a higher quota.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length
QUOTA, LONGEST = 2048, 4096
QUOTA_REQUEST = (
    "aws service-quotas request-service-quota-increase --service-code iam --quota-code L-C07B4B0D "
    f"--desired-value {LONGEST}"
)
# IAM is global, and CloudTrail records its calls in this region.
IAM_REGION = "us-east-1"
NO_OTHER_USER = "No pod or workload of another service account uses the ConfigMap."


def provider_stays(arn: str) -> str:
    """Return advice to keep the OIDC provider. Roles may trust it, and its cluster may be in another account.

    https://docs.aws.amazon.com/eks/latest/userguide/cross-account-access.html
    """
    provider = Arn.parse(arn)
    name = json.dumps(provider.issuer)
    naming = shlex.quote(f"Roles[?contains(to_string(AssumeRolePolicyDocument), `{name}`)].RoleName")
    return said(
        f"The OIDC provider {name} of the account {provider.account} is not changed, because someone may need it.",
        "Delete the provider only when no cluster in any account has this issuer, and no role trusts the provider.",
        "This lists the roles that trust the provider:",
        f"  aws iam list-roles --query {naming}",
    )


def named_role_stays(evidence: Evidence, arn: str) -> str:
    """https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html"""
    role = Arn.parse(arn)
    if role.account != evidence.connection.account_id:
        return said(
            f"If the account {role.account} is right, its owner has to create the role and the OIDC provider there."
        )
    account = evidence.expected.account
    return said(f"The role {role.name} stays unchanged. If it is the right role, its owner has to admit {account}.")


def roles_by_a_pattern(evidence: Evidence) -> str:
    """Return a comment with the names of roles that already admit the service account, for example by a pattern.

    The comment is empty if no such role is found. It's also empty if the service account's role is known from
    elsewhere than the annotation (the doctor's caller passed it, or a run's label gives it), or if the annotation
    isn't a role's ARN.

    The comment has no command, because a pattern (`shop:*`) doesn't show which service account a role was made for.
    """
    arns = known(lambda: evidence.expected.roles_that_admit_it if evidence.expected.is_only_annotated else []) or []
    if not arns:
        return ""
    account, named = evidence.expected.account, listed([Arn.parse(arn).name for arn in arns])
    others, one = (f"role {named}", "this role") if len(arns) == 1 else (f"roles {named}", "one of these roles")
    admit = "admits" if len(arns) == 1 else "admit"
    return said(
        f"The {others} already {admit} {account}, among other service accounts. "
        f"If {account} should have {one}, correct its annotation instead."
    )


def login_stays(evidence: Evidence, name: str) -> str:
    """https://docs.aws.amazon.com/eks/latest/userguide/authenticate-oidc-identity-provider.html"""
    return said(
        f"Nothing is changed: people may use the identity provider config {name} to log in to the cluster.",
        "If nobody uses the config, the owner of the cluster can remove it:",
        f"  aws eks disassociate-identity-provider-config --cluster-name {evidence.parameters.cluster} "
        f"--identity-provider-config type=oidc,name={name}",
    )


def association_stays(evidence: Evidence, ids: list[str], caller: CallerIdentity | None) -> str:
    """Return advice to keep either the association or the annotation.

    `caller`: the pod's identity according to AWS; None if it isn't known.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html
    https://docs.aws.amazon.com/eks/latest/userguide/pod-id-agent-setup.html
    """
    parameters, kubectl = evidence.parameters, evidence.connection.kubectl
    account = f"serviceaccount {parameters.service_account} -n {parameters.namespace}"
    command = f"aws eks delete-pod-identity-association --cluster-name {parameters.cluster} --association-id"
    if caller and caller.arn:
        known = [f"The pod {evidence.pod.name} uses {caller.identity}."]
    elif caller and accounts.uses_pod_identity(evidence):
        agents = f"{kubectl} get pods -n kube-system -l app.kubernetes.io/name=eks-pod-identity-agent -o wide"
        known = ["The pod asks the EKS Pod Identity Agent on its node. This shows where the agent runs:", f"  {agents}"]
    else:
        how = "with aws sts get-caller-identity" if evidence.pod.probe_allowed else "with --probe"
        known = [f"Find out {how} which role each pod uses."]
    if not evidence.cluster.annotation:
        return said("Nothing is changed: with an association, a service account needs no annotation.", *known)
    return said(
        "Nothing is changed: some pods may still get their role from the association.",
        *known,
        "To keep the association's role, remove the annotation:",
        f"  {kubectl} annotate {account} {ROLE_ANNOTATION}-",
        "To keep the annotation's role, delete the association. Pods that use the association's role lose it, so "
        "create these pods again right after that:",
        *(f"  {command} {each}" for each in ids),
    )


def account_stays(evidence: Evidence, what: str, was: str) -> str:
    """Return advice about a pod or workload, `what`, that runs as another service account, `was`: to ask its owner.

    https://kubernetes.io/docs/concepts/security/service-accounts/
    """
    return said(
        f"The doctor leaves {what} unchanged. "
        f"It runs as another service account, {evidence.parameters.namespace}:{was}, perhaps on purpose.",
        *(_lost_with(evidence) if was == accounts.DEFAULT else ()),
        f"Ask whoever runs {what} which service account it should have.",
    )


def workloads_stay(evidence: Evidence, names: list[str]) -> str:
    """Return advice about workloads that run as `default`, while nothing ties one of them to the service account."""
    account = evidence.parameters.service_account
    return said(
        f"Nothing is changed: nothing shows that {' or '.join(names)} should run as {account}.",
        f"If you know that one of these workloads should have the role of {account}, set the serviceAccountName in "
        f"its manifest to {account}.",
        *_lost_with(evidence),
    )


def _lost_with(evidence: Evidence) -> list[str]:
    """Return a list with a sentence about what a workload of `default` would lose; empty if it would lose nothing."""
    lost = known(lambda: accounts.lost_bindings(evidence))
    if lost is None:
        return [
            "It may lose permissions in the cluster: the doctor could not list RoleBindings and ClusterRoleBindings."
        ]
    return [f"As {evidence.parameters.service_account}, it would lose what {listed(lost)} allows."] if lost else []


def others_stay(evidence: Evidence) -> str:
    """Return advice: first find out who else uses the role, and only then restrict the trust policy.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/cloudtrail-integration.html
    """
    expected = evidence.expected
    return said(
        "Nothing is changed. If the trust policy named only this service account, everybody else who uses "
        f"{expected.role_name} would lose the role.",
        "Find out who uses the role. CloudTrail names each caller in userIdentity.userName:",
        f"  {_who_called('AssumeRoleWithWebIdentity', expected.region)}",
        f"Then name the service accounts in the condition on {expected.provider_name}:sub, or give each its own role.",
    )


def audiences_stay(evidence: Evidence) -> str:
    """Return advice to find out which audiences are in use, before the trust policy requires one.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetOpenIDConnectProvider.html
    """
    expected = evidence.expected
    return said(
        f"Nothing is changed. If the trust policy required the audience {expected.audience}, everybody who uses "
        f"{expected.role_name} with a token for another audience would lose the role.",
        "The OIDC provider accepts tokens for the audiences in its ClientIDList:",
        f"  aws iam get-open-id-connect-provider --open-id-connect-provider-arn {expected.provider_arn}",
        f"Then add a condition on {expected.provider_name}:aud to the trust policy. In the condition, name the "
        "audiences that you need.",
    )


def length_stays() -> str:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length"""
    return said(
        "Nothing is changed: all service accounts in the trust policy keep the role.",
        "Before you add a service account, give some of these accounts their own roles, or ask for a higher quota:",
        f"  {QUOTA_REQUEST}",
    )


def too_long(evidence: Evidence, size: int, quota: int) -> str:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length"""
    expected = evidence.expected
    account = expected.account
    return said(
        f"With {account}, the trust policy of {expected.role_name} would have {size} characters. IAM allows {quota}.",
        f"Give {account} a role of its own, or ask for a higher quota:",
        f"  {QUOTA_REQUEST}",
    )


def restriction_stays(evidence: Evidence, *restricting: tuple[int, WrittenCondition]) -> str:
    """Return advice about the statements that keep the service account out. Only their author should change them.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
    """
    return said(
        f"The trust policy of {evidence.expected.role_name} has a restriction that keeps "
        f"{evidence.expected.account} out.",
        *(
            f"Statement {position} has the condition "
            f"{condition.operator} {condition.key} = {', '.join(condition.values)}."
            for position, condition in restricting
        ),
        "Someone wrote the restriction on purpose, so no command removes it. Ask its author. To find the author:",
        f"  {who_wrote_trust()}",
    )


def request_decides(evidence: Evidence, *, is_known: bool) -> str:
    """Return advice for a trust policy with conditions on the request.

    The advice tells the user to ask the author of these conditions.

    `is_known`: whether STS's decision on the pod's request is known.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
    """
    return said(
        f"Nothing is changed: the trust policy of {evidence.expected.role_name} has conditions on the request. "
        "Someone wrote them on purpose.",
        *([] if is_known else ["--probe shows whether STS accepts the pod's request."]),
        "Ask the author of these conditions which requests should get the role. To find the author:",
        f"  {who_wrote_trust()}",
    )


def session_stays(evidence: Evidence, again: str) -> str:
    """Return advice about a pod whose token STS refuses: keep the pod, which may still have an earlier session.

    `again`: the commands that replace the pod. The advice shows these commands as comments.

    https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
    """
    comment = said(
        "Nothing is changed. The pod may still have a session, and STS would refuse to open one for a new pod.",
        "CloudTrail has each refusal, with the request:",
        f"  {_who_called('AssumeRoleWithWebIdentity', evidence.expected.region)}",
        "Once STS accepts the token, or if the pod has no session to lose, create the pod again with:",
    )
    return f"{comment}\n{shown(again)}"


def deny_stays(policy_arn: str) -> str:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_managed-vs-inline.html"""
    return said(
        f"The policy {policy_arn} denies the pod's call. Someone wrote this Deny on purpose.",
        "Other roles may have the policy, so the doctor doesn't remove the Deny. Ask the policy's owner to change it.",
        "This lists the roles and users that have the policy:",
        f"  aws iam list-entities-for-policy --policy-arn {policy_arn}",
    )


def inline_deny_stays(evidence: Evidence, name: str) -> str:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_managed-vs-inline.html"""
    return said(
        f"Nothing is changed: the Deny in {evidence.expected.role_name}'s policy {name} may be intended.",
        "Ask its author. To find the author:",
        f"  {_who_called('PutRolePolicy', IAM_REGION)}",
    )


def broad_deny_stays(evidence: Evidence, name: str) -> str:
    """Return advice about a Deny that the doctor can't open for the examined action alone.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_notaction.html
    """
    expected = evidence.expected
    return said(
        f"Nothing is changed: the Deny in {expected.role_name}'s policy {name} covers more than {expected.action} on "
        f"{expected.resource}, and no statement excepts only that.",
        "Someone wrote the Deny on purpose. Ask its author to list the actions and resources that it should deny. "
        "To find the author:",
        f"  {_who_called('PutRolePolicy', IAM_REGION)}",
    )


def bucket_deny_stays(evidence: Evidence, bucket: str) -> str:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucket-policies.html"""
    expected = evidence.expected
    return said(
        f"Nothing is changed: the Deny in the policy of the bucket {bucket} covers more than {expected.action} on "
        f"{expected.resource}, and no statement excepts only that.",
        "Whoever owns the bucket wrote the Deny on purpose. Ask them to list the actions and resources to deny.",
    )


def pod_identity_role_stays(arn: str, service: str, actions: list[str]) -> str:
    """https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html"""
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": actions}
    return said(
        f"Nothing is changed: others may use the role {Arn.parse(arn).name}, too.",
        "Ask its owner to take away a Deny of this service, and to add this statement to the trust policy:",
        f"  {json.dumps(statement)}",
    )


def resource_policy_stays(evidence: Evidence, *, is_missing: bool) -> str:
    """Return advice about a resource whose policy doesn't admit the role, or that `is_missing`.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_identity-vs-resource.html
    """
    expected, arn = evidence.expected, Arn.parse(evidence.expected.resource)
    if expected.resource == expected.role_arn:
        return said(
            f"Nothing is changed: the pod's SDK gets {arn.name} with the pod's token, so no program has to assume it.",
            f"Take {arn.name} out of the settings of the pod's program, such as a role_arn in its configuration.",
        )
    if is_missing:
        return said(f"If {expected.resource} is right, its account's owner has to create the role.")
    statement = {"Effect": "Allow", "Principal": {"AWS": expected.role_arn}, "Action": expected.action}
    # In a key's policy, the resource is always the key itself. A trust policy has no resource.
    if arn.service != "iam":
        statement["Resource"] = "*" if arn.service == "kms" else expected.resource
    return said(
        f"Nothing is changed: the owner of {expected.resource} decides which roles its policy admits.",
        "Ask them to take away a Deny that covers the role, and to add this statement:",
        f"  {json.dumps(statement)}",
    )


def boundary_stays(evidence: Evidence, arn: str, wanted: str) -> str:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html"""
    return said(
        f"The permissions boundary {arn} of {evidence.expected.role_name} does not allow {wanted}.",
        "Someone set the boundary on purpose, so no command removes it.",
        f"Ask its author for another boundary, which also allows {wanted}. To find the author:",
        f"  {_who_called('PutRolePermissionsBoundary', IAM_REGION)}",
    )


def administrator_stays(evidence: Evidence, policies: list[str]) -> str:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_last-accessed.html"""
    return said(
        f"Nothing is changed, because everybody who uses {evidence.expected.role_name} would lose the permissions of "
        f"{listed(policies)}.",
        "Find out which services the role has used:",
        f"  aws iam generate-service-last-accessed-details --arn {evidence.expected.role_arn}",
        "Attach a policy that allows only these services. After that, detach the old policy.",
    )


def organization_stays(evidence: Evidence, policy_type: str) -> str:
    """https://docs.aws.amazon.com/organizations/latest/APIReference/API_ListPoliciesForTarget.html"""
    return said(
        "only the organization's administrators can change the policy. In their account, this lists the policies:",
        f"aws organizations list-policies-for-target --target-id {evidence.expected.role_account_id} "
        f"--filter {policy_type}",
    )


def config_map_stays(evidence: Evidence, name: str, keys: list[str], users: list[str]) -> str:
    """https://kubernetes.io/docs/concepts/configuration/configmap/"""
    return said(
        f"The ConfigMap {name} is not changed: {listed(users)} may also use it.",
        f"Ask the owner of the ConfigMap to change or remove {listed(keys)}.",
        f"Or give the pods of {evidence.expected.account} a corrected copy of the ConfigMap.",
    )


def who_wrote_trust() -> str:
    """Return the command that finds the last author of a trust policy."""
    return _who_called("UpdateAssumeRolePolicy", IAM_REGION)


def _who_called(operation: str, region: str) -> str:
    """https://docs.aws.amazon.com/cli/latest/reference/cloudtrail/lookup-events.html"""
    return (
        f"aws cloudtrail lookup-events --region {region} "
        f"--lookup-attributes AttributeKey=EventName,AttributeValue={operation}"
    )
