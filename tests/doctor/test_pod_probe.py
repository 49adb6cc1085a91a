"""The checks inside the pod: its token, STS's answer to the token, and the pod's identity in AWS."""

from datetime import UTC, datetime

import pytest

from labkit import doctor
from labkit.doctor.evidence import Evidence, Reads, probe
from tests.doctor import recording
from tests.doctor.applying import applied
from tests.doctor.recording import a_pod, healthy
from tests.doctor.repairing import commands

REFUSED = {"arn": "", "error": "An error occurred (AccessDenied) when calling AssumeRoleWithWebIdentity"}
CALLS = f"cloudtrail:LookupEvents AssumeRoleWithWebIdentity ({recording.ACCOUNT_ID})"


def examine(answers, **settings):
    return doctor.examine(Evidence(recording.PARAMETERS, recording.CONNECTION, reads=Reads(answers), **settings))


def changed(**calls):
    answers = healthy()
    for call, change in calls.items():
        answers[{"token": recording.TOKEN, "exchange": recording.EXCHANGE, "caller": recording.CALLER}[call]] |= change
    return answers


def refusal(code, message="…"):
    return {"arn": "", "code": code, "message": message}


@pytest.mark.parametrize(("id", "answers", "says"), [
    ("token-malformed", changed(token={"claims": {}, "malformed": "this has 5"}, caller=REFUSED), "this has 5"),
    ("token-unreadable", changed(token={"claims": {}, "unreadable": "cat: token: Permission denied"},
            caller=REFUSED), "Permission denied"),
    ("token-expired", changed(exchange=refusal("ExpiredTokenException", "Token expired: …"), caller=REFUSED),
     "ExpiredTokenException: Token expired: …"),
    ("credentials-refused", changed(exchange=refusal("AccessDenied", "Not authorized"), caller=REFUSED),
     "AccessDenied: Not authorized"),
    ("credentials-refused", changed(caller=REFUSED), REFUSED["error"]),
    ("credentials-of-another-identity",
     changed(caller={"arn": f"arn:aws:sts::{recording.ACCOUNT_ID}:assumed-role/blue-node-role/i-0123"}),
     "assumed-role/blue-node-role"),
])  # fmt: skip
def test_a_failure_inside_the_pod_gives_one_finding(id, answers, says):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == [id]
    (finding,) = diagnosis.findings
    assert says in finding.found
    if id == "credentials-refused":
        # A restart explains nothing, and the pod may lose a session that still works.
        assert all(line.startswith("#") for line in finding.repair.splitlines())
        assert "#   kubectl delete pod my-pod" in finding.repair
    else:
        assert applied(answers, finding.repair)[recording.PODS] != answers[recording.PODS]


def test_a_refused_exchange_is_not_right_even_if_the_pod_has_a_session():
    results = {
        stage.title: result for stage, result in examine(changed(exchange=refusal("AccessDenied"))).results.items()
    }
    assert results["the exchange with STS"] == "not looked at"
    assert results["the pod's identity in AWS"] == "right"


def test_without_probe_the_doctor_reports_nothing_from_inside_the_pod():
    diagnosis = examine(changed(token={"malformed": "this has 5"}, caller=REFUSED), probe=False)
    assert not diagnosis.findings
    assert {unread.needs for unread in diagnosis.unread} == {"--probe"}


def test_the_repair_of_an_unreadable_token_sets_an_fs_group():
    answers = changed(token={"claims": {}, "unreadable": "cat: token: Permission denied"}, caller=REFUSED)
    (finding,) = examine(answers).findings
    assert applied(answers, finding.repair)[recording.PODS][0]["spec"]["securityContext"] == {"fsGroup": 65534}


def test_a_program_that_left_the_only_user_who_may_read_the_token_is_found_and_its_group_repairs_that():
    answers = healthy()
    spec = answers[recording.PODS][0]["spec"]
    answers["the processes' users in pod my-pod -n default"] = {"users": [[0, 0], [1000, 3000]]}
    assert not examine(answers).findings
    spec["securityContext"] = {"runAsUser": 0}
    (finding,) = examine(answers).findings
    assert finding.id == "token-unreadable"
    assert "fsGroup: 3000 or runAsUser: 1000" in finding.expected
    mended = applied(answers, finding.repair)
    assert mended[recording.PODS][0]["spec"]["securityContext"] == {"runAsUser": 0, "fsGroup": 3000}
    assert not examine(mended).findings


