"""The journey, the check's button and the token view: as text, as HTML, and as the widget of a running notebook."""

import copy
import json
import re
import subprocess
import sys
from types import SimpleNamespace

import ipywidgets
import pytest

from labkit import steps
from labkit.course import Check
from labkit.course.widgets import live
from labkit.doctor import Comparison
from labkit.errors import LabError
from labkit.showing import table
from labkit.steps.oidc_provider import AUDIENCE

MISSING, THERE, READY = "○ to do", "● done", "● ready"
RIGHT, BROKEN = "✓ checked and right", "✗ broken"


@pytest.fixture
def iam(lab):
    return lab.aws.client("iam")


@pytest.fixture
def token(lab):
    """Return a function that makes a token of the service account for an audience."""
    from kubernetes.client import CoreV1Api

    core, parameters = CoreV1Api(lab.kubernetes), lab.parameters

    def made_for(audience=AUDIENCE, name=parameters.service_account):
        wanted = {"spec": {"audiences": [audience]}}
        return core.create_namespaced_service_account_token(name, parameters.namespace, wanted).status.token

    return made_for


@pytest.fixture
def notebook(monkeypatch):
    """Let this process pass for a notebook's kernel; return the list of widgets made."""
    made = []
    panel = live.panel
    monkeypatch.setattr(live, "_in_kernel", lambda: True)
    monkeypatch.setattr(live, "panel", lambda *arguments: made.append(panel(*arguments)) or made[-1])
    return made


def states(journey):
    return [stop.state for stop in journey.stops]


def parts(widget):
    report, below = widget.children
    button, said, _ = below.children
    return report, button, said


def text(report):
    """Return the text of a report's HTML."""
    words = re.sub(r"</td>|</?(strong|span)[^>]*>", lambda tag: " " * tag[0].startswith("</td"), report.value)
    return " ".join(re.sub(r"<style>.*</style>|<[^>]*>", "", words, flags=re.DOTALL).split())


def everything(thing):
    """Return everything that a stored notebook would hold of an object."""
    return json.dumps(thing._repr_mimebundle_(), ensure_ascii=False)


def test_the_journey_follows_the_learner_s_progress(lab):
    lab._right.clear()
    lab.ready(before="oidc_provider")
    assert states(lab.journey()) == [MISSING] * 5
    assert lab.journey().headline == "Next: the OIDC provider."
    lab.ready(through="iam_role")
    assert states(lab.journey()) == [THERE, THERE, MISSING, MISSING, MISSING]
    lab.check("oidc_provider")
    assert states(lab.journey())[:2] == [RIGHT, THERE]
    lab.ready(through="pod")
    assert states(lab.journey()) == [RIGHT, THERE, THERE, THERE, READY]
    assert lab.journey().headline == "Everything is in place. Next: the credentials in the pod."
    lab.check("credentials")
    assert lab.journey().headline == "Everything is in place, and the pod has its role."
    for step in steps.ORDER:
        lab.check(step)
    assert states(lab.journey()) == [RIGHT] * 5
    assert lab.journey().headline == "Every step is checked and right."
    assert lab.journey().stops[-1].line == "AWS knows the pod as assumed-role/my-role"


def test_a_broken_step_shows_as_broken_and_once_repaired_needs_a_new_check(lab, iam):
    lab.ready(through="iam_role")
    lab.check("iam_role")
    policy = {"RoleName": "my-role", "PolicyArn": lab.parameters.policy_arn}
    iam.detach_role_policy(**policy)
    broken = lab.journey()
    assert states(broken)[1] == BROKEN
    assert broken.headline.startswith("Broken: the IAM role.")
    assert 'lab.check("iam_role")' in broken.headline
    (finding,) = lab.check("iam_role").findings
    assert broken.stops[1].line == finding.summary
    iam.attach_role_policy(**policy)
    assert states(lab.journey())[1] == THERE
    lab.check("iam_role")
    assert states(lab.journey())[1] == RIGHT


