"""The classification tasks: concentric spheres, a particle in an energy landscape, images.

`load(name, ...)` is the one way that studies take to a data set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nodecore.images import exact_cifar10_test, read_cifar10, read_mnist
from nodecore.seeding import make_generator
from nodecore.solve import solve_fixed


@dataclass(frozen=True)
class Split:
    """Inputs x (n, ...) floating point, labels y (n,) int64 in 0 .. n_classes - 1; checked."""

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

    def to(self, device) -> "Split":
        """The same samples on `device`."""
        return Split(self.x.to(device), self.y.to(device), self.n_classes)

    def first(self, n: int) -> "Split":
        """The first n samples, or all where there are fewer."""
        return Split(self.x[:n], self.y[:n], self.n_classes)

    def class_shares(self) -> Tensor:
        """The share of each class, (n_classes,) float64."""
        return torch.bincount(self.y, minlength=self.n_classes).double() / len(self)


# --- concentric spheres ---------------------------------------------------------------------------

# (r_min, r_max, class, parts of n): the outer and the inner shell are of the same class. The
# paper's text prints no radii or counts; these are its authors' released defaults.
SHELLS = ((0.1, 0.15, 0, 1), (0.25, 0.3, 1, 2), (0.4, 0.45, 0, 1))


def concentric_spheres(n: int, dim: int, generator: torch.Generator) -> Split:
    """n points on three shells in `dim` dimensions, x (n, dim) float32, shell by shell.

    Direction uniform, radius r_min + (r_max - r_min) u^(1/dim), u uniform, as Dupont et al. (2019)
    draw them. Raises ValueError for n < 4 or dim < 1.
    """
    _check_count("n", n, 4)
    _check_count("dim", dim, 1)
    parts = sum(shell[3] for shell in SHELLS)
    counts = [n * share // parts for *_, share in SHELLS]
    counts[-1] += n - sum(counts)
    points, labels = [], []
    for count, (r_min, r_max, label, _) in zip(counts, SHELLS, strict=True):
        direction = torch.randn(count, dim, generator=generator, dtype=torch.float64)
        direction /= direction.norm(dim=1, keepdim=True)
        u = torch.rand(count, 1, generator=generator, dtype=torch.float64)
        points.append(direction * (r_min + (r_max - r_min) * u ** (1 / dim)))
        labels.append(torch.full((count,), label))
    return Split(torch.cat(points).float(), torch.cat(labels), n_classes=2)


# --- particle in an energy landscape --------------------------------------------------------------

POTENTIAL = 0.2 * np.polynomial.Polynomial.fromroots([2.0, 0.5, -1.0, -0.6, 1.6, 0.0])
FRICTION = 0.2
POSITIONS = (-1.0, 2.0)  # of the start, uniform
VELOCITIES = (-2.0, 2.0)
# The chapter of the data shows what these mean: at rest, a particle is in one of three minima.
REST_STEP, REST_SPAN, REST_ROUNDS = 0.02, 100.0, 10
REST_SPEED = REST_DISTANCE = 1e-2


def potential(x: Tensor) -> Tensor:
    """V(x) = 0.2 (x-2)(x-0.5)(x+1)(x+0.6)(x-1.6) x, elementwise."""
    return _polynomial(POTENTIAL, x)


def landscape_field(t, z: Tensor) -> Tensor:
    """The true vector field (paper, eq. 4) on z = (x, v), shape (..., 2).

    dx/dt = v,  dv/dt = -V'(x) - gamma v,  gamma = 0.2.
    """
    x, v = z.unbind(-1)
    return torch.stack([v, -_polynomial(POTENTIAL.deriv(), x) - FRICTION * v], dim=-1)


def landscape_extrema() -> tuple[np.ndarray, np.ndarray]:
    """Positions of the minima (3,) and of the maxima between them (2,), ascending."""
    roots = POTENTIAL.deriv().roots()
    roots = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
    convex = POTENTIAL.deriv(2)(roots) > 0
    return roots[convex], roots[~convex]


def landscape_minima() -> np.ndarray:
    """Positions of the minima, one for each class, (3,) ascending."""
    return landscape_extrema()[0]


def energy_landscape(n: int, generator: torch.Generator) -> Split:
    """n starts (x, v) float32, labelled by the minimum in which the particle comes to rest.

    Raises ValueError for n < 1 and RuntimeError if a particle does not come to rest.
    """
    _check_count("n", n, 1)
    low = torch.tensor([POSITIONS[0], VELOCITIES[0]], dtype=torch.float64)
    high = torch.tensor([POSITIONS[1], VELOCITIES[1]], dtype=torch.float64)
    starts = low + (high - low) * torch.rand(n, 2, generator=generator, dtype=torch.float64)
    starts = starts.float()
    return Split(starts, resting_place(starts), n_classes=len(landscape_minima()))


def resting_place(starts: Tensor) -> Tensor:
    """Index of the minimum in which each particle (..., 2) comes to rest, int64 (...).

    Integrated in float64 with rk4 until every one is slow, close to a minimum and without the
    energy to leave it. Raises RuntimeError if one is not after REST_ROUNDS spans of time.
    """
    minima, maxima = (torch.from_numpy(e).to(starts.device) for e in landscape_extrema())
    barrier = torch.minimum(  # the lower of the two maxima beside each minimum
        potential(maxima)[[0, 0, 1]], potential(maxima)[[0, 1, 1]]
    )
    z = starts.double()
    for _ in range(REST_ROUNDS):
        z = solve_fixed(landscape_field, z, "rk4", step_size=REST_STEP, t=(0.0, REST_SPAN)).z
        x, v = z.unbind(-1)
        distance, place = (x[..., None] - minima).abs().min(-1)
        energy = potential(x) + v**2 / 2
        rests = (v.abs() < REST_SPEED) & (distance < REST_DISTANCE) & (energy < barrier[place])
        if bool(rests.all()):
            return place
    raise RuntimeError(
        f"{int((~rests).sum())} particles did not come to rest within t = "
        f"{REST_ROUNDS * REST_SPAN:g}; they may start on the edge of two basins"
    )


def _polynomial(p, x):
    """Horner's rule: numpy's own evaluation would turn tensors into arrays."""
    value = torch.zeros_like(x)
    for coefficient in p.coef[::-1]:
        value = value * x + float(coefficient)
    return value


# --- images ---------------------------------------------------------------------------------------

N_TEST = 10_000  # test images of either set


def mnist(root: Path | str | None = None) -> tuple[Split, Split]:
    """The 60,000 training and 10,000 test digits, x (n, 1, 28, 28) float32 in [0, 1].

    root: see images.data_root; fetched where absent. Raises images.DataError.
    """
    return tuple(_as_split(part) for part in read_mnist(root))


def cifar10(root: Path | str | None = None) -> tuple[Split, Split]:
    """The 50,000 training and 10,000 test photographs, x (n, 3, 32, 32) float32 in [0, 1].

    root: see images.data_root; fetched where absent. Raises images.DataError.
    """
    return tuple(_as_split(part) for part in read_cifar10(root))


def _as_split(part):
    images, labels = part
    return Split(images.float() / 255, labels, n_classes=10)


def exact_test_images(name: str, root: Path | str | None = None) -> int:
    """How many of the test images, from the first on, are exact copies of the release's."""
    return exact_cifar10_test(root) if name == "cifar10" else N_TEST


