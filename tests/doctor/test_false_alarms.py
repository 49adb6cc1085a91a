"""Unusual setups that work, in a running lab: `labkit doctor` notes them and ends with exit code 0.

And two faults that are hard to see: keys in a Secret, and a token volume that the manifest declares.
"""

import json

import pytest
from kubernetes.client import CoreV1Api

from labkit import steps
from labkit.documents import SLEEP
from labkit.run_parameters import Parameters
from labkit.steps.pod import delete, wait_until_running
from tests.commands import labkit

ACCOUNT = "cart"
OWN = "/etc/token-for-aws"
SKIP = "eks.amazonaws.com/skip-containers"
AUDIENCE = "sts.amazonaws.com"
KEYS = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG"}


@pytest.fixture(scope="module")
def cart(lab):
    """The ARN of a role that admits the service account `cart`, which has no annotation."""
    core, iam = CoreV1Api(lab.kubernetes), lab.aws.client("iam")
    trust = steps.step("iam_role").build(Parameters.checked(service_account=ACCOUNT), lab.provider_arn)
    iam.create_role(RoleName=ACCOUNT, AssumeRolePolicyDocument=json.dumps(trust))
    iam.attach_role_policy(RoleName=ACCOUNT, PolicyArn=lab.parameters.policy_arn)
    core.create_namespaced_service_account("default", {"metadata": {"name": ACCOUNT}})
    return lab.connection.role_arn(ACCOUNT)


@pytest.fixture
def make(lab):
    """A function that makes a pod. The pods are deleted after the test."""
    names = []

    def make(name, account, *, containers=({},), volumes=(), annotations=None):
        own = {"name": "aws", "image": lab.image, "command": SLEEP}
        spec = {"serviceAccountName": account, "containers": [own | each for each in containers], "volumes": volumes}
        metadata = {"name": name, "annotations": annotations}
        names.append(name)
        CoreV1Api(lab.kubernetes).create_namespaced_pod("default", {"metadata": metadata, "spec": spec})
        wait_until_running(lab, name, "default")

    yield make
    for name in names:
        delete(lab, name, "default")


def doctor(account, *options):
    """The command's JSON report, and the findings' ids and severities."""
    done = labkit("doctor", "-s", account, "--json", *options)
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert done.returncode == said["exit_code"]
    return said, [(each["id"], each["severity"]) for each in said["findings"]]


REGION = dict.fromkeys(("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1")


def by_hand(role_arn, audience=AUDIENCE):
    """The parts of a pod's spec that name its role and mount its token without the webhook."""
    token = {"audience": audience, "expirationSeconds": 3600, "path": "token"}
    identity = {"AWS_ROLE_ARN": role_arn, "AWS_WEB_IDENTITY_TOKEN_FILE": f"{OWN}/token"}
    container = {
        # Without the annotation, the webhook adds no region either.
        "env": [{"name": name, "value": value} for name, value in (identity | REGION).items()],
        "volumeMounts": [{"name": "own", "mountPath": OWN}],
    }
    volume = {"name": "own", "projected": {"sources": [{"serviceAccountToken": token}]}}
    return {"containers": [container], "volumes": [volume]}


# Notes.


@pytest.mark.parametrize("account_id", ["", "$(NUMBER)"], ids=["as a value", "by a variable before it"])
def test_a_pod_that_names_its_role_and_mounts_its_token_itself_is_right(lab, cart, make, account_id):
    spec, number = by_hand(cart), lab.account_id
    env = spec["containers"][0]["env"]
    env[0]["value"] = cart.replace(number, account_id or number)
    env.insert(0, {"name": "NUMBER", "value": number})
    make("by-hand", ACCOUNT, **spec)
    for options in ((), ("--probe",)):
        said, findings = doctor(ACCOUNT, *options)
        assert findings == [("pod-names-its-role", "note")]
        assert (said["exit_code"], said["ok"], said["role_arn"]) == (0, True, cart)
    assert {each["result"] for each in said["checks"]} == {"right", "note"}


def test_a_sidecar_that_is_skipped_on_purpose_is_right(make):
    make("two", "my-service-account", containers=[{}, {"name": "proxy"}], annotations={SKIP: "proxy"})
    said, findings = doctor("my-service-account", "--pod", "two", "--probe")
    assert findings == [("pod-container-skipped", "note")]
    assert said["exit_code"] == 0


def test_two_service_accounts_on_one_role_are_right(lab, cart):
    iam = lab.aws.client("iam")
    before = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]
    both = json.dumps(before).replace(f'"{lab.parameters.subject}"', f'["{lab.parameters.subject}", "{other()}"]')
    iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=both)
    try:
        said, findings = doctor("my-service-account")
    finally:
        iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(before))
    assert findings == [("trust-policy-admits-others", "note")]
    assert said["exit_code"] == 0


