"""The permissions that a call needs, and their condition keys."""

from labkit.policy import resource_tags
from labkit.simulator.aws.call import Context, Permission

__all__ = ["CannotDerive", "Context", "Permission", "as_dict", "as_text", "pass_role", "resource_tags", "tag_keys"]


class CannotDerive(Exception):
    """The lab doesn't know which permissions a call needs. The message names the call."""


def pass_role(role_arn: str, service: str, resource: str) -> Permission:
    """Return the permission to pass a role to a service. The service uses the role for ``resource``.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html
    """
    context: Context = {"iam:PassedToService": service, "iam:AssociatedResourceArn": resource}
    return Permission(
        "iam:PassRole", role_arn, context, frozenset({"iam:passedtoservice", "iam:associatedresourcearn"})
    )


def tag_keys(tags: dict[str, str] | None, removed: list[str] | None = None) -> Context:
    """Return the condition keys of a request that sets ``tags``, or removes the tags with the keys ``removed``.

    The condition keys are `aws:RequestTag/KEY` and `aws:TagKeys`.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/access_tags.html
    """
    if tags is None and removed is None:
        return {}
    context: Context = {f"aws:RequestTag/{name}": value for name, value in (tags or {}).items()}
    return context | {"aws:TagKeys": [*(tags or {}), *(removed or [])]}


def as_dict(tags: list[dict[str, str]] | None) -> dict[str, str] | None:
    """Return a dict of these tags, each with a ``Key`` and a ``Value``; None for None."""
    return None if tags is None else {tag.get("Key", ""): tag.get("Value", "") for tag in tags}


def as_text(value: object) -> str:
    """Return a parameter's value as the text that policy conditions compare: True becomes ``true``."""
    return str(value).lower() if isinstance(value, bool) else str(value)
