"""Service accounts that have an EKS Pod Identity association: findings about IRSA leave their pods to it."""

import pytest

from labkit.steps import pod
from labkit.webhook import AccountSettings
from labkit.webhook.review import POD_IDENTITY, pod_patch
from tests.doctor import recording
from tests.doctor.applying import made
from tests.doctor.pods import examine, found
from tests.doctor.recording import healthy
from tests.doctor.repairing import commands

KEY = "eks.amazonaws.com/role-arn"
ASSOCIATION = {"namespace": "default", "serviceAccount": "my-service-account", "associationId": "a-1"}
SESSION = f"arn:aws:sts::{recording.ACCOUNT_ID}:assumed-role/by-association/eks-blue-my-pod"
ANNOTATED = "2026-01-01T00:04:00Z"  # a minute before `made` makes a pod
TOO = "pod-identity-association-too"


def associated(*, caller=None, pod_identity=True, **answers):
    """A lab with an association that is older than the pod, and what a probe of the pod finds."""
    found = healthy() | {
        recording.ASSOCIATIONS: [ASSOCIATION],
        recording.CALLER: caller or {"arn": SESSION, "error": ""},
    }
    del found[recording.TOKEN], found[recording.EXCHANGE]
    fields = {"f:metadata": {"f:annotations": {f"f:{KEY}": {}}}}
    found[recording.SERVICE_ACCOUNTS][0]["metadata"]["managedFields"] = [{"time": ANNOTATED, "fieldsV1": fields}]
    bare = made(pod.build(recording.PARAMETERS), found | {recording.WEBHOOK: None})
    if pod_identity:
        for change in pod_patch(bare, AccountSettings(), method=POD_IDENTITY):
            bare["spec"][change["path"].split("/")[2]] = (
                [change["value"]] if change["path"].endswith("/0") else change["value"]
            )
    found[recording.PODS] = [bare]
    return found | answers


def dry_run(**made):
    return {
        recording.METRICS: {},
        recording.METRICS_AGAIN: {},
        recording.DRY_RUN: {"has_role": False, "refused": "", **made},
    }


@pytest.mark.parametrize("probe", [False, True])
def test_a_pod_that_has_the_associations_role_was_not_passed_over_by_the_webhook(probe):
    assert found(associated(), probe=probe) == [TOO]


def test_a_probe_says_which_role_a_pod_beside_an_association_has():
    (finding,) = examine(associated(), probe=True).findings
    assert finding.severity == "warning"
    assert "the pod my-pod gets that role. So do new pods" in finding.summary
    assert finding.found.endswith("; in the pod my-pod: assumed-role/by-association")
    assert "The pod my-pod uses assumed-role/by-association." in finding.repair
    assert "--probe" not in finding.repair and commands(finding.repair) == []

    of_irsa = healthy() | {recording.ASSOCIATIONS: [ASSOCIATION]}
    (finding,) = examine(of_irsa, probe=True).findings
    assert finding.found.endswith("; in the pod my-pod: assumed-role/my-role")

    (finding,) = examine(associated()).findings
    assert finding.found.endswith("the association a-1") and "Find out with --probe" in finding.repair


def test_a_pod_that_gets_nothing_from_its_association_is_an_error_that_shows_the_agent():
    answers = associated(caller={"arn": "", "error": "Connection refused"})
    (finding,) = examine(answers, probe=True).findings
    assert (finding.id, finding.severity) == (TOO, "error")
    assert finding.found.endswith("; in the pod my-pod: Connection refused")
    assert "eks-pod-identity-agent" in finding.repair


def proxied(address="169.254.170.23", caller=None, **settings):
    """A pod with an association and no annotation, and with these variables."""
    answers = associated(caller=caller)
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    container = answers[recording.PODS][0]["spec"]["containers"][0]
    for variable in container["env"]:
        variable["value"] = variable["value"].replace("169.254.170.23", address)
    container["env"] += [{"name": name, "value": value} for name, value in settings.items()]
    return answers


