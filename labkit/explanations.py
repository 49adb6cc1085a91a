"""`explain`, where notebooks import it from; the causes are in `labkit.doctor.explanations`."""

from labkit.doctor.explanations import explain

__all__ = ["explain"]
