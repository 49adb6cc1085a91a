"""An ARN and its parts.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
"""

from typing import NamedTuple


class Arn(NamedTuple):
    """The name of one resource: ``arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE``."""

    partition: str
    service: str
    region: str
    """Empty for a resource without a region, such as a role."""
    account: str
    """Empty for an ARN without an account, such as a bucket's; ``aws`` for resources that AWS owns."""
    resource: str
    """Everything after the fifth colon. In ``role/team/reader``, that's the kind, the path and the name."""

    @classmethod
    def parse(cls, text: str) -> "Arn":
        """Return ``text`` as an ARN. Raises ValueError if ``text`` isn't an ARN."""
        begins, *parts = text.split(":", 5)
        if begins != "arn" or len(parts) != 5:
            raise ValueError(f"{text!r} is not an ARN: arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE")
        return cls(*parts)

    @classmethod
    def find(cls, text: str) -> "Arn | None":
        """Return ``text`` as an ARN; None if ``text`` isn't an ARN."""
        return cls.parse(text) if text.startswith("arn:") and text.count(":") >= 5 else None

    @property
    def name(self) -> str:
        """The resource's name without its kind and path: ``reader`` for ``role/team/reader``."""
        return self.resource.rpartition("/")[2]

    @property
    def path(self) -> str:
        """The path of a role or a policy, with its slashes, such as ``/team/``. Without a path, it's ``/``.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-friendly-names
        """
        return f"/{self.resource.partition('/')[2].removesuffix(self.name)}"

    @property
    def issuer(self) -> str:
        """The issuer's URL without its scheme, for the ARN of an OIDC provider; empty for any other ARN."""
        kind, _, issuer = self.resource.partition("/")
        return issuer if kind == "oidc-provider" else ""

    @property
    def session_role(self) -> str:
        """The role's name, for the ARN of a role session; empty for any other ARN.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns
        """
        kind, _, rest = self.resource.partition("/")
        return rest.partition("/")[0] if (self.service, kind) == ("sts", "assumed-role") else ""

    def sibling(self, resource: str) -> "Arn":
        """Return the ARN of ``resource`` in the same partition, service, region and account."""
        return self._replace(resource=resource)

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"
