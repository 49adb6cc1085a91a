"""A short round of `make soak`."""

from labkit.simulator.folder import Folder
from tests.soak import soak


def test_a_lab_serves_many_callers_at_once_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", "set by the round")
    report = soak(Folder(tmp_path / ".lab"), seconds=12, learners=6, seed=7)
    assert not report.wrong, str(report)
    assert report.answers["webhook: True"] >= 6
