"""What the webhook adds to a pod, case by case: from annotations and a pod to its containers' variables and mounts.

The cases come from the documentation, source and test data of the webhook that EKS runs:
https://github.com/aws/amazon-eks-pod-identity-webhook (README.md, pkg/handler, pkg/cache, pkg/annotations).

This webhook differs from it on purpose:
- AWS_STS_REGIONAL_ENDPOINTS is injected by default, as EKS configures its webhook (upstream's own default is off).
- If a service account is unknown or has no role, the webhook asks the API before it lets the pod through without a
  role. Upstream asks only for an unknown account, and waits at most 100 ms.
- Fields that upstream's Go types do not know, such as a container's newer fields, are kept. Upstream drops them.
- A body over 8 MiB is refused, and GET on /mutate is a 405.
These parts are left out, because EKS does not offer them: roles in a ConfigMap (--watch-config-map), ARNs composed of
a role's name (--compose-role-arn), and a random lifetime of 79200 to 86400 seconds for a token of Pod Identity.
"""

import base64
import json

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.webhook import AccountSettings, review
from tests.webhook.cases import CASES, EKS, FILE, MOUNT, REGION, ROLE, STS, container


class Known(dict):
    def get(self, namespace, name):
        return super().get((namespace, name))


def admission_review(spec, annotations=None, namespace="default"):
    pod = {"kind": "Pod", "metadata": {"name": "my-pod", "annotations": annotations or {}}, "spec": spec}
    request = {"uid": "7", "operation": "CREATE", "namespace": namespace, "object": pod}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def known(annotations, defaults=None, prefix="eks.amazonaws.com"):
    found = {"annotations": {f"{prefix}/{name}": value for name, value in annotations.items()}}
    account = AccountSettings.of({"metadata": found}, defaults=defaults, prefix=prefix)
    return Known({("default", "my-service-account"): account})


