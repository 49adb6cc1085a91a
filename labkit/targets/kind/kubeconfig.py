"""The way to a cluster: one context of a kubeconfig, with its cluster and its user.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from ssl import CERT_NONE, VERIFY_X509_STRICT
from typing import TYPE_CHECKING, Any

import yaml

from labkit.connection import configured, patient
from labkit.errors import LabError, UnknownName
from labkit.webhook.connection import untold

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from labkit.simulator import Facts, JoinedFolder

NOTHING = "nothing was changed"
# The fields of a cluster or a user that name a file, relative to the kubeconfig's folder.
FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class NoWay(LabError):
    """The kubeconfig can't be used, or its API server doesn't answer or doesn't accept the credentials."""


def facts_of(kept: "JoinedFolder") -> "Facts":
    """Return the stored facts of a cluster that joined the lab. Raises `LabError` if no facts are stored."""
    if facts := kept.facts:
        return facts
    raise LabError(
        f"The lab does not remember how it reaches the cluster {kept.cluster}.",
        where=f"{kept.path}; {NOTHING}",
        next=f"labkit down, and then: labkit up --target kind --cluster {kept.cluster}",
    )


@dataclass(frozen=True)
class Way:
    """The way to a cluster: a kubeconfig with one context. The kubeconfig names files by absolute paths."""

    kubeconfig: dict[str, Any]
    where: str
    """The kubeconfig and its context, as words for a message."""
    kubectl: str
    """The kubectl command with this kubeconfig and context."""

    @classmethod
    def of_kubeconfig(cls, file: str | Path, context: str = "") -> "Way":
        """Return a context of the kubeconfig `file`; without `context`, the current context.

        Raises `NoWay` if the file or the context can't be used, and `UnknownName` if the file lacks the context.
        https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
        """
        file = Path(file).expanduser().absolute()
        config = _load(file)
        contexts, clusters, users = (_named(config, kind, file) for kind in ("context", "cluster", "user"))
        name = context or config.get("current-context") or ""
        if name not in contexts:
            again = f"{_kubectl(file)} config get-contexts, and choose one of these contexts"
            if not name or not contexts:
                why = "names no current context" if contexts else "has no context"
                raise NoWay(f"The kubeconfig {why}.", where=f"{file}; {NOTHING}", next=again)
            raise UnknownName("context of the kubeconfig", name, contexts, where=f"{file}; {NOTHING}", next=again)
        chosen = contexts[name]
        parts = {}
        for kind, there in (("cluster", clusters), ("user", users)):
            if (wanted := chosen.get(kind)) not in there:
                raise NoWay(
                    f"The context {name} names the {kind} {wanted!r}, but the kubeconfig has no {kind} of that name.",
                    where=f"{file}; {NOTHING}",
                    next=f"{_kubectl(file)} config view",
                )
            parts[kind] = _absolute(there[wanted], file.parent)
        if not isinstance(parts["cluster"].get("server"), str):
            raise NoWay(
                f"The context {name} names no API server.",
                where=f"{file}; {NOTHING}",
                next=f"{_kubectl(file)} config view",
            )
        return cls(
            _kubeconfig(name, parts["cluster"], parts["user"]),
            where=f"context {name} of {file}",
            kubectl=f"{_kubectl(file)} --context {shlex.quote(name)}",
        )

    @classmethod
    def kept(cls, kept: "JoinedFolder") -> "Way":
        """Return the way to a joined cluster, from the lab's copy of the cluster's kubeconfig. Raises `NoWay`.

        Its ``where`` and ``kubectl`` name the user's own kubeconfig and context, not the lab's copy.
        """
        way, facts = cls.of_kubeconfig(kept.kubeconfig), kept.facts
        return replace(way, where=facts.source or way.where, kubectl=facts.kubectl or way.kubectl) if facts else way

    @property
    def context(self) -> str:
        """The context's name."""
        name: str = self.kubeconfig["current-context"]
        return name

    @property
    def server(self) -> str:
        """The API server's URL."""
        url: str = self.kubeconfig["clusters"][0]["cluster"]["server"]
        return url

    def client(self) -> "ApiClient":
        """Return a client of the API that doesn't use this machine's proxy.

        Raises `NoWay` if a file or a key can't be read, or if the credentials plugin fails.
        """
        from kubernetes.client import ApiClient
        from kubernetes.config import ConfigException

        try:
            with untold() as said:
                configuration = configured(self.kubeconfig)
            if "proxy-url" not in self.kubeconfig["clusters"][0]["cluster"]:
                # Without this, exec would use the machine's proxy. No request goes through this proxy.
                configuration.proxy, configuration.no_proxy = "http://127.0.0.1:9", "*"
            configuration.retries = 0
            api = ApiClient(configuration)
            api.rest_client.pool_manager.connection_pool_kw["ssl_context"] = _tls(configuration.verify_ssl)
        except (ConfigException, OSError, ValueError, TypeError, KeyError) as error:
            raise NoWay(
                f"The context cannot be used: {error}",
                where=f"{self.where}; {NOTHING}",
                next=f"{self.kubectl} config view",
            ) from None
        if said:
            plugin = self.kubeconfig["users"][0]["user"].get("exec") or {}
            raise NoWay(
                f"The credentials plugin {plugin.get('command', '')} does not give the credentials: {' '.join(said)}",
                where=f"{self.where}; {NOTHING}",
                next=f"correct the plugin until this command shows your user:  {self.kubectl} auth whoami",
            )
        return patient(api)


def _tls(verify: bool) -> Any:
    import urllib3
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context()
    # Python 3.13 and later check strictly, and would reject the certificate authorities of minikube and k3s.
    context.verify_flags &= ~VERIFY_X509_STRICT
    if not verify:
        # The kubeconfig itself turns the check off: no need for a warning at each call.
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        context.check_hostname, context.verify_mode = False, CERT_NONE
    return context


def _load(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text())
    except OSError as error:
        raise NoWay(
            f"The kubeconfig cannot be read: {error.strerror}.",
            where=f"{file}; {NOTHING}",
            next="name the right kubeconfig   (usually ~/.kube/config). To look at this one:  "
            f"ls -ld {shlex.quote(str(file))}",
        ) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        raise NoWay(
            "The kubeconfig cannot be read: it is not YAML" + (f" from line {mark.line + 1} on." if mark else "."),
            where=f"{file}; {NOTHING}",
            next=f"correct the file until this command shows a context:  {_kubectl(file)} config view",
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("contexts") or [], list):
        raise NoWay(
            "The file is not a kubeconfig.",
            where=f"{file}; {NOTHING}",
            next=f"correct the file until this command shows a context:  {_kubectl(file)} config view",
        )
    return config


def _named(config: dict[str, Any], kind: str, file: Path) -> dict[str, dict[str, Any]]:
    """Return the entries of a kind, such as `cluster`, by name."""
    try:
        return {entry["name"]: dict(entry[kind] or {}) for entry in config.get(f"{kind}s") or []}
    except (KeyError, TypeError, ValueError):
        raise NoWay(
            f"The file is not a kubeconfig: an entry in the list {kind}s cannot be read.",
            where=f"{file}; {NOTHING}",
            next=f"{_kubectl(file)} config view",
        ) from None


def _absolute(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the entry with absolute paths, and without `extensions`."""
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


def _kubectl(file: Path) -> str:
    return f"kubectl --kubeconfig {shlex.quote(str(file))}"
