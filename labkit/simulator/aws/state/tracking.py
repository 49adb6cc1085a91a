"""Note which of moto's objects a call changes, so that a write only writes these.

moto changes its objects in place, and puts plain dicts, lists and sets into them. `watch` makes moto's classes note
each assignment. A plain container can't note anything, so a write puts a copy in its place that can: a `Dict` for a
dict, and so on. Such a copy behaves as the original does, and a copy of it is a plain container again.

Only an object with a `Mark` is noted: the objects in the lab's file.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from enum import Enum
from typing import Any
from weakref import ref

Keys = Callable[..., Iterable[Any]]
marks: dict[int, "Mark"] = {}
"""The marks of the objects in the lab's file, by Python's id of the object."""
changed: dict[int, object] = {}
"""The objects that differ from the lab's file, by Python's id."""
ended: dict[int, "Mark"] = {}
"""The marks of objects that no longer exist, but whose rows are still in the lab's file. By `Mark.number`."""
replaced: dict[tuple[int, str], "Mark"] = {}
"""The marks of long lists that an attribute had before its assignment, by the object's id and the attribute."""

_set = object.__setattr__
_delete = object.__delattr__


class Mark(ref[Any]):
    """An object in the lab's file. ``number`` is its number there."""

    __slots__ = ("is_only_longer", "keys", "number", "place", "places", "saved")

    def __new__(cls, thing: object, _number: int) -> "Mark":
        return super().__new__(cls, thing, _end)

    def __init__(self, thing: object, number: int):
        super().__init__(thing, _end)  # type: ignore[call-arg]  # weakref's, which typeshed lacks
        self.number, self.place = number, id(thing)
        self.keys: dict[Any, bool] = {}
        """The keys of a dict that have changed, and whether the key is new. The elements of a set, likewise."""
        self.saved: list[Any] | None = None
        """The elements in the file, if the container is so long that each element has a row of its own."""
        self.places: list[int] = []
        """The places of a list's elements in the file."""
        self.is_only_longer = True
        """Whether a list's elements in the file are still its first ones."""
        marks[self.place] = self

    def note(self, thing: object, keys: Iterable[object]) -> None:
        """Note that the values of these keys change."""
        changed[self.place] = thing
        holds: Any = (set if isinstance(thing, set) else dict).__contains__
        for key in keys:
            if holds(thing, key):
                self.keys.setdefault(key, False)
            else:
                self.keys.pop(key, None)  # a key that comes again is the last one
                self.keys[key] = True


# Objects end even after the interpreter has emptied this module: so the function has names of its own.
def _end(mark: Any, marks: dict[int, "Mark"] = marks, ended: dict[int, "Mark"] = ended) -> None:
    if marks.get(place := mark.place) is mark:
        gone = marks.pop(place)
        ended[gone.number] = gone


def watch(kind: type) -> None:
    """Make the objects of one of moto's classes note their changes."""
    if issubclass(kind, Enum | BaseException) or "__setattr__" in vars(kind):  # a frozen dataclass has its own
        return
    for name, method in {"__setattr__": _assign, "__delattr__": _remove, **_noting(kind)}.items():
        setattr(kind, name, method)


def _assign(self: Any, name: str, value: Any) -> None:
    if id(self) in marks:
        changed[id(self)] = self
        before = self.__dict__.get(name)
        if type(before) is List and (mark := marks.get(id(before))) and mark.saved is not None:
            replaced.setdefault((id(self), name), mark)
    _set(self, name, value)


def _remove(self: Any, name: str) -> None:
    if id(self) in marks:
        changed[id(self)] = self
    _delete(self, name)


def _first(_: Any, key: Any, *__: Any, **___: Any) -> Iterable[Any]:
    return (key,)


def _given(_: Any, *given: Any, **named: Any) -> Iterable[Any]:
    return dict(*given, **named)


