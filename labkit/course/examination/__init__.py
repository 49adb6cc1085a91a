"""The examination of notebook 98: ten tasks, and the learner sees only the symptoms of each.

`draw` chooses the faults of each task, and says which parts of IRSA they break. `paper` is the record of a task, with
its points, and `result` that of all. `exam` puts the faults in, takes the learner's guess, and asks whether the repair
is right (`judging`). `marks` records what costs points: a look at the doctor, or a repair by the lab. `certificate`
signs and verifies the certificate.

`state` keeps the examination, so that another kernel can continue it: alone, in the learner's progress file, and in a
class, on the leader's board.
"""

from labkit.course.examination.certificate import ExaminationCertificate, claims, private_key, verify
from labkit.course.examination.exam import Examination
from labkit.course.examination.marks import note_the_doctor, note_the_lab
from labkit.course.examination.paper import Paper
from labkit.course.examination.result import ExaminationResult

__all__ = [
    "Examination",
    "ExaminationCertificate",
    "ExaminationResult",
    "Paper",
    "claims",
    "note_the_doctor",
    "note_the_lab",
    "private_key",
    "verify",
]
