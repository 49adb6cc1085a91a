"""Fetch a cluster's discovery document and keys: from the lab, a public host, or the cluster's API server."""

from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from labkit.errors import LabError
from labkit.targets.kind import cluster as kind_cluster
from labkit.targets.kind.kubeconfig import NOTHING, Way, facts_of

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from labkit.simulator import Facts, Folder, JoinedFolder, State

DISCOVERY = "/.well-known/openid-configuration"


def fetch(folder: "Folder", state: "State", url: str) -> object:
    """GET a URL of a cluster's public issuer, and return the JSON. Raises `LabError`."""
    from labkit.simulator import JoinedFolder
    from labkit.targets import moto

    if url.startswith(tuple(f"https://{host}/" for host in state.issuers)):
        return moto.fetch(state, url)
    there = JoinedFolder.joined(folder).items()
    joined = {state.clusters[name]["issuer"]: kept for name, kept in there if not facts_of(kept).made}
    for issuer, kept in joined.items():
        if url.startswith(f"{issuer}/"):
            return _fetch(issuer, kept, state, url)
    unanswered: list[LabError] = []
    # The URL of an issuer's keys may begin differently: only the discovery document names it.
    for issuer, kept in joined.items():
        try:
            keys = _fetch(issuer, kept, state, issuer + DISCOVERY).get("jwks_uri")
        except LabError as error:
            unanswered.append(error)  # the URL may belong to another cluster's issuer
            continue
        if keys == url:
            return _fetch(issuer, kept, state, url)
    if unanswered:
        raise unanswered[0]
    if not joined:
        return moto.fetch(state, url)
    raise LabError(
        f"The lab fetches only from its own clusters' issuers, and {url!r} belongs to none of them.",
        where="fetch",
        next="\n       ".join(f"labkit fetch {one['issuer']}{DISCOVERY}" for one in state.clusters.values()),
    )


class AnotherIssuer(LabError):
    """The cluster's issuer has changed since the cluster joined the lab."""

    def __init__(self, kept: "JoinedFolder", joined: str, now: str):
        facts = facts_of(kept)
        super().__init__(
            f"The issuer of the cluster {kept.cluster} is now {now}, but the cluster joined the lab with {joined}: "
            "STS accepts no token of its pods.",
            where=f"{facts.source}, its API server's --service-account-issuer; {NOTHING}",
            next="\n       ".join(way_out(kept)),
        )


def refuse_another(kept: "JoinedFolder", joined: str) -> None:
    """Raise `AnotherIssuer` if the cluster's issuer has changed. Do nothing if the cluster doesn't answer."""
    if now := changed(kept, joined):
        raise AnotherIssuer(kept, joined, now)


def changed(kept: "JoinedFolder", joined: str) -> str:
    """Return the cluster's present issuer if it differs from `joined`, the issuer when the cluster joined the lab.

    Return an empty string if the issuer hasn't changed, or if the cluster doesn't answer.
    """
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    with suppress(LabError, ApiException, HTTPError, OSError, ValueError, KeyError):
        with closing(Way.kept(kept).client()) as api:
            now: str = kind_cluster.published(api)["issuer"]
        return now if now != joined else ""
    return ""


def way_out(kept: "JoinedFolder") -> list[str]:
    """Return the commands that join a cluster again after its issuer changed."""
    named = "" if kept.cluster == "blue" else f" --cluster {kept.cluster}"
    given = f" -p cluster={kept.cluster}" if named else ""
    return [
        f"labkit remove -p target=kind{given} --yes",
        "labkit down",
        f"labkit up --target kind{named}{facts_of(kept).kubectl.removeprefix('kubectl')}",
    ]


@dataclass(frozen=True)
class IssuerWay:
    """The way in which `lab.fetch` and the doctor reach a cluster's issuer."""

    issuer: str
    facts: "Facts"
    state: "State"
    to_api: Way
    api: "ApiClient"

    def fetch(self, url: str) -> object:
        """GET a URL of the issuer; return the JSON. Raises `LabError`.

        https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfigurationRequest
        """
        if self.facts.made:
            from labkit.targets import moto

            return moto.fetch(self.state, url)
        if self.facts.public_issuer:
            from labkit.targets import eks

            return eks.fetch(url)
        document = self._published(url, keys=False)
        if url == self.issuer + DISCOVERY:
            return document
        if url != document.get("jwks_uri"):
            raise LabError(
                f"STS fetches only the issuer's discovery document and keys, and {url!r} is neither.",
                where="fetch",
                next=f"fetch {self.issuer}{DISCOVERY}, or the jwks_uri that it names: {document.get('jwks_uri')}",
            )
        return self._published(url, keys=True)

    def _published(self, url: str, *, keys: bool) -> Any:
        """Return the discovery document or the keys from the API server's fixed paths.

        https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
        """
        try:
            return kind_cluster.call_api(
                self.to_api,
                partial(kind_cluster.published, self.api, keys=keys),
                lambda _, message: LabError(f"{url} answers {message}", where="fetch", next="labkit status"),
            )
        except ValueError as error:
            raise LabError(f"{url} does not answer with JSON: {error}", where="fetch", next="labkit status") from None

    def served_chain(self, host: str) -> list[bytes]:
        """Return the certificates (DER) that the issuer's host serves; the first one is the host's. Raises `OSError`.

        If the lab didn't make the cluster and the issuer isn't public, return the certificates of the API server.
        """
        from labkit.connection import served_chain

        if self.facts.made:
            return served_chain(host, address="127.0.0.1", port=_issuers(self.state)[host])
        if self.facts.public_issuer:
            return served_chain(host, port=urlsplit(self.issuer).port or 443)
        server = urlsplit(self.api.configuration.host)
        return served_chain(host, address=server.hostname or host, port=server.port or 443)


def _fetch(issuer: str, kept: "JoinedFolder", state: "State", url: str) -> Any:
    to_api = Way.kept(kept)
    with closing(to_api.client()) as api:
        return IssuerWay(issuer, facts_of(kept), state, to_api, api).fetch(url)


def _issuers(state: "State") -> dict[str, int]:
    from labkit.simulator import Folder, State

    # `state` may lack a newer cluster.
    return (State.read(Folder.find()) or state).issuers