PROXY = "http://proxy.example.com:3128"


@pytest.mark.parametrize(("settings", "is_wrong"), [
    ({"HTTP_PROXY": PROXY}, True),
    ({"http_proxy": PROXY, "NO_PROXY": "169.254.169.254,sts.us-east-1.amazonaws.com"}, True),
    # The agent's address has no TLS.
    ({"HTTPS_PROXY": PROXY}, False),
    ({"HTTP_PROXY": PROXY, "no_proxy": "localhost,169.254.170.23"}, False),
])  # fmt: skip
@pytest.mark.parametrize("probe", [False, True])
def test_a_proxy_between_the_pod_and_the_agent_is_a_warning_that_names_the_agents_address(settings, is_wrong, probe):
    findings = [each for each in examine(proxied(**settings), probe=probe).findings if each.severity != "note"]
    assert [finding.id for finding in findings] == ["pod-proxy-without-no-proxy"] * is_wrong
    for finding in findings:
        assert (finding.severity, finding.expected) == ("warning", "NO_PROXY with 169.254.170.23")
        assert "the Pod Identity Agent" in finding.summary
        assert "STS" not in finding.summary + finding.repair


def test_a_proxy_that_keeps_credentials_from_the_pod_explains_that_it_has_none():
    lost = {"arn": "", "error": "Error retrieving metadata: Failed to connect to proxy URL"}
    answers = proxied("[fd00:ec2::23]", lost, HTTP_PROXY=PROXY, NO_PROXY="localhost")
    (finding,) = examine(answers, probe=True).findings
    assert (finding.id, finding.severity) == ("pod-proxy-without-no-proxy", "error")
    assert '"value": "localhost,[fd00:ec2::23]"' in finding.repair
    assert found(proxied("[fd00:ec2::23]", HTTP_PROXY=PROXY, NO_PROXY="[fd00:ec2::23]"), probe=True) == [TOO]
    assert found(proxied("[fd00:ec2::23]", HTTP_PROXY=PROXY, NO_PROXY="fd00:ec2::23"), probe=True) == [TOO]


def test_a_pod_with_variables_of_a_deleted_association_is_replaced():
    finding, *_ = examine(associated(**{recording.ASSOCIATIONS: []})).findings
    assert finding.id == "webhook-passed-over-pod"
    assert "of an association that no longer exists" in finding.found
    assert commands(finding.repair)[0].startswith("kubectl delete pod my-pod")


@pytest.mark.parametrize("at", [ANNOTATED, "2026-01-01T00:06:00Z"])
def test_a_pod_without_any_role_is_not_replaced_while_a_new_pod_would_get_the_associations_role(at):
    answers = associated(pod_identity=False, **dry_run(has_pod_identity=True))
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["managedFields"][0]["time"] = at
    for probe in (False, True):
        finding, too = examine(answers, probe=probe, pod_name="my-pod").findings[:2]
        assert finding.id in ("webhook-passed-over-pod", "pod-older-than-annotation")
        assert too.id in (TOO, "credentials-of-another-identity")
        assert commands(finding.repair) == [] and "webhook's own log" not in finding.repair
        assert "a new pod would get the role of the EKS Pod Identity association a-1" in finding.repair


def test_the_dry_run_of_a_pod_that_would_get_the_associations_role_says_so():
    answers = associated(pod_identity=False, **dry_run(has_pod_identity=True))
    finding = examine(answers, probe=True).findings[0]
    assert finding.found.endswith("a pod like this one would get the role of an EKS Pod Identity association now")


def test_the_webhooks_selectors_did_not_leave_out_a_pod_that_has_the_associations_role():
    answers = associated()
    answers[recording.WEBHOOK] = {
        "webhooks": [{**answers[recording.WEBHOOK]["webhooks"][0], "matchConditions": [{"expression": "false"}]}]
    }
    assert found(answers) == [TOO]
    answers[recording.WEBHOOK]["webhooks"][0]["objectSelector"] = {"matchLabels": {"team": "a"}}
    assert found(answers) == [TOO]


