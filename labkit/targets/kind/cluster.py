"""The requirements that an existing cluster must meet before it joins the lab."""

import json
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit import simulator
from labkit.connection import as_document, core_api
from labkit.errors import LabError, said_by_the_cluster
from labkit.targets.kind.kubeconfig import NOTHING, NoWay, Way
from labkit.webhook.server import NAME as POD_IDENTITY

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from labkit.simulator import Folder

ANSWERS_WITHIN = (5, 15)  # seconds: to accept a connection, and to answer
DISCOVERY_ROLE = "system:service-account-issuer-discovery"
NOBODY = "system:anonymous"


class NotUsable(LabError):
    """The cluster answers, but lacks something that the lab needs."""


class NoAnswer(NoWay):
    """The API server can't be reached, or doesn't answer."""


class NotThisLabs(LabError):
    """A webhook or a cluster that this lab didn't make has a name that the lab needs."""


def require_answer(way: Way, api: "ApiClient") -> None:
    """Raise `NoAnswer` if the API server doesn't answer, and `NoWay` if it no longer accepts the credentials."""
    from kubernetes.client import VersionApi

    call_api(way, VersionApi(api).get_code, may_not("ask for the cluster's version"))


def discovery(way: Way, api: "ApiClient") -> dict[str, Any]:
    """Return the API server's discovery document. Also check that the API server's keys can be read.

    Raises `NoWay` or `NotUsable` if the document or the keys can't be read, or if the issuer isn't an https URL.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
    """
    try:
        document: dict[str, Any] = call_api(way, partial(published, api), _no_discovery)
        issuer = document["issuer"]
        call_api(way, partial(published, api, keys=True), _no_discovery)["keys"][0]["kty"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, IndexError) as error:
        raise NotUsable(
            f"The API server's discovery document or keys could not be read: {type(error).__name__}, {error}.",
            where=f"{way.where}; {NOTHING}",
            next=f"{way.kubectl} get --raw /.well-known/openid-configuration",
        ) from None
    if not isinstance(issuer, str) or not issuer.startswith("https://"):
        raise NotUsable(
            f"The cluster's issuer is {issuer!r}, but IAM accepts only an issuer that begins with https://.",
            where=f"{way.where}; {NOTHING}",
            next="start the cluster's API server with --service-account-issuer=https://kubernetes.default.svc.cluster.local,\n"
            "       or let the lab make a cluster: labkit up --target kind",
        )
    return document


def published(api: "ApiClient", *, keys: bool = False, _request_timeout: object = ANSWERS_WITHIN) -> Any:
    """Return the discovery document that the API server publishes.

    If `keys` is true, return the published key set (JWKS) instead.

    Raises `ApiException` if the API server refuses the call, and `ValueError` if its answer isn't JSON.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
    """
    from kubernetes.client import OpenidApi, WellKnownApi

    get: Any = (  # its declared type ignores _preload_content
        OpenidApi(api).get_service_account_issuer_open_id_keyset
        if keys
        else WellKnownApi(api).get_service_account_issuer_open_id_configuration
    )
    # The raw bytes: the client would return the text of a Python dict.
    return json.loads(get(_preload_content=False, _request_timeout=_request_timeout).data)


def require_nodes(way: Way, api: "ApiClient") -> list[str]:
    """Return the addresses (InternalIP) of the nodes that are ready. Raises `NotUsable` if no node accepts pods.

    https://kubernetes.io/docs/reference/node/node-status/
    """
    from kubernetes.client import CoreV1Api

    nodes = call_api(way, CoreV1Api(api).list_node, may_not("list the cluster's nodes")).items
    if not nodes:
        raise NotUsable(
            "The cluster has no node: no pod would ever run in it.",
            where=f"{way.where}; {NOTHING}",
            next=f"join a node to the cluster, and wait until it is Ready:  {way.kubectl} get nodes",
        )
    ready = [node for node in nodes if _is_ready(node)]
    if not ready:
        raise NotUsable(
            f"No node of the cluster is ready: {'; '.join(map(_why_not, nodes))}.",
            where=f"{way.where}; {NOTHING}",
            next=f"{way.kubectl} describe nodes",
        )
    if all(node.spec.unschedulable for node in ready):
        names = " ".join(node.metadata.name for node in ready)
        raise NotUsable(
            f"No node of the cluster accepts pods. All ready nodes are cordoned: {names}.",
            where=f"{way.where}; {NOTHING}",
            next=f"{way.kubectl} uncordon {names}",
        )
    addresses = (address for node in ready for address in node.status.addresses or [])
    return [address.address for address in addresses if address.type == "InternalIP"]


