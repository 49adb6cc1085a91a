"""A certificate: one page as SVG, signed, so that everybody can see offline whether a letter was changed.

The file carries what it claims, the public key, and the signature. `verify` draws the page again from the claims, and
compares it with the file. The signature is Ed25519, https://www.rfc-editor.org/rfc/rfc8032.
"""

import json
import re
import time
from base64 import b64decode, b64encode
from dataclasses import asdict, dataclass
from hashlib import sha256
from html import escape, unescape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import TypeAdapter, ValidationError

from labkit.errors import LabError
from labkit.showing import counted, is_live
from labkit.simulator import Folder

FILE = "certificate.svg"
KEY = "certificate-key.pem"
LONGEST_NAME = 60  # characters
CARRIED = re.compile(r'<metadata id="labkit">(\{.*?\})</metadata>', re.DOTALL)
UNSUPERVISED = "Unsupervised: it says what the lab saw, and not who took the examination."
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
<text x="421" y="508" font-size="14">{unsupervised}</text>
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

    @classmethod
    def checked(cls, *, name: str, **claims: Any) -> "SignedClaims":
        """Return the claims of this version of labkit. Raises `LabError` for a name that can't be printed."""
        name = " ".join(name.split())
        if not name or len(name) > LONGEST_NAME or not name.isprintable():
            raise LabError(
                f"A certificate needs a name: 1 to {LONGEST_NAME} printable characters.",
                next='exam.certificate("Your name")',
            )
        return cls(name=name, labkit=version("labkit"), **claims)


@dataclass(frozen=True, repr=False)
class ExaminationCertificate:
    """A signed certificate. A notebook shows its page."""

    claims: SignedClaims
    key: str
    """The public key: 32 bytes in base64."""
    signature: str
    """The signature of the claims: 64 bytes in base64."""

    @classmethod
    def signed(cls, claims: SignedClaims, file: Path) -> "ExaminationCertificate":
        """Sign the claims with the lab's key, and save the page as this file."""
        private = _private_key()
        key = b64encode(private.public_key().public_bytes_raw()).decode()
        made = cls(claims, key, b64encode(private.sign(_bytes(claims))).decode())
        try:
            file.write_text(made.page, encoding="utf-8")
        except OSError as error:
            print(f"The certificate could not be saved as {file.name}: {error.strerror}.")
        return made

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
            unsupervised=UNSUPERVISED,
            labkit=escape(claims.labkit),
            file=FILE,
        )

    def __repr__(self) -> str:
        claims = self.claims
        return f"{FILE}: {claims.name}, {claims.points} of {claims.most} points, examination {claims.number}"

    def _repr_svg_(self) -> str | None:
        # The code, the date and the time differ from run to run.
        return self.page if is_live() else None


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
    if not is_as_signed:
        raise changed
    return read


def _bytes(claims: SignedClaims) -> bytes:
    return json.dumps(asdict(claims), sort_keys=True).encode()


def _private_key() -> Ed25519PrivateKey:
    """Return the lab's key for certificates. Create it at its first use."""
    file = Folder.find().path / KEY
    if file.is_file():
        key = load_pem_private_key(file.read_bytes(), None)
        assert isinstance(key, Ed25519PrivateKey)
        return key
    made = Ed25519PrivateKey.generate()
    Folder.find().write_private(file, made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made
