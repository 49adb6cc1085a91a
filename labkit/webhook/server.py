"""The webhook's server, and how a cluster is told about it."""

import base64
import json

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from labkit.webhook.accounts import GRACE, Accounts
from labkit.webhook.review import review

NAME = "pod-identity-webhook"
OPT_OUT_LABEL = "eks.amazonaws.com/skip-pod-identity-webhook"


class WebhookServer:
    """An ASGI app: `POST /mutate` answers AdmissionReviews, `GET /healthz` says ok.

    `grace` is how many seconds a pod may wait for a service account that the webhook does not know yet.
    """

    def __init__(self, accounts: Accounts, *, region: str = "", grace: float = GRACE) -> None:
        self.accounts = accounts
        self.region = region
        self.grace = grace
        self._app = Starlette(
            routes=[Route("/mutate", self._mutate, methods=["POST"]), Route("/healthz", self._health, methods=["GET"])]
        )

    async def __call__(self, scope, receive, send) -> None:
        await self._app(scope, receive, send)

    async def _health(self, _request: Request) -> Response:
        return PlainTextResponse("ok")

    async def _mutate(self, request: Request) -> Response:
        if request.headers.get("content-type") != "application/json":
            return PlainTextResponse("Invalid Content-Type, expected `application/json`", 415)
        try:
            admission_review = json.loads(await request.body())
        except ValueError as error:
            return JSONResponse(_refused(f"couldn't decode the body: {error}"))
        if not isinstance(admission_review, dict):
            return JSONResponse(_refused("bad content"))
        namespace, name = _account_of(admission_review)
        await self.accounts.appear(namespace, name, self.grace)
        return JSONResponse(review(admission_review, self.accounts, region=self.region))


def mutating_webhook_configuration(url: str, ca_bundle_pem: bytes) -> dict:
    """The manifest that registers the webhook at `url` (its `/mutate`), with the certificate authority it is known by.

    https://kubernetes.io/docs/reference/kubernetes-api/extend-resources/mutating-webhook-configuration-v1/
    """
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [
            {
                "name": "iam-for-pods.amazonaws.com",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": url, "caBundle": base64.b64encode(ca_bundle_pem).decode()},
                "failurePolicy": "Ignore",
                "matchPolicy": "Equivalent",
                "namespaceSelector": {},
                "objectSelector": {"matchExpressions": [{"key": OPT_OUT_LABEL, "operator": "DoesNotExist"}]},
                "reinvocationPolicy": "IfNeeded",
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


def _account_of(admission_review: dict) -> tuple[str, str]:
    try:
        request = admission_review["request"]
        return request["namespace"], request["object"]["spec"]["serviceAccountName"]
    except (KeyError, TypeError):
        return "", ""


def _refused(message: str) -> dict:
    response = {"uid": "", "allowed": False, "status": {"message": message}}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
