"""Commands that replace a pod with its corrected manifest."""

import copy
import re
import shlex
from collections.abc import Callable
from contextlib import suppress

from labkit.doctor.evidence import Evidence, NotRead, accounts, known, opt_out, pod_spec, variables, workloads
from labkit.doctor.evidence.objects import Workload
from labkit.doctor.evidence.reading import Document
from labkit.doctor.repairs import advice, patches
from labkit.doctor.repairs.commands import Commands, applied, patch_config_map
from labkit.doctor.repairs.manifest import containers_of, restored_manifest, set_list, without_additions
from labkit.doctor.repairs.repair import Lines, Repair
from labkit.doctor.repairs.words import changes_in, listed, managed, said, shown
from labkit.documents import ROLE_ANNOTATION

Change = Callable[[Evidence, Document], None]

# Values of variables with such names are not printed, because they may be secrets. HARMLESS has the exceptions.
SECRET = re.compile(r"PASS|SECRET|TOKEN|KEY|CREDENTIAL", re.IGNORECASE)
HARMLESS = ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_SHARED_CREDENTIALS_FILE")
NOT_SHOWN = "NOT-SHOWN"
# The variables that the webhook adds to a container that doesn't set them.
BY_WEBHOOK = {pod_spec.ROLE, pod_spec.TOKEN_FILE, pod_spec.STS_ENDPOINTS, *pod_spec.REGIONS}
NOT_YET = (
    "# Do not replace the pod yet: the annotation is not the ARN of the role in IAM. A new pod would get the role that "
    "the annotation names."
)
BY_ASSOCIATION = (
    "# Do not replace the pod yet: a new pod would get the role of the EKS Pod Identity association"  # and its id
)
# https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pausing-and-resuming-a-deployment
PAUSED = "# Nothing is changed: the Deployment is paused, and makes no new pods. To resume it and replace the pods:"
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")  # names that are also valid in a shell


def replaced(evidence: Evidence, *changes: Change) -> Repair:
    """Return lines that correct the pod's manifest and replace the pod; empty without a pod.

    `changes` are further corrections of the manifest. A pod without an owner is deleted and created again. For a pod
    of a Deployment, StatefulSet or DaemonSet, the lines correct the template, or only restart the pods.

    Secret values aren't shown. If a new pod would lose such a value, the lines are only comments, or they open an
    editor.

    The lines replace only a pod that runs as the examined service account, or as `default` while `default` has no role
    and no permissions in the cluster. For any other pod, return only advice. The same holds for the template of the
    pod's owner. If the examined service account doesn't exist, the lines create it first.
    """
    spec = evidence.pod.spec
    if spec is None:
        return Repair.of()
    owner = spec.owner
    template = ((owner or {}).get("spec") or {}).get("template")
    if not _is_free(evidence, name := pod_spec.service_account_of(spec.document["spec"])):
        other = f"Use --pod to name a pod of {evidence.expected.account}."
        return Repair.of(f"{advice.account_stays(evidence, f'the pod {spec.name}', name)}\n{said(other)}")
    if owner and template and not _is_free(evidence, name := pod_spec.service_account_of(template.get("spec") or {})):
        return Repair.of(advice.account_stays(evidence, workloads.called(owner), name))
    lines = [*_missing_account(evidence), *_config_map_lines(evidence)]
    if owner is None:
        manifest = restored_manifest(spec.document, evidence.expected.region)
        before = _with_own_role(evidence, spec, manifest)
        _corrected(evidence, manifest, changes)
        comments = _what_changes(evidence, before, manifest)
        hidden = _hide_secrets(manifest)
        again = [*comments, *_created_again(evidence, spec, manifest)]
        if hidden:
            return Repair.of(_left_to_author(spec.name, hidden, [*lines, *again]))
    elif template:
        again = _template_lines(evidence, owner, {**template}, changes)
    else:
        kind = f"{owner['kind']} {owner['metadata']['name']}"
        again = [
            f"# {kind} makes the pod: make your changes there, not in the pod",
            _delete(evidence, spec.name),
        ]
    return Repair.of(*lines, _making_pods(again))


def _missing_account(evidence: Evidence) -> list[str]:
    """Return lines that create the service account if it doesn't exist: without it, no new pod would start."""
    with suppress(NotRead):
        if evidence.cluster.service_account is None:
            return [Commands(evidence).create_service_account()]
    return []


