"""What exercises make before they open: the role of their run, and service accounts that name it."""

import json

from labkit import documents
from labkit.connection import core_api
from labkit.workspace import Workspace


def role(place: Workspace, policy: documents.PolicyDocument | None = None, *, name: str = "") -> None:
    """Create the run's role, with the trust policy that admits the run's service account, or with this one."""
    policy = policy or documents.trust_policy(place.parameters, place.provider_arn)
    document, name = json.dumps(policy), name or place.parameters.role_name
    place.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document, Tags=place.tags)


def account(place: Workspace, name: str, annotations: dict[str, str] | None = None) -> None:
    """Create a service account in the run's namespace, annotated with the run's role, or with these annotations."""
    annotations = {documents.ROLE_ANNOTATION: place.role_arn} if annotations is None else annotations
    metadata = {"name": name, "labels": place.labels, "annotations": annotations}
    core_api(place.kubernetes).create_namespaced_service_account(place.parameters.namespace, {"metadata": metadata})
