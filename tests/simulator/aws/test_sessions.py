"""Sessions expire, and are forgotten."""

from types import SimpleNamespace

import pytest

from labkit.simulator.aws import sessions
from labkit.simulator.aws.own_state import OwnState
from labkit.simulator.clock import Clock
from labkit.simulator.identifiers import Identifiers
from tests.simulator.aws.conftest import ACCOUNT, Irsa


@pytest.fixture
def opened(tmp_path):
    """The sessions, their clock, and a function that opens a session."""
    clock = Clock(tmp_path / "clock")
    role = SimpleNamespace(id="AROAEXAMPLE", arn=Irsa.role_arn, name=Irsa.role_name, account_id=ACCOUNT)
    kept = sessions.Sessions(clock, Identifiers("test"), lambda _: role, OwnState(None))
    return kept, clock, lambda name: kept.issue(role.arn, name, 3600)


def test_a_session_is_known_for_a_day_after_its_end_and_then_forgotten(opened):
    kept, clock, issue = opened
    first = issue("first")
    clock.advance(hours=24)
    issue("second")
    assert kept.find(first.access_key_id).credentials == first
    clock.advance(hours=2)
    issue("third")
    assert kept.find(first.access_key_id) is None
    assert not kept.is_token(first.session_token)


def test_of_too_many_sessions_the_oldest_is_forgotten(opened, monkeypatch):
    monkeypatch.setattr(sessions, "KEPT", 3)
    kept, _, issue = opened
    first, *others = [issue(f"session-{number}") for number in range(4)]
    assert kept.find(first.access_key_id) is None
    assert not kept.is_token(first.session_token)
    assert all(kept.find(other.access_key_id).credentials == other for other in others)


def test_a_forgotten_session_is_removed_from_the_lab_s_file(tmp_path):
    own = OwnState(tmp_path / "own.db")
    for key in ("first", "second", "third"):
        own.keep_session(key, {"key": key})
    own.forget_session("first")
    own.close()
    assert OwnState(tmp_path / "own.db").sessions() == [{"key": "second"}, {"key": "third"}]
