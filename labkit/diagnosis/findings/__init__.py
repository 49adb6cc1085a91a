"""The causes. Each has one pure function, below its declaration, that returns a symptom or nothing for the evidence.

Each family of causes has a module. `catalogue` has all causes, in the order in which they are examined and reported.
"""

from labkit.diagnosis.finding import Finding, causes_of
from labkit.diagnosis.order import found

__all__ = ["Finding", "causes_of", "found"]