@pytest.mark.parametrize(("security", "processes", "repaired_group"), [
    # The chart's fsGroup is root's group, and setpriv --clear-groups takes it from the program.
    ({"fsGroup": 0}, [[0, 0, 0], [1001, 1001]], 1001),
    ({"fsGroup": 0}, [[0, 0], [1001, 1001, 27, 0]], None),
    ({"fsGroup": 2000}, [[1001, 2000]], None),
    ({"fsGroup": 2000, "runAsUser": 1001}, [[1001, 1001]], None),
    ({"fsGroup": 2000, "runAsUser": 0}, [[0, 0], [33, 34, 35]], 34),
    ({}, [[0, 0], [1001, 1001]], None),
])  # fmt: skip
def test_a_program_that_left_the_group_that_may_read_the_token_is_found(security, processes, repaired_group):
    answers = healthy()
    answers["the processes' users in pod my-pod -n default"] = {"users": processes}
    answers[recording.PODS][0]["spec"]["securityContext"] = security
    findings = examine(answers).findings
    assert [finding.id for finding in findings] == ([] if repaired_group is None else ["token-unreadable"])
    for finding in findings:
        assert f"fsGroup: {security['fsGroup']}" in finding.found
        mended = applied(answers, finding.repair)
        assert mended[recording.PODS][0]["spec"]["securityContext"] == security | {"fsGroup": repaired_group}
        assert not examine(mended).findings


def test_the_users_and_groups_of_processes_are_read_as_linux_writes_them():
    said = "Name:\tsh\nUid:\t0\t1001\t1001\t1001\nGid:\t0\t34\t34\t34\nFDSize:\t64\nGroups:\t27 0 \nNStgid:\t1\n"
    root = "Name:\tsh\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t \nNStgid:\t1\n"
    assert probe.processes(root + said) == [[0, 0], [1001, 34, 27, 0]]


def test_without_probe_a_containers_last_message_shows_an_unreadable_token():
    said = "open /var/run/secrets/eks.amazonaws.com/serviceaccount/token: permission denied"
    state = {"waiting": {"reason": "CrashLoopBackOff"}}
    container = {"name": "aws", "state": state, "lastState": {"terminated": {"message": said}}}
    broken = a_pod() | {"status": {"phase": "Running", "containerStatuses": [container]}}
    (finding,) = examine(healthy() | {recording.PODS: [broken]}, probe=False).findings
    assert (finding.id, finding.found) == ("token-unreadable", f"container aws: {said}")


def test_a_token_with_the_wrong_audience_is_found_and_its_repair_mends_it():
    answers = healthy()
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"]["eks.amazonaws.com/audience"] = "vault"
    answers[recording.PODS][0]["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"] = (
        "vault"
    )
    (finding,) = examine(answers, probe=False).findings
    assert (finding.id, finding.expected, finding.found) == ("token-audience-mismatch", "sts.amazonaws.com", "vault")
    assert not examine(applied(answers, finding.repair), probe=False).findings


def test_cloudtrail_shows_that_an_application_read_its_token_only_once():
    late = {
        "errorCode": "ExpiredTokenException",
        "errorMessage": "Token expired: …",
        "eventTime": "2026-01-02T01:00:00Z",
        "requestParameters": {"roleArn": recording.ROLE_ARN},
    }
    renewed = {**recording.CLAIMS, "iat": recording.CLAIMS["iat"] + 90000, "exp": recording.CLAIMS["exp"] + 90000}
    answers = changed(token={"claims": renewed}) | {CALLS: [late]}
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == (
        "token-read-once",
        "ExpiredTokenException: Token expired: … at 2026-01-02T01:00:00Z",
    )
    # This call was made before the pod existed.
    assert not examine(answers | {CALLS: [late | {"eventTime": "2025-12-31T23:00:00Z"}]}).findings
    # The refusal doesn't count if the token has not been renewed yet.
    assert not examine(healthy() | {CALLS: [late]}).findings


UNKNOWN_KEY = "An error occurred (InvalidClientTokenId) when calling the GetCallerIdentity operation: The security …"


