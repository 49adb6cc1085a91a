"""What can be wrong: one pure function a cause, from the evidence to a symptom or nothing, under its declaration.

A module a family; `catalogue` has them all, in the order in which their causes are looked for and told.
"""

from labkit.diagnosis.finding import Finding, causes_of
from labkit.diagnosis.order import found

__all__ = ["Finding", "causes_of", "found"]
