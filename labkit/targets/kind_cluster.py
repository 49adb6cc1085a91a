"""A cluster that exists, as its kubeconfig leads to it, and what has to be true of it before the lab joins it."""

import json
import re
import shlex
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from ssl import VERIFY_X509_STRICT
from typing import TYPE_CHECKING, Any

import yaml

from labkit.emulator import joined, lab_network
from labkit.errors import LabError, UnknownName
from labkit.parameters import LAB, LAB_LABEL
from labkit.targets import patient
from labkit.webhook.server import NAME as POD_IDENTITY

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from labkit.emulator.folder import Folder

ANSWERS_WITHIN = (5, 15)  # seconds, to connect and to be answered
NOTHING = "nothing was changed"
# What names a file beside the kubeconfig, in the entries of clusters and of users.
FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
LABELLED = f"{LAB_LABEL}={LAB}"  # what runs made
DISCOVERY_ROLE = "system:service-account-issuer-discovery"


class NoWay(LabError):
    """The kubeconfig leads to no API server that answers."""


class NotUsable(LabError):
    """The cluster answers, and lacks what the lab needs of it."""


class NotThisLabs(LabError):
    """Something in the cluster has the name of what the lab would register, and is somebody else's."""


@dataclass(frozen=True)
class Way:
    """The way to a cluster: one context of a kubeconfig, with the files that it names as absolute paths."""

    kubeconfig: dict[str, Any]
    file: Path

    @classmethod
    def read(cls, file: str | Path, context: str = "") -> "Way":
        """The way that a context of the file shows, its current one without a name.

        Raises `NoWay`, and `UnknownName` for a context that is gone.
        https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
        """
        file = Path(file).expanduser().absolute()
        config = _load(file)
        contexts, clusters, users = (_named(config, kind, file) for kind in ("context", "cluster", "user"))
        name = context or config.get("current-context") or ""
        if name not in contexts:
            again = f"kubectl --kubeconfig {shlex.quote(str(file))} config get-contexts, and name one of these"
            if not name or not contexts:
                why = "names no current context" if contexts else "has no context"
                raise NoWay(f"The kubeconfig {why}.", where=f"{file}; {NOTHING}", next=again)
            raise UnknownName("context of the kubeconfig", name, contexts, where=f"{file}; {NOTHING}", next=again)
        chosen = contexts[name]
        parts = {}
        for kind, there in (("cluster", clusters), ("user", users)):
            if (wanted := chosen.get(kind)) not in there:
                raise NoWay(
                    f"The context {name} names the {kind} {wanted!r}, and the kubeconfig has none of that name.",
                    where=f"{file}; {NOTHING}",
                    next=f"kubectl --kubeconfig {shlex.quote(str(file))} config view",
                )
            parts[kind] = _absolute(there[wanted], file.parent)
        if not isinstance(parts["cluster"].get("server"), str):
            raise NoWay(
                f"The context {name} names no API server.", where=f"{file}; {NOTHING}", next="kubectl config view"
            )
        return cls(_kubeconfig(name, parts["cluster"], parts["user"]), file)

    @property
    def context(self) -> str:
        """The context's name."""
        return self.kubeconfig["current-context"]

    @property
    def server(self) -> str:
        """The API server's URL."""
        return self.kubeconfig["clusters"][0]["cluster"]["server"]

    @property
    def where(self) -> str:
        """The way in words, for a message."""
        return f"context {self.context} of {self.file}"

    @property
    def kubectl(self) -> str:
        """How kubectl is called so that it goes this way."""
        return f"kubectl --kubeconfig {shlex.quote(str(self.file))} --context {shlex.quote(self.context)}"

    def client(self) -> "ApiClient":
        """A client of the API, by no proxy of this machine. Raises `NoWay` where a file or a key cannot be read."""
        from kubernetes.client import ApiClient, Configuration
        from kubernetes.config import ConfigException, load_kube_config_from_dict
        from urllib3.util.ssl_ import create_urllib3_context

        configuration = Configuration()
        try:
            load_kube_config_from_dict(self.kubeconfig, client_configuration=configuration, persist_config=False)
            if "proxy-url" not in self.kubeconfig["clusters"][0]["cluster"]:
                # Without one of its own the client for exec takes the machine's. No host goes by this one.
                configuration.proxy, configuration.no_proxy = "http://127.0.0.1:9", "*"
            configuration.retries = 0
            api = ApiClient(configuration)
            # From Python 3.13 on it is strict, and the authorities of minikube and k3s would not do.
            context = create_urllib3_context()
            context.verify_flags &= ~VERIFY_X509_STRICT
            api.rest_client.pool_manager.connection_pool_kw["ssl_context"] = context
            return patient(api)
        except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
            raise NoWay(
                f"The way to the cluster cannot be read: {error}",
                where=f"{self.where}; {NOTHING}",
                next="kubectl config view",
            ) from None


