"""Annotating a Deployment's service account with a role, and restarting the Deployment."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.commands import labkit

pytestmark = pytest.mark.kubectl

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/deployed"


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """A shell in which `eval "$(labkit env)"` was run, in a lab of its own."""
    home = {"LABKIT_HOME": str(tmp_path_factory.mktemp("deployment") / ".lab")}
    environment = os.environ | home
    assert labkit("up", **home).returncode == 0
    lines = labkit("env", **home).stdout

    def run(*commands: str, code: int = 0) -> str:
        script = "\n".join((lines, "set -e", *commands))
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        return (done.stdout if code == 0 else done.stderr).strip()

    yield run
    assert labkit("down", **home).returncode == 0


@pytest.fixture(scope="module")
def role(terminal: Callable[..., str]) -> str:
    """Make a role for the service account `deployed` in the namespace `default`; return its ARN."""
    issuer = terminal("aws eks describe-cluster --name blue --query cluster.identity.oidc.issuer --output text")
    provider = issuer.removeprefix("https://")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{provider}"},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {
                    "StringEquals": {
                        f"{provider}:sub": "system:serviceaccount:default:deployed",
                        f"{provider}:aud": "sts.amazonaws.com",
                    }
                },
            }
        ],
    }
    terminal(
        f"aws iam create-open-id-connect-provider --url {issuer} --client-id-list sts.amazonaws.com >&2",
        f"aws iam create-role --role-name deployed --assume-role-policy-document '{json.dumps(trust)}' >&2",
    )
    return ROLE


def test_a_deployment_uses_the_annotated_role_after_a_restart(terminal: Callable[..., str], role: str):
    identity = "aws sts get-caller-identity --query Arn --output text"
    terminal(
        "kubectl create serviceaccount deployed",
        "kubectl create deployment app --image=amazon/aws-cli -- sh -c 'trap exit TERM; sleep infinity & wait'",
        "kubectl set serviceaccount deployment app deployed",
        "kubectl rollout status deployment/app --timeout=60s",
    )
    before = terminal(f"kubectl exec deployment/app -- {identity}", code=255)
    assert "Unable to locate credentials" in before, "without an annotation it has no role"
    terminal("kubectl exec deployment/app -- printenv AWS_ROLE_ARN", code=1)

    shown = terminal(
        f"kubectl annotate serviceaccount deployed eks.amazonaws.com/role-arn={role} >&2",
        "kubectl rollout restart deployment/app",
        "kubectl rollout status deployment/app --timeout=60s",
    )
    assert shown.splitlines()[0] == "deployment.apps/app restarted"
    assert shown.splitlines()[-1] == 'deployment "app" successfully rolled out'
    # The old pod may still be ending, and `exec deployment/app` might choose it.
    terminal("kubectl wait --for=jsonpath={.status.replicas}=1 deployment/app --timeout=60s")
    newest = terminal("kubectl get pods -l app=app --sort-by=.metadata.creationTimestamp -o name").splitlines()[-1]
    assert terminal(f"kubectl exec {newest} -- printenv AWS_ROLE_ARN") == role
    after = terminal(f"kubectl exec {newest} -- {identity}")
    assert after.startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/deployed/")
    assert "Scaled down replica set app-" in terminal("kubectl describe deployment app")
    terminal("kubectl logs deployment/app")


def test_a_deployment_starts_once_its_missing_service_account_exists(terminal: Callable[..., str]):
    terminal(
        "kubectl create deployment late --image=amazon/aws-cli -- sh -c 'trap exit TERM; sleep infinity & wait'",
        "kubectl rollout status deployment/late --timeout=60s",
        "kubectl set serviceaccount deployment late later",
        "kubectl wait --for=condition=ReplicaFailure deployment/late --timeout=60s",
    )
    failed = terminal("kubectl get events --field-selector reason=FailedCreate -o jsonpath={.items[*].message}")
    assert 'error looking up service account default/later: serviceaccount "later" not found' in failed
    terminal("kubectl create serviceaccount later", "kubectl rollout status deployment/late --timeout=60s")
    terminal("kubectl delete deployment late app --ignore-not-found --cascade=foreground --timeout=60s")
    assert terminal("kubectl get pods -o name") == ""
