"""What a leader says of a workshop in workshop.yaml."""

import hashlib
import ipaddress
import re
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from labkit.course import NOTEBOOKS
from labkit.errors import LabError, UnknownName

FILE = "workshop.yaml"
CORRECT = f"correct {FILE}, and run again"
HUB_FILE = "jupyterhub_config.py"
KEY_PRINT = "certificate-key.sha256"
"""In the state, the fingerprint of the key that signs the class's certificates."""
NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
NAME_RULE = "A name has 1 to 30 characters, of a-z, 0-9 and -, and begins with a letter"
ADDRESSES_EACH = 4  # of a /30: the network, this machine, the participant, the broadcast
EXAMPLE = """\
# A workshop. `labkit workshop up .` starts it; after a change, run that command again.
title: IAM Roles for Service Accounts

# Where browsers connect. Beyond 127.0.0.1, for example 0.0.0.0:8000, the workshop uses TLS.
address: 127.0.0.1:8000

# Who may come. With a list, each name gets a word on a card: `labkit workshop cards .` prints the cards.
names: [ana, ben, chi]
# Or anybody who knows this phrase, with a name of their own:
# phrase: correct horse battery

# Leaders see the board, and who has a server. They log in with a card, too.
leaders: [leader]

# Only these notebooks of the course, by their numbers, and always 00. Without this line, all.
# notebooks: [01, 02, 05]

# The most participants and leaders at a time. `labkit workshop up` checks that the memory suffices.
users: 50

# For each participant.
limits:
  memory: 1536     # MiB
  processes: 1024
  cpu: 150         # percent of one core
  home: 1024       # MiB

idle: 120          # minutes without activity after which a server ends; its home stays
stuck: 5           # minutes without progress in an open exercise after which the board says so
starts: 8          # servers that start at the same time; the others wait in a queue
"""
HUB_EXAMPLE = """\
# JupyterHub reads this file, after workshop.yaml. Add settings of your own below:
# https://jupyterhub.readthedocs.io/en/stable/reference/config-reference.html
from labkit.workshop import configure

configure(get_config(), __file__)
"""


def name(value: str) -> str:
    """Return a participant's name. Raises `ValueError` if it can't be one."""
    if not NAME.fullmatch(value) or value == "root":
        shown = value if len(value) <= 40 else f"{value[:40]}…"
        raise ValueError(f"{shown!r} can't be a name. {NAME_RULE}; root isn't allowed.")
    return value


class SeatLimits(BaseModel):
    """What one participant may use."""

    model_config = ConfigDict(extra="forbid")

    memory: int = Field(1536, ge=512)
    """MiB"""
    processes: int = Field(1024, ge=200)
    cpu: int = Field(150, ge=10)
    """Percent of one core"""
    home: int = Field(1024, ge=64)
    """MiB"""


class Tls(BaseModel):
    """The files of a certificate that browsers trust already."""

    model_config = ConfigDict(extra="forbid")

    certificate: Path
    key: Path


Name = Annotated[str, AfterValidator(name)]
Line = Annotated[str, AfterValidator(lambda text: " ".join(text.split()))]


def _number(value: object) -> object:
    """YAML reads 01 as the number 1."""
    return f"{value:02}" if isinstance(value, int) else value


def _notebook(value: str) -> str:
    if value not in (known := sorted(map(number, NOTEBOOKS.glob("*.ipynb")))):
        raise ValueError(f"{value!r} isn't a notebook's number. The course has {', '.join(known)}.")
    return value


def number(notebook: Path) -> str:
    """The number with which a notebook's name begins; of irsa and doctor, the name."""
    return notebook.stem.partition("-")[0]


