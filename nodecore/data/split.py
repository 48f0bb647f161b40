"""Labelled samples: what every data set is made of."""

from dataclasses import dataclass

import torch
from torch import Tensor

from nodecore.data.seeding import make_generator


@dataclass(frozen=True)
class Split:
    """Labelled samples, checked where they are made.

    Attributes:
        x: Inputs (n, ...), floating point and finite.
        y: Labels (n,) int64 in 0 .. n_classes - 1.
        n_classes: Number of classes.

    Raises:
        ValueError: A sample or label is not as described; the message says what to mend.
    """

    x: Tensor
    y: Tensor
    n_classes: int

    def __post_init__(self):
        if len(self.x) == 0 or len(self.x) != len(self.y):
            raise ValueError(
                f"x has {len(self.x)} samples, y {len(self.y)}: give as many of each, at least one"
            )
        if not self.x.is_floating_point():
            raise ValueError(f"x is {self.x.dtype}: give floating-point samples")
        if not bool(torch.isfinite(self.x).all()):
            bad = int((~torch.isfinite(self.x)).reshape(len(self.x), -1).any(1).sum())
            raise ValueError(f"x has {bad} samples that are NaN or infinite: remove or mend them")
        if self.y.dtype != torch.int64:
            raise ValueError(f"y is {self.y.dtype}: give labels as int64")
        low, high = int(self.y.min()), int(self.y.max())
        if low < 0 or high >= self.n_classes:
            raise ValueError(
                f"y has labels {low} to {high}: give labels in 0 .. {self.n_classes - 1}, or raise "
                f"n_classes = {self.n_classes}"
            )

    def __len__(self):
        return len(self.y)

    def to(self, device: torch.device | str) -> "Split":
        """Return the same samples on `device`."""
        return Split(self.x.to(device), self.y.to(device), self.n_classes)

    def first(self, n: int) -> "Split":
        """Return the first n samples, or all where there are fewer."""
        return Split(self.x[:n], self.y[:n], self.n_classes)

    def sample(self, n: int, seed: int = 0) -> "Split":
        """Draw n samples without replacement, or take all where there are fewer.

        Splits may lie in the order of their classes: the first n of one can hold a single class.
        """
        order = torch.randperm(len(self), generator=make_generator(seed, "samples"))[:n]
        return Split(self.x[order], self.y[order], self.n_classes)

    def class_shares(self) -> Tensor:
        """Return the share of each class, (n_classes,) float64."""
        return torch.bincount(self.y, minlength=self.n_classes).double() / len(self)
