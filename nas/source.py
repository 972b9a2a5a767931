"""Plain PyTorch source of a module: one class that needs torch alone, written from an fx trace.

Reference: Reed et al., torch.fx: Practical Program Capture and Transformation for Deep Learning in
Python, MLSys 2022.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from nas.errors import ConfigurationError

WAY_OUT = 'export it as "torch-export" or "onnx" instead'


@dataclass(frozen=True)
class Source:
    """The text of a Python file that defines a class, and the state that `load_state_dict` takes."""

    text: str
    state: Mapping[str, Tensor]


def source(module: nn.Module, name: str = "Model", docstring: str = "") -> Source:
    """A class of that name that computes what the module does, in the module's current mode.

    Layers of torch.nn stay layers; what lies between them is written out, dead branches are left
    out, and what does not depend on the input (loops over layers, options) is decided. Buffers that
    the module's own state leaves out are part of the state here. Tied weights become equal ones.
    """
    traced = _trace(module)
    lines: list[str] = []
    state: dict[str, Tensor] = {}
    names = _Names(set(dir(nn.Module())))
    attributes: dict[str, str] = {}
    for node in traced.graph.nodes:
        if node.op not in ("call_module", "get_attr") or node.target in attributes:
            continue
        attribute = attributes[node.target] = names.new(node.target)
        if node.op == "call_module":
            layer = traced.get_submodule(node.target)
            lines.append(f"self.{attribute} = {constructor(layer, node.target)}")
            state.update({f"{attribute}.{k}": v for k, v in layer.state_dict().items()})
        else:
            tensor = _attribute(traced, node.target)
            lines.append(_registration(attribute, tensor))
            state[attribute] = tensor.detach()
    forward, imports = _forward(traced, attributes)
    constructors = ["super().__init__()", *lines]
    text = _file(name, docstring, imports, constructors, forward)
    return Source(text, state)


def constructor(layer: nn.Module, where: str = "") -> str:
    """The call that makes a layer of torch.nn: `nn.Conv2d(3, 8, kernel_size=(3, 3), bias=False)`.

    Every call is evaluated and what it makes is compared with the layer, since the text that layers
    print leaves out some of their options (count_include_pad of a pool).
    """
    kind = type(layer).__name__
    if getattr(nn, kind, None) is type(layer):
        for call in (_call(layer, short=True), _call(layer, short=False), f"nn.{layer!r}"):
            if "\n" not in call and _makes(call, layer):
                return call
    raise ConfigurationError(f'layer "{where}" ({kind}) cannot be written as plain source; {WAY_OUT}.')


def _trace(module: nn.Module) -> fx.GraphModule:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, on what it traces through
            traced = fx.symbolic_trace(module)
    except Exception as error:  # whatever the module's forward raises on being given a proxy
        reason = str(error).partition("\n")[0].strip().rstrip(".")
        raise ConfigurationError(
            f"{type(module).__name__} cannot be written as plain source, since its forward decides "
            f"by the values or shapes that it is given ({reason}); {WAY_OUT}."
        ) from error
    traced.graph.eliminate_dead_code()
    return traced


def _attribute(module: nn.Module, target: str) -> Tensor:
    path, _, name = target.rpartition(".")
    found = getattr(module.get_submodule(path), name)
    if not isinstance(found, Tensor):
        raise ConfigurationError(
            f'"{target}" is a {type(found).__name__}, which plain source cannot hold; {WAY_OUT}.'
        )
    return found


def _registration(attribute: str, tensor: Tensor) -> str:
    shape = ", ".join(map(str, tensor.shape)) or "()"
    dtype = "" if tensor.dtype == torch.float32 else f", dtype={tensor.dtype}"
    if not isinstance(tensor, nn.Parameter):
        return f'self.register_buffer("{attribute}", torch.zeros({shape}{dtype}))'
    frozen = "" if tensor.requires_grad else ", requires_grad=False"
    return f"self.{attribute} = nn.Parameter(torch.zeros({shape}{dtype}){frozen})"


class _Names:
    """Python names for the dotted names of a module's parts, each used once."""

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


def _call(layer: nn.Module, *, short: bool) -> str:
    """The constructor with those arguments that differ from its defaults, by the layer's attributes.

    `short` writes 3 for (3, 3).
    """
    arguments: list[str] = []
    for name, parameter in inspect.signature(type(layer).__init__).parameters.items():
        default = parameter.default
        if name in ("self", "device", "dtype") or not hasattr(layer, name):
            continue
        value = getattr(layer, name)
        if isinstance(default, bool) and not isinstance(value, bool):
            value = value is not None  # a bias is an option when it is made, then a tensor or None
        if short and isinstance(value, tuple) and len(set(value)) == 1:
            value = value[0]
        if default is parameter.empty:
            arguments.append(repr(value))
        elif value != default:
            arguments.append(f"{name}={value!r}")
    dtypes = {t.dtype for t in layer.parameters() if t.is_floating_point()} - {torch.float32}
    arguments += [f"dtype={dtype}" for dtype in dtypes]
    return f"nn.{type(layer).__name__}({', '.join(arguments)})"


