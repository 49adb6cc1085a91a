"""The command-line options that give a run's parameters: `-p NAME=VALUE` and `-f FILE`."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from labkit.errors import LabError

Given = Annotated[
    list[str] | None, typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the run.")
]
FromFile = Annotated[
    Path | None,
    typer.Option(
        "--file", "-f", metavar="FILE", help="A YAML file of parameters, one NAME: VALUE a line. -p overrides the file."
    ),
]


def named(pairs: list[str] | None, file: Path | None = None) -> dict[str, Any]:
    """Return the parameters by name. A NAME=VALUE pair wins over the same name in the file.

    Raises `LabError` if a pair has no equals sign, or if the file isn't a readable YAML mapping.
    """
    for pair in pairs or []:
        if "=" not in pair:
            raise LabError(f"-p takes NAME=VALUE, not {pair!r}.", next="-p role_name=reader")
    given = {name: value for name, _, value in (pair.partition("=") for pair in pairs or [])}
    return _of_file(file) | given if file else given


def _of_file(file: Path) -> dict[str, Any]:
    next_ = "write each parameter on its own line, such as  role_name: reader"
    try:
        # Every scalar stays text, as with -p. YAML would read an account such as 012345670123 as an octal number.
        document = yaml.load(file.read_text(), yaml.BaseLoader)  # noqa: S506 (it makes text, lists and mappings only)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise LabError(f"The file of parameters could not be read: {reason}.", where=str(file), next=next_) from None
    except yaml.YAMLError as error:
        raise LabError(f"The file of parameters is not YAML: {error}", where=str(file), next=next_) from None
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise LabError(
            "The file of parameters does not have one NAME: VALUE on each line.", where=str(file), next=next_
        )
    return document
