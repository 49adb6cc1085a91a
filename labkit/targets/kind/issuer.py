"""The way to a joined cluster's issuer: the same as STS's, which is the lab's own issuer, a name, or the API server."""

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from labkit.errors import LabError
from labkit.targets.kind import cluster as kind_cluster
from labkit.targets.kind.kubeconfig import Way, facts_of

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from labkit.emulator.folder import Folder
    from labkit.emulator.joined import Facts, Kept
    from labkit.emulator.process import State

DISCOVERY, KEYS = "/.well-known/openid-configuration", "/openid/v1/jwks"


def fetch(folder: "Folder", state: "State", url: str) -> Any:
    """GETs a URL of the issuer of any of the lab's clusters, joined or its own; the JSON it answers.

    Raises `LabError`.
    """
    from labkit.emulator.joined import Kept
    from labkit.targets import moto

    if url.startswith(tuple(f"https://{host}/" for host in state.issuers)):
        return moto.fetch(state, url)
    there = Kept.joined(folder).items()
    joined = {state.clusters[name]["issuer"]: kept for name, kept in there if not facts_of(kept).made}
    for issuer, kept in joined.items():
        if url.startswith(f"{issuer}/"):
            return _fetch(issuer, kept, state, url)
    unanswered: list[LabError] = []
    # The keys may be at an API server, and bear its name: only it says so.
    for issuer, kept in joined.items() if url.endswith(KEYS) else ():
        try:
            keys = _fetch(issuer, kept, state, issuer + DISCOVERY).get("jwks_uri")
        except LabError as error:
            unanswered.append(error)  # it may be another's
            continue
        if keys == url:
            return _fetch(issuer, kept, state, url)
    if unanswered:
        raise unanswered[0]
    if not joined:
        return moto.fetch(state, url)
    raise LabError(
        f"The lab leads to its clusters' issuers alone, and {url!r} is of none of them.",
        where="fetch",
        next="\n       ".join(f"labkit fetch {one['issuer']}{DISCOVERY}" for one in state.clusters.values()),
    )


@dataclass(frozen=True)
class IssuerWay:
    """What `lab.fetch` and the doctor reach the issuer by."""

    issuer: str
    facts: "Facts"
    state: "State"
    to_api: Way
    api: "ApiClient"

    def fetch(self, url: str) -> Any:
        """GETs a URL of the issuer; the JSON it answers. Raises `LabError`.

        https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfigurationRequest
        """
        if self.facts.made:
            from labkit.targets import moto

            return moto.fetch(self.state, url)
        if self.facts.public_issuer:
            from labkit.targets import eks

            return eks.fetch(url)
        document = self.issuer + DISCOVERY
        if url != document and urlsplit(url).path != KEYS:
            raise LabError(
                f"STS asks the cluster's issuer for its discovery document and its keys, and {url!r} is neither.",
                where="fetch",
                next=f"fetch {document}, or the jwks_uri that it names",
            )
        try:
            return kind_cluster.asked(
                self.to_api,
                partial(kind_cluster.published, self.api, keys=url != document),
                lambda _, message: LabError(f"{url} answers {message}", where="fetch", next="labkit status"),
            )
        except ValueError as error:
            raise LabError(f"{url} answers no JSON: {error}", where="fetch", next="labkit status") from None

    def served_chain(self, host: str) -> list[bytes]:
        """The certificates (DER) that the issuer's host serves, its own first; those of the API server behind it.

        Raises `OSError`.
        """
        from labkit.diagnosis.evidence.issuer import served_chain

        if self.facts.made:
            return served_chain(host, address="127.0.0.1", port=_issuers(self.state)[host])
        if self.facts.public_issuer:
            return served_chain(host, port=urlsplit(self.issuer).port or 443)
        server = urlsplit(self.api.configuration.host)
        return served_chain(host, address=server.hostname or host, port=server.port or 443)


def _fetch(issuer: str, kept: "Kept", state: "State", url: str) -> Any:
    to_api = Way.kept(kept)
    with closing(to_api.client()) as api:
        return IssuerWay(issuer, facts_of(kept), state, to_api, api).fetch(url)


def _issuers(state: "State") -> dict[str, int]:
    """The lab's own issuers, and their ports by now: this cluster's may have come since."""
    from labkit.emulator.folder import Folder
    from labkit.emulator.process import State

    return (State.read(Folder.find()) or state).issuers
