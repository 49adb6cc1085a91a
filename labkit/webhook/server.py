"""The webhook's server, and the manifests that register it in a cluster."""

import base64
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from labkit.webhook import annotations
from labkit.webhook.accounts import GRACE, ServiceAccounts
from labkit.webhook.annotations import Object
from labkit.webhook.body import ClientDisconnect, TooLong, whole, whole_characters
from labkit.webhook.review import MOUNT_PATH, Associated, account_of, malformed, refusal, review

log = logging.getLogger(__name__)

NAME = "pod-identity-webhook"
LARGEST = 8 * 2**20  # bytes of a review; the API server accepts objects of at most 3 MiB


@dataclass
class WebhookServer:
    """An ASGI app: `POST /mutate` answers AdmissionReviews, and `GET /healthz` answers ok.

    A pod waits up to `grace` seconds for a service account that the API doesn't know yet. The other fields are the
    parameters of `review`. Each review has one line in the log (level INFO).
    """

    accounts: ServiceAccounts
    region: str = ""
    prefix: str = annotations.PREFIX
    mount_path: str = MOUNT_PATH
    grace: float = GRACE
    associated: Associated = lambda _namespace, _name: False

    def __post_init__(self) -> None:
        self._app = Starlette(
            routes=[Route("/mutate", self._mutate, methods=["POST"]), Route("/healthz", self._health, methods=["GET"])]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _mutate(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            return PlainTextResponse("Invalid Content-Type, expected `application/json`", 415)
        answer, said = await self._answered(await body_of(request))
        log.info("%s", "".join(letter if letter.isprintable() else "?" for letter in said[:500]))
        return Response(json.dumps(answer), media_type="application/json")

    async def _answered(self, body: bytes) -> tuple[Object, str]:
        """Return the answer to an AdmissionReview, and a line for the log."""
        try:
            admission_review = whole_characters(json.loads(body, parse_float=_finite, parse_constant=_finite))
        except (ValueError, RecursionError) as error:
            return refusal({}, wrong := f"couldn't decode the body: {error}"), f"refused: {wrong}"
        if not isinstance(admission_review, dict):
            admission_review = {}
        if wrong := malformed(admission_review):
            return refusal(admission_review, wrong), f"refused: {wrong}"
        await self.accounts.appear(*account_of(admission_review), self.grace)
        answer = review(
            admission_review,
            self.accounts,
            region=self.region,
            prefix=self.prefix,
            mount_path=self.mount_path,
            associated=self.associated,
        )
        return answer, _line(admission_review, answer["response"])


async def body_of(request: Request) -> bytes:
    """Return the request's body. Raises HTTPException if the body is too long (413) or incomplete (400)."""
    try:
        return await whole(request.receive, LARGEST)
    except TooLong as error:
        raise HTTPException(413, f"a review has {LARGEST} bytes at most") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "the request ended early") from error


def mutating_webhook_configuration(
    url: str,
    ca_bundle_pem: bytes,
    *,
    name: str = NAME,
    webhook: str = "iam-for-pods.amazonaws.com",
    namespaces: Sequence[Object] = (),
    opt_out_label: str = "eks.amazonaws.com/skip-pod-identity-webhook",
) -> Object:
    """Return the manifest that registers a webhook for pods at `url`. The CA bundle verifies the server's certificate.

    `name` is the manifest's name, and `webhook` the webhook's name. The API server calls the webhook only in namespaces
    whose labels match all expressions in `namespaces`, and never for a pod with the label `opt_out_label`.

    https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/mutating-webhook-configuration-v1/
    """
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": webhook,
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": url, "caBundle": base64.b64encode(ca_bundle_pem).decode()},
                "failurePolicy": "Ignore",
                "matchPolicy": "Equivalent",
                "namespaceSelector": {"matchExpressions": [*namespaces]} if namespaces else {},
                "objectSelector": {"matchExpressions": [{"key": opt_out_label, "operator": "DoesNotExist"}]},
                "reinvocationPolicy": "IfNeeded",  # another webhook may add a container
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                        "scope": "*",
                    }
                ],
                "sideEffects": "None",
                "timeoutSeconds": 10,
            }
        ],
    }


def cluster_role() -> Object:
    """Return the ClusterRole that lets the webhook read service accounts.

    https://kubernetes.io/docs/reference/access-authn-authz/rbac/
    """
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": [{"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["get", "list", "watch"]}],
    }


def _line(admission_review: Object, response: Object) -> str:
    """Return a line for the log, without the pod's variables."""
    namespace, account = account_of(admission_review)
    metadata = admission_review["request"]["object"].get("metadata") or {}
    pod = metadata.get("name") or f"{metadata.get('generateName') or ''}*"
    done = "given the role" if "patch" in response else "left unchanged: the account has no role"
    return f"pod {namespace}/{pod}, service account {account or '(none)'}: {done}"


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a JSON number")
    return value
