"""`make soak`: many learners at one lab, while its clock jumps, keys rotate, and pods and the server are killed.

Every answer is compared with the expected one. In the end, everything that the learners made must still exist, with
the same ids. Nothing may leak: processes, descriptors, files and memory are as before.
"""

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import psutil
from botocore.exceptions import ClientError
from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from tenacity import Retrying, stop_after_delay, wait_fixed

from labkit import documents, execution, simulator
from labkit.run_parameters import Parameters
from labkit.simulator import Folder
from tests import commands
from tests.soaked_lab import AUDIENCE, BUCKET, Measure, TheLab, is_cut_off, processes

SERVICE_ACCOUNT = "app"
UNSURE = 60  # seconds around an expiry in which either answer is right
GROWTH = 48  # MiB that the server may grow after the first quarter of the time: filling caches, and the allocator
# Descriptors for the connections that the node, the webhook and the API server keep to each other. Each keeps 20 at
# most, and both ends count: https://www.python-httpx.org/advanced/resource-limits/
SPARE = 3 * 20 * 2
WRITERS = 4


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--learners", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000))
    parser.add_argument("--kill", action="store_true", help="kill and start the server, too: its state has to survive")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="labkit-soak-") as place:
        report = soak(
            Folder(Path(place) / ".lab"),
            seconds=options.minutes * 60,
            learners=options.learners,
            seed=options.seed,
            kill=options.kill,
        )
    print(report)
    return bool(report.wrong)


@dataclass
class Report:
    """The result of a round."""

    seed: int
    learners: int
    seconds: float = 0
    answers: Counter[str] = field(default_factory=Counter)
    measured: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.learners} learners, {self.seconds:.0f} s, seed {self.seed}: {self.answers.total()} answers"]
        lines += [f"  {count:6}  {name}" for name, count in sorted(self.answers.items())]
        lines += [f"  {name}: {value}" for name, value in self.measured.items()]
        lines += [f"  WRONG: {one}" for one in self.wrong[:40]]
        return "\n".join([*lines, f"{len(self.wrong)} wrong"])

    def expect(self, name: str, expected: str, came: str) -> None:
        """Count an answer. It is wrong if it differs from the expected one."""
        self.answers[f"{name}: {came}"] += 1
        if came != expected:
            self.wrong.append(f"{name}: expected {expected}, and the answer was {came}")


def soak(folder: Folder, *, seconds: float, learners: int, seed: int, kill: bool = False) -> Report:
    """Run one round in an empty lab, and end the lab."""
    report = Report(seed, learners)
    os.environ["LABKIT_HOME"] = str(folder.path)
    try:
        _round(report, folder, seconds, learners, kill)
    finally:
        left = processes(folder)
        simulator.stop(folder)
    if alive := psutil.wait_procs(left, timeout=10)[1]:
        report.wrong.append(f"the lab has ended, and these are alive: {alive}")
    return report


def _round(report: Report, folder: Folder, seconds: float, count: int, kill: bool) -> None:
    commands.labkit("up")
    lab = TheLab(folder, kill)
    before = Measure.of(folder)
    learners = [Learner(f"learner-{number:02}", lab, report, f"{report.seed}/{number}") for number in range(count)]
    with ThreadPoolExecutor(count + 1 + WRITERS) as pool:
        list(pool.map(Learner.begin, learners))
        began, loaded = time.monotonic(), None
        for until in (began + seconds / 4, began + seconds):
            ends = threading.Event()
            trouble = pool.submit(_trouble, lab, learners, report, ends)
            writers = [pool.submit(lab.write, number, ends) for number in range(WRITERS if kill else 0)]
            list(pool.map(lambda learner, until=until: learner.learn(until), learners))
            ends.set()
            for each in (trouble, *writers):
                each.result()
            loaded = loaded or Measure.of(folder)
        busy, report.seconds = Measure.of(folder), time.monotonic() - began
        list(pool.map(Learner.finds_all, learners))
        list(pool.map(Learner.leave, learners))
    lab.close()
    report.measured["server, at first / under load / in the end"] = f"{before} / {loaded} / {busy}"
    if not kill and busy.memory - loaded.memory > GROWTH:
        report.wrong.append(f"memory grew from {loaded.memory} to {busy.memory} MiB")
    _leaks(report, folder, before)


