"""What the class takes home: one who is at work, and one who has left."""

import asyncio
import csv
import os
import subprocess
import zipfile

import httpx
import pytest

from labkit.workshop import keeper
from tests import forked_commands
from tests.workshop.conftest import command
from tests.workshop.test_workshop import OPENS, ready

pytestmark = pytest.mark.workshop

WORK = """
import os, pathlib, labkit
lab = labkit.Lab.open(**labkit.parameters())
lab.aws.client("s3").create_bucket(Bucket="taken-home")
lab.exercise("01-a")
pathlib.Path("mine.txt").write_text("mine")
pathlib.Path("link.txt").symlink_to("/etc/hosts")
"""
AT_HOME = """
import labkit
print([bucket["Name"] for bucket in labkit.Lab.open().aws.client("s3").list_buckets()["Buckets"]])
"""


def test_a_class_takes_its_notebooks_and_labs_home(workshop, folder, participant, tmp_path):
    asyncio.run(at_work_and_left(workshop, participant))
    done = command("export", folder, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in csv.DictReader((tmp_path / "out" / "class.csv").open())}
    assert int(rows["ana"]["opened"]) >= 1 and rows["ana"]["lab"] == "1"
    assert ("eve:" in done.stderr) == (rows["eve"]["lab"] == "0")
    with zipfile.ZipFile(tmp_path / "out" / "eve.zip") as archive:
        assert "learn/02-iam-role.ipynb" in archive.namelist()
    assert (tmp_path / "out" / "ana.zip").stat().st_mode & 0o777 == 0o600, "a lab has keys"
    home = tmp_path / "home"
    with zipfile.ZipFile(tmp_path / "out" / "ana.zip") as archive:
        assert {"README.txt", "learn/mine.txt", f"learn/{OPENS}", "learn/progress.jsonl"} <= {*archive.namelist()}
        assert not [name for name in archive.namelist() if "link" in name or "manual" in name or "/." in name]
        archive.extractall(home)
    try:
        assert at_home(home, "-m", "labkit.cli", "restore", "./lab.labsnapshot", "--yes").returncode == 0
        assert "taken-home" in at_home(home, "-c", AT_HOME).stdout
    finally:
        at_home(home, "-m", "labkit.cli", "down")
    again = command("export", folder, tmp_path / "out")
    assert again.returncode == 1 and "File exists" in again.stderr


async def at_work_and_left(workshop, participant):
    """Let ana work, and end the server of eve."""
    ana, _ = await asyncio.gather(ready(participant, "ana"), ready(participant, "eve"))
    async with ana.kernel(OPENS) as kernel:
        await kernel.run(WORK)
    token = {"Authorization": f"token {(workshop.state / 'hub-token').read_text()}"}
    async with httpx.AsyncClient(base_url=keeper.hub_url(workshop), headers=token, trust_env=False, timeout=60) as hub:
        (await hub.delete("/hub/api/users/eve/server")).raise_for_status()
        while (await hub.get("/hub/api/users/eve")).json()["servers"]:
            await asyncio.sleep(0.1)


def at_home(home, *arguments):
    variables = os.environ | {"LABKIT_HOME": str(home / ".lab")}
    python = forked_commands.REAL / "python"
    return subprocess.run([python, *arguments], cwd=home, env=variables, capture_output=True, text=True)