def _is_free(evidence: Evidence, service_account: str) -> bool:
    """Return whether a repair may let pods of this service account run as the examined one."""
    if service_account != accounts.DEFAULT or evidence.parameters.service_account == accounts.DEFAULT:
        return service_account == evidence.parameters.service_account
    return known(lambda: not (accounts.default_has_a_role(evidence) or accounts.lost_bindings(evidence)), False)


def with_the_annotation(evidence: Evidence) -> Repair:
    """Return lines that replace the pod. The new pod gets the role that the service account's annotation names.

    If the annotation isn't right, return the lines as comments: a pod that works now would lose its role. Do the same
    if a new pod would get the role of a Pod Identity association instead.
    """
    again = replaced(evidence, without_identity)
    if ids := known(lambda: accounts.associations(evidence)) or []:
        consequence = f"{BY_ASSOCIATION} {listed(ids)}, not the role that the annotation names."
        return Repair((Lines(shown(consequence, "# If that is right, run:", str(again))),), waits=True)
    if evidence.aws.is_annotated_rightly:
        return again
    return Repair((Lines(shown(NOT_YET, "# When the annotation is right:", str(again))),), waits=True)


def of_workload(evidence: Evidence, owner: Workload, *changes: Change) -> Repair:
    """Return lines that correct the pod template of the workload `owner`, and then make `changes` in it.

    If that would take permissions from the workload, as in `replaced`, return only advice.
    """
    if not _is_free(evidence, name := pod_spec.service_account_of(owner["spec"]["template"].get("spec") or {})):
        return Repair.of(advice.account_stays(evidence, workloads.called(owner), name))
    return Repair.of(_making_pods(_template_lines(evidence, owner, {**owner["spec"]["template"]}, changes)))


def from_then_on(evidence: Evidence, was: str) -> str:
    """Return a phrase that names a workload's service account before a repair (`was`) and after the repair."""
    account = evidence.parameters.service_account
    return f"runs as {was}; after this change, its pods run as {account}, with the role of that service account"


def with_new_sessions(evidence: Evidence, repair: Repair) -> Repair:
    """Return `repair`. If the role doesn't exist but the pod does, add the lines that replace the pod.

    The pod may still have a session of a deleted role. A new role doesn't make such a session valid.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
    """
    is_held = known(lambda: evidence.aws.role is None and evidence.pod.document is not None, False)
    return Repair.of(repair, replaced(evidence)) if is_held else repair


def without_identity(_: Evidence, manifest: Document) -> None:
    """Remove the containers' role and token variables, so that the webhook sets them."""
    for container in containers_of(manifest["spec"]):
        _without_variables(container, {pod_spec.ROLE, pod_spec.TOKEN_FILE})


def without_skipping(_: Evidence, manifest: Document) -> None:
    """Remove the annotation that makes the webhook skip containers."""
    _without(manifest["metadata"], "annotations", {opt_out.SKIP})


def image(evidence: Evidence) -> str:
    """Return the right image for a pod of the lab; empty for any other pod."""
    return (evidence.parameters.image or evidence.connection.image) if evidence.expected.belongs_to_run else ""


# The corrections for every manifest.


def _corrected(evidence: Evidence, manifest: Document, changes: tuple[Change, ...]) -> None:
    for change in (*CORRECTIONS, *changes):
        # If the doctor couldn't read something, it doesn't correct it either.
        with suppress(NotRead):
            change(evidence, manifest)


def _service_account(evidence: Evidence, manifest: Document) -> None:
    manifest["spec"]["serviceAccountName"] = evidence.parameters.service_account
    if "serviceAccount" in manifest["spec"]:
        manifest["spec"]["serviceAccount"] = evidence.parameters.service_account


def _no_opting_out(_: Evidence, manifest: Document) -> None:
    _without(manifest["metadata"], "labels", {opt_out.SWITCH})


def _no_role_annotation(_: Evidence, manifest: Document) -> None:
    _without(manifest["metadata"], "annotations", {ROLE_ANNOTATION})


def _no_skipping_all(evidence: Evidence, manifest: Document) -> None:
    if opt_out.skips_all(manifest):
        without_skipping(evidence, manifest)


def _no_wrong_variables(evidence: Evidence, manifest: Document) -> None:
    for container in containers_of(manifest["spec"]):
        _without_variables(container, variables.superfluous(evidence, container["name"]))


