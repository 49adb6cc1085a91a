"""What the webhook adds to a pod, case by case: annotations and pod go in, what its containers have comes out.

The cases are those of the upstream documentation, source and test data, as of the webhook that EKS runs:
https://github.com/aws/amazon-eks-pod-identity-webhook (README.md, pkg/handler, pkg/cache, pkg/annotations).

What differs from it, on purpose:
- AWS_STS_REGIONAL_ENDPOINTS is injected by default, as EKS configures its webhook (upstream's own default is off).
- An account that is unknown, or known without a role, is asked for at the API before a pod is let through without one;
  upstream asks for an unknown one only, and waits no longer than 100 ms.
- What upstream's Go types do not know (a newer field of a container) is kept, and not dropped.
- A body over 8 MiB is refused, and GET on /mutate is a 405.
Left out, since EKS does not offer it: roles in a ConfigMap (--watch-config-map), and ARNs composed of a role's name
(--compose-role-arn), and the random 79200 to 86400 seconds that the token of Pod Identity may live.
"""

import base64
import json
from dataclasses import dataclass, field

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    options: dict = field(default_factory=dict)  # of the webhook
    defaults: Account = Account()  # what accounts have whose annotations say nothing  # noqa: RUF009
    pod: dict = field(default_factory=dict)  # annotations of the pod
    spec: dict = field(default_factory=lambda: {"containers": [container()]})
    env: dict = field(default_factory=lambda: {"app": ALL})  # by container, in this order
    mounts: dict = field(default_factory=dict)  # by container, where it is not the token's alone
    volumes: list = field(default_factory=lambda: [token_volume()])


