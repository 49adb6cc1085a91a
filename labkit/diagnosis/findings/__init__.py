"""The causes. A pure function below each declaration returns a symptom, or None, for the evidence.

Each family of causes has a module. `catalogue` has all causes, in the order in which they are examined and reported.
"""

from labkit.diagnosis.finding import Finding, causes_of
from labkit.diagnosis.order import found

__all__ = ["Finding", "causes_of", "found"]
