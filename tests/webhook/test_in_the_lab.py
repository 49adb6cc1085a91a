"""The webhook in a lab: what it adds to pods that kubectl creates, and when it adds nothing."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import labkit

pytestmark = pytest.mark.kubectl

LABKIT = Path(sys.executable).with_name("labkit")
ROLE = "arn:aws:iam::123456789012:role/reader"
CONFIGURATION = "mutatingwebhookconfiguration/pod-identity-webhook"
INJECTED = {
    "AWS_STS_REGIONAL_ENDPOINTS": "regional",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_REGION": "us-east-1",
    "AWS_ROLE_ARN": ROLE,
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
}


@pytest.fixture(scope="module")
def kubeconfig(home: Path) -> str:
    done = subprocess.run([LABKIT, "up", "--json"], env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["kubeconfig"]


@pytest.fixture
def kubectl(kubeconfig: str) -> Iterator[Callable[..., str]]:
    """Run kubectl in a namespace of this test's own; `given` documents go to its standard input."""
    namespace = f"webhook-{uuid.uuid4().hex[:8]}"

    def kubectl(*arguments: str, given: list[dict] | None = None) -> str:
        done = subprocess.run(
            ["kubectl", "--kubeconfig", kubeconfig, "--namespace", namespace, *arguments],
            input=None if given is None else yaml.safe_dump_all(given),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    kubectl("create", "namespace", namespace)
    yield kubectl
    kubectl("delete", "namespace", namespace, "--wait=false")


def account(name: str = "reader", **annotations: str) -> dict:
    found = {f"eks.amazonaws.com/{key.replace('_', '-')}": value for key, value in annotations.items()}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "annotations": found}}


def pod(name: str = "app", account: str = "reader", **metadata: object) -> dict:
    """A pod that no node accepts, because these tests only read its spec."""
    spec = {
        "serviceAccountName": account,
        "nodeSelector": {"disk": "none-of-this-lab"},
        "containers": [{"name": "app", "image": "amazon/aws-cli", "command": ["sleep", "infinity"]}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **metadata}, "spec": spec}


def variables(pod: dict) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in pod["spec"]["containers"][0].get("env", ())}


def of(kubectl: Callable[..., str], name: str = "app") -> dict[str, str]:
    return variables(json.loads(kubectl("get", "pod", name, "-o", "json")))


def test_a_pod_gets_the_role_if_one_file_creates_it_and_its_service_account(kubectl):
    pairs = [
        document
        for number in range(20)
        for document in (account(f"reader-{number}", role_arn=ROLE), pod(f"app-{number}", f"reader-{number}"))
    ]
    kubectl("apply", "-f", "-", given=pairs)
    made = json.loads(kubectl("get", "pods", "-o", "json"))["items"]
    assert [variables(found) for found in made] == [INJECTED] * 20


def test_a_pod_gets_the_role_if_one_file_annotates_the_account_and_creates_it(kubectl):
    names = [f"reader-{number}" for number in range(20)]
    kubectl("apply", "-f", "-", given=[account(name) for name in names])
    kubectl(
        *("apply", "-f", "-"),
        given=[document for name in names for document in (account(name, role_arn=ROLE), pod(f"app-{name}", name))],
    )
    made = json.loads(kubectl("get", "pods", "-o", "json"))["items"]
    assert [variables(found) for found in made] == [INJECTED] * 20


def test_an_annotation_after_the_pod_takes_effect_only_in_the_next_pod(kubectl):
    kubectl("apply", "-f", "-", given=[account(), pod()])
    kubectl("annotate", "serviceaccount", "reader", f"eks.amazonaws.com/role-arn={ROLE}")
    assert of(kubectl) == {}
    kubectl("delete", "pod", "app", "--now")
    kubectl("apply", "-f", "-", given=[pod()])
    assert of(kubectl) == INJECTED


def test_a_pod_with_the_skip_label_gets_nothing(kubectl):
    label = {"eks.amazonaws.com/skip-pod-identity-webhook": "true"}
    kubectl("apply", "-f", "-", given=[account(role_arn=ROLE), pod(labels=label), pod("other")])
    assert of(kubectl) == {}
    assert of(kubectl, "other") == INJECTED