def _leaks(report: Report, folder: Folder, before: "Measure") -> None:
    """Report what is left once the learners have gone. A node takes a moment to end the last pod."""
    after, descriptors = before, before.descriptors + SPARE
    with contextlib.suppress(AssertionError):
        for attempt in Retrying(stop=stop_after_delay(30), wait=wait_fixed(0.2), reraise=True):
            with attempt:
                after = Measure.of(folder)
                assert after.processes <= before.processes
                assert after.descriptors <= descriptors
                assert after.pods == 0
    report.measured["when the learners had gone"] = str(after)
    for name, most in (("processes", before.processes), ("descriptors", descriptors), ("pods", 0)):
        if (count := getattr(after, name)) > most:
            report.wrong.append(f"{count} {name} are left, at most {most} may be: {processes(folder)[1:]}")
    for file in [*folder.path.rglob("*.new"), *folder.path.rglob(".*.????????")]:
        report.wrong.append(f"a draft is left: {file}")


def _trouble(lab: TheLab, learners: "list[Learner]", report: Report, ends: threading.Event) -> None:
    """Make trouble while the learners work: the clock jumps, the issuer fails, or the server is killed."""
    drawn = random.Random(report.seed)
    while not ends.wait(drawn.uniform(1, 4)):
        what = drawn.choice(["the clock jumps", "the issuer fails", *(["the server is killed"] if lab.kill else [])])
        report.answers[f"trouble: {what}"] += 1
        if what == "the clock jumps":
            with lab.alone():
                lab.folder.clock.advance(minutes=drawn.uniform(5, 100))
        elif what == "the issuer fails":
            learner = drawn.choice(learners)
            override = lab.folder.published.override(lab.issuer, "keys")
            with lab.alone():
                token = learner.fresh_token()
                override.set(500, "")
                learner.exchange_of(token, "InvalidIdentityToken" if learner.trusted else "AccessDenied, or that")
                override.clear()
                learner.exchange_of(token, "accepted" if learner.trusted else "AccessDenied")
        else:
            _kill(lab)
            with lab.alone():
                written, before = [*lab.written], lab.lists()
                _kill(lab)
                after = lab.lists()
            for service, entries in before.items():
                same = json.dumps(entries, default=str) == json.dumps(after[service], default=str)
                report.expect(f"the list of {service} after a kill", "the same", "the same" if same else "another")
            users = {user["UserName"] for user in after["iam"]}
            lost = [name for name in written if name not in users]
            report.expect("what four writers made", "all", "all" if not lost else f"without {lost}")


def _kill(lab: TheLab) -> None:
    processes(lab.folder)[0].kill()
    simulator.start(lab.folder)