def test_looking_at_the_journey_makes_the_pod_call_nothing(lab):
    lab._right.clear()
    lab.ready(through="pod")
    before = len(lab.trail(event="AssumeRoleWithWebIdentity"))
    assert lab.journey().stops[-1].line == "a token for sts.amazonaws.com, not tried yet"
    assert len(lab.trail(event="AssumeRoleWithWebIdentity")) == before


def test_the_journey_is_shown_as_text_and_as_html_without_scripts(lab):
    lab._right.clear()
    lab.ready(before="iam_role")
    journey = lab.journey()
    assert repr(journey).splitlines() == [
        "Next: the IAM role.",
        "From system:serviceaccount:default:my-service-account to the role my-role:",
        "  1     the OIDC provider           ● done   the issuer is registered for sts.amazonaws.com",
        "  2     the IAM role                ○ to do  no such role",
        "  3     the service account         ○ to do  no such service account",
        "  4–5   the pod                     ○ to do  no such pod",
        "  6–10  the credentials in the pod  ○ to do  no pod runs",
    ]
    html = journey._repr_html_()
    assert "<td>1</td><td>the OIDC provider</td><td>● done</td>" in html
    assert not re.search(r"<style|<script|class=|https?://", html)


def test_outside_a_notebook_nothing_is_shown_as_a_widget(lab, token):
    lab.ready(through="service_account")
    for thing in (lab.journey(), lab.check("oidc_provider"), lab.token(token())):
        assert {"text/plain", "text/html"} <= set(thing._repr_mimebundle_())
        assert live.VIEW not in thing._repr_mimebundle_()


