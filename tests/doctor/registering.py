"""The webhook's opt-out label, a namespace that opted out, and a repair's patch of the registration."""

import json
import shlex

from labkit.steps import pod
from tests.doctor import recording
from tests.doctor.applying import made
from tests.doctor.recording import healthy
from tests.doctor.repairing import commands

OPT_OUT = "eks.amazonaws.com/skip-pod-identity-webhook"


def in_a_namespace_that_opted_out():
    answers = healthy()
    selector = {"matchExpressions": [{"key": "no-webhook", "operator": "NotIn", "values": ["yes"]}]}
    answers[recording.WEBHOOK]["webhooks"][0]["namespaceSelector"] = selector
    answers[recording.NAMESPACE]["metadata"]["labels"]["no-webhook"] = "yes"
    answers[recording.PODS] = [made(pod.build(recording.PARAMETERS), answers)]
    return answers


def patch_of(repair):
    (line,) = [line for line in commands(repair) if line.startswith("kubectl patch mutatingwebhook")]
    return json.loads(shlex.split(line)[-1])


LEFT_OUT = (
    "; the webhook's matchConditions, which the doctor doesn't evaluate, may leave the pod out: request.name != 'x'"
)
