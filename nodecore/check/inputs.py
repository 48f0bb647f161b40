"""What `check_flow` is given, as people have it: times, samples, labels, numbers, checked once."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodecore.data.split import Split

Tree = Any  # a tensor, or tuples, lists and dicts of them, or None


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """The same tree with the function of each of its tensors; what is no tensor stays."""
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, tuple | list):
        return type(tree)(map_tensors(function, part) for part in tree)
    if isinstance(tree, dict):
        return {key: map_tensors(function, part) for key, part in tree.items()}
    return tree


def tensors_of(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, in order."""
    found: list[Tensor] = []
    map_tensors(lambda tensor: found.append(tensor) or tensor, tree)
    return found


@dataclass(frozen=True)
class Samples:
    """States z (n, ...) and what the field is given of each sample besides: args, rows likewise."""

    z: Tensor
    args: Tree = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: Tensor | slice) -> "Samples":
        def rows(tensor: Tensor) -> Tensor:
            return tensor[index.to(tensor.device) if isinstance(index, Tensor) else index]

        return Samples(rows(self.z), map_tensors(rows, self.args))

    def split(self, n: int) -> list["Samples"]:
        """Parts of at most n samples."""
        return [self[first : first + n] for first in range(0, len(self), n)]


# --- times and numbers ----------------------------------------------------------------------------


def read_times(t: Any) -> tuple[float, float]:
    """(start, end) of what was given as t, forwards or backwards. ValueError with the remedy."""
    values = t.tolist() if isinstance(t, Tensor | np.ndarray) else t
    if not isinstance(values, tuple | list):
        raise ValueError(f"t = {values!r}: give two times, such as t=(0.0, {values!r})")
    if any(isinstance(value, list | tuple) for value in values):
        raise ValueError(
            f"t has the shape {tuple(np.shape(values))}: all samples share one (start, end) here; "
            "for times of each sample, scale them into the field, t = a + s (b - a), with a and b "
            "as args=, and check t=(0.0, 1.0)"
        )
    if len(values) != 2:
        ends = f"({float(values[0])!r}, {float(values[-1])!r})" if values else "(0.0, 1.0)"
        raise ValueError(
            f"t has {len(values)} entries: give t={ends}, start and end; where these were the "
            "steps of the training, as in torchdiffeq, give them as grid= in place of n_steps="
        )
    start, end = (float(value) for value in values)
    if not (math.isfinite(end - start) and end != start):
        raise ValueError(f"t = {(start, end)}: give finite times (start, end) with end > start")
    return start, end


def whole(name: str, value: Any) -> int:
    """A whole number >= 1 of Python, numpy or torch. ValueError."""
    number = value.item() if isinstance(value, Tensor | np.generic) else value
    try:
        count = int(number) if isinstance(number, float) and number.is_integer() else None
        count = operator.index(number) if count is None else count
    except TypeError:
        count = 0
    if count < 1 or isinstance(number, bool):
        raise ValueError(f"{name} = {value!r}: give a whole number >= 1")
    return count


def positive(name: str, value: Any) -> float:
    """A finite number > 0 of Python, numpy or torch. ValueError."""
    number = value.item() if isinstance(value, Tensor | np.generic) else value
    if not (isinstance(number, int | float) and math.isfinite(number) and number > 0):
        raise ValueError(f"{name} = {value!r}: give a tolerance > 0, such as 1e-3")
    return float(number)


# --- samples and labels ---------------------------------------------------------------------------


def read_inputs(x: Any) -> Tree:
    """Inputs (n, ...) as a tensor, or a tuple of tensors with as many rows each. ValueError."""
    if isinstance(x, tuple | list) and x and all(isinstance(p, Tensor | np.ndarray) for p in x):
        parts = tuple(read_inputs(part) for part in x)
        if len({len(part) for part in parts}) > 1:
            raise ValueError(
                f"x has parts of {', '.join(str(len(p)) for p in parts)} samples: the states of a "
                "sample are the rows of all parts; repeat what all samples share"
            )
        return parts
    x = torch.from_numpy(x) if isinstance(x, np.ndarray) else x
    if not isinstance(x, Tensor) or x.dim() < 1:
        raise ValueError(f"x is {type(x).__name__}: give a tensor of inputs (n, ...)")
    Split(x, torch.zeros(len(x), dtype=torch.int64), 1)  # raises what is wrong with them
    return x


def read_labels(y: Any, n: int) -> Tensor | None:
    """Labels (n,) int64 from int, float or bool, (n,), (n, 1) or one-hot. ValueError."""
    if y is None:
        return None
    try:
        labels = y.detach() if isinstance(y, Tensor) else torch.as_tensor(np.asarray(y))
    except TypeError:
        raise ValueError(f"y is {type(y).__name__}: give labels as a tensor (n,)") from None
    labels = _one_column(labels)
    if labels.dim() != 1:
        raise ValueError(
            f"y has the shape {tuple(labels.shape)}: give a label for each sample, (n,), (n, 1) or "
            "one-hot (n, classes); for regression targets leave out y"
        )
    if labels.is_complex() or bool((labels != labels.long()).any()):
        raise ValueError(
            "y has entries that are no whole numbers: give labels of classes; for regression "
            "targets leave out y, then the outputs are compared"
        )
    labels = labels.long()
    if len(labels) != n:
        raise ValueError(f"x has {n} samples, y {len(labels)}: give as many of each")
    if int(labels.min()) < 0:
        low, high = int(labels.min()), int(labels.max())
        raise ValueError(f"y has labels {low} to {high}: give labels from 0 on")
    return labels


def _one_column(labels: Tensor) -> Tensor:
    """Labels (n, 1) as (n,), and one-hot ones as their class."""
    if labels.dim() != 2:
        return labels
    if labels.shape[1] == 1:
        return labels[:, 0]
    one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
    return labels.long().argmax(1) if bool(one_hot) else labels
