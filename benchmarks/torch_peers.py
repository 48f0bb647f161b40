"""What one writes by hand in torch: a loop over batched members, compiled or not; conv2d."""

import logging
import os
import tempfile
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.cases import Case
from benchmarks.timing import Engine, Result, core_seconds, torch_engine

LOOP, COMPILED = "torch, batched loop", "torch.compile of that loop"
CONV2D = "torch conv2d, keeping its maps"


def batched_loop(case: Case) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """The solver as a loop, members side by side in torch.baddbmm; and the field's parameters."""
    vector_field, h = case.make_field(), 1 / case.n_steps

    def f(z):
        return vector_field(None, z)

    def walk(z):
        for _ in range(case.n_steps):
            k1 = f(z)
            if case.solver == "euler":
                z = z + h * k1
                continue
            k2 = f(z + h / 2 * k1)
            k3 = f(z + h / 2 * k2)
            k4 = f(z + h * k3)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return z

    return walk, list(vector_field.parameters())


def with_gradient(
    walk: Callable[[Tensor], Tensor], z0: Tensor, parameters: list[Tensor], cotangent: Tensor
) -> Callable[[], Result]:
    """A call of `walk` on z0 and its gradient of all parameters."""

    def call() -> Result:
        z = walk(z0)
        return z.detach(), list(torch.autograd.grad(z, parameters, cotangent))

    return call


def loop_engine(case: Case) -> Engine:
    """The loop in eager mode."""
    walk, parameters = batched_loop(case)
    z0, cotangent = case.make_states()
    return torch_engine(LOOP, with_gradient(walk, z0, parameters, cotangent))


def compiled_engine(case: Case) -> Engine:
    """The whole loop under torch.compile, compiled anew, by one process on this core."""
    walk, parameters = batched_loop(case)
    z0, cotangent = case.make_states()
    call = with_gradient(torch.compile(walk, dynamic=False), z0, parameters, cotangent)
    # It would say on every machine without a GPU that there is none.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        # Not what an earlier run left in the cache; nothing is compiled after the first call.
        variables = {"TORCHINDUCTOR_CACHE_DIR": folder}
        one_thread = torch._inductor.config.patch(compile_threads=1)
        with mock.patch.dict(os.environ, variables), one_thread:
            start = core_seconds()
            call()
            seconds = core_seconds() - start
    return torch_engine(COMPILED, call, compile_s=seconds)


def conv2d_engine(case: Case) -> Engine:
    """torch.nn.functional.conv2d in one Euler step of one member, all hidden maps kept."""
    if (case.solver, case.n_steps, case.members) != ("euler", 1, 1):
        raise ValueError(f"{case.name}: conv2d is measured in one Euler step of one member")
    (z0, cotangent), field = case.make_states(), case.make_field()
    weights = [p.detach()[0].requires_grad_() for p in field.parameters()]
    x, g = (t[0].contiguous(memory_format=torch.channels_last) for t in (z0, cotangent))

    def walk(x):
        hidden = F.relu(F.conv2d(x, weights[0], weights[1]))
        hidden = F.relu(F.conv2d(hidden, weights[2], weights[3], padding=1))
        return x + F.conv2d(hidden, weights[4], weights[5])

    def as_ours(result):
        z, gradients = result
        return z[None], [gradient[None] for gradient in gradients]

    return torch_engine(CONV2D, with_gradient(walk, x, weights, g), as_ours)
