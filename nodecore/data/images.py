"""MNIST and CIFAR-10 on disk: fetched where they are absent, checked, read; nothing is unpickled.

<root>/MNIST/raw/              the four files of MNIST, unzipped
<root>/cifar-10-batches-bin/   CIFAR-10's binary release: a label and 3 x 1,024 pixels an image
"""

import gzip
import os
import tarfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nodecore.data.download import download, md5_of
from nodecore.data.files import write_atomically

Labelled = tuple[Tensor, Tensor]  # images (n, channels, height, width) uint8, labels (n,) int64

# Where each release is fetched from; the first one that gives a file serves.
SOURCES = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    ),
    "cifar10": ("https://www.cs.toronto.edu/~kriz",),
}

MNIST = "MNIST/raw"
MNIST_ARCHIVES_MD5 = {
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}
MNIST_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}

CIFAR10 = "cifar-10-batches-bin"
CIFAR10_MD5 = {
    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
    "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
}
CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR10_ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
CIFAR10_SHAPE = (3, 32, 32)

# A copy of the test batch that goes round where the release cannot be had: its first images are
# the release's, the others went through JPEG, with the right labels.
CIFAR10_COPY_MD5 = "c3b28fcb373f35d9e9d1b6f7428ee370"
CIFAR10_COPY_EXACT = 1000

N_TEST = 10_000  # test images of either release


class DataError(OSError):
    """Data that cannot be fetched, or are not what was released; the message says what to do."""


def data_root(root: Path | str | None = None) -> Path:
    """Return the folder of the data: `root`, or NODECORE_DATA, or nodecore in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(root or os.environ.get("NODECORE_DATA") or cache / "nodecore")


def read_mnist(root: Path | str | None = None) -> tuple[Labelled, Labelled]:
    """Read the 60,000 training and 10,000 test images (n, 1, 28, 28) uint8, with their labels.

    Args:
        root: Folder of the data; see data_root. Files are fetched where absent.

    Raises:
        DataError: The files cannot be fetched or do not match the release's checksums.
    """
    root = data_root(root)
    _fetch(root / MNIST, MNIST_MD5, ", ".join(MNIST_ARCHIVES_MD5), _fetch_mnist)
    for name, md5 in MNIST_MD5.items():
        check_file(root / MNIST / name, md5)
    training, test = (
        (
            _read_idx(root / MNIST / f"{part}-images-idx3-ubyte", 3)[:, None],
            _read_idx(root / MNIST / f"{part}-labels-idx1-ubyte", 1).long(),
        )
        for part in ("train", "t10k")
    )
    return training, test


def _read_idx(path, n_axes):
    """Read an IDX file: four bytes for type and axes, a length for each axis, the entries."""
    data = np.fromfile(path, np.uint8)
    shape = data[4 : 4 + 4 * n_axes].view(">i4")
    return torch.from_numpy(data[4 + 4 * n_axes :].reshape(shape.tolist()))


def _fetch_mnist(folder):
    for name, md5 in MNIST_ARCHIVES_MD5.items():
        archive = folder / name
        if archive.with_suffix("").exists():
            continue
        download([f"{source}/{name}" for source in SOURCES["mnist"]], archive, md5)
        write_atomically(archive.with_suffix(""), gzip.decompress(archive.read_bytes()))
        archive.unlink()


def read_cifar10(root: Path | str | None = None) -> tuple[Labelled, Labelled]:
    """Read the 50,000 training and 10,000 test images (n, 3, 32, 32) uint8, with their labels.

    Args:
        root: Folder of the data; see data_root. Files are fetched where absent.

    Raises:
        DataError: The files cannot be fetched or do not match the release's checksums.
    """
    folder = data_root(root) / CIFAR10
    _fetch(folder, CIFAR10_MD5, ", ".join(CIFAR10_MD5), _fetch_cifar10)
    batches = {name: _read_batch(folder / name, md5) for name, md5 in CIFAR10_MD5.items()}
    test = batches.pop("test_batch.bin")
    images, labels = zip(*batches.values(), strict=True)
    return (torch.cat(images), torch.cat(labels)), test


def exact_test_images(name: str, root: Path | str | None = None) -> int:
    """Count a set's test images, from the first on, that are the release's pixel by pixel."""
    path = data_root(root) / CIFAR10 / "test_batch.bin"
    lossy = name == "cifar10" and _md5(path) == CIFAR10_COPY_MD5
    return CIFAR10_COPY_EXACT if lossy else N_TEST


def _read_batch(path, md5):
    check_file(path, md5, *([CIFAR10_COPY_MD5] if path.name == "test_batch.bin" else []))
    rows = torch.from_numpy(np.fromfile(path, np.uint8)).view(-1, 1 + 3 * 32 * 32)
    return rows[:, 1:].reshape(-1, *CIFAR10_SHAPE), rows[:, 0].long()


def _fetch_cifar10(folder):
    path = folder.parent / CIFAR10_ARCHIVE
    sources = [f"{source}/{CIFAR10_ARCHIVE}" for source in SOURCES["cifar10"]]
    download(sources, path, CIFAR10_ARCHIVE_MD5)
    with tarfile.open(path) as archive:
        for member in archive:
            file, name = archive.extractfile(member), Path(member.name).name
            if file is not None and name in CIFAR10_MD5:
                # Whole or not at all: a process that sees all of them reads without the lock.
                write_atomically(folder / name, file.read())
    path.unlink()


def _fetch(folder, files, names, fetch):
    """Fetch a release unless its files are there; one process at a time, the others wait for it."""

    def complete():
        return all((folder / file).exists() for file in files)

    if complete():
        return
    from filelock import FileLock  # only what fetches needs it

    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not complete():
                fetch(folder)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(
            f"{folder} lacks files that cannot be fetched ({' '.join(str(error).split())}): put "
            f"{names} of the release there, or set NODECORE_DATA to a folder that has them in the "
            "same sub-folder"
        ) from error


def check_file(path: Path, *accepted: str) -> None:
    """Raise DataError unless the file has one of the MD5s."""
    if _md5(path) not in accepted:
        raise DataError(
            f"{path} is not the file that was released (its checksum differs: it was cut short or "
            "altered); delete it, and it is fetched again"
        )


def _md5(path):
    try:
        return md5_of(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); make it readable") from error
