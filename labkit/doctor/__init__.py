"""The doctor finds out why a service account's pods don't get their role, and how to repair it.

`evidence` reads facts from AWS and Kubernetes, each fact once. `findings` has the causes: each is a function that looks
at the evidence. `finding` defines a finding (one thing that is wrong) and a cause (a possible reason), and sorts
findings. `stages` lists the stages of an examination, and `repairs` writes the repair of a finding, as lines for a
shell. `checks` compares a step's expected and found values.

`examination` examines one service account, and `survey` all service accounts of a cluster. `report` defines the result,
a `Diagnosis`. `explanations` explains an error's text.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labkit.doctor.examination import diagnose, examine, examine_pods, examine_run
    from labkit.doctor.report import Diagnosis

__all__ = ["Diagnosis", "diagnose", "examine", "examine_pods", "examine_run"]


def __getattr__(name: str) -> Any:
    # At first use: a module that needs only `finding` doesn't load the examination.
    if name == "Diagnosis":
        from labkit.doctor.report import Diagnosis

        return Diagnosis
    if name in __all__:
        from labkit.doctor import examination

        return getattr(examination, name)
    raise AttributeError(f"module 'labkit.doctor' has no attribute {name!r}")
