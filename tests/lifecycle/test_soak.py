"""A short round of `make soak`."""

from labkit.emulator.folder import Folder
from tests.soak import soak


def test_a_lab_answers_many_at_once_as_it_should_and_keeps_nothing_of_theirs(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", "set by the round")
    report = soak(Folder(tmp_path / ".lab"), seconds=12, learners=6, seed=7)
    assert not report.wrong, str(report)
    assert report.answers["webhook: True"] >= 6
