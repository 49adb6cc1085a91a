"""Names made from the names of clusters and runs, for systems that allow fewer names.

EKS distinguishes upper and lower case in a cluster's name. Kubernetes allows only lower case in a node's name. IAM and
some file systems ignore case.
"""

import hashlib
import re


def lower_case(name: str, longest: int) -> str:
    """Return the name in at most ``longest`` lower-case letters, digits and hyphens.

    A name that has to be changed for this ends with a hash of the original, so that it's different from other names.
    """
    allowed = re.sub(r"[^a-z0-9-]", "-", name.lower())
    if allowed == name and len(name) <= longest:
        return name
    return f"{allowed[: longest - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def file_name(name: str) -> str:
    """Return the name with ``=x`` instead of each capital ``X``. It must not contain an equals sign."""
    return re.sub("[A-Z]", lambda capital: f"={capital[0].lower()}", name)


def of_file(name: str) -> str:
    """Return the name from which `file_name` made this name."""
    return re.sub("=(.)", lambda escaped: escaped[1].upper(), name)
