"""The data sets by name, with their splits."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from nodecore.data.images import exact_cifar10_test, read_cifar10, read_mnist
from nodecore.data.seeding import make_generator
from nodecore.data.split import Split, check_count
from nodecore.data.synthetic import concentric_spheres, energy_landscape

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
    """Of one sample, its shape; what text calls the set and its classes, by label; and what makes
    or reads samples."""

    label: str
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    make: Callable

    @property
    def n_classes(self) -> int:
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
    check_count(count, n, 1)
    if n > len(split):
        raise ValueError(f"{count} = {n}: there are {len(split)} images; give no more")
    return split.first(n)
