"""A class with the real hub: two participants work at once, and go on while parts of the workshop are killed."""

import asyncio
import signal
import time

import psutil
import pytest

from labkit.errors import LabError
from labkit.workshop import networks, running, seats
from labkit.workshop.participant import Participant

pytestmark = pytest.mark.workshop

OPENS = "01-oidc-provider.ipynb"
WHO = """
import os, labkit
mine = {"name": os.environ["USER"], "uid": os.getuid(), "issuer": lab.issuer}
print(mine["name"], mine["uid"])
"""


def own(workshop, part):
    """The workshop's process that runs this part."""
    return next(process for process in running.own_processes(workshop) if part in " ".join(process.cmdline()))


def own_started_again(workshop, part):
    """Kill a part with -9, and wait until its successor answers."""
    killed = own(workshop, part)
    killed.send_signal(signal.SIGKILL)
    psutil.wait_procs([killed], 10)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if running.status(workshop).answers and own(workshop, part).pid != killed.pid:
                return
        except StopIteration:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{part} was not started again")


def test_two_at_once_open_their_own_lab_and_keep_it_while_the_hub_and_the_proxy_are_killed(workshop, participant):
    async def work(name):
        person = participant(name)
        await person.log_in()
        await person.started()
        async with person.kernel(OPENS) as kernel:
            for cell in (await person.cells(OPENS))[:2]:
                await kernel.run(cell)
            return person, await kernel.run(WHO)

    async def go_on(person):
        await person.log_in()
        await person.started()
        async with person.kernel(OPENS) as kernel:
            return await kernel.run("print(mine['name'], mine['uid']); lab.check('oidc_provider')")

    async def scenario():
        (ana, first), (ben, second) = await asyncio.gather(work("ana"), work("ben"))
        places = seats.taken(workshop)
        assert first == f"ana {places['ana'].uid}\n" and second == f"ben {places['ben'].uid}\n"
        servers = {process: psutil.Process(process).create_time() for process in serving(workshop)}
        for part in ("jupyterhub", "configurable-http-proxy"):
            await asyncio.to_thread(own_started_again, workshop, part)
        for person, before in ((ana, first), (ben, second)):
            assert (await go_on(person)).startswith(before)
        assert all(psutil.Process(process).create_time() == since for process, since in servers.items())

    asyncio.run(scenario())
    assert running.status(workshop).at_work == ["ana", "ben"]


def serving(workshop):
    """The processes of the participants' Jupyter servers."""
    return [
        pid
        for namespace in networks.namespaces(workshop)
        for pid in networks.processes(namespace)
        if psutil.Process(pid).cmdline()[2:4] == ["-m", "labkit.cli.jupyterlab"]
    ]


@pytest.mark.parametrize(("name", "word", "sentence"), [
    ("eve", "wrong", "This isn&#39;t the word on the card of this name."),
    ("nobody", "wrong", "This name isn&#39;t on the list. Ask the leader for a card."),
    ("../ana", "wrong", "This can&#39;t be a name."),
    ("", "wrong", "This can&#39;t be a name."),
    ("x" * 300, "wrong", "This can&#39;t be a name."),
])  # fmt: skip
def test_a_refused_log_in_is_one_sentence(workshop, name, word, sentence):
    person = Participant(workshop.url, name, word)
    with pytest.raises(LabError, match=sentence):
        asyncio.run(person.log_in())


def test_after_five_wrong_words_the_name_has_to_wait(workshop, participant):
    guess = Participant(workshop.url, "leader", "wrong")

    async def five():
        for _ in range(5):
            with pytest.raises(LabError, match="the word on the card"):
                await guess.log_in()
        with pytest.raises(LabError, match=r"5 wrong words for leader\. Wait a minute"):
            await participant("leader").log_in()

    asyncio.run(five())
