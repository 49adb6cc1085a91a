"""An ARN and its parts.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html
"""

from typing import NamedTuple


class Arn(NamedTuple):
    """The name of one resource: ``arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE``."""

    partition: str
    service: str
    region: str
    """Empty if the resource has no region, such as a role."""
    account: str
    """Empty if the ARN names no account, such as a bucket's; ``aws`` for resources that AWS owns."""
    resource: str
    """Everything after the fifth colon, such as the kind, path and name in ``role/team/reader``."""

    @classmethod
    def parse(cls, text: str) -> "Arn":
        """Return the ARN in ``text``. Raises ValueError if it isn't an ARN."""
        begins, *parts = text.split(":", 5)
        if begins != "arn" or len(parts) != 5:
            raise ValueError(f"{text!r} is not an ARN: arn:PARTITION:SERVICE:REGION:ACCOUNT:RESOURCE")
        return cls(*parts)

    @classmethod
    def find(cls, text: str) -> "Arn | None":
        """Return the ARN in ``text``; None if it isn't an ARN."""
        return cls.parse(text) if text.startswith("arn:") and text.count(":") >= 5 else None

    @property
    def name(self) -> str:
        """The last part of the resource, without its kind and path: ``reader``."""
        return self.resource.rpartition("/")[2]

    @property
    def path(self) -> str:
        """The path of a role or a policy, with its slashes: ``/team/``; ``/`` if it has none.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-friendly-names
        """
        return f"/{self.resource.partition('/')[2].removesuffix(self.name)}"

    @property
    def issuer(self) -> str:
        """The issuer of an OIDC provider, without its scheme; empty for anything else."""
        kind, _, issuer = self.resource.partition("/")
        return issuer if kind == "oidc-provider" else ""

    @property
    def session_role(self) -> str:
        """The name of a role session's role; empty for anything else.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-arns
        """
        kind, _, rest = self.resource.partition("/")
        return rest.partition("/")[0] if (self.service, kind) == ("sts", "assumed-role") else ""

    def beside(self, resource: str) -> "Arn":
        """Return the ARN of another resource of the same service, region and account."""
        return self._replace(resource=resource)

    def __str__(self) -> str:
        return f"arn:{self.partition}:{self.service}:{self.region}:{self.account}:{self.resource}"
