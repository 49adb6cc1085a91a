"""Parse YAML as an API server does: refuse aliases that expand to too many nodes.

https://github.com/kubernetes/kubernetes/issues/83253 (CVE-2019-11253)
"""

from typing import Any

import yaml

# The largest share of nodes from aliases: 99 % in a small document, 10 % in a large one. A real server allows ten times
# as many nodes, but Python would need ten times as long for them.
# https://github.com/yaml/go-yaml/blob/v2.4.2/decode.go (allowedAliasRatio)
SMALL, LARGE = 40_000, 400_000
MOST, LEAST = 0.99, 0.10
# A document is always accepted if it has at most FEW_ALIASES nodes from aliases, or at most FEW_NODES nodes in all.
FEW_ALIASES, FEW_NODES = 100, 1000

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def yaml_value(text: bytes) -> object:
    """Return the text's only document as Python values. Raises yaml.YAMLError if the text can't be parsed."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if b"*" in text:
            _Budget().spend(node)
        return loader.construct_document(node)
    finally:
        loader.dispose()


class _Budget:
    """Count the nodes of a document. A node counts again each time an alias repeats it."""

    def __init__(self) -> None:
        self._nodes = self._of_aliases = 0
        self._known: set[int] = set()  # the nodes so far, by id: an alias repeats one of them
        self._open: set[int] = set()

    def spend(self, node: yaml.Node, *, aliased: bool = False) -> None:
        """Count a node and the nodes in it."""
        if id(node) in self._open:
            raise yaml.YAMLError("anchor value contains itself")
        if id(node) in self._known:
            self._count(aliased)  # the alias itself
            aliased = True
        self._count(aliased)
        self._known.add(id(node))
        if isinstance(node, yaml.CollectionNode):
            self._open.add(id(node))
            for inner in node.value:
                for each in inner if isinstance(inner, tuple) else (inner,):
                    self.spend(each, aliased=aliased)
            self._open.remove(id(node))

    def _count(self, aliased: bool) -> None:
        self._nodes += 1
        self._of_aliases += aliased
        if self._of_aliases > FEW_ALIASES and self._nodes > FEW_NODES:
            share = (min(max(self._nodes, SMALL), LARGE) - SMALL) / (LARGE - SMALL)
            if self._of_aliases > self._nodes * (MOST - share * (MOST - LEAST)):
                raise yaml.YAMLError("document contains excessive aliasing")
