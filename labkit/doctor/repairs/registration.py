"""The commands that change the webhook's registration, each with a diff.

Each command is a JSON patch that changes only the wrong part. `kubectl apply` wouldn't remove a field, and
`kubectl replace` would remove EKS's caBundle.
https://kubernetes.io/docs/reference/kubectl/generated/kubectl_patch/
https://datatracker.ietf.org/doc/html/rfc6902
"""

import copy
import difflib
import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import yaml

from labkit.doctor.evidence import Evidence, NotRead, accounts, known, opt_out
from labkit.doctor.evidence.objects import ClientConfig, WebhookConfiguration
from labkit.doctor.evidence.opt_out import ON_EKS, Requirement, Subject, labels_of
from labkit.doctor.evidence.pod_spec import service_account_of
from labkit.doctor.evidence.reading import Document
from labkit.doctor.repairs import patches, words

NAME = "mutatingwebhookconfiguration/pod-identity-webhook"
REACHED = (
    "# This lets the API server call the webhook again. New pods get the role that their service account names.\n"
    "# Only clientConfig changes. Pods that the selectors leave out still get no role."
)
LONG = re.compile(r"(caBundle: .{12}).+")  # a certificate is too long to read
RUN_PODS = ("pods", "deployments", "statefulsets", "daemonsets", "cronjobs", "jobs")
MANY = 4  # the most service accounts that one line names
# Kubernetes' own labels, which have effects of their own: pod-security.kubernetes.io/enforce.
OF_KUBERNETES = re.compile(r"(^|\.)k(8s|ubernetes)\.io/")
Path = tuple[str | int, ...]
# Kinds of objects that select pods or namespaces by a label.
# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
SELECTING = (
    "services",
    "networkpolicies",
    "poddisruptionbudgets",
    "mutatingwebhookconfigurations",
    "validatingwebhookconfigurations",
)
OWN = "pod-identity-webhook"


def with_its_client(evidence: Evidence) -> str:
    """Return lines that correct the webhook's `clientConfig`. Return "" if no correction is needed or known.

    The lines don't change the webhook's selectors: someone may have chosen them to exclude pods on purpose.
    """
    registered, clients = (evidence.cluster.webhook or {}).get("webhooks") or [], _own_clients(evidence)
    operations: list[Document] = []
    for number, webhook in enumerate(registered):
        client, present = clients.get(webhook["name"]), webhook.get("clientConfig") or {}
        if client and not _is_alike(present, client):
            continue  # it's another webhook's, such as that of `labkit webhook serve`
        # A caBundle is long, so only the fields that change are in the patch.
        for change in patches.difference(present, client, f"/webhooks/{number}/clientConfig") if client else []:
            path = str(change["path"])
            tests = [] if change["op"] == "add" else [patches.tested(path, _at(registered, _steps(path)[1:]))]
            operations += [*tests, change]
    return _patched(evidence, operations, REACHED) if operations else ""


def of_another(evidence: Evidence) -> str:
    """Return the address of the registered webhook if it isn't the target's own; empty if it is, or if unknown.

    The target's own registration has its URL or its CA bundle, even if somebody changed the other of the two.
    """
    clients = _own_clients(evidence)
    for webhook in (evidence.cluster.webhook or {}).get("webhooks") or []:
        present, client = webhook.get("clientConfig") or {}, clients.get(webhook["name"])
        if client and not _is_alike(present, client):
            return str(present.get("url") or "/".join((present.get("service") or {}).values()))
    return ""


def _own_clients(evidence: Evidence) -> Document:
    own = evidence.connection.webhook_registration().get("webhooks") or []
    return {each["name"]: each["clientConfig"] for each in own}


def _is_alike(one: ClientConfig, other: ClientConfig) -> bool:
    return one.get("url") == other.get("url") or one.get("caBundle") == other.get("caBundle")


def without(evidence: Evidence, requirements: Sequence[Requirement]) -> str:
    """Return lines that remove these requirements from the registration.

    If a `NotIn` requirement has several values, the lines remove only the one that the pod or the namespace has.
    """
    operations = _removals(evidence, requirements)
    return _patched(evidence, operations, _who_is_affected(_affected(evidence, operations)))


def others_without(evidence: Evidence, requirements: Sequence[Requirement]) -> list[str] | None:
    """Return the other service accounts whose new pods get no role because of these requirements of the webhook.

    Names have the form NAMESPACE/NAME. If labels of pods or namespaces can't be read, return every other service
    account that has a role. Return None if the service accounts or their roles can't be listed.
    """
    return _affected(evidence, _removals(evidence, requirements))


def _removals(evidence: Evidence, requirements: Sequence[Requirement]) -> list[Document]:
    registration, operations = evidence.cluster.webhook or WebhookConfiguration(), list[Document]()
    whole = [each for each in requirements if not _of_value(evidence, each)]
    paths = {_of_value(evidence, each) or _as_a_whole(registration, each, whole) for each in requirements}
    # From the end of each list, so that the other entries keep their positions.
    for path in sorted(paths, key=lambda path: [str(step).zfill(4) for step in path], reverse=True):
        operations += [
            {"op": "test", "path": _pointer(path), "value": _at(registration, path)},
            {"op": "remove", "path": _pointer(path)},
        ]
    return operations


