"""A certificate: one page as SVG, signed, so that everybody can see offline whether a letter was changed.

The file carries what it claims, the public key, and the signature. `verify` draws the page again from the claims, and
compares it with the file. The signature is Ed25519, https://www.rfc-editor.org/rfc/rfc8032.
"""

import json
import os
import re
import time
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from hashlib import sha256
from html import escape, unescape
from importlib.metadata import version
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import TypeAdapter, ValidationError

from labkit.course.examination.draw import LEVELS
from labkit.course.examination.result import PASSED, ExaminationResult
from labkit.errors import LabError
from labkit.showing import counted, is_live

FILE = "certificate.svg"
KEY = "certificate-key.pem"
LONGEST_NAME = 60  # characters
CARRIED = re.compile(r'<metadata id="labkit">(\{.*?\})</metadata>', re.DOTALL)
# Who watched, by who signed.
NOTES = {
    "learner": "Unsupervised: it says what the lab saw, and not who took the examination.",
    "demonstration": "Demonstration: the notebook shows these tasks with their solutions.",
    "class": "Supervised in the class “{workshop}”, logged in as {participant}",
}
# A sheet of paper that is white in each theme.
PAGE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 842 595" role="img" aria-label="{label}">
<metadata id="labkit">{carried}</metadata>
<style>text {{ font-family: system-ui, sans-serif; fill: #1f2328; text-anchor: middle }}</style>
<rect width="842" height="595" fill="#ffffff"/>
<rect x="24" y="24" width="794" height="547" fill="none" stroke="#0b5cad" stroke-width="3"/>
<text x="421" y="96" font-size="20">IAM Roles for Service Accounts</text>
<text x="421" y="140" font-size="34" font-weight="600">Certificate</text>
<text x="421" y="222" font-size="{size}">{name}</text>
<text x="421" y="268" font-size="18">found and repaired broken pods, starting from the error alone</text>
<text x="421" y="332" font-size="40" font-weight="600">{points}</text>
<text x="421" y="376" font-size="18">{levels}</text>
<text x="421" y="408" font-size="18">{number}, {minutes}, {date}</text>
<text x="421" y="484" font-size="14">code {code}</text>
<text x="421" y="508" font-size="{note_size}">{note}</text>
<text x="421" y="532" font-size="14">labkit {labkit} · labkit certificate verify {file}</text>
</svg>
"""


@dataclass(frozen=True)
class SignedClaims:
    """What a certificate claims."""

    name: str
    points: int
    most: int
    number: int
    """1 for the learner's first examination, 2 for the second."""
    levels: dict[str, tuple[int, int]]
    """For each level, the number of repaired tasks, and of all its tasks."""
    minutes: int
    at: float
    """When the examination ended, in seconds since 1970 by the machine's clock."""
    labkit: str
    is_demonstration: bool = False
    """Whether it had the fixed tasks of the stored notebook."""
    workshop: str = ""
    """The title of the class whose leader's board kept the examination; empty for who learns alone."""
    participant: str = ""
    """The name with which the learner had logged in to the class."""

    @property
    def signer(self) -> str:
        """Who holds the key: `class` or `learner`; or `demonstration`, which nobody took."""
        return "demonstration" if self.is_demonstration else "class" if self.workshop else "learner"

    @property
    def note(self) -> str:
        """The line of the page that says who watched."""
        return NOTES[self.signer].format(**vars(self))


@dataclass(frozen=True, repr=False)
class ExaminationCertificate:
    """A signed certificate. A notebook shows its page."""

    claims: SignedClaims
    key: str
    """The public key: 32 bytes in base64."""
    signature: str
    """The signature of the claims: 64 bytes in base64."""

    @classmethod
    def signed(cls, claims: SignedClaims, private: Ed25519PrivateKey) -> "ExaminationCertificate":
        """Sign the claims with this key."""
        key = b64encode(private.public_key().public_bytes_raw()).decode()
        return cls(claims, key, b64encode(private.sign(_bytes(claims))).decode())

    def save(self, file: Path) -> None:
        """Save the page as this file."""
        try:
            file.write_text(self.page, encoding="utf-8")
        except OSError as error:
            print(f"The certificate could not be saved as {file.name}: {error.strerror}.")

    @property
    def code(self) -> str:
        """A short text that differs for each certificate."""
        digits = sha256(self.signature.encode()).hexdigest()[:12].upper()
        return f"{digits[:4]}-{digits[4:8]}-{digits[8:]}"

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the public key, in hexadecimal digits."""
        return sha256(b64decode(self.key)).hexdigest()

    @property
    def page(self) -> str:
        """The page, as SVG."""
        claims = self.claims
        levels = ", ".join(f"{level} {right} of {of}" for level, (right, of) in claims.levels.items())
        points = f"{claims.points} of {claims.most} points"
        carried = {"claims": asdict(claims), "key": self.key, "signature": self.signature}
        return PAGE.format(
            label=escape(f"Certificate of {claims.name}: {points}"),
            carried=escape(json.dumps(carried), quote=False),
            size=34 if len(claims.name) <= LONGEST_NAME / 2 else 22,
            name=escape(claims.name),
            points=points,
            levels=f"repaired: {levels}",
            number=f"try {claims.number}",
            minutes=counted(claims.minutes, "minute"),
            date=time.strftime("%Y-%m-%d", time.gmtime(claims.at)),
            code=self.code,
            note=escape(claims.note),
            note_size=round(min(14, 1400 / len(claims.note)), 1),
            labkit=escape(claims.labkit),
            file=FILE,
        )

    def __repr__(self) -> str:
        claims = self.claims
        return f"{FILE}: {claims.name}, {claims.points} of {claims.most} points, examination {claims.number}"

    def _repr_svg_(self) -> str | None:
        # The code, the date and the time differ from run to run.
        return self.page if is_live() else None


def claims(result: ExaminationResult, name: str, *, workshop: str = "", participant: str = "") -> SignedClaims:
    """Return what a certificate of this examination claims.

    Raises `LabError` if the examination isn't over, if it has less than 70 of 100 points, or for a name that can't be
    printed.
    """
    if result.left:
        raise LabError(f"The examination isn't over: {counted(result.left, 'task')} left.", next="exam.hand_in()")
    if not result.is_passed:
        raise LabError(
            f"{result.points} of {result.most} points: a certificate takes {round(PASSED * result.most)}.",
            where="exam.result() shows what cost points",
            next="lab.examination(again=True)",
        )
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise LabError(
            f"A certificate needs a name: 1 to {LONGEST_NAME} printable characters.",
            next='exam.certificate("Your name")',
        )
    of_level = {level: [each.repaired for each in result.papers if each.level == level] for level in LEVELS}
    return SignedClaims(
        name=name,
        points=result.points,
        most=result.most,
        number=result.number,
        levels={level: (sum(repaired), len(repaired)) for level, repaired in of_level.items() if repaired},
        minutes=round(sum(each.seconds for each in result.papers) / 60),
        at=max(each.ended for each in result.papers),
        labkit=version("labkit"),
        is_demonstration=result.is_the_demonstration,
        workshop=workshop,
        participant=participant,
    )


def verify(file: Path) -> ExaminationCertificate:
    """Return the certificate in this file.

    Raises `LabError` if the file isn't a certificate, or if anything in it was changed after it was signed.
    """
    changed = LabError("This certificate was changed after it was signed.", where=str(file))
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"This file could not be read: {error}.", where=str(file)) from error
    if not (carried := CARRIED.search(text)):
        raise LabError("This isn't a certificate of labkit.", where=str(file))
    try:
        read = TypeAdapter(ExaminationCertificate).validate_json(unescape(carried[1]))
        Ed25519PublicKey.from_public_bytes(b64decode(read.key)).verify(b64decode(read.signature), _bytes(read.claims))
        # A date that no calendar has is an OverflowError.
        is_as_signed = read.page == text
    except (ValidationError, ValueError, OverflowError, OSError, InvalidSignature) as error:
        raise changed from error
    # Another's key signs any name, also one that changes how a terminal shows the answer.
    if not is_as_signed or not f"{read.claims.name}{read.claims.note}".isprintable():
        raise changed
    return read


def _bytes(claims: SignedClaims) -> bytes:
    return json.dumps(asdict(claims), sort_keys=True).encode()


def private_key(file: Path) -> Ed25519PrivateKey:
    """Return the key in this file, with which certificates are signed. Create it at its first use."""
    try:
        # Not overwritten: of two that create it at once, one has to win.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = load_pem_private_key(file.read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return key
    made = Ed25519PrivateKey.generate()
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made
