"""An AWS call that never returns from moto: the caller gets an error, and the lab's server starts again by itself."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError
from tenacity import Retrying, stop_after_delay, wait_fixed

from labkit import Lab
from labkit.simulator import process
from labkit.simulator.folder import Folder
from labkit.simulator.process import State

# A server in which sqs:ListQueues writes a file and then waits forever. A call may take three seconds.
SERVER = """
import sys
import threading
from pathlib import Path
from labkit.simulator import server
from labkit.simulator.aws.one_thread import OneThread
from moto.sqs.models import SQSBackend
OneThread.__init__.__defaults__ = (3.0,)
SQSBackend.list_queues = lambda *_: (Path(sys.argv[1], "waits").touch(), threading.Event().wait())
server.main()
"""


# A server in which sqs:ListQueues keeps every thread from Python's next instruction.
FROZEN = """
import re
from labkit.simulator import server
from moto.sqs.models import SQSBackend
server.FROZEN = 1.0
SQSBackend.list_queues = lambda *_: re.match("(a+)+$", "a" * 100 + "!")
server.main()
"""


def client(state, service):
    return boto3.client(
        service,
        region_name=state.region,
        endpoint_url=state.endpoint_url,
        aws_access_key_id=state.access_key_id,
        aws_secret_access_key=state.secret_access_key,
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_callers_of_a_stuck_call_get_503_and_the_server_starts_again(tmp_path, monkeypatch, capsys):
    folder = Folder(tmp_path / "lab")
    folder.create()
    reading, writing = os.pipe()
    command = [sys.executable, "-c", SERVER, str(folder.path), str(writing)]
    with subprocess.Popen(command, pass_fds=[writing], start_new_session=True) as server:
        try:
            os.close(writing)
            with os.fdopen(reading, "rb") as pipe:
                assert pipe.readline() == b"ready\n"
            before = State.read(folder)
            sqs, iam = client(before, "sqs"), client(before, "iam")
            with ThreadPoolExecutor(2) as pool:
                calls = [pool.submit(sqs.list_queues)]
                for attempt in Retrying(stop=stop_after_delay(60), wait=wait_fixed(0.02), reraise=True):
                    with attempt:
                        assert (folder.path / "waits").exists()
                calls.append(pool.submit(iam.list_roles))
                for call in calls:
                    with pytest.raises(ClientError) as caught:
                        call.result(60)
                    answer = caught.value.response
                    status = answer["ResponseMetadata"]["HTTPStatusCode"]
                    assert (status, answer["Error"]["Code"]) == (503, "ServiceUnavailable")
            server.wait(60)
            monkeypatch.setenv("LABKIT_HOME", str(folder.path))
            for told in (1, 0):
                Lab.open().close()
                assert (
                    capsys.readouterr().out.count("had an AWS call that did not return and was started again") == told
                )
            after = State.read(folder)
            assert (after.pid != before.pid, after.endpoint_url) == (True, before.endpoint_url)
            assert "QueueUrls" not in client(after, "sqs").list_queues()
        finally:
            server.kill()
            process.stop(folder)


def test_a_frozen_server_ends_and_the_next_one_has_its_state(tmp_path):
    folder = Folder(tmp_path / "lab")
    folder.create()
    reading, writing = os.pipe()
    command = [sys.executable, "-c", FROZEN, str(folder.path), str(writing)]
    with subprocess.Popen(command, pass_fds=[writing], start_new_session=True) as server:
        try:
            os.close(writing)
            with os.fdopen(reading, "rb") as pipe:
                assert pipe.readline() == b"ready\n"
            sqs = client(State.read(folder), "sqs")
            sqs.create_queue(QueueName="kept")
            with pytest.raises(ConnectionClosedError):
                sqs.list_queues()
            assert server.wait(60) == -signal.SIGVTALRM
            again = process.start(folder)
            assert "was killed and was started again" in again.note
            assert len(client(again, "sqs").list_queues()["QueueUrls"]) == 1
        finally:
            server.kill()
            process.stop(folder)


def test_a_server_that_works_on_a_busy_machine_gets_time_to_start_and_one_that_hangs_does_not(monkeypatch):
    monkeypatch.setattr(process, "READY_WITHIN", 0.2)
    monkeypatch.setattr(process, "PATIENCE", 10_000)

    def speaks(source):
        with subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE) as server:
            try:
                return process._speaks(server.stdout, server.pid)
            finally:
                server.kill()

    assert speaks("import time\nwhile time.process_time() < 1:\n    pass\nprint()")
    assert not speaks("import time; time.sleep(600)")