def patched(asked, answer):
    patch = json.loads(base64.b64decode(answer["response"]["patch"]))
    return jsonpatch.apply_patch(asked["request"]["object"], patch)["spec"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_the_webhook_adds_variables_mounts_and_volume_and_changes_nothing_else(case):
    spec = {"serviceAccountName": "my-service-account", **case.spec}
    asked = admission_review(spec, {EKS + name: value for name, value in case.pod.items()})

    options = {"region": "us-east-1"} | case.options
    accounts = known({"role-arn": ROLE} | case.account, case.defaults, options.get("prefix", "eks.amazonaws.com"))
    answer = review(asked, accounts, **options)

    assert (answer["kind"], answer["apiVersion"]) == ("AdmissionReview", "admission.k8s.io/v1")
    assert {**answer["response"], "patch": ...} == {"uid": "7", "allowed": True, "patchType": "JSONPatch", "patch": ...}
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


@pytest.mark.parametrize(("spec", "namespace", "annotations"), [
    ({"serviceAccountName": "default"}, "default", {"role-arn": ROLE}),
    ({"serviceAccountName": "my-service-account"}, "other", {"role-arn": ROLE}),
    ({}, "default", {"role-arn": ROLE}),
    ({"serviceAccountName": "my-service-account"}, "default", {}),
    ({"serviceAccountName": "my-service-account"}, "default", {"role-arn": ""}),
], ids=["another account", "another namespace", "no account", "no annotation", "an empty annotation"])  # fmt: skip
def test_a_pod_whose_account_has_no_role_is_let_through_unchanged(spec, namespace, annotations):
    asked = admission_review({**spec, "containers": [container()]}, namespace=namespace)

    assert review(asked, known(annotations))["response"] == {"uid": "7", "allowed": True}


@pytest.mark.parametrize(("obj", "says"), [
    ({"kind": "ConfigMap", "data": {}}, "without a spec"),
    ({"kind": "Service", "spec": {"ports": []}}, "without a service account"),
    ({"kind": "Pod", "metadata": None, "spec": None}, "with nulls"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_an_object_without_a_service_account_is_let_through_unchanged(obj, says):
    asked = {"request": {"uid": "7", "namespace": "default", "object": obj}}

    assert review(asked, known({"role-arn": ROLE}))["response"] == {"uid": "7", "allowed": True}


@pytest.mark.parametrize(("asked", "message"), [
    ({}, "bad content"),
    ({"request": None}, "bad content"),
    ({"request": []}, "bad content"),
    ({"kind": "Pod", "metadata": {}}, "bad content"),
    ({"request": {"uid": "7"}}, "the request has no object"),
    ({"request": {"uid": "7", "object": None}}, "the request has no object"),
    ({"request": {"uid": 7, "object": {}}}, "request.uid has to be a text"),
    ({"request": {"object": []}}, "request.object has to be an object"),
    ({"request": {"namespace": {}, "object": {}}}, "request.namespace has to be a text"),
    ({"request": {"object": {"spec": []}}}, "request.object.spec has to be an object"),
    ({"request": {"object": {"spec": {"containers": {}}}}}, "request.object.spec.containers has to be a list"),
    ({"request": {"object": {"spec": {"volumes": [None]}}}}, "request.object.spec.volumes has an empty item"),
    ({"request": {"object": {"spec": {"initContainers": [{"env": [{"name": 1}]}]}}}},
     "request.object.spec.initContainers[0].env[0].name has to be a text"),
    ({"request": {"object": {"metadata": {"annotations": {EKS + "skip-containers": ["app"]}}}}},
     "request.object.metadata.annotations.eks.amazonaws.com/skip-containers has to be a text"),
], ids=lambda value: value if isinstance(value, str) else "")  # fmt: skip
def test_an_invalid_review_is_refused_with_the_reason(asked, message):
    response = review(asked, known({"role-arn": ROLE}))["response"]

    assert (response["allowed"], response["status"]) == (False, {"message": message})


@pytest.mark.parametrize("version", ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"])
def test_a_review_is_answered_in_its_own_version(version):
    asked = admission_review({"serviceAccountName": "my-service-account", "containers": [container()]})

    answer = review(asked | {"apiVersion": version}, known({"role-arn": ROLE}))

    assert (answer["apiVersion"], answer["kind"]) == (version, "AdmissionReview")
    assert answer["response"]["patchType"] == "JSONPatch"


@pytest.mark.parametrize("version", [{}, {"apiVersion": None}, {"apiVersion": ""}, {"apiVersion": 7}])
def test_a_review_without_a_version_is_answered_in_the_newest(version):
    assert review({"request": {"object": {}}} | version, known({}))["apiVersion"] == "admission.k8s.io/v1"


AGENT = {
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/"
    "eks-pod-identity-token",
}
AGENT_MOUNT = {
    "name": "eks-pod-identity-token",
    "readOnly": True,
    "mountPath": "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount",
}


def associated(spec, annotations, *, pod=None, name="my-service-account"):
    """The patched spec of a pod whose service account has a Pod Identity association."""
    asked = admission_review({"serviceAccountName": name, **spec}, pod)
    answer = review(asked, known(annotations), region="us-east-1", associated=lambda *whose: whose == ("default", name))
    return patched(asked, answer)


@pytest.mark.parametrize(
    ("annotations", "name"),
    [({}, "my-service-account"), ({"role-arn": ROLE}, "my-service-account"), ({}, "unknown")],
    ids=["alone", "before the annotation", "of an account that nobody knows yet"],
)
def test_a_pod_identity_association_gives_the_agents_variables_and_no_role(annotations, name):
    spec = associated({"containers": [container()], "initContainers": [container("init")]}, annotations, name=name)
    for made in (*spec["containers"], *spec["initContainers"]):
        assert {each["name"]: each["value"] for each in made["env"]} == STS | REGION | AGENT
        assert made["volumeMounts"] == [AGENT_MOUNT]
    token = {"audience": "pods.eks.amazonaws.com", "expirationSeconds": 86400, "path": "eks-pod-identity-token"}
    assert spec["volumes"] == [
        {"name": "eks-pod-identity-token", "projected": {"sources": [{"serviceAccountToken": token}]}}
    ]


def test_a_pods_own_variables_stay_beside_a_pod_identity_association():
    own = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/own"}
    irsa = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": FILE}
    containers = [container(env=own), container("both", env=irsa), container("skipped")]
    skip = {EKS + "skip-containers": "skipped", EKS + "token-expiration": "3600"}
    spec = associated({"containers": containers}, {}, pod=skip)
    env = [{each["name"]: each["value"] for each in made.get("env", ())} for made in spec["containers"]]
    assert env == [own | STS | REGION, irsa | STS | REGION | AGENT, {}]
    assert spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600


def test_a_pod_gets_nothing_from_another_accounts_pod_identity_association():
    asked = admission_review({"serviceAccountName": "other", "containers": [container()]})
    answer = review(asked, known({}), associated=lambda _namespace, name: name == "my-service-account")
    assert answer["response"] == {"uid": "7", "allowed": True}


names = st.sampled_from(["app", "log", "aws-iam-token", "data", "AWS_ROLE_ARN", "AWS_REGION", "x", ""])
named = st.lists(st.fixed_dictionaries({}, optional={"name": names, "value": st.text(), "mountPath": st.text()}))
maybe = st.none() | named
containers = st.lists(
    st.fixed_dictionaries(
        {"name": names}, optional={"env": maybe, "volumeMounts": maybe, "image": st.text(), "x": st.integers()}
    )
)
marks = st.dictionaries(
    st.sampled_from([EKS + name for name in ("skip-containers", "token-expiration", "role-arn")] + ["a/b", ""]),
    st.text() | st.sampled_from(["app", "app,log", '"app', "60", "1h"]),
)
pods = st.fixed_dictionaries(
    {
        "metadata": st.none() | st.fixed_dictionaries({}, optional={"annotations": st.none() | marks}),
        "spec": st.fixed_dictionaries(
            {"serviceAccountName": st.just("my-service-account")},
            optional={
                "containers": st.none() | containers,
                "initContainers": st.none() | containers,
                "volumes": maybe,
                "nodeSelector": st.none() | st.dictionaries(st.just("kubernetes.io/os"), st.text()),
            },
        ),
    }
)


@given(pods, marks, st.sampled_from(["", "us-east-1"]))
def test_the_patch_only_adds_and_a_second_review_changes_nothing(pod, account, region):
    accounts = known({name.removeprefix(EKS): value for name, value in account.items()} | {"role-arn": ROLE})
    asked = {"request": {"uid": "7", "namespace": "default", "object": pod}}

    first = patched(asked, review(asked, accounts, region=region))

    assert without_additions(first, pod["spec"]) == pod["spec"]
    again = {"request": asked["request"] | {"object": pod | {"spec": first}}}
    assert patched(again, review(again, accounts, region=region)) == first


def without_additions(after, before):
    """`after` without the webhook's additions. It equals `before` unless the webhook dropped something."""
    left = dict(after)
    for field_ in ("containers", "initContainers"):
        if before.get(field_):
            left[field_] = [
                {
                    key: (now[: len(was.get(key) or ())] if was.get(key) is not None else None)
                    if key in ("env", "volumeMounts")
                    else now
                    for key, now in found.items()
                    if key in was
                }
                for found, was in zip(after[field_], before[field_], strict=True)
            ]
    volumes = after["volumes"][len(after["volumes"]) - len(before.get("volumes") or ()) :]
    if before.get("volumes") is None:
        left = {key: value for key, value in left.items() if key != "volumes"} | (
            {"volumes": None} if "volumes" in before else {}
        )
    else:
        left["volumes"] = volumes
    return left


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["request", "object", "spec", "env", "name"]), inner)
    ),
)


@given(st.dictionaries(st.sampled_from(["request", "kind", "apiVersion"]), json_values))
def test_any_json_request_gets_an_answer_without_a_patch(asked):
    answer = review(asked, known({"role-arn": ROLE}))

    assert isinstance(answer["response"]["allowed"], bool)
    assert "patch" not in answer["response"]
