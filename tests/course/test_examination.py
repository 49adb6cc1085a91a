"""The examination: it shows only symptoms, refuses a repair that opens too much, and ends with a certificate."""

import json
import re
import time
from collections import Counter
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from kubernetes.client import CoreV1Api

from labkit import Lab
from labkit.course import contents, examination, progress
from labkit.course.examination import certificate, draw, judging, paper
from labkit.course.faults import CATALOGUE, Situation, breaking
from labkit.errors import LabError, UnknownName
from labkit.run_parameters import Parameters
from labkit.simulator import Authority, Folder
from labkit.steps import iam_role
from labkit.webhook import mutating_webhook_configuration
from tests import commands
from tests.doctor import recording

DRAWN = ("trust-policy-names-another-namespace", "policy-detached", "role-deleted")
BOTH = ("trust-policy-names-another-namespace", "annotation-left-out")


@pytest.fixture
def drawn(monkeypatch):
    """Let the next examinations have these tasks: a fault's name, or the names of two faults."""

    def choose(*tasks):
        names = [(task,) if isinstance(task, str) else task for task in tasks]
        made = [
            draw.DrawnTask("hard" if len(each) > 1 else "easy", tuple(CATALOGUE[name] for name in each))
            for each in names
        ]
        monkeypatch.setattr("labkit.course.examination.exam.demonstration", lambda: made)

    return choose


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_PROGRESS", str(tmp_path / "progress.jsonl"))
    return tmp_path / "progress.jsonl"


@pytest.fixture
def said(capsys):
    return lambda: capsys.readouterr().out


@pytest.fixture(scope="module")
def healthy():
    webhook = mutating_webhook_configuration("https://127.0.0.1:8443/mutate", Authority.create("k").certificate_pem)
    return Situation.wanted(Parameters.checked(), recording.CONNECTION, webhook)


def test_an_examination_judges_each_repair_and_ends_with_points(lab, drawn, kept, said):
    drawn(*DRAWN)
    iam = lab.aws.client("iam")
    exam = lab.examination()
    told = said()
    # Only the symptoms: neither the fault's name nor its story.
    assert "Examination 1: 3 easy." in told and "Task 1 of 3 (easy). In the pod:" in told and "AccessDenied" in told
    assert DRAWN[0] not in told and CATALOGUE[DRAWN[0]].description not in told
    exam.hand_in()
    assert said().strip() == "✗ not yet: task 1 of 3 isn't mended. To ask again costs nothing."

    trust(iam, lab, "StringLike", "system:serviceaccount:d*t:my-*-account")
    exam.hand_in()
    assert said().strip() == "✗ not yet: task 1 of 3 isn't mended. To ask again costs 1 point."
    with pytest.raises(LabError, match="already asked"):
        exam.guess("trust policy")
    trust(iam, lab, "StringEquals", f"system:serviceaccount:default:{lab.parameters.service_account}")
    exam.hand_in()
    told = said()
    # The cause is named only now, after the repair.
    assert f"✓ yes: task 1 of 3 is mended.\n  trust policy: {DRAWN[0]}. The trust policy admits" in told
    assert "You named nothing: 0 of 1.\n  6 points of 10." in told and DRAWN[1] not in told

    for policy in ("arn:aws:iam::aws:policy/AmazonS3FullAccess", lab.parameters.policy_arn):
        iam.attach_role_policy(RoleName="my-role", PolicyArn=policy)
    exam.guess("permissions")
    exam.hand_in()
    assert "✗ not yet" in said()
    iam.detach_role_policy(RoleName="my-role", PolicyArn="arn:aws:iam::aws:policy/AmazonS3FullAccess")
    commands.labkit("doctor")
    exam.hand_in()
    assert "You named permissions: 1 of 1.\n  6 points of 10." in (told := said()) and "Task 3 of 3 (easy)" in told

    exam.guess("trust policy")
    with pytest.raises(LabError, match="isn't over: 1 task left"):
        exam.certificate("A learner")
    exam.give_up()
    assert "You gave up.\n  role: role-deleted. The role my-role doesn't exist" in said()
    assert not breaking.faults_in(lab)
    with pytest.raises(LabError, match="over"):
        exam.hand_in()
    result = exam.result()
    assert repr(result).splitlines()[0] == "IRSA lab, examination 1: 12 of 30 points"
    assert "<time>" in repr(result)
    assert [re.split("  +", line)[:6] for line in repr(result).splitlines()[2:]] == [
        [f"1 {DRAWN[0]}", "easy", "repaired", "0 of 1", "3", "not used"],
        [f"2 {DRAWN[1]}", "easy", "repaired", "1 of 1", "2", "used"],
        [f"3 {DRAWN[2]}", "easy", "given up", "0 of 1", "0", "not used"],
    ]
    # In a notebook, a row has four cells, so that it fits a narrow window.
    assert re.search(r"easy</td><td[^>]*>repaired, named 1 of 1, asked 2, doctor used, time ", result._repr_html_())
    with pytest.raises(LabError, match="12 of 30 points: a certificate takes 21"):
        exam.certificate("A learner")
    assert "examination 1: 12 of 30 points" in repr(progress.read())
    assert contents_of_98().done == "✓ 12 of 30 points"
    assert not [each.metadata.name for each in namespaces(lab) if each.metadata.name.startswith("elsewhere")]


