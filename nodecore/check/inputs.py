"""Read what `check_flow` is given, as people have it: times, numbers, samples, labels."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nodecore.data.split import Split
from nodecore.ode.checks import check_count, check_positive

FEW_PARTS = 8  # of a state: more of one shape are rather samples
Tree = Any  # a tensor, or tuples, lists and dicts of them, or None


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply a function to each tensor of a tree, arrays as tensors too; what is neither stays."""
    if isinstance(tree, Tensor | np.ndarray):
        return function(torch.as_tensor(tree))
    if isinstance(tree, tuple | list):
        parts = [map_tensors(function, part) for part in tree]
        named = hasattr(tree, "_fields")  # a named tuple takes its parts one by one
        return type(tree)(*parts) if named else type(tree)(parts)
    if isinstance(tree, dict):
        return {key: map_tensors(function, part) for key, part in tree.items()}
    return tree


def tensors_of(tree: Tree) -> list[Tensor]:
    """List the tensors of a tree, in order."""
    found: list[Tensor] = []
    map_tensors(lambda tensor: found.append(tensor) or tensor, tree)
    return found


def is_finite(values: Tensor) -> Tensor:
    """Tell which rows of (n, ...) are finite, (n,) bool."""
    return values.reshape(len(values), -1).isfinite().all(1)


@dataclass(frozen=True)
class Samples:
    """States z (n, ...), and args with as many rows, which the field is given besides."""

    z: Tensor
    args: Tree = None

    def __len__(self) -> int:
        return len(self.z)

    def __getitem__(self, index: Tensor | slice) -> "Samples":
        def rows(tensor: Tensor) -> Tensor:
            return tensor[index.to(tensor.device) if isinstance(index, Tensor) else index]

        return Samples(rows(self.z), map_tensors(rows, self.args))

    def split(self, n: int) -> list["Samples"]:
        """Split into parts of at most n samples."""
        return [self[first : first + n] for first in range(0, len(self), n)]


# --- times and numbers ----------------------------------------------------------------------------


def ascending(t: tuple[float, float]) -> tuple[float, float]:
    """Return (start, end) as solved: where time runs backwards, that of -t."""
    return (-t[0], -t[1]) if t[1] < t[0] else t


def read_times(t: Any) -> tuple[float, float]:
    """Return (start, end), forwards or backwards; raise ValueError with the remedy."""
    values = t.tolist() if isinstance(t, Tensor | np.ndarray) else t
    if not isinstance(values, tuple | list):
        raise ValueError(f"t = {values!r}: give two times, start and end, such as t=(0.0, 1.0)")
    if any(isinstance(value, list | tuple) for value in values):
        raise ValueError(
            f"t has the shape {np.shape(values)}: all samples share one (start, end) here; for "
            "times of each sample, scale them into the field, t = a + s (b - a), with a and b as "
            "args=, and check t=(0.0, 1.0)"
        )
    if len(values) != 2:
        ends = f"({float(values[0])!r}, {float(values[-1])!r})" if values else "(0.0, 1.0)"
        raise ValueError(
            f"t has {len(values)} entries: give t={ends}, start and end; where these were the "
            "steps of the training, as in torchdiffeq, give them as grid= in place of n_steps="
        )
    try:
        start, end = (float(value) for value in values)
    except (TypeError, ValueError):
        raise ValueError(f"t = {values!r}: give start and end as two numbers") from None
    if not (math.isfinite(end - start) and end != start):
        raise ValueError(f"t = {(start, end)}: give start and end as two different finite times")
    return start, end


def whole(name: str, value: Any) -> int:
    """Return a number of Python, numpy or torch; raise ValueError unless it is whole and >= 1."""
    number = _plain(value)
    is_whole = isinstance(number, float) and number.is_integer()
    return check_count(name, int(number) if is_whole else number)


def positive(name: str, value: Any) -> float:
    """Return a number of Python, numpy or torch; raise ValueError unless it is finite and > 0."""
    return check_positive(name, _plain(value))


def _plain(value: Any) -> Any:
    if not isinstance(value, Tensor | np.generic | np.ndarray):
        return value
    return value.item() if math.prod(value.shape) == 1 else value


# --- samples and labels ---------------------------------------------------------------------------


