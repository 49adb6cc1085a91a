"""Session tags and their condition keys. The tags come from a call's parameters or from a token's claims.

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labkit.policy.validation import listed
from labkit.simulator.aws.answers import Refusal, constraint_violation, out_of_range

CLAIM = "https://aws.amazon.com/tags"
MOST, LONGEST_KEY, LONGEST_VALUE = 50, 128, 256
PATTERN = r"[\p{L}\p{Z}\p{N}_.:/=+\-@]"
# AWS doesn't publish how it packs them. These numbers fit the percentages in public threads.
ALLOTTED, OVERHEAD = 463, 4


@dataclass(frozen=True)
class SessionTags:
    """The tags that a call passes, the keys of its transitive tags, and the tags inherited from the calling session."""

    passed: Mapping[str, str] = field(default_factory=dict)
    transitive_keys: tuple[str, ...] = ()
    inherited: Mapping[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.passed or self.inherited)

    @property
    def transitive(self) -> dict[str, str]:
        """The tags that a session passes on: the inherited tags, and the call's own tags with a transitive key."""
        keys = {key.lower() for key in self.transitive_keys}
        return {**self.inherited, **{key: value for key, value in self.passed.items() if key.lower() in keys}}

    @property
    def size(self) -> float:
        """The share of the allotted space that these tags use; 1 is the whole space."""
        tags = {**self.inherited, **self.passed}
        return sum(len(f"{key}{value}".encode()) + OVERHEAD for key, value in tags.items()) / ALLOTTED

    def of_request(self) -> dict[str, str | list[str]]:
        """Return the condition keys, with their values, for the call that passes these tags.

        For example, `aws:RequestTag/KEY` has the value of the tag with this key.
        """
        context: dict[str, str | list[str]] = {f"aws:RequestTag/{key}": value for key, value in self.passed.items()}
        if self.passed:
            context["aws:TagKeys"] = list(self.passed)
        if self.transitive_keys:
            context["sts:TransitiveTagKeys"] = list(self.transitive_keys)
        return context

    def of_session(self) -> dict[str, str | list[str]]:
        """Return the session tags as condition keys: `aws:PrincipalTag/KEY`, each with its value.

        Such a tag overrides the role's tag with the same key.
        """
        return {f"aws:PrincipalTag/{key}": value for key, value in {**self.inherited, **self.passed}.items()}


def of_call(parameters: Mapping[str, Any], inherited: Mapping[str, str]) -> SessionTags:
    """Return the tags of an AssumeRole call. Callers must check ``parameters`` with :func:`faults` first.

    Raises ``Refusal`` in these cases:

    - Two tags of the call have the same key.
    - A tag of the call has the key of a tag in ``inherited``.
    - A tag's key begins with `aws:`.
    - A transitive key has no tag in the call.
    """
    tags, transitive = parameters.get("Tags", []), tuple(parameters.get("TransitiveTagKeys", []))
    passed = {tag["Key"]: tag["Value"] for tag in tags}
    keys = {key.lower() for key in passed}
    if len(keys) < len(tags):
        raise _invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    if keys & {key.lower() for key in inherited}:
        raise _invalid(
            "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key "
            "from the calling session."
        )
    if any(key.lower() not in keys for key in transitive):
        raise _invalid("The specified transitive tag key must be included in the requested tags.")
    if any(key.startswith("aws:") for key in keys):
        raise _invalid("Tag keys that begin with aws: are reserved for AWS.")
    return SessionTags(passed, transitive, inherited)


def faults(parameters: Mapping[str, Any]) -> list[str]:
    """Return an error text for each constraint that a call's ``Tags`` and ``TransitiveTagKeys`` break."""
    tags, transitive = parameters.get("Tags", []), parameters.get("TransitiveTagKeys", [])
    violations = [
        constraint_violation(f"'{name}'", must)
        for name, members in (("tags", tags), ("transitiveTagKeys", transitive))
        for must in out_of_range(len(members), 0, MOST)
    ]
    for number, tag in enumerate(tags, 1):
        for part, shortest, longest in (("Key", 1, LONGEST_KEY), ("Value", 0, LONGEST_VALUE)):
            where = f"'tags.{number}.member.{part.lower()}'"
            if part not in tag:
                violations.append(constraint_violation(where, "not be null", "null"))
            else:
                violations += _constraints(tag[part], where, shortest, longest)
    for number, key in enumerate(transitive, 1):
        violations += _constraints(key, f"'transitiveTagKeys.{number}.member'", 1, LONGEST_KEY)
    return violations


def of_token(claims: Mapping[str, object]) -> SessionTags:
    """Return the tags in a token. A token has one claim for all tags, or one claim for each tag.

    Raises ``Refusal`` if a tag is invalid.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html#id_session-tags_adding-assume-role-idp
    """
    nested = claims.get(CLAIM, {})
    if not isinstance(nested, dict):
        raise _unreadable(f"{CLAIM} is not an object")
    values = nested.get("principal_tags", {})
    transitive = nested.get("transitive_tag_keys", claims.get(f"{CLAIM}/transitive_tag_keys", []))
    if not isinstance(values, dict):
        raise _unreadable("principal_tags is not an object")
    prefix = f"{CLAIM}/principal_tags/"
    values = values | {name.removeprefix(prefix): claims[name] for name in claims if name.startswith(prefix)}
    passed = {key: _one(key, value) for key, value in values.items()}
    transitive = [transitive] if isinstance(transitive, str) else transitive
    if not isinstance(transitive, list) or not all(isinstance(key, str) for key in transitive):
        raise _unreadable("transitive_tag_keys is not a list of keys")
    keys = [key.lower() for key in passed]
    problems = [
        problem
        for key, value in passed.items()
        for problem in (
            *_constraints(key, f"the tag's key '{key}'", 1, LONGEST_KEY),
            *_constraints(value, f"the tag '{key}'", 0, LONGEST_VALUE),
        )
    ]
    if len(keys) > MOST:
        problems.append(f"there are {len(keys)} tags; at most {MOST} are allowed")
    if len(set(keys)) < len(keys):
        problems.append("two tags have the same key; keys are case insensitive")
    if any(key.lower() not in keys for key in transitive):
        problems.append("a transitive tag key belongs to no tag")
    if any(key.startswith("aws:") for key in keys):
        problems.append("tag keys that begin with aws: are reserved for AWS")
    if problems:
        raise _unreadable(problems[0])
    return SessionTags(passed, tuple(transitive))


def _constraints(text: str, where: str, shortest: int, longest: int) -> list[str]:
    musts = out_of_range(len(text), shortest, longest)
    if not all(character in "_.:/=+-@" or unicodedata.category(character)[0] in "LZN" for character in text):
        musts.append(f"satisfy regular expression pattern: {PATTERN}{'+' if shortest else '*'}")
    return [constraint_violation(where, must, f"'{text}'") for must in musts]


def _one(key: str, value: Any) -> str:
    values = listed(value)
    if len(values) != 1 or not isinstance(values[0], str):
        raise _unreadable(f"the tag {key!r} must have exactly one value, which must be a string")
    return values[0]


def _invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidParameterValue", message)


def _unreadable(reason: str) -> Refusal:
    message = "Unable to validate tags"
    return Refusal(400, "ValidationError", message, f"{message}: {reason}")