def test_a_repair_that_opens_more_than_it_mends_is_refused(lab):
    iam, s3 = lab.aws.client("iam"), lab.aws.client("s3")
    lab.ready(through="pod")
    healthy = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]
    admits = healthy["Statement"][0]
    without_audience = json.loads(json.dumps(admits))
    del without_audience["Condition"]["StringEquals"][f"{lab.issuer.removeprefix('https://')}:aud"]
    provider = {"OpenIDConnectProviderArn": lab.provider_arn, "ClientID": "vault"}

    def trusts(*statements):
        document = json.dumps(healthy | {"Statement": list(statements)})
        iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=document)

    def opened():
        who = (re.sub("-[0-9a-f]{4}-.*,|:my-service-.*,", ":…,", each) for each in judging.opened(lab))
        return list(dict.fromkeys(who))

    assert opened() == []
    for account in ("123456789012", lab.connection.other_account):
        trusts(admits, {"Effect": "Allow", "Principal": {"AWS": account}, "Action": "sts:AssumeRole"})
        assert opened() == ["someone without a token, for my-role"]
    # No call can be made as these.
    for principal in ({"Service": "ec2.amazonaws.com"}, {"Service": "pods.eks.amazonaws.com"}, {"AWS": "333333333333"}):
        trusts(admits, {"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})
        (name,) = principal.values()
        assert opened() == [f"{name}, for my-role"]
        assert [*judging.opened(lab, name)] == [], "the task's fault named it"
    everybody = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    trusts(admits, everybody | {"Condition": {"StringEquals": {"aws:PrincipalAccount": "333333333333"}}})
    assert opened() == ["333333333333, for my-role"]
    # Whoever has an account elsewhere chooses their tags.
    own = {"StringLike": {"aws:PrincipalTag/none": ["x"]}, "StringNotEquals": {"aws:PrincipalAccount": "333333333333"}}
    trusts(admits, everybody | {"Condition": own})
    assert opened() == ["everybody, for my-role"]
    trusts(admits, everybody | {"Condition": {"ArnNotLike": {"aws:PrincipalArn": "*"}}})
    assert opened() == [], "nobody is left"
    trusts(admits)
    subjects = [f"system:serviceaccount:default:{lab.parameters.service_account}", "system:serviceaccount:*:till"]
    trust(iam, lab, "StringLike", subjects)
    (who,) = opened()
    assert who.endswith(":till, created just now")
    trusts(admits)
    trust(iam, lab, "StringLike", "system:serviceaccount:default:my-service-accoun?")
    assert opened() == ["default:…, created just now"]
    iam.add_client_id_to_open_id_connect_provider(**provider)
    trusts(without_audience)
    assert opened() == ["default:…, audience vault"]
    iam.remove_client_id_from_open_id_connect_provider(**provider)
    trusts(admits)
    for action, what in (
        ("iam:*", "iam:CreateUser on *"),
        ("dynamodb:*", "dynamodb:GetItem on *"),
        ("s3:Delete*", "s3:DeleteBucket on arn:aws:s3:::irsa-lab"),
    ):
        document = json.dumps(allowing({"Action": action, "Resource": "*"}))
        iam.put_role_policy(RoleName="my-role", PolicyName="more", PolicyDocument=document)
        assert opened()[0] == what
        iam.delete_role_policy(RoleName="my-role", PolicyName="more")
    archive = {"Action": "s3:PutObject", "Resource": "arn:aws:s3:::shop-archive/*"}
    iam.put_role_policy(RoleName="my-role", PolicyName="more", PolicyDocument=json.dumps(allowing(archive)))
    (what,) = opened()
    assert what == "s3:PutObject on arn:aws:s3:::shop-archive/*"
    iam.delete_role_policy(RoleName="my-role", PolicyName="more")
    for action, resource, what in (("ListBucket", "", "list of the bucket"), ("GetObject", "/*", "read of an object")):
        statement = {"Principal": "*", "Action": f"s3:{action}", "Resource": f"arn:aws:s3:::irsa-lab{resource}"}
        s3.put_bucket_policy(Bucket="irsa-lab", Policy=json.dumps(allowing(statement)))
        assert opened() == [f"another account's {what}"]
    s3.delete_bucket_policy(Bucket="irsa-lab")


def test_a_repair_that_deletes_the_bucket_is_refused(lab, drawn, said):
    drawn("policy-detached")
    exam, bucket = lab.examination(), lab.aws.resource("s3").Bucket("irsa-lab")
    bucket.objects.delete()
    bucket.delete()
    lab.aws.client("iam").attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    exam.hand_in()
    assert "✗ not yet" in said()
    bucket.create()
    exam.hand_in()
    assert "✓ yes" in said()


def test_giving_up_names_the_cause_of_a_denied_permission(lab, drawn, said):
    drawn("permission-denied-by-an-inline-policy")
    lab.examination().give_up()
    assert "permission-denied-by-an-inline-policy. The role isn't allowed to do s3:ListBucket" in said()


def test_a_repair_by_the_lab_counts_as_given_up_and_recreating_costs_points(lab, drawn, said):
    drawn(*DRAWN[1:] * 2)
    iam = lab.aws.client("iam")
    exam = lab.examination()

    lab.ready(before="oidc_provider")
    lab.ready(through="pod")
    exam.hand_in()
    assert "counts as given up.\n  permissions: policy-detached." in (told := said()) and "Task 2 of 4" in told

    # `labkit mend` prints the fault's name, so a fault that is broken again by that name counts as given up.
    lab.mend()
    lab.break_("role-deleted")
    exam.hand_in()
    assert "counts as given up.\n  role: role-deleted." in said()

    # Recreate the whole role although only a policy was missing. Then recreate a missing role.
    trusted = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]

    def make_role():
        iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=json.dumps(trusted), Tags=lab.tags)
        iam.attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)

    iam_role.delete(iam, "my-role")
    make_role()
    exam.hand_in()
    assert "You deleted and created again: the IAM role. Each costs 3 points.\n  4 points of 10." in said()
    assert "role-deleted" not in repr(exam.result()).splitlines()[5]
    make_role()
    exam.hand_in()
    assert "created again" not in said()
    assert exam.result().points == 4 + 7


