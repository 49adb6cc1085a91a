"""Notebooks that run out of order, with a broken step, or with other parameters."""

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import labkit
from labkit import steps
from tests.commands import labkit as command
from tests.notebooks.books import FOLDER, code, executed, outputs, printed, read

CART = {"namespace": "shop", "service_account": "cart", "role_name": "cart"}


def test_notebooks_run_out_of_order_print_their_stored_outputs(empty_lab, tmp_path):
    for name in (
        "05-verify.ipynb",
        "02-iam-role.ipynb",
        "00-the-problem.ipynb",
        "irsa.ipynb",
        "03-service-account.ipynb",
    ):
        assert outputs(executed(name, tmp_path)) == outputs((FOLDER / name).read_text()), name


@pytest.mark.parametrize(("broken", "by", "code"), [
    ("iam-role", ("role_name, PolicyArn=policy_arn", "role_name, PolicyArn='arn:aws:iam::aws:policy/None'"), "NoSuch"),
    ("trust-policy", (":aud", ":azp"), "trust-policy"),
    ("service-account", ("eks.amazonaws.com/role-arn", "eks.amazon.com/role-arn"), "annotation-key-typo"),
    ("pod", ('"serviceAccountName": service_account, ', ""), "pod-uses-another-service-account"),
])  # fmt: skip
def test_a_broken_step_fails_the_run_and_names_the_cause(broken, by, code, home, tmp_path):
    notebook = read("irsa.ipynb")
    (cell,) = [cell for cell in notebook.cells if cell.id == broken]
    assert by[0] in cell.source
    cell.source = cell.source.replace(*by)
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    done = command("run", tmp_path / "broken.ipynb", "--output", tmp_path / "out.ipynb")
    assert done.returncode == 1
    assert code in done.stderr
    assert "The doctor looked at the service account:" in done.stdout
    assert (tmp_path / "out.ipynb").is_file()


def test_a_refusal_run_again_after_the_pod_took_the_role_says_what_to_do(empty_lab):
    notebook = read("07-least-privilege.ipynb")
    at = {cell.id: index for index, cell in enumerate(notebook.cells)}
    client = NotebookClient(notebook, kernel_name="python3", timeout=120)
    with client.setup_kernel():
        for index in range(at["taken"] + 1):
            client.execute_cell(notebook.cells[index], index)
        with pytest.raises(CellExecutionError, match="AssertionError: the pod still has a session"):
            client.execute_cell(notebook.cells[at["ask"]], at["ask"])


def test_runs_with_another_cluster_or_role_work_beside_the_first(home, tmp_path):
    for parameters in ({}, {"cluster": "green", "role_name": "reader"}, {"role_name": "reader-2"}):
        run = labkit.run(FOLDER / "irsa.ipynb", tmp_path / "out.ipynb", parameters)
        assert run.ok and {check["step"] for check in run.checks} <= {*steps.ORDER}, "a run skips the exercises"
        role = parameters.get("role_name", "my-role")
        assert [f":assumed-role/{role}/" in answer["answer"] for answer in run.answers] == [True, False]
        assert "irsa-lab" in run.answers[1]["answer"]


@pytest.mark.parametrize(("theirs", "still_works"), [("pod", "credentials"), ("oidc_provider", "oidc_provider")])
def test_the_clean_up_keeps_a_provider_that_another_run_needs_or_registered(theirs, still_works, empty_lab, tmp_path):
    registered_by_this_run = theirs == "pod"
    with labkit.Lab.open() as mine, labkit.Lab.open(**CART) as cart:
        if registered_by_this_run:
            mine.ready(through="oidc_provider")
        cart.ready(through=theirs)
        done = labkit.run(FOLDER / "99-clean-up.ipynb", tmp_path / "out.ipynb")
        assert done.ok
        said = {cell.id: printed(cell) for cell in code(nbformat.read(done.output, as_version=4))}
        assert said["provider"].startswith("Kept: ")
        assert ("cart" in said["trusting"]) is registered_by_this_run
        assert "left alone OIDC provider" in said["remove"]
        assert cart.check(still_works)
        cart.remove()
