"""EKS identity provider configs. A config lets the users of an OIDC provider log in to a cluster. IRSA uses no configs.

What differs from AWS:

- Log-in: the lab only stores and describes a config. No one can log in with it, and the lab fetches nothing from the
  config's issuer.
- Time: a config is ACTIVE at once; on AWS this takes a quarter of an hour.

https://docs.aws.amazon.com/eks/latest/userguide/authenticate-oidc-identity-provider.html
"""

import json
import re
import uuid
from typing import Any

from labkit.policy.arn import Arn
from labkit.simulator.aws.answers import Refusal, invalid_parameter, resource_in_use, resource_not_found, respond
from labkit.simulator.aws.call import AwsRequest, Response

NAME = re.compile(r"[0-9A-Za-z][A-Za-z0-9_-]{0,99}")
REQUIRED = ("identityProviderConfigName", "issuerUrl", "clientId")
MEMBERS = (*REQUIRED, "usernameClaim", "usernamePrefix", "groupsClaim", "groupsPrefix", "requiredClaims")
SAME_AS_ISSUER = (
    "Incorrect Identity Provider URL configuration. "
    "The Identity Provider URL cannot be same as OpenID Connect (OIDC) issuer URL"
)


class IdentityProviderConfigs:
    """The identity provider config of one cluster. A cluster has at most one. ``stored`` is what `stored` returned."""

    def __init__(self, stored: object = None) -> None:
        self._config: dict[str, Any] | None = stored if isinstance(stored, dict) else None

    @property
    def stored(self) -> object:
        """The config, as JSON can have it."""
        return self._config

    def tags(self, name: str) -> dict[str, str] | None:
        """The tags of the config with this name; None if it doesn't exist."""
        config = self._config
        if config is None or config["identityProviderConfigName"] != name:
            return None
        tags: dict[str, str] = config["tags"]
        return tags

    def tags_of(self, arn: str) -> dict[str, str] | None:
        """The tags of the config with this ARN; None if it doesn't exist."""
        config = self._config or {}
        return config["tags"] if config.get("identityProviderConfigArn") == arn else None

    def answer(self, request: AwsRequest, cluster_arn: str, issuer: str, now: float) -> Response:
        """Answer one of EKS's operations on a cluster's identity provider configs. Raises ``Refusal``."""
        parameters = request.parameters
        match request.operation:
            case "AssociateIdentityProviderConfig":
                tags = dict(parameters.get("tags") or {})
                self._config = self._associated(parameters.get("oidc"), tags, cluster_arn, issuer)
                return respond({"update": _update(request.operation, _reference(self._config), now), "tags": tags})
            case "DescribeIdentityProviderConfig":
                return respond({"identityProviderConfig": {"oidc": self._named(parameters)}})
            case "DisassociateIdentityProviderConfig":
                reference, self._config = _reference(self._named(parameters)), None
                return respond({"update": _update(request.operation, reference, now)})
            case "ListIdentityProviderConfigs":
                return respond({"identityProviderConfigs": [_reference(self._config)] if self._config else []})
        raise Refusal(404, "UnknownOperationException", f"Unknown operation: {request.operation}")

    def _associated(self, oidc: Any, tags: dict[str, str], cluster_arn: str, issuer: str) -> dict[str, Any]:
        oidc = oidc if isinstance(oidc, dict) else {}
        if missing := [name for name in REQUIRED if not isinstance(oidc.get(name), str) or not oidc[name]]:
            raise invalid_parameter(f"The parameter oidc.{missing[0]} is missing.")
        if not NAME.fullmatch(name := oidc["identityProviderConfigName"]):
            raise invalid_parameter(f"The identity provider config name {name} is invalid.")
        url = oidc["issuerUrl"]
        if not url.startswith("https://") or "?" in url or "#" in url:
            raise invalid_parameter(f"The issuer URL {url} is invalid: it must begin with https:// and have no query.")
        if url.rstrip("/") == issuer:
            raise invalid_parameter(SAME_AS_ISSUER)
        if self._config:
            # No public source shows AWS's sentence; the code is one that the operation documents.
            name = self._config["identityProviderConfigName"]
            raise resource_in_use(f"The cluster already has the identity provider config {name}.")
        given = {member: oidc[member] for member in MEMBERS if oidc.get(member)}
        return {"usernameClaim": "sub", "requiredClaims": {}, **given} | {
            "identityProviderConfigArn": config_arn(cluster_arn, name),
            "clusterName": Arn.parse(cluster_arn).name,
            "tags": tags,
            "status": "ACTIVE",
        }

    def _named(self, parameters: dict[str, Any]) -> dict[str, Any]:
        named = parameters.get("identityProviderConfig")
        if not isinstance(named, dict) or named.get("type") != "oidc":
            raise invalid_parameter("The identity provider config type must be oidc.")
        if self._config is None or named.get("name") != self._config["identityProviderConfigName"]:
            raise resource_not_found(f"No identity provider config found for name: {named.get('name')}.")
        return self._config


def config_arn(cluster_arn: str, name: str) -> str:
    """Return the ARN of a cluster's config with this name."""
    made = uuid.uuid5(uuid.NAMESPACE_URL, f"{cluster_arn}/oidc/{name}")
    cluster = Arn.parse(cluster_arn)
    return str(cluster.sibling(f"identityproviderconfig/{cluster.name}/oidc/{name}/{made}"))


def _reference(config: dict[str, Any]) -> dict[str, str]:
    return {"type": "oidc", "name": config["identityProviderConfigName"]}


def _update(operation: str, reference: dict[str, str], now: float) -> dict[str, Any]:
    return {
        "id": str(uuid.uuid4()),
        "status": "Successful",
        "type": operation,
        "params": [{"type": "IdentityProviderConfig", "value": json.dumps([reference])}],
        "createdAt": now,
        "errors": [],
    }
