"""The doctor finds out why a service account's pods don't get their role.

`examination` examines one service account, and `survey` all of a cluster. `explanations` explains an error's text.
`report` holds the result.
"""

from labkit.doctor.examination import diagnose, examine, examine_pods, examine_run
from labkit.doctor.report import Diagnosis

__all__ = ["Diagnosis", "diagnose", "examine", "examine_pods", "examine_run"]
