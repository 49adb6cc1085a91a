"""What a container gets from its image. Containers are processes of this machine, so no image is pulled."""

import re
import sys
import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

from labkit.simulator.kubernetes.objects.kinds import Object

_REFERENCE = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::\d+)?/)?[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{4,})?"
)


@dataclass(frozen=True)
class Image:
    """What an image sets: `cmd` are the arguments of a container without its own, `home` is the user's home folder."""

    entrypoint: list[str] = field(default_factory=list)
    cmd: list[str] = field(default_factory=list)
    user: int = 0
    group: int = 0
    home: str = "/root"
    directory: str = "/"

    def arguments(self, command: list[str], args: list[str]) -> list[str]:
        """Return the program and its arguments for a container with this `command` and these `args`.

        https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
        """
        return [*(command or self.entrypoint), *(args or ([] if command else self.cmd))]


class ImageError(Exception):
    """The image can't be used.

    `reason` is the reason in the container's waiting state, such as `ErrImagePull`. `event` is a pair for an event
    about the pod: the event's reason and the event's message. Without such an event, the pair has two empty strings.
    """

    def __init__(self, message: str, reason: str, event: tuple[str, str] = ("", "")) -> None:
        super().__init__(message)
        self.reason = reason
        self.event = event


def repository(image: str) -> str:
    """Return the image's repository without registry, tag and digest, e.g. `aws-cli/aws-cli` or `python`."""
    name = image.partition("@")[0]
    folders, _, last = name.rpartition("/")
    parts = [part for part in (*folders.split("/"), last.partition(":")[0]) if part]
    if len(parts) > 1 and ("." in parts[0] or ":" in parts[0] or parts[0] == "localhost"):
        del parts[0]
    if parts[:2] == ["docker", "library"] and len(parts) > 2:  # public.ecr.aws has Docker's own images below this
        del parts[0]
    if len(parts) > 1 and parts[0] == "library":
        del parts[0]
    return "/".join(parts)


def image_of(container: Object, images: dict[str, Image]) -> Image:
    """Return the container's image. Raises ImageError if `images` doesn't have it. The keys are repositories.

    https://kubernetes.io/docs/concepts/containers/images/#image-pull-policy
    """
    image = container["image"]
    if not _REFERENCE.fullmatch(image):
        upper = _REFERENCE.fullmatch(image.lower())
        why = "invalid reference format" + (": repository name must be lowercase" if upper else "")
        message = f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": {why}'
        raise ImageError(message, "InvalidImageName", ("InspectFailed", message))
    known = {repository(name): each for name, each in images.items()}
    if (name := repository(image)) in known:
        return known[name]
    if container.get("imagePullPolicy") == "Never":
        message = f'Container image "{image}" is not present with pull policy of Never'
        raise ImageError(message, "ErrImageNeverPull", ("ErrImageNeverPull", message))
    raise ImageError(
        f'failed to pull image "{image}": on the moto target a container is a process of this machine, '
        f"and only these images work: {', '.join(sorted(images))}. Use one of them, and name the command to run",
        "ErrImagePull",
    )


def of_this_environment() -> dict[str, Image]:
    """Return the images that pods can use. The keys are repositories, such as `amazon/aws-cli`.

    `aws` is the program of this Python environment, even if a container has a PATH of its own.
    """
    rows = tomllib.loads(Path(__file__).with_name("images.toml").read_text())["image"]
    images = {name: Image(**row) for row in rows for name in row.pop("names")}
    for name, each in images.items():
        if each.entrypoint == ["aws"]:
            images[name] = replace(each, entrypoint=[str(Path(sys.executable).with_name("aws"))])
    return images
