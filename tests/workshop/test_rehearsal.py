"""What a rehearsal says of its measurements."""

import pytest

from labkit.workshop import Workshop, limits
from labkit.workshop.rehearsal import Rehearsal, notebooks, spread


def test_the_table_names_the_machine_that_the_class_needed_at_its_busiest():
    measured = Rehearsal(3, {"log-in": [1.0, 2.0, 9.0]}, [], [300.0] * 3, [5.0] * 3, 200.0)
    assert spread(measured.seconds["log-in"]) == (2.0, 9.0, 9.0)
    # Three with an open lab, the hub, and what the machine itself needs.
    assert f"3 participants: {-(-(900 + 200 + limits.KEPT) // 1024)} GiB, and 1 core" in str(measured)
    measured.most = 6000.0
    assert "At work: up to 2000 MiB." in str(measured)
    assert f"3 participants: {-(-(6000 + 200 + limits.KEPT) // 1024)} GiB" in str(measured)


@pytest.mark.parametrize(
    ("of_class", "runs"),
    [([], ["01", "02", "05"]), (["00"], ["00"]), (["00", "02", "05"], ["02", "05"]), (["03", "04"], ["00"])],
)
def test_a_rehearsal_runs_notebooks_that_the_class_has(tmp_path, of_class, runs):
    assert [*notebooks(Workshop(folder=tmp_path, names=["ana"], notebooks=of_class))] == runs