def test_a_container_named_in_skip_containers_gets_nothing(kubectl):
    skip = {"eks.amazonaws.com/skip-containers": "app"}
    kubectl("apply", "-f", "-", given=[account(role_arn=ROLE), pod(annotations=skip)])
    assert of(kubectl) == {}


def test_a_dry_run_shows_what_would_be_injected(kubectl):
    kubectl("apply", "-f", "-", given=[account(role_arn=ROLE)])
    shown = kubectl("apply", "-f", "-", "--dry-run=server", "-o", "json", given=[pod()])
    assert variables(json.loads(shown)) == INJECTED
    assert kubectl("get", "pods", "-o", "name") == ""


def test_a_pod_with_a_generated_name_gets_the_role(kubectl):
    kubectl("apply", "-f", "-", given=[account(role_arn=ROLE)])
    asked = pod(generateName="app-")
    del asked["metadata"]["name"]
    made = json.loads(kubectl("create", "-f", "-", "-o", "json", given=[asked]))
    assert made["metadata"]["name"].startswith("app-")
    assert variables(made) == INJECTED


def test_a_webhook_that_does_not_answer_blocks_no_pod(kubectl):
    """With `failurePolicy: Ignore`, as on EKS, the pod is created, and nothing in it says that its role is missing."""
    [webhook] = json.loads(kubectl("get", CONFIGURATION, "-o", "json"))["webhooks"]
    assert webhook["failurePolicy"] == "Ignore"
    kubectl("apply", "-f", "-", given=[account(role_arn=ROLE)])

    point_at(kubectl, "https://127.0.0.1:1/mutate")
    try:
        kubectl("apply", "-f", "-", given=[pod()])
        assert of(kubectl) == {}
    finally:
        point_at(kubectl, webhook["clientConfig"]["url"])

    kubectl("apply", "-f", "-", given=[pod("other")])
    assert of(kubectl, "other") == INJECTED


def test_a_pod_with_a_pod_identity_association_gets_its_role_from_the_agent(kubectl, kubeconfig):
    """The spec names EKS's link-local address. The process gets a loopback address, which the AWS CLI accepts, too."""
    statement = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}}
    policy = {"Version": "2012-10-17", "Statement": [statement | {"Action": ["sts:AssumeRole", "sts:TagSession"]}]}
    namespace = json.loads(kubectl("create", "serviceaccount", "cart", "-o", "json"))["metadata"]["namespace"]
    with labkit.Lab.open() as lab:
        made = lab.aws.client("iam").create_role(RoleName="for-cart", AssumeRolePolicyDocument=json.dumps(policy))
        lab.aws.client("eks").create_pod_identity_association(
            clusterName="blue", namespace=namespace, serviceAccount="cart", roleArn=made["Role"]["Arn"]
        )
    running = pod("cart", "cart")
    running["spec"].pop("nodeSelector")
    kubectl("create", "serviceaccount", "till")
    kubectl("apply", "-f", "-", given=[running, pod("till", "till")])
    kubectl("wait", "--for=condition=Ready", "pod/cart", "--timeout=60s")
    name = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
    assert of(kubectl, "cart")[name] == "http://169.254.170.23/v1/credentials"
    assert of(kubectl, "till") == {}
    assert kubectl("exec", "cart", "--", "printenv", name).startswith("http://127.0.0.1:")
    arn = kubectl("exec", "cart", "--", "aws", "sts", "get-caller-identity", "--query", "Arn", "--output", "text")
    assert arn.startswith("arn:aws:sts::123456789012:assumed-role/for-cart/eks-blue-cart-")


def point_at(kubectl: Callable[..., str], url: str) -> None:
    patch = [{"op": "replace", "path": "/webhooks/0/clientConfig/url", "value": url}]
    kubectl("patch", CONFIGURATION, "--type=json", f"--patch={json.dumps(patch)}")
