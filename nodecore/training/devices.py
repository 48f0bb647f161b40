"""Devices, threads, precision and memory of a training."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch

from nodecore.data.datasets import DATASETS
from nodecore.ode.backends import resolve_backend
from nodecore.ode.checks import check_choice
from nodecore.ode.fields import hidden_bytes
from nodecore.training.protocols import Protocol


def get_device(device: str = "auto") -> torch.device:
    """ "auto" is cuda where there is one, else the CPU. A CUDA device has its number, the current
    one's where none is given: one device, one name. ValueError for one that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise ValueError(f"device = {device!r}: give auto, cpu or cuda")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device = {device!r}: no CUDA device is visible here; use cpu or auto")
    if chosen.type != "cuda":
        return chosen
    number = torch.cuda.current_device() if chosen.index is None else chosen.index
    if number >= torch.cuda.device_count():
        last = torch.cuda.device_count() - 1
        raise ValueError(f"device = {device!r}: there are cuda:0 to cuda:{last}; use one of them")
    return torch.device("cuda", number)


# Of the products in convolutions. float32: IEEE throughout. tf32: 10-bit mantissas on a GPU's
# tensor cores. bf16: in bfloat16. States, weights and the classifier are in float32 always.
PRECISIONS = ("float32", "tf32", "bf16")


@contextmanager
def in_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Convolutions within are computed in one of PRECISIONS; afterwards as before."""
    conv = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue] torch sets it late
    products = torch.backends.cuda.matmul, conv
    before = [product.fp32_precision for product in products]
    try:
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        conv.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        with _autocast(precision == "bf16", device):
            yield
    finally:
        for product, value in zip(products, before, strict=True):
            product.fp32_precision = value


@contextmanager
def tuned_convolutions() -> Iterator[None]:
    """cuDNN tries its algorithms on each new shape within, and keeps to the fastest; afterwards as
    before. Pays where a shape comes thousands of times."""
    before = torch.backends.cudnn.benchmark
    try:
        torch.backends.cudnn.benchmark = True
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def _autocast(wanted, device):
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    # A CUDA graph cannot replay from autocast's cache of weights in bfloat16.
    return torch.autocast(device.type, torch.bfloat16, wanted, cache_enabled=False)


@contextmanager
def single_threaded(device: torch.device) -> Iterator[None]:
    """On a CPU, torch and the kernel use one thread within; afterwards as many as before.

    Threads that share a training wait for one another at every solve. An iteration (spheres, Euler,
    K = 16, 5 seeds; two cores) took 7.5 ms with one thread and 8.2 beside one other busy process;
    with two 4.7 and 14.0; with two that wait passively (OMP_WAIT_POLICY, which must be set before
    torch is imported) 5.4 and 10.6. Trainings side by side, one thread each, lose neither way.
    """
    before = torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Time the second run of a call; the first one warms up."""
    for _ in range(2):
        wait_for(device)
        start = time.perf_counter()
        call()
        wait_for(device)
    return time.perf_counter() - start


def check_precision_name(precision: str) -> None:
    """Raise ValueError unless the precision is one of PRECISIONS."""
    check_choice("precision", precision, PRECISIONS)


def check_precision(precision: str, protocol: Protocol, device: torch.device) -> None:
    """Raise ValueError for a precision that a training on this device cannot have."""
    check_precision_name(precision)
    if precision != "float32" and protocol.field != "conv2d":
        raise ValueError(
            f"precision = {precision!r}: only fields of images, not {protocol.dataset}, are "
            "trained in less than float32; leave it out"
        )
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(
            f"precision = {precision!r}: {device} does not support tf32; use float32 or bf16"
        )


def without_kernel(backend: str, precision: str) -> str:
    """Return the backend of less than float32; raise ValueError where the kernel is asked for."""
    if resolve_backend(backend) == "fused":
        raise ValueError(
            f"precision = {precision!r}: backend = 'fused' is in float32; leave one of them out"
        )
    return "torch"


MEMORY_USED = 0.8  # of what is free, by hidden maps that are kept; gradients need room, too


def maps_fit(protocol: Protocol, evaluations: int, precision: str, device: torch.device) -> bool:
    """Tell whether the hidden maps of all evaluations of an iteration fit into a GPU's free memory.

    Keeping them saves their second computation, a third of all work.
    """
    _, *size = DATASETS[protocol.dataset].shape
    bytes_each = 2 if precision == "bf16" else 4
    each = hidden_bytes(protocol.batch_size, protocol.width, math.prod(size), bytes_each)
    return evaluations * each <= MEMORY_USED * free_memory(device)


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU's memory that a training may still take, with those that torch has spare."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