def read_inputs(x: Any, integers: bool = False) -> Tree:
    """Return inputs (n, ...) as a tensor, or as a tuple of tensors with n rows each.

    Raises:
        ValueError: They are empty, not finite, no tensors of floats, differ in their rows, or are
            a list of samples.
    """
    if isinstance(x, tuple | list) and x and all(isinstance(p, Tensor | np.ndarray) for p in x):
        _refuse_one_by_one(x)
        parts = tuple(read_inputs(part, integers) for part in x)
        if len({len(part) for part in parts}) > 1:
            raise ValueError(
                f"x has parts of {', '.join(str(len(p)) for p in parts)} samples: a sample is one "
                "row of each part; repeat what all samples share"
            )
        return parts
    if isinstance(x, np.ndarray) and x.dtype.kind in "biufc":
        x = torch.from_numpy(x.copy())  # torch has no negative strides
    if not isinstance(x, Tensor) or x.dim() < 1:
        raise ValueError(
            f"x is {type(x).__name__}: give a tensor of inputs (n, ...), or a tuple of tensors"
        )
    if x.is_complex():
        raise ValueError(
            f"x is {x.dtype}: give real and imaginary part, torch.view_as_real(x), and a field of "
            "these"
        )
    whole = integers and not x.is_floating_point()
    samples = x.float() if whole else x
    Split(samples, torch.zeros(len(x), dtype=torch.int64), 1)  # raises what is wrong with them
    return x


def _refuse_one_by_one(x: list[Any] | tuple[Any, ...]) -> None:
    """Raise ValueError for what is rather a list of samples than the parts of states.

    These are many tensors of one shape, in a list, or more than each of them has rows.
    """
    shapes = {tuple(part.shape) for part in x}
    if len(x) <= FEW_PARTS or len(shapes) > 1:
        return
    (shape,) = shapes
    if isinstance(x, list) or len(x) > math.prod(shape[:1]):
        stack = "torch.stack(x)" if isinstance(x[0], Tensor) else "numpy.stack(x)"
        raise ValueError(
            f"x is a {type(x).__name__} of {len(x)} tensors of shape {shape}: give {stack}, a row "
            "for each sample; where they are the parts of each state, all with n rows, give a "
            "tuple, and at least as many samples as parts"
        )


def read_args(args: Tree, n: int) -> Tree:
    """Return args, arrays as tensors; ValueError unless every tensor has n rows."""
    for part in tensors_of(args):
        if part.dim() < 1 or len(part) != n:
            raise ValueError(
                f"args has a tensor of shape {tuple(part.shape)} for {n} samples: give a row for "
                "each sample; let the field close over what all samples share"
            )
    return map_tensors(lambda part: part, args)


def read_labels(y: Any, n: int) -> Tensor | None:
    """Return labels (n,) int64.

    Args:
        y: None, or labels of any number type, (n,), (n, 1) or one-hot (n, classes).
        n: Number of samples.

    Raises:
        ValueError: They are no labels of classes 0, 1, ..., or not one for each sample.
    """
    if y is None:
        return None
    try:
        labels = _one_column(y.detach() if isinstance(y, Tensor) else torch.as_tensor(np.array(y)))
    except (TypeError, ValueError):  # of what is no number, or rows of several lengths
        raise ValueError(f"y is {type(y).__name__}: give labels as a tensor (n,)") from None
    if labels.dim() != 1:
        raise ValueError(
            f"y has the shape {tuple(labels.shape)}: give a label for each sample, (n,), (n, 1) or "
            "one-hot (n, classes); for regression targets leave out y; for labels of nodes or "
            "pixels give a loss of each sample, such as loss=lambda out, y: (out.argmax(1) != "
            "y).double().flatten(1).mean(1), and as tolerance= the change of it that counts"
        )
    if len(labels) != n:
        raise ValueError(f"x has {n} samples, y {len(labels)}: give as many of each")
    if labels.is_complex() or bool((labels.double() != labels.long()).any()):
        raise ValueError(
            "y has entries that are no whole numbers: give labels of classes; for regression "
            "targets leave out y, then the outputs are compared"
        )
    labels = labels.long()
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise ValueError(
            f"y has labels {low} to {high}: give labels from 0 on, or for regression targets no y"
        )
    return labels


def read_targets(y: Any, n: int) -> Tensor:
    """Return targets (n, ...) of a loss as a tensor; raise ValueError."""
    try:
        targets = y if isinstance(y, Tensor) else torch.as_tensor(np.array(y))
    except (TypeError, ValueError):  # of what is no number, or rows of several lengths
        raise ValueError(f"y is {type(y).__name__}: give targets as a tensor (n, ...)") from None
    if targets.dim() < 1 or len(targets) != n:
        raise ValueError(f"x has {n} samples, y the shape {tuple(targets.shape)}: give n rows")
    if not bool(targets.isfinite().all()):
        raise ValueError(
            "y has targets that are not finite: leave out these samples, also of x; where single "
            "numbers of a sample are missing, give y = torch.stack([y.nan_to_num(0, 0, 0), "
            "y.isfinite()], -1) and a loss that reads this mask"
        )
    return targets.detach()


def _one_column(labels: Tensor) -> Tensor:
    """Return labels (n, 1) as (n,), and one-hot ones as their class."""
    if labels.dim() != 2:
        return labels
    if labels.shape[1] == 1:
        return labels[:, 0]
    one_hot = ((labels == 0) | (labels == 1)).all() and (labels.sum(1) == 1).all()
    return labels.long().argmax(1) if bool(one_hot) else labels
