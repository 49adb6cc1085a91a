"""The causes of a missing role, and the functions that look for them in the evidence.

Each function declares its cause with `@cause`. It returns a symptom if it finds the cause, otherwise None. Its
docstring says what is wrong. Each module has one family of causes. `catalogue` has all causes, in the order in which
the doctor looks for them.
"""

from labkit.doctor.finding import Finding, causes_of, findings_of

__all__ = ["Finding", "causes_of", "findings_of"]
