import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import pytest

import labkit
from labkit.errors import UnknownName
from labkit.run_parameters import InvalidParameter, Parameters, label_value, read_cells


def test_the_defaults_are_those_of_the_notebooks():
    parameters = Parameters.checked()
    assert parameters.run == "blue/default/my-service-account/my-role"
    assert parameters.subject == "system:serviceaccount:default:my-service-account"
    assert [parameters.account_id, parameters.kubeconfig, parameters.context, parameters.image] == [""] * 4


@pytest.mark.parametrize(("name", "value", "rule"), [
    ("target", "aws", "one of 'moto', 'kind' or 'eks'"),
    ("cluster", "no blanks", "1 to 100 letters"),
    ("cluster", "-first", "1 to 100 letters"),
    ("cluster", "", "1 to 100 letters"),
    ("region", "us-east-9", "a region that botocore knows"),
    ("region", "aws-global", "a region that botocore knows"),
    ("namespace", "Team_A", "DNS-1123 label"),
    ("namespace", "a" * 64, "DNS-1123 label"),
    ("namespace", "trailing-", "DNS-1123 label"),
    ("service_account", "My.Account", "DNS-1123 subdomain"),
    ("service_account", "a" * 254, "DNS-1123 subdomain"),
    ("service_account", "a..b", "DNS-1123 subdomain"),
    ("role_name", "r" * 65, "1 to 64 letters"),
    ("role_name", "rôle", "1 to 64 letters"),
    ("role_name", "my-role\n", "1 to 64 letters"),
    ("role_name", "arn:aws:iam::123456789012:role/x", "1 to 64 letters"),
    ("policy_arn", "AmazonS3ReadOnlyAccess", "the ARN of a policy"),
    ("policy_arn", "arn:aws:iam::aws:role/x", "the ARN of a policy"),
    ("bucket", "Upper", "3 to 63 lower-case"),
    ("bucket", "192.168.5.4", "3 to 63 lower-case"),
    ("bucket", "a..b", "3 to 63 lower-case"),
    ("bucket", "xn--bucket", "3 to 63 lower-case"),
    ("bucket", "bucket-s3alias", "3 to 63 lower-case"),
    ("account_id", "12345", "12 digits"),
    ("account_id", 12345678901, "12 digits"),
    ("kubeconfig", "/no/such/file", "a kubeconfig file that exists"),
    ("context", "two words", "without white space"),
    ("cluster", True, "text, not bool"),
    ("cluster", 1.5, "text, not float"),
    ("namespace", None, "text, not NoneType"),
    ("namespace", ["a"], "text, not list"),
    ("confirm", "maybe", "empty, or yes"),
])  # fmt: skip
def test_a_broken_parameter_is_named_with_its_value_and_its_rule(name, value, rule):
    with pytest.raises(InvalidParameter) as refusal:
        Parameters.checked(**{name: value})
    text = str(refusal.value)
    assert f"parameter {name} = {repr(value)[:60]}" in text
    assert rule in text
    assert "nothing was changed" in text


@pytest.mark.parametrize(("name", "value"), [
    ("namespace", "a" * 63),
    ("service_account", "a.b-c.d"),
    ("service_account", "a" * 253),
    ("role_name", "r" * 64),
    ("role_name", "a+b=c,d.e@f-g_h"),
    ("policy_arn", "arn:aws:iam::123456789012:policy/team/read"),
    ("policy_arn", "arn:aws-us-gov:iam::aws:policy/AmazonS3ReadOnlyAccess"),
    ("account_id", "012345678901"),
    ("region", "cn-north-1"),
    ("bucket", "a.b-c"),
])  # fmt: skip
def test_a_valid_parameter_is_kept_unchanged(name, value):
    assert getattr(Parameters.checked(**{name: value}), name) == value


def test_a_name_that_papermill_turned_into_a_number_is_accepted():
    assert Parameters.checked(namespace=42, account_id=123456789012).namespace == "42"