def _image_that_is_there(evidence: Evidence, manifest: Document) -> None:
    wanted, lacking = image(evidence), evidence.pod.spec.without_image if evidence.pod.spec else set()
    for container in containers_of(manifest["spec"]):
        if wanted and container["name"] in lacking:
            container["image"] = wanted
            container.pop("imagePullPolicy", None)


def _other_volume_name(_: Evidence, manifest: Document) -> None:
    """Rename a volume that isn't the webhook's token volume, but has the token volume's name."""
    volumes = {volume["name"]: volume for volume in manifest["spec"].get("volumes") or []}
    if pod_spec.TOKEN_VOLUME not in volumes or pod_spec.is_token_volume(volumes[pod_spec.TOKEN_VOLUME]):
        return
    for container in containers_of(manifest["spec"]):
        for mount in container.get("volumeMounts") or []:
            if mount["name"] == pod_spec.TOKEN_VOLUME:
                mount["name"] = f"{pod_spec.TOKEN_VOLUME}-own"
    volumes[pod_spec.TOKEN_VOLUME]["name"] = f"{pod_spec.TOKEN_VOLUME}-own"


def _no_own_mount(evidence: Evidence, manifest: Document) -> None:
    """Remove mounts at the webhook's mount path, because the API server refuses two mounts at one path."""
    if evidence.cluster.webhook is None:
        return
    for container in containers_of(manifest["spec"]):
        mounts = container.get("volumeMounts") or []
        kept = [mount for mount in mounts if mount["mountPath"].rstrip("/") != pod_spec.MOUNT_PATH]
        if len(kept) != len(mounts):
            set_list(container, "volumeMounts", kept)
    mounted = {mount["name"] for each in containers_of(manifest["spec"]) for mount in each.get("volumeMounts") or []}
    volumes = manifest["spec"].get("volumes") or []
    gone = {f"{pod_spec.TOKEN_VOLUME}-own"} - mounted
    set_list(manifest["spec"], "volumes", [volume for volume in volumes if volume["name"] not in gone])


def _no_shared_keys(evidence: Evidence, manifest: Document) -> None:
    """Replace a ConfigMap in `envFrom` with variables in `env`, if it has superfluous keys that can't be deleted.

    They can't be deleted if pods or workloads of another service account may use the ConfigMap.

    `env` gets a variable for each key of the ConfigMap that isn't superfluous. Variables that `env` already has,
    variables that the webhook sets, and variables with an invalid name aren't added.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap/
    """
    spec = evidence.pod.spec
    shared = {
        name: gone
        for name, gone in variables.superfluous_keys(evidence).items()
        if workloads.other_users(evidence, name)
    }
    if spec is None or not shared:
        return
    for container in containers_of(manifest["spec"]):
        sources, env = container.get("envFrom") or [], container.get("env") or []
        # The webhook doesn't replace variables in `env`.
        named = {variable["name"] for variable in env} | BY_WEBHOOK
        for source in sources:
            name, prefix = (source.get("configMapRef") or {}).get("name", ""), source.get("prefix") or ""
            kept = spec.config_map(name).keys() - shared[name] if name in shared else ()
            env = env + [
                {"name": f"{prefix}{key}", "valueFrom": {"configMapKeyRef": {"name": name, "key": key}}}
                for key in sorted(kept)
                if VARIABLE.fullmatch(prefix + key) and prefix + key not in named
            ]
        set_list(container, "env", env)
        rest = [source for source in sources if (source.get("configMapRef") or {}).get("name") not in shared]
        set_list(container, "envFrom", rest)


CORRECTIONS: tuple[Change, ...] = (
    _service_account,
    _no_opting_out,
    _no_role_annotation,
    _no_skipping_all,
    _no_wrong_variables,
    _image_that_is_there,
    _other_volume_name,
    _no_own_mount,
    _no_shared_keys,
)


# The lines.


def _making_pods(lines: list[str]) -> Lines:
    return Lines("\n".join(lines), makes_pods=True)


def _delete(evidence: Evidence, name: str) -> str:
    return f"{_kubectl(evidence)} delete pod {name} -n {evidence.parameters.namespace} --grace-period=1"


