"""The role: it's missing, renamed, new, assumes itself, or its provider is in another account."""

import copy
import json
import shlex
from datetime import UTC, datetime

from tests.doctor import recording
from tests.doctor.recording import healthy
from tests.doctor.repairing import commands, repaired
from tests.doctor.trusting import MISSING, arn, document, examine, found, principal, sub, trusting


def test_the_repair_makes_a_missing_role_with_its_policy():
    (finding,) = examine(MISSING).findings
    assert finding.id == "role-missing"
    # The pod may still hold a session of the deleted role, which AWS no longer accepts.
    assert "kubectl delete pod my-pod" in finding.repair
    assert "kubectl delete pod" not in examine(MISSING | {recording.PODS: []}).findings[-1].repair
    assert found(repaired(MISSING, finding.repair)) == []


def test_the_repair_annotates_the_arn_of_a_renamed_role():
    role_arn = recording.ROLE_ARN.replace("my-role", "renamed")
    answers = copy.deepcopy(MISSING)
    answers[recording.ROLES] = [{**answers[recording.ROLES][0], "Arn": role_arn, "RoleName": "renamed"}]
    for account in answers[recording.SERVICE_ACCOUNTS]:
        account["metadata"]["labels"] = {}
    (finding,) = examine(answers, role_is_known=False).findings
    assert finding.id == "role-missing"
    assert (finding.expected, finding.found) == (role_arn, f"no such role: {recording.ROLE_ARN}")
    assert f"eks.amazonaws.com/role-arn={role_arn}" in commands(finding.repair)[0]
    without_pod = {each.id: each for each in examine(answers | {recording.PODS: []}, role_is_known=False).findings}
    (annotated,) = commands(without_pod["role-missing"].repair)
    assert annotated.startswith("kubectl annotate") and "kubectl apply" in without_pod["pod-missing"].repair


DENIED = "An error occurred (AccessDenied) when calling the AssumeRoleWithWebIdentity operation: Not authorized …"


def test_a_refusal_is_only_a_note_if_the_role_was_just_made():
    answers = healthy() | {recording.CALLER: {"arn": "", "error": DENIED}}
    assert "role-too-new" not in found(answers)
    answers[recording.ROLE]["CreateDate"] = datetime.now(UTC).isoformat()
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == ("role-too-new", "note")
    assert found(healthy() | {recording.ROLE: answers[recording.ROLE]}) == []
    elsewhere = json.loads(json.dumps(answers).replace('"serviceAccountName": "my-service-account"', '"a": "b"'))
    assert "role-too-new" not in found(elsewhere)
    sub("default:a")(document(answers)["Statement"][0])
    assert found(answers) == ["trust-policy-sub-mismatch"]


CONFIG = f"[default]\nregion = us-east-1\n\n[profile app]\nrole_arn = {recording.ROLE_ARN}\nsource_profile = default\n"


def mounting(answers, text):
    """The answers, with an AWS config that the pod mounts from a ConfigMap."""
    (pod,) = answers[recording.PODS]
    pod["spec"]["volumes"].append({"name": "aws", "configMap": {"name": "aws-config"}})
    container = pod["spec"]["containers"][0]
    container["volumeMounts"].append({"name": "aws", "mountPath": "/root/.aws"})
    return answers | {"get configmap aws-config -n default": {"data": {"config": text}}}


def test_the_repair_corrects_a_config_that_assumes_the_role_that_the_pod_has():
    (finding,) = examine(mounting(healthy(), CONFIG)).findings
    assert finding.id == "role-assumes-itself"
    patch = commands(finding.repair)[0]
    assert patch.startswith("kubectl patch configmap aws-config -n default --type=json -p ")
    tested, replaced = json.loads(shlex.split(patch)[-1])
    assert tested == {"op": "test", "path": "/data/config", "value": CONFIG}
    text = "[default]\nregion = us-east-1\n\n[profile app]\n"
    assert replaced == {"op": "replace", "path": "/data/config", "value": text}
    assert "kubectl delete pod my-pod" in finding.repair


def test_a_role_may_assume_itself_if_it_trusts_itself_or_the_profile_uses_the_token():
    exchange = CONFIG.replace("source_profile = default", "web_identity_token_file = /token")
    assert found(mounting(healthy(), exchange)) == []
    answers = mounting(healthy(), CONFIG)
    own = {"Effect": "Allow", "Principal": {"AWS": recording.ROLE_ARN}, "Action": "sts:AssumeRole"}
    document(answers)["Statement"].append(own)
    assert found(answers) == []


def test_a_provider_in_another_account_is_reported_with_both_account_numbers():
    answers = trusting(principal(Federated=arn(recording.NAME).replace(recording.ACCOUNT_ID, "210987654321")))
    (finding,) = [one for one in examine(answers).findings if one.id == "trust-policy-provider-mismatch"]
    assert finding.summary == (
        "The trust policy trusts the cluster's OIDC provider in the account 210987654321, not the one in 123456789012."
    )
