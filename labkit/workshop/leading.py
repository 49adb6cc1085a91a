"""The leader's orders to the class, by way of the running board: break, mend, and go to a notebook."""

import random

import httpx

from labkit.course import CATALOGUE, NOTEBOOKS, faults
from labkit.errors import LabError
from labkit.workshop import networks
from labkit.workshop.settings import Workshop, number


def break_(workshop: Workshop, fault: str, *, drawn: bool = False) -> int:
    """Put a fault into every lab of the class, or a drawn one into each. Return how many labs report to the board.

    Raises `LabError` if the fault doesn't exist or has no symptom, or if the class has a fault already.
    """
    if bool(fault) == drawn:
        raise LabError("Name one fault, or pass --draw.", next="labkit break --list")
    dealt = [each.id for each in CATALOGUE.values() if not each.works] if drawn else [faults.named(fault).id]
    if not drawn and CATALOGUE[dealt[0]].works:
        raise LabError(f"With {fault}, the pod still works, so nobody would see a symptom.", next="labkit break --list")
    random.shuffle(dealt)
    return _give(workshop, "break", dealt)


def mend(workshop: Workshop) -> int:
    """Take the class's fault out of every lab. Return how many labs report. Raises `LabError` if the class has none."""
    return _give(workshop, "mend", [])


def goto(workshop: Workshop, notebook: str) -> int:
    """Invite everybody who is behind the notebook with this number. Return how many labs report.

    Raises `LabError` if the class doesn't have the notebook, or has a fault.
    """
    of_class = {number(file): file.stem for file in sorted(NOTEBOOKS.glob("[0-9]*.ipynb"))}
    if workshop.notebooks:
        of_class = {each: name for each, name in of_class.items() if each in ("00", *workshop.notebooks)}
    if notebook not in of_class:
        raise LabError(f"The class has no notebook {notebook!r}.", next=f"use one of: {', '.join(of_class)}")
    return _give(workshop, "goto", [of_class[notebook]])


def _give(workshop: Workshop, what: str, about: list[str]) -> int:
    url = f"http://{workshop.hub_address}:{networks.BOARD_PORT}/services/board/order"
    header = {"Authorization": f"token {(workshop.state / 'board-token').read_text()}"}
    command = f"labkit workshop {{}} {workshop.folder}"
    try:
        answer = httpx.post(url, json={"what": what, "about": about}, headers=header, timeout=20, trust_env=False)
        if answer.status_code == 409:
            raise LabError(answer.text, next=command.format("board" if what == "mend" else "mend"))
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise LabError(f"The board doesn't answer: {error}", where=url, next=command.format("up")) from None
    labs: int = answer.json()["labs"]
    return labs