# --- by name --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """Of one sample, its shape; the number of classes; and what makes or reads samples."""

    shape: tuple[int, ...]
    n_classes: int
    make: Callable


def _spheres(dim):
    return Dataset((dim,), 2, partial(concentric_spheres, dim=dim))


SYNTHETIC = {
    **{f"spheres{dim}": _spheres(dim) for dim in (2, 3, 10, 900)},
    "landscape": Dataset((2,), 3, energy_landscape),
}
IMAGES = {
    "mnist": Dataset((1, 28, 28), 10, mnist),
    "cifar10": Dataset((3, 32, 32), 10, cifar10),
}
DATASETS = SYNTHETIC | IMAGES


def check_dataset(name: str) -> str:
    """ValueError that lists the names unless `name` is one of DATASETS."""
    if name not in DATASETS:
        raise ValueError(f"dataset = {name!r} is unknown; choose one of {', '.join(DATASETS)}")
    return name


@cache
def load(
    name: str, n_train: int | None = 2000, n_test: int | None = 1000, seed: int = 0
) -> tuple[Split, Split]:
    """Training and test split of a data set by name: of images the first ones of either, or all
    for None.

    The seed is the data's own (as in the paper, all members of an ensemble see the same data).
    Raises ValueError for an unknown name or a count that cannot be had, images.DataError.
    """
    make = DATASETS[check_dataset(name)].make
    if name in IMAGES:
        counts = {"n_train": n_train, "n_test": n_test}.items()
        parts = zip(counts, _all_images(name), strict=True)
        return tuple(_first(split, count, n) for (count, n), split in parts)
    generator = make_generator(seed, "data")
    return make(n_train, generator=generator), make(n_test, generator=generator)


@cache
def _all_images(name):
    return IMAGES[name].make()


def _first(split, count, n):
    if n is None:
        return split
    _check_count(count, n, 1)
    if n > len(split):
        raise ValueError(f"{count} = {n}: there are {len(split)} images; give no more")
    return split.first(n)


def _check_count(name, value, least):
    if not isinstance(value, int) or value < least:
        raise ValueError(f"{name} = {value!r}: give a whole number >= {least}")
