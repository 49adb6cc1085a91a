"""A denial as something to expect: the cell passes only where AWS refused, and with this code."""

from collections.abc import Iterator
from contextlib import contextmanager

from labkit.errors import LabError
from labkit.showing import stable


class NotDenied(LabError, AssertionError):
    """What should have been refused was not, or was refused for another reason."""


@contextmanager
def expect_denied(code: str = "AccessDenied") -> Iterator[None]:
    """Passes where AWS refuses with exactly this error code, and prints what it said.

    Raises:
        NotDenied: nothing was refused, or with another code.

    https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
    """
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        refusal = error.response["Error"]
        said = stable(f"{refusal.get('Code')}: {refusal.get('Message')}")
        if refusal.get("Code") != code:
            raise NotDenied(
                f"expected {code}, and AWS said {said}",
                next="lab.diagnose() says what is not as it should be",
            ) from None
        print(said)
    else:
        raise NotDenied(
            f"expected {code}, and AWS allowed it",
            next="lab.trail(last=3) shows what was decided, and why",
        )