def test_asking_the_lab_for_the_cause_costs_points_and_reading_does_not(lab, drawn):
    def read_only():
        with Lab.open(role_name="reader") as other:
            other.check("iam_role")
        commands.labkit("doctor", "--explain", "InvalidIdentityToken: Incorrect token audience")
        return lab.trail(), lab.who_gets_in()

    ways = [read_only, lambda: lab.check("iam_role"), lab.journey, lab.diagnose]
    drawn(*["policy-detached" for _ in ways])
    exam = lab.examination()
    for ask in ways:
        ask()
        lab.aws.client("iam").attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
        exam.hand_in()
    assert [(paper.doctor, paper.points) for paper in exam.result().papers] == [(False, 7)] + [(True, 3)] * 3


def test_a_hard_task_has_two_faults_and_each_named_part_counts(lab, drawn, said):
    drawn(BOTH, BOTH)
    exam = lab.examination()
    assert "Task 1 of 2 (hard: two parts are broken)" in said()
    with pytest.raises(LabError, match="Name 2 parts of these: provider, role,"):
        exam.guess("pod", "role", "provider")
    with pytest.raises(UnknownName, match="Did you mean 'trust policy'"):
        exam.guess("trust-policy")
    exam.guess("trust policy", "pod")
    trust(lab.aws.client("iam"), lab, "StringEquals", f"system:serviceaccount:default:{lab.parameters.service_account}")
    exam.hand_in()
    assert "✗ not yet" in said(), "one of the two faults is left"
    exam.give_up()
    assert "service account: annotation-left-out. The service account my-service-account names no role" in (
        told := said()
    )
    assert "You named trust policy, pod: 1 of 2.\n  1 point of 10." in told
    exam.guess("service account", "trust policy")
    exam.give_up()
    assert "You named service account, trust policy: 2 of 2.\n  3 points of 10." in said()


def test_while_an_examination_runs_nothing_else_names_its_faults(lab, drawn, kept, said):
    drawn(BOTH)
    exam = lab.examination()
    for names_them in (lab.mended, lambda: breaking.faults_in(lab), lambda: breaking.progress(lab)):
        with pytest.raises(LabError, match="only the examination says whether it's mended"):
            names_them()
    folder = Folder.find().path
    files = [kept, *(each for each in folder.rglob("*") if each.is_file() and "faults" in each.parts)]
    assert len(files) == 2 and not any(name.encode() in each.read_bytes() for name in BOTH for each in files)
    assert not any(name in repr(vars(exam.result())) for name in BOTH)
    exam.give_up()


