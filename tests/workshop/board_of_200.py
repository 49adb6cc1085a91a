"""The workshop's board with 200 labs that report over HTTP, and one leader's page."""

import asyncio
import json
import socket
import statistics
import threading
import time
from dataclasses import asdict
from pathlib import Path

import httpx
import psutil
import uvicorn

from labkit.workshop.board.access import Access, TokenOwner
from labkit.workshop.board.orders import Orders
from labkit.workshop.board.report import ParticipantReport
from labkit.workshop.board.rows import Board
from labkit.workshop.board.service import BoardService
from labkit.workshop.settings import Workshop

LABS = 200
TIMES = 20
LEADER = "leader"


class NoHub(Access):
    """Knows each token without a hub: the token is the owner's name."""

    def __init__(self) -> None:
        pass

    async def user(self, token: str) -> TokenOwner | None:
        return TokenOwner(token, token == LEADER) if token else None


def labs() -> str:
    """Measure a burst of reports from all labs at once, the leader's rows after it (median), and the memory."""
    before = psutil.Process().memory_info().rss
    workshop = Workshop(folder=Path("class"), names=[f"p{number}" for number in range(LABS)], users=LABS + 1)
    service = BoardService(workshop, Board(workshop.names, 300), NoHub(), Orders(workshop))
    service.sessions["session"] = LEADER
    server = uvicorn.Server(uvicorn.Config(service.application(), log_level="warning", lifespan="off"))
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        burst, rows = asyncio.run(_measured(f"http://127.0.0.1:{listener.getsockname()[1]}/services/board/"))
    finally:
        server.should_exit = True
        thread.join()
    more = (psutil.Process().memory_info().rss - before) / 2**20
    return f"{LABS} reports at once {burst:.2f} s, {LABS} rows {rows * 1000:.0f} ms, with the clients {more:.0f} MiB"


async def _measured(url: str) -> tuple[float, float]:
    said = json.dumps(asdict(ParticipantReport(notebook="02", exercise="02-a", tries=3, quiet=20)))
    limits = httpx.Limits(max_connections=LABS)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60, trust_env=False) as web:
        since = time.perf_counter()
        headers = [{"Authorization": f"token p{number}"} for number in range(LABS)]
        for answer in await asyncio.gather(*(web.post("report", content=said, headers=each) for each in headers)):
            answer.raise_for_status()
        burst = time.perf_counter() - since
        times = []
        for _ in range(TIMES):
            since = time.perf_counter()
            page = await web.get("rows", headers={"Cookie": "board-session=session"})
            times.append(time.perf_counter() - since)
            assert page.text.count('class="working"') == LABS
    return burst, statistics.median(times)
