"""Short notebooks that a fleet runs in no time, and the fleet files for them."""

from pathlib import Path

import nbformat
import yaml
from nbformat.v4 import new_code_cell, new_notebook

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
PARAMETERS = """
target = "moto"
cluster = "blue"
namespace = "default"
role_name = "my-role"
policy_arn = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
account_id = ""
bucket = "irsa-lab"
image = ""
"""
# A row's parameter bucket names its fault.
FAULTS = """
import os, signal
if bucket == "kill-the-worker":
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()
if bucket in ("interrupt", "terminate"):
    import psutil
    number = signal.SIGINT if bucket == "interrupt" else signal.SIGTERM
    os.kill(next(each.pid for each in psutil.Process().parents() if "fleet" in each.cmdline()), number)
    signal.pause()
if bucket == "sleep":
    signal.pause()
"""
# A row with the image "none" opens no lab.
ROLE = """
if image != "none":
    import json
    import labkit
    from labkit import documents
    lab = labkit.Lab.open(**labkit.parameters())
    iam = lab.aws.client("iam")
    trust = json.dumps(documents.trust_policy(lab.parameters, lab.provider_arn))
    try:
        iam.create_role(RoleName=role_name, AssumeRolePolicyDocument=trust, Tags=lab.tags)
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    iam.attach_role_policy(RoleName=role_name, PolicyArn=policy_arn)
"""


def write(path: Path, *sources: str) -> Path:
    """Write a notebook with a cell of parameters, the faults, and these cells. Return its path."""
    cells = [new_code_cell(PARAMETERS.strip(), metadata={"tags": ["parameters"]})]
    cells += [new_code_cell(source.strip()) for source in (FAULTS, *sources)]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    nbformat.write(new_notebook(cells=cells, metadata=KERNEL), path)
    return path


def fleet(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write a fleet file with these rows, and return its path."""
    path.write_text(yaml.safe_dump({"runs": rows}))
    return path


def rows(count: int, *, clusters: int = 3) -> list[dict[str, str]]:
    """Return `count` rows spread over the clusters. Every second row opens no lab."""
    return [
        {"cluster": f"c{n % clusters}", "namespace": f"n{n}", "role_name": f"r{n}"}
        | ({"image": "none"} if n % 2 else {})
        for n in range(count)
    ]
