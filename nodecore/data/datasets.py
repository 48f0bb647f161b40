"""The data sets by name, with their splits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from nodecore.data.images import read_cifar10, read_mnist
from nodecore.data.seeding import make_generator
from nodecore.data.split import Split
from nodecore.data.synthetic import concentric_spheres, energy_landscape
from nodecore.ode.checks import check_choice, check_count

# --- images ---------------------------------------------------------------------------------------


def mnist(root: Path | str | None = None) -> tuple[Split, Split]:
    """Return the 60,000 training and 10,000 test digits of images.read_mnist, float32 in [0, 1]."""
    return _as_splits(read_mnist(root))


def cifar10(root: Path | str | None = None) -> tuple[Split, Split]:
    """Return the 50,000 and 10,000 photographs of images.read_cifar10, float32 in [0, 1]."""
    return _as_splits(read_cifar10(root))


def _as_splits(parts):
    training, test = (Split(images.float() / 255, y, n_classes=10) for images, y in parts)
    return training, test


# --- by name --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """A data set: its name in text and figures, and how to make or read its samples.

    Attributes:
        label: Name in text and figures.
        shape: Shape of one sample.
        classes: Names of the classes in text and figures, in the order of their labels.
        make: Makes or reads samples. Of a synthetic set make(n, generator=...) gives a Split; of
            images make(root) gives the training and the test split.
    """

    label: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    make: Callable[..., Any]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)


def _spheres(dim):
    classes = "inner and outer shell", "middle shell"
    return Dataset(f"spheres, {dim}-D", (dim,), classes, partial(concentric_spheres, dim=dim))


MINIMA = "left minimum", "middle minimum", "right minimum"
CIFAR10_CLASSES = (
    *("plane", "car", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
SYNTHETIC = {
    **{f"spheres{dim}": _spheres(dim) for dim in (2, 3, 10, 900)},
    "landscape": Dataset("energy landscape", (2,), MINIMA, energy_landscape),
}
IMAGES = {
    "mnist": Dataset("MNIST", (1, 28, 28), tuple("0123456789"), mnist),
    "cifar10": Dataset("CIFAR-10", (3, 32, 32), CIFAR10_CLASSES, cifar10),
}
DATASETS = SYNTHETIC | IMAGES


def check_dataset(name: str) -> str:
    """Return the name; raise ValueError that lists the known ones unless it is one of DATASETS."""
    return check_choice("dataset", name, DATASETS)


@cache
def load(
    name: str, n_train: int | None = 2000, n_test: int | None = 1000, seed: int = 0
) -> tuple[Split, Split]:
    """Return the training and the test split of a data set, of so many samples.

    Images: the first n of each split, or all if None. `seed` seeds the data, not the model.

    Raises:
        ValueError: The name is unknown, or there are not so many samples.
        DataError: Images cannot be fetched or are not those that were released.
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
    check_count(count, n)
    if n > len(split):
        raise ValueError(f"{count} = {n}: there are {len(split)} images; give no more")
    return split.first(n)
