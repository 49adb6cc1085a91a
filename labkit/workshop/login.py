"""Who may log in: names with the word of their card, or anybody with the class's phrase and a name of their own.

A name that somebody took with the phrase needs a card from then on, because otherwise everybody could log in as
everybody. https://jupyterhub.readthedocs.io/en/stable/reference/authenticators.html
"""

import hmac
import time

from jupyterhub.auth import Authenticator
from tornado.web import HTTPError, RequestHandler
from traitlets import Instance

from labkit.errors import LabError
from labkit.workshop import seats, words
from labkit.workshop.settings import NAME_RULE, Workshop, name

TRIES = 5
PAUSE = 60  # seconds


class ClassAuthenticator(Authenticator):  # type: ignore[misc]  # JupyterHub has no types
    """The log-in of a class."""

    workshop = Instance(Workshop, config=True, help="The workshop, as workshop.yaml describes it.")

    def __init__(self, **settings: object):
        super().__init__(**settings)
        self.wrong: dict[tuple[str, str], list[float]] = {}

    async def authenticate(self, handler: RequestHandler, data: dict[str, str]) -> str:
        """Return the name of who logs in. Raises `HTTPError` whose sentence the page shows."""
        who, word = data.get("username", "").strip().lower(), data.get("password", "").strip()
        try:
            name(who)
        except ValueError:
            raise HTTPError(403, f"This can't be a name. {NAME_RULE}.") from None
        recent = self.wrong.setdefault((who, str(handler.request.remote_ip)), [])
        recent[:] = [moment for moment in recent if moment > time.monotonic() - PAUSE]
        if len(recent) >= TRIES:
            raise HTTPError(403, f"{TRIES} wrong words for {who}. Wait a minute, then try again.")
        if sentence := self._refusal(who, word):
            recent.append(time.monotonic())
            raise HTTPError(403, sentence)
        try:
            seats.take(self.workshop, who)
        except LabError as error:
            raise HTTPError(403, error.what) from None
        return who

    def _refusal(self, who: str, word: str) -> str:
        card = words.known(self.workshop).get(who)
        if card is not None:
            return "" if _same(word, card) else "This isn't the word on the card of this name."
        if not self.workshop.phrase:
            return "This name isn't on the list. Ask the leader for a card."
        if not _same(word, self.workshop.phrase):
            return "This isn't the phrase of the class."
        if who in seats.taken(self.workshop):
            return "Somebody has this name already. Choose another one, or ask the leader for a card to log in again."
        return ""


def _same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
