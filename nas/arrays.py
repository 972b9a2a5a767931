"""A task from arrays in one call: checked, split by a stated seed, scaled by its training examples."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nas.errors import DataError
from nas.space import Signature
from nas.task import Metric, Scaling, Score, Split, Task

Pair = tuple[Any, Any]  # Any: whatever numpy reads as an array, tensors included


@dataclass(frozen=True, eq=False)
class Holdout:
    """What is kept from training: each a fraction or a number of the examples, or arrays of its own.

    `valid` and `test` are 0.15 (of all the examples), 300 (examples) or a pair (inputs, targets).
    Examples are drawn in the order that `seed` gives, first the test split, then the validation split;
    the rest trains. Classes keep their shares in each split, to within one example.
    """

    valid: int | float | Pair = 0.15
    test: int | float | Pair = 0.15
    seed: int = 0


def classification(name: str, inputs: Any, targets: Any, holdout: Holdout = Holdout()) -> Task:
    """A task of telling classes apart, trained by cross-entropy and scored by accuracy in %.

    `inputs` are numbers (n, features), (n, channels, length) or (n, channels, height, width), and
    `targets` whole numbers (n,) from 0, each class with a training example. Any: arrays or tensors.
    """
    train, valid, test = _splits((inputs, targets), holdout, _labels, stratified_order)
    num_classes = _num_classes(train.targets, {"validation": valid.targets, "test": test.targets})
    mean, std = _statistics(train.inputs)
    return Task(
        name=name,
        train=train,
        valid=valid,
        test=test,
        signature=Signature(tuple(train.inputs.shape[1:]), (num_classes,)),
        loss=_smoothed_cross_entropy,
        scores=(
            Score(Metric("accuracy", "%", "maximize", shared=True), accuracy),
            Score(Metric("loss", "nats", "minimize", shared=True), cross_entropy),
        ),
        scaling=Scaling(mean, std, torch.zeros(1), torch.ones(1)),
    )


def regression(
    name: str, inputs: Any, targets: Any, holdout: Holdout = Holdout(), unit: str = "target unit"
) -> Task:
    """A task of predicting numbers, scored by the root mean square error in `unit`.

    `inputs` are shaped as for `classification`, `targets` (n,) or (n, outputs); (n,) becomes (n, 1).
    The loss is the mean square of the error divided by the training targets' standard deviation.
    Any: arrays or tensors.
    """
    train, valid, test = _splits((inputs, targets), holdout, _values, shuffled_order)
    for what, split in (("training", train), ("validation", valid), ("test", test)):
        if bool((split.targets == split.targets[0]).all()):
            raise DataError(
                f"the {what} targets are all equal, so there is nothing to predict; "
                "give examples with at least two different targets."
            )
    mean, std = _statistics(train.inputs)
    target_mean, target_std = _statistics(train.targets)
    return Task(
        name=name,
        train=train,
        valid=valid,
        test=test,
        signature=Signature(tuple(train.inputs.shape[1:]), tuple(train.targets.shape[1:])),
        loss=partial(_scaled_squares, std=target_std),
        scores=(
            Score(Metric("rmse", unit, "minimize", shared=True), root_mean_square_error),
            Score(Metric("r2", "1", "maximize", shared=True), explained_variance),
        ),
        scaling=Scaling(mean, std, target_mean, target_std),
    )


def shuffled_order(targets: Tensor, seed: int) -> Tensor:
    """The indices (n,) of the examples in a random order that the seed fixes."""
    order = list(range(len(targets)))
    random.Random(seed).shuffle(order)
    return torch.tensor(order)


def stratified_order(labels: Tensor, seed: int) -> Tensor:
    """The indices (n,) in a random order of which any stretch holds each class by its share.

    The r-th of the m examples of a class, shuffled, stands at (r + 1/2) / m; all are sorted by that.
    """
    shuffled = shuffled_order(labels, seed)
    seen: dict[int, int] = {}
    counts = torch.bincount(labels).tolist()
    places = []
    for index, label in zip(shuffled.tolist(), labels[shuffled].tolist(), strict=True):
        rank = seen[label] = seen.get(label, -1) + 1
        places.append(((rank + 0.5) / counts[label], label, index))
    return torch.tensor([index for _, _, index in sorted(places)])


def accuracy(outputs: Tensor, targets: Tensor) -> float:
    """The share in % of labels (n,) that have the greatest output of (n, classes)."""
    if bool(outputs.isnan().any()):
        return float("nan")  # argmax would take NaN for the greatest and count it as an answer
    return 100 * float((outputs.argmax(1) == targets).double().mean())


def cross_entropy(outputs: Tensor, targets: Tensor) -> float:
    """Mean negative log-likelihood in nats of labels (n,) under the logits (n, classes)."""
    return float(functional.cross_entropy(outputs.detach(), targets))


def root_mean_square_error(outputs: Tensor, targets: Tensor) -> float:
    """Root of the mean squared difference of (n, outputs) from (n, outputs)."""
    return float((outputs.detach() - targets).double().square().mean().sqrt())


def explained_variance(outputs: Tensor, targets: Tensor) -> float:
    """R2: 1 minus the squared error over the squared spread of the targets, summed over outputs."""
    targets = targets.double()
    spread = (targets - targets.mean(0)).square().sum()
    return float(1 - (outputs.detach().double() - targets).square().sum() / spread)


def _smoothed_cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    return functional.cross_entropy(outputs, targets, label_smoothing=label_smoothing)


def _scaled_squares(outputs: Tensor, targets: Tensor, label_smoothing: float, *, std: Tensor) -> Tensor:
    return ((outputs - targets) / std.to(outputs.device)).square().mean()


def _splits(
    pair: Pair,
    holdout: Holdout,
    read: Callable[[str, Any], Tensor],
    order_of: Callable[[Tensor, int], Tensor],
) -> tuple[Split, Split, Split]:
    """Train, valid and test; `read` makes targets of an array, `order_of` says who is drawn first."""
    whole = _examples("training", pair, read)
    order = order_of(whole.targets, holdout.seed)
    held, start = [], 0
    for what, wanted in (("test", holdout.test), ("validation", holdout.valid)):
        if isinstance(wanted, int | float):
            size = _size(what, wanted, len(whole))
            held.append(_part(whole, order[start : start + size]))
            start += size
        else:
            held.append(_examples(what, wanted, read))
            _same_shape(what, held[-1], whole)
    if start >= len(whole):
        raise DataError(
            f"of {len(whole)} examples {start} are held out, which leaves none to train on; "
            "hold out fewer of them."
        )
    return (_part(whole, order[start:]) if start else whole), held[1], held[0]


def _part(whole: Split, index: Tensor) -> Split:
    return Split(whole.inputs[index], whole.targets[index])


def _size(what: str, wanted: float, num_examples: int) -> int:
    if isinstance(wanted, float) and not 0 < wanted < 1:
        raise DataError(
            f"the {what} split is given as {wanted}; give a fraction between 0 and 1, "
            "a whole number of examples, or a pair (inputs, targets)."
        )
    size = round(wanted * num_examples) if isinstance(wanted, float) else wanted
    if size < 1:
        raise DataError(
            f"the {what} split is empty ({wanted} of {num_examples} examples); give it more of them."
        )
    return size


def _examples(what: str, pair: Any, read: Callable[[str, Any], Tensor]) -> Split:  # Any: as Pair
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise DataError(
            f"the {what} split is given as {type(pair).__name__}; give a fraction, a whole number of "
            "examples, or a pair (inputs, targets)."
        )
    inputs, targets = _numbers(f"{what} inputs", pair[0]), read(f"{what} targets", pair[1])
    if inputs.ndim < 2:
        raise DataError(
            f"the {what} inputs have shape {tuple(inputs.shape)}; give (n, features), "
            "(n, channels, length) or (n, channels, height, width), such as x.reshape(-1, 1)."
        )
    if len(inputs) != len(targets):
        raise DataError(
            f"there are {len(inputs)} {what} inputs and {len(targets)} {what} targets; "
            "give one target for each input."
        )
    if inputs.numel() == 0:
        raise DataError(
            f"the {what} split is empty (its inputs have shape {tuple(inputs.shape)}); "
            "give at least one example."
        )
    return Split(inputs, targets)


def _same_shape(what: str, split: Split, whole: Split) -> None:
    pairs = {"inputs": (split.inputs, whole.inputs), "targets": (split.targets, whole.targets)}
    for of, (given, wanted) in pairs.items():
        if given.shape[1:] != wanted.shape[1:]:
            raise DataError(
                f"one example of the {what} {of} has shape {tuple(given.shape[1:])}, of the training "
                f"{of} {tuple(wanted.shape[1:])}; give all splits the same."
            )


def _array(what: str, values: Any) -> np.ndarray[Any, np.dtype[Any]]:  # Any: as Pair
    try:
        array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    except (TypeError, ValueError) as error:
        raise DataError(f"the {what} are no array ({error}); give numbers of one shape.") from None
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"the {what} are of type {array.dtype}; give numbers (for names of classes, "
            "numpy.unique(names, return_inverse=True)[1])."
        )
    return array


def _numbers(what: str, values: Any) -> Tensor:  # Any: as Pair
    """A float32 copy, every value of it finite."""
    with np.errstate(over="ignore"):
        array = _array(what, values).astype(np.float32)
    wrong = ~np.isfinite(array)
    if wrong.any():
        first = int(np.argwhere(wrong)[0][0]) if array.ndim else 0
        raise DataError(
            f"the {what} hold {int(wrong.sum())} values that are NaN or beyond 32-bit floats, "
            f"the first in example {first}; remove or replace them."
        )
    return torch.from_numpy(array)


def _values(what: str, values: Any) -> Tensor:  # Any: as Pair
    """Targets (n, outputs)."""
    targets = _numbers(what, values)
    if targets.ndim not in (1, 2) or targets.shape[-1] == 0:
        raise DataError(
            f"the {what} have shape {tuple(targets.shape)}; give (n,) or (n, outputs), n at least 1."
        )
    return targets[:, None] if targets.ndim == 1 else targets


def _labels(what: str, values: Any) -> Tensor:  # Any: as Pair
    """Labels (n,), none of them negative."""
    array = _array(what, values)
    if array.dtype.kind == "f":
        raise DataError(
            f"the {what} are of type {array.dtype}; classes are whole numbers, such as "
            "targets.astype(int), and to predict numbers is nas.arrays.regression."
        )
    if array.ndim != 1:
        raise DataError(f"the {what} have shape {array.shape}; give one whole number an example, (n,).")
    if array.size and array.min() < 0:
        raise DataError(f"the {what} hold the class {array.min()}; classes are numbered from 0.")
    return torch.from_numpy(array.astype(np.int64))


def _num_classes(labels: Tensor, held_out: dict[str, Tensor]) -> int:
    """How many classes the training labels name, which must be 0, 1, ... and no other elsewhere."""
    known = set(labels.tolist())
    for what, others in held_out.items():
        for label in sorted(set(others.tolist())):
            if label not in known:
                raise DataError(
                    f"class {label} is in the {what} split but has no training example; "
                    "give it some or leave it out."
                )
    if known != set(range(len(known))):
        missing = min(set(range(len(known))) - known)
        raise DataError(
            f"class {missing} has no training example while class {max(known)} has; number the "
            "classes 0, 1, ..., as numpy.unique(targets, return_inverse=True)[1] does."
        )
    if len(known) < 2:
        raise DataError("the training targets name one class; give at least two.")
    return len(known)


def _statistics(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over examples and places: (features,) or (channels, 1, ...).

    What is constant, up to the rounding of 32-bit floats, gets a standard deviation of 1.
    """
    places = [0, *range(2, values.ndim)]
    std, mean = torch.std_mean(values, places, correction=0, keepdim=True)
    constant = std <= 1e-6 * mean.abs()
    return mean[0], torch.where(constant, torch.ones_like(std), std)[0]