@pytest.mark.parametrize(("source", "named"), [
    ({"secretRef": {"name": "keys"}}, "Secret keys"),
    # The record has no answer about this ConfigMap, as if the caller may not read it.
    ({"configMapRef": {"name": "settings"}}, "ConfigMap settings"),
])  # fmt: skip
@pytest.mark.parametrize("caller", [
    {"arn": "", "error": UNKNOWN_KEY},
    {"arn": f"arn:aws:iam::{recording.ACCOUNT_ID}:user/ci"},
    {"arn": f"arn:aws:sts::{recording.ACCOUNT_ID}:assumed-role/ci/somebody"},
])  # fmt: skip
def test_an_unread_secret_or_config_map_is_named_if_the_pod_acts_with_other_keys(source, named, caller):
    answers = changed(caller=caller)
    answers[recording.PODS][0]["spec"]["containers"][0]["envFrom"] = [source]
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == ["pod-static-keys"]
    (finding,) = diagnosis.findings
    assert named in finding.found and (caller.get("error") or caller["arn"]) in finding.found
    assert diagnosis.exit_code == 1
    after = applied(answers, finding.repair)
    variables = {each["name"]: each.get("value") for each in after[recording.PODS][0]["spec"]["containers"][0]["env"]}
    assert (variables["AWS_ACCESS_KEY_ID"], variables["AWS_SECRET_ACCESS_KEY"]) == ("", "")
    assert after[recording.PODS][0]["spec"]["containers"][0]["envFrom"] == [source], "it may be somebody else's, too"
    assert not examine(after, probe=False).findings


def test_a_secret_that_was_not_read_does_not_matter_if_the_pod_has_its_role():
    answers = healthy()
    answers[recording.PODS][0]["spec"]["containers"][0]["envFrom"] = [{"secretRef": {"name": "keys"}}]
    assert examine(answers).exit_code == 0
    assert examine(answers, probe=False).exit_code == 2


DENIED = "User: arn:aws:sts::1:assumed-role/my-role/x is not authorized to perform: sts:AssumeRoleWithWebIdentity on x "


@pytest.mark.parametrize(("says", "id"), [
    ("with an explicit deny in a service control policy", "denied-by-service-control-policy"),
    ("because no service control policy allows the x action", "denied-by-service-control-policy"),
    ("with an explicit deny in a resource control policy: arn:aws:x", "denied-by-resource-control-policy"),
    ("with an explicit deny in a VPC endpoint policy", "denied-by-vpc-endpoint-policy"),
    ("because no VPC endpoint policy allows the x action", "denied-by-vpc-endpoint-policy"),
])  # fmt: skip
def test_a_denial_by_the_organization_or_the_network_quotes_the_words_of_aws(says, id):
    in_pod = changed(caller={"arn": "", "error": f"{REFUSED['error']} operation: {DENIED}{says}"})
    from_here = changed(caller=REFUSED, exchange=refusal("AccessDenied", DENIED + says))
    new = in_pod | {recording.ROLE: in_pod[recording.ROLE] | {"CreateDate": datetime.now(UTC).isoformat()}}
    for answers in (in_pod, from_here, new):
        (finding,) = examine(answers).findings
        assert finding.id == id
        assert says in finding.found
        assert all(line.startswith("#") for line in finding.repair.splitlines())


def test_a_proxy_that_does_not_answer_is_an_error_and_its_repair_excepts_sts():
    error = 'Failed to connect to proxy URL: "http://proxy.example.com:3128"'
    answers = changed(caller={"arn": "", "error": error})
    container = answers[recording.PODS][0]["spec"]["containers"][0]
    container["env"] = [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}, *container["env"]]
    container["env"] = [{"name": "NO_PROXY", "value": "localhost"}, *container["env"]]
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == ("pod-proxy-without-no-proxy", "error")
    after = applied(answers, finding.repair)
    variables = {each["name"]: each.get("value") for each in after[recording.PODS][0]["spec"]["containers"][0]["env"]}
    assert variables["NO_PROXY"] == "localhost,sts.us-east-1.amazonaws.com"
    assert not examine(after, probe=False).findings