def _makes(call: str, layer: nn.Module) -> bool:
    """Whether a call makes a layer of the same options, names, shapes and types."""
    try:
        with torch.device("meta"):
            made = eval(call, {"__builtins__": {}, "nn": nn, "torch": torch})  # noqa: S307
        pairs = list(zip(made.modules(), layer.modules(), strict=True))
        same = all(type(a) is type(b) and _options(a) == _options(b) for a, b in pairs)
    except Exception:  # a text that is no such call: not this one
        return False
    return same and _form(made) == _form(layer)


def _options(layer: nn.Module) -> dict[str, object]:
    skipped = ("training", "call_super_init", "dump_patches")
    return {k: v for k, v in vars(layer).items() if k[0] != "_" and k not in skipped}


def _form(layer: nn.Module) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (t.shape, t.dtype) for name, t in layer.state_dict().items()}


def _forward(traced: fx.GraphModule, attributes: Mapping[str, str]) -> tuple[str, list[str]]:
    """The source of forward, its statements one an operation, and the imports that it needs."""
    root = "root_of_all"
    while any(node.name == root for node in traced.graph.nodes):
        root += "_"  # apart from self, which fx lets a layer's output be called, too
    code = traced.graph.python_code(root)
    function = ast.parse(code.src).body[-1]
    assert isinstance(function, ast.FunctionDef)
    body = [_unannotated(s) for s in function.body if not _forgets(s)]
    used = {n.id for s in body for n in ast.walk(s) if isinstance(n, ast.Name)}
    names = {name: value for name, value in sorted(code.globals.items()) if name in used}
    written = [_import(name, value) for name, value in names.items() if value is not torch]
    imports = [line for line in written if line]
    fresh = _Names({*names, "self", "nn", "F", "torch", "Tensor", "super"})
    local = {node.name: fresh.new(node.name) for node in traced.graph.nodes}
    readable = _Readable(root, attributes, local)
    statements = [ast.unparse(ast.fix_missing_locations(readable.visit(s))) for s in body]
    arguments = [local[node.name] for node in traced.graph.nodes if node.op == "placeholder"]
    head = ", ".join(["self", *(f"{a}: Tensor" for a in arguments)])
    return f"def forward({head}) -> Tensor:\n" + _indented("\n".join(statements), 4), imports


def _forgets(statement: ast.stmt) -> bool:
    """Whether a statement only drops references, as fx writes to free memory early."""
    match statement:
        case ast.Assign(value=ast.Constant(value=None)):
            return True
    return False


def _unannotated(statement: ast.stmt) -> ast.stmt:
    match statement:
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            return ast.Assign([target], value)
    return statement


@dataclass
class _Readable(ast.NodeTransformer):
    """Flat names for dotted ones, slices as people write them, torch's functions by public name."""

    root: str
    attributes: Mapping[str, str]
    local: Mapping[str, str]

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.local.get(node.id, node.id), node.ctx)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        own = self.attributes.get(self._below_root(node))
        if own is not None:
            return ast.Attribute(ast.Name("self"), own)
        match node:
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name))]):
                return ast.Attribute(self.visit(owner), name)
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
        own = self.attributes.get(self._below_root(node))
        if own is not None:
            return ast.Attribute(ast.Name("self"), own)
        path = ast.unparse(node)
        if path.startswith("torch."):
            return ast.parse(_public(path), mode="eval").body
        return self.generic_visit(node)

    def _below_root(self, node: ast.AST) -> str:
        """The name that an expression spells below the root: root.a.b, or getattr(root.a, "0").b."""
        match node:
            case ast.Attribute(value=owner, attr=name):
                pass
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name))]):
                pass
            case _:
                return ""
        if isinstance(owner, ast.Name):
            return name if owner.id == self.root else ""
        above = self._below_root(owner)
        return f"{above}.{name}" if above else ""


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


def _file(name: str, docstring: str, imports: list[str], init: list[str], forward: str) -> str:
    """The whole file: imports in order, then the class."""
    used = [i for i in imports if "import" in i]
    if re.search(r"\bF\.", forward):
        used.append("import torch.nn.functional as F")
    head = [*sorted(i for i in used if "torch" not in i), *([""] if used else []), "import torch"]
    head += [*sorted(i for i in used if "torch" in i), "from torch import Tensor, nn"]
    head += [i for i in imports if "import" not in i]
    note = f'    """{_plain(docstring)}"""\n\n' if docstring else ""
    body = _indented("\n".join(["def __init__(self) -> None:", _indented("\n".join(init), 4)]), 4)
    return (
        "\n".join(head).lstrip()
        + f"\n\n\nclass {name}(nn.Module):\n{note}{body}\n\n{_indented(forward, 4)}\n"
    )


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"""', "'''")


def _indented(text: str, by: int) -> str:
    return "\n".join(" " * by + line if line else line for line in text.splitlines())
