"""A participant without a browser: the same requests and WebSocket messages that JupyterLab's page sends.

https://jupyterhub.readthedocs.io/en/stable/reference/rest-api.html,
https://jupyter-client.readthedocs.io/en/stable/messaging.html
"""

import asyncio
import json
import re
import ssl
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import websockets

from labkit.errors import LabError

FIELD = re.compile(r'name="_xsrf" value="([^"]+)"')
REFUSED = re.compile(r'class="login_error"[^>]*>\s*(.*?)\s*</p>', re.DOTALL)
BIGGEST_MESSAGE = 64 * 2**20  # bytes


@dataclass
class Participant:
    """A person who uses the workshop at `url` with a name and a word."""

    url: str
    name: str
    word: str
    timeout: float = 600
    """Seconds"""

    def __post_init__(self) -> None:
        # Whoever rehearses is on the machine itself, so the certificate proves nothing.
        self.tls = ssl.create_default_context()
        self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.http = httpx.AsyncClient(
            base_url=self.url, follow_redirects=True, timeout=self.timeout, verify=self.tls, trust_env=False
        )

    async def log_in(self) -> None:
        """Log in unless that's done already, and ask for a server.

        Raises `LabError` with the page's sentence if the hub refuses.
        """
        page = await self.http.get("hub/login")
        secret = FIELD.search(page.text)
        if page.status_code == 200 and not secret:
            return
        given = {"username": self.name, "password": self.word, "_xsrf": secret[1] if secret else ""}
        answer = await self.http.post("hub/login", params={"_xsrf": given["_xsrf"]}, data=given)
        if answer.status_code != 200:
            refused = REFUSED.search(answer.text)
            raise LabError(
                refused[1] if refused else f"The hub answers {answer.status_code}.", where=f"{self.url}hub/login"
            )

    async def started(self) -> list[str]:
        """Wait for the server, and return what the page says meanwhile. Raises `LabError` if the server fails."""
        said = []
        async with self.http.stream(
            "GET", f"hub/api/users/{self.name}/server/progress", params=self._secret("/hub/")
        ) as events:
            async for line in events.aiter_lines():
                if not line.startswith("data:"):
                    continue
                event = json.loads(line.removeprefix("data:"))
                said.append(event["message"])
                if event.get("failed"):
                    raise LabError(event["message"], where=f"the server of {self.name}")
        (await self.http.get(f"user/{self.name}/lab")).raise_for_status()
        return said

    @asynccontextmanager
    async def kernel(self, notebook: str) -> AsyncIterator["Kernel"]:
        """Open a notebook of learn/ with a kernel, which stays when the block ends."""
        session = {"path": f"learn/{notebook}", "name": notebook, "type": "notebook", "kernel": {"name": "python3"}}
        api = f"user/{self.name}/api"
        answer = await self.http.post(f"{api}/sessions", json=session, headers=self._header())
        answer.raise_for_status()
        kernel_id = answer.json()["kernel"]["id"]
        address = f"{self.url.replace('http', 'ws', 1)}{api}/kernels/{kernel_id}/channels"
        cookies = "; ".join(
            f"{cookie.name}={cookie.value}"
            for cookie in self.http.cookies.jar
            if cookie.path in ("/", f"/user/{self.name}/")
        )
        async with websockets.connect(
            address,
            additional_headers={"Cookie": cookies},
            ssl=self.tls if address.startswith("wss") else None,
            max_size=BIGGEST_MESSAGE,
            open_timeout=self.timeout,
            ping_interval=None,  # a busy server answers late; a cell has its own time limit
            proxy=None,
        ) as socket:
            yield Kernel(socket, kernel_id, self.timeout)

    async def cells(self, notebook: str) -> list[str]:
        """Return the sources of the code cells of a notebook in learn/."""
        answer = await self.http.get(f"user/{self.name}/api/contents/learn/{notebook}")
        answer.raise_for_status()
        return [cell["source"] for cell in answer.json()["content"]["cells"] if cell["cell_type"] == "code"]

    async def notebooks(self) -> list[str]:
        """Return the names of the notebooks in learn/, in order."""
        answer = await self.http.get(f"user/{self.name}/api/contents/learn")
        answer.raise_for_status()
        return sorted(file["name"] for file in answer.json()["content"] if file["type"] == "notebook")

    def _header(self) -> dict[str, str]:
        return {"X-XSRFToken": self._secret(f"/user/{self.name}/").get("_xsrf", "")}

    def _secret(self, path: str) -> dict[str, str]:
        return {
            cookie.name: cookie.value or ""
            for cookie in self.http.cookies.jar
            if (cookie.name, cookie.path) == ("_xsrf", path)
        }


@dataclass
class Kernel:
    """A notebook's kernel, over its WebSocket."""

    socket: websockets.ClientConnection
    id: str
    timeout: float

    async def run(self, source: str) -> str:
        """Run a cell and return what it printed or showed as text. Raises `LabError` if it fails or takes too long."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "username": "",
            "session": "",
            "version": "5.3",
        }
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        await self.socket.send(json.dumps(message))
        output: list[str] = []
        deadline = time.monotonic() + self.timeout
        first_line = source.strip().splitlines()[0]
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    answer = json.loads(await self.socket.recv())
            except TimeoutError:
                raise LabError(f"A cell took longer than {self.timeout:.0f} s.", where=first_line) from None
            if answer["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            said = answer["content"]
            match answer["msg_type"]:
                case "stream":
                    output.append(said["text"])
                case "execute_result" | "display_data":
                    output.append(said["data"].get("text/plain", ""))
                case "error":
                    raise LabError(f"A cell failed: {said['ename']}: {said['evalue']}", where=first_line)
                case "status" if said["execution_state"] == "idle":
                    return "".join(output)
