"""Names that the API server generates, the same in every lab with the same seed."""

from labkit.emulator.identifiers import Identifiers

# The server's own alphabet. Without vowels, no words arise; and no two letters look alike.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def suffix(identifiers: Identifiers, kind: str, name: str) -> str:
    """Return five characters, different each time for the same ``name``."""
    serial = identifiers.serial(f"suffix/{kind}", name)
    number = int(identifiers.hex(f"suffix/{kind}", f"{name}/{serial}", 16), 16)
    text = ""
    for _ in range(5):
        number, digit = divmod(number, len(ALPHABET))
        text += ALPHABET[digit]
    return text
