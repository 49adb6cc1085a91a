"""A fleet file that can't run: one message with file, row and reason, and nothing runs."""

import fcntl
import importlib.util
from pathlib import Path

import pytest

from labkit.course import LIST_NOTEBOOKS
from labkit.runs.fleet import rows
from tests.commands import labkit
from tests.runs import notebooks

ROLE = (
    "it would overwrite the role r of row 1. A role admits the service account of only one row. "
    "Give each row a role of its own, such as  "
)
REFUSED = {
    "an empty file": ("fleet.yaml", "", "it is empty"),
    "no rows": ("fleet.yaml", "runs: []", "it has no rows"),
    "no such part": ("fleet.yaml", "rows: [{cluster: a}]", "'rows' is not a key of a fleet file. Did you mean 'runs'?"),
    "a part twice": ("fleet.yaml", "runs: []\nruns: []", "the file has 'runs' twice, line 2"),
    "not YAML": ("fleet.yaml", "runs: [", "it is not YAML"),
    "not a list": ("fleet.yaml", "runs: {a: b}", "runs has to be a list"),
    "a matrix without a list": ("fleet.yaml", "matrix: {cluster: a}", "matrix: cluster has to be a list"),
    "an unknown key": ("fleet.yaml", "runs:\n- {cluster: a}\n- {clutser: a}",
                       "row 2, line 3: 'clutser' is not a parameter of a row. Did you mean 'cluster'?"),
    "an unknown default": ("fleet.yaml", "defaults: {rolename: r}\nmatrix: {cluster: [a, b, c]}",
        "  defaults, line 1: 'rolename' is not a parameter of a row. Did you mean 'role_name'?"),
    "an unknown default that a row repeats": ("fleet.yaml",
        "defaults:\n  cluster: a\n  namspace: x\nruns:\n- {role_name: a}\n- {namspace: y}",
        "  defaults, line 3 and 1 more row: 'namspace' is not a parameter of a row. Did you mean 'namespace'?"),
    "a default that breaks its rule": ("fleet.yaml",
        "defaults: {namespace: A_b}\nruns:\n- {cluster: a}\n- {cluster: b}\n- {cluster: c, namespace: c}",
        "  defaults, line 1: parameter namespace = 'A_b' breaks its rule"),
    "a default that breaks its rule in one row": ("fleet.yaml",
        'defaults: {namespace: "{cluster}"}\nruns:\n- {cluster: a}\n- {cluster: B}',
        "  row 2, line 4: parameter namespace = 'B' breaks its rule"),
    "a default's placeholder that nobody knows": ("fleet.yaml",
        'defaults: {role_name: "{clustr}"}\nmatrix: {cluster: [a, b]}',
        "  defaults, line 1: '{clustr}' in role_name: 'clustr' is not a parameter of a row"),
    "an unknown name in matrix": ("fleet.yaml", "matrix:\n  cluster: [a, b]\n  rolename: [r]",
        "  matrix, line 3: 'rolename' is not a parameter of a row"),
    "an unknown column": ("fleet.csv", "cluster,rolename\na,r\nb,s\n",
        "  line 1: 'rolename' is not a parameter of a row"),
    "a column twice": ("fleet.csv", "cluster,cluster\na,b\n", "line 1 has the column 'cluster' twice"),
    "a line break in a name": ("fleet.csv", 'cluster,role_name\na,"r\ns"\n',
        r"row 1, line 3: parameter role_name = 'r\ns' breaks its rule"),
    "a short name of a column": ("fleet.csv", "role\nr\n",
        "'role' is not a parameter of a row. Did you mean 'role_name'?"),
    "too many values": ("fleet.csv", "cluster\na,b\n", "row 1, line 2 has 2 values, but line 1 names only 1"),
    "a bad name": ("fleet.yaml", "runs: [{namespace: A_b}]",
                   "row 1, line 1: parameter namespace = 'A_b' breaks its rule"),
    "a name that is a list": ("fleet.yaml", "runs: [{? [a] : b}]", "row 1, line 1 has a name that isn't text, line 1"),
    "a placeholder without quotes": ("fleet.yaml", "runs: [{role_name: {cluster}}]",
        'row 1, line 1: role_name isn\'t text. Braces need quotes, such as  role_name: "{cluster}-reader"'),
    "a list in matrix that is empty": ("fleet.yaml", "runs: [{cluster: a}]\nmatrix: {cluster: []}",
        "matrix: cluster is an empty list"),
    "a value that no CSV has": ("fleet.csv", f"cluster\n{'a' * 200_000}\n", "it is not CSV: field larger than"),
    "a list as a value": ("fleet.yaml", "runs: [{cluster: [a]}]",
        "parameter cluster = [] breaks its rule: text, not list"),
    "a row twice": ("fleet.yaml", "runs:\n- {cluster: a}\n- {cluster: a}", "row 2, line 3: it repeats row 1"),
    "one role for two clusters": ("fleet.yaml", "matrix: {cluster: [a, b], role_name: [r]}",
        f'row 2, matrix cluster: b, role_name: r: {ROLE}role_name: "{{cluster}}-r"'),
    "one role with two policies": ("fleet.yaml",
        "runs:\n- {role_name: r}\n- {role_name: r, policy_arn: 'arn:aws:iam::aws:policy/AmazonS3FullAccess'}",
        "it would overwrite the role r of row 1, and attach another policy"),
    "one namespace for two rows": ("fleet.yaml", "runs:\n- {role_name: a}\n- {role_name: b}",
        "in the namespace default of the cluster blue. "
        'Give each row a namespace of its own, such as  namespace: "{role_name}"'),
    "one namespace by two contexts": ("fleet.yaml", "defaults: {target: eks, account_id: '111122223333'}\n"
        "runs:\n- {role_name: a, context: x}\n- {role_name: b, context: y}",
        "in the namespace default of the cluster blue. Give each row a namespace of its own"),
    "a placeholder that nobody knows": ("fleet.yaml", 'runs: [{role_name: "{clustr}"}]', "'{clustr}' in role_name"),
    "placeholders in a circle": ("fleet.yaml", 'runs: [{cluster: "{role_name}", role_name: "{cluster}"}]',
        "The braces in cluster form a loop: cluster → role_name → cluster"),
    "an account that isn't named": ("fleet.yaml", "runs: [{target: eks}]", "target eks needs account_id"),
    "an account that isn't the lab's": ("fleet.csv", "cluster,account_id\na,012345678901\nb,123456789012\n",
        "  row 1, line 2: account_id = '012345678901', but the account of the target moto is 123456789012. "
        "Delete account_id, or set target to eks\nwhere:"),
    "an account that isn't the lab's, on kind": ("fleet.yaml", "runs: [{target: kind, account_id: '222222222222'}]",
        "account_id = '222222222222', but the account of the target kind is 123456789012"),
    "a profile without an account": ("fleet.yaml", "runs: [{profile: me}]",
        "only rows of the target eks use your credentials. Delete profile, or set target to eks"),
    "a role that is not an ARN": ("fleet.yaml", "runs: [{target: eks, account_id: '111122223333', assume_role: admin}]",
        "assume_role = 'admin' is not the ARN of a role"),
    "a confirmation in the file": ("fleet.yaml", "runs: [{confirm: yes}]", "use --yes"),
}  # fmt: skip


