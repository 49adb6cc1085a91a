"""A diagnosis of recorded evidence: its exit code, its calls and its checks."""

from labkit.doctor.evidence import Reads
from labkit.doctor.evidence.reading import Read
from labkit.doctor.examination import examine
from labkit.doctor.findings.catalogue import CATALOGUE
from labkit.doctor.stages import STAGES
from tests.doctor import recording


def test_a_call_without_a_recorded_answer_is_listed_as_unread_and_gives_exit_code_2():
    answers = recording.healthy()
    del answers[recording.ATTACHED]
    diagnosis = examine(recording.evidence(answers))
    assert diagnosis.exit_code == 2
    assert "the record has no answer to this call" in {error.why for error in diagnosis.unread}


def test_facts_that_only_probe_reads_do_not_cause_exit_code_2():
    diagnosis = examine(recording.evidence(probe=False))
    assert diagnosis.exit_code == 0, diagnosis
    assert {error.needs for error in diagnosis.unread} == {"--probe"}


def test_subjects_share_answers_but_each_lists_only_its_own_calls():
    reads = Reads(recording.healthy())
    first, second = reads.shared(), reads.shared()
    role = Read("iam:GetRole", "my-role", f"({recording.ACCOUNT_ID})", "AWS")
    assert str(role) == recording.ROLE
    assert first.once(role, dict)["RoleName"] == "my-role"
    assert ([*first.answered], [*second.answered]) == ([role], [])


def test_a_finding_of_each_stage_belongs_to_the_right_check():
    places = {
        "pod-missing": 1,
        "service-account-annotation-missing": 2,
        "pod-older-than-annotation": 3,
        "webhook-missing": 3,
        "token-audience-mismatch": 4,
        "oidc-provider-missing": 5,
        "trust-policy-refuses": 6,
        "credentials-refused": 7,
        "pod-static-keys": 8,
        "role-lacks-permission": 9,
    }
    assert {id: STAGES.index(CATALOGUE[id].stage) + 1 for id in places} == places
