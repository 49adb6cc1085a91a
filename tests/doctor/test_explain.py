"""`labkit doctor --explain`: from an error text of AWS, an SDK or a tool to its family of causes, offline."""

import json
import re
import shlex
from pathlib import Path

import pytest

from labkit.doctor import explanations
from labkit.doctor import explanations as families
from labkit.doctor.explanations import read
from labkit.errors import LabError
from tests.commands import labkit

TRUST = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
# Errors as SDKs, tools and the cluster print them, each with its family.
TEXTS = [
    (text.strip(), family)
    for family, _, text in (
        part.partition("\n") for part in Path(__file__).with_name("errors.txt").read_text().split("== ")[1:]
    )
]
DENIED = next(text for text, family in TEXTS if family == "permissions")


@pytest.mark.parametrize(("text", "family"), TEXTS, ids=[f"{family}-{i}" for i, (_, family) in enumerate(TEXTS)])
def test_a_text_leads_to_its_family_and_to_no_other(text, family):
    (explanation,) = explanations.explain(text)
    assert explanation.family == family
    assert explanation.next and all(shlex.split(line) for line in explanation.next)
    assert not re.search(r"[{}]", str(explanation))


@pytest.mark.parametrize("width", [80, 97])
def test_a_text_that_a_terminal_wrapped_within_words_is_recognised(width):
    different = []
    for text, family in TEXTS:
        lines = [line[at : at + width] for line in text.splitlines() for at in range(0, len(line), width)]
        if [each.family for each in explanations.explain("\n".join(lines))] != [family]:
            different.append(f"{family}: {lines}")
    assert different == []


@pytest.mark.parametrize(("text", "family"), [
    ("web identity role: Incorrect to\nken audience\n", "audience"),
    ("Not author\nized to perform sts:AssumeRoleWith\nWebIdentity", "trust-policy"),
])  # fmt: skip
def test_a_part_of_a_wrapped_text_is_recognised(text, family):
    assert [each.family for each in explanations.explain(text)] == [family]


def test_names_that_a_terminal_wrapped_are_read_whole():
    (explanation,) = explanations.explain("\n".join(DENIED[at : at + 80] for at in range(0, len(DENIED), 80)))
    assert explanation == explanations.explain(DENIED)[0]


def test_a_denial_by_a_vpc_endpoint_policy_comes_before_the_other_errors_of_a_log():
    denied = "not authorized to perform: sts:AssumeRoleWithWebIdentity on resource: x with an explicit deny in a {}"
    log = "\n".join([TRUST, *("info: reconciling" for _ in range(40)), denied.format("VPC endpoint policy")])
    assert [each.family for each in explanations.explain(log)] == ["vpc-endpoint", "trust-policy"]


@pytest.mark.parametrize(("kind", "other"), [("service", "resource"), ("resource", "service")])
@pytest.mark.parametrize("said", ["with an explicit deny in a {} control policy", "no {} control policy allows it"])
def test_service_control_policies_and_resource_control_policies_are_told_apart(kind, other, said):
    denied = "User: x is not authorized to perform: s3:GetObject on resource: y " + said.format(kind)
    (alone,) = explanations.explain(denied)
    assert alone.family == f"{kind}-control-policy"
    assert f"--filter {kind.upper()}_CONTROL_POLICY" in str(alone)
    assert f"{other}-control-policy" not in str(alone)
    assert f"{other.upper()}_CONTROL_POLICY" not in str(alone)


def test_errors_txt_has_a_text_for_every_family():
    assert {family.name for family in families.FAMILIES} == {family for _, family in TEXTS}


def test_the_next_commands_use_the_names_in_the_text():
    (denied,) = explanations.explain(DENIED)
    assert denied.next == (
        "labkit doctor -n NAMESPACE -s SERVICE_ACCOUNT --action s3:ListBucket --resource arn:aws:s3:::irsa-lab",
        "aws iam list-attached-role-policies --role-name my-role",
    )
    (missing,) = explanations.explain('error looking up service account shop/cart: serviceaccount "cart" not found')
    assert missing.next == ("labkit doctor -n shop -s cart",)


@pytest.mark.parametrize("why", [
    "because no identity-based policy allows the s3:GetObject action",
    "because no permissions boundary allows the s3:GetObject action",
    "with an explicit deny in a permissions boundary",
    "because no resource-based policy allows the s3:GetObject action",
    "with an explicit deny in a resource-based policy",
    "with an explicit deny in a service control policy",
    "with an explicit deny in a resource control policy",
])  # fmt: skip
def test_the_next_command_of_a_denial_asks_about_the_denied_action(why):
    denied = f'User: x is not authorized to perform: s3:GetObject on resource: "arn:aws:s3:::shop/cart" {why}'
    (explanation,) = explanations.explain(denied, namespace="shop", service_account="cart")
    command, options = "labkit doctor -n shop -s cart", "--action s3:GetObject --resource arn:aws:s3:::shop/cart"
    assert explanation.next[0] == f"{command} {options}"