class Learner:
    """One learner: the resources made, their present state, and the answers that follow from it."""

    def __init__(self, name: str, lab: TheLab, report: Report, seed: str) -> None:
        self.name, self.lab, self.report = name, lab, report
        self.drawn = random.Random(seed)
        self.parameters = Parameters.checked(namespace=name, service_account=SERVICE_ACCOUNT, role_name=name)
        self.role_arn = f"arn:aws:iam::{lab.account}:role/{name}"
        self.api = config.new_client_from_config(str(lab.state.kubeconfig))
        self.core = client.CoreV1Api(self.api)
        self.key = f"{name}/hello.txt"
        self.content = ""
        self.trusted = self.reads = self.annotated = True
        self.pod: dict[str, Any] = {}
        self.injected = False
        self.killed = False
        self.credentials: dict[str, Any] = {}
        self.access_key: dict[str, str] = {}
        self.uids: dict[str, str] = {}

    def begin(self) -> None:
        """Make everything, and start the pod."""
        self.core.create_namespace({"metadata": {"name": self.name}})
        account = documents.service_account(self.parameters, self.role_arn)
        made = self.core.create_namespaced_service_account(self.name, account)
        self.uids["service account"] = made.metadata.uid
        trust = json.dumps(self._trust(self.name))
        made = self.lab.iam.create_role(RoleName=self.name, AssumeRolePolicyDocument=trust)
        self.uids["role"] = made["Role"]["RoleId"]
        self.set_policy("Allow")
        self.write()
        self.lab.iam.create_user(UserName=self.name)
        self.rotate()
        self.run()

    def learn(self, until: float) -> None:
        """Do one random thing after another until the time is up."""
        often = {self.read: 8, self.exchange: 6, self.exec: 4, self.write: 3, self.forge: 3, self.annotate: 2}
        seldom = {self.break_: 3, self.mend: 4, self.rotate: 1, self.run: 1, self.lose_the_pod: 1, self.look_around: 1}
        doing = often | seldom
        while time.monotonic() < until and len(self.report.wrong) < 100:
            does = self.drawn.choices([*doing], [*doing.values()])[0]
            with self.lab.together():
                try:
                    self.lab.settled(does)
                except Exception as error:
                    self.report.wrong.append(f"{self.name} {does.__name__}: {type(error).__name__}: {error}"[:600])

    def write(self) -> None:
        content = str(self.drawn.random())
        self.lab.settled(lambda: self.lab.s3.put_object(Bucket=BUCKET, Key=self.key, Body=content.encode()))
        self.content = content

    def read(self) -> None:
        """GetObject with the role session of the last exchange."""
        if not self.credentials:
            return
        expected = "accepted" if self.reads else "AccessDenied"
        left = self.credentials["Expiration"].timestamp() - self.lab.folder.clock.now()
        if abs(left) < UNSURE:
            return
        with closing(self.lab.client("s3", self.credentials)) as s3:
            try:
                came, body = "accepted", s3.get_object(Bucket=BUCKET, Key=self.key)["Body"].read().decode()
            except ClientError as error:
                came, body = error.response["Error"]["Code"], self.content
                if is_cut_off(error):
                    raise ConnectionError(str(error)) from error
        self.report.expect("read", expected if left > 0 else "ExpiredToken", came)
        if body != self.content:
            self.report.wrong.append(f"{self.name} read {body}, and wrote {self.content}")

    def exchange(self) -> None:
        """Exchange a new token of the service account or, sometimes, the one that the webhook gave the pod."""
        token = self.token_of_the_pod() if self.injected and self.drawn.random() < 0.3 else self.fresh_token()
        left = self._claims(token)["exp"] - self.lab.folder.clock.now()
        if abs(left) < UNSURE:
            return
        allowed = "accepted" if self.trusted else "AccessDenied"
        self.exchange_of(token, allowed if left > 0 else "ExpiredTokenException")

    def exchange_of(self, token: str, expected: str, role_arn: str = "") -> None:
        try:
            answer = self.lab.sts.assume_role_with_web_identity(
                RoleArn=role_arn or self.role_arn, RoleSessionName=self.name, WebIdentityToken=token
            )
            came, self.credentials = "accepted", answer["Credentials"]
        except ClientError as error:
            came = error.response["Error"]["Code"]
        if expected == "AccessDenied, or that":
            expected = came if came in ("AccessDenied", "InvalidIdentityToken") else "a refusal"
        self.report.expect("exchange", expected, came)

    def exec(self) -> None:
        """Check that the role and the token in the pod are this learner's."""
        said = self._executed('echo "$AWS_ROLE_ARN"')
        expected = self.role_arn if self.injected else ""
        self.report.expect("exec", "its role", "its role" if said.strip() == expected else said)
        if self.injected:
            claims = self._claims(self.token_of_the_pod())
            whose = (claims["sub"], claims["iss"], claims["kubernetes.io"]["pod"]["uid"])
            own = (self.parameters.subject, self.lab.issuer, self.pod["uid"])
            self.report.expect("token", "its own", "its own" if whose == own else str(whose))

    def forge(self) -> None:
        """Check that calls which nobody may make are refused."""
        token = self.fresh_token()
        head, body, signature = token.split(".")
        other = f"arn:aws:iam::{self.lab.account}:role/learner-{(int(self.name[-2:]) + 1) % self.report.learners:02}"
        tampered = f"{head}.{body}.{signature[:20]}{'A' if signature[20] != 'A' else 'B'}{signature[21:]}"
        kept = self.credentials
        self.exchange_of(tampered, "InvalidIdentityToken")
        self.exchange_of(self.fresh_token("elsewhere"), "InvalidIdentityToken")
        if self.report.learners > 1:
            self.exchange_of(token, "AccessDenied", other)
        self.credentials = kept
        wrong = self.access_key | {"SecretAccessKey": "x" * 40}
        self._identity(wrong, "SignatureDoesNotMatch")
        bearer = client.Configuration(host=self.api.configuration.host)
        bearer.ssl_ca_cert = self.api.configuration.ssl_ca_cert
        bearer.api_key = {"authorization": f"Bearer {self.fresh_token('https://kubernetes.default.svc')}"}
        with client.ApiClient(bearer) as api:
            try:
                client.CoreV1Api(api).list_namespaced_secret(self.name)
                came = "accepted"
            except ApiException as error:
                came = str(error.status)
        # The API server refuses this audience: its own is its issuer.
        self.report.expect("secrets of a service account", "401", came)

    def annotate(self) -> None:
        """Add or remove the annotation. The next pod gets the role, or no role."""
        annotated = not self.annotated
        value = self.role_arn if annotated else None
        patch = {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": value}}}
        self.lab.settled(lambda: self.core.patch_namespaced_service_account(SERVICE_ACCOUNT, self.name, patch))
        self.annotated = annotated

    def break_(self) -> None:
        if self.drawn.random() < 0.5:
            self.set_trust("somebody-else")
        else:
            self.set_policy("Deny")

    def mend(self) -> None:
        self.set_trust(self.name)
        self.set_policy("Allow")

    def set_trust(self, namespace: str) -> None:
        document = json.dumps(self._trust(namespace))
        change = self.lab.iam.update_assume_role_policy
        self.lab.settled(lambda: change(RoleName=self.name, PolicyDocument=document))
        self.trusted = namespace == self.name

    def set_policy(self, effect: str) -> None:
        statement = {"Effect": effect, "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/{self.name}/*"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        put = self.lab.iam.put_role_policy
        self.lab.settled(lambda: put(RoleName=self.name, PolicyName="read", PolicyDocument=document))
        self.reads = effect == "Allow"

    def rotate(self) -> None:
        """Replace the access key. From then on, the old one is refused."""
        iam, old = self.lab.iam, self.access_key
        for key in iam.list_access_keys(UserName=self.name)["AccessKeyMetadata"]:
            iam.delete_access_key(UserName=self.name, AccessKeyId=key["AccessKeyId"])
        self.access_key = iam.create_access_key(UserName=self.name)["AccessKey"]
        self._identity(self.access_key, "accepted")
        if old:
            self._identity(old, "InvalidClientTokenId")

    def run(self) -> None:
        """Replace the pod."""
        self._delete_pod()
        program = f"# {self.name}\nwhile :; do sleep 1000; done"
        container = {"name": "app", "image": "amazon/aws-cli", "command": ["sh", "-c", program]}
        pod = {
            "metadata": {"name": "app"},
            "spec": {
                "serviceAccountName": SERVICE_ACCOUNT,
                "terminationGracePeriodSeconds": 0,
                "containers": [container],
            },
        }
        made = self.core.create_namespaced_pod(self.name, pod)
        env = {variable.name for variable in made.spec.containers[0].env or []}
        self.report.expect("webhook", str(self.annotated), str("AWS_ROLE_ARN" in env))
        self.injected, self.killed = self.annotated, False
        self.pod = {"uid": made.metadata.uid, "restarts": 0}
        self._await_running()

    def lose_the_pod(self) -> None:
        """Kill the pod's program, and wait until the node has started it again."""
        if self.killed:
            return
        for one in processes(self.lab.folder)[1:]:
            with contextlib.suppress(psutil.Error):
                if any(f"# {self.name}\n" in word for word in one.cmdline()):
                    one.kill()
        self.killed = True
        self.pod["restarts"] += 1
        self._await_running()

    def look_around(self) -> None:
        """Check that the learner's namespace has this learner's pod, and no other."""
        names = [pod.metadata.name for pod in self.core.list_namespaced_pod(self.name).items]
        self.report.expect("list", "its pod", "its pod" if names == ["app"] else str(names))

    def finds_all(self) -> None:
        """Check that everything still exists, with the same ids."""
        account = self.core.read_namespaced_service_account(SERVICE_ACCOUNT, self.name).metadata
        pod = self.core.read_namespaced_pod("app", self.name)
        iam = self.lab.iam
        contents = {
            "service account": account.uid,
            "annotated": bool((account.annotations or {}).get("eks.amazonaws.com/role-arn")),
            "pod": pod.metadata.uid,
            "role": iam.get_role(RoleName=self.name)["Role"]["RoleId"],
            "access key": [one["AccessKeyId"] for one in iam.list_access_keys(UserName=self.name)["AccessKeyMetadata"]],
            "object": self.lab.s3.get_object(Bucket=BUCKET, Key=self.key)["Body"].read().decode(),
        }
        made = {
            **self.uids,
            "annotated": self.annotated,
            "pod": self.pod["uid"],
            "access key": [self.access_key["AccessKeyId"]],
            "object": self.content,
        }
        for name, value in made.items():
            self.report.expect(
                "found in the end", name, name if contents[name] == value else f"{name} {contents[name]}"
            )

    def leave(self) -> None:
        """Delete the pod and the namespace."""
        self._delete_pod()
        self.core.delete_namespace(self.name)
        self.api.rest_client.pool_manager.clear()
        self.api.close()

    def fresh_token(self, audience: str = AUDIENCE) -> str:
        spec = {"spec": {"audiences": [audience], "expirationSeconds": 3600}}
        ask = self.core.create_namespaced_service_account_token
        return self.lab.settled(lambda: ask(SERVICE_ACCOUNT, self.name, spec)).status.token

    def token_of_the_pod(self) -> str:
        return self._executed('cat "$AWS_WEB_IDENTITY_TOKEN_FILE"')

    def _executed(self, script: str) -> str:
        """Run a script in the pod; return what it prints."""
        done = execution.execute(self.api, "app", self.name, ["sh", "-c", script])
        if done.exit_code:
            raise ConnectionError(str(done))  # after a kill of the server, the pod soon runs again
        return done.output

    def _await_running(self) -> None:
        """Wait until the pod's program runs, after at least as many restarts as expected."""
        events = watch.Watch().stream(
            self.core.list_namespaced_pod, self.name, field_selector="metadata.name=app", timeout_seconds=120
        )
        for event in events:
            pod = event["object"]
            status = (pod.status.container_statuses or [None])[0]
            runs = status and status.state.running and status.restart_count >= self.pod["restarts"]
            if runs and pod.metadata.uid == self.pod["uid"]:
                events.close()
                return
        raise TimeoutError("the pod does not run")

    def _delete_pod(self) -> None:
        with contextlib.suppress(ApiException):
            self.core.delete_namespaced_pod("app", self.name, grace_period_seconds=0)
        for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.1), reraise=True):
            with attempt:
                assert not self.core.list_namespaced_pod(self.name).items

    def _identity(self, credentials: dict[str, str], expected: str) -> None:
        with closing(self.lab.client("sts", credentials)) as sts:
            try:
                sts.get_caller_identity()
                came = "accepted"
            except ClientError as error:
                came = error.response["Error"]["Code"]
        self.report.expect("access key", expected, came)

    def _trust(self, namespace: str) -> Any:
        parameters = Parameters.checked(namespace=namespace, service_account=SERVICE_ACCOUNT, role_name=self.name)
        return documents.trust_policy(parameters, self.lab.provider)

    def _claims(self, token: str) -> dict[str, Any]:
        return jwt.decode(token, options={"verify_signature": False})


if __name__ == "__main__":
    sys.exit(main())