def require_answer(way: Way, api: "ApiClient") -> None:
    """Raises `NoWay` where the API server does not answer, or takes the credentials no more."""
    from kubernetes.client import VersionApi

    _asked(way, VersionApi(api).get_code, _may_not("ask for its version"))


def discovery(way: Way, api: "ApiClient") -> dict[str, Any]:
    """What the API server says of its issuer. Raises `NoWay` or `NotUsable`; changes nothing.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
    """
    try:
        document = _asked(way, partial(published, api), _no_discovery)
        issuer = document["issuer"]
        _asked(way, partial(published, api, keys=True), _no_discovery)["keys"][0]["kty"]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise NotUsable(
            f"The API server's discovery document or keys are none: {type(error).__name__}, {error}.",
            where=f"{way.where}; {NOTHING}",
            next=f"{way.kubectl} get --raw /.well-known/openid-configuration",
        ) from None
    if not isinstance(issuer, str) or not issuer.startswith("https://"):
        raise NotUsable(
            f"The cluster's issuer is {issuer!r}, and IAM takes only one that begins with https://.",
            where=f"{way.where}; {NOTHING}",
            next="start its API server with --service-account-issuer=https://kubernetes.default.svc.cluster.local,\n"
            "       or let the lab make a cluster: labkit up --target kind",
        )
    return document


def published(api: "ApiClient", *, keys: bool = False, _request_timeout: Any = ANSWERS_WITHIN) -> Any:
    """The discovery document or the keys that the API server gives. Raises `ApiException`, and ValueError for no JSON.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
    """
    from kubernetes.client import OpenidApi, WellKnownApi

    get = (
        OpenidApi(api).get_service_account_issuer_open_id_keyset
        if keys
        else WellKnownApi(api).get_service_account_issuer_open_id_configuration
    )
    # As it comes: the client would make Python's own text of it.
    return json.loads(get(_preload_content=False, _request_timeout=_request_timeout).data)


def require_nodes(way: Way, api: "ApiClient") -> list[str]:
    """The addresses (InternalIP) of the nodes that are ready. Raises `NotUsable` where none takes pods.

    https://kubernetes.io/docs/reference/node/node-status/
    """
    from kubernetes.client import CoreV1Api

    nodes = _asked(way, CoreV1Api(api).list_node, _may_not("list its nodes")).items
    if not nodes:
        raise NotUsable(
            "The cluster has no node: no pod would ever run in it.",
            where=f"{way.where}; {NOTHING}",
            next=f"join a node to it, until {way.kubectl} get nodes shows one that is Ready",
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
            f"No node of the cluster takes pods: cordoned: {names}.",
            where=f"{way.where}; {NOTHING}",
            next=f"{way.kubectl} uncordon {names}",
        )
    addresses = (address for node in ready for address in node.status.addresses or [])
    return [address.address for address in addresses if address.type == "InternalIP"]