def _created_again(evidence: Evidence, spec: pod_spec.PodSpec, manifest: Document) -> list[str]:
    """Return lines that delete the pod and create it from the manifest, unless somebody changed the pod meanwhile."""
    pod = spec.document
    fields = ("{.metadata.generation}", "{.spec.serviceAccountName}", "{.spec.containers[*].image}")
    images = " ".join(each.get("image", "") for each in pod["spec"].get("containers") or [])
    values = (str(pod["metadata"].get("generation", "")), pod["spec"].get("serviceAccountName", ""), images)
    path, known_values = shlex.quote(f"jsonpath={'/'.join(fields)}"), shlex.quote("/".join(values))
    get = f"{_kubectl(evidence)} get pod {spec.name} -n {evidence.parameters.namespace} -o {path}"
    refused = shlex.quote(f"If the pod {spec.name} was not replaced, it {patches.CHANGED}")
    return [
        f'test "$({get})" = {known_values} &&',
        f"{_delete(evidence, spec.name)} &&",
        f"{applied(manifest, _kubectl(evidence))} || echo {refused}",
    ]


def _left_to_author(pod_name: str, hidden: list[str], lines: list[str]) -> str:
    why = said(
        f"Do not run the lines below: the pod {pod_name} would lose values that are not shown ({listed(hidden)}).",
        "The lines only show what to change. The author of the original manifest has the values, and can change it:",
    )
    return f"{why}\n{shown(*lines)}"


def _template_lines(evidence: Evidence, owner: Workload, template: Document, changes: tuple[Change, ...]) -> list[str]:
    template["metadata"] = template.get("metadata") or {}
    wanted = copy.deepcopy(template)
    wanted["spec"] = without_additions(wanted["spec"], evidence.expected.region)
    _corrected(evidence, wanted, changes)
    workload = f"{owner['kind'].lower()}/{owner['metadata']['name']}"
    kubectl, namespace = _kubectl(evidence), f"-n {evidence.parameters.namespace}"
    wait = f"{kubectl} rollout status {workload} {namespace} --timeout=90s"
    how = "all at once" if _is_bare_set(owner) else "one after the other"
    comments = [said(f"This replaces the pods of {owner['kind']} {owner['metadata']['name']}, {how}.")]
    if (was := pod_spec.service_account_of(template["spec"])) != evidence.parameters.service_account:
        comments.insert(0, said(f"{workload} {from_then_on(evidence, was)}:"))
    if differences := _changes_shown(template, wanted):
        comments += [*map(said, managed(owner["metadata"])), *differences]
    if changed := _variables_gone(template, wanted):
        lines = [f"{kubectl} set env {workload} {namespace} -c {name} {gone}" for name, gone in changed.items()]
    elif operations := patches.difference(template, wanted, "/spec/template"):
        if operations != patches.difference(_without_secrets(template), _without_secrets(wanted), "/spec/template"):
            names = ", ".join(_hide_secrets(wanted))
            why = f"# the doctor does not show the values of {names}. So correct the template by hand:"
            return [*comments[1:], why, f"{kubectl} edit {workload} {namespace}"]
        operations = [*patches.unchanged(owner["metadata"]), *operations]
        # After a refused patch, the old pods would never become ready.
        after = "" if _is_bare_set(owner) else wait
        lines, wait = [patches.patched(kubectl, f"{workload} {namespace}", operations, after)], ""
    elif _is_being_replaced(evidence):
        lines = [
            "# a rollout is under way, and the webhook has changed the new pods. This waits until the rollout ends:"
        ]
    else:
        lines = [] if _is_bare_set(owner) else [f"{kubectl} rollout restart {workload} {namespace}"]
    if _is_bare_set(owner):
        pods = _pods_owned_by(evidence, owner)
        return [*comments, *lines, *([f"{kubectl} delete pod {' '.join(pods)} {namespace}"] if pods else [])]
    lines += [wait] if wait else []
    if owner["spec"].get("paused"):
        return [PAUSED, *comments, shown(f"{kubectl} rollout resume {workload} {namespace}", *lines)]
    return [*comments, *lines]


def _is_bare_set(owner: Workload) -> bool:
    """Whether the owner is a ReplicaSet without a Deployment, for which `kubectl rollout` doesn't work.

    https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/
    """
    return bool(owner["kind"] == "ReplicaSet")


def _pods_owned_by(evidence: Evidence, owner: Workload) -> list[str]:
    mine = (owner["kind"], owner["metadata"]["name"])
    return [
        metadata["name"]
        for metadata in (pod["metadata"] for pod in evidence.cluster.api.pods(evidence.parameters.namespace))
        if not metadata.get("deletionTimestamp")
        and any(
            each.get("controller") and (each["kind"], each["name"]) == mine
            for each in metadata.get("ownerReferences") or []
        )
    ]


