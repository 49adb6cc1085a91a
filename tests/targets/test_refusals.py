"""How a cluster's refusals are reported, and how the lab waits for a namespace that is being deleted."""

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream

import labkit
from labkit import steps
from labkit.cli import account as account_commands
from labkit.errors import LabError, NotAllowed, answering
from labkit.execution import execute
from labkit.steps import namespace
from labkit.steps.namespace import NamespaceStays

NAME = "ending"
HELD = {"metadata": {"name": "held", "finalizers": ["lab.example/hold"]}}
GIVEN = [f"namespace={NAME}", f"role_name={NAME}", f"bucket={NAME}"]
# Messages of real API servers: the lab's own has no Pod Security, quotas or limit ranges. The last one is the usual
# message of RBAC.
# https://kubernetes.io/docs/tasks/administer-cluster/manage-resources/quota-memory-cpu-namespace/
# https://kubernetes.io/docs/tasks/administer-cluster/manage-resources/memory-constraint-namespace/
REFUSALS = {
    'pods "x" is forbidden: unable to create new content in namespace shop because it is being terminated': (
        "The namespace shop is being deleted",
        "kubectl wait --for=delete namespace/shop",
    ),
    'pods "root-pod" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false '
    '(container "root-pod" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities '
    '(container "root-pod" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container '
    '"root-pod" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "root-pod" must set '
    'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")': (
        "The Pod Security Standard of the namespace shop refuses the pod",
        "kubectl get namespaces -L pod-security.kubernetes.io/enforce",
    ),
    'pods "quota-mem-cpu-demo-2" is forbidden: exceeded quota: mem-cpu-demo, requested: requests.memory=700Mi, used: '
    "requests.memory=600Mi, limited: requests.memory=1Gi": (
        "A quota of the namespace shop refuses the object",
        "kubectl describe resourcequota -n shop",
    ),
    'pods "x" is forbidden: failed quota: compute: must specify limits.cpu for: aws': (
        "A quota of the namespace shop refuses the object",
        "kubectl describe resourcequota -n shop",
    ),
    'pods "constraints-mem-demo-2" is forbidden: maximum memory usage per Container is 1Gi, but limit is 1536Mi.': (
        "A limit range of the namespace shop refuses the object",
        "kubectl describe limitrange -n shop",
    ),
    'admission webhook "policy.example.com" denied the request: no image of Docker Hub': (
        "An admission rule of the cluster refuses the request",
        "kubectl get validatingwebhookconfigurations",
    ),
    'pods is forbidden: User "jane" cannot create resource "pods" in API group "" in the namespace "shop"': (
        "The cluster does not allow this call",
        "kubectl auth can-i --list -n shop",
    ),
}


def refused(said: str) -> ApiException:
    """The error that the Kubernetes client raises for this message."""
    error = ApiException(status=403, reason="Forbidden")
    error.body = json.dumps({"kind": "Status", "message": said, "reason": "Forbidden", "code": 403})
    return error


@pytest.mark.parametrize("said", REFUSALS)
def test_each_kind_of_403_is_reported_with_its_reason_and_its_next_step(said):
    what, next_step = REFUSALS[said]
    with pytest.raises(NotAllowed) as refusal, answering("shop"):
        raise refused(said)
    assert refusal.value.what.startswith(what)
    assert said in refusal.value.what
    assert next_step in refusal.value.next


def test_a_404_of_the_cluster_is_shown_without_http_headers(moto):
    core = CoreV1Api(moto.kubernetes)
    with pytest.raises(ApiException) as raw:
        core.read_namespaced_pod("nobody", "default")
    assert "headers" not in str(raw.value)
    with pytest.raises(LabError) as refusal, answering():
        core.read_namespaced_pod("nobody", "default")
    assert str(refusal.value).startswith('The cluster answers 404: pods "nobody" not found\n')
    assert refusal.value.next


def test_a_refused_exec_is_shown_without_http_headers(moto):
    with pytest.raises(LabError) as refusal, answering():
        stream(CoreV1Api(moto.kubernetes).connect_get_namespaced_pod_exec, "nobody", "default", command=["true"])
    assert str(refusal.value).startswith("The cluster answers as follows: Handshake status 404 Not Found\n")


