"""A repair's kubectl commands, applied to recorded evidence as the API server and the webhook would."""

import copy
import json
import re
import shlex
from typing import Any

import jsonpatch

from labkit.course.faults import admission
from labkit.simulator import object_selector
from tests.doctor.recording import ASSOCIATIONS, EVENTS, NAMESPACE, PODS, SERVICE_ACCOUNTS, WEBHOOK, healthy
from tests.doctor.repairing import commands

Answers = dict[str, Any]
REGION = "us-east-1"


def made(manifest: dict[str, Any], answers: Answers) -> dict[str, Any]:
    """The pod that the API server makes from a manifest, with the webhook's additions if it calls the webhook."""
    account = manifest["spec"].get("serviceAccountName", "default")
    accounts = {each["metadata"]["name"]: each for each in answers[SERVICE_ACCOUNTS]}
    annotations = accounts[account]["metadata"].get("annotations") or {}
    labels = {**(manifest["metadata"].get("labels") or {})}
    webhook = ((answers[WEBHOOK] or {}).get("webhooks") or [{}])[0]
    namespace = (answers[NAMESPACE] or {}).get("metadata", {}).get("labels") or {}
    is_called = webhook.get("clientConfig") == healthy()[WEBHOOK]["webhooks"][0]["clientConfig"]
    is_called = is_called and object_selector(webhook.get("objectSelector"))(labels)
    is_called = is_called and object_selector(webhook.get("namespaceSelector"))(namespace)
    spec = admission.admitted(manifest, annotations if is_called else {}, REGION)
    metadata = {**manifest["metadata"], "creationTimestamp": "2026-01-01T00:05:00Z", "uid": "c"}
    return {**manifest, "metadata": metadata, "spec": spec, "status": {"phase": "Running"}}


def applied(answers: Answers, repair: str) -> Answers:
    """Return the answers after a repair's lines have run. An unknown line fails the test."""
    after = copy.deepcopy(answers)
    for line in commands(repair):
        words = shlex.split(line)
        if line == "labkit reset":
            after[WEBHOOK] = healthy()[WEBHOOK]
        elif words[0] == "echo" or words[:2] == ["printf", "%s\\n"]:
            assert words[-5:] == ["|", "kubectl", "apply", "-f", "-"]
            _apply(after, json.loads(words[-6]))
        elif words[:3] == ["kubectl", "delete", "pod"]:
            after[PODS] = [pod for pod in after[PODS] if pod["metadata"]["name"] != words[3]]
        elif words[:3] == ["kubectl", "delete", "events"]:
            after[EVENTS] = []
        elif words[:3] == ["kubectl", "create", "namespace"]:
            after[NAMESPACE] = {"metadata": {"name": words[3]}}
        elif words[:3] == ["kubectl", "annotate", "serviceaccount"]:
            _edit(after[SERVICE_ACCOUNTS][0], "annotations", words[7:])
        elif words[:3] == ["kubectl", "label", "namespace"]:
            _edit(after[NAMESPACE], "labels", words[4:])
        elif words[:3] == ["kubectl", "patch", "mutatingwebhookconfiguration/pod-identity-webhook"]:
            assert words[3:5] == ["--type=json", "-p"]
            after[WEBHOOK] = jsonpatch.apply_patch(after[WEBHOOK], words[5])
        elif words[:3] == ["kubectl", "patch", "configmap"]:
            name = f"get configmap {words[3]} -n default"
            after[name] = jsonpatch.apply_patch(after[name], words[-1])
        elif words[:3] == ["kubectl", "get", "configmap"]:
            _substitute(after[f"get configmap {words[3]} -n default"]["data"], words[words.index("sed") + 1])
        elif words[:3] == ["aws", "eks", "delete-pod-identity-association"]:
            after[ASSOCIATIONS] = []
        else:
            raise AssertionError(line)
    return after


def _apply(answers: Answers, manifest: dict[str, Any]) -> None:
    if manifest["kind"] == "Pod":
        answers[PODS] = [made(manifest, answers)]
    elif manifest["kind"] == "ServiceAccount":
        answers[SERVICE_ACCOUNTS] = [manifest]


def _edit(obj: dict[str, Any], field: str, words: list[str]) -> None:
    entries = {**(obj["metadata"].get(field) or {})}
    for word in words:
        key, is_set, value = word.partition("=")
        if is_set:
            entries[key] = value
        else:
            entries.pop(key.removesuffix("-"), None)
    obj["metadata"][field] = entries


def _substitute(data: dict[str, str], command: str) -> None:
    _, pattern, replacement, _ = command.split("/")
    for key, text in data.items():
        data[key] = re.sub(pattern, replacement, text)
