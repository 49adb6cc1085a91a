"""However the lab's server ends, the next one has every object, and pods start as after a node's reboot."""

import base64
import copy
import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import httpx
import psutil
import pytest
import yaml
from botocore.exceptions import ClientError
from kubernetes.client import CoreV1Api
from tenacity import Retrying, stop_after_delay, wait_fixed

from labkit import Lab
from labkit.course import progress as kept_progress
from labkit.simulator.folder import Folder
from labkit.simulator.process import State
from tests import commands

CLUSTERS = ("blue", "green")
AUTHENTICATION = "/apis/authentication.k8s.io/v1"
SAYS_SO = "was started again, with everything that was in the lab"
OBJECTS = Path(__file__).with_name("restart_objects.yaml").read_text()


class Api:
    """A cluster's API server, at the address and with the credentials in the kubeconfig."""

    def __init__(self, home: Path, context: str):
        config = yaml.safe_load((home / "kubeconfig").read_text())
        cluster, user = (
            next(entry[kind] for entry in config[f"{kind}s"] if entry["name"] == context)
            for kind in ("cluster", "user")
        )
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        credentials = home.with_name(f"{context}.pem")
        credentials.write_bytes(
            b"".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key"))
        )
        administrator, anybody = (ssl.create_default_context(cadata=authority) for _ in range(2))
        administrator.load_cert_chain(credentials)
        self.http, self._anybody = (
            httpx.Client(base_url=cluster["server"], verify=tls, trust_env=False, timeout=60)
            for tls in (administrator, anybody)
        )

    def get(self, path: str, **query: str):
        return self.http.get(path, params=query).raise_for_status().json()

    def post(self, path: str, document: dict):
        return self.http.post(path, json=document).raise_for_status().json()

    def make(self, document: dict) -> dict:
        """Create the object, in the namespace `ours`."""
        return self.post(self._path(document), document)

    @cached_property
    def lists(self) -> dict[str, tuple[str, str, bool]]:
        """Each kind that can be listed: its group's path, its resource name, and whether it is namespaced."""
        groups = [group["preferredVersion"]["groupVersion"] for group in self.get("/apis")["groups"]]
        return {
            resource["kind"]: (path, resource["name"], resource["namespaced"])
            for path in ["/api/v1", *(f"/apis/{group}" for group in groups)]
            for resource in self.get(path)["resources"]
            if "list" in resource["verbs"]
        }

    def everything(self) -> dict[tuple[str, str, str], dict]:
        """Every object of every kind."""
        return {
            (kind, item["metadata"].get("namespace", ""), item["metadata"]["name"]): item
            for kind, (path, resource, _) in self.lists.items()
            for item in self.get(f"{path}/{resource}")["items"]
        }

    def pods(self) -> dict[str, dict]:
        """The status of each pod."""
        return {pod["metadata"]["name"]: pod["status"] for pod in self.get("/api/v1/pods")["items"]}

    def log(self, pod: str, **query: str) -> str:
        path = f"/api/v1/namespaces/ours/pods/{pod}/log"
        answer = self.http.get(path, params={"container": "c", **query})
        assert answer.is_success, answer.text
        return answer.text.strip()

    def user_of(self, token: str) -> dict:
        """Return the user that the API server sees in this token."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self._anybody.post(
            f"{AUTHENTICATION}/selfsubjectreviews", json=review, headers={"Authorization": f"Bearer {token}"}
        )
        return answer.raise_for_status().json()["status"]["userInfo"]

    def first_event(self, version: str) -> dict:
        """The first event of a ConfigMap watch that starts at this resource version."""
        query = {"watch": "1", "resourceVersion": version}
        with self.http.stream("GET", "/api/v1/namespaces/ours/configmaps", params=query) as answer:
            return json.loads(next(answer.iter_lines()))

    def _path(self, document: dict) -> str:
        path, resource, namespaced = self.lists[document["kind"]]
        return f"{path}/namespaces/ours/{resource}" if namespaced else f"{path}/{resource}"


@pytest.fixture(scope="module")
def made(home: Path) -> Path:
    """A lab with two clusters and all kinds of objects."""
    with Lab.open() as lab:
        lab.ready(through="pod")
        for cluster in CLUSTERS:
            assert commands.labkit("up", "--cluster", cluster).returncode == 0
            for document in yaml.safe_load_all(OBJECTS):
                Api(home, cluster).make(document)
        assert commands.labkit("up", "--cluster", "red").returncode == 0
        lab.aws.client("eks").delete_cluster(name="red")
    return home


def settled(api: Api, restarts: dict[str, int]) -> None:
    """Wait until every pod has ended, or runs and has restarted at least as often as `restarts` says."""
    for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.1), reraise=True):
        with attempt:
            for name, status in api.pods().items():
                assert status["phase"] in ("Succeeded", "Failed") or (
                    all(
                        each["ready"] and each["restartCount"] >= restarts.get(name, 0)
                        for each in status["containerStatuses"]
                    )
                ), name
            for deployment in api.get("/apis/apps/v1/deployments")["items"]:
                assert deployment["status"].get("availableReplicas") == deployment["spec"]["replicas"]


def fixed(objects: dict[tuple[str, str, str], dict]) -> dict[tuple[str, str, str], dict]:
    """The objects without the fields that a reboot of the node changes."""
    objects = copy.deepcopy(objects)
    for (kind, namespace, name), obj in objects.items():
        changes = {
            "Pod": obj.get("status", {}).get("phase") != "Succeeded",
            "Node": name != "elsewhere",
            "Lease": namespace == "kube-node-lease",
        }
        if changes.get(kind, kind in ("Deployment", "ReplicaSet")):
            for changed in ("resourceVersion", "managedFields"):
                obj["metadata"].pop(changed, None)
            obj.pop("status", None)
        if kind == "Lease":
            obj["spec"].pop("renewTime", None)
    return objects


def killed(home: Path) -> None:
    """kill -9"""
    _end(home, signal.SIGKILL)


def terminated(home: Path) -> None:
    """SIGTERM, as when the machine shuts down."""
    _end(home, signal.SIGTERM)


def idle(home: Path) -> None:
    """End as after eight hours without a call. A server of this test's own needs no wait for that."""
    killed(home)
    program = "from labkit.simulator import server; server.IDLE_SECONDS = 0; server.main()"
    reading, writing = os.pipe()
    arguments = [sys.executable, "-c", program, str(home), str(writing)]
    subprocess.run(arguments, pass_fds=[writing], check=True, timeout=120)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"ready\n"