def _changes_shown(template: Document, wanted: Document) -> list[str]:
    return list(filter(None, [changes_in(_without_secrets(template), _without_secrets(wanted))]))


def _with_own_role(evidence: Evidence, spec: pod_spec.PodSpec, manifest: Document) -> Document:
    """Return a copy of the manifest. The copy also has each `AWS_ROLE_ARN` that a person set in the running pod.

    An `AWS_ROLE_ARN` that equals the service account's annotation isn't added.
    """
    before = copy.deepcopy(manifest)
    for container, live in zip(containers_of(before["spec"]), spec.containers, strict=True):
        with suppress(NotRead):
            if not (live.is_by_hand or live.declares_role) or live.value(pod_spec.ROLE) == evidence.cluster.annotation:
                continue
            names = {pod_spec.ROLE, *(each["name"] for each in container.get("env") or [])}
            set_list(container, "env", [each for each in live.document.get("env") or [] if each["name"] in names])
    return before


def _what_changes(evidence: Evidence, before: Document, after: Document) -> list[str]:
    pod, account = before["metadata"]["name"], evidence.parameters.service_account
    sentences = [f"This deletes the pod {pod}, and creates it again from its manifest."]
    if (was := pod_spec.service_account_of(before["spec"])) != account:
        sentences.append(
            f"The old pod runs as {was}; the new pod runs as {account}, with the role of that service account."
        )
    for old, new in zip(containers_of(before["spec"]), containers_of(after["spec"]), strict=True):
        kept = {variable["name"] for variable in new.get("env") or []}
        if gone := [each["name"] for each in old.get("env") or [] if each["name"] not in kept]:
            sentences.append(f"In the new pod, the container {old['name']} no longer sets {listed(gone)}.")
    return [said(*sentences), *_changes_shown(before, after)]


def _is_being_replaced(evidence: Evidence) -> bool:
    """Whether a rollout has already created a newer pod with the webhook's changes."""
    return any(
        pod_spec.service_account_of(pod["spec"]) == evidence.parameters.service_account
        and pod_spec.PodSpec(pod, evidence.cluster.api).is_mutated
        for pod in workloads.successors(evidence)
    )


def _variables_gone(template: Document, wanted: Document) -> dict[str, str]:
    """Return each container's `kubectl set env` arguments that remove variables, such as `AWS_PROFILE-`."""
    lines, rest = {}, copy.deepcopy(template)
    rest.setdefault("metadata", {})
    for container, after in zip(containers_of(rest["spec"]), containers_of(wanted["spec"]), strict=True):
        kept = [variable["name"] for variable in after.get("env") or []]
        gone = [variable["name"] for variable in container.get("env") or [] if variable["name"] not in kept]
        set_list(container, "env", [v for v in container.get("env") or [] if v["name"] not in gone])
        if gone:
            lines[container["name"]] = " ".join(f"{name}-" for name in gone)
    return lines if rest == wanted else {}


def _config_map_lines(evidence: Evidence) -> list[str]:
    return [
        said(
            f"The ConfigMap {name} is not changed: {listed(users)} may need it. "
            f"The new pod ignores {listed(sorted(keys))}."
        )
        if (users := workloads.other_users(evidence, name))
        else patch_config_map(evidence, name, dict.fromkeys(sorted(keys)))
        for name, keys in variables.superfluous_keys(evidence).items()
    ]


def _without_secrets(manifest: Document) -> Document:
    manifest = copy.deepcopy(manifest)
    _hide_secrets(manifest)
    return manifest


def _hide_secrets(manifest: Document) -> list[str]:
    hidden = []
    for container in containers_of(manifest["spec"]):
        for variable in container.get("env") or []:
            if variable.get("value") and SECRET.search(variable["name"]) and variable["name"] not in HARMLESS:
                variable["value"] = NOT_SHOWN
                hidden.append(variable["name"])
    return hidden


def _kubectl(evidence: Evidence) -> str:
    return evidence.connection.kubectl


def _without_variables(container: Document, names: set[str]) -> None:
    set_list(container, "env", [each for each in container.get("env") or [] if each["name"] not in names])


def _without(document: Document, key: str, names: set[str]) -> None:
    kept = {name: value for name, value in (document.get(key) or {}).items() if name not in names}
    if kept:
        document[key] = kept
    else:
        document.pop(key, None)