def with_rule_for_pods(evidence: Evidence) -> str:
    """Return lines that make the API server call the webhook for new pods."""
    number, webhook = next(opt_out.own_webhooks(evidence.cluster.webhook or {}), (0, {}))
    path, rules = f"/webhooks/{number}/rules", ON_EKS["rules"]
    added = {"path": f"{path}/-", "value": rules[0]} if "rules" in webhook else {"path": path, "value": rules}
    operations = [{"op": "add", **added}]
    return _patched(evidence, operations, _who_is_affected(_affected(evidence, operations)))


def labels_that_harm_nobody(
    evidence: Evidence, requirements: Sequence[Requirement]
) -> dict[Subject, dict[str, str]] | None:
    """Return the labels that would meet these requirements.

    Each key of the result, `namespace` or `pod`, names the object that gets the labels.

    Return None if one of these labels could affect others, if a repair can't add the labels, or if a fact can't be
    read.
    """
    wanted: dict[Subject, dict[str, str]] = {}
    try:
        for each in requirements:
            is_taken = each.key in labels_of(evidence, each.subject) or bool(OF_KUBERNETES.search(each.key))
            if each.is_opt_out or is_taken or _selecting_by_label(evidence, each.key):
                return None
            wanted.setdefault(each.subject, {})[each.key] = each.values[0] if each.values else "true"
        if "namespace" in wanted and not _is_alone(evidence):
            return None
        owner = evidence.pod.spec.owner if evidence.pod.spec else None
    except NotRead:
        return None
    # The lines that replace this pod don't label the pods of another kind of owner.
    is_made_by_another = owner is not None and not (owner.get("spec") or {}).get("template")
    return None if "pod" in wanted and is_made_by_another else wanted


def _is_alone(evidence: Evidence) -> bool:
    namespace, mine = evidence.parameters.namespace, evidence.parameters.service_account
    accounts = {each["metadata"]["name"] for each in evidence.cluster.api.service_accounts(namespace)}
    users = {service_account_of(pod["spec"]) for pod in evidence.cluster.api.pods(namespace)}
    return accounts <= {mine, "default"} and users <= {mine}


def without_label(evidence: Evidence, label: str) -> str:
    """Return the line that removes a label from the namespace.

    The line is a comment if other service accounts in the namespace may depend on the label.
    """
    namespace = evidence.parameters.namespace
    command = f"{evidence.connection.kubectl} label namespace {namespace} {label}-"
    naming = accounts.others_with_a_role(evidence)
    in_namespace = [name for name in naming or [] if name.startswith(f"{namespace}/")]
    if naming is None or in_namespace:
        whose = ", ".join(in_namespace[:MANY]) or "accounts that could not be listed"
        return words.shown(
            f"# Nothing is changed, because removing the label {label} from the namespace {namespace} would also give "
            f"a role to new pods of {whose}.",
            "# Ask whoever owns these service accounts. Then run:",
            command,
        )
    comment = (
        f"# This removes the label {label} from the namespace {namespace}, where no other service account names a role."
    )
    return f"{comment}\n{command}"


def _patched(evidence: Evidence, operations: list[Document], comment: str) -> str:
    before = evidence.cluster.webhook or WebhookConfiguration()
    lines = [comment, *_difference(before, _after(before, operations))]
    return "\n".join([*lines, patches.patched(evidence.connection.kubectl, NAME, operations)])


def _who_is_affected(names: list[str] | None) -> str:
    if names is None:
        return "# This may also give new pods of other service accounts their role."
    if not names:
        return "# This changes nothing for new pods of other service accounts."
    more = f" and {len(names) - MANY} more" if len(names) > MANY else ""
    some = ", ".join(names[:MANY])
    return f"# This also gives new pods of other service accounts their role: {some}{more}."


def _affected(evidence: Evidence, operations: Sequence[Document]) -> list[str] | None:
    """Return the service accounts whose new pods get a role only after `operations` are applied.

    The run's service account is left out. Return None if the service accounts can't be listed. If the labels of pods
    and namespaces can't be read, return all service accounts that have a role, without the run's.
    """
    names, before = accounts.others_with_a_role(evidence), evidence.cluster.webhook or WebhookConfiguration()
    if not names:
        return names
    after = _after(before, operations)
    labels = known(lambda: _labels_of_pods(evidence, names))
    if labels is None:
        return names
    return [
        name
        for name in names
        if any(not opt_out.is_called(before, each) and opt_out.is_called(after, each) for each in labels[name])
    ]


