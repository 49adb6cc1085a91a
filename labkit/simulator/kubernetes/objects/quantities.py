"""Convert quantities to numbers (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/)."""

import re
from decimal import Context, Decimal

SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
LARGEST = 999  # the largest exponent that matters: no machine has such an amount

_QUANTITY = re.compile(r"([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE]([+-]?[0-9]+)|([numkMGTPE]?|[KMGTPE]i))")
_NUMBERS = Context(prec=60, traps=[])


def quantity(text: str | float) -> Decimal:
    """Return a quantity as a number: `100m` is 0.1, `1Ki` is 1024. Raises ValueError if the text isn't a quantity."""
    match = _QUANTITY.fullmatch(str(text))
    if not match:
        raise ValueError(f"quantities must match the regular expression: {text}")
    number, exponent, suffix = _NUMBERS.create_decimal(match[1]), match[2], match[3] or ""
    if suffix in BINARY:
        return _NUMBERS.multiply(number, Decimal(2 ** BINARY[suffix]))
    shift = SUFFIXES[suffix] if exponent is None else max(-LARGEST, min(LARGEST, int(exponent[:6])))
    return _NUMBERS.scaleb(number, shift)