class Workshop(BaseModel):
    """A workshop as workshop.yaml describes it. `folder` is that file's folder."""

    model_config = ConfigDict(extra="forbid")

    folder: Path
    title: Line = Field("IAM Roles for Service Accounts", max_length=100)
    address: str = "127.0.0.1:8000"
    names: list[Name] = []
    phrase: str = ""
    leaders: list[Name] = []
    notebooks: list[Annotated[str, BeforeValidator(_number), AfterValidator(_notebook)]] = []
    users: int = Field(50, ge=1, le=1000)
    limits: SeatLimits = SeatLimits()
    idle: int = Field(120, ge=1)
    """Minutes"""
    stuck: int = Field(5, ge=1)
    """Minutes"""
    starts: int = Field(8, ge=1)
    state: Path = Path()
    """The folder of homes, words and the hub's database; without it, a folder below /var/lib."""
    network: ipaddress.IPv4Network = ipaddress.IPv4Network("10.213.0.0/20")
    uids: int = Field(420000, ge=1000)
    """The first participant's uid; each further one has the next."""
    tls: Tls | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        everybody = Counter([*self.names, *self.leaders])
        if doubled := [name for name, count in everybody.items() if count > 1]:
            raise ValueError(f"The name {doubled[0]} is there twice.")
        if not self.names and not self.phrase:
            raise ValueError("Nobody could log in: write names or a phrase.")
        if self.phrase and len(self.phrase) < 8:
            raise ValueError("The phrase needs at least 8 characters.")
        if len(everybody) > self.users:
            raise ValueError(f"{len(everybody)} names are more than users: {self.users}.")
        if self.network.num_addresses < ADDRESSES_EACH * (self.users + 2):
            raise ValueError(f"The network {self.network} has too few addresses for {self.users} users.")
        self.host_and_port()
        if self.state == Path():
            self.state = Path("/var/lib/labkit") / f"{self.folder.name}-{self.key}"
        return self

    def host_and_port(self) -> tuple[str, int]:
        """Return where browsers connect. Raises `ValueError` if `address` isn't an address and a port."""
        host, _, port = self.address.rpartition(":")
        try:
            where = str(ipaddress.ip_address(host.strip("[]"))), int(port)
            if 0 < where[1] < 65536:
                return where
            raise ValueError
        except ValueError:
            raise ValueError(
                f"The address {self.address!r} must be an IP address and a port, as in 0.0.0.0:8000."
            ) from None

    @property
    def key(self) -> str:
        """Four hex digits that tell this workshop's namespaces, interfaces and groups from another's."""
        return hashlib.sha256(str(self.folder).encode()).hexdigest()[:4]

    @property
    def is_public(self) -> bool:
        """Whether other machines can connect."""
        return not ipaddress.ip_address(self.host_and_port()[0]).is_loopback

    @property
    def url(self) -> str:
        """The address for a browser on this machine."""
        host, port = self.host_and_port()
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"{'https' if self.is_public or self.tls else 'http'}://{host}:{port}/"

    @property
    def hub_address(self) -> str:
        """The address at which participants' servers reach the hub, the last one of the network."""
        return str(self.network[-2])


SETTINGS = sorted(
    [
        *(Workshop.model_fields.keys() - {"folder", "limits", "tls"}),
        *(f"limits.{field}" for field in SeatLimits.model_fields),
        *(f"tls.{field}" for field in Tls.model_fields),
    ]
)
"""The names of what workshop.yaml can set."""


def read(folder: Path) -> Workshop:
    """Return the workshop of a folder with workshop.yaml.

    Raises `LabError` that names the wrong line's field and what is wrong with it.
    """
    folder = folder.resolve()
    file = folder if folder.name == FILE else folder / FILE
    try:
        given = yaml.safe_load(file.read_text())
    except FileNotFoundError:
        raise LabError(f"{file.parent} has no {FILE}.", next=f"labkit workshop init {file.parent}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", error)
        said = f"line {mark.line + 1}: {problem}" if mark else " ".join(str(problem).split())
        raise LabError(f"{FILE} can't be read: {said}", where=str(file), next=CORRECT) from None
    if not isinstance(given, dict):
        raise LabError(f"{FILE} has no settings.", where=str(file), next="labkit workshop init FOLDER, for an example")
    try:
        return Workshop.model_validate(given | {"folder": file.parent})
    except ValidationError as error:
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise UnknownName("setting", place, SETTINGS, where=str(file), next=CORRECT) from None
        said = first["msg"].removeprefix("Value error, ")
        raise LabError(f"{place}: {said}" if place else said, where=str(file), next=CORRECT) from None


def write_examples(folder: Path) -> list[Path]:
    """Write the two files that a leader edits into a folder, and return their paths.

    Raises `LabError` if one of them exists, and changes nothing.
    """
    files = {folder / FILE: EXAMPLE, folder / HUB_FILE: HUB_EXAMPLE}
    if existing := [file for file in files if file.exists()]:
        raise LabError(f"{existing[0]} exists already.", next=f"labkit workshop up {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in files.items():
            file.write_text(text)
    except OSError as error:
        raise LabError(f"{folder} can't be written: {error.strerror}.", next="labkit workshop init FOLDER") from None
    return list(files)


def require_extra() -> None:
    """Raise `LabError` if JupyterHub isn't installed."""
    if find_spec("jupyterhub") is None or find_spec("jupyterhub_idle_culler") is None:
        raise LabError("A workshop needs JupyterHub, which isn't installed.", next="pip install 'labkit[workshop]'")
