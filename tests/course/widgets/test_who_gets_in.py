"""Who gets in? The verdicts, the line that decides, bad input, and the button that applies the policy."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError

from labkit.course.widgets import live
from labkit.course.widgets.who_gets_in import SimulatedCaller

FIVE_REFUSED = ["policy", "policy", "provider", "audience", "expiry"]


@pytest.fixture(scope="module")
def ready(lab):
    lab.ready(through="iam_role")
    return lab


@pytest.fixture
def asked(ready):
    """The view of who gets in. Afterwards, the role gets step 2's policy back."""
    asked = ready.who_gets_in()
    yield asked
    ready.aws.client("iam").update_assume_role_policy(RoleName="my-role", PolicyDocument=asked.policy)


@pytest.fixture
def page(asked):
    """The widget, driven as a browser does it: by setting traits and sending button presses."""
    (page,) = asked.panel().children
    return page


def press(page, button):
    page._handle_custom_msg(button, [])


def edited(asked, *by):
    """Return the view with an edited policy."""
    assert by[0] in asked.policy
    return replace(asked, policy=asked.policy.replace(*by))


def test_one_of_six_callers_gets_in_and_each_refusal_names_the_deciding_line(asked):
    admitted, *refused = asked.verdicts()
    assert admitted.admitted and admitted.decides == '"Effect": "Allow",'
    assert not any(verdict.admitted for verdict in refused)
    assert [verdict.line > 0 for verdict in refused] == [by == "policy" for by in FIVE_REFUSED]
    for verdict, by in zip(refused, FIVE_REFUSED, strict=True):
        assert by == "policy" or verdict.decides == f"before the policy: the {by}"
    assert ':sub": "system:serviceaccount:default:my-service-account"' in refused[0].decides
    assert asked.headline == "1 of 6 get in: this service account."


@pytest.mark.parametrize(("by", "decides"), [
    (("sts:AssumeRoleWithWebIdentity", "sts:TagSession"), '"Action": "sts:TagSession",'),
    (("oidc-provider/", "oidc-provider/another/"), '"Principal": {'),
    (('"Effect": "Allow"', '"Effect": "Deny"'), '"Effect": "Deny",'),
    (("serviceaccount:default", "serviceaccount:*"), ':sub": "system:serviceaccount:*:my-service-account",'),
])  # fmt: skip
def test_a_refusal_names_the_policy_line_that_decides(asked, by, decides):
    # A Deny refuses because its conditions match, the others because something doesn't.
    own = edited(asked, *by).verdicts()[0]
    assert not own.admitted
    assert own.decides.endswith(decides)
    assert edited(asked, *by).policy.split("\n")[own.line - 1].strip() == own.decides


def test_the_deciding_line_is_shown_with_its_number(asked):
    (refused,) = [verdict for verdict in asked.verdicts() if verdict.caller.name == "another service account"]
    assert f"\n{refused.line:4}  " in repr(asked) and f"\n{refused.line:4}  " in asked._repr_html_()


def test_the_deciding_line_is_found_in_a_one_line_policy_and_in_two_statements(asked):
    document = json.loads(asked.policy)
    one = replace(asked, policy=json.dumps(document)).verdicts()[1]
    assert one.line == 1 and len(one.decides) == 160
    first = {**document["Statement"][0], "Action": "sts:TagSession"}
    document["Statement"].insert(0, first)
    two = replace(asked, policy=json.dumps(document, indent=1))
    assert [verdict.line for verdict in two.verdicts()[:2]] == [18, 25]