def _labels_of_pods(evidence: Evidence, names: Sequence[str]) -> dict[str, list[dict[Subject, dict[str, str]]]]:
    """Return, for each service account, one item per pod and per pod template.

    An item has the labels of the pod or template, and the labels of the namespace. The templates are those of
    Deployments, StatefulSets, DaemonSets, CronJobs and Jobs.

    A service account without pods and templates gets one item, as if it had a pod without labels.
    """
    listed = {each["metadata"]["name"]: each["metadata"] for each in evidence.cluster.api.all_of("namespaces")}
    of_pods: dict[str, list[dict[str, str]]] = {}
    for obj in [each for kind in RUN_PODS for each in evidence.cluster.api.all_of(kind)]:
        pod = _template(obj)
        name = f"{obj['metadata']['namespace']}/{service_account_of(pod['spec'])}"
        of_pods.setdefault(name, []).append((pod.get("metadata") or {}).get("labels") or {})
    choices: dict[str, list[dict[Subject, dict[str, str]]]] = {}
    for name in names:
        of_namespace = listed.get(name.partition("/")[0], {}).get("labels") or {}
        # Treat a service account without pods as if it had a pod without labels.
        choices[name] = [{"namespace": of_namespace, "pod": each} for each in of_pods.get(name, [{}])]
    return choices


def _template(obj: Document) -> Document:
    spec = obj["spec"]
    if "jobTemplate" in spec:
        spec = spec["jobTemplate"]["spec"]
    template: Document = spec.get("template", obj)
    return template


def _after(registration: WebhookConfiguration, operations: Sequence[Document]) -> WebhookConfiguration:
    changed = copy.deepcopy(registration)
    for operation in operations:
        _apply(changed, operation)
    return changed


def _apply(document: WebhookConfiguration, operation: Document) -> None:
    *way, last = _steps(operation["path"])
    parent: Any = document
    for step in way:
        parent = parent[int(step) if isinstance(parent, list) else step]
    match operation["op"]:
        case "remove":
            del parent[int(last) if isinstance(parent, list) else last]
        case "add" if last == "-":
            parent.append(operation["value"])
        case "add" | "replace":
            parent[last] = operation["value"]


def _difference(before: WebhookConfiguration, after: WebhookConfiguration) -> list[str]:
    # libyaml is ten times as fast, but PyYAML may be built without it.
    dump = partial(yaml.dump, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
    was, will_be = (str(dump(each.get("webhooks"))).splitlines() for each in (before, after))
    files, *lines = difflib.unified_diff(was, will_be, f"{NAME}, as it is", "as it will be", lineterm="", n=2)
    changes = [f"#   {line[:1]} {line[1:]}" for line in lines[1:] if not line.startswith("@@")]
    return [f"# {files}", f"# {lines[0]}", *(LONG.sub(r"\1…", line) for line in changes)]


def _of_value(evidence: Evidence, requirement: Requirement) -> Path:
    """Return the path of the value, in the requirement's `NotIn` list, that makes the webhook skip the pod.

    Return an empty path if the operator isn't `NotIn`, or if the list has only one value.
    """
    if requirement.operator != "NotIn" or len(requirement.values) == 1:
        return ()
    value = labels_of(evidence, requirement.subject)[requirement.key]
    return (*requirement.path, "values", requirement.values.index(value))


def _as_a_whole(
    registration: WebhookConfiguration, requirement: Requirement, requirements: Sequence[Requirement]
) -> Path:
    """Return the path to remove for `requirement`, in a patch that removes all of `requirements`.

    Usually, this is the path of `requirement`. If the patch would empty the list or mapping that contains the
    requirement, return the path of that list or mapping.
    """
    *way, _ = requirement.path
    siblings = [each for each in requirements if each.path[:-1] == tuple(way)]
    return tuple(way) if len(siblings) == len(_at(registration, tuple(way))) else requirement.path


def _at(document: Any, path: Sequence[str | int]) -> Any:
    for step in path:
        document = document[int(step) if isinstance(document, list) else step]
    return document


def _steps(pointer: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _pointer(path: Path) -> str:
    """https://datatracker.ietf.org/doc/html/rfc6901#section-3"""
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


def _selecting_by_label(evidence: Evidence, key: str) -> list[str]:
    """Return the names of the objects that contain this label key anywhere in `spec` or `webhooks`.

    Search the objects of `SELECTING` in all namespaces, and the workloads in the parameters' namespace. Leave out the
    webhook itself. Raises `NotRead`.
    """
    others = [each for kind in SELECTING for each in evidence.cluster.api.all_of(kind)]
    documents = [*others, *evidence.cluster.api.workloads(evidence.parameters.namespace)]
    named = [each["metadata"]["name"] for each in documents if _mentions([each.get("spec"), each.get("webhooks")], key)]
    return [name for name in named if name != OWN]


def _mentions(part: Any, key: str) -> bool:
    if isinstance(part, list):
        return any(_mentions(each, key) for each in part)
    if not isinstance(part, dict):
        return False
    return key in part or part.get("key") == key or any(_mentions(each, key) for each in part.values())
