"""The course: what a learner meets beside the notebooks.

`lessons` has the texts of each notebook's exercises and questions. `exercises` has the exercises, judged by the live
lab. `faults` has the common mistakes that `lab.break_` puts into a running lab. `widgets` draws the views of the
notebooks. `capstone` is notebook 97, `examination` notebook 98. `copies` makes the learner's notebooks, `progress`
records the learner's progress, `review` asks what the learner may have forgotten, and `contents` shows the progress.
`renumbering` carries the learner's files over from version 0.1.0.

This module is the door: everybody else imports from here alone. A name is imported from its module when it's first
used.
"""

from typing import TYPE_CHECKING

from labkit import at_first_use

if TYPE_CHECKING:
    from labkit.course import (
        board,
        capabilities,
        checklist,
        contents,
        copies,
        examination,
        exercises,
        faults,
        lessons,
        progress,
        renumbering,
        review,
    )
    from labkit.course.capstone import Capstone
    from labkit.course.cases import Case
    from labkit.course.contents import LIST_NOTEBOOKS, MANUAL, NOTEBOOKS
    from labkit.course.examination import Examination
    from labkit.course.exercises.the_problem import restore_the_node
    from labkit.course.faults import CATALOGUE, breaking
    from labkit.course.faults.report import MendReport, mend_report
    from labkit.course.widgets import flow, journey, live, token, trail, who_gets_in
    from labkit.course.widgets.check import CHECK_MIME, Check
    from labkit.course.widgets.journey import Journey
    from labkit.course.widgets.kernel import shorten_errors
    from labkit.course.widgets.question import Questions
    from labkit.course.widgets.token import TokenView
    from labkit.course.widgets.trail import Calls, Watch
    from labkit.course.widgets.who_gets_in import WhoGetsIn
else:
    __getattr__ = at_first_use(__name__, {
        "board": ["board"],
        "capabilities": ["capabilities"],
        "capstone": ["Capstone"],
        "cases": ["Case"],
        "checklist": ["checklist"],
        "contents": ["LIST_NOTEBOOKS", "MANUAL", "NOTEBOOKS", "contents"],
        "copies": ["copies"],
        "examination": ["Examination", "examination"],
        "exercises": ["exercises"],
        "exercises.the_problem": ["restore_the_node"],
        "faults": ["CATALOGUE", "faults"],
        "faults.breaking": ["breaking"],
        "faults.report": ["MendReport", "mend_report"],
        "lessons": ["lessons"],
        "progress": ["progress"],
        "renumbering": ["renumbering"],
        "review": ["review"],
        "widgets.check": ["CHECK_MIME", "Check"],
        "widgets.flow": ["flow"],
        "widgets.journey": ["Journey", "journey"],
        "widgets.kernel": ["shorten_errors"],
        "widgets.live": ["live"],
        "widgets.question": ["Questions"],
        "widgets.token": ["TokenView", "token"],
        "widgets.trail": ["Calls", "Watch", "trail"],
        "widgets.who_gets_in": ["WhoGetsIn", "who_gets_in"],
    })  # fmt: skip