def test_importing_labkit_and_opening_a_lab_does_not_import_ipywidgets(lab):
    code = (
        "import sys, labkit; lab = labkit.Lab.open(cluster=sys.argv[1]); "
        "lab.check('oidc_provider'); repr(lab.journey()); "
        "print('ipywidgets' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, lab.parameters.cluster], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_an_exercise_s_button_is_a_short_imperative(notebook):
    judged = Check("00-a", "exercise 00-a, let the node's role do less", (), (), lambda: judged)
    judged._repr_mimebundle_()
    _, button, _ = parts(notebook[0])
    assert button.description == "Check 00-a"


def test_a_kernel_is_distinguished_from_a_terminal(monkeypatch):
    for shell, kernel in ((None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=object()), True)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert live._in_kernel() is kernel


def test_pressing_the_button_reads_the_live_lab_again(lab, iam, notebook):
    lab.ready(through="oidc_provider")
    bundle = lab.check("oidc_provider")._repr_mimebundle_()
    assert bundle[live.VIEW]["model_id"] == notebook[0].model_id
    report, button, said = parts(notebook[0])
    assert isinstance(button, ipywidgets.Button) and button.description == "Check the OIDC provider again"
    assert "✓ right: the OIDC provider" in text(report)

    button.click()
    assert "nothing has changed" in said.value
    audience = {"OpenIDConnectProviderArn": lab.provider_arn, "ClientID": AUDIENCE}
    iam.remove_client_id_from_open_id_connect_provider(**audience)
    button.click()
    assert "oidc-provider-audience-missing" in report.value
    assert '<span class="labkit-state labkit-wrong">✗ wrong:</span> the OIDC provider' in report.value
    assert "✗ wrong: the OIDC provider" in text(report)
    assert "it has changed" in said.value
    iam.add_client_id_to_open_id_connect_provider(**audience)
    button.click()
    assert "✓ right: the OIDC provider" in text(report)


def test_the_look_again_button_shows_newer_checks(lab, notebook):
    lab._right.clear()
    lab.ready(through="oidc_provider")
    lab.journey()._repr_mimebundle_()
    report, button, _ = parts(notebook[0])
    assert button.description == "Look again"
    assert "✓ checked and right" not in report.value
    lab.check("oidc_provider")
    button.click()
    assert '<span class="labkit-state labkit-right">✓ checked and right</span>' in report.value


def test_an_error_while_reading_is_shown_in_the_panel():
    def fails():
        raise failures.pop(0)

    failures = [LabError("The lab no longer answers.", next="labkit up"), ValueError("<b>")]
    report, button, said = parts(live.panel("<p>fine</p>", fails, "Check"))
    button.click()
    assert "The lab no longer answers.\nnext:  labkit up" in report.value
    assert "fine" not in report.value and "it failed" in said.value
    button.click()
    assert "ValueError: &lt;b&gt;" in report.value


def test_a_pressed_button_says_checking_before_the_lab_is_read():
    seen: list[str] = []

    def reads():
        seen.append(said.value)
        return "<p>fine</p>"

    _, button, said = parts(live.panel("<p>fine</p>", reads, "Check"))
    button.click()
    assert seen == ["Checking …"]
    assert "nothing has changed" in said.value


def test_a_cell_carries_its_column_s_name_and_a_table_without_names_is_unchanged():
    named = live.labelled(table([("1", "<td>")], ("step", 'a "b"')))
    assert '<td data-column="step">1</td><td data-column="a &quot;b&quot;">&lt;td&gt;</td>' in named
    bare = table([("1", "2")])
    assert live.labelled(bare) == bare


def compared(right, expected, found):
    rows = [Comparison("the issuer", expected, found, right)]
    return live.styled(Check("step", "the step", rows, [])._repr_html_()).partition("</style>")[2]


def test_a_check_that_is_all_right_is_one_line_that_unfolds():
    assert re.search("<details><summary>.*✓ right:.*</summary><table.*</table></details>", compared(True, "a", "a"))
    assert "<details>" not in compared(False, "a", "b")


def test_an_issuer_has_a_short_name_unless_a_row_compares_two():
    issuer = "https://oidc.eks.us-east-1.amazonaws.com/id/5321EAF5DE6E4333EB8626A124C5D1B9"
    elsewhere = issuer.replace("east", "west")
    shown = re.sub("<.*?>", "|", compared(True, f"{issuer}:sub", f"{issuer}:sub"))
    assert shown.count("|…D1B9|:sub") == 2 and "oidc" not in shown
    shown = re.sub("<.*?>", "", compared(False, issuer, elsewhere))
    assert "us-east-1" in shown and "us-west-1" in shown


def test_a_check_whose_findings_are_warnings_warns():
    finding = SimpleNamespace(severity="warning", as_text=lambda **_: "! It is wide.", as_html=lambda **_: "")
    check = Check("role", "the role", [Comparison("subject", "a", "b"), Comparison("action", "a", "a")], [finding])
    assert not check and "✗" not in repr(check) + check._repr_html_()
    assert repr(check).splitlines()[:2] == ["! warning: the role", "  ! warning  subject  expected  a"]
    assert "  ✓ right    action   a" in repr(check)


def test_only_the_words_of_a_state_are_coloured():
    assert live.coloured("<td><code>✓ right</code></td>") == "<td><code>✓ right</code></td>"
    assert live.coloured("<td>○ to do</td>").count("labkit-missing") == 1


def test_the_token_view_says_who_compares_which_claim(lab, token):
    lab.ready(through="service_account")
    view = lab.token(token())
    assert view
    assert [(row.field, row.where.partition(": ")[0], row.matches) for row in view.rows] == [
        ("iss", "OIDC provider", True),
        ("aud", "OIDC provider", True),
        ("exp", "STS", True),
        ("provider", "trust policy", True),
        ("sub", "trust policy", True),
        ("aud", "trust policy", True),
    ]
    text = repr(view)
    assert text.startswith("✓ right: the provider and the trust policy of my-role accept this token\n")
    assert "in the token  system:serviceaccount:default:my-service-account" in text
    assert "serviceaccount my-service-account" in text
    assert "<date>" in text and "&lt;date&gt;" in view._repr_html_()


def test_the_token_view_marks_a_wrong_audience_and_another_service_account(lab, token):
    lab.ready(through="service_account")
    view = lab.token(token(audience="somebody-else"))
    assert not view
    wrong = [(row.field, row.where.partition(": ")[0]) for row in view.rows if not row.matches]
    assert wrong == [("aud", "OIDC provider"), ("aud", "trust policy")]
    (wrong,) = [row for row in lab.token(token(name="default")).rows if not row.matches]
    assert (wrong.field, wrong.presented) == ("sub", "system:serviceaccount:default:default")


def test_the_token_view_s_button_marks_a_token_that_has_expired_meanwhile(lab, token, notebook):
    lab.ready(through="service_account")
    lab.token(token())._repr_mimebundle_()
    report, button, _ = parts(notebook[0])
    assert "✗ wrong" not in text(report)
    try:
        lab.clock.advance(hours=2)
        button.click()
    finally:
        lab.clock.reset()
    assert re.search(r"✗ wrong exp 20\d\d-\S+ after 20\d\d-", text(report))


def test_the_token_view_names_a_missing_role_or_provider_and_a_wrong_action(lab, iam, token):
    lab.ready(through="service_account")
    genuine = token()
    lab.ready(before="iam_role")
    assert "AccessDenied: the role my-role doesn't exist." in repr(lab.token(genuine))
    lab.ready(through="iam_role")
    document = iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]
    document["Statement"][0]["Action"] = "sts:TagSession"
    iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(document))
    view = lab.token(genuine)
    assert not view and all(row.matches for row in view.rows)
    assert (
        "AccessDenied: " in repr(view) and "sts:AssumeRoleWithWebIdentity" in repr(view).rpartition("AccessDenied")[2]
    )
    lab.ready(before="oidc_provider")
    assert "✗ wrong  iss" in repr(lab.token(genuine))


