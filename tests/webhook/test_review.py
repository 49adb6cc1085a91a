"""What the webhook adds to a pod, case by case: annotations and pod go in, what its containers have comes out."""

import base64
import json
from dataclasses import dataclass, field

import jsonpatch
import pytest

from labkit.webhook import Account, review

ROLE = "arn:aws:iam::123456789012:role/my-role"
FILE = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
IDENTITY = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": FILE}
REGION = {"AWS_DEFAULT_REGION": "us-east-1", "AWS_REGION": "us-east-1"}
STS = {"AWS_STS_REGIONAL_ENDPOINTS": "regional"}
ALL = STS | REGION | IDENTITY
MOUNT = {"name": "aws-iam-token", "readOnly": True, "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount"}


def token_volume(audience="sts.amazonaws.com", seconds=86400):
    token = {"audience": audience, "expirationSeconds": seconds, "path": "token"}
    return {"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}}


def container(name="app", env=None, mounts=None, **more):
    return {
        "name": name,
        "image": "amazon/aws-cli",
        **({"env": [{"name": key, "value": value} for key, value in env.items()]} if env else {}),
        **({"volumeMounts": mounts} if mounts else {}),
        **more,
    }


@dataclass
class Case:
    says: str
    account: dict = field(default_factory=dict)  # annotations of the service account, beside the role
    pod: dict = field(default_factory=dict)  # annotations of the pod
    spec: dict = field(default_factory=lambda: {"containers": [container()]})
    env: dict = field(default_factory=lambda: {"app": ALL})  # by container, in this order
    mounts: dict = field(default_factory=dict)  # by container, where it is not the token's alone
    volumes: list = field(default_factory=lambda: [token_volume()])


EKS = "eks.amazonaws.com/"
emptydir = {"name": "aws-iam-token", "emptyDir": {}}
other_volume = {"name": "data", "emptyDir": {}}
sidecar = container("proxy", restartPolicy="Always", readinessProbe={"exec": {"command": ["true"]}})

CASES = [
    Case("a container without anything gets all variables, the mount and the volume"),
    Case("the account's audience", account={"audience": "vault"}, volumes=[token_volume("vault")]),
    Case("the account's expiration", account={"token-expiration": "3600"}, volumes=[token_volume(seconds=3600)]),
    Case(
        "the pod's expiration wins over the account's",
        account={"token-expiration": "3600"},
        pod={"token-expiration": "7200"},
        volumes=[token_volume(seconds=7200)],
    ),
    Case(
        "the account's expiration is 600 at least",
        account={"token-expiration": "60"},
        volumes=[token_volume(seconds=600)],
    ),
    Case("the pod's expiration is 600 at least", pod={"token-expiration": "-1"}, volumes=[token_volume(seconds=600)]),
    Case("an expiration that is no number is passed over (account)", account={"token-expiration": "1h"}),
    Case(
        "an expiration that is no number is passed over (pod)",
        account={"token-expiration": "3600"},
        pod={"token-expiration": "1h"},
        volumes=[token_volume(seconds=3600)],
    ),
    Case("without regional endpoints", account={"sts-regional-endpoints": "false"}, env={"app": REGION | IDENTITY}),
    Case("a word that is no boolean is passed over", account={"sts-regional-endpoints": "nein"}),
    Case("the role on the pod's annotations changes nothing", pod={"role-arn": "arn:aws:iam::123456789012:role/other"}),
    Case(
        "a preset role keeps out the token file: neither is injected",
        spec={"containers": [container(env={"AWS_ROLE_ARN": "mine"})]},
        env={"app": {"AWS_ROLE_ARN": "mine"} | STS | REGION},
    ),
    Case(
        "a preset token file keeps out the role",
        spec={"containers": [container(env={"AWS_WEB_IDENTITY_TOKEN_FILE": "/mine"})]},
        env={"app": {"AWS_WEB_IDENTITY_TOKEN_FILE": "/mine"} | STS | REGION},
    ),
    Case(
        "one preset region variable keeps out the other",
        spec={"containers": [container(env={"AWS_REGION": "eu-west-1"})]},
        env={"app": {"AWS_REGION": "eu-west-1"} | STS | IDENTITY},
    ),
    Case(
        "preset endpoints are kept",
        spec={"containers": [container(env={"AWS_STS_REGIONAL_ENDPOINTS": "legacy"})]},
        env={"app": {"AWS_STS_REGIONAL_ENDPOINTS": "legacy"} | REGION | IDENTITY},
    ),
    Case(
        "a container with one of each kind is left alone, mount included",
        spec={
            "containers": [container(env={"AWS_ROLE_ARN": "a", "AWS_REGION": "b", "AWS_STS_REGIONAL_ENDPOINTS": "c"})]
        },
        env={"app": {"AWS_ROLE_ARN": "a", "AWS_REGION": "b", "AWS_STS_REGIONAL_ENDPOINTS": "c"}},
        mounts={"app": None},
    ),
    Case(
        "a mount of the volume is kept, wherever it is",
        spec={"containers": [container(mounts=[{"name": "aws-iam-token", "mountPath": "/mine"}])]},
        mounts={"app": [{"name": "aws-iam-token", "mountPath": "/mine"}]},
    ),
    Case(
        "other mounts stay first",
        spec={"containers": [container(mounts=[{"name": "data", "mountPath": "/data"}])], "volumes": [other_volume]},
        mounts={"app": [{"name": "data", "mountPath": "/data"}, MOUNT]},
        volumes=[token_volume(), other_volume],
    ),
    Case(
        "a volume of that name is kept whatever it holds, and mounted",
        spec={"containers": [container()], "volumes": [emptydir]},
        volumes=[emptydir],
    ),
    Case("an empty list of volumes", spec={"containers": [container()], "volumes": []}),
    Case(
        "containers to skip",
        pod={"skip-containers": "setup,log"},
        spec={"initContainers": [container("setup")], "containers": [container(), container("log")]},
        env={"setup": {}, "app": ALL, "log": {}},
        mounts={"setup": None, "log": None},
    ),
    Case("a quoted name is skipped", pod={"skip-containers": '"app"'}, env={"app": {}}, mounts={"app": None}),
    Case("a blank belongs to the name", pod={"skip-containers": "x, app"}),
    Case("only the first line counts", pod={"skip-containers": "x\napp"}),
    Case("a list that is no CSV skips nobody", pod={"skip-containers": 'app,"log'}),
    Case("a bare quote is no CSV", pod={"skip-containers": 'app,lo"g'}),
    Case("an empty list skips nobody", pod={"skip-containers": ""}),
    Case(
        "init containers and native sidecars get it, too, with all their fields",
        spec={"initContainers": [container("setup"), sidecar], "containers": [container()]},
        env={"setup": ALL, "proxy": ALL, "app": ALL},
    ),
    Case(
        "variables with valueFrom stay as they are",
        spec={"containers": [container() | {"env": [{"name": "AWS_REGION", "valueFrom": {"fieldRef": {}}}]}]},
        env={"app": {"AWS_REGION": None} | STS | IDENTITY},
    ),
    *(
        Case(
            f"a pod for Windows ({label})",
            spec={"containers": [container()], "nodeSelector": {label: "windows"}},
            env={
                "app": STS
                | REGION
                | {
                    "AWS_ROLE_ARN": ROLE,
                    "AWS_WEB_IDENTITY_TOKEN_FILE": r"C:\var\run\secrets\eks.amazonaws.com\serviceaccount\token",
                }
            },
        )
        for label in ("kubernetes.io/os", "beta.kubernetes.io/os")
    ),
]


class Known(dict):
    def get(self, namespace, name):
        return super().get((namespace, name))


def admission_review(spec, annotations=None, namespace="default"):
    pod = {"kind": "Pod", "metadata": {"name": "my-pod", "annotations": annotations or {}}, "spec": spec}
    request = {"uid": "7", "operation": "CREATE", "namespace": namespace, "object": pod}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def known(annotations):
    found = {"annotations": {EKS + name: value for name, value in annotations.items()}}
    return Known({("default", "my-service-account"): Account.of({"metadata": found})})


def patched(asked, answer):
    patch = json.loads(base64.b64decode(answer["response"]["patch"]))
    return jsonpatch.apply_patch(asked["request"]["object"], patch)["spec"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_what_is_added(case):
    spec = {"serviceAccountName": "my-service-account", **case.spec}
    asked = admission_review(spec, {EKS + name: value for name, value in case.pod.items()})

    answer = review(asked, known({"role-arn": ROLE} | case.account), region="us-east-1")

    assert (answer["kind"], answer["apiVersion"]) == ("AdmissionReview", "admission.k8s.io/v1")
    assert {**answer["response"], "patch": ...} == {
        "uid": "7",
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": ...,
    }
    result = patched(asked, answer)
    containers = [*result.get("initContainers", ()), *result["containers"]]
    env = {item["name"]: {v["name"]: v.get("value") for v in item.get("env", ())} for item in containers}
    assert env == case.env
    assert [list(of) for of in env.values()] == [list(of) for of in case.env.values()]
    assert {item["name"]: item.get("volumeMounts") for item in containers} == {
        item["name"]: case.mounts.get(item["name"], [MOUNT]) for item in containers
    }
    assert result["volumes"] == case.volumes
    before = [*spec.get("initContainers", ()), *spec["containers"]]
    other_fields = [{k: v for k, v in c.items() if k not in ("env", "volumeMounts")} for c in before]
    assert [{k: v for k, v in c.items() if k not in ("env", "volumeMounts")} for c in containers] == other_fields


def test_no_region_is_set_where_the_webhook_has_none():
    asked = admission_review({"serviceAccountName": "my-service-account", "containers": [container()]})

    result = patched(asked, review(asked, known({"role-arn": ROLE})))

    assert [variable["name"] for variable in result["containers"][0]["env"]] == [*STS, *IDENTITY]


@pytest.mark.parametrize(
    ("spec", "namespace", "annotations"),
    [
        ({"serviceAccountName": "default"}, "default", {"role-arn": ROLE}),
        ({"serviceAccountName": "my-service-account"}, "other", {"role-arn": ROLE}),
        ({}, "default", {"role-arn": ROLE}),
        ({"serviceAccountName": "my-service-account"}, "default", {}),
        ({"serviceAccountName": "my-service-account"}, "default", {"role-arn": ""}),
    ],
    ids=["another account", "another namespace", "no account", "no annotation", "an empty annotation"],
)
def test_a_pod_whose_account_has_no_role_is_let_through_unchanged(spec, namespace, annotations):
    asked = admission_review({**spec, "containers": [container()]}, namespace=namespace)

    assert review(asked, known(annotations))["response"] == {"uid": "7", "allowed": True}


@pytest.mark.parametrize("asked", [{}, {"request": None}, {"request": {"uid": "7", "object": {"kind": "Pod"}}}])
def test_what_is_no_review_of_a_pod_is_refused(asked):
    response = review(asked, known({}))["response"]

    assert (response["allowed"], response["status"]) == (False, {"message": "bad content"})
