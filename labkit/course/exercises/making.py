"""Create the resources that exercises start with: a role, and service accounts."""

import json

from labkit import documents
from labkit.connection import core_api
from labkit.policy.written import PolicyDocument
from labkit.workspace import Workspace


def role(place: Workspace, policy: PolicyDocument | None = None, *, name: str = "") -> None:
    """Create a role with this trust policy and this name.

    By default, the trust policy admits the run's service account, and the name is `parameters.role_name`.
    """
    policy = policy or documents.trust_policy(place.parameters, place.provider_arn)
    document, name = json.dumps(policy), name or place.parameters.role_name
    place.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document, Tags=place.tags)


def account(place: Workspace, name: str, annotations: dict[str, str] | None = None) -> None:
    """Create a service account with these annotations in the run's namespace.

    By default, the service account's only annotation names the run's role.
    """
    annotations = {documents.ROLE_ANNOTATION: place.role_arn} if annotations is None else annotations
    metadata = {"name": name, "labels": place.labels, "annotations": annotations}
    core_api(place.kubernetes).create_namespaced_service_account(place.parameters.namespace, {"metadata": metadata})
