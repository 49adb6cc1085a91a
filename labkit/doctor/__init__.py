"""The doctor finds out why a service account's pods don't get their role.

`examination` examines one service account, and `survey` all service accounts of a cluster. `report`
defines the result, a `Diagnosis`. `explanations` explains an error's text. `meant` finds the service account that a
user means. `repairing` runs repairs.
"""

from labkit.doctor.examination import diagnose, examine, examine_pods, examine_run
from labkit.doctor.report import Diagnosis

__all__ = ["Diagnosis", "diagnose", "examine", "examine_pods", "examine_run"]