EKS = "eks.amazonaws.com/"
PRESET = {"AWS_ROLE_ARN": "a", "AWS_REGION": "b", "AWS_STS_REGIONAL_ENDPOINTS": "c"}
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
    Case("an expiration that is not a number is passed over (account)", account={"token-expiration": "1h"}),
    Case(
        "an expiration that is not a number is passed over (pod)",
        account={"token-expiration": "3600"},
        pod={"token-expiration": "1h"},
        volumes=[token_volume(seconds=3600)],
    ),
    Case(
        "a sign and leading zeros are part of a number",
        account={"token-expiration": "+0003600"},
        volumes=[token_volume(seconds=3600)],
    ),
    Case("an expiration of the minimum", account={"token-expiration": "600"}, volumes=[token_volume(seconds=600)]),
    Case(
        "an expiration of more than a day is passed on: the API server shortens the token",
        account={"token-expiration": "172800"},
        volumes=[token_volume(seconds=172800)],
    ),
    *(
        Case(
            f"an expiration that is not a 64-bit integer is passed over ({value!r})",
            account={"token-expiration": value},
        )
        for value in ("", " 3600", "3600.0", "3_600", "9223372036854775808", "-9223372036854775809", "\u0663600")
    ),
    Case("an empty audience is passed on: the API server's own", account={"audience": ""}, volumes=[token_volume("")]),
    Case("an audience on the pod changes nothing", pod={"audience": "vault"}),
    Case("regional endpoints on the pod change nothing", pod={"sts-regional-endpoints": "false"}),
    *(
        Case(
            f"a role's ARN is injected unchecked: STS judges it ({role!r})",
            account={"role-arn": role},
            env={"app": STS | REGION | {"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": FILE}},
        )
        for role in ("my-role", "arn:aws:iam::123456789012:user/me", " " + ROLE)
    ),
    *(
        Case(
            f"{value!r} turns regional endpoints off",
            account={"sts-regional-endpoints": value},
            env={"app": REGION | IDENTITY},
        )
        for value in ("0", "f", "F", "FALSE", "False")
    ),
    *(
        Case(
            f"{value!r} turns regional endpoints on",
            account={"sts-regional-endpoints": value},
            defaults=Account(sts_regional_endpoints=False),
        )
        for value in ("true", "1", "t", "T", "TRUE", "True")
    ),
    Case("without regional endpoints", account={"sts-regional-endpoints": "false"}, env={"app": REGION | IDENTITY}),
    Case("a word that is not a boolean is passed over", account={"sts-regional-endpoints": "nein"}),
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
        spec={"containers": [container(env=PRESET)]},
        env={"app": PRESET},
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
    Case(
        "another volume at the token's mount path is not looked at: the API server refuses such a pod",
        spec={
            "containers": [container(mounts=[{"name": "data", "mountPath": MOUNT["mountPath"]}])],
            "volumes": [other_volume],
        },
        mounts={"app": [{"name": "data", "mountPath": MOUNT["mountPath"]}, MOUNT]},
        volumes=[token_volume(), other_volume],
    ),
    Case(
        "a token volume of one's own keeps its audience and expiration",
        account={"audience": "vault", "token-expiration": "600"},
        spec={"containers": [container()], "volumes": [token_volume("mine", 7200)]},
        volumes=[token_volume("mine", 7200)],
    ),
    Case(
        "a container that is left alone keeps the others from nothing",
        spec={"containers": [container(env=PRESET), container("second")]},
        env={"app": PRESET, "second": ALL},
        mounts={"app": None},
    ),
    Case(
        "without a region, preset identity and endpoints still leave the mount",
        options={"region": ""},
        spec={"containers": [container(env={"AWS_ROLE_ARN": "a", "AWS_STS_REGIONAL_ENDPOINTS": "c"})]},
        env={"app": {"AWS_ROLE_ARN": "a", "AWS_STS_REGIONAL_ENDPOINTS": "c"}},
    ),
    Case(
        "both region variables that are preset are kept",
        spec={"containers": [container(env={"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"})]},
        env={"app": {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"} | STS | IDENTITY},
    ),
    Case(
        "the default region keeps out the region",
        spec={"containers": [container(env={"AWS_DEFAULT_REGION": "eu-west-1"})]},
        env={"app": {"AWS_DEFAULT_REGION": "eu-west-1"} | STS | IDENTITY},
    ),
    Case(
        "keys of one's own keep out nothing: the SDK takes them before the role",
        spec={"containers": [container(env={"AWS_ACCESS_KEY_ID": "AKIA", "HOME": "/"})]},
        env={"app": {"AWS_ACCESS_KEY_ID": "AKIA", "HOME": "/"} | ALL},
    ),
    Case(
        "envFrom is not looked at",
        spec={"containers": [container(envFrom=[{"configMapRef": {"name": "with-aws-role-arn"}}])]},
    ),
    Case("volumes that are null", spec={"containers": [container()], "volumes": None}),
    Case(
        "variables and mounts that are null", spec={"containers": [container() | {"env": None, "volumeMounts": None}]}
    ),
    Case("the webhook's region", options={"region": ""}, env={"app": STS | IDENTITY}),
    Case("the webhook's audience", defaults=Account(audience="vault"), volumes=[token_volume("vault")]),
    Case(
        "the account's audience wins over the webhook's",
        account={"audience": "mine"},
        defaults=Account(audience="vault"),
        volumes=[token_volume("mine")],
    ),
    Case("the webhook's expiration", defaults=Account(token_expiration=3600), volumes=[token_volume(seconds=3600)]),
    Case(
        "an expiration that cannot be read is the webhook's",
        account={"token-expiration": "1h"},
        pod={"token-expiration": ""},
        defaults=Account(token_expiration=3600),
        volumes=[token_volume(seconds=3600)],
    ),
    Case(
        "the webhook's regional endpoints",
        defaults=Account(sts_regional_endpoints=False),
        env={"app": REGION | IDENTITY},
    ),
    Case(
        "the webhook's mount path",
        options={"mount_path": "/mine/"},
        env={"app": STS | REGION | {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": "/mine/token"}},
        mounts={"app": [MOUNT | {"mountPath": "/mine/"}]},
    ),
    Case(
        "annotations of another prefix say nothing",
        options={"prefix": "example.com"},
        pod={"skip-containers": "app", "token-expiration": "600"},
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
    Case("a list that is not CSV skips nobody", pod={"skip-containers": 'app,"log'}),
    Case("a bare quote is not CSV", pod={"skip-containers": 'app,lo"g'}),
    Case("a name that nobody has skips nobody", pod={"skip-containers": "other"}),
    Case(
        "containers of all kinds may be skipped: the volume is there all the same",
        pod={"skip-containers": "app"},
        env={"app": {}},
        mounts={"app": None},
    ),
    Case("an empty list skips nobody", pod={"skip-containers": ""}),
    Case(
        "init containers and native sidecars get it, too, with all their fields",
        spec={"initContainers": [container("setup"), sidecar], "containers": [container()]},
        env={"setup": ALL, "proxy": ALL, "app": ALL},
    ),
    Case(
        "ephemeral containers are left alone: kubectl debug adds them later, past the webhook",
        spec={"containers": [container()], "ephemeralContainers": [container("debugger")]},
    ),
    Case(
        "fields that are newer than the webhook are kept",
        spec={"containers": [container(restartPolicyRules=[{"action": "Restart"}])]},
    ),
    Case(
        "the security context is left alone: fsGroup, and who may read the token, is the node's affair",
        spec={
            "containers": [container(securityContext={"runAsUser": 1000})],
            "securityContext": {"runAsNonRoot": True},
        },
    ),
    *(
        Case(f"a pod for Windows by {how} is not recognized", spec={"containers": [container()], **spec})
        for how, spec in {
            "its os": {"os": {"name": "windows"}},
            "affinity": {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {
                                    "matchExpressions": [
                                        {"key": "kubernetes.io/os", "operator": "In", "values": ["windows"]}
                                    ]
                                }
                            ]
                        }
                    }
                }
            },
        }.items()
    ),
    Case(
        "a pod for Linux by its node selector",
        spec={"containers": [container()], "nodeSelector": {"kubernetes.io/os": "linux"}},
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


def known(annotations, defaults=None, prefix="eks.amazonaws.com"):
    found = {"annotations": {f"{prefix}/{name}": value for name, value in annotations.items()}}
    account = Account.of({"metadata": found}, defaults=defaults, prefix=prefix)
    return Known({("default", "my-service-account"): account})


def patched(asked, answer):
    patch = json.loads(base64.b64decode(answer["response"]["patch"]))
    return jsonpatch.apply_patch(asked["request"]["object"], patch)["spec"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.says)
def test_what_is_added(case):
    spec = {"serviceAccountName": "my-service-account", **case.spec}
    asked = admission_review(spec, {EKS + name: value for name, value in case.pod.items()})

    options = {"region": "us-east-1"} | case.options
    accounts = known({"role-arn": ROLE} | case.account, case.defaults, options.get("prefix", "eks.amazonaws.com"))
    answer = review(asked, accounts, **options)

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


@pytest.mark.parametrize(
    ("obj", "says"),
    [
        ({"kind": "ConfigMap", "data": {}}, "without a spec"),
        ({"kind": "Service", "spec": {"ports": []}}, "without a service account"),
        ({"kind": "Pod", "metadata": None, "spec": None}, "with nulls"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_object_is_let_through_unchanged(obj, says):
    asked = {"request": {"uid": "7", "namespace": "default", "object": obj}}

    assert review(asked, known({"role-arn": ROLE}))["response"] == {"uid": "7", "allowed": True}


@pytest.mark.parametrize(
    ("asked", "message"),
    [
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
        (
            {"request": {"object": {"spec": {"initContainers": [{"env": [{"name": 1}]}]}}}},
            "request.object.spec.initContainers[0].env[0].name has to be a text",
        ),
        (
            {"request": {"object": {"metadata": {"annotations": {EKS + "skip-containers": ["app"]}}}}},
            "request.object.metadata.annotations.eks.amazonaws.com/skip-containers has to be a text",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_but_a_review_of_a_pod_is_refused(asked, message):
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
    """The spec of a pod whose service account has a Pod Identity association."""
    asked = admission_review({"serviceAccountName": name, **spec}, pod)
    answer = review(asked, known(annotations), region="us-east-1", associated=lambda *whose: whose == ("default", name))
    return patched(asked, answer)


@pytest.mark.parametrize(
    ("annotations", "name"),
    [({}, "my-service-account"), ({"role-arn": ROLE}, "my-service-account"), ({}, "unknown")],
    ids=["alone", "before the annotation", "of an account that nobody knows yet"],
)
def test_an_association_gives_the_agent_s_variables_and_no_role(annotations, name):
    spec = associated({"containers": [container()], "initContainers": [container("init")]}, annotations, name=name)
    for made in (*spec["containers"], *spec["initContainers"]):
        assert {each["name"]: each["value"] for each in made["env"]} == STS | REGION | AGENT
        assert made["volumeMounts"] == [AGENT_MOUNT]
    token = {"audience": "pods.eks.amazonaws.com", "expirationSeconds": 86400, "path": "eks-pod-identity-token"}
    assert spec["volumes"] == [
        {"name": "eks-pod-identity-token", "projected": {"sources": [{"serviceAccountToken": token}]}}
    ]


def test_a_pod_keeps_what_it_says_itself_beside_an_association():
    own = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/own"}
    irsa = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": FILE}
    containers = [container(env=own), container("both", env=irsa), container("skipped")]
    skip = {EKS + "skip-containers": "skipped", EKS + "token-expiration": "3600"}
    spec = associated({"containers": containers}, {}, pod=skip)
    env = [{each["name"]: each["value"] for each in made.get("env", ())} for made in spec["containers"]]
    assert env == [own | STS | REGION, irsa | STS | REGION | AGENT, {}]
    assert spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3600


def test_an_association_of_another_account_is_of_no_account_s_pod():
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
def test_whatever_the_pod_the_patch_applies_adds_only_and_a_second_time_changes_nothing(pod, account, region):
    accounts = known({name.removeprefix(EKS): value for name, value in account.items()} | {"role-arn": ROLE})
    asked = {"request": {"uid": "7", "namespace": "default", "object": pod}}

    first = patched(asked, review(asked, accounts, region=region))

    assert without_additions(first, pod["spec"]) == pod["spec"]
    again = {"request": asked["request"] | {"object": pod | {"spec": first}}}
    assert patched(again, review(again, accounts, region=region)) == first


def without_additions(after, before):
    """`after` without what stands behind (volumes: before) what was there: equal to `before`, or something was lost."""
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
def test_whatever_comes_is_answered(asked):
    answer = review(asked, known({"role-arn": ROLE}))

    assert isinstance(answer["response"]["allowed"], bool)
    assert "patch" not in answer["response"]