def test_a_condition_on_the_request_isnt_a_claim_and_counts_as_sts_counts_it(lab, iam, token):
    lab.ready(through="service_account")
    genuine, good = token(), iam.get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"]

    def view(**condition):
        document = copy.deepcopy(good)
        document["Statement"][0]["Condition"] |= condition
        iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(document))
        return lab.token(genuine)

    try:
        region, run = lab.parameters.region, lab.parameters.run
        assert view(StringLike={"aws:RequestedRegion": region, "aws:ResourceTag/labkit:run": run})
        assert view(Bool={"aws:SecureTransport": "true"}, DateGreaterThan={"aws:CurrentTime": "2020-01-01T00:00:00Z"})
        elsewhere = view(StringLike={"aws:RequestedRegion": "mars-*"})
        assert not elsewhere and all(row.matches for row in elsewhere.rows)
        assert f'wants aws:RequestedRegion StringLike "mars-*" and the request has "{region}"' in repr(elsewhere)
        for key in ("aws:SourceIp", "sts:RoleSessionName"):
            said = repr(view(StringLike={key: "*"}))
            assert f"This view has no value for {key}, so STS may decide otherwise." in said
    finally:
        iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(good))


def test_no_output_of_a_widget_holds_a_secret(lab, token, notebook):
    lab.ready(through="pod")
    secret = token()
    keys = lab.aws.get_credentials()
    for thing in (lab.token(secret), lab.journey(), lab.check("credentials")):
        shown = everything(thing)
        shown += "".join(child.value for widget in notebook for child in parts(widget) if hasattr(child, "value"))
        for part in [*secret.split("."), keys.secret_key]:
            assert part not in shown


def test_the_token_view_refuses_other_text_without_repeating_it(lab):
    for text in ("not-a-token", "se.cr.et", None):
        with pytest.raises(LabError, match="This is not a web identity token") as refused:
            lab.token(text)
        assert not text or text not in str(refused.value)