@pytest.mark.parametrize("options", [(), ("--plan",)], ids=["a run", "a plan"])
@pytest.mark.parametrize(("name", "text", "said"), REFUSED.values(), ids=REFUSED)
def test_an_invalid_fleet_file_is_refused_before_anything_runs(tmp_path, name, text, said, options):
    file = tmp_path / name
    file.write_text(text)
    done = labkit("fleet", file, *options, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert f"where: {file}" in done.stderr
    assert [*tmp_path.iterdir()] == [file]


def test_every_wrong_row_is_named_at_once(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text("runs:\n- {clutser: a}\n- {namespace: A_b}\n- {cluster: x}\n- {cluster: x}\n")
    printed = labkit("fleet", file, cwd=tmp_path).stderr
    assert [part for part in ("row 1,", "row 2,", "row 3,", "row 4,") if part in printed] == [
        "row 1,",
        "row 2,",
        "row 4,",
    ]


def test_every_fault_of_a_row_is_named_at_once(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text(
        'runs: [{clutser: a, confirm: yes, namespace: A_b, region: moon, role_name: {cluster}, bucket: "{clustr}",\n'
        "  target: eks, profile: me, assume_role: admin}]\n"
    )
    printed = labkit("fleet", file, cwd=tmp_path).stderr
    for reason in (
        "'clutser' is not a parameter of a row. Did you mean 'cluster'?",
        "'confirm' is not allowed in a fleet file",
        "role_name isn't text",
        "'{clustr}' in bucket: 'clustr' is not a parameter of a row. Did you mean 'cluster'?",
        "parameter namespace = 'A_b' breaks its rule",
        "parameter region = 'moon' breaks its rule",
        "target eks needs account_id",
        "set profile or assume_role, not both. To assume a role with a profile, set the profile's role_arn",
        "assume_role = 'admin' is not the ARN of a role",
    ):
        assert f"  row 1, line 1: {reason}" in printed


def test_values_fill_placeholders_and_accounts_keep_their_zeros(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text(
        "defaults: {target: eks, account_id: 012345670123,\n"
        '  namespace: "{role_name}", role_name: "{cluster}-reader"}\n'
        "runs: [{cluster: red, namespace: shop}]\nmatrix: {cluster: [green, blue]}\n"
    )
    read = rows.read(file)
    assert [row.run for row in read] == [
        "red/shop/my-service-account/red-reader",
        "green/green-reader/my-service-account/green-reader",
        "blue/blue-reader/my-service-account/blue-reader",
    ]
    assert {row.parameters.account_id for row in read} == {"012345670123"}


def test_each_row_gets_its_own_file_name_from_its_parameters(tmp_path):
    file = tmp_path / "fleet.csv"
    file.write_text(
        "cluster,region,namespace,service_account,role_name\n"
        "a,us-east-1,n,s.t,r\na,us-east-1,m,s,t.r\na,eu-west-1,o,s,q\na,us-east-1,p,s,u\n"
    )
    names = [row.name for row in rows.read(file)]
    assert len(set(names)) == 4
    assert names[3] == "a.p.s.u"


def test_rows_that_create_nothing_may_share_roles_and_namespaces(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text("matrix: {cluster: [a, b], service_account: [s, t]}")
    assert len(rows.read(file, makes=False)) == 4


def test_rows_of_the_same_run_are_refused_even_if_they_create_nothing(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text("runs:\n- {bucket: one}\n- {bucket: two}\n")
    notebook = notebooks.write(tmp_path / "in.ipynb")
    done = labkit("fleet", file, "--notebook", notebook, cwd=tmp_path)
    assert done.returncode == 2
    said = (
        "row 2, line 3: its results would overwrite the results of row 1, because both rows have the same run, "
        "blue/default/"
    )
    assert said in done.stderr


def test_a_fleet_changes_an_aws_account_only_with_yes(tmp_path):
    file = tmp_path / "fleet.yaml"
    file.write_text("runs: [{target: eks, account_id: '111122223333'}]")
    done = labkit("fleet", file, cwd=tmp_path)
    assert done.returncode == 2
    assert "The fleet would change the AWS account 111122223333." in done.stderr
    assert "--plan" in done.stderr and "--yes" in done.stderr


@pytest.mark.parametrize(("options", "said"), [
    (("--scheduler", "tls://h:1"), "The scheduler needs --tls-ca, --tls-cert, --tls-key: without TLS, anyone"),
    (("--scheduler", "tls://h:1", "--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c"),
     "The lab of the target moto listens on this machine only"),
    (("--scheduler", "tls://h:1", "--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c", "--lab-per-worker"),
     "No file a.\nwhere: --tls-ca"),
    (("--plan", "--remove"), "choose one"),
    (("--notebook", "none.ipynb"), f"No notebook none.ipynb: No such file or directory.\nnext:  {LIST_NOTEBOOKS}"),
    (("--out", "fleet.yaml"), "The results can't be written: Not a directory"),
    (("--out", "fleet.yaml", "--doctor"), "The results can't be written: File exists"),
])  # fmt: skip
def test_fleet_options_that_cannot_work_are_refused(tmp_path, options, said):
    file = tmp_path / "fleet.yaml"
    file.write_text("runs: [{cluster: a}]")
    done = labkit("fleet", file, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr and "Traceback" not in done.stderr


def test_a_folder_with_results_needs_resume_and_is_refused_while_in_use(tmp_path):
    file, out = tmp_path / "fleet.yaml", tmp_path / "out"
    file.write_text("runs: [{cluster: a}]")
    (out / "rows").mkdir(parents=True)
    (out / "rows" / "x.json").write_text("{}")
    assert "run the rows that have not succeeded:  --resume" in labkit("fleet", file, "--out", out).stderr
    with (out / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = labkit("fleet", file, "--out", out, "--resume")
    assert done.returncode == 2
    assert "Another fleet is writing its results into this folder." in done.stderr


def test_fleet_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    file = tmp_path / "fleet.yaml"
    file.write_text("runs: [{cluster: a}]")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "distributed" else find_spec(name)
    )
    done = labkit("fleet", file, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (
        2,
        'labkit: The commands fleet and diff need more packages: pip install "./labkit-….whl[fleet]"   '
        "(in a clone, build this file with: make wheel)\n",
    )
    assert not Path(tmp_path / "runs").exists()
