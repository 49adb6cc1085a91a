"""Find the roles that may be meant for a service account if nothing names its role: the candidates.

A trust policy or a tag that names the service account makes a role a candidate. A role's name proves nothing.
"""

import re
from typing import TYPE_CHECKING, cast

from labkit.doctor.evidence.account import Account, tags_of
from labkit.doctor.evidence.reading import Document, NotRead, known
from labkit.doctor.evidence.trust import Trust
from labkit.documents import AUDIENCE
from labkit.policy.arn import Arn
from labkit.policy.written import StatementDocument, conditions_of, federated_of, name_of, statements_of
from labkit.run_parameters import RUN_TAG, Parameters

if TYPE_CHECKING:
    from types_boto3_iam.type_defs import RoleTypeDef

# eksctl tags a stack with both keys, and CloudFormation also sets these tags on the stack's role.
# https://github.com/eksctl-io/eksctl/blob/main/pkg/apis/eksctl.io/v1alpha5/types.go
EKSCTL_NAME = "alpha.eksctl.io/iamserviceaccount-name"
EKSCTL_CLUSTER = "alpha.eksctl.io/cluster-name"
ABOUT_ACCOUNTS = re.compile(r"service[-_ ]?account", re.IGNORECASE)


def candidates(account: Account, parameters: Parameters, provider_arn: str) -> list[str]:
    """Return the ARNs of the roles that may be meant for the service account. Leave out other clusters' roles.

    - If exactly one role has a trust policy that names the service account, return this role.
    - If several roles have such a trust policy, return those of them with a tag that names the service account. If none
      of them has such a tag, return all of them.
    - If no role has such a trust policy, return the roles with a tag that names the service account.

    Raises `NotRead` if the roles can't be listed.
    """
    trusted = trusting(account, parameters, provider_arn)
    if len(trusted) == 1:
        return trusted
    tagged = known(lambda: _tagged(account, parameters, provider_arn)) or []
    return [arn for arn in trusted if arn in tagged] or trusted or tagged


def trusting(account: Account, parameters: Parameters, provider_arn: str) -> list[str]:
    """Return the ARNs of the roles with a trust policy that names the service account. Leave out other clusters' roles.

    Raises `NotRead` if the roles can't be listed.
    """
    naming = [role for role in account.roles if names(role, parameters.subject)]
    return [role["Arn"] for role in naming if not _is_of_another_cluster(account, parameters, provider_arn, role)]


def names(role: "RoleTypeDef", subject: str) -> bool:
    """Whether an Allow statement in the role's trust policy has a condition on `sub` with the value `subject`.

    The condition may have more values, and may be for any issuer. A pattern that matches `subject` doesn't count, and
    neither does a negated condition.
    """
    return any(
        condition.claim == "sub" and not condition.is_negated and subject in condition.values
        for statement in _allows(role)
        for condition in conditions_of(statement)
    )


def admitting(account: Account, parameters: Parameters, provider_arn: str, now: float) -> list[str]:
    """Return the ARNs of the roles with a trust policy that admits the service account `now`, by name or by a pattern.

    Raises `NotRead` if the roles can't be listed.
    """
    return [role["Arn"] for role in account.roles if admits(role, parameters, provider_arn, now)]


def admits(role: "RoleTypeDef", parameters: Parameters, provider_arn: str, now: float) -> bool:
    """Whether a role's trust policy admits the service account, by name or by a pattern."""
    return _trust(role, parameters, provider_arn, now).admits


def is_about(role: "RoleTypeDef", parameters: Parameters, provider_arn: str, now: float) -> bool:
    """Whether a role seems meant for the service account.

    True if the role's trust policy or the role's tags name the service account. Also true if the trust policy may
    admit the service account.
    """
    if names(role, parameters.subject) or _are_for(tags_of(role), parameters, role["RoleName"]):
        return True
    trust = _trust(role, parameters, provider_arn, now)
    return trust.admits or bool(trust.undecided) or any(trust.names_subject(statement) for statement in trust.allows)


def is_of_namespace(role: "RoleTypeDef", namespace: str) -> bool:
    """Whether a role's trust policy names a service account of the namespace."""
    return any(
        condition.claim == "sub"
        and any(value.startswith(f"system:serviceaccount:{namespace}:") for value in condition.values)
        for statement in _allows(role)
        for condition in conditions_of(statement)
    )


def made_by_eksctl(account: Account, parameters: Parameters, arn: str) -> bool:
    """Whether a role's tags say that eksctl created the role for the service account."""
    tags = _tags(account, Arn.parse(arn).name)
    wanted = f"{parameters.namespace}/{parameters.service_account}"
    return tags.get(EKSCTL_NAME) == wanted and tags.get(EKSCTL_CLUSTER, parameters.cluster) == parameters.cluster


def _trust(role: "RoleTypeDef", parameters: Parameters, provider_arn: str, now: float) -> Trust:
    return Trust(
        cast("Document", role.get("AssumeRolePolicyDocument")),
        role_name=role["RoleName"],
        provider_arn=provider_arn,
        subject=parameters.subject,
        audience=AUDIENCE,
        tags=tags_of(role),
        now=now,
    )


def _tagged(account: Account, parameters: Parameters, provider_arn: str) -> list[str]:
    details = account.authorization_details["RoleDetailList"]
    naming = {role["RoleName"] for role in details if _are_for(tags_of(role), parameters, role["RoleName"])}
    roles = [role for role in account.roles if role["RoleName"] in naming]
    return [role["Arn"] for role in roles if not _is_of_another_cluster(account, parameters, provider_arn, role)]


def _are_for(tags: dict[str, str], parameters: Parameters, role_name: str) -> bool:
    """Whether a role's tags name the service account, as eksctl's and Terraform modules' tags do.

    https://github.com/cloudposse/terraform-aws-eks-iam-role
    """
    if tags.get(EKSCTL_CLUSTER, parameters.cluster) != parameters.cluster:
        return False
    namespace, name = parameters.namespace, parameters.service_account
    of_run = parameters.model_copy(update={"role_name": role_name}).run
    if tags.get(RUN_TAG) == of_run or f"{name}@{namespace}" in tags.values():
        return True
    # Under any other key, `shop/cart` may be a repository's name.
    wanted = (f"{namespace}/{name}", f"{namespace}:{name}", parameters.subject)
    return any(value in wanted for key, value in tags.items() if ABOUT_ACCOUNTS.search(key))


def _is_of_another_cluster(account: Account, parameters: Parameters, provider_arn: str, role: "RoleTypeDef") -> bool:
    """Whether the role belongs to another cluster, which may have a service account of the same name."""
    run = _tags(account, role["RoleName"]).get(RUN_TAG)
    if run is not None and run.partition("/")[0] != parameters.cluster:
        return True
    trusted = [arn for statement in _allows(role) for arn in federated_of(statement)]
    if provider_arn in trusted:
        return False
    try:
        registered = {name_of(arn) for arn in trusted if arn in account.provider_arns}
        return bool(registered.difference(account.gone(registered, parameters.region)))
    except NotRead:
        return True


def _tags(account: Account, role_name: str) -> dict[str, str]:
    return known(lambda: tags_of(account.role(role_name))) or {}


def _allows(role: "RoleTypeDef") -> list[StatementDocument]:
    return [each for each in statements_of(role.get("AssumeRolePolicyDocument")) if each.get("Effect") == "Allow"]
