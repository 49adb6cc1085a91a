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
FOR_THE_DOCTOR = 10  # points of 100
FOR_A_PART = 25  # a refusal alone earns nothing: who has no role is refused everywhere


class Capstone:
    """The shop that a learner finishes alone. Jupyter shows its brief."""

    def __init__(self, lab: "Workspace", *, again: bool = False):
        present = None if again else Shop.present(lab)
        if present is None:
            with doing("Building the shop, part of it wrong"):
                present = Shop.build(lab)
            marks.forget(lab)
        self.shop = present

    def __repr__(self) -> str:
        return self.shop.brief

    def _repr_markdown_(self) -> str:
        return self.shop.brief

    def check(self) -> Check:
        """Make the calls of the brief, and calls that it forbids. Return who called what, and what came.

        Raises `LabError` if a bucket is gone.
        """
        with doing("Calling AWS as everybody in the shop, and as strangers"):
            rows = probes.rows(self.shop)
        right = sum(row.right for row in rows)
        cost = FOR_THE_DOCTOR if marks.doctor_was_used(self.shop.lab) else 0
        complete = [part for part, of_it in probes.parts(self.shop, rows).items() if all(row.right for row in of_it)]
        score = f"{max(0, FOR_A_PART * len(complete) - cost)} of 100 points"
        title = f"the shop, {score}{f' (the doctor cost {cost})' if cost else ''}"
        check = Check("capstone", title, rows, [], self.check)
        progress.kept("capstone", NOTEBOOK, right=bool(check))
        done = ", ".join(complete) or "nothing yet"
        print(f"{right} of {len(rows)} calls came out as the brief says. Complete: {done}.")
        return check

    def close(self) -> None:
        """Delete everything in the shop."""
        self.shop.close()
