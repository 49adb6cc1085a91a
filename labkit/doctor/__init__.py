"""Why a service account's pods don't get their role.

`examination` looks at one service account, `survey` at many, `explanations` at an error's text; `report` is the
answer.
"""

from labkit.doctor.examination import diagnose, examine, examine_pods, examine_run
from labkit.doctor.report import Diagnosis

__all__ = ["Diagnosis", "diagnose", "examine", "examine_pods", "examine_run"]
