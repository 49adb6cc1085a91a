"""Role sessions: temporary credentials, their role, and their expiry."""

import base64
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from labkit.policy.arn import Arn
from labkit.simulator.aws.backend import Role
from labkit.simulator.aws.own_state import OwnState
from labkit.simulator.clock import Clock
from labkit.simulator.identifiers import Identifiers

# The most sessions that are kept, and the seconds for which an expired session is kept.
KEPT = 50_000
KEPT_AFTER_ITS_END = 86_400


@dataclass(frozen=True)
class Keys:
    """A long-term access key."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class Credentials:
    """Temporary credentials. ``expiration`` is in seconds since the epoch, in lab time."""

    access_key_id: str
    secret_access_key: str
    session_token: str
    expiration: float
    assumed_role_arn: str


@dataclass(frozen=True)
class Session:
    """One role session."""

    credentials: Credentials
    role_arn: str
    role_id: str
    role_name: str
    account_id: str
    name: str
    issued_at: float
    policies: tuple[str, ...] = ()
    """The session policies' documents."""
    context: dict[str, str | list[str]] = field(default_factory=dict)
    """The condition keys that the session carries, such as the `sub` of a web identity."""
    federation: dict[str, str] = field(default_factory=dict)
    """The web identity's provider and subject, for the trail; empty for other sessions."""
    transitive_tags: dict[str, str] = field(default_factory=dict)
    """The session tags that this session passes on to the sessions that it opens."""

    @property
    def arn(self) -> str:
        return self.credentials.assumed_role_arn

    @property
    def principal_id(self) -> str:
        """``AROA…:NAME``, which AWS calls AssumedRoleId, UserId and aws:userid."""
        return f"{self.role_id}:{self.name}"


@dataclass(frozen=True)
class KeyHolder:
    """A caller with a long-term access key."""

    keys: Keys
    account_id: str
    arn: str
    principal_id: str

    @property
    def name(self) -> str:
        return Arn.parse(self.arn).name


class Administrator(KeyHolder):
    """The account's administrator, who may do everything."""


class IamUser(KeyHolder):
    """An IAM user, with the access key that signed the call."""


Caller = Administrator | IamUser | Session


class Sessions:
    """The lab's role sessions, including those that an earlier server stored in ``kept``."""

    def __init__(self, clock: Clock, identifiers: Identifiers, find_role: Callable[[str], Role | None], kept: OwnState):
        self._clock = clock
        self._kept = kept
        self._find_role = find_role
        self._identifiers = identifiers
        self._by_key: OrderedDict[str, Session] = OrderedDict()
        self._key_of_token: dict[str, str] = {}
        for session in kept.sessions():
            credentials = Credentials(**session.pop("credentials"))
            self._add(Session(credentials, **session | {"policies": tuple(session["policies"])}))

    def issue(self, role_arn: str, session_name: str, duration: int) -> Credentials:
        """Open a session for a part of the lab itself, such as a node. Return the session's credentials.

        Raises LookupError if the role doesn't exist.
        """
        role = self._find_role(role_arn)
        if role is None:
            raise LookupError(f"there is no role {role_arn}")
        return self.open(role, session_name, duration).credentials

    def open(
        self,
        role: Role,
        name: str,
        duration: int,
        *,
        policies: tuple[str, ...] = (),
        context: dict[str, str | list[str]] | None = None,
        federation: dict[str, str] | None = None,
        transitive_tags: dict[str, str] | None = None,
    ) -> Session:
        """Return a new session of ``role`` that ends after ``duration`` seconds of lab time."""
        now = self._clock.now()
        arn = f"arn:aws:sts::{role.account_id}:assumed-role/{role.name}/{name}"
        serial = self._identifiers.serial("session", arn)
        credentials = Credentials(
            access_key_id="ASIA" + self._identifiers.base32("session", f"{arn}#{serial}", 16),
            # The seed is public, so secrets come from the system's random generator.
            secret_access_key=base64.b64encode(secrets.token_bytes(30)).decode(),
            session_token="IQoJb3JpZ2luX2Vj" + base64.b64encode(secrets.token_bytes(192)).decode(),
            expiration=float(int(now) + duration),
            assumed_role_arn=arn,
        )
        session = Session(
            credentials,
            role_arn=role.arn,
            role_id=role.id,
            role_name=role.name,
            account_id=role.account_id,
            name=name,
            issued_at=now,
            policies=policies,
            context=context or {},
            federation=federation or {},
            transitive_tags=transitive_tags or {},
        )
        # dataclasses.asdict would copy each value, which takes as long as keeping the session.
        self._kept.keep_session(credentials.access_key_id, vars(session) | {"credentials": vars(credentials)})
        self._add(session)
        self._forget(now - KEPT_AFTER_ITS_END)
        return session

    def find(self, access_key_id: str) -> Session | None:
        """Return the session with this key, expired or not; None if no session has this key."""
        return self._by_key.get(access_key_id)

    def is_token(self, session_token: str) -> bool:
        """Whether any session of the lab has this session token."""
        return session_token in self._key_of_token

    def _add(self, session: Session) -> None:
        self._by_key[session.credentials.access_key_id] = session
        self._key_of_token[session.credentials.session_token] = session.credentials.access_key_id

    def _forget(self, ended: float) -> None:
        """Delete sessions, the oldest first.

        Stop when at most ``KEPT`` sessions are left and the oldest of these expires after the time ``ended``.
        """
        while self._by_key:
            key, oldest = next(iter(self._by_key.items()))
            if len(self._by_key) <= KEPT and oldest.credentials.expiration > ended:
                break
            self._kept.forget_session(key)
            del self._by_key[key]
            self._key_of_token.pop(oldest.credentials.session_token, None)
