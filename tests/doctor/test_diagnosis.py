"""What a diagnosis is, without a lab."""

from labkit.diagnosis.evidence import Reads
from labkit.diagnosis.evidence.reading import Read
from labkit.diagnosis.findings.catalogue import CATALOGUE
from labkit.diagnosis.stages import STAGES
from labkit.doctor.examination import examine
from tests.doctor import recording


def test_a_record_without_an_answer_says_so_and_is_exit_code_2():
    answers = recording.healthy()
    del answers[recording.ATTACHED]
    found = examine(recording.evidence(answers))
    assert found.exit_code == 2
    assert "the record has no answer to this call" in {error.why for error in found.unread}


def test_facts_that_nobody_asked_for_do_not_cause_exit_code_2():
    found = examine(recording.evidence(probe=False))
    assert found.exit_code == 0, found
    assert {error.needs for error in found.unread} == {"--probe"}


def test_answers_are_shared_and_each_subject_counts_its_own():
    reads = Reads(recording.healthy())
    first, second = reads.shared(), reads.shared()
    role = Read("iam:GetRole", "my-role", f"({recording.ACCOUNT_ID})", "AWS")
    assert str(role) == recording.ROLE
    assert first.once(role, dict)["RoleName"] == "my-role"
    assert ([*first.asked], [*second.asked]) == ([role], [])


def test_every_finding_has_its_place_among_the_checks():
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
