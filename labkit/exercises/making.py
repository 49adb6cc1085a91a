"""Make the resources that exercises start with: a role, and service accounts that name it."""

import json

from labkit import documents
from labkit.connection import core_api
from labkit.workspace import Workspace


def role(place: Workspace, policy: documents.PolicyDocument | None = None, *, name: str = "") -> None:
    """Create a role, by default with the name of the run's role.

    Its trust policy is `policy`. Without one, it admits the run's service account.
    """
    policy = policy or documents.trust_policy(place.parameters, place.provider_arn)
    document, name = json.dumps(policy), name or place.parameters.role_name
    place.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document, Tags=place.tags)


def account(place: Workspace, name: str, annotations: dict[str, str] | None = None) -> None:
    """Create a service account in the run's namespace with these annotations, or with one that names the run's role."""
    annotations = {documents.ROLE_ANNOTATION: place.role_arn} if annotations is None else annotations
    metadata = {"name": name, "labels": place.labels, "annotations": annotations}
    core_api(place.kubernetes).create_namespaced_service_account(place.parameters.namespace, {"metadata": metadata})
