"""An architecture is a derivation tree: which rule each symbol was derived by."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nas.conversion import literal
from nas.errors import SearchSpaceError

if TYPE_CHECKING:
    import networkx as nx

_BARE = re.compile(r'[^\s(),"]+')
_TOKEN = re.compile(r'\s*(?:([(),])|("(?:[^"\\]|\\.)*")|([^\s(),"]+))')


@dataclass(frozen=True, slots=True)
class Architecture:
    """A node of a derivation and, with its children, the whole tree below it.

    `symbol` is what the node derives, `rule` the name of the rule that derives it. `steps` holds the
    path step to each child (its role, with the rule's name where that is needed to be unambiguous);
    it follows from the space and takes no part in comparison. `str()` gives a call-like text,
    ``cell(skip_connect, nor_conv_3x3)``, that `SearchSpace.parse` reads back.
    """

    symbol: Hashable
    rule: str
    children: tuple[Architecture, ...] = ()
    steps: tuple[str, ...] = field(default=(), compare=False, repr=False)
    _text: str = field(default="", init=False, compare=False, repr=False)  # written when first asked

    def __str__(self) -> str:
        if not self._text:
            object.__setattr__(self, "_text", self._write())
        return self._text

    def _write(self) -> str:
        parts: list[str] = []
        stack: list[Architecture | str] = [self]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                parts.append(item)
                continue
            parts.append(quote(item.rule))
            if item.children:
                stack.append(")")
                for child in reversed(item.children):
                    stack += [child, ", "]
                stack[-1] = "("
        return "".join(parts)

    @property
    def digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the text."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:16]

    def nodes(self) -> Iterator[tuple[str, Architecture]]:
        """Every (path, node), parents first; the root's path is the empty string."""
        stack = [("", self)]
        while stack:
            path, node = stack.pop()
            yield path, node
            steps = node.steps or tuple(str(i) for i in range(len(node.children)))
            below = [(join(path, s), c) for s, c in zip(steps, node.children, strict=True)]
            stack.extend(reversed(below))

    def at(self, path: str) -> Architecture:
        """The node at a path such as ``"cell/0-1"``; SearchSpaceError where there is none."""
        found = dict(self.nodes())
        if path not in found:
            raise SearchSpaceError(
                f'"{path}" is not a path of {self}; its paths: {", ".join(p for p in found if p)}.'
            )
        return found[path]

    def value(self, path: str) -> object:
        """The plain value chosen at a path: a Python literal where the rule's name reads as one."""
        return literal(self.at(path).rule)

    def graph(self) -> nx.DiGraph[str]:
        """The tree as a networkx graph: nodes are paths with `symbol` and `rule`, edges have `step`."""
        import networkx as nx  # here, so that the command line answers at once

        graph: nx.DiGraph[str] = nx.DiGraph()
        for path, node in self.nodes():
            graph.add_node(path, symbol=str(node.symbol), rule=node.rule)
            if path:
                parent, _, step = path.rpartition("/")
                graph.add_edge(parent, path, step=step)
        return graph


def join(path: str, step: str) -> str:
    """The path one step further down."""
    return f"{path}/{step}" if path else step


def quote(name: str) -> str:
    """A rule's name as it stands in a text: bare, or as a JSON string where it holds special signs."""
    return name if _BARE.fullmatch(name) else json.dumps(name)


def read(text: str) -> Architecture:
    """The tree a text spells, its symbols still unknown (empty); SearchSpaceError where malformed."""
    tokens = list(_tokens(text))
    stack: list[tuple[str, list[Architecture]]] = []
    finished: Architecture | None = None
    for index, (kind, value, position) in enumerate(tokens):
        following = tokens[index + 1][1] if index + 1 < len(tokens) else ""
        if kind == "name" and finished is None:
            if following == "(" and tokens[index + 1][0] == "sign":
                stack.append((value, []))
            else:
                finished = Architecture("", value)
        elif value == "(" and finished is None and index and tokens[index - 1][0] == "name":
            continue
        elif value in ",)" and finished is not None and stack:
            stack[-1][1].append(finished)
            finished = None
            if value == ")":
                name, children = stack.pop()
                finished = Architecture("", name, tuple(children))
        else:
            raise _malformed(text, position, f'unexpected "{value}"')
    if stack or finished is None:
        raise _malformed(text, len(text), f'{len(stack)} ")" missing' if stack else "nothing to read")
    return finished


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    position = 0
    while position < len(text.rstrip()):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _malformed(text, position, f"cannot read {text[position:].strip()[:20]!r}")
        sign, quoted, bare = match.groups()
        start = match.end() - len(match.group().lstrip())
        if sign:
            yield "sign", sign, start
        else:
            yield "name", _unquote(text, quoted, start) if quoted else bare, start
        position = match.end()


def _unquote(text: str, quoted: str, position: int) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        raise _malformed(text, position, f"{quoted} is not a JSON string") from None


def brief(text: object, most: int = 200) -> str:
    """The text of an architecture as it stands in a message: its beginning and end where it is long."""
    whole = str(text)
    return whole if len(whole) <= most else f"{whole[: most - 40]} ... {whole[-35:]}"


def _malformed(text: str, position: int, what: str) -> SearchSpaceError:
    return SearchSpaceError(
        f'architecture text "{brief(text, 80)}" is malformed at character {position}: {what}; '
        "the form is rule(child, child, ...)."
    )
