"""Actions that no permission decides about, and actions that may be misspelt."""

import pytest

from labkit.doctor import stages
from tests.doctor.recording import ACCOUNT_ID, ATTACHED, BUCKET_POLICY, PODS, ROLE, ROLE_ARN, healthy
from tests.doctor.repairing import commands
from tests.doctor.test_permissions import (
    BOUNDARY,
    READ_ONLY,
    deny,
    document,
    examine,
    inline,
    not_of_the_lab,
    policy,
)
from tests.doctor.test_role import mounting


def denied(action, **detail):
    """A lab in which every policy denies an action, according to IAM's simulator."""
    answers = healthy() | inline(guard=policy(deny("sts:*"))) | document(READ_ONLY, policy())
    role = healthy()[ROLE] | {"PermissionsBoundary": {"PermissionsBoundaryArn": BOUNDARY}}
    answers |= {ROLE: role, BUCKET_POLICY: None} | document(BOUNDARY, policy(deny("*")))
    said = {
        "EvalDecision": "explicitDeny",
        "PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": False},
        "OrganizationsDecisionDetail": {"AllowedByOrganizations": False},
    }
    answers[f"iam:SimulatePrincipalPolicy {ROLE_ARN} {action} * ({ACCOUNT_ID})"] = said
    return answers


@pytest.mark.parametrize(("action", "says"), [
    ("sts:GetCallerIdentity", "STS answers every caller, even if a policy denies this action."),
    ("sts:getcalleridentity", "STS answers every caller, even if a policy denies this action."),
    ("sts:AssumeRoleWithWebIdentity", "nobody signs this call. The trust policy of the role decides"),
    ("sts:AssumeRoleWithSAML", "nobody signs this call. The trust policy of the role decides"),
])  # fmt: skip
def test_an_action_that_needs_no_permission_is_only_a_note(action, says):
    diagnosis = examine(denied(action), action=action)
    (finding,) = diagnosis.findings
    assert (finding.id, finding.severity, diagnosis.exit_code) == ("action-needs-no-permission", "note", 0)
    assert says in finding.summary
    assert commands(finding.repair) == []
    assert not any("Simulate" in call for call in diagnosis.looked)
    assert diagnosis.results[stages.PERMISSIONS] == "note"


def test_an_action_of_sts_that_needs_a_permission_gives_no_note():
    (first, *_) = examine(denied("sts:AssumeRole"), action="sts:AssumeRole").findings
    assert first.id != "action-needs-no-permission"


@pytest.mark.parametrize(("action", "meant"), [
    ("s3:GetObjects", " Is it s3:GetObject?"),
    ("s3:NoSuch", ""),
    ("nosuch:Thing", ""),
])  # fmt: skip
def test_a_repair_that_allows_an_action_asks_first_whether_its_name_is_right(action, meant):
    answers = healthy() | document(READ_ONLY, policy())
    answers[f"iam:SimulatePrincipalPolicy {ROLE_ARN} {action} * ({ACCOUNT_ID})"] = {"EvalDecision": "implicitDeny"}
    (finding,) = examine(answers, action=action).findings
    assert finding.id == "role-lacks-permission"
    assert finding.found.endswith(f"IAM accepts any name, but AWS has no such action.{meant}")
    first, second = finding.repair.splitlines()[:2]
    assert (
        first == f"# Check the spelling of {action} first: IAM accepts any name, even if no service has such an action."
    )
    assert second.startswith("#   https://docs.aws.amazon.com/service-authorization/latest/reference/")


@pytest.mark.parametrize("attached", [[], [READ_ONLY]])
def test_what_the_role_may_do_says_nothing_about_a_role_that_the_pod_assumes_with_it(attached):
    other = f"arn:aws:iam::{ACCOUNT_ID}:role/other"
    config = f"[profile app]\nrole_arn = {other}\nsource_profile = irsa\n[profile irsa]\nrole_arn = {ROLE_ARN}\n"
    answers = mounting(denied("s3:ListBucket"), f"{config}web_identity_token_file = /token\n")
    container = answers[PODS][0]["spec"]["containers"][0]
    container["env"] = [*container.get("env", []), {"name": "AWS_PROFILE", "value": "app"}]
    answers[ATTACHED] = [each for each in answers[ATTACHED] if each["PolicyArn"] in attached]
    seen = examine(not_of_the_lab(answers), action="s3:ListBucket", role_is_known=False)
    assert (seen.findings, seen.headline[:1]) == ([], "·")
    assert seen.checks[stages.PERMISSIONS].missing == [f"depends on what {other} is allowed to do"]
    # The role itself makes the call to STS.
    answers = mounting(denied("sts:AssumeRole"), f"{config}web_identity_token_file = /token\n")
    assert "role-lacks-permission" in {each.id for each in examine(answers, action="sts:AssumeRole").findings}
