"""What an image's name means to a node whose containers are processes of this machine."""

import sys
from pathlib import Path

DEFAULT_REGISTRY = "docker.io"


class UnknownImage(Exception):
    """No program of this machine stands for the image."""


def repository(image: str) -> str:
    """The image's repository without registry, tag and digest: `aws-cli/aws-cli`, `python`."""
    name = image.partition("@")[0]
    folders, _, last = name.rpartition("/")
    parts = [part for part in (*folders.split("/"), last.partition(":")[0]) if part]
    if len(parts) > 1 and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost"):
        del parts[0]
    if len(parts) > 1 and parts[0] == "library":
        del parts[0]
    return "/".join(parts)


def entrypoint(image: str, images: dict[str, list[str]]) -> list[str]:
    """The entrypoint of the image, from `images` (repository to argument list). Raises UnknownImage."""
    known = {repository(name): argv for name, argv in images.items()}
    if (name := repository(image)) not in known:
        raise UnknownImage(
            f'failed to pull image "{image}": on the moto target a container is a process of this machine, '
            f"from the images that it knows: {', '.join(sorted(images))}"
        )
    return list(known[name])


def of_this_environment() -> dict[str, list[str]]:
    """The images that this Python environment can stand for."""
    aws = [str(Path(sys.executable).with_name("aws"))]
    return {"amazon/aws-cli": aws, "public.ecr.aws/aws-cli/aws-cli": aws, "python": [sys.executable]}