@pytest.mark.parametrize(
    ("policy", "what", "next_step"),
    [
        ("", "The policy is empty.", "press Start over"),
        (" \n", "The policy is empty.", "press Start over"),
        ('{\n  "Version": "2012-10-17",\n  oops\n}', "Line 3, column 3 isn't JSON", "correct line 3"),
        ("[" * 100_000, "nested too deeply", "press Start over"),
        ("[]", "MalformedPolicyDocument", "correct it"),
        ('{"Statement": []}', "Missing required field Statement", "correct it"),
        ('{"Statement": [{"Effect": "<script>"}]}', "Invalid effect: <script>", "correct it"),
        ("long", "LimitExceeded: Cannot exceed quota for ACLSizePerRole: 2048 characters", "shorten it"),
        ("longer", "IAM accepts at most 131072 characters, with white space. This text has", "shorten it"),
        ('{\n "Id": "★"\n}', "Line 2, column 9 has the character '★', which IAM doesn't accept", "correct line 2"),
        ("\ufeff{}", r"Line 1, column 1 has the character '\ufeff'", "correct line 1"),
    ],
    ids=["empty", "blank", "broken", "deep", "a list", "no statement", "markup", "long", "longer", "a star", "a mark"],
)
def test_a_policy_that_iam_would_refuse_says_why_and_the_next_step(asked, page, policy, what, next_step):
    if policy in ("long", "longer"):
        document = json.loads(asked.policy)
        document["Statement"] *= {"long": 20, "longer": 2000}[policy]
        policy = json.dumps(document, indent=2)
    problem = replace(asked, policy=policy)
    assert what in repr(problem) and next_step in repr(problem)
    assert "<script>" not in problem._repr_html_()
    page.policy = policy
    assert what in page.verdicts["problem"]["what"] and next_step in page.verdicts["problem"]["next"]


def test_the_roles_tags_and_the_region_count_as_in_a_real_request(ready, asked):
    tags = {"aws:ResourceTag/labkit:run": ready.parameters.run, "iam:ResourceTag/labkit:run": ready.parameters.run}
    condition = json.dumps({"StringEquals": tags | {"aws:RequestedRegion": ready.parameters.region}})
    document = json.loads(asked.policy)
    document["Statement"][0]["Condition"] = json.loads(condition)
    own = replace(asked, policy=json.dumps(document))
    assert own.headline == "3 of 6 get in: this service account, another service account, " + (
        "the same name in another namespace."
    )


@pytest.mark.parametrize("key", ["aws:SourceIp", "AWS:UserAgent", "aws:ResourceOrgID"])
def test_a_condition_that_the_simulation_cannot_know_is_named(asked, page, key):
    document = json.loads(asked.policy)
    document["Statement"][0]["Condition"]["StringLike"] = {key: "*"}
    page.policy = json.dumps(document)
    told = f"0 of 6 get in. The simulation has no value for {key}, so STS may decide otherwise."
    assert page.verdicts["headline"] == told
    assert told in repr(replace(asked, policy=page.policy))


def test_a_claim_may_hold_markup_or_a_value_of_the_wrong_type(asked):
    (odd,) = replace(asked, callers=[replace(asked.callers[0], sub="<img src=x onerror=alert(1)>")]).verdicts()
    assert not odd.admitted and "<img src=x" in odd.reason
    assert "<img" not in replace(asked, callers=[odd.caller])._repr_html_()
    sent = {"name": "x", "iss": None, "sub": 5, "aud": "a", "minutes": "never"}
    assert SimulatedCaller.of_json(sent) == SimulatedCaller("x", "None", "5", "a", 0)
    assert SimulatedCaller.of_json({"minutes": float("inf")}).minutes == 0
    (empty,) = replace(asked, callers=[SimulatedCaller.of_json({})]).verdicts()
    assert empty.reason == "InvalidIdentityToken: Missing a required claim: iss"


def test_the_page_updates_its_verdicts_when_the_policy_or_a_claim_changes(page):
    assert page.verdicts["headline"] == "1 of 6 get in: this service account."
    document = json.loads(page.policy)
    del document["Statement"][0]["Condition"]
    page.policy = json.dumps(document)
    assert page.verdicts["headline"].startswith("3 of 6 get in: ")
    page.callers = [{**page.callers[0], "aud": "me"}, *page.callers[1:]]
    assert page.verdicts["headline"].startswith("2 of 6 get in: ")
    page.request_number = 7
    assert page.verdicts["request_number"] == 7


def test_one_button_applies_the_policy_and_another_reads_it_again(ready, page):
    document = json.loads(page.policy)
    document["Statement"][0]["Condition"]["StringEquals"].popitem()
    page.policy = json.dumps(document)
    press(page, "apply")
    assert page.said.startswith("Done: my-role has this trust policy now")
    assert ready.aws.client("iam").get_role(RoleName="my-role")["Role"]["AssumeRolePolicyDocument"] == document
    page.policy = "gone"
    press(page, "start over")
    assert json.loads(page.policy) == document
    assert page.said == "Started over: this is the present trust policy of my-role."


