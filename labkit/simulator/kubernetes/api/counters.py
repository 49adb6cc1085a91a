"""Count the API server's calls to admission webhooks, for `/metrics` in Prometheus' text format.

As on a real API server, a counter appears only after its first count.
https://kubernetes.io/docs/reference/instrumentation/metrics/
https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import time
from collections import Counter

FAIL_OPEN = "apiserver_admission_webhook_fail_open_count"
REJECTION = "apiserver_admission_webhook_rejection_count"
REQUESTS = "apiserver_admission_webhook_request_total"
STARTED = "process_start_time_seconds"
ADMIT = "admit"  # the label of a mutating webhook's calls
CALLING, WITHIN, NONE = "calling_webhook_error", "apiserver_internal_error", "no_error"
LARGEST_CODE = 600

HELP = {
    FAIL_OPEN: "Admission webhook fail open count, identified by name and broken out for each admission type "
    "(validating or admit).",
    REJECTION: "Admission webhook rejection count, identified by name and broken out for each admission type "
    "(validating or admit) and operation. Additional labels specify an error type (calling_webhook_error or "
    "apiserver_internal_error if an error occurred; no_error otherwise) and optionally a non-zero rejection code if "
    "the webhook rejects the request with an HTTP status code (honored by the apiserver when the code is greater or "
    "equal to 400). Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
    REQUESTS: "Admission webhook request total, identified by name and broken out for each admission type (validating "
    "or admit) and operation. Additional labels specify whether the request was rejected or not and an HTTP status "
    "code. Codes greater than 600 are truncated to 600, to keep the metrics cardinality bounded.",
    STARTED: "Start time of the process since unix epoch in seconds.",
}
Labels = tuple[tuple[str, str], ...]


class Counters:
    """The counters of one API server, since its start."""

    def __init__(self) -> None:
        self._started = time.time()
        self._counted: Counter[tuple[str, Labels]] = Counter()

    def called(self, webhook: str, operation: str, code: int, *, rejected: bool, error_type: str = NONE) -> None:
        """Count a call to a webhook. ``rejected`` says whether the write was refused, and ``error_type`` why.

        ``code`` is an HTTP status code: 200 if the webhook allowed the write, and 0 if the webhook's patch can't be
        applied.
        """
        labels = {"name": webhook, "operation": operation}
        self._count(REQUESTS, **labels, code=_code(code), rejected=str(rejected).lower())
        if rejected:
            self._count(REJECTION, **labels, error_type=error_type, rejection_code=_code(code))

    def failed_open(self, webhook: str) -> None:
        """Count a write that went on although the call to the webhook failed."""
        self._count(FAIL_OPEN, name=webhook)

    def text(self) -> bytes:
        """Return the page for `/metrics`."""
        lines = []
        for metric in (FAIL_OPEN, REJECTION, REQUESTS):
            counted = sorted((labels, times) for (name, labels), times in self._counted.items() if name == metric)
            if counted:
                lines += [f"# HELP {metric} [ALPHA] {HELP[metric]}", f"# TYPE {metric} counter"]
            lines += [f"{metric}{{{_written(labels)}}} {times}" for labels, times in counted]
        lines += [f"# HELP {STARTED} [ALPHA] {HELP[STARTED]}", f"# TYPE {STARTED} gauge", f"{STARTED} {self._started}"]
        return "\n".join([*lines, ""]).encode()

    def _count(self, metric: str, **labels: str) -> None:
        self._counted[metric, tuple(sorted({**labels, "type": ADMIT}.items()))] += 1


def _code(code: int) -> str:
    return str(min(code, LARGEST_CODE))


def _written(labels: Labels) -> str:
    escapes = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
    return ",".join(f'{name}="{value.translate(escapes)}"' for name, value in labels)