def test_another_kernel_continues_the_examination(lab, drawn, kept, said):
    drawn(*DRAWN[1:])
    exam = lab.examination()
    exam.guess("permissions")
    exam.hand_in()
    begun = exam.result().papers
    said()
    assert contents_of_98().done == "0 of 20 points, 2 tasks left"
    assert not any(told in kept.read_text() for told in (*DRAWN, "not attached", "cause"))

    again = lab.examination()
    told = said()
    assert "Your examination 1 goes on: task 1 of 2, 0 points so far." in told
    assert "Task 1 of 2 (easy). In the pod:" in told and "AccessDenied" in told
    assert again.result().papers == begun
    # Both kernels ask: each counts the other's question.
    exam.hand_in()
    assert "To ask again costs 1 point." in said()
    lab.aws.client("iam").attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    again.hand_in()
    told = said()
    assert (
        "permissions: policy-detached. The policy that says what the role may do is not attached to the role." in told
    )
    assert progress.read().examination["points"] == 9, "the third question costs a point"

    # The first kernel must not judge the second task by what it remembers of the first.
    with pytest.raises(LabError, match="went on in another notebook"):
        exam.hand_in()
    # Something else removed the fault meanwhile, as `labkit reset` does.
    lab.mend()
    last = lab.examination()
    told = said()
    assert "Your examination 1 goes on: task 2 of 2" in told and "counts as given up.\n  role: role-deleted." in told
    assert repr(last.result()).splitlines()[0] == "IRSA lab, examination 1: 9 of 20 points"


def test_another_try_says_which_one_it_is_even_without_the_progress_file(lab, drawn, kept, monkeypatch, said):
    monkeypatch.setenv("LABKIT_LIVE", "1")
    monkeypatch.setattr("labkit.course.examination.exam.LEVELS", {"easy": 1})
    monkeypatch.setattr("labkit.course.examination.exam.draw", lambda *_: [CATALOGUE["policy-detached"]])
    first = int(re.search(r"Examination (\d+):", (lab.examination(), said())[1])[1])
    lab.examination(again=True)
    assert f"Examination {first + 1}: 1 easy." in said()
    kept.unlink()
    exam = lab.examination()
    assert f"Examination {first + 2}: 1 easy." in said()
    # A line that somebody changed isn't continued.
    kept.write_text(re.sub(r'"sealed": "(.{99})', r'"sealed": "\1A', kept.read_text()))
    exam = lab.examination()
    assert "can't be read" in (told := said()) and f"Examination {first + 3}: 1 easy." in told
    exam.give_up()
    # One that is over stays until the learner asks for another one: otherwise its certificate would be lost.
    again = lab.examination()
    assert f"Your examination {first + 3} is over: 0 of 10 points." in said()
    assert again.result().papers == exam.result().papers


def test_the_same_draw_gives_the_same_score_for_the_same_acts(lab, drawn):
    scores = []
    for _ in range(2):
        drawn("policy-detached")
        exam = lab.examination()
        exam.guess("permissions")
        for _ in range(3):
            exam.hand_in()
        lab.diagnose()
        lab.aws.client("iam").attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
        exam.hand_in()
        scores.append(repr(exam.result()))
    assert scores[0] == scores[1] and " 4 of 10 points" in scores[0]


