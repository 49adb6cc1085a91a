"""Generate the random parts of names, as an API server does. Labs with the same seed get the same names."""

from labkit.simulator.identifiers import Identifiers

# A real API server's alphabet. It has no vowels, so that names contain no words, and no characters that look alike.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def suffix(identifiers: Identifiers, kind: str, name: str) -> str:
    """Return five random characters, different in each call with the same ``name``."""
    serial = identifiers.serial(f"suffix/{kind}", name)
    number = int(identifiers.hex(f"suffix/{kind}", f"{name}/{serial}", 16), 16)
    text = ""
    for _ in range(5):
        number, digit = divmod(number, len(ALPHABET))
        text += ALPHABET[digit]
    return text
