"""FlexiBERT's way to write an encoder: the JSON in which trained ones are published.

{"hidden_size": 128, "nas_config": {"encoder_layers": [{"operation_type": "SA",
 "operation_parameter": "SDP", "num_operation_heads": 2, "feed_forward_dimension": 512,
 "num_feed_forward": 1}, ...]}}

Reference: Serianni and Kalita, Training-free Neural Architecture Search for RNNs and Transformers,
ACL 2023 (the form of its table of 500 encoders).
"""

from __future__ import annotations

import json
from typing import Any

from nas.architecture import Architecture, brief
from nas.errors import SearchSpaceError, unknown
from nas.space import Notation

CONVOLUTION = "dynamic_convolution_"  # and the kernel's size
OPERATIONS = {
    ("SA", "SDP"): "dot_product",
    ("SA", "WMA"): "multiplicative",
    ("LT", "DFT"): "fourier",
    ("LT", "DCT"): "cosine",
}
SIZES = ("num_operation_heads", "feed_forward_dimension", "num_feed_forward")
FIELDS = ("operation_type", "operation_parameter", *SIZES)


def notation() -> Notation:
    """The notation, for spaces of `network(width, depth, chain(layer(...), ...))`."""
    return Notation("flexibert", read, write)


def write(architecture: Architecture) -> str:
    """The encoder's JSON."""
    width, _, layers = architecture.children
    encoder = [_written(layer) for layer in layers.children]
    return json.dumps({"hidden_size": int(width.rule), "nas_config": {"encoder_layers": encoder}})


def _written(layer: Architecture) -> dict[str, object]:
    name, *sizes = (child.rule for child in layer.children)
    kinds = {rule: pair for pair, rule in OPERATIONS.items()}
    kind, parameter = kinds.get(name) or ("DSC", int(name.removeprefix(CONVOLUTION)))
    given = dict(zip(SIZES, map(int, sizes), strict=True))
    return {"operation_type": kind, "operation_parameter": parameter, **given}


def read(text: str) -> str | None:
    """The space's own text for an encoder's JSON; None where the text is none.

    SearchSpaceError where a field is missing, or of an operation that there is not.
    """
    if not text.lstrip().startswith("{"):
        return None
    try:
        given = json.loads(text)
        width, layers = given["hidden_size"], given["nas_config"]["encoder_layers"]
        found = [_layer(layer) for layer in layers]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SearchSpaceError(
            f"{brief(text)} is no encoder of FlexiBERT; give hidden_size, and in nas_config the "
            f"encoder_layers, each with {', '.join(FIELDS)}."
        ) from None
    return f"network({width}, {len(found)}, chain({', '.join(found)}))"


def _layer(given: dict[str, Any]) -> str:  # Any: JSON values
    kind, parameter, *sizes = (given[name] for name in FIELDS)
    if kind == "DSC":
        operation = f"{CONVOLUTION}{int(parameter)}"
    elif (kind, parameter) in OPERATIONS:
        operation = OPERATIONS[kind, parameter]
    else:
        allowed = [" ".join(pair) for pair in OPERATIONS] + ["DSC 5", "DSC 9"]
        raise SearchSpaceError(unknown(f"{kind} {parameter}", "an operation of FlexiBERT", allowed))
    return f"layer({', '.join([operation, *(str(int(size)) for size in sizes)])})"
