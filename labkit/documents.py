"""The four documents of IRSA, built from the parameters: OIDC provider, trust policy, service account and pod.

Nothing is created here. `labkit.steps` creates resources from these documents, `labkit.doctor` compares the live
resources with them, and `labkit.course.faults` changes them.
"""

from typing import Any, Literal, NotRequired, TypedDict

from labkit.connection import IMAGE
from labkit.policy.arn import Arn
from labkit.policy.written import PolicyDocument
from labkit.run_parameters import Parameters

AUDIENCE = "sts.amazonaws.com"
ROLE_ANNOTATION = "eks.amazonaws.com/role-arn"
POD_NAME = "my-pod"
CONTAINER = "aws"
# As process 1, `sleep` alone ignores SIGTERM, and ends only after the grace period of 30 s.
SLEEP = ["sh", "-c", "trap exit TERM; sleep infinity & wait"]
# A waiting container's reason is one of these if the node can't pull its image.
NO_IMAGE = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")


class OidcProvider(TypedDict):
    """https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html"""

    Url: str
    ClientIDList: list[str]


class Metadata(TypedDict):
    """https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/object-meta/"""

    name: str
    namespace: str
    labels: NotRequired[dict[str, str]]
    annotations: NotRequired[dict[str, str]]


class ServiceAccount(TypedDict):
    """https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/service-account-v1/"""

    apiVersion: str
    kind: Literal["ServiceAccount"]
    metadata: Metadata


class Pod(TypedDict):
    """https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/"""

    apiVersion: str
    kind: Literal["Pod"]
    metadata: Metadata
    spec: dict[str, Any]


def provider(_: Parameters, issuer: str) -> OidcProvider:
    """Return the arguments that register the OIDC provider: the issuer's URL, and the audience of tokens for AWS.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html
    """
    return {"Url": issuer, "ClientIDList": [AUDIENCE]}


def trust_policy(parameters: Parameters, provider_arn: str) -> PolicyDocument:
    """Return the trust policy that admits this provider's tokens for the service account, with the audience STS.

    https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
    """
    issuer = Arn.parse(provider_arn).issuer
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": provider_arn},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {
                    "StringEquals": {
                        f"{issuer}:sub": parameters.subject,
                        f"{issuer}:aud": AUDIENCE,
                    }
                },
            }
        ],
    }


def service_account(parameters: Parameters, role_arn: str) -> ServiceAccount:
    """Return the service account's manifest. Its annotation names the role.

    https://docs.aws.amazon.com/eks/latest/userguide/associate-service-account-role.html
    """
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {
            "name": parameters.service_account,
            "namespace": parameters.namespace,
            "labels": parameters.labels,
            "annotations": {ROLE_ANNOTATION: role_arn},
        },
    }


def pod(parameters: Parameters, image: str = "") -> Pod:
    """Return the manifest of a pod that uses the service account. The pod only sleeps, so that you can run `aws` in it.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
    """
    image = parameters.image or image or IMAGE
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": POD_NAME, "namespace": parameters.namespace, "labels": parameters.labels},
        "spec": {
            "serviceAccountName": parameters.service_account,
            "containers": [
                {"name": CONTAINER, "image": image, **_pulled_once(image), "command": SLEEP},
            ],
        },
    }


def _pulled_once(image: str) -> dict[str, str]:
    """Return the field that a container needs so that its node pulls the image only once.

    https://kubernetes.io/docs/concepts/containers/images/#imagepullpolicy-defaulting
    """
    tag = image.rpartition("/")[2].partition(":")[2]
    return {} if "@" in image or tag not in ("", "latest") else {"imagePullPolicy": "IfNotPresent"}