def test_a_skipped_container_is_only_a_note_beside_one_with_the_associations_role():
    answers = associated()
    answers[recording.PODS][0]["metadata"]["annotations"] = {"eks.amazonaws.com/skip-containers": "proxy"}
    answers[recording.PODS][0]["spec"]["containers"].append({"name": "proxy", "image": "proxy"})
    finding = next(each for each in examine(answers).findings if each.id == "pod-container-skipped")
    assert finding.severity == "note"


def test_a_service_account_with_an_association_needs_no_annotation():
    answers = associated()
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    for probe in (False, True):
        diagnosis = examine(answers, probe=probe)
        assert [(each.id, each.severity) for each in diagnosis.findings] == [(TOO, "note")]
    answers[recording.PODS] = []
    assert found(answers, pod_name="") == ["pod-missing", TOO]
    # This pod is older than the association, and has no role.
    answers = associated(pod_identity=False)
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    assert found(answers) == ["service-account-annotation-missing", TOO]


@pytest.mark.parametrize(("effect", "key", "value", "says"), [
    # https://github.com/awslabs/mountpoint-s3-csi-driver/issues/781
    ("Allow", "aws:SourceArn", "arn:aws:eks:*:123456789012:podidentityassociation/blue/*", "aws:SourceArn"),
    ("Allow", "aws:SourceArn", f"arn:aws:eks:*:{recording.ACCOUNT_ID}:cluster/blue", None),
    ("Allow", "aws:RequestTag/kubernetes-namespace", "shop", "kubernetes-namespace"),
    # Only the request has this value.
    ("Allow", "aws:RequestTag/kubernetes-pod-name", "web-*", None),
    ("Deny", "aws:SourceArn", "arn:aws:eks:*", "explicit Deny"),
])  # fmt: skip
def test_a_condition_that_refuses_pod_identity_is_named(effect, key, value, says):
    service = {"Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}
    statement = {"Effect": effect, **service, "Condition": {"StringLike": {key: value}}}
    document = {"Statement": [statement, *([{"Effect": "Allow", **service}] if effect == "Deny" else [])]}
    arn = f"arn:aws:iam::{recording.ACCOUNT_ID}:role/by-association"
    answers = associated() | {
        f"eks:DescribePodIdentityAssociation blue a-1 ({recording.ACCOUNT_ID})": arn,
        f"iam:GetRole by-association ({recording.ACCOUNT_ID})": {
            "Arn": arn, "RoleName": "by-association", "AssumeRolePolicyDocument": document,
        },
    }  # fmt: skip
    (finding,) = examine(answers).findings
    assert (finding.id == "pod-identity-role-refuses-eks") is bool(says)
    assert (says or "") in finding.found


@pytest.mark.parametrize(("trust", "actual"), [
    ({"Service": "ec2.amazonaws.com"}, "no statement allows sts:AssumeRole and sts:TagSession"),
    ({"Service": "pods.eks.amazonaws.com"}, "no statement allows sts:TagSession"),
    (None, "no such role"),
])  # fmt: skip
def test_an_associations_role_that_refuses_pod_identity_is_named_before_the_pod_asks(trust, actual):
    arn = f"arn:aws:iam::{recording.ACCOUNT_ID}:role/by-association"
    statement = {"Effect": "Allow", "Principal": trust, "Action": "sts:AssumeRole"}
    answers = associated() | {
        f"eks:DescribePodIdentityAssociation blue a-1 ({recording.ACCOUNT_ID})": arn,
        f"iam:GetRole by-association ({recording.ACCOUNT_ID})": trust
        and {"Arn": arn, "RoleName": "by-association", "AssumeRolePolicyDocument": {"Statement": [statement]}},
    }
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("pod-identity-role-refuses-eks", actual)
    assert not commands(finding.repair)
    statement |= {"Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}
    assert found(answers) == ([] if trust else ["pod-identity-role-refuses-eks"]) or found(answers) == [TOO]
