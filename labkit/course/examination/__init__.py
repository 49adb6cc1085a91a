"""The examination of notebook 98: ten tasks, and the learner sees only the symptoms of each.

`draw` chooses the faults of each task, and says which parts of IRSA they break. `paper` is the record of a task, with
its points. `exam` puts the faults in, takes the learner's guess, and asks whether the repair is right (`judging`).
`marks` records what costs points: a look at the doctor, or a repair by the lab. `certificate` signs and verifies the
certificate.

The learner's progress file also holds the examination's state, so that another kernel can continue the examination.
"""

from labkit.course.examination.certificate import ExaminationCertificate, verify
from labkit.course.examination.exam import Examination, ExaminationResult
from labkit.course.examination.marks import note_the_doctor, note_the_lab

__all__ = ["Examination", "ExaminationCertificate", "ExaminationResult", "note_the_doctor", "note_the_lab", "verify"]
