"""`make harm`: run the printed repairs of 60 pairs and 20 triples of faults in a lab beside a second team.

Then, for each fault alone, somebody changes the run's objects between the diagnosis and the repair.

`LABKIT_SEED` draws other pairs and triples.
"""

import contextlib
import io
import os
import random
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

from botocore.exceptions import ClientError

from labkit import Lab, simulator
from labkit.course.faults import CATALOGUE, live
from labkit.simulator import Folder
from tests.doctor.harm_live import Team, outcome

PAIRS, TRIPLES = 60, 20


def main() -> int:
    seed = int(os.environ.get("LABKIT_SEED", "11"))
    faults = list(CATALOGUE.values())
    drawn = random.Random(seed)
    together = [*drawn.sample(list(combinations(faults, 2)), PAIRS), *_triples(drawn, faults)]
    combos = [*((each, False) for each in together), *(((fault,), True) for fault in faults)]
    ran = words = failed = harmed = unmade = 0
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="labkit-harm-") as place:
        folder = Folder(Path(place) / ".lab")
        os.environ["LABKIT_HOME"] = str(folder.path)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                lab = Lab.open()
                lab.ready(through="pod")
                healthy, team = live.read(lab), Team.beside()
            for number, (combo, is_changed) in enumerate(combos):
                names = " + ".join(fault.id for fault in combo) + (", changed meanwhile" if is_changed else "")
                try:
                    with contextlib.redirect_stdout(io.StringIO()):
                        came_to = outcome(
                            lab,
                            team,
                            healthy,
                            combo,
                            in_one_statement=bool(number % 2),
                            is_changed_meanwhile=is_changed,
                        )
                except ClientError as error:
                    print(f"{number + 1:3}  {names}: cannot be made: {error}", flush=True)
                    unmade += 1
                    continue
                text = f"{came_to.ran} run, {came_to.words} of words, {len(came_to.harm)} harmed"
                print(f"{number + 1:3}  {names}: {text}", flush=True)
                for line in (*came_to.harm, *came_to.failed):
                    print(f"       {line}", flush=True)
                ran, words = ran + came_to.ran, words + came_to.words
                failed, harmed = failed + len(came_to.failed), harmed + len(came_to.harm)
        finally:
            simulator.stop(folder)
    print(
        f"{PAIRS} pairs, {TRIPLES} triples and {len(faults)} faults alone whose objects changed meanwhile, "
        f"seed {seed}, {unmade} of which AWS does not take: {ran} repairs run, {words} of words, "
        f"{failed} refused or failed, {harmed} changed what somebody else may do or has; "
        f"{time.monotonic() - started:.0f} s"
    )
    return int(harmed > 0)


def _triples(drawn: random.Random, faults: list) -> list:
    return [tuple(drawn.sample(faults, 3)) for _ in range(TRIPLES)]


if __name__ == "__main__":
    sys.exit(main())
