"""The comment lines above a repair's commands: what changes, who that affects, and a policy's diff."""

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from labkit.doctor.evidence.objects import ObjectMeta
from labkit.doctor.evidence.trust import account_of

MANAGED_BY = "app.kubernetes.io/managed-by"
# The tools by the labels and annotations that they put on their objects.
# https://argo-cd.readthedocs.io/en/stable/user-guide/resource_tracking/
# https://fluxcd.io/flux/components/kustomize/kustomizations/
MANAGERS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
    "meta.helm.sh/release-name": "Helm",
}
MANY = 4  # the most names in a sentence
CONTEXT = 2  # lines of the policy around a change
# A comment line of `difference`, of `changes_in`, or of the change to the webhook's registration.
CHANGE = re.compile(r"#(   (@@|[-+ ] )| --- | \+\+\+ )")


def said(*sentences: str) -> str:
    """Return the sentences as comment lines."""
    return "\n".join(f"# {line}" for sentence in sentences for line in sentence.splitlines())


def shown(*lines: str) -> str:
    """Return lines of a repair as comments, so that the user's shell doesn't run them."""
    return "\n".join(line if line.startswith("#") else f"#   {line}" for each in lines for line in each.splitlines())


def difference(before: object, after: object) -> str:
    """Return the unified diff of a policy as comment lines. For a new or a deleted policy, that's the whole policy.

    https://www.gnu.org/software/diffutils/manual/html_node/Unified-Format.html
    """
    lines = list(difflib.unified_diff(_lines(before), _lines(after), n=CONTEXT, lineterm=""))
    # The first two lines are the names of files.
    return "\n".join(f"#   {line}" if line.startswith("@@") else f"#   {line[:1]} {line[1:]}" for line in lines[2:])


def without_changes(lines: str) -> str:
    """Return a repair's lines without the diffs among its comments."""
    return "\n".join(line for line in lines.splitlines() if not CHANGE.match(line))


def changes_in(before: object, after: object) -> str:
    """Return the lines that differ between two manifests, in YAML, as comment lines; empty if no lines differ.

    There are no lines of context, because they may contain secrets.
    """
    was, will_be = (yaml.safe_dump(each, sort_keys=False).splitlines() for each in (before, after))
    lines = list(difflib.unified_diff(was, will_be, n=0, lineterm=""))[2:]
    return "\n".join(f"#   {line[:1]} {line[1:]}" for line in lines if not line.startswith("@@"))


def managed(metadata: ObjectMeta) -> list[str]:
    """Return a list with a warning if a tool manages the object, because the tool may undo a repair.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/common-labels/
    """
    labels = metadata.get("labels") or {}
    keys = {*labels, *(metadata.get("annotations") or {})}
    manager = next((name for key, name in MANAGERS.items() if key in keys), labels.get(MANAGED_BY))
    if not manager:
        return []
    return [
        f"{manager} manages this object: make this change in the source of the object, too, "
        f"or {manager} may undo the change."
    ]


def accounts(names: Sequence[str]) -> str:
    """Return the service accounts as text.

    If there are more than `MANY`, the text names only the first few, and says how many more there are.
    """
    shown = [account_of(name) for name in names]
    return listed(shown if len(shown) <= MANY else [*shown[: MANY - 1], f"{len(shown) - MANY + 1} more"])


def listed(names: Sequence[str]) -> str:
    """Return `a`, `a and b`, or `a, b and c`."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _lines(document: Any) -> list[str]:
    return json.dumps(document, indent=2).splitlines() if document is not None else []
