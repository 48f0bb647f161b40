"""MNIST and CIFAR-10 packed small, in parts, for a machine that takes little at a time.

    python -m benchmarks.packed_images pack FOLDER [--dataset cifar10] [--part-mib 56]
    python -m benchmarks.packed_images unpack FOLDER... [--to DATA]

`pack` reads the data where nodecore does and writes FOLDER/part-1, part-2 and so on. CIFAR-10,
176 MiB, becomes 98 MiB in two parts. Send one part at a time, and unpack it before the next one
comes; `unpack` checks every file against the checksum of the release. Needs numpy and torch.
"""

import argparse
import lzma
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nodecore.data import images

FILES = {
    "mnist": [f"{images.MNIST}/{name}" for name in images.MNIST_MD5],
    "cifar10": [f"{images.CIFAR10}/{name}" for name in images.CIFAR10_MD5],
}
RECORD = 1 + 3 * 32 * 32  # bytes of an image of CIFAR-10 with its label


def pack(folder: Path, names: list[str], part_bytes: int, root: Path | None = None) -> list[Path]:
    """Write the files of the data sets into parts of a size; the parts. ValueError for a file that
    does not fit into one."""
    parts, room = [], 0
    for name in (file for dataset in names for file in FILES[dataset]):
        data = lzma.compress(_differences((images.data_root(root) / name).read_bytes(), name))
        if len(data) > part_bytes:
            raise ValueError(f"part: {name} takes {len(data) / 2**20:.1f} MiB; allow larger parts")
        if len(data) > room:
            parts.append(folder / f"part-{len(parts) + 1}")
            parts[-1].mkdir(parents=True)
            room = part_bytes
        (parts[-1] / (name.replace("/", "+") + ".xz")).write_bytes(data)
        room -= len(data)
    return parts


def unpack(parts: list[Path], root: Path | None = None) -> list[Path]:
    """Write what is in the parts to where nodecore reads it; the files. images.DataError for one
    that is not as it was released."""
    packed = {}
    for file in (file for part in parts for file in sorted(part.glob("*"))):
        name = file.name.removesuffix(".xz").replace("+", "/")
        if name not in FILES["mnist"] + FILES["cifar10"]:
            raise images.DataError(f"{file} is no file of MNIST or CIFAR-10; remove it")
        packed[name] = file
    with ThreadPoolExecutor() as threads:
        return list(threads.map(lambda n: _unpack(packed[n], n, images.data_root(root)), packed))


def _unpack(file, name, root):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_sums(lzma.decompress(file.read_bytes()), name))
    release = (images.MNIST_MD5 | images.CIFAR10_MD5)[path.name]
    copies = [images.CIFAR10_COPY_MD5] if path.name == "test_batch.bin" else []
    images.check_file(path, release, *copies)
    return path


# Neighbours and colours are alike: their differences, modulo 256, are small numbers.


def _differences(data, name):
    if name not in FILES["cifar10"]:
        return data
    labels, planes = _records(data)
    planes[:, ::2] -= planes[:, 1:2]  # red and blue from green
    planes[..., 1:] -= planes[..., :-1].copy()
    planes[..., 1:, :] -= planes[..., :-1, :].copy()
    return labels.tobytes() + planes.tobytes()


def _sums(data, name):
    if name not in FILES["cifar10"]:
        return data
    n = len(data) // RECORD
    labels = np.frombuffer(data[:n], np.uint8)
    planes = np.frombuffer(data[n:], np.uint8).reshape(n, 3, 32, 32)
    planes = planes.cumsum(axis=-2, dtype=np.uint8).cumsum(axis=-1, dtype=np.uint8)
    planes[:, ::2] += planes[:, 1:2]
    return np.concatenate([labels[:, None], planes.reshape(n, -1)], axis=1).tobytes()


def _records(data):
    rows = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    return rows[:, 0].copy(), rows[:, 1:].reshape(-1, 3, 32, 32).copy()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="pack the data into parts")
    packing.add_argument("folder", type=Path)
    packing.add_argument("--dataset", choices=FILES, action="append", help="default: both")
    packing.add_argument("--part-mib", type=float, default=56.0)
    unpacking = commands.add_parser("unpack", help="unpack parts")
    unpacking.add_argument("folder", type=Path, nargs="+")
    unpacking.add_argument("--to", type=Path, help="default: where nodecore looks for data")
    given = parser.parse_args(arguments)
    try:
        if given.command == "pack":
            names = given.dataset or list(FILES)
            written = pack(given.folder, names, int(given.part_mib * 2**20))
        else:
            written = unpack(given.folder, given.to)
    except (OSError, ValueError, lzma.LZMAError) as error:
        sys.exit(f"error: {error}")
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