def test_a_shell_command_in_a_text_is_not_taken_for_a_name():
    (explanation,) = explanations.explain('serviceaccount "$(reboot)" not found; serviceaccount "cart" not found')
    assert explanation.next == ("labkit doctor -n NAMESPACE -s cart",)


def test_an_unknown_text_gets_no_explanation():
    assert explanations.explain("segmentation fault") == []
    assert explanations.explain("") == []


def test_an_error_in_the_middle_of_a_long_log_is_recognised():
    log = "2026-01-01 info: reconciling assumed-role sts.amazonaws.com serviceaccount/token\n" * 12_000
    (explanation,) = explanations.explain(f"{log}{TRUST}\n{log}")
    assert explanation.family == "trust-policy"


def doctor(*arguments, **options):
    return labkit("doctor", *arguments, **options)


def test_the_command_explains_without_a_lab(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / ".lab"))
    done = doctor("--explain", TRUST)
    assert done.returncode == 0, done.stderr
    assert "trust-policy-sub-mismatch" in done.stdout
    assert "labkit doctor -n" in done.stdout
    piped = doctor("--explain", "-", "--json", given=f"{TRUST}\n")
    assert [each["family"] for each in json.loads(piped.stdout)] == ["trust-policy"]
    unknown = doctor("--explain", "segmentation fault")
    assert unknown.returncode == 2
    assert "doesn't recognise" in unknown.stderr
    assert "next:  labkit doctor -n NAMESPACE -s SERVICE_ACCOUNT, which" in unknown.stderr
    named = doctor("--explain", "banana", "-n", "q1", "-s", "app", "--pod", "it's", "--role", "reader")
    assert """next:  labkit doctor -n q1 -s app --pod 'it'"'"'s' --role reader, which""" in named.stderr
    as_json = doctor("--explain", "segmentation fault", "--json")
    assert (as_json.returncode, json.loads(as_json.stdout)["ok"]) == (2, False)
    assert not (tmp_path / ".lab").exists()


def test_the_next_commands_contain_the_names_that_the_user_gives():
    done = doctor("--explain", "Incorrect token audience", "-n", "shop", "-s", "cart")
    assert "next          labkit doctor -n shop -s cart --probe" in done.stdout
    (explanation,) = explanations.explain("Incorrect token audience", namespace="it's")
    assert explanation.next[0].startswith("""labkit doctor -n 'it'"'"'s' -s""")


@pytest.mark.parametrize("options", [
    ("--all",),
    ("--probe",),
    ("--repair",),
    ("--action", "s3:ListBucket"),
    ("--resource", "arn:aws:s3:::x"),
    ("--account-id", "123456789012"),
    ("--target", "moto"),
    ("--cluster", "blue"),
    ("--region", "us-east-1"),
    ("--kubeconfig", "file"),
    ("--context", "green"),
])  # fmt: skip
def test_an_option_without_effect_beside_explain_is_refused(options):
    done = doctor("--explain", TRUST, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"it can't be combined with {options[0]}." in done.stderr


@pytest.mark.parametrize(("before", "after", "said"), [
    ("means =", "meens =", "'meens' is not a key. Did you mean 'means'?"),
    ("\n[commands]", "\n[comands]", "'comands' is not a key. Did you mean 'commands'?"),
    ('means = "', 'means = 1 # "', "'means': Input should be a valid string."),
    ('ids = ["@audience"]', 'ids = ["@audiense"]', "'audiense' is not a list in [ids]. Did you mean 'audience'?"),
    ('"@probe",', '"@prob --all",', "'prob' is not a command. Did you mean 'probe'?"),
    ("'Incorrect token audience'", "'(Incorrect'", "'(Incorrect' is not a regular expression: "),
    ("\n[[family]]", "\n[[family]", "This isn't TOML: "),
])  # fmt: skip
def test_a_mistake_in_the_file_of_families_is_one_sentence(tmp_path, before, after, said):
    head, *rows = Path(explanations.__file__).with_name("families.toml").read_text().split("\n[[family]]\n")
    (audience,) = [row for row in rows if 'name = "audience"' in row]
    file = tmp_path / "families.toml"
    file.write_text(f"{head}\n[[family]]\n{audience}".replace(before, after))
    with pytest.raises(LabError) as refused:
        read(file)
    assert refused.value.what.startswith(said)
    assert refused.value.where in (str(file), f"{file}, family 'audience'")
