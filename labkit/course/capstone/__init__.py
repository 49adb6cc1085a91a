"""The capstone of notebook 97: a shop in two clusters and two accounts, half built and half wrong.

`shop` builds it, and `probes` makes the calls that decide whether it's as its brief says. Any design may pass.
"""

from typing import TYPE_CHECKING

from labkit.course import progress
from labkit.course.capstone import probes
from labkit.course.capstone.shop import Shop
from labkit.course.examination import marks
from labkit.course.widgets.check import Check
from labkit.showing import doing

if TYPE_CHECKING:
    from labkit.workspace import Workspace

NOTEBOOK = "97-capstone"


class Capstone:
    """The shop that a learner finishes alone."""

    def __init__(self, lab: "Workspace", *, again: bool = False):
        present = None if again else Shop.present(lab)
        if present is None:
            with doing("Building the shop, part of it wrong"):
                present = Shop.build(lab)
            marks.forget(lab)
        self.shop = present
        print(self.shop.brief)

    def check(self) -> Check:
        """Make the calls of the brief, and calls that it forbids. Return who called what, and what came.

        Raises `LabError` if a bucket is gone.
        """
        with doing("Calling AWS as everybody in the shop, and as strangers"):
            rows = probes.rows(self.shop)
        check = Check("capstone", "the shop", rows, [], self.check)
        progress.kept("capstone", NOTEBOOK, right=bool(check))
        doctor = " You used the doctor." if marks.doctor_was_used(self.shop.lab) else ""
        print(f"{sum(row.right for row in rows)} of {len(rows)} calls came out as the brief says.{doctor}")
        return check

    def close(self) -> None:
        """Delete everything in the shop."""
        self.shop.close()