def test_a_certificate_is_drawn_for_a_name_and_any_changed_letter_is_seen(lab, drawn, kept, tmp_path, monkeypatch):
    drawn(DRAWN[1])
    exam = lab.examination()
    exam.guess("permissions")
    lab.aws.client("iam").attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    exam.hand_in()
    for name in ("", "  ", "x" * 61, "two\0lines"):
        with pytest.raises(LabError, match="A certificate needs a name"):
            exam.certificate(name)
    name = "<script>alert(1)</script> & Åsa"
    assert repr(exam.certificate(name)) == f"certificate.svg: {name}, 10 of 10 points, examination 1"
    file = tmp_path / "certificate.svg"
    page = file.read_text()
    assert "<script" not in page and "repaired: easy 1 of 1" in page

    done = commands.labkit("certificate", "verify", str(file))
    assert "Unsupervised" in page and "Demonstration" not in page
    assert done.returncode == 0 and f"Unchanged: {name}, 10 of 10 points" in done.stdout
    assert "It doesn't prove who" in done.stdout
    for at, old in enumerate(("10 of 10", "&lt;script", '"points": 10', "viewBox", '"signature": "')):
        assert old in page
        changed = tmp_path / f"{at}.svg"
        changed.write_text(page.replace(old, old[:-1] + ("1" if old[-1] != "1" else "2")))
        done = commands.labkit("certificate", "verify", str(changed))
        assert (done.returncode, done.stdout) == (1, "")
        assert "This certificate was changed after it was signed." in done.stderr, old
    # A stranger's own key signs what they like: a date that no calendar has, and a name that colours the terminal.
    far = replace(examination.verify(file).claims, at=1e300)
    monkeypatch.setattr("time.gmtime", lambda *_: time.struct_time((2026, 1, 1, 0, 0, 0, 3, 1, 0)))
    forged(far).save(file)
    monkeypatch.undo()
    done = commands.labkit("certificate", "verify", str(file))
    assert done.returncode == 1 and "Traceback" not in done.stderr and "was changed" in done.stderr
    for red in ({"name": "\x1b[31mred"}, {"workshop": "\x1b[31mred"}):
        forged(replace(far, at=0.0, **red)).save(file)
        assert commands.labkit("certificate", "verify", str(file)).returncode == 1
    for content in (b"", b"\xff", b"<svg/>"):
        file.write_bytes(content)
        done = commands.labkit("certificate", "verify", str(file))
        assert done.returncode == 1 and "Traceback" not in done.stderr and "certificate.svg" in done.stderr


def test_a_draw_has_its_levels_and_no_fault_that_a_cluster_on_eks_lacks(healthy):
    seen = Counter()
    for _ in range(20):
        names, pairs = [], []
        for level in (level for level, count in draw.LEVELS.items() for _ in range(count)):
            faults = draw.draw(level, names, healthy)
            names += [fault.id for fault in faults]
            assert [draw.level_of(fault, healthy) for fault in faults] == [level] or level == "hard"
            pairs += [faults] if level == "hard" else []
        assert len(names) == len(set(names)) == 13 and len(pairs) == 3
        seen.update(names)
        for one, other in pairs:
            assert draw.parts(one, healthy) <= set(draw.IN_AWS)
            assert draw.parts(other, healthy) <= set(draw.IN_THE_CLUSTER)
    # AWS runs the issuer and the webhook of a cluster on EKS.
    issuer = {"discovery-is-not-public", "discovery-of-another-issuer", "signing-key-changed"}
    assert not issuer & seen.keys() and not [name for name in seen if name.startswith("webhook-")]
    assert len(seen) > 40


def test_the_demonstration_has_the_levels_of_a_draw(healthy):
    tasks = draw.demonstration()
    assert Counter(task.level for task in tasks) == draw.LEVELS
    for task in tasks:
        levels = [draw.level_of(fault, healthy) for fault in task.faults]
        assert levels == [task.level] or (task.level == "hard" and len(levels) == 2 and all(levels)), task


def test_a_certificate_of_the_demonstration_says_so():
    papers = [paper.Paper(level, tuple(names), began=1, ended=2, repaired=True) for level, *names in draw.DEMONSTRATION]
    result = examination.ExaminationResult("run", 1, papers)
    assert certificate.claims(result, "Ana").note.startswith("Demonstration")
    assert not result.is_of_a_draw


@pytest.mark.parametrize(
    ("record", "points"),
    [
        ({"repaired": True, "named": 1}, 10),
        ({"repaired": True, "attempts": 2}, 7),
        ({"repaired": True, "attempts": 5, "named": 1}, 7),
        ({"repaired": True, "attempts": 50, "doctor": True, "rebuilt": ["the IAM role"]}, 1),
        ({"named": 1, "attempts": 9, "doctor": True}, 3),
        ({}, 0),
    ],
)
def test_the_same_acts_give_the_same_points(record, points):
    assert paper.Paper("easy", ("any",), **record).points == points


def forged(claims):
    return examination.ExaminationCertificate.signed(claims, Ed25519PrivateKey.generate())


def allowing(statement):
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow"} | statement]}


def contents_of_98():
    return next(each for each in contents.read().chapters if each.name == "98-examination.ipynb")


def namespaces(lab):
    items = CoreV1Api(lab.kubernetes).list_namespace().items
    return [each for each in items if each.status.phase == "Active"]


def trust(iam, lab, operator, subject):
    document = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]
    issuer = lab.issuer.removeprefix("https://")
    conditions = {operator: {f"{issuer}:sub": subject}}
    conditions.setdefault("StringEquals", {})[f"{issuer}:aud"] = "sts.amazonaws.com"
    document["Statement"][0]["Condition"] = conditions
    iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(document))