# A namespace that is being deleted.


@pytest.fixture
def run(moto: labkit.Lab) -> Iterator[SimpleNamespace]:
    """A run whose namespace holds a ConfigMap with a finalizer: it can't be deleted before `release`."""
    with labkit.Lab.open(**dict(each.split("=") for each in GIVEN)) as lab:
        core = CoreV1Api(lab.kubernetes)
        lab.ready(through="service_account")
        core.create_namespaced_config_map(NAME, HELD)

        def release() -> None:
            core.patch_namespaced_config_map("held", NAME, {"metadata": {"finalizers": None}})

        yield SimpleNamespace(lab=lab, core=core, release=release)
        lab.remove()


def test_remove_waits_until_the_namespace_is_gone_and_says_so(run):
    lines = steps.remove(run.lab)
    said = []
    for line in lines:
        said.append(line)
        if line.startswith("waiting at most"):
            assert run.core.read_namespace(NAME).status.phase == "Terminating"
            run.release()
    assert said[-2:] == [f"waiting at most 120 s until the namespace {NAME} is gone …", f"removed namespace {NAME}"]
    assert said.count(f"removed namespace {NAME}") == 1
    assert NAME not in [each.metadata.name for each in run.core.list_namespace().items]


def test_a_namespace_that_stays_is_an_error_after_the_rest_was_removed(run, monkeypatch, capsys):
    monkeypatch.setattr(namespace, "GONE_WITHIN", 1)
    with pytest.raises(NamespaceStays, match=f"The namespace {NAME} was deleted, and still exists after 1 s") as stays:
        account_commands.remove(GIVEN, yes=True)
    assert "configmaps. has 1 resource instances" in stays.value.what
    assert "finalizers remaining: lab.example/hold in 1 resource instances" in stays.value.what
    assert f"kubectl get namespace {NAME} -o yaml" in stays.value.next
    said = capsys.readouterr().out.splitlines()
    assert {f"removed role {NAME}", f"removed bucket {NAME}"} < {*said}
    assert f"removed namespace {NAME}" not in said
    # `ready` raises the same error, not a denial.
    with pytest.raises(NamespaceStays):
        run.lab.ready(through="service_account")
    run.release()
    run.lab.ready(through="service_account")
    assert run.core.read_namespace(NAME).status.phase == "Active"


def test_ready_waits_for_a_namespace_that_is_being_deleted_and_creates_it_again(moto, monkeypatch, capsys):
    monkeypatch.setattr(namespace, "SOON", 0)
    with labkit.Lab.open(**dict(each.split("=") for each in GIVEN)) as lab:
        core = CoreV1Api(lab.kubernetes)
        lab.ready(through="service_account")
        before = core.read_namespace(NAME).metadata.uid
        container = {"name": "app", "image": lab.image, "command": ["sh", "-c", "trap '' TERM; touch up; sleep 600"]}
        spec = {"containers": [container], "terminationGracePeriodSeconds": 4}
        core.create_namespaced_pod(NAME, {"metadata": {"name": "stubborn"}, "spec": spec})
        steps.step("pod").wait_until_running(lab, "stubborn")
        while execute(lab.kubernetes, "stubborn", NAME, ["ls", "up"]).exit_code:
            pass
        core.delete_namespace(NAME)
        capsys.readouterr()
        lab.ready(through="service_account")
        said = capsys.readouterr()
        assert said.out == "Ready: the OIDC provider, the IAM role and the service account exist.\n"
        assert said.err.splitlines() == [f"waiting at most 120 s until the namespace {NAME} is gone …"]
        assert core.read_namespace(NAME).metadata.uid != before
        lab.remove()


def test_a_denial_by_a_service_control_policy_names_the_organizations_admin():
    said = (
        "User: arn:aws:iam::123456789012:user/jane is not authorized to perform: eks:DescribeCluster because no "
        "service control policy allows the eks:DescribeCluster action"
    )
    with pytest.raises(NotAllowed) as caught, answering():
        raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": said}}, "DescribeCluster")
    assert caught.value.what.startswith("The organization's service control policy does not allow DescribeCluster")
    assert "labkit policy" not in caught.value.next and "the organization's administrator" in caught.value.next
