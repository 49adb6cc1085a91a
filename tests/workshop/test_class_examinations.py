"""Examinations in a class: the board keeps them, forgets nothing that a learner deletes, and signs the certificates."""

import asyncio
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
import uvicorn
from pydantic import TypeAdapter

from labkit.course import CATALOGUE, progress
from labkit.course.examination import ExaminationCertificate, Paper, verify
from labkit.errors import LabError
from labkit.simulator import Folder
from labkit.workshop.board.examinations import Examinations
from labkit.workshop.settings import KEY_PRINT
from tests.commands import labkit
from tests.workshop.test_board import a_class, board_of, client
from tests.workshop.test_workshop import OPENS, ready


@pytest.fixture
def made(tmp_path):
    return board_of(a_class(tmp_path))


PASSED = "passed: 83 of 100 points"
LEVELS = ["easy"] * 3 + ["middle"] * 4 + ["hard"] * 3


def test_the_board_keeps_examinations_and_signs_what_it_saw(made):
    faults = iter(CATALOGUE)
    drawn = [tuple(next(faults) for _ in range(2 if level == "hard" else 1)) for level in LEVELS]
    made.examinations.clock = lambda: 1000.0
    kept = {}

    async def scenario(web):
        async def post(who="ana", **body):
            return await web.post("examination", content=json.dumps(body), headers={"Authorization": f"token {who}"})

        async def go_on(**changes):
            """Send the examination with changes of the open task, and keep the answer."""
            papers = kept["result"]["papers"]
            at = next(at for at, paper in enumerate(papers) if not paper["ended"])
            sent = [*papers[:at], papers[at] | changes, *papers[at + 1 :]]
            answer = await post(result=kept["result"] | {"papers": sent})
            if answer.status_code == 200:
                kept.update(answer.json())
            return answer.status_code

        assert (await post("")).status_code == 403
        assert (await post()).json() == {"result": None}
        assert (await post(name="Ana")).status_code == 409
        papers = [asdict(Paper(level)) for level in LEVELS]
        begun = kept["result"] = {"run": "r", "number": 1, "papers": papers}
        done = [*papers[:9], papers[9] | {"faults": drawn[9], "began": 1, "ended": 2, "attempts": 1}]
        twice = [paper | {"faults": drawn[0]} for paper in papers]
        for wrong in ({"papers": papers[:9]}, {"number": 2}, {"papers": done}, {"papers": twice}):
            assert (await post(result=begun | wrong)).status_code == 409, wrong
        assert (await post(result="all points")).status_code == 422

        for at, faults in enumerate(drawn):
            assert await go_on(faults=faults) == 200
            assert await go_on(faults=drawn[at - 1]) == 409, "the draw stays"
            assert await go_on(began=7) == 200
            assert kept["result"]["papers"][at]["began"] == 1000, "by the board's clock, not the lab's"
            assert await go_on(guesses=["pod"], attempts=1) == 200
            assert await go_on(guesses=["role"]) == 409, "a guess stays once the learner has asked"
            assert await go_on(attempts=0) == 409, "a question stays"
            if at < 2:
                await post(mark=["doctor", "lab"][at])
            assert await go_on(ended=9, repaired=True, named=1) == 200
        papers = kept["result"]["papers"]
        earlier = [*papers[:9], papers[9] | {"repaired": False}]
        assert (await post(result=kept["result"] | {"papers": earlier})).status_code == 409, "what ended stays"
        assert papers[0]["doctor"] and not papers[1]["repaired"] and not papers[2]["doctor"]
        assert (await post(name="x" * 61)).status_code == 409
        assert (await post("ben", name="Ana A.")).status_code == 409
        web.cookies = {"board-session": "s"}
        made.sessions["s"] = "leader"
        assert PASSED in (await web.get("rows")).text
        return (await post(name="Ana A.")).json()

    async def in_turn():
        async with client(made) as web:
            return await scenario(web)

    signed = TypeAdapter(ExaminationCertificate).validate_python(asyncio.run(in_turn()))
    state = made.workshop.state
    # The doctor cost 4 points, and a repair by the lab 7. One of the two parts of the three hard tasks was named.
    assert Examinations(made.workshop).scores() == {"ana": PASSED}, "also after a restart of the board"
    assert signed.fingerprint == (state / KEY_PRINT).read_text() and "logged in as ana" in signed.page
    assert (state / "certificate-key.pem").stat().st_mode & 0o777 == 0o600
    signed.save(state / "certificate.svg")
    verified = labkit("certificate", "verify", str(state / "certificate.svg")).stdout
    assert f"key:   {signed.fingerprint}\n{signed.claims.note}\n" in verified and "ask the leader" in verified