def require_webhooks(way: Way, api: "ApiClient", folder: "Folder") -> None:
    """Raises `NotUsable` where the lab may register no webhooks, and `NotThisLabs` where their names are taken."""
    from kubernetes.client import AdmissionregistrationV1Api, AuthorizationV1Api

    attributes = {"group": "admissionregistration.k8s.io", "resource": "mutatingwebhookconfigurations"}
    review = AuthorizationV1Api(api).create_self_subject_access_review
    for verb in ("create", "delete"):
        body = {"spec": {"resourceAttributes": {**attributes, "verb": verb}}}
        if not _asked(way, lambda body=body, **how: review(body, **how), _may_not("ask what it may")).status.allowed:
            raise _may_not(f"{verb} mutatingwebhookconfigurations")(way, "")
    listed = AdmissionregistrationV1Api(api).list_mutating_webhook_configuration
    for there in _asked(way, listed, _may_not("list mutatingwebhookconfigurations")).items:
        name = there.metadata.name
        if name not in (POD_IDENTITY, lab_network.NAME):
            continue
        configuration = api.sanitize_for_serialization(there)
        if not joined.is_of_this_lab(configuration, folder):
            by = "another lab's" if joined.is_of_a_lab(configuration) else "not the lab's"
            raise NotThisLabs(
                f"The cluster has a webhook {name} already, which is {by}; it was left as it is.",
                where=f"{way.where}, MutatingWebhookConfiguration {name}; {NOTHING}",
                next="use another cluster, or, if nobody needs that webhook any more:\n"
                f"       {way.kubectl} delete mutatingwebhookconfiguration {name}",
            )


def is_led(api: "ApiClient", endpoint_variable: str = "AWS_ENDPOINT_URL") -> bool:
    """Whether a pod that would be made now is led to the lab; none is made (`dryRun`). Raises `ApiException`.

    https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
    """
    from kubernetes.client import CoreV1Api

    container = {"name": "asked", "image": "labkit.invalid/asked", "command": ["true"]}
    body = {"metadata": {"generateName": "labkit-asks-"}, "spec": {"containers": [container]}}
    made = CoreV1Api(api).create_namespaced_pod("default", body, dry_run="All", _request_timeout=30)
    return any(variable.name == endpoint_variable for variable in made.spec.containers[0].env or [])


def take_back_webhooks(kept: "joined.Kept", folder: "Folder") -> list[str]:
    """Takes the lab's webhooks out of a cluster, where they are there and the cluster answers.

    Returns what the lab's runs have left there: `pod NAMESPACE/NAME`.
    """
    from kubernetes.client import AdmissionregistrationV1Api, CoreV1Api
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    with (
        suppress(LabError, ApiException, HTTPError, OSError),
        closing(Way.read(kept.kubeconfig).client()) as api,
    ):
        webhooks, core = AdmissionregistrationV1Api(api), CoreV1Api(api)
        for there in webhooks.list_mutating_webhook_configuration(_request_timeout=ANSWERS_WITHIN).items:
            if joined.is_of_this_lab(api.sanitize_for_serialization(there), folder):
                webhooks.delete_mutating_webhook_configuration(there.metadata.name)
        of_runs = {
            "namespace": core.list_namespace,
            "service account": core.list_service_account_for_all_namespaces,
            "pod": core.list_pod_for_all_namespaces,
        }
        return [
            f"{kind} " + "/".join(filter(None, (one.metadata.namespace, one.metadata.name)))
            for kind, listed in of_runs.items()
            for one in listed(label_selector=LABELLED, _request_timeout=ANSWERS_WITHIN).items
        ]
    return []


def message(error: Any) -> str:
    """What the API server said, with its status."""
    try:
        said = json.loads(error.body)["message"]
    except (ValueError, KeyError, TypeError):
        said = error.reason
    return f"{said} ({error.status})"


Sentence = Callable[[Way, str], LabError]


