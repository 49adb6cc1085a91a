"""A failing cell shows a few lines and the next step. nbval and papermill still see an error; %tb shows it all."""

import nbformat
import papermill
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from papermill.exceptions import PapermillExecutionError

END = "from labkit.simulator import process\nfrom labkit.simulator.folder import Folder\nprocess.stop(Folder.find())\n"
# A beginner's mistakes: each with its cell, the start of the error, and the next step.
CELLS = {
    "a cell run twice": ('for _ in range(2):\n    lab.aws.client("iam").create_user(UserName="me")',
        "EntityAlreadyExists: User",
        "run the opening cell again to start over (in an exercise, the cell that opened the exercise)"),
    "an object that exists": ('core.create_namespace({"metadata": {"name": "default"}})',
        'AlreadyExists: namespaces "default" already exists',
        "If you made the resource in this cell or in the box above, run the opening cell again"),
    "a later cell run first": ("trust_policy", "NameError: name 'trust_policy' is not defined",
        "run the cells above this one first, but none that hands in"),
    "a role that is missing": ('lab.aws.client("iam").get_role(RoleName="none")',
        "NoSuchEntity: The role with name none cannot be found.", "the cell that makes it hasn't run yet"),
    "a parameter that is missing": ('lab.aws.client("iam").get_role()',
        "ParamValidationError: Parameter validation failed:", "correct the call in this cell"),
    "a call of the cluster with the wrong arguments": ('core.read_namespaced_pod("my-pod", None)',
        "ValidationError: 1 validation error for CoreV1Api.read_namespaced_pod", "correct this line"),
    "a document of many lines that IAM refuses": (
        'import json\npolicy = json.dumps({"Id": "★" + "x" * 700}, indent=1, ensure_ascii=False) + "\\n" * 9\n'
        'lab.aws.client("iam").create_role(RoleName="none", AssumeRolePolicyDocument=policy)',
        "ValidationError: 1 validation error detected",
        "read the message",
    ),
    "a service that AWS doesn't have": ('lab.aws.client("imm")', "UnknownServiceError: Unknown service: 'imm'.",
        "correct this line"),
    "a method with arguments in order": ('role = "me"\nlab.aws.client("iam").get_role(role)',
        "TypeError: get_role() only accepts keyword arguments.", "correct this line"),
    "a number in the place of an id": ("lab.recall(3)",
        "UnknownName: '3' is not a notebook with exercises. Did you mean '03'?", "There are: 00, 01"),
    "a text that isn't JSON": ('import json\ndef read(text):\n    return json.loads(text)\n\n\nread("{")',
        "JSONDecodeError: Expecting property name", "correct this line"),
    "an answer that the notebook doesn't expect": (
        'answer = "hello.txt"\nassert "(AccessDenied)" in answer, "the pod has a session from before"',
        "AssertionError: the pod has a session from before",
        "left the lab in another state; run the opening cell again to start over",
    ),
    "a cell that the learner stops": (
        'import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nlab.aws.client("iam").list_roles()',
        "KeyboardInterrupt: you stopped this cell",
        "if the cell had changed nothing yet, run it again",
    ),
    "a command in a pod that the learner stops": (
        "from signal import SIGINT, raise_signal\nfrom unittest.mock import patch\n"
        "from kubernetes.stream import stream\n"
        'with patch("kubernetes.stream.ws_client.WSClient.run_forever", lambda *_, **__: raise_signal(SIGINT)):\n'
        '    stream(core.connect_get_namespaced_pod_exec, "my-pod", "default", command=["sleep", "30"], stdout=True)',
        "KeyboardInterrupt: you stopped this cell",
        "if the cell had changed nothing yet, run it again",
    ),
    "a doctor that the learner stops while it asks in the pod": (
        'with patch("kubernetes.stream.ws_client.WSClient.__init__", lambda *_, **__: raise_signal(SIGINT)):\n'
        "    lab.diagnose(probe=True)",
        "KeyboardInterrupt: you stopped this cell",
        "if the cell had changed nothing yet, run it again",
    ),
    "a command in a pod that is missing": ("from kubernetes.stream import stream\n"
        'stream(core.connect_get_namespaced_pod_exec, "none", "default", command=["ls"], stdout=True)',
        'NotFound: pods "none" not found', "the cell that makes it hasn't run yet"),
    "a command in a pod, and the lab ended": (f"{END}from kubernetes.stream import stream\n"
        'stream(core.connect_get_namespaced_pod_exec, "my-pod", "default", command=["id"], stdout=True)',
        "ApiException: nothing answers at this address", "run the opening cell again: it starts the lab"),
    "the lab ended": (f'{END}lab.aws.client("iam").list_roles()',
                      "EndpointConnectionError: nothing answers at this address",
                      "run the opening cell again: it starts the lab"),
}  # fmt: skip
OPENING = (
    "import kubernetes\n\nimport labkit\n\nlab = labkit.Lab.open()\nlab.ready(through='pod')\n"
    "core = kubernetes.client.CoreV1Api(lab.kubernetes)"
)


