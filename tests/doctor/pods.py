"""Recorded evidence of a healthy lab with one change, for the tests of pods, and the doctor's findings."""

from labkit import doctor
from labkit.doctor.evidence import Evidence, Reads
from labkit.steps import pod
from tests.doctor.applying import made
from tests.doctor.recording import CONNECTION, PARAMETERS, PODS, ROLE_ARN, TOKEN_FILE, healthy

KEY = "eks.amazonaws.com/role-arn"
CONFIG_MAP = "get configmap settings -n default"


def examine(answers, **settings):
    settings = {"probe": False, **settings}
    return doctor.examine(Evidence(PARAMETERS, CONNECTION, reads=Reads(answers), **settings))


def found(answers, **settings):
    return [finding.id for finding in examine(answers, **settings).findings]


def applying(change, config_map=None):
    """A healthy lab whose pod was made from a changed manifest."""
    answers, manifest = healthy(), pod.build(PARAMETERS)
    if config_map is not None:
        answers[CONFIG_MAP] = {"metadata": {"name": "settings"}, "data": config_map}
    change(manifest)
    answers[PODS] = [made(manifest, answers)]
    return answers


def with_variables(**values):
    entries = [{"name": name, "value": value} for name, value in values.items()]
    return lambda manifest: manifest["spec"]["containers"][0].update(env=entries)


def with_sources(manifest):
    manifest["spec"]["containers"][0]["envFrom"] = [{"configMapRef": {"name": "settings"}}]


def with_config(manifest):
    container = manifest["spec"]["containers"][0]
    manifest["spec"]["volumes"] = [{"name": "settings", "configMap": {"name": "settings"}}]
    container["volumeMounts"] = [{"name": "settings", "mountPath": "/root/.aws"}]


KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG"}
LONG_SESSION = f"[default]\nrole_arn = {ROLE_ARN}\nweb_identity_token_file = {TOKEN_FILE}\nduration_seconds = 7200\n"


def deployment(env):
    container = {"name": "aws", "image": "amazon/aws-cli", "env": env}
    spec = {"serviceAccountName": "my-service-account", "containers": [container]}
    template = {"metadata": {"labels": {"app": "cart"}}, "spec": spec}
    return {"metadata": {"name": "cart", "namespace": "default"}, "spec": {"template": template}}


def owned(env):
    """A healthy lab whose pod is made by a Deployment."""
    answers = applying(with_variables(**{each["name"]: each["value"] for each in env}))
    replica_set = {"kind": "ReplicaSet", "name": "cart-1", "controller": True}
    answers[PODS][0]["metadata"]["ownerReferences"] = [replica_set]
    above = [{"kind": "Deployment", "name": "cart", "controller": True}]
    answers["get replicaset cart-1 -n default"] = {"metadata": {"name": "cart-1", "ownerReferences": above}}
    answers["get deployment cart -n default"] = deployment(env)
    return answers


def workload(name="cart", *, account="my-service-account", replicas=1, kind="Deployment", app="cart"):
    """A Deployment as an item of a list."""
    container = {"name": "aws", "image": "amazon/aws-cli"}
    spec = {"containers": [container], **({"serviceAccountName": account} if account else {})}
    labels = {"app": app}
    template = {"metadata": {"labels": labels}, "spec": spec}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def unread(answers, call):
    return {each: answer for each, answer in answers.items() if each != call}