def require_webhooks(way: Way, api: "ApiClient", folder: "Folder") -> None:
    """Raise `NotUsable` if the lab has no permission to create and delete webhooks in the cluster.

    Raise `NotThisLabs` if the name of one of the lab's webhooks is taken by a webhook that isn't this lab's.
    """
    from kubernetes.client import AdmissionregistrationV1Api, AuthorizationV1Api

    attributes = {"group": "admissionregistration.k8s.io", "resource": "mutatingwebhookconfigurations"}
    review = AuthorizationV1Api(api).create_self_subject_access_review
    for verb in ("create", "delete"):
        body = {"spec": {"resourceAttributes": {**attributes, "verb": verb}}}
        answer = call_api(way, lambda body=body, **how: review(body, **how), may_not("ask what it may do"))
        if not answer.status.allowed:
            raise may_not(f"{verb} mutatingwebhookconfigurations")(way, "")
    listed = AdmissionregistrationV1Api(api).list_mutating_webhook_configuration
    for there in call_api(way, listed, may_not("list mutatingwebhookconfigurations")).items:
        name = there.metadata.name
        if name not in (POD_IDENTITY, simulator.NETWORK_WEBHOOK):
            continue
        configuration = as_document(api, there)
        if not simulator.is_of_this_lab(configuration, folder):
            by = "another lab's" if simulator.is_of_a_lab(configuration) else "not the lab's"
            raise NotThisLabs(
                f"The cluster already has a webhook {name}, which is {by}. It was left unchanged.",
                where=f"{way.where}, MutatingWebhookConfiguration {name}; {NOTHING}",
                next="use another cluster, or, if nobody needs that webhook any more:\n"
                f"       {way.kubectl} delete mutatingwebhookconfiguration {name}",
            )


def is_led(api: "ApiClient") -> bool:
    """Return whether the lab's webhooks change a new pod. The pod is only created in a dry run. Raises `ApiException`.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
    """
    container = {"name": "asked", "image": "labkit.invalid/asked", "command": ["true"]}
    body = {"metadata": {"generateName": "labkit-asks-"}, "spec": {"containers": [container]}}
    made = core_api(api).create_namespaced_pod("default", body, dry_run="All", _request_timeout=30)
    return any(variable.name == "AWS_ENDPOINT_URL" for variable in made.spec.containers[0].env or [])


def message(error: Any) -> str:
    """Return the API server's message, with the HTTP status."""
    return f"{said_by_the_cluster(error, otherwise=error.reason)} ({error.status})"


Sentence = Callable[[Way, str], LabError]


def call_api(way: Way, call: Callable[..., object], refused: Sentence) -> Any:
    """Call the API server with `call`, and return the answer.

    Raises `NoWay` if the API server doesn't answer, or doesn't accept the credentials. For any other refusal, raises
    the error that `refused` makes from the API server's message.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError, SSLError

    try:
        return call(_request_timeout=ANSWERS_WITHIN)
    except ApiException as error:
        if error.status == 401:
            raise NoWay(
                "The API server does not accept these credentials (401 Unauthorized).",
                where=f"{way.where}; {NOTHING}",
                next=f"correct the credentials until this command shows your user:  {way.kubectl} auth whoami",
            ) from None
        raise refused(way, message(error)) from None
    except (HTTPError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        said = re.sub(r"^.*?(?=\[Errno|\[SSL|\()|^<.*?>: ", "", str(reason))
        if isinstance(reason, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(reason):
            raise NoWay(
                f"The API server {way.server} shows a certificate that the kubeconfig's CA did not sign: {said}",
                where=f"{way.where}; {NOTHING}",
                next="set certificate-authority in the kubeconfig to the CA of this API server\n"
                f"       to see the context:  {way.kubectl} config view --minify\n"
                "       for a kind cluster:  kind export kubeconfig",
            ) from None
        raise NoAnswer(
            f"The API server {way.server} does not answer: {said}",
            where=f"{way.where}; {NOTHING}",
            next=f"start the cluster, or check the connection to it:  {way.kubectl} cluster-info",
        ) from None


def _no_discovery(way: Way, message: str) -> LabError:
    if "404" in message or "not found" in message:
        return NotUsable(
            "The API server publishes no discovery document. Without it, STS cannot verify the cluster's tokens.",
            where=f"{way.where}, /.well-known/openid-configuration; {NOTHING}",
            next="start the cluster's API server with --service-account-issuer=https://kubernetes.default.svc.cluster.local,\n"
            "       or let the lab make a cluster: labkit up --target kind",
        )
    user = re.search(r'User "([^"]+)"', message)
    named = user[1] if user else "USER"
    if named == NOBODY:
        return NoWay(
            f"The API server does not recognise the context's credentials: it treats the caller as {NOBODY}.",
            where=f"{way.where}; {NOTHING}",
            next=f"correct the credentials until this command shows your user:  {way.kubectl} auth whoami",
        )
    return NotUsable(
        f"The cluster does not let {named} read its discovery document. Without it, STS cannot verify the tokens.",
        where=f"{way.where}, RBAC; {NOTHING}",
        next="run this as an administrator of the cluster:\n"
        f"       kubectl create clusterrolebinding labkit-discovery --clusterrole={DISCOVERY_ROLE} --user={named}",
    )


def may_not(do: str) -> Sentence:
    def sentence(way: Way, message: str) -> LabError:
        return NotUsable(
            f"The context's user may not {do}{': ' + message if message else ''}",
            where=f"{way.where}, RBAC; {NOTHING}",
            next="name the context of an administrator of the cluster (ClusterRole cluster-admin)",
        )

    return sentence


def _is_ready(node: Any) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions or [])


def _why_not(node: Any) -> str:
    said = next((c.message for c in node.status.conditions or [] if c.type == "Ready"), "") or "no reason given"
    return f"{node.metadata.name}: {said}"