def _elements(_: Any, *given: Iterable[Any]) -> Iterable[Any]:
    return [element for elements in given for element in elements]


def _every(thing: Any, *_: Any, **__: Any) -> Iterable[Any]:
    return list(set.__iter__(thing) if isinstance(thing, set) else dict.__iter__(thing))


def _by_other_name(thing: Any, key: Any, *_: Any) -> Iterable[Any]:
    """Return the key of an entry that one of moto's dicts finds by another name, such as an ARN."""
    value = thing.get(key)
    return [key, *(own for own, each in dict.items(thing) if each is value)]


# The methods that change a container, and a function for each: of which keys the call changes the values.
OF_DICTS: dict[str, Keys] = {
    "__setitem__": _first, "__delitem__": _first, "pop": _first, "setdefault": _first, "setlist": _first,
    "update": _given, "__ior__": _given, "clear": _every, "popitem": _every, "move_to_end": _first,
}  # fmt: skip
OF_SETS: dict[str, Keys] = {
    "add": _first, "discard": _first, "remove": _first, "update": _elements, "__ior__": _elements,
    **dict.fromkeys(("clear", "pop", "difference_update", "intersection_update", "symmetric_difference_update",
                     "__iand__", "__isub__", "__ixor__"), _every),
}  # fmt: skip
OF_LISTS = (
    "__setitem__", "__delitem__", "__iadd__", "__imul__", "append", "clear", "extend", "insert", "pop", "remove",
    "reverse", "sort",
)  # fmt: skip


def _noting(kind: type) -> dict[str, Callable[..., Any]]:
    """Return the methods of a class of containers that change one, made to note the change. Other classes have none."""
    if issubclass(kind, list):
        return {name: _whole(getattr(kind, name)) for name in OF_LISTS}
    keys: dict[str, Keys] = {}
    if issubclass(kind, dict):
        keys = OF_DICTS | ({"pop": _by_other_name} if "__contains__" in vars(kind) else {})
    elif issubclass(kind, set):
        keys = OF_SETS
    return {name: _keyed(getattr(kind, name), of) for name, of in keys.items() if hasattr(kind, name)}


def _whole(method: Callable[..., Any]) -> Callable[..., Any]:
    only_adds = method.__name__ in ("append", "extend")

    def noting(self: Any, *given: Any, **named: Any) -> Any:
        if mark := marks.get(id(self)):
            changed[id(self)] = self
            mark.is_only_longer &= only_adds
        return method(self, *given, **named)

    return noting


def _keyed(method: Callable[..., Any], keys: Keys) -> Callable[..., Any]:
    is_moved = method.__name__ == "move_to_end"

    def noting(self: Any, *given: Any, **named: Any) -> Any:
        if mark := marks.get(id(self)):
            if keys in (_given, _elements):  # an iterator can only be read once
                given = tuple(list(each) if isinstance(each, Iterator) else each for each in given)
            mark.note(self, touched := keys(self, *given, **named))
            if is_moved:
                for key in touched:
                    del mark.keys[key]
                    mark.keys[key] = True
        return method(self, *given, **named)

    return noting


def _tracked(kind: type, plain: Callable[[Any], Any]) -> type:
    """Return a subclass of a container's class that notes its changes. A copy of such a container is a plain one."""
    copying = {"__copy__": plain, "__deepcopy__": lambda self, memo: deepcopy(plain(self), memo)}
    return type(kind.__name__, (kind,), _noting(kind) | copying)


List = _tracked(list, list)
Set = _tracked(set, set)
Dict = _tracked(dict, dict)
DefaultDict = _tracked(defaultdict, lambda thing: defaultdict(thing.default_factory, thing))
Ordered = _tracked(OrderedDict, OrderedDict)
TRACKED: dict[type, Any] = {list: List, set: Set, dict: Dict, defaultdict: DefaultDict, OrderedDict: Ordered}
"""The class that notes its changes, for each class of plain containers."""