def down(home: Path) -> None:
    """`labkit down`"""
    assert "The lab has ended" in commands.labkit("down").stdout


def _end(home: Path, number: int) -> None:
    server = psutil.Process(State.read(Folder(home)).pid)
    server.send_signal(number)
    psutil.wait_procs([server], timeout=20)
    assert not Folder(home).is_running()


@contextmanager
def opened_again(capsys) -> Iterator[Lab]:
    """Open the lab, which prints one line that says it was restarted."""
    capsys.readouterr()
    with Lab.open() as lab:
        said = capsys.readouterr().out
        assert SAYS_SO in said
        assert "pods of blue, green have started again" in said
        assert said.count("\n") == 1
        yield lab


@pytest.mark.parametrize("end", [killed, terminated, idle, down], ids=lambda end: end.__name__)
def test_every_object_and_pod_is_back_after_the_server_ended(made, end, capsys):
    apis = [Api(made, cluster) for cluster in CLUSTERS]
    for api in apis:
        settled(api, {})
    restarts = [
        {name: pod["containerStatuses"][0]["restartCount"] + 1 for name, pod in api.pods().items()} for api in apis
    ]
    runs = {api: int(api.log("always")) for api in apis}
    before = [api.everything() for api in apis]
    kinds = {kind for kind, _, _ in before[0]}
    assert kinds == apis[0].lists.keys(), "each kind has to be tried"
    with Lab.open() as lab:
        facts = [clusters_facts(lab, cluster) for cluster in CLUSTERS]
        thumbprint = lab.evidence().cluster.issuer.thumbprint
    config = contexts(made)
    end(made)
    with opened_again(capsys) as lab:
        assert [clusters_facts(lab, cluster) for cluster in CLUSTERS] == facts
        assert sorted(lab.aws.client("eks").list_clusters()["clusters"]) == sorted(CLUSTERS)
        assert lab.evidence().cluster.issuer.thumbprint == thumbprint
    assert contexts(made) == config
    for api, objects, restarted in zip(apis, before, restarts, strict=True):
        settled(api, restarted)
        now = fixed(api.everything())
        for key, obj in fixed(objects).items():
            assert now.pop(key) == obj
        assert {kind for kind, _, _ in now} <= {"Event"}
        pods = api.pods()
        for name in ("always", *(name for name in pods if name.startswith("web-"))):
            status = pods[name]["containerStatuses"][0]
            last = status["lastState"]["terminated"]
            assert (last["exitCode"], last["reason"]) == (255, "Unknown")
            assert end is idle or status["restartCount"] == restarted[name]
        assert pods["never-again"]["phase"] == "Failed"
        assert pods["never-again"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 255
        assert api.log("completed") == "said once"
        if end is killed:
            # The volume kept its file, and the log of the run before is still readable.
            assert (int(api.log("always")), int(api.log("always", previous="true"))) == (runs[api] + 1, runs[api])


def clusters_facts(lab: Lab, name: str) -> dict:
    cluster = lab.aws.client("eks").describe_cluster(name=name)["cluster"]
    return {key: cluster[key] for key in ("arn", "identity", "endpoint", "createdAt", "certificateAuthority", "status")}


def contexts(home: Path) -> dict:
    config = yaml.safe_load((home / "kubeconfig").read_text())
    return {key: config[key] for key in ("clusters", "contexts", "current-context")}


def test_tokens_survive_a_kill_but_not_the_deletion_of_their_service_account(made, capsys):
    api, accounts = Api(made, "green"), "/api/v1/namespaces/ours/serviceaccounts"
    pod = api.get("/api/v1/namespaces/ours/pods/always")["metadata"]
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
    bound = {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "always", "uid": pod["uid"]}}
    tokens = [
        api.post(f"{accounts}/bearer/token", {**request, "spec": spec})["status"]["token"] for spec in ({}, bound)
    ]
    secret = api.get("/api/v1/namespaces/ours/secrets/forever")
    tokens.append(base64.b64decode(secret["data"]["token"]).decode())
    users = [api.user_of(token) for token in tokens]
    again = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "again"}}
    uid = api.make(again)["metadata"]["uid"]
    stale = api.post(f"{accounts}/again/token", {**request, "spec": {}})["status"]["token"]
    api.http.delete(f"{accounts}/again").raise_for_status()
    killed(made)
    with opened_again(capsys):
        assert [api.user_of(token) for token in tokens] == users
        assert api.make(again)["metadata"]["uid"] != uid
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            api.user_of(stale)
        new = api.post(f"{accounts}/bearer/token", {**request, "spec": {}})["status"]["token"]
        ids = [user["extra"]["authentication.kubernetes.io/credential-id"] for user in (api.user_of(new), users[0])]
        assert ids[0] != ids[1]


