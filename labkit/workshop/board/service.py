"""The board's web service: `python -m labkit.workshop.board.service FOLDER [ADDRESS]`. The keeper starts it.

Labs post their reports with the token that the hub gave to their server, so the hub says which participant reports. The
page is for leaders. https://starlette.dev, https://htmx.org
"""

import hmac
import json
import os
import secrets
import sys
from pathlib import Path

import httpx
import uvicorn
from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates

from labkit.errors import LabError
from labkit.workshop import keeper, networks
from labkit.workshop.board.access import CALLBACK, PREFIX, Access, TokenOwner
from labkit.workshop.board.examinations import SENT, Examinations
from labkit.workshop.board.orders import OrderRefused, Orders
from labkit.workshop.board.report import ParticipantReport
from labkit.workshop.board.rows import ORDER_STATES, STATES, Board
from labkit.workshop.settings import Workshop, read

FOLDER = Path(__file__).parent
REPORT = TypeAdapter(ParticipantReport)
MOST = 4096  # bytes of a report
MOST_OF_EXAMINATION = 65536
MOST_OF_ORDER = 65536  # bytes: it can name every fault
MOST_SESSIONS = 50
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SESSION, STATE = "board-session", "board-state"  # cookies


def main() -> None:
    workshop = read(Path(sys.argv[1]))
    access = Access(keeper.hub_url(workshop), os.environ["JUPYTERHUB_API_TOKEN"])
    service = BoardService(workshop, Board(workshop.names, workshop.stuck * 60), access, Orders(workshop))
    host = sys.argv[2] if len(sys.argv) > 2 else workshop.hub_address
    uvicorn.run(service.application(), host=host, port=networks.BOARD_PORT, log_level="warning", lifespan="off")


