"""Whether the kernel can be used: it must build, and agree with torch on a tiny solve."""

import functools
import logging
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from nodecore.ode.kernels.build import Unavailable, library
from nodecore.ode.kernels.fused import BlockLayer, StepControl, solve_fused, solve_fused_adaptive
from nodecore.ode.kernels.structs import differing

TOLERANCE = 1e-4
# Arguments of `_difference`: so many evaluations that the kernel goes through cells.
LONG = (1, False, 64, 4)
# Euler's method estimates the error of the midpoint rule.
CONTROL = StepControl(
    b_error=np.array([-1.0, 1.0]),
    same_as_last=False,
    exponent=-1 / 2,
    rtol=0.05,
    atol=0.05,
    t0=0.0,
    t1=1.0,
    first_step=0.0,
    safety=0.9,
    min_factor=0.2,
    max_factor=10.0,
    max_steps=100,
)


@dataclass(frozen=True)
class KernelStatus:
    """Whether the fused kernel can be used in this process, and the reason in one line."""

    available: bool
    reason: str


@functools.cache
def status() -> KernelStatus:
    """Compile, load and check the kernel on the first call; never raises, logs a failure once."""
    try:
        _check()
    except Unavailable as error:
        reason = str(error)
    except Exception as error:  # whatever it is, the torch path still works
        reason = f"{type(error).__name__}: {error}"
    else:
        return KernelStatus(True, "the fused kernel is compiled and agrees with torch")
    reason = f"no fused kernel, the torch path is used: {reason.splitlines()[0]}"
    logging.getLogger("nodecore").warning(reason)
    return KernelStatus(False, reason)


def _check() -> None:
    """Raises Unavailable if the kernel cannot be built or disagrees with Python or torch."""
    if names := differing(library()):
        raise Unavailable(f"{', '.join(names)} has another size in Python than in C++")
    cases = [(taps, adaptive, 5, 1) for taps in (1, 3, 9) for adaptive in (False, True)]
    for case in (*cases, LONG):
        worst = _difference(*case)
        if not worst <= TOLERANCE:
            raise Unavailable(f"its self-check differs from torch by {worst:.1e}")


def _difference(taps: int, adaptive: bool, batch: int, repeats: int) -> float:
    """The largest relative difference of z(T) and of all gradients, two members, midpoint rule.

    Each step is divided into as many as `repeats`. Adaptive ones are walked again in torch, and
    must fill the time from 0 to 1.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / math.prod(shape[1:-1]) ** 0.5

    z0 = normal(2, batch, *{1: (2,), 3: (4,), 9: (1, 3, 4)}[taps])
    channels = 2 if taps == 1 else 1
    weights = [normal(2, channels, 7), normal(2, taps * 7, 9), normal(2, 9, channels)]
    if taps == 9:
        shapes = (2, 7, 1, 1, 1), (2, 9, 7, 3, 3), (2, 1, 9, 1, 1)
        weights = [weight.reshape(shape) for weight, shape in zip(weights, shapes, strict=True)]
    parameters = [*weights, normal(2, 7), normal(2, 9), normal(2, channels)]
    a, b = np.array([[0.0, 0.0], [0.5, 0.0]]), np.array([0.0, 1.0])
    n_steps = torch.tensor([2, 3]) * repeats
    step_sizes = torch.tensor([[0.5, 0.5, 0.0], [0.4, 0.4, 0.2]], dtype=torch.float64)
    step_sizes = step_sizes.repeat_interleave(repeats, dim=1) / repeats

    def fused(z: Tensor, *p: Tensor) -> Tensor:
        nonlocal n_steps, step_sizes
        layers = BlockLayer(p[0], p[3]), BlockLayer(p[1], p[4], taps), BlockLayer(p[2], p[5])
        if not adaptive:
            return solve_fused(z, layers, a, b, n_steps, step_sizes)
        z, walk = solve_fused_adaptive(z, layers, a, b, CONTROL)
        n_steps, step_sizes = walk.n_steps, walk.step_sizes
        return z

    def plain(z: Tensor, *p: Tensor) -> Tensor:
        rows = []
        for m in range(2):
            y = z[m]
            for h in step_sizes[m, : n_steps[m]]:
                half = y + h / 2 * _field(y, [q[m] for q in p], taps)
                y = y + h * _field(half, [q[m] for q in p], taps)
            rows.append(y)
        return torch.stack(rows)

    results = []
    for solve, dtype in ((fused, torch.float32), (plain, torch.float64)):
        inputs = [x.detach().to(dtype).requires_grad_() for x in (z0, *parameters)]
        with torch.enable_grad():
            z = solve(*inputs)
            results.append([z.detach(), *torch.autograd.grad(z.square().sum(), inputs)])
    times = [step_sizes[m, : n_steps[m]].sum() for m in range(2)]
    pairs = [*zip(*results, strict=True), (torch.stack(times), torch.ones(2))]
    return max(float((x - y).abs().max() / (1 + y.abs().max())) for x, y in pairs)


def _field(y: Tensor, p: list[Tensor], taps: int) -> Tensor:
    """f(y) in the shape of y, (batch, dim) or (batch, 1, height, width); one member."""
    if taps == 9:
        x = F.relu(F.conv2d(y, p[0], p[3]))
        return F.conv2d(F.relu(F.conv2d(x, p[1], p[4], padding=1)), p[2], p[5])
    positions = y.shape[1] if taps == 3 else 1
    x = F.relu(y.reshape(len(y), positions, -1) @ p[0] + p[3])
    x = F.pad(x, (0, 0, taps // 2, taps // 2))
    x = torch.cat([x[:, tap : tap + positions] for tap in range(taps)], dim=-1)
    return (F.relu(x @ p[1] + p[4]) @ p[2] + p[5]).reshape(y.shape)