@pytest.fixture(scope="module")
def shown(home):
    """The output of each failing cell, all run in one kernel."""
    sources = [OPENING, *(source for source, _, _ in CELLS.values())]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in [*sources, "%tb"]])
    NotebookClient(book, allow_errors=True, kernel_name="python3", coalesce_streams=True).execute()
    return {name: cell.outputs for name, cell in zip([*CELLS, "%tb"], book.cells[1:], strict=True)}


@pytest.mark.parametrize("name", CELLS)
def test_an_error_is_short_and_ends_with_the_next_step(shown, name):
    _, what, next_step = CELLS[name]
    (output,) = shown[name]
    assert output.output_type == "error"
    lines = "\n".join(output.traceback).split("\n")
    assert len(lines) <= 8 and max(map(len, lines)) < 700
    assert output.traceback[0].startswith(what)
    assert next_step.lower() in output.traceback[-1].lower()


def test_the_end_of_a_long_message_is_shown(shown):
    (output,) = shown["a document of many lines that IAM refuses"]
    assert "failed to satisfy constraint: Member must satisfy regular expression pattern" in output.traceback[-2]


@pytest.mark.parametrize(("name", "where"), [
    ("a method with arguments in order", 'line 2:  lab.aws.client("iam").get_role(role)'),
    ("a text that isn't JSON", "line 3:  return json.loads(text)"),
])  # fmt: skip
def test_an_error_names_the_line_of_the_cell(shown, name, where):
    (output,) = shown[name]
    assert output.traceback[-2].startswith("where: In[") and output.traceback[-2].endswith(where)


def test_tb_shows_the_whole_traceback(shown):
    text = "\n".join(str(output) for output in shown["%tb"])
    assert "Traceback (most recent call last)" in text and "EndpointConnectionError" in text


def test_ipython_s_history_gets_the_short_error_too(home):
    # Formatting the whole traceback takes seconds: one module of the Kubernetes client has 63,000 lines.
    name = "an object that exists"
    kept = 'print("\\n".join(get_ipython().history_manager.exceptions[2]["traceback"]))'
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in (OPENING, CELLS[name][0], kept)])
    NotebookClient(book, allow_errors=True, kernel_name="python3", coalesce_streams=True).execute()
    (failed,), (printed,) = book.cells[1].outputs, book.cells[2].outputs
    assert printed.text.splitlines() == failed.traceback


def test_nbval_and_papermill_fail_on_a_short_error(home, tmp_path):
    source, what, _ = CELLS["a cell run twice"]
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(each) for each in (OPENING, source)])
    nbformat.write(book, tmp_path / "in.ipynb")
    with pytest.raises(PapermillExecutionError, match=what.split(":")[0]):
        papermill.execute_notebook(
            tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False, kernel_name="python3"
        )
    # nbval, too, looks for an output of the type error: see nbval.plugin.IPyNbCell.runtest.
    with pytest.raises(CellExecutionError, match=what.split(":")[0]):
        NotebookClient(book, kernel_name="python3").execute()