def test_after_a_restart_a_watch_continues_or_gets_an_expired_version_error(made, capsys):
    api = Api(made, "green")

    def version() -> str:
        return api.get("/api/v1/configmaps")["metadata"]["resourceVersion"]

    def config_map(name: str) -> dict:
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}

    before = version()
    made_before = api.make(config_map("before"))
    killed(made)
    with opened_again(capsys):
        now = version()
        assert int(now) >= int(made_before["metadata"]["resourceVersion"])
        api.make(config_map("after"))
        for old in ("2", before):
            gone = api.first_event(old)
            assert (gone["type"], gone["object"]["code"], gone["object"]["reason"]) == ("ERROR", 410, "Expired")
            assert "too old resource version" in gone["object"]["message"]
        event = api.first_event(now)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "after")


def test_a_restored_lab_has_every_object_but_refuses_tokens_from_before(made, monkeypatch):
    """The restored cluster has a new signing key. Its pods run again, with tokens signed by it."""
    apis = [Api(made, cluster) for cluster in CLUSTERS]
    for api in apis:
        settled(api, {})
    before = [api.everything() for api in apis]
    progress = made.with_name("progress.jsonl")
    monkeypatch.setenv("LABKIT_PROGRESS", str(progress))
    kept_progress.kept("opened", "1.1")
    learned = progress.read_bytes()
    with Lab.open() as lab:
        assumed, old = exchanged(lab)
        assert assumed == "AssumedRoleUser"
        facts = [clusters_facts(lab, cluster) for cluster in CLUSTERS]
    forever = ("Secret", "ours", "forever")
    legacy = [base64.b64decode(objects[forever]["data"]["token"]).decode() for objects in before]
    assert commands.labkit("snapshot", "all").returncode == 0
    restored = commands.labkit("restore", "all", "--force", "--yes")
    assert "cluster blue, green" in restored.stdout, restored.stderr
    assert progress.read_bytes() == learned
    with Lab.open() as lab:
        assert exchanged(lab, old)[0] == "InvalidIdentityToken"
        assert exchanged(lab)[0] == "AssumedRoleUser"
        for cluster, was in zip(CLUSTERS, facts, strict=True):
            now = clusters_facts(lab, cluster)
            assert now.pop("certificateAuthority") != was.pop("certificateAuthority")
            assert now == was
    for cluster, objects, token in zip(CLUSTERS, before, legacy, strict=True):
        api = Api(made, cluster)
        settled(api, {"always": 1})
        now = without_secrets(api.everything())
        for key, obj in without_secrets(objects).items():
            assert now.pop(key) == obj
        assert {kind for kind, _, _ in now} <= {"Event"}
        with pytest.raises(httpx.HTTPStatusError, match="401"):
            api.user_of(token)
        filled = base64.b64decode(api.get("/api/v1/namespaces/ours/secrets/forever")["data"]["token"]).decode()
        assert api.user_of(filled)["username"] == "system:serviceaccount:ours:bearer"
        # A snapshot holds no logs, so make the pod print again, for the other tests.
        api.http.delete("/api/v1/namespaces/ours/pods/completed").raise_for_status()
        for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.1), reraise=True):
            with attempt:
                api.make(next(each for each in yaml.safe_load_all(OBJECTS) if each["metadata"]["name"] == "completed"))
    with Lab.open() as lab:
        lab.ready(before="pod")
        lab.ready(through="pod")
        assert lab.check("pod").ok, "the webhook is reached by the new CA"