def test_the_page_shows_iam_s_own_error_for_a_refused_policy(page):
    page.policy = "{"
    press(page, "apply")
    assert page.said.splitlines()[:2] == [
        "Nothing was changed.",
        "MalformedPolicyDocument: This policy contains invalid Json",
    ]
    assert page.said.splitlines()[-1] == f"next:  {page.verdicts['problem']['next']}"


@pytest.mark.parametrize("text", ["", "[" * 100_000, "{}", "{★}"], ids=["empty", "deep", "no statement", "a star"])
def test_the_next_step_for_a_refused_policy_is_on_the_page_and_not_in_a_cell(page, text):
    page.policy = text
    press(page, "apply")
    assert page.said.startswith("Nothing was changed.") and "cell" not in page.said
    assert page.said.endswith(f"next:  {page.verdicts['problem']['next']}")


def test_a_text_that_only_iam_can_refuse_is_corrected_on_the_page_too(page):
    document = json.loads(page.policy)
    document["Statement"][0]["Principal"] = {"AWS": "arn:aws:iam::123456789012:role/nobody"}
    page.policy = json.dumps(document)
    assert "problem" not in page.verdicts
    press(page, "apply")
    assert "Invalid principal in policy" in page.said and "cell" not in page.said
    assert page.said.endswith("next:  correct it, or press Start over, which reads the role's policy again")


def test_a_button_s_result_disappears_once_the_policy_changes(page):
    good, page.policy = page.policy, "{"
    press(page, "apply")
    assert page.said
    page.policy = good
    assert page.said == ""


def test_without_a_role_the_page_starts_with_the_policy_of_step_2(lab):
    lab.ready(before="iam_role")
    asked = lab.who_gets_in()
    (page,) = asked.panel().children
    assert asked.headline == "1 of 6 get in: this service account."
    missing = "The role my-role doesn't exist. This is the policy that step 2 gives it"
    assert missing in repr(asked) and missing in asked._repr_html_().replace("&#x27;", "'")
    assert page.said.startswith(missing)
    press(page, "apply")
    assert "NoSuchEntity" in page.said and "the cell that makes it hasn't run yet" in page.said.lower()
    press(page, "start over")
    assert page.said.startswith(missing) and "next:" in page.said
    with pytest.raises(ClientError, match="NoSuchEntity"):
        lab.aws.client("iam").get_role(RoleName="my-role")
    lab.ready(through="iam_role")


def test_the_page_does_not_change_another_run_s_role(ready, page):
    iam = ready.aws.client("iam")
    tag = {"Key": "labkit:run", "Value": "another/run/of/somebody"}
    iam.tag_role(RoleName="my-role", Tags=[tag])
    try:
        page.policy = page.policy.replace("my-service-account", "me")
        press(page, "apply")
    finally:
        iam.tag_role(RoleName="my-role", Tags=[each for each in ready.tags if each["Key"] == "labkit:run"])
    assert page.said.startswith("Nothing was changed. ") and "next:" in page.said


def test_outside_the_lab_s_account_no_policy_can_be_applied(asked):
    (page,) = replace(asked, apply=None).panel().children
    assert not page.can_apply
    press(page, "apply")
    assert page.said == ""


def test_every_form_of_the_view_says_that_it_is_a_simulation(asked, monkeypatch):
    bundle = asked._repr_mimebundle_()
    assert live.VIEW not in bundle
    for form in ("text/plain", "text/html"):
        assert "A simulation: STS isn't asked" in bundle[form].replace("&#x27;", "'")
    monkeypatch.setattr(live, "_in_kernel", lambda: True)
    assert "model_id" in asked._repr_mimebundle_()[live.VIEW]


def test_the_simulation_loads_no_package_so_that_a_browser_can_run_it():
    code = (
        "import sys; before = set(sys.modules); from labkit.course.widgets import who_gets_in\n"
        "print(who_gets_in.example(lambda: 0).headline)\n"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "assert loaded <= sys.stdlib_module_names | {'labkit'}, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1 of 6 get in: this service account.\n", "")
