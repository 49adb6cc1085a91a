"""kubectl as you type it on a lab, after `eval "$(labkit env)"`: its output and its exit code."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import labkit
from tests.simulator.kubernetes.node_kubectl import OUTRUN

pytestmark = pytest.mark.kubectl

LABKIT = Path(sys.executable).with_name("labkit")
ROLE = "arn:aws:iam::123456789012:role/reader"
POD = """
apiVersion: v1
kind: Pod
metadata: {name: app, labels: {app: app}}
spec:
  serviceAccountName: app
  terminationGracePeriodSeconds: 1
  containers:
  - {name: app, image: amazon/aws-cli, command: [sh, -c, echo hello; exec sleep 3600]}
"""
CRASHES = POD.replace("name: app, labels", "name: crashes, labels").replace(
    "echo hello; exec sleep 3600", "echo no; exit 4"
)

AGE = r"(?:(?:\d+m)?\d+s|\d+m)"  # as kubectl shows it in the first hour

Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, home: Path) -> dict[str, str]:
    """A terminal's variables after `eval "$(labkit env)"`."""
    labkit.Lab.open().close()
    lines = subprocess.run([LABKIT, "env"], check=True, capture_output=True, text=True).stdout
    shown = subprocess.run(["sh", "-c", 'eval "$1"; env -0', "sh", lines], check=True, capture_output=True, text=True)
    variables = dict(line.split("=", 1) for line in shown.stdout.split("\0") if line)
    return variables | {"HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.fixture(scope="module")
def kubectl(environment: dict[str, str]) -> Kubectl:
    def run(line: str, given: str = "", code: int = 0) -> str:
        """Return what `kubectl LINE` prints, on either stream."""
        command = ["kubectl", *shlex.split(line)]
        done = subprocess.run(
            command,
            env=environment,
            input=given,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        assert done.returncode == code, f"{line}: {done.returncode}\n{done.stdout}"
        return OUTRUN.sub("", done.stdout)

    return run


@pytest.fixture(scope="module")
def namespace(kubectl: Kubectl) -> str:
    """The current namespace, with a service account and a running pod of it."""
    kubectl("create namespace shop")
    kubectl("config set-context --current --namespace shop")
    kubectl("create serviceaccount app")
    kubectl("create serviceaccount other")
    kubectl("annotate serviceaccount other note=one")
    kubectl("create configmap settings --from-literal=color=blue")
    kubectl(f"annotate serviceaccount app eks.amazonaws.com/role-arn={ROLE}")
    kubectl("apply -f -", given=POD)
    kubectl("wait --for=condition=Ready pod/app --timeout=30s")
    yield "shop"
    kubectl("config set-context --current --namespace default")
    kubectl("delete namespace shop")


# A line, a pattern that its whole output must match, and its exit code if that isn't 0.
LINES = [
    ("create namespace shop --dry-run=server",
     r"Error from server \(AlreadyExists\): namespaces \"shop\" already exists", 1),
    ("create serviceaccount another", r"serviceaccount/another created"),
    ("create token app --audience sts.amazonaws.com --duration 15m", r"[\w-]+\.[\w-]+\.[\w-]+"),
    ("create token app --duration 1m", r".*spec\.expirationSeconds: Invalid value: 60: may not specify a duration.*",
     1),
    ("create token nobody", r'error: failed to create token: serviceaccounts "nobody" not found', 1),
    ("create configmap colors --from-literal=color=blue", r"configmap/colors created"),
    ("create secret generic hidden --from-literal=key=value", r"secret/hidden created"),
    ("annotate sa other more=one", r"serviceaccount/other annotated"),
    ("annotate sa other note=two", r"error: --overwrite is false but found the following declared annotation.*", 1),
    ("annotate sa other note=one --overwrite", r"serviceaccount/other annotated"),
    ("label sa other team=a", r"serviceaccount/other labeled"),
    ("label sa app team-", r'label "team" not found\.\nserviceaccount/app labeled'),
    ("get sa other -o jsonpath={.metadata.annotations.note}", r"one"),
    ("get pods", rf"NAME +READY +STATUS +RESTARTS +AGE\napp +1/1 +Running +0 +{AGE}"),
    ("get pods -o wide", r"NAME .* NODE +NOMINATED NODE .*\napp .* blue-node-1 .*"),
    ("get pods -o name", r"pod/app"),
    ("get pods --show-labels --no-headers", rf"app +1/1 +Running +0 +{AGE} +app=app"),
    ("get pods -L app -l app=app --no-headers", r"app +1/1 .* app"),
    ("get pods -l app=other", r"No resources found in shop namespace\."),
    ("get pods --field-selector spec.serviceAccountName=app -o name", r"pod/app"),
    ("get pods -A --no-headers", r"(?s).*shop +app +1/1 .*"),
    ("get pods -o custom-columns=NAME:.metadata.name,ACCOUNT:.spec.serviceAccountName", r"NAME +ACCOUNT\napp +app"),
    ("get pods -o 'go-template={{len .items}}'", r"1"),
    ("get pod app -o yaml", r"(?s)apiVersion: v1\nkind: Pod\nmetadata:.*serviceAccountName: app.*"),
    ("get pod app -o json", r'(?s)\{\n    "apiVersion": "v1",\n    "kind": "Pod".*'),
    ("get pod app -o jsonpath={.spec.serviceAccountName}", r"app"),
    ("get nothing", r"error: the server doesn't have a resource type \"nothing\"", 1),
    ("get pod nothing", r'Error from server \(NotFound\): pods "nothing" not found', 1),
    ("get pods,sa,cm --sort-by=.metadata.name -o name",
     r"(?s).*pod/app\n.*serviceaccount/default\n.*configmap/settings(\n.*)?"),
    ("describe pod app", rf"(?s)Name: +app\n.*Service Account: +app\n.*AWS_ROLE_ARN: +{ROLE}\n.*Started .*kubelet .*"),
    ("describe sa app", rf"(?s)Name: +app\nNamespace: +shop\n.*Annotations: +eks.amazonaws.com/role-arn: {ROLE}\n.*"),
    ("describe node blue-node-1",
     r"(?s)Name: +blue-node-1\n.*Conditions:.*Ready +True .*Non-terminated Pods: .*app .*"),
    ("describe namespace shop", r"(?s)Name: +shop\n.*Status: +Active\b.*"),
    ("logs app", r"hello"),
    ("logs app --tail=0", r""),
    ("logs app --timestamps", r"\d{4}-\d\d-\d\dT[\d:.]+Z hello"),
    ("logs app --previous",
     r'Error from server \(BadRequest\): previous terminated container "app" in pod "app" not found', 1),
    ("logs app -c other", r"error: container other is not valid for pod app", 1),
    ("exec app -- sh -c 'echo $AWS_ROLE_ARN'", re.escape(ROLE)),
    ("exec app -- sh -c 'exit 7'", r"command terminated with exit code 7", 7),
    ("exec app -- nothing",
     r'(?s)error: Internal error occurred: .*exec: "nothing": executable file not found in \$PATH.*', 1),
    ("exec nothing -- true", r'Error from server \(NotFound\): pods "nothing" not found', 1),
    ("wait --for=delete pod/nothing", r""),
    ("wait --for=jsonpath={.status.phase}=Running pod/app", r"pod/app condition met"),
    ("wait --for=condition=Ready=false pod/app --timeout=1s", r"error: timed out waiting for the condition on pods/app",
     1),
    ("auth whoami -o jsonpath={.status.userInfo.username}", r"kubernetes-admin"),
    ("auth can-i create pods", r"yes"),
    ("auth can-i list secrets --as system:serviceaccount:shop:app", r"no", 1),
    ("get secrets --as system:serviceaccount:shop:app",
     r'Error from server \(Forbidden\): secrets is forbidden: User "system:serviceaccount:shop:app" cannot list'
     r' resource "secrets" in API group "" in the namespace "shop"', 1),
    ("api-resources --api-group=apps", r"(?s)NAME .*\ndeployments +deploy +apps/v1 +true +Deployment\n.*"),
    ("api-versions", r"(?s).*apps/v1\n.*v1"),
    ("version", r"(?s)Client Version: .*Server Version: v1\.36\..*"),
    ("cluster-info", r"(?s).*Kubernetes control plane.* is running at .*https://127\.0\.0\.1:\d+.*"),
    ("get svc -n default", rf"NAME .*\nkubernetes +ClusterIP +127\.0\.0\.1 +<none> +\d+/TCP +{AGE}"),
    ("create service clusterip web --tcp=80",
     r"Warning: this lab has no Service network: nothing answers at a Service's address; .*\nservice/web created"),
    ("delete service web", r'service "web" deleted'),
    ("get events --field-selector involvedObject.name=app", r"(?s)LAST SEEN +TYPE +REASON .*Scheduled .*Started .*"),
    ("delete configmap settings", r'configmap "settings" deleted( from shop namespace)?'),
    ("delete sa nothing", r'Error from server \(NotFound\): serviceaccounts "nothing" not found', 1),
    ("delete sa nothing --ignore-not-found", r""),
]  # fmt: skip


NO_SERVICE, SERVICE = "delete service web --ignore-not-found", "create service clusterip web --tcp=80"
SETTINGS = ["delete configmap settings --ignore-not-found", "create configmap settings --from-literal=color=blue"]
# Commands typed before a line, so that each line can be tested alone and in any order.
TYPED_BEFORE = {
    SERVICE: [NO_SERVICE],
    "delete service web": [NO_SERVICE, SERVICE],
    "get pods,sa,cm --sort-by=.metadata.name -o name": SETTINGS,
    "delete configmap settings": SETTINGS,
}


@pytest.mark.parametrize("row", LINES, ids=[row[0] for row in LINES])
def test_kubectl_answers_a_typed_line(kubectl: Kubectl, namespace: str, row: tuple):
    line, pattern, *code = row
    for before in TYPED_BEFORE.get(line, []):
        kubectl(before)
    said = kubectl(line, code=code[0] if code else 0)
    shown = "\n".join(
        text for text in said.rstrip("\n").split("\n") if not text.startswith("WARNING: version difference")
    )
    assert re.fullmatch(pattern, shown), said


def test_kubectl_exec_passes_standard_input_to_the_program(kubectl: Kubectl, namespace: str):
    assert kubectl("exec -i app -- cat", given="one\ntwo\n") == "one\ntwo\n"


def test_kubectl_apply_reports_created_configured_or_unchanged(kubectl: Kubectl, namespace: str):
    account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: applied, labels: {a: '%s'}}\n"
    assert kubectl("apply -f -", given=account % 1) == "serviceaccount/applied created\n"
    assert kubectl("apply -f -", given=account % 1) == "serviceaccount/applied unchanged\n"
    assert kubectl("apply -f -", given=account % 2) == "serviceaccount/applied configured\n"
    assert kubectl("apply --server-side --force-conflicts -f -", given=account % 3).endswith("serverside-applied\n")
    assert re.search(r"-\s+a: \"?3.*\n\+\s+a: \"?4", kubectl("diff -f -", given=account % 4, code=1))
    assert kubectl("get sa applied -o jsonpath={.metadata.labels.a}") == "3"
    refused = kubectl("apply -f -", given=account.replace("labels", "lables") % 5, code=1)
    assert 'strict decoding error: unknown field "metadata.lables"' in refused


def test_kubectl_run_waits_for_the_program_and_returns_its_exit_code(kubectl: Kubectl, namespace: str):
    run = "run once --image=amazon/aws-cli --restart=Never --rm -i --quiet --command -- "
    assert kubectl(f"{run} cat", given="given\n").startswith("given\n")
    kubectl(f"{run} sh -c 'exit 3'", code=3)
    assert kubectl("get pod once", code=1) == 'Error from server (NotFound): pods "once" not found\n'


def test_kubectl_run_gives_an_image_s_entrypoint_only_the_arguments(kubectl: Kubectl, namespace: str):
    for name, image, arguments in (("python", "python:3", "sh -c 'echo hi'"), ("aws", "amazon/aws-cli", "--version")):
        kubectl(f"run {name} --image={image} --restart=Never -- {arguments}")
    kubectl("wait --for=jsonpath={.status.phase}=Succeeded pod/python pod/aws --timeout=30s")
    assert kubectl("logs python") == "hi\n"
    assert kubectl("logs aws").startswith("aws-cli/")


def test_kubectl_shows_a_crashing_container_s_state_and_earlier_log(kubectl: Kubectl, namespace: str):
    kubectl("apply -f -", given=CRASHES)
    status = "{.status.containerStatuses[0].state.waiting.reason}"
    kubectl(f"wait --for=jsonpath={status}=CrashLoopBackOff pod/crashes --timeout=30s")
    assert re.search(rf"crashes +0/1 +CrashLoopBackOff +1 \({AGE} ago\)", kubectl("get pods"))
    assert kubectl("logs crashes --previous") == "no\n"
    described = kubectl("describe pod crashes")
    assert re.search(r"Last State: +Terminated\n +Reason: +Error\n +Exit Code: +4\n", described)
    assert "Back-off restarting failed container app in pod crashes_shop(" in described
    assert kubectl("delete pod crashes --now") == 'pod "crashes" deleted\n'


def test_a_deployment_gets_the_annotated_role_only_after_a_restart(kubectl: Kubectl, namespace: str):
    kubectl("create serviceaccount web")
    kubectl("create deployment web --image=amazon/aws-cli --replicas=2 -- sleep 3600")
    kubectl("set serviceaccount deployment web web")
    assert 'deployment "web" successfully rolled out' in kubectl("rollout status deployment web --timeout=60s")
    assert kubectl("exec deploy/web -- sh -c 'echo role: $AWS_ROLE_ARN'") == "role:\n"
    kubectl(f"annotate sa web eks.amazonaws.com/role-arn={ROLE}")
    assert kubectl("exec deploy/web -- sh -c 'echo role: $AWS_ROLE_ARN'") == "role:\n"
    assert kubectl("rollout restart deployment web") == "deployment.apps/web restarted\n"
    assert 'deployment "web" successfully rolled out' in kubectl("rollout status deployment web --timeout=60s")
    assert kubectl("exec deploy/web -- sh -c 'echo role: $AWS_ROLE_ARN'") == f"role: {ROLE}\n"
    assert re.search(rf"web +2/2 +2 +2 +{AGE}", kubectl("get deployment web"))
    assert kubectl("delete deployment web") == 'deployment.apps "web" deleted\n'
    kubectl("wait --for=delete pod -l app=web --timeout=60s")


def test_kubectl_exec_works_in_a_real_terminal(environment: dict[str, str], namespace: str):
    """`script` provides the terminal. The program sees it and reads from it; kubectl returns its exit code."""
    line = "kubectl exec -it app -- sh -c 'test -t 0 && echo terminal && read answer && echo got $answer && exit 5'"
    command = ["script", "--quiet", "--return", "--command", line, "/dev/null"]
    done = subprocess.run(
        command, env=environment | {"TERM": "xterm"}, input="yes\n", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 5, done.stdout
    assert "terminal\n" in done.stdout
    assert "got yes\n" in done.stdout