def _asked(way: Way, call: Callable[..., Any], refused: Sentence) -> Any:
    """The answer; `refused` makes the error of what the API server said where it refused."""
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError, SSLError

    try:
        return call(_request_timeout=ANSWERS_WITHIN)
    except ApiException as error:
        if error.status == 401:
            raise NoWay(
                "The API server does not take these credentials (401 Unauthorized).",
                where=f"{way.where}; {NOTHING}",
                next=f"{way.kubectl} auth whoami, until it says who you are",
            ) from None
        raise refused(way, message(error)) from None
    except (HTTPError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        why = "shows a certificate that its CA did not sign" if isinstance(reason, SSLError) else "does not answer"
        said = re.sub(r"^.*?(?=\[Errno|\[SSL|\()|^<.*?>: ", "", str(reason))
        raise NoWay(
            f"The API server {way.server} {why}: {said}",
            where=f"{way.where}; {NOTHING}",
            next=f"{way.kubectl} cluster-info, until it answers   (does the cluster run?)",
        ) from None


def _no_discovery(way: Way, message: str) -> LabError:
    if "404" in message or "not found" in message:
        return NotUsable(
            "The API server publishes no discovery document: STS could not verify its tokens.",
            where=f"{way.where}, /.well-known/openid-configuration; {NOTHING}",
            next="start its API server with --service-account-issuer=https://kubernetes.default.svc.cluster.local,\n"
            "       or let the lab make a cluster: labkit up --target kind",
        )
    user = re.search(r'User "([^"]+)"', message)
    named = user[1] if user else "USER"
    return NotUsable(
        f"The cluster keeps its issuer's discovery document from {named}: STS could not verify its tokens.",
        where=f"{way.where}, RBAC; {NOTHING}",
        next="as an administrator of the cluster:\n"
        f"       kubectl create clusterrolebinding labkit-discovery --clusterrole={DISCOVERY_ROLE} --user={named}",
    )


def _may_not(do: str) -> Sentence:
    def sentence(way: Way, message: str) -> LabError:
        return NotUsable(
            f"The context's user may not {do}{': ' + message if message else ''}",
            where=f"{way.where}, RBAC; {NOTHING}",
            next="name the context of an administrator of the cluster (ClusterRole cluster-admin)",
        )

    return sentence


def _load(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no YAML"
        raise NoWay(
            f"The kubeconfig cannot be read: {reason}.", where=f"{file}; {NOTHING}", next=f"ls -l {file}"
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("contexts") or [], list):
        raise NoWay("The file is no kubeconfig.", where=f"{file}; {NOTHING}", next="kubectl config view")
    return config


def _named(config: dict[str, Any], kind: str, file: Path) -> dict[str, dict[str, Any]]:
    """The entries of a kind by their names."""
    try:
        return {entry["name"]: dict(entry[kind] or {}) for entry in config.get(f"{kind}s") or []}
    except (KeyError, TypeError, ValueError):
        raise NoWay(
            f"The file is no kubeconfig: an entry of its {kind}s cannot be read.",
            where=f"{file}; {NOTHING}",
            next=f"kubectl --kubeconfig {shlex.quote(str(file))} config view",
        ) from None


def _absolute(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The entry without extensions, with its files as absolute paths: they are relative to the kubeconfig's folder."""
    entry = {key: value for key, value in entry.items() if key != "extensions"}
    for key in FILES:
        if entry.get(key):
            entry[key] = str(folder / Path(entry[key]).expanduser())
    if (program := (entry.get("exec") or {}).get("command", "")) and "/" in program:
        entry["exec"] = {**entry["exec"], "command": str(folder / program)}
    return entry


def _kubeconfig(name: str, cluster: dict[str, Any], user: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }


def _is_ready(node: Any) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions or [])


def _why_not(node: Any) -> str:
    said = next((c.message for c in node.status.conditions or [] if c.type == "Ready"), "") or "says nothing of itself"
    return f"{node.metadata.name}: {said}"