def test_an_expired_token_in_the_image_is_reported_as_copied():
    answers = changed(
        token={"claims": {**recording.CLAIMS, "exp": 1735776000}},
        exchange=refusal("ExpiredTokenException", "Token expired: …"),
        caller={"arn": "", "error": "(ExpiredTokenException) when calling AssumeRoleWithWebIdentity: Token expired"},
    )
    container = answers[recording.PODS][0]["spec"]["containers"][0]
    for variable in container["env"]:
        if variable["name"] == "AWS_WEB_IDENTITY_TOKEN_FILE":
            variable["value"] = "/app/token"  # in the image
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == ("token-copied", "error")
    assert "(the image)" in finding.found
    assert not examine(applied(answers, finding.repair), probe=False).findings


@pytest.mark.parametrize("call", [recording.TOKEN, recording.CALLER])
def test_a_call_in_a_container_without_its_program_is_listed_as_unread(call):
    answers = healthy()
    answers[call] |= {"no_program": True}
    diagnosis = examine(answers)
    assert not diagnosis.findings
    assert call in [unread.call for unread in diagnosis.unread]


def test_without_the_aws_cli_in_the_pod_sts_still_answers_for_its_token():
    answers = changed(exchange=refusal("AccessDenied", "Not authorized"))
    answers[recording.CALLER] |= {"no_program": True}
    assert [finding.id for finding in examine(answers).findings] == ["credentials-refused"]


@pytest.mark.parametrize(("trusted", "severity"), [
    (recording.ROLE_ARN, "note"),
    (f"arn:aws:iam::{recording.ACCOUNT_ID}:role/another", "error"),
    (f"arn:aws:iam::{recording.ACCOUNT_ID}:root", "error"),
])  # fmt: skip
def test_a_role_that_the_pods_role_may_assume_is_meant_and_no_other_is(trusted, severity):
    statement = {"Effect": "Allow", "Principal": {"AWS": trusted}, "Action": "sts:AssumeRole"}
    arn = f"arn:aws:iam::{recording.ACCOUNT_ID}:role/other"
    answers = changed(caller={"arn": f"arn:aws:sts::{recording.ACCOUNT_ID}:assumed-role/other/s"}) | {
        f"iam:GetRole other ({recording.ACCOUNT_ID})": {
            "Arn": arn, "RoleName": "other", "AssumeRolePolicyDocument": {"Statement": [statement]},
        },
    }  # fmt: skip
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == ("credentials-of-another-identity", severity)
    # If STS refuses the pod's token, the pod's identity isn't the role's work.
    answers[recording.EXCHANGE] |= refusal("AccessDenied")
    assert [each.severity for each in examine(answers).findings if each.id == finding.id] in ([], ["error"])


def from_a_secret(caller):
    """A pod whose author mounts a token and takes AWS_ROLE_ARN from a Secret, and a service account without a role."""
    answers = recording.healthy()
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    (container,) = answers[recording.PODS][0]["spec"]["containers"]
    reference = {"secretKeyRef": {"name": "aws", "key": "role"}}
    file = {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": recording.TOKEN_FILE}
    container["env"] = [{"name": "AWS_ROLE_ARN", "valueFrom": reference}, file]
    return answers | {recording.CALLER: caller}


def test_an_arn_with_a_line_break_from_a_secret_is_named_by_the_error_of_sts():
    said = "An error occurred (ValidationError) when calling AssumeRoleWithWebIdentity: Request ARN is invalid"
    findings = examine(from_a_secret({"arn": "", "error": said}), probe=True).findings
    assert [each.id for each in findings if each.severity == "error"] == ["pod-role-arn-malformed"]
    assert "AWS_ROLE_ARN of the Secret aws" in findings[0].found and commands(findings[0].repair) == []


def test_without_a_probe_nothing_is_claimed_about_a_role_that_a_secret_names():
    diagnosis = examine(from_a_secret({"arn": "", "error": ""}), probe=False)
    assert "service-account-annotation-missing" not in [each.id for each in diagnosis.findings]
    (unread,) = [each for each in diagnosis.unread if "Secret aws" in each.call]
    assert unread.needs == "--probe"


def test_the_meaning_of_an_error_with_one_cause_is_said_instead_of_nothing_explains_this():
    said = "An error occurred (RegionDisabledException): STS is not activated in this region for account:1"
    answers = recording.healthy() | {recording.CALLER: {"arn": "", "error": said}}
    answers[recording.EXCHANGE] = refusal("RegionDisabledException", said.partition(": ")[2])
    (finding,) = examine(answers, probe=True).findings
    assert finding.id == "credentials-refused" and "nothing that the doctor read" not in finding.summary
