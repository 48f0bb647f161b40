"""Choose whether the fused kernel or torch carries out a solve."""

import os

import torch
from torch import Tensor

from nodecore.ode import kernels
from nodecore.ode.checks import check_choice
from nodecore.ode.solution import VectorField
from nodecore.ode.tableaus import ButcherTableau

BACKENDS = ("auto", "fused", "torch")


def resolve_backend(backend: str = "auto") -> str:
    """Return the backend that is asked for; "auto" becomes what NODECORE_KERNEL names, if set.

    Raises:
        ValueError: The name is unknown.
    """
    name = "backend"
    if backend == "auto":
        name, backend = "NODECORE_KERNEL", os.environ.get("NODECORE_KERNEL") or "auto"
    return check_choice(name, backend, BACKENDS)


def choose_backend(f: VectorField, z0: Tensor, path: bool = False, backend: str = "auto") -> str:
    """Return "fused" or "torch", whichever a fixed-step solve of z0 is to take.

    Args:
        f: Vector field; the kernel serves one whose `block_layers` it knows.
        z0: Initial state.
        path: Whether the states on the way are wanted, which the kernel does not keep.
        backend: One of BACKENDS.

    Raises:
        ValueError: "fused" is asked for and cannot serve.
    """
    backend = resolve_backend(backend)
    if backend == "torch":
        return "torch"
    serves = not path and z0.device.type == "cpu" and z0.dtype == torch.float32
    serves = serves and _has_kernel_layers(f, z0.dim())
    if backend == "fused" and not serves:
        raise ValueError(
            "backend = 'fused' serves dense fields and convolutions of one channel on float32 CPU "
            f"states, (members, batch, dim) or (members, batch, 1, height, width), without path; "
            f"got {type(f).__name__} on {z0.dtype} {z0.device} {tuple(z0.shape)}, path={path}; "
            "use backend='torch'"
        )
    if not serves:
        return "torch"
    status = kernels.status()
    if not status.available and backend == "fused":
        raise ValueError(f"backend = 'fused' is not available: {status.reason}")
    return "fused" if status.available else "torch"


def _has_kernel_layers(f, axes):
    """Tell whether f has layers that the kernel knows, for states of so many axes."""
    layers = f.block_layers() if hasattr(f, "block_layers") else None
    return layers is not None and axes == (5 if layers[1].taps == 9 else 3)


def choose_adaptive_backend(
    f: VectorField,
    z0: Tensor,
    tableau: ButcherTableau,
    instance_axes: int = 1,
    path: bool = False,
    backend: str = "auto",
) -> str:
    """Return "fused" or "torch", whichever an adaptive solve of z0 is to take.

    Like choose_backend, which see, with the embedded method and the number of leading axes of
    instances that step by themselves.
    """
    # The kernel's error estimate has the solution's stages and the next first one only.
    estimates = len(tableau.b) == tableau.n_solution_stages + tableau.first_same_as_last
    if instance_axes in (1, 2) and estimates:
        return choose_backend(f, z0, path, backend)
    if resolve_backend(backend) == "fused":
        raise ValueError(
            "backend = 'fused' serves steps of each member's own or of each sample's "
            f"(instance_axes = 1 or 2; got {instance_axes}) and methods whose error estimate "
            "needs no stage of its own; use backend='torch'"
        )
    return "torch"