def exchanged(lab: Lab, token: str = "") -> tuple[str, str]:
    """Exchange this token, or a new one of the lab's service account. Return STS's answer and the token."""
    parameters = lab.parameters
    account = parameters.service_account, parameters.namespace
    spec = {"spec": {"audiences": ["sts.amazonaws.com"]}}
    token = token or CoreV1Api(lab.kubernetes).create_namespaced_service_account_token(*account, spec).status.token
    role = f"arn:aws:iam::{lab.connection.account_id}:role/{parameters.role_name}"
    try:
        answer = lab.aws.client("sts").assume_role_with_web_identity(
            RoleArn=role, RoleSessionName="test", WebIdentityToken=token
        )
    except ClientError as error:
        return error.response["Error"]["Code"], token
    return next(name for name in answer if name == "AssumedRoleUser"), token


def without_secrets(objects: dict[tuple[str, str, str], dict]) -> dict[tuple[str, str, str], dict]:
    """The objects without the values that a restored lab generates or that a reboot changes."""
    objects = fixed(objects)
    for (kind, _, name), obj in objects.items():
        if (kind, name) in {("ConfigMap", "kube-root-ca.crt"), ("Secret", "forever")}:
            obj["metadata"].pop("resourceVersion")
            obj["metadata"].pop("managedFields", None)
            assert obj["data"].pop("ca.crt")
            obj["data"].pop("token", None)
        if (kind, name) == ("MutatingWebhookConfiguration", "pod-identity-webhook"):
            obj["metadata"] = {key: obj["metadata"][key] for key in ("name", "uid", "creationTimestamp")}
            for webhook in obj["webhooks"]:
                assert webhook["clientConfig"].pop("caBundle")
    return objects


@pytest.mark.parametrize(("file", "damage", "says"), [
    ("clusters/serials.db", "PRAGMA user_version = 99", "Another version of labkit made this lab"),
    ("clusters/serials.db", "", "The lab's state is damaged"),
    ("clusters/blue/cluster.json", "", "The record of a cluster cannot be read"),
])  # fmt: skip
def test_up_refuses_unreadable_state_and_suggests_reset(tmp_path, file, damage, says):
    kept = tmp_path / ".lab" / file
    kept.parent.mkdir(parents=True)
    if damage:
        with sqlite3.connect(kept) as database:
            database.execute(damage)
        database.close()
    else:
        kept.write_bytes(b"{nothing that anybody can read}" * 100)
    home = {"LABKIT_HOME": str(tmp_path / ".lab")}
    refused = commands.labkit("up", **home)
    assert refused.returncode != 0
    assert says in refused.stderr
    assert str(kept) in refused.stderr
    assert "next:  labkit reset" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert commands.labkit("reset", **home).returncode == 0
    assert not kept.exists()


def test_up_names_the_unreadable_record_and_its_file_and_suggests_reset(labkit):
    """Such as records of another version, or damaged ones, in a file whose layout is known."""
    labkit("up")
    labkit("down")
    unknown = "INSERT INTO objects VALUES ('gizmos', 'ours', 'one', '{}')"
    for file, change, says in (
        ("clusters/blue/objects.db", unknown, "the object one (gizmos) in ours cannot be read: KeyError: 'gizmos'"),
        ("clusters/blue/objects.db", "DROP TABLE objects", "The lab's state is damaged: no such table: objects"),
        ("aws-own.db", "UPDATE parts SET state = x'00'", "in this lab cannot be read: JSONDecodeError"),
        (
            "aws.db",
            "UPDATE objects SET content = x'00' WHERE class = 'iam.models:IAMBackend'",
            "the AWS state of this lab cannot be read",
        ),
    ):
        kept = labkit.folder.path / file
        before = {each: each.read_bytes() for each in kept.parent.glob(f"{kept.name}*")}
        with sqlite3.connect(kept) as database:
            database.execute(change)
        database.close()
        refused = labkit("up", fails=True)
        assert says in refused
        assert f"where: {kept}" in refused
        assert "next:  labkit reset, which empties the lab" in refused
        for each in kept.parent.glob(f"{kept.name}*"):
            each.unlink()
        for each, content in before.items():
            each.write_bytes(content)
    assert "The lab is up" in labkit("up")