def other():
    return f"system:serviceaccount:default:{ACCOUNT}"


def test_a_provider_of_an_unknown_cluster_is_only_a_note(lab):
    iam = lab.aws.client("iam")
    url = f"https://oidc.eks.us-east-1.amazonaws.com/id/{'A' * 32}"
    arn = iam.create_open_id_connect_provider(Url=url, ClientIDList=[AUDIENCE])["OpenIDConnectProviderArn"]
    try:
        said, findings = doctor("my-service-account")
    finally:
        iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=arn)
    assert findings == [("oidc-provider-dangling", "note")]
    assert said["exit_code"] == 0
    done = labkit("doctor")
    assert done.returncode == 0, done.stdout


# Faults that are hard to see.


@pytest.mark.kubectl
def test_keys_in_a_secret_are_named_and_the_secret_stays_unchanged(lab, make, shell):
    core = CoreV1Api(lab.kubernetes)
    core.create_namespaced_secret("default", {"metadata": {"name": "ci"}, "stringData": KEYS})
    make("keyed", "my-service-account", containers=[{"envFrom": [{"secretRef": {"name": "ci"}}]}])
    try:
        said, findings = doctor("my-service-account", "--pod", "keyed", "--probe")
        assert (findings, said["exit_code"]) == ([("pod-static-keys", "error")], 1)
        (finding,) = said["findings"]
        assert (
            "InvalidClientTokenId" in finding["found"]
            and "variables that the doctor did not read: Secret ci" in finding["found"]
        )
        assert not any(value in json.dumps(said) for value in KEYS.values())
        _run(shell, finding["repair"], "keyed")
        said, findings = doctor("my-service-account", "--pod", "keyed", "--probe")
        assert (findings, said["exit_code"]) == ([], 0)
        assert {each["result"] for each in said["checks"]} == {"right"}
        assert set(core.read_namespaced_secret("ci", "default").data) == set(KEYS)
    finally:
        core.delete_namespaced_secret("ci", "default")


@pytest.mark.kubectl
def test_the_repair_corrects_a_wrong_token_audience_in_the_manifest(lab, make, shell):
    make("for-vault", "my-service-account", **by_hand(lab.role_arn, "vault"))
    said, findings = doctor("my-service-account", "--pod", "for-vault")
    assert (findings, said["exit_code"]) == ([("token-audience-mismatch", "error")], 1)
    _run(shell, said["findings"][0]["repair"], "for-vault")
    said, findings = doctor("my-service-account", "--pod", "for-vault", "--probe")
    assert (findings, said["exit_code"]) == ([("pod-names-its-role", "note")], 0)
    volumes = CoreV1Api(lab.kubernetes).read_namespaced_pod("for-vault", "default").spec.volumes
    (own,) = [each for each in volumes if each.name == "own"]
    assert own.projected.sources[0].service_account_token.audience == AUDIENCE


def _run(shell, repair, pod):
    done = shell(f"{repair}\nkubectl wait pod/{pod} --for=condition=Ready --timeout=60s")
    assert done.returncode == 0, f"{repair}\n{done.stderr}"
