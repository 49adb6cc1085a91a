"""Where an examination is kept, so that another kernel can continue it.

Alone, the learner's progress file keeps it, sealed with the lab's key, so that nobody reads the answers there, or
changes the points. In a class, the leader's board keeps it as well, and what the board says counts.
"""

import os
from base64 import urlsafe_b64encode
from hashlib import sha256

from cryptography.fernet import Fernet, InvalidToken
from pydantic import TypeAdapter, ValidationError

from labkit.course import board, progress
from labkit.course.examination.certificate import KEY, ExaminationCertificate, SignedClaims, private_key
from labkit.course.examination.result import ExaminationResult
from labkit.showing import is_live
from labkit.simulator import Folder

RESULT = TypeAdapter(ExaminationResult)
CERTIFICATE = TypeAdapter(ExaminationCertificate)


def is_in_class() -> bool:
    """Return whether a class's board keeps the examinations. It takes none with the fixed tasks of stored notebooks."""
    return progress.BOARD in os.environ and is_live()


def read() -> ExaminationResult | None:
    """Return the learner's last examination; None without one, and without a progress file."""
    if is_in_class():
        kept = board.ask("examination", {})["result"]
        return RESULT.validate_python(kept) if kept else None
    stands = progress.read().examination if os.environ.get(progress.VARIABLE) else None
    if not stands:
        return None
    try:
        return RESULT.validate_json(_seal().decrypt(stands["sealed"].encode()))
    except (KeyError, AttributeError, InvalidToken, ValidationError):
        print("Your last examination can't be read: it's from another lab or version, or its record was changed.")
        return None


def keep(result: ExaminationResult) -> ExaminationResult:
    """Keep the examination, and return it as it's kept. Raises `LabError` if the class's board refuses it."""
    if is_in_class():
        sent = {"result": RESULT.dump_python(result, mode="json")}
        result = RESULT.validate_python(board.ask("examination", sent)["result"])
    stands = progress.Examined(
        number=result.number,
        points=result.points,
        most=result.most,
        left=result.left,
        sealed=_seal().encrypt(RESULT.dump_json(result)).decode(),
    )
    progress.kept("examined", progress.EXAMINATION, examination=stands)
    return result


def next_number(last: ExaminationResult | None) -> int:
    """Return the new examination's number. Alone, the lab counts as well, for who deletes the progress file."""
    if is_in_class():
        return last.number + 1 if last else 1
    if not is_live():
        return 1
    file = Folder.find().path / "examinations"
    counts = [int(file.read_text()) if file.is_file() else 0, last.number if last else 0]
    if stands := progress.read().examination if os.environ.get(progress.VARIABLE) else None:
        counts.append(stands["number"])  # also of one that can't be read any more
    number = max(counts) + 1
    Folder.find().write_private(file, str(number).encode())
    return number


def signed(claims: SignedClaims) -> ExaminationCertificate:
    """Return the certificate, signed with the lab's key; in a class, with the class's key, which only the board has."""
    if is_in_class():
        return CERTIFICATE.validate_python(board.ask("examination", {"name": claims.name}))
    return ExaminationCertificate.signed(claims, private_key(Folder.find().path / KEY))


def _seal() -> Fernet:
    key = private_key(Folder.find().path / KEY)
    return Fernet(urlsafe_b64encode(sha256(key.private_bytes_raw()).digest()))