@pytest.fixture
def board_of_a_class(made, monkeypatch, tmp_path):
    """Let this process be a lab of ana's, with the board as its web service."""
    config = uvicorn.Config(made.application(), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as beside:
        beside.submit(server.run, [listener])
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/services/board/report"
        variables = {"LABKIT_PROGRESS": str(tmp_path / "progress.jsonl"), "LABKIT_LIVE": "1"}
        for name, value in (variables | {progress.BOARD: address, "JUPYTERHUB_API_TOKEN": "ana"}).items():
            monkeypatch.setenv(name, value)
        yield
        server.should_exit = True


@pytest.mark.usefixtures("board_of_a_class")
def test_an_examination_in_a_class_forgets_nothing_that_a_learner_deletes(lab, made, monkeypatch, tmp_path, capsys):
    names = ["policy-detached", "policy-detached", "role-deleted", "trust-policy-denies", "role-deleted"]
    drawn = ([CATALOGUE[name]] for name in names)
    monkeypatch.setattr("labkit.course.examination.exam.draw", lambda *_: next(drawn))
    exam = lab.examination()
    exam.guess("permissions")
    for _ in range(3):
        exam.hand_in()
    lab.diagnose()
    for deleted in (tmp_path / "progress.jsonl", *Folder.find().path.glob("doctor-asked*")):
        deleted.unlink()
    exam = lab.examination()
    assert "Your examination 1 goes on: task 1 of 10, 0 points so far." in capsys.readouterr().out
    lab.aws.client("iam").attach_role_policy(RoleName="my-role", PolicyArn=lab.parameters.policy_arn)
    # The third and the fourth question cost a point each, and the doctor four.
    with pytest.raises(LabError, match="went on in another notebook"):
        exam.hand_in()  # the second task has the first one's fault, which the board refuses
    assert "  4 points of 10." in capsys.readouterr().out
    exam = lab.examination()
    assert made.examinations.scores() == {"ana": "4 of 100 points, 9 tasks left"}
    exam.give_up()
    lab.examination(again=True)
    assert "Examination 2: 3 easy, 4 middle, 3 hard." in capsys.readouterr().out


# Each task is broken in the participant's lab, which then takes every repair for right, and doesn't ask AWS in the pod.
TAKEN = """
import labkit
from labkit.course.examination import judging
from labkit.course.faults import breaking
judging.is_mended, judging.causes, breaking.what_aws_says = lambda *_: True, lambda *_: [], lambda lab: []
lab = labkit.Lab.open(**labkit.parameters()).to_break()
exam = lab.examination()
for _ in range(10):
    exam.hand_in()
print(exam.certificate("Ben B.").page)
"""


@pytest.mark.workshop
def test_a_participant_of_the_real_hub_passes_and_the_leader_sees_it(workshop, participant, tmp_path):
    async def scenario():
        ben, leader = await ready(participant, "ben"), participant("leader")
        async with ben.kernel(OPENS) as kernel:
            said = await kernel.run(TAKEN)
        await leader.log_in()
        await leader.http.get("services/board/")  # logs in to the board
        return said, (await leader.http.get("services/board/rows")).text

    said, rows = asyncio.run(scenario())
    page = tmp_path / "certificate.svg"
    page.write_text(said[said.index("<svg") : said.index("</svg>") + len("</svg>\n")])
    signed = verify(page)
    assert signed.claims.note == f"Supervised in the class “{workshop.title}”, logged in as ben"
    assert signed.fingerprint == (workshop.state / KEY_PRINT).read_text()
    (row,) = (row for row in rows.split("<tr") if ">ben<" in row)
    assert "passed: 70 of 100 points" in row