def test_every_broken_parameter_is_named_at_once():
    with pytest.raises(InvalidParameter) as refusal:
        Parameters.checked(namespace="A", role_name="")
    assert "parameter namespace" in str(refusal.value)
    assert "parameter role_name" in str(refusal.value)


def test_an_unknown_parameter_names_the_nearest_known_one():
    with pytest.raises(UnknownName, match=r"'rolename' is not a parameter of the lab\. Did you mean 'role_name'\?"):
        Parameters.checked(rolename="reader")


TAGGED = 'target = "moto"  # where\ncluster: str = "blue"\nnamespace = "default"'


def test_the_last_assignment_in_a_notebooks_cells_wins():
    cells = ["", TAGGED, '# Parameters\ncluster = "green"\nrole_name = "reader"\n', "import labkit"]
    assert read_cells(cells, {}) == {
        "target": "moto",
        "cluster": "green",
        "namespace": "default",
        "role_name": "reader",
    }


def test_a_misspelt_injected_parameter_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'role_name'") as refusal:
        read_cells([TAGGED, '# Parameters\nrolle_name = "reader"\n'], {})
    assert "papermill" in str(refusal.value)


def test_a_misspelt_name_in_the_cell_of_parameters_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'bucket'"):
        read_cells([TAGGED + '\nbuckett = "x"'], {})


def test_assignments_in_other_cells_are_not_parameters():
    cells = [TAGGED, 'answer = "x"\nother = 3\nwrong = [1]', "context = open('x')", "this is (no python"]
    assert read_cells(cells, {"context": object()}).keys() == {"target", "cluster", "namespace"}


def test_a_computed_parameter_gets_its_current_value():
    assert read_cells(['cluster = f"team-{3}"\nregion = "us-east-1"'], {"cluster": "team-3"})["cluster"] == "team-3"


def test_parameters_are_read_from_a_scripts_global_variables(tmp_path):
    script = tmp_path / "script.py"
    script.write_text('import labkit\ncluster = "from-a-script"\nfound = labkit.parameters()\n')
    assert runpy.run_path(str(script), run_name="__main__")["found"] == {"cluster": "from-a-script"}


def test_parameters_are_read_from_global_variables_if_a_notebook_has_no_history(monkeypatch):
    variables = {"In": [""], "get_ipython": print, "target": "kind", "cluster": "green", "other": "x", "image": 3}
    monkeypatch.setitem(sys.modules, "__main__", SimpleNamespace(**variables))
    assert labkit.parameters() == {"target": "kind", "cluster": "green"}


def test_a_runs_label_fits_into_63_characters_and_is_unique():
    assert Parameters.checked().labels == {
        "labkit/lab": "irsa",
        "labkit/run": "blue.default.my-service-account.my-role",
    }
    long = [label_value(f"blue/default/{'a' * 60}/role-{end}") for end in "xy"]
    assert all(len(value) <= 63 for value in long)
    assert long[0] != long[1]
    assert label_value("a/b/c/d=e") != label_value("a/b/c/d+e")


def test_a_run_that_cannot_be_a_tag_gets_its_own_tag_value():
    odd = [Parameters.checked(role_name=name).run for name in ("a,b", "a_b", "a+b")]
    assert len({*odd}) == 3
    assert odd[1:] == ["blue/default/my-service-account/a_b", "blue/default/my-service-account/a+b"]
    names = {"cluster": "c" * 100, "namespace": "n" * 63, "role_name": "r" * 64}
    long = [Parameters.checked(**names, service_account="s" * 150 + end).run for end in "xy"]
    assert long[0] != long[1]
    assert all(re.fullmatch(r"[A-Za-z0-9_.:/=+@-]{1,256}", run) for run in (*odd, *long))


def test_importing_labkit_imports_neither_boto3_nor_kubernetes_nor_pydantic():
    program = (
        "import sys, labkit, labkit.errors; print([m for m in ('boto3', 'kubernetes', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
