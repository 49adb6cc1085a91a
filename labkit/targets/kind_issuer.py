"""The way to a joined cluster's issuer: the same as STS's, which is the lab's own issuer, a name, or the API server."""

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from labkit.errors import LabError
from labkit.targets import kind_cluster
from labkit.targets.kind_kubeconfig import Way

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from labkit.emulator.folder import Folder
    from labkit.emulator.joined import Facts
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
    joined = {name: kept for name, kept in Kept.joined(folder).items() if not kept.facts.made}
    for name, kept in joined.items():
        issuer = state.clusters[name]["issuer"]
        with closing(Way.kept(kept).client()) as api:
            way = IssuerWay(issuer, kept.facts, state, api)
            at_api_server = url.endswith(KEYS) and way.fetch(issuer + DISCOVERY).get("jwks_uri") == url
            if at_api_server or url.startswith(f"{issuer}/"):
                return way.fetch(url)
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
    api: "ApiClient"

    def fetch(self, url: str) -> Any:
        """GETs a URL of the issuer; the JSON it answers. Raises `LabError`.

        https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfigurationRequest
        """
        from kubernetes.client.exceptions import ApiException

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
            return kind_cluster.published(self.api, keys=url != document)
        except ApiException as error:
            raise LabError(
                f"{url} answers {kind_cluster.message(error)}", where="fetch", next="labkit status"
            ) from None

    def served_chain(self, host: str) -> list[bytes]:
        """The certificates (DER) that the issuer's host serves, its own first; those of the API server behind it.

        Raises `OSError`.
        """
        from labkit.evidence.issuer import served_chain

        if self.facts.made:
            return served_chain(host, address="127.0.0.1", port=_issuers(self.state)[host])
        if self.facts.public_issuer:
            return served_chain(host, port=urlsplit(self.issuer).port or 443)
        server = urlsplit(self.api.configuration.host)
        return served_chain(host, address=server.hostname or host, port=server.port or 443)


def _issuers(state: "State") -> dict[str, int]:
    """The lab's own issuers, and their ports by now: this cluster's may have come since."""
    from labkit.emulator.folder import Folder
    from labkit.emulator.process import State

    return (State.read(Folder.find()) or state).issuers