class BoardService:
    """The page of one workshop."""

    def __init__(self, workshop: Workshop, board: Board, access: Access, orders: Orders):
        self.workshop, self.board, self.access, self.orders = workshop, board, access, orders
        self.examinations = Examinations(workshop)
        self.sessions: dict[str, str] = {}
        """The token of each leader's browser, by the cookie."""
        self.templates = Jinja2Templates(FOLDER / "templates")

    def application(self) -> Starlette:
        """Return the service for a web server."""
        routes = [
            Route(f"{PREFIX}report", self.report, methods=["POST"]),
            Route(f"{PREFIX}examination", self.examination, methods=["POST"]),
            Route(f"{PREFIX}order", self.order, methods=["POST"]),
            Route(PREFIX, self.page),
            Route(f"{PREFIX}rows", self.rows),
            Route(f"{PREFIX}seen", self.seen, methods=["POST"]),
            Route(CALLBACK, self.log_in),
            Mount(f"{PREFIX}static", StaticFiles(directory=FOLDER / "static")),
        ]
        return Starlette(routes=routes, exception_handlers={httpx.HTTPError: _without_hub})

    async def report(self, request: Request) -> Response:
        """Keep a lab's report. The hub's token names the owner."""
        user = await self._sender(request)
        body = await _body(request)
        if user.name in self.workshop.leaders:
            return JSONResponse({"seen": False})
        try:
            report = REPORT.validate_json(body)
        except ValidationError:
            self.board.receive(user.name, None)
            raise HTTPException(422, "This isn't a report of this version of labkit.") from None
        seen = self.board.receive(user.name, report)
        return JSONResponse({"seen": seen, "order": self.orders.for_lab(user.name, report)})

    async def examination(self, request: Request) -> Response:
        """Keep a participant's examination, or sign its certificate."""
        user = await self._sender(request)
        try:
            sent = SENT.validate_json(await _body(request, MOST_OF_EXAMINATION))
            return JSONResponse(self.examinations.answer(user.name, sent))
        except ValidationError:
            raise HTTPException(422, "This isn't an examination of this version of labkit.") from None
        except LabError as refused:
            raise HTTPException(409, refused.what) from None

    async def order(self, request: Request) -> Response:
        """Give an order to all labs. Only root on this machine can read the token: `labkit workshop` sends it."""
        given = request.headers.get("Authorization", "").removeprefix("token ")
        if not hmac.compare_digest(given.encode(), self.access.token.encode()):
            raise HTTPException(403, "Only labkit workshop gives orders.")
        order = json.loads(await _body(request, MOST_OF_ORDER))
        try:
            self.orders.give(order["what"], order["about"])
        except OrderRefused as refused:
            raise HTTPException(409, str(refused)) from None
        return JSONResponse({"labs": self.board.reporting()})

    async def page(self, request: Request) -> Response:
        """The board, for a leader; anybody else logs in first."""
        if not await self._leader(request):
            state = secrets.token_urlsafe()
            answer: Response = RedirectResponse(self.access.log_in(state), 302)
            self._remember(answer, STATE, state)
            return answer
        shown = {"title": self.workshop.title, "prefix": PREFIX} | self._rows()
        return self._shown(request, "page.html", shown)

    async def rows(self, request: Request) -> Response:
        """The rows alone, for htmx."""
        if not await self._leader(request):
            return Response(headers={"HX-Refresh": "true"})
        return self._shown(request, "rows.html", self._rows())

    async def seen(self, request: Request) -> Response:
        """Tell a participant that the leader has seen the raised hand."""
        # Another site's form can't send this header.
        if not await self._leader(request) or "HX-Request" not in request.headers:
            raise HTTPException(403, "Only a leader's board may answer.")
        self.board.answer(request.query_params.get("name", ""))
        return self._shown(request, "rows.html", self._rows())

    async def log_in(self, request: Request) -> Response:
        """The hub's page comes back here with a code."""
        given, kept = request.query_params.get("state", ""), request.cookies.get(STATE, "")
        if not kept or not hmac.compare_digest(given.encode(), kept.encode()):
            return RedirectResponse(PREFIX, 302)
        token = await self.access.token_for(request.query_params.get("code", ""))
        user = await self.access.user(token)
        if user is None or not user.is_leader:
            raise HTTPException(403, "The board is for leaders.")
        session = secrets.token_urlsafe()
        self.sessions[session] = token
        while len(self.sessions) > MOST_SESSIONS:
            del self.sessions[next(iter(self.sessions))]
        answer = RedirectResponse(PREFIX, 302)
        self._remember(answer, SESSION, session)
        answer.delete_cookie(STATE, path=PREFIX)
        return answer

    async def _sender(self, request: Request) -> TokenOwner:
        user = await self.access.user(request.headers.get("Authorization", "").removeprefix("token "))
        if user is None:
            raise HTTPException(403, "The hub doesn't know this token.")
        return user

    async def _leader(self, request: Request) -> TokenOwner | None:
        user = await self.access.user(self.sessions.get(request.cookies.get(SESSION, ""), ""))
        return user if user and user.is_leader else None

    def _rows(self) -> dict[str, object]:
        rows = self.board.rows()
        counts = {says: sum(row.state == state for row in rows) for state, says in STATES.items()}
        order = self.orders.now
        return {
            "rows": rows,
            "counts": counts,
            "commonest": self.board.commonest(),
            "order": order,
            "order_states": ORDER_STATES,
            "examinations": self.examinations.scores(),
            "obeyed": self.board.obeyed(order.number),
        }

    def _shown(self, request: Request, template: str, shown: dict[str, object]) -> Response:
        headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
        return self.templates.TemplateResponse(request, template, shown, headers=headers)

    def _remember(self, answer: Response, name: str, value: str) -> None:
        secure = self.workshop.url.startswith("https")
        answer.set_cookie(name, value, path=PREFIX, httponly=True, samesite="lax", secure=secure)


async def _body(request: Request, most: int = MOST) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise HTTPException(413, f"This may have at most {most} bytes.", {"Connection": "close"})
    return body


async def _without_hub(_request: Request, _error: Exception) -> Response:
    return Response("The hub doesn't answer. Try again in a few seconds.", 503)


if __name__ == "__main__":
    main()
