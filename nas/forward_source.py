"""The forward method of a traced graph, as Python that a person would write.

Torch's fx writes one; this one names no private function, keeps no bookkeeping, and joins its lines.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import math
import re
from collections import Counter
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from nas.errors import ConfigurationError

LONGEST_LINE = 76  # beside its indent
WAY_OUT = 'export it as "torch-export" or "onnx" instead'


@dataclass(frozen=True)
class Forward:
    """The text of a `forward` method, and the lines that import what it names beside torch."""

    text: str
    imports: list[str]


def forward(graph: fx.Graph, *, in_order: bool) -> Forward:
    """The method for a graph whose targets are attributes of self.

    Values that are used once are written where they are used, on lines that fit; `in_order` keeps
    every operation on a line of its own, for graphs that change tensors in place.
    """
    root = "root_of_all"
    while any(node.name == root for node in graph.nodes):
        root += "_"  # apart from self, which fx lets a layer's output be called, too
    code = graph.python_code(root)
    function = ast.parse(code.src).body[-1]
    assert isinstance(function, ast.FunctionDef)
    body = [_unannotated(s) for s in function.body if not _forgets(s)]
    used = {n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name)}
    names = {name: value for name, value in sorted(code.globals.items()) if name in used}
    imported = [_import(name, value) for name, value in names.items() if value is not torch]
    imports = [line for line in imported if line]
    given = [argument.arg for argument in function.args.args[1:]]
    apart = set(given) - {node.name for node in graph.nodes}  # fx has `input_1 = input`
    fresh = Names({*names, *apart, "self", "nn", "F", "torch", "Tensor", "super"})
    local = {
        node.name: f"self.{node.target}" if node.op == "get_attr" else fresh.new(node.name)
        for node in graph.nodes
    }
    readable = _Readable(root, local)
    statements = [ast.fix_missing_locations(readable.visit(statement)) for statement in body]
    statements = [s for s in statements if not ast.unparse(s).startswith("self.")]  # self.w = self.w
    lines = list(map(ast.unparse, statements if in_order else _joined(statements)))
    head = ", ".join(["self", *(f"{local.get(name, name)}: Tensor" for name in given)])
    return Forward("\n    ".join([f"def forward({head}) -> Tensor:", *lines]), imports)


class Names:
    """Python names for the dotted names of a module's parts, none of them given twice."""

    def __init__(self, taken: set[str]) -> None:
        self.taken = taken | set(keyword.kwlist)

    def new(self, target: str) -> str:
        """The target's words, without the `network` that Scaled puts before them; numbered if taken."""
        words = re.sub(r"\W", "_", target)
        words = words.removeprefix("network_").strip("_") or "layer"
        name = words if words[0].isalpha() else f"layer_{words}"
        number = 2
        candidate = name
        while candidate in self.taken:
            candidate, number = f"{name}_{number}", number + 1
        self.taken.add(candidate)
        return candidate


def _forgets(statement: ast.stmt) -> bool:
    """Whether a statement only drops references, as fx writes to free memory early."""
    match statement:
        case ast.Assign(value=ast.Constant(value=None)):
            return True
    return False


def _joined(statements: list[ast.stmt]) -> list[ast.stmt]:
    """The statements with values that are used once written where they are used, on lines that fit."""
    uses = Counter(
        n.id for s in statements for n in ast.walk(s) if isinstance(n, ast.Name) and _is_load(n)
    )
    waiting: dict[str, ast.Assign] = {}
    done: list[ast.stmt] = []
    for statement in statements:
        here = [n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and n.id in waiting]
        parts = {name: waiting.pop(name) for name in here}
        whole = _Joining({name: part.value for name, part in parts.items()}).visit(deepcopy(statement))
        if len(ast.unparse(whole)) > LONGEST_LINE:
            done.extend(parts.values())
            whole = statement
        match whole:
            case ast.Assign(targets=[ast.Name(id=name)]) if uses[name] == 1:
                waiting[name] = whole
            case _:
                done.append(whole)
    return done


def _is_load(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Load)


@dataclass
class _Joining(ast.NodeTransformer):
    """Values in place of the names that they were given."""

    values: Mapping[str, ast.expr]

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self.values.get(node.id, node)


def _unannotated(statement: ast.stmt) -> ast.stmt:
    match statement:
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            return ast.Assign([target], value)
    return statement


@dataclass
class _Readable(ast.NodeTransformer):
    """Names that are free, slices as people write them, torch's functions by their public names."""

    root: str
    local: Mapping[str, str]

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.local.get(node.id, node.id), node.ctx)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name))]):
                return ast.Attribute(self.visit(owner), name, ast.Load())
        node.keywords = [k for k in node.keywords if ast.unparse(k) != "inplace=False"]
        return self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        index = node.slice
        if isinstance(index, ast.Tuple):
            index.elts = [_index(item) for item in index.elts]
        else:
            node.slice = _index(index)
        return self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        match node:
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner == self.root:
                return ast.Attribute(ast.Name("self", ast.Load()), name, ast.Load())
        path = ast.unparse(node)
        if path.startswith("torch."):
            return ast.parse(_public(path), mode="eval").body
        return self.generic_visit(node)


def _index(node: ast.expr) -> ast.expr:
    """An index as people write it: 1:3 for slice(1, 3, None), and three dots."""
    match node:
        case ast.Call(func=ast.Name(id="slice"), args=parts):
            written = [None if _is_none(part) else part for part in parts]
            return ast.Slice(*written)
        case ast.Name(id="Ellipsis"):
            return ast.Constant(...)
    return node


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _public(path: str) -> str:
    """The shortest public name of an object of torch: torch.cat, F.gelu."""
    value: Any = torch  # Any: whatever torch names
    for step in path.split(".")[1:]:
        value = getattr(value, step)
    last = path.rpartition(".")[2]
    for module, short in ((torch, "torch"), (functional, "F")):
        if getattr(module, last, None) is value:
            return f"{short}.{last}"
    return path


def _import(name: str, value: object) -> str:
    """The import of a name that fx gave to an object."""
    if isinstance(value, ModuleType):
        return f"import {value.__name__} as {name}"
    home, own = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
    if isinstance(value, float):
        home, own = "math", "nan" if math.isnan(value) else "inf"
    if getattr(builtins, own, None) is value:
        return "" if name == own else f"{name} = {own}"
    if home in ("math", "_operator", "torch") or home.startswith("torch."):
        renamed = "" if name == own else f" as {name}"
        return f"from {home.lstrip('_')} import {own}{renamed}"
    raise ConfigurationError(
        f"the module calls {own or name} of {home or 'an unknown place'}, which plain source cannot "
        f"import; {WAY_OUT}."
    )
