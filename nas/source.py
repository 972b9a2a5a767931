"""Plain PyTorch source of a module: one class that needs torch alone, written from an fx trace.

Reference: Reed et al., torch.fx: Practical Program Capture and Transformation for Deep Learning in
Python, MLSys 2022.
"""

from __future__ import annotations

import inspect
import operator
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from nas.errors import ConfigurationError
from nas.forward_source import WAY_OUT, Names, forward

_IN_PLACE_OPERATORS = (
    {"setitem", "delitem", "iadd", "iand", "iconcat", "ifloordiv", "ilshift", "imatmul", "imod"}
    | {"imul", "ior", "ipow", "irshift", "isub", "itruediv", "ixor"}
)  # fmt: skip


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
    graph, constants = _trace(module)
    in_order = any(_in_place(module, node) for node in graph.nodes)
    if not in_order:
        _drop_unused(graph)
    lines: list[str] = []
    state: dict[str, Tensor] = {}
    names = Names(set(dir(nn.Module())))
    attributes: dict[str, str] = {}
    for node in graph.nodes:
        if node.op not in ("call_module", "get_attr"):
            continue
        target = str(node.target)
        if target in attributes:
            node.target = attributes[target]
            continue
        node.target = attribute = attributes[target] = names.new(target)
        if node.op == "call_module":
            layer = module.get_submodule(target)
            lines.append(f"self.{attribute} = {constructor(layer, target)}")
            state.update({f"{attribute}.{k}": v for k, v in layer.state_dict().items()})
        else:
            tensor = constants[target] if target in constants else _attribute(module, target)
            lines.append(_registration(attribute, tensor))
            state[attribute] = tensor.detach()
    written = forward(graph, in_order=in_order)
    text = _file(name, docstring, written.imports, ["super().__init__()", *lines], written.text)
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


def _trace(module: nn.Module) -> tuple[fx.Graph, dict[str, Tensor]]:
    """The graph of a module, and the constants in it that are no attributes of the module."""
    before = set(vars(module))
    constants: dict[str, Tensor] = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, on what it traces through
            graph = fx.Tracer().trace(module)
    except Exception as error:  # whatever the module's forward raises on being given a proxy
        reason = str(error).partition("\n")[0].strip().rstrip(".")
        raise ConfigurationError(
            f"{type(module).__name__} cannot be written as plain source, since its forward decides "
            f"by the values or shapes that it is given ({reason}); {WAY_OUT}."
        ) from error
    finally:
        for name in set(vars(module)) - before:  # where the tracer leaves them
            constants[name] = vars(module).pop(name)
    return graph, constants


def _drop_unused(graph: fx.Graph) -> None:
    for node in reversed(graph.nodes):
        if not node.users and node.op not in ("placeholder", "output"):
            graph.erase_node(node)


def _in_place(module: nn.Module, node: fx.Node) -> bool:
    """Whether an operation may change its argument, so that the order of operations matters."""
    if node.op == "call_module":
        return bool(getattr(module.get_submodule(str(node.target)), "inplace", False))
    if not node.op.startswith("call_"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if getattr(operator, name, None) is node.target:
        return name in _IN_PLACE_OPERATORS
    return name.endswith("_") or "out" in node.kwargs or bool(node.kwargs.get("inplace"))


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
