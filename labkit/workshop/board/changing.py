"""Break, check, mend or prepare a participant's lab: `python -m labkit.workshop.board.changing WHAT [ABOUT]`.

The last line that it prints is JSON: the state of the order, and a text for the banner.
"""

import ast
import json
import sys
from pathlib import Path

from labkit import steps, targets
from labkit.course import NOTEBOOKS, breaking, exercises, faults, mend_report, restore_the_node
from labkit.errors import LabError
from labkit.run_parameters import Parameters
from labkit.workspace import Workspace


def main() -> None:
    what, about = sys.argv[1:]
    try:
        parameters = Parameters.checked()
        lab = Workspace(parameters, targets.target(parameters.target).up(parameters))
        match what:
            case "break":
                state, text = _break(lab, about)
            case "check":
                state, text = _check(lab)
            case "mend":
                if breaking.faults_in(lab):  # refuses while an examination goes on, too
                    breaking.mend(lab)
                state, text = "", "The leader has mended your lab. Run your notebook's first cells again."
            case _:
                _prepare(lab, NOTEBOOKS / f"{about}.ipynb")
                state, text = "there", f"Your lab is ready for {about}."
    except LabError as error:
        state, text = "refused", str(error)
    print(json.dumps({"state": state, "text": text}))


def _break(lab: Workspace, fault: str) -> tuple[str, str]:
    chosen = faults.named(fault)
    breaking.faults_in(lab)  # refuses while an examination goes on
    breaking.break_lab(lab, chosen)
    return "broken", symptom(breaking.what_aws_says(lab))


def symptom(answers: list[tuple[str, str]]) -> str:
    """Return what a banner says of the commands' answers in the pod: the last error, else each answer."""
    said = [f"In your pod, {command} says: {answer.removesuffix('.')}." for command, answer in answers]
    errors = [each for each, (_, answer) in zip(said, answers, strict=True) if "error" in answer or "Unable" in answer]
    return " ".join(errors[-1:] or said) or "Your pod doesn't run as it should."


def _check(lab: Workspace) -> tuple[str, str]:
    if not breaking.is_broken(lab):
        return "out", ""
    mend_report(lab)  # notes the result in the progress file
    return "broken", ""


def _prepare(lab: Workspace, notebook: Path) -> None:
    list(exercises.close_all(lab))
    breaking.mend_what_was_left(lab)
    restore_the_node(lab)
    for which, step in ready(notebook):
        list(steps.ready_before(lab, step) if which == "before" else steps.ready_through(lab, step))


def ready(notebook: Path) -> list[tuple[str, str]]:
    """Return `before` or `through`, and the step, of each `lab.ready` in the notebook's first two cells of code."""
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    nodes = [node for cell in cells[:2] for node in ast.walk(ast.parse("".join(cell["source"])))]
    return [
        (str(node.keywords[0].arg), str(ast.literal_eval(node.keywords[0].value)))
        for node in nodes
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "lab.ready"
    ]


if __name__ == "__main__":
    main()
