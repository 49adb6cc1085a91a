"""The webhook's connection to a real API server: with a kubeconfig, or from a pod in the cluster."""

import logging
import os
import ssl
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import yaml

from labkit.errors import LabError, UnknownName

if TYPE_CHECKING:
    from kubernetes.client import Configuration


def connect(kubeconfig: Path | None = None, context: str | None = None) -> httpx.AsyncClient:
    """Return a client for the API server in the kubeconfig's context.

    In a pod, without `kubeconfig` and `context`, return a client for the pod's own cluster. The client renews
    credentials that expire. Raises LabError if the configuration can't be used.
    https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
    """
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

    configuration = Configuration(proxy="")  # httpx itself reads the environment's proxy and NO_PROXY
    in_cluster = "KUBERNETES_SERVICE_HOST" in os.environ and kubeconfig is None and context is None
    where = "in-cluster configuration"
    try:
        if in_cluster:
            load_incluster_config(configuration)
        else:
            files = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or str(Path("~/.kube/config"))
            where = files
            _check(files, context)
            with untold() as said:
                load_kube_config(files, context, configuration, persist_config=False)
            if said:
                raise LabError(
                    f"The credentials plugin does not give the credentials: {' '.join(said)}",
                    where=where,
                    next="correct the plugin until kubectl auth whoami says who you are",
                )
        return _client(configuration)
    except (ConfigException, ssl.SSLError, OSError, ValueError, TypeError, yaml.YAMLError) as error:
        raise LabError(
            f"The configuration for the API server cannot be used: {error}", where=where, next="kubectl config view"
        ) from error


@contextmanager
def untold() -> Iterator[list[str]]:
    """Yield a list, which collects the errors that the Kubernetes client logs while it loads a kubeconfig.

    If a credentials plugin fails, the client only logs the failure, and calls the API server anonymously.
    https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
    """
    said: list[str] = []

    def is_anothers(record: logging.LogRecord) -> bool:
        if record.module != "kube_config":
            return True
        said.append(record.getMessage())
        return False

    # Without a handler, `logging.error` would set one up for the whole process.
    root, handler = logging.getLogger(), logging.NullHandler()
    root.addHandler(handler)
    root.addFilter(is_anothers)
    try:
        yield said
    finally:
        root.removeFilter(is_anothers)
        root.removeHandler(handler)


def _check(files: str, context: str | None) -> None:
    """Raise `LabError` if no kubeconfig exists, or if no kubeconfig has the context."""
    there = [file for name in files.split(os.pathsep) if name and (file := Path(name).expanduser()).is_file()]
    if not there:
        raise LabError("No kubeconfig found.", where=files, next="labkit webhook serve --kubeconfig FILE")
    if context is None:
        return
    contents = [content for file in there if isinstance(content := yaml.safe_load(file.read_text()), dict)]
    entries = [entry for content in contents for entry in content.get("contexts") or () if isinstance(entry, dict)]
    contexts = [str(entry.get("name")) for entry in entries]
    if context not in contexts:
        raise UnknownName(
            "context of the kubeconfig", context, contexts, where=files, next="kubectl config get-contexts"
        )


def _client(configuration: "Configuration") -> httpx.AsyncClient:
    tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    # Python 3.13 and later check certificates strictly, and would reject the authorities of minikube and k3s.
    tls.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not configuration.verify_ssl:
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    if configuration.cert_file:
        tls.load_cert_chain(configuration.cert_file, configuration.key_file)
    hooks = []
    if name := configuration.tls_server_name:

        async def say_the_name(request: httpx.Request) -> None:
            request.extensions["sni_hostname"] = name

        hooks.append(say_the_name)
    return httpx.AsyncClient(
        base_url=configuration.host,
        verify=tls,
        auth=_Token(configuration),
        proxy=configuration.proxy or None,
        timeout=30,
        event_hooks={"request": hooks},
    )


class _Token(httpx.Auth):
    """The configuration's bearer token. Each request reads the token again, because the token may have been renewed."""

    def __init__(self, configuration: "Configuration") -> None:
        self._configuration = configuration

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        settings: Any = self._configuration.auth_settings()
        for setting in settings.values():
            if setting["in"] == "header" and setting["value"]:
                request.headers[setting["key"]] = setting["value"]
        yield request
