"""A certificate for a scheduler, its workers and their callers: `python -m tests.runs.certificate CA CERT KEY`."""

import os
import sys
from pathlib import Path

from distributed.security import Security


def main(ca: str, cert: str, key: str) -> None:
    """Write a self-signed certificate, which is its own CA, and its key."""
    security = Security.temporary()
    Path(ca).write_text(security.tls_ca_file)
    Path(cert).write_text(security.tls_scheduler_cert)
    with os.fdopen(os.open(key, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write(security.tls_scheduler_key)


main(*sys.argv[1:])
