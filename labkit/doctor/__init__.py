"""The doctor finds out why a service account's pods don't get their role, and how to repair it.

`evidence` reads facts from AWS and Kubernetes, each fact once. `findings` has the causes: each is a function that looks
at the evidence. `finding` defines a finding (one thing that is wrong) and a cause (a possible reason), and sorts
findings. `stages` lists the stages of an examination, and `repairs` writes the repair of a finding, as lines for a
shell. `checks` compares a step's expected and found values.

`examination` examines one service account, and `survey` all service accounts of a cluster. `report` defines the result,
a `Diagnosis`. `explanations` explains an error's text.
"""

from typing import TYPE_CHECKING

from labkit import at_first_use

if TYPE_CHECKING:
    from labkit.doctor.evidence import Evidence
    from labkit.doctor.examination import diagnose, examine, examine_pods, examine_run
    from labkit.doctor.explanations import explain
    from labkit.doctor.finding import Finding
    from labkit.doctor.report import Diagnosis
else:
    __getattr__ = at_first_use(__name__, {
        "evidence": ["Evidence"],
        "examination": ["diagnose", "examine", "examine_pods", "examine_run"],
        "explanations": ["explain"],
        "finding": ["Finding"],
        "report": ["Diagnosis"],
    })  # fmt: skip
