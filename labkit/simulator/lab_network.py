"""The webhook `lab-network` of a joined cluster: it adds variables to containers, so that they call the lab's AWS.

The webhook doesn't change variables that a container already has.
https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
"""

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from labkit.webhook import server
from labkit.webhook.body import whole_characters
from labkit.webhook.review import Operation, malformed, patched, refusal
from labkit.webhook.server import body_of

NETWORK_WEBHOOK = "lab-network"
OPT_OUT_LABEL = "labkit/skip-lab-network"
# The cluster's own namespaces. The webhook isn't called for their pods.
SYSTEM = ("kube-node-lease", "kube-public", "kube-system")


def variables(endpoint_url: str) -> dict[str, str]:
    """Return the variables that make containers call the lab's AWS, and no other AWS."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        # The SDK for Go 2 uses only this variable when it exchanges a token for credentials.
        "AWS_ENDPOINT_URL_STS": endpoint_url,
        # On a cloud's virtual machine, the cloud's metadata service would answer with that machine's role.
        "AWS_EC2_METADATA_DISABLED": "true",
    }


async def answer(request: Request, added: Mapping[str, str]) -> Response:
    """Answer the API server's request to review a new pod. ``added`` has the variables to add to the pod."""
    body = await body_of(request)
    try:
        received = whole_characters(json.loads(body))
    except (ValueError, RecursionError):
        received = None
    reviewed = review(received if isinstance(received, dict) else {}, added)
    return Response(json.dumps(reviewed), media_type="application/json")


def review(admission_review: dict[str, Any], added: Mapping[str, str]) -> dict[str, object]:
    """Return the answer to a pod's AdmissionReview: a patch that adds the variables ``added`` to each container.

    A container keeps its own value of a variable.

    https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#response
    """
    if wrong := malformed(admission_review):
        return refusal(admission_review, wrong)
    spec = admission_review["request"]["object"].get("spec") or {}
    patch: list[Operation] = [
        {"op": "add", "path": f"/spec/{kind}", "value": [_led(container, added) for container in spec[kind]]}
        for kind in ("containers", "initContainers")
        if spec.get(kind)
    ]
    return patched(admission_review, patch)


def mutating_webhook_configuration(url: str, ca_bundle_pem: bytes) -> dict[str, object]:
    """Return the manifest that registers the webhook at ``url``."""
    return server.mutating_webhook_configuration(
        url,
        ca_bundle_pem,
        name=NETWORK_WEBHOOK,
        webhook="lab-network.labkit.invalid",
        namespaces=[{"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": list(SYSTEM)}],
        opt_out_label=OPT_OUT_LABEL,
    )


def _led(container: Mapping[str, Any], added: Mapping[str, str]) -> dict[str, Any]:
    has = {variable.get("name") for variable in container.get("env") or ()}
    missing = [{"name": name, "value": value} for name, value in added.items() if name not in has]
    return {**container, "env": [*(container.get("env") or ()), *missing]} if missing else dict(container)
