"""Clock, ids, certificates and listeners, which both halves of the simulator use."""

import asyncio
import fcntl
import ssl

import httpx
import pytest

from labkit.simulator.certificates import Authority
from labkit.simulator.clock import Clock
from labkit.simulator.folder import Folder
from labkit.simulator.identifiers import Identifiers
from labkit.simulator.listener import Listener, bind


def test_a_clock_that_one_process_moves_is_moved_for_all(tmp_path):
    learner, server = Clock(tmp_path / "clock"), Clock(tmp_path / "clock")
    assert server.offset == 0
    learner.advance(hours=2)
    assert server.offset == 7200
    learner.advance(minutes=-30)
    assert server.offset == 5400
    assert (tmp_path / "clock").read_text().startswith("+5400")
    learner.reset()
    assert server.offset == 0


def test_ids_are_the_same_in_every_lab_and_serials_count_up():
    one, two = Identifiers("irsa"), Identifiers("irsa")
    assert one.hex("issuer", "blue/0") == two.hex("issuer", "blue/0") != one.hex("issuer", "green/0")
    assert [one.serial("issuer", "blue"), one.serial("issuer", "blue"), two.serial("issuer", "blue")] == [0, 1, 0]


def test_files_with_keys_are_private(tmp_path):
    folder = Folder(tmp_path / "lab")
    folder.create()
    assert folder.secret == folder.secret
    assert folder.authority.certificate_pem == folder.authority.certificate_pem
    modes = {file.name: file.stat().st_mode & 0o777 for file in folder.path.iterdir()}
    assert modes == {"secret": 0o600, "ca.pem": 0o600, "ca.key": 0o600}
    assert folder.path.stat().st_mode & 0o777 == 0o700
    folder.write_json("clusters/blue/ca.key", {})
    assert [(folder.path / name).stat().st_mode & 0o777 for name in ("clusters", "clusters/blue")] == [0o700, 0o700]


def test_only_one_process_holds_a_lock(tmp_path):
    folder = Folder(tmp_path)
    with folder.lock("server.lock") as first, folder.lock("server.lock") as second:
        assert (first, second) == (True, False)
    assert not folder.is_running()


def test_asking_whether_a_server_runs_does_not_count_as_a_server(tmp_path):
    folder = Folder(tmp_path)
    with (tmp_path / "server.lock").open("w") as asks:
        fcntl.flock(asks, fcntl.LOCK_SH)
        assert not folder.is_running()
    with folder.lock("server.lock"):
        assert folder.is_running()


@pytest.mark.parametrize(("headers", "status"), [
    ({}, 200),
    ({"Host": "localhost:1"}, 421),
    ({"Host": "rebound.example"}, 421),
    ({"Host": ""}, 421),
    ({"Origin": "https://page.example"}, 403),
    ({"Origin": "null"}, 403),
])  # fmt: skip
def test_a_listener_refuses_another_host_name_and_requests_of_web_pages(headers, status):
    async def answer() -> int:
        listener = Listener(says_ok, port_socket=bind(0), hosts={"127.0.0.1"})
        await listener.start()
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            response = await client.get(f"http://127.0.0.1:{listener.port}/", headers=headers)
        await listener.stop()
        return response.status_code

    assert asyncio.run(answer()) == status


def test_a_listener_knows_the_client_by_its_certificate(tmp_path):
    authority, stranger = Authority.create("ours"), Authority.create("another")

    async def answers() -> list[str]:
        listener = Listener(
            says_peer,
            port_socket=bind(0),
            hosts={"127.0.0.1"},
            certificate=authority.issue("server", ips=["127.0.0.1"]),
            client_authority_pem=authority.certificate_pem,
        )
        await listener.start()
        answers = []
        for issuer in (authority, None, stranger):
            context = ssl.create_default_context(cadata=authority.certificate_pem.decode())
            if issuer:
                pair = issuer.issue("ada", organizations=["system:masters"], client=True)
                (tmp_path / "client.pem").write_bytes(pair.certificate_pem + pair.key_pem)
                context.load_cert_chain(tmp_path / "client.pem")
            async with httpx.AsyncClient(verify=context, trust_env=False, timeout=60) as client:
                try:
                    answers.append((await client.get(f"https://127.0.0.1:{listener.port}/")).text)
                except httpx.TransportError:
                    answers.append("refused")
        await listener.stop()
        return answers

    assert asyncio.run(answers()) == ["ada ('system:masters',)", "nobody", "refused"]


async def says_ok(scope, receive, send):
    await say(send, "ok")


async def says_peer(scope, receive, send):
    peer = scope["state"]["peer"]
    await say(send, f"{peer.common_name} {peer.organizations}" if peer else "nobody")


async def say(send, text):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text.encode()})


def test_serials_are_never_given_twice_even_after_a_name_is_forgotten(monkeypatch):
    monkeypatch.setattr("labkit.simulator.identifiers.REMEMBERED", 3)
    made = Identifiers("irsa")
    assert [made.serial("pod", "a") for _ in range(2)] == [0, 1]
    assert [made.serial("pod", name) for name in "bcd"] == [0, 0, 0]  # "d" is one name too many to remember
    assert made.serial("pod", "a") == 2
