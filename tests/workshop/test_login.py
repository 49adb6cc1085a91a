"""Who may log in, asked of the authenticator itself, without a hub."""

import asyncio
from types import SimpleNamespace

import pytest
from tornado.web import HTTPError

from labkit.workshop import spawner, words
from labkit.workshop.login import ClassAuthenticator
from labkit.workshop.settings import read
from labkit.workshop.spawner import ParticipantSpawner, Queue, _queues
from tests.workshop.test_settings import written

PHRASE = "correct horse battery"


@pytest.fixture
def door(tmp_path):
    """Log in with a name and a word: the name that the hub gets, or the sentence of the refusal."""
    workshop = read(written(tmp_path, phrase=PHRASE, users=5))
    workshop.state.mkdir()
    words.cards(workshop)
    authenticator = ClassAuthenticator(workshop=workshop)

    def log_in(name, word, address="10.0.0.1"):
        handler = SimpleNamespace(request=SimpleNamespace(remote_ip=address))
        try:
            return asyncio.run(authenticator.authenticate(handler, {"username": name, "password": word}))
        except HTTPError as refused:
            assert refused.status_code == 403
            return refused.log_message

    log_in.workshop = workshop
    return log_in


def test_the_phrase_lets_a_new_name_in_once_and_then_it_needs_a_card(door):
    assert door("zoe", "wrong phrase") == "This isn't the phrase of the class."
    assert door(" Zoe ", PHRASE) == "zoe"
    assert door("zoe", PHRASE).startswith("Somebody has this name already.")
    assert door("zoe", words.cards(door.workshop, ("zoe",))["zoe"]) == "zoe"


def test_the_phrase_opens_no_name_of_the_list(door):
    assert door("ana", PHRASE) == "This isn't the word on the card of this name."
    assert door("leader", PHRASE) == "This isn't the word on the card of this name."


def test_whoever_comes_after_the_last_place_is_told_so_and_nobody_loses_theirs(door):
    cards = words.known(door.workshop)
    assert [door(name, cards[name]) for name in ("ana", "ben", "chi", "leader")] == ["ana", "ben", "chi", "leader"]
    assert door("zoe", PHRASE) == "zoe"
    assert door("yan", PHRASE) == "The workshop is full: 5 people have a place. Ask the leader for one."
    assert door("ana", cards["ana"]) == "ana"


def test_five_wrong_words_stop_the_name_at_that_address_alone(door):
    right = words.known(door.workshop)["ana"]
    for _ in range(5):
        assert door("ana", "wrong") == "This isn't the word on the card of this name."
    assert door("ana", right) == "5 wrong words for ana. Wait a minute, then try again."
    assert door("ana", right, address="10.0.0.2") == "ana"


def test_the_page_shows_the_place_in_the_queue_as_it_changes_and_why_a_start_takes_long(tmp_path, monkeypatch):
    monkeypatch.setattr(spawner, "BUSY_AFTER", 0)
    workshop = read(written(tmp_path, starts=1))

    async def said():
        queue = _queues[workshop.key] = Queue(1)
        queue.waiting = ["ben", "ana"]
        ana = SimpleNamespace(workshop=workshop, user=SimpleNamespace(name="ana"))
        async for event in ParticipantSpawner.progress(ana):
            yield event["message"]
            del queue.waiting[:1]

    async def all_said():
        return [message async for message in said()]

    try:
        assert asyncio.run(all_said()) == [
            "Your place in the queue: 2. 1 start at a time.",
            "Your place in the queue: 1. 1 start at a time.",
            "Your lab and JupyterLab are starting.",
            "Many others are at work on this machine, so it takes longer. Just wait.",
        ]
    finally:
        del _queues[workshop.key]
