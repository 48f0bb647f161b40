"""`solve_fused`: the C++ kernel behind ordinary torch tensors."""

import ctypes
import functools
import os
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nodecore.kernels.build import library

# A backward pass needs every stage's state, and the second hidden map unless it is computed again,
# which costs a seventh of the time. Beyond this many bytes the memory is worth more than that.
HIDDEN_BYTES = 512 * 2**20
# A forked child has none of its parent's OpenMP threads and would wait for them.
PROCESS = os.getpid()


class BlockLayer(NamedTuple):
    """One affine layer y = x @ weight + bias, applied at every position with the same weights.

    weight (members, window * in_channels, out_channels), rows ordered (tap, in_channel);
    bias (members, out_channels); window 1, or 3 for neighbouring positions with zero padding.
    """

    weight: Tensor
    bias: Tensor
    window: int = 1


def solve_fused(
    z0: Tensor,
    layers: tuple[BlockLayer, BlockLayer, BlockLayer],
    tableau_a: np.ndarray,
    tableau_b: np.ndarray,
    n_steps: Tensor,
    step_size: Tensor,
    last_step: Tensor,
    positions: int = 1,
) -> Tensor:
    """z(T) of all members under an explicit Runge-Kutta method, (members, batch, dim).

    z0 (members, batch, dim) float32; dim = positions * channels of the first layer. Member m takes
    n_steps[m] - 1 steps of step_size[m] and one of last_step[m]. Differentiable in z0, weights and
    biases. Raises ValueError for shapes, dtypes, devices or strides that the kernel cannot take.
    """
    plan = FusedSolve(z0, layers, tableau_a, tableau_b, n_steps, step_size, last_step, positions)
    tensors = [z0, *(t for layer in layers for t in (layer.weight, layer.bias))]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _Solve.apply(plan, *tensors)
    return plan.forward(tensors, tape=None)


NUMBERS = "members batch positions channels width1 width2 window stages threads keep_hidden"
ARRAYS = "a b n_steps step_size last_step w1 b1 w2 b2 w3 b3 z0 z1 tape"
GRADIENTS = "grad_z1 grad_z0 grad_w1 grad_b1 grad_w2 grad_b2 grad_w3 grad_b3"
CLASSIFIER = "z w b y loss grad_z grad_w grad_b"


def _fields(*groups):
    return tuple((name, kind) for names, kind in groups for name in names.split())


class _Problem(ctypes.Structure):
    """Field by field the struct `Problem` of fused.cpp."""

    _fields_ = _fields(
        (NUMBERS, ctypes.c_int64), (ARRAYS, ctypes.c_void_p), (GRADIENTS, ctypes.c_void_p)
    )


PARAMETERS = ("w1", "b1", "w2", "b2", "w3", "b3")


class FusedSolve:
    """A checked solve, for passes forward and backward as often as its shapes and steps stay.

    Arguments and errors as for `solve_fused`. `tensors` are always z0 and the weight and bias of
    each layer; `tape` carries what the backward pass needs from the forward pass.
    """

    def __init__(self, z0, layers, a, b, n_steps, step_size, last_step, positions):
        _check(z0, layers, n_steps, step_size, last_step, positions)
        self.a, self.b = _tableau(a, b)
        self.n_steps, self.step_size, self.last_step = n_steps, step_size, last_step
        first, second, third = layers
        self.problem = _Problem(
            members=z0.shape[0],
            batch=z0.shape[1],
            positions=positions,
            channels=third.weight.shape[2],
            width1=first.weight.shape[2],
            width2=second.weight.shape[2],
            window=second.window,
            stages=len(self.b),
            a=self.a.ctypes.data,
            b=self.b.ctypes.data,
            n_steps=n_steps.data_ptr(),
            step_size=step_size.data_ptr(),
            last_step=last_step.data_ptr(),
        )
        self.kernel = library()

    def forward(self, tensors: list[Tensor], tape: "_Tape | None") -> Tensor:
        z1 = torch.empty_like(tensors[0])
        self._call("nodecore_forward", tensors, z1=z1, tape=tape and tape.memory)
        return z1

    def backward(
        self,
        tensors: list[Tensor],
        tape: "_Tape",
        grad: Tensor,
        gradients: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Gradients of `tensors`, written into `gradients` where given (contiguous, alike)."""
        gradients = gradients or [torch.empty_like(t) for t in tensors]
        names = ["grad_z0", *(f"grad_{name}" for name in PARAMETERS)]
        outputs = dict(zip(names, gradients, strict=True))
        self._call("nodecore_backward", tensors, grad_z1=grad, tape=tape.memory, **outputs)
        return gradients

    def tape(self) -> "_Tape":
        p = self.problem
        evaluations = sum(self.n_steps.tolist()) * p.stages
        hidden_bytes = 4 * evaluations * p.batch * p.positions * p.width2
        p.keep_hidden = hidden_bytes <= HIDDEN_BYTES
        size = self.kernel.nodecore_tape_floats
        size.restype = ctypes.c_int64
        return _Tape(size(ctypes.byref(p)))

    def _call(self, function: str, tensors: list[Tensor], **more: Tensor | None) -> None:
        p = self.problem
        p.threads = torch.get_num_threads() if os.getpid() == PROCESS else 1
        arrays = dict(zip(("z0", *PARAMETERS), tensors, strict=True), **more)
        for name, tensor in arrays.items():
            setattr(p, name, None if tensor is None else tensor.data_ptr())
        getattr(self.kernel, function)(ctypes.byref(p))


class _Classifier(ctypes.Structure):
    """Field by field the struct `Classifier` of fused.cpp."""

    _fields_ = _fields(("members batch dim classes", ctypes.c_int64), (CLASSIFIER, ctypes.c_void_p))


def classify_fused(
    z: Tensor, weight: Tensor, bias: Tensor, y: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of each member, (members,), and its gradient with respect to z.

    z (members, batch, dim), weight (members, dim, classes), bias (members, classes) and the
    gradients, which are written, float32; y (members, batch) int64 labels below `classes`. All
    contiguous, on the CPU. Raises ValueError otherwise.
    """
    (members, batch, dim), classes = z.shape, bias.shape[1]
    _check_tensor("z", z, torch.float32, (members, batch, dim))
    for name, tensor in (("weight", weight), ("grad_weight", grad_weight)):
        _check_tensor(name, tensor, torch.float32, (members, dim, classes))
    for name, tensor in (("bias", bias), ("grad_bias", grad_bias)):
        _check_tensor(name, tensor, torch.float32, (members, classes))
    _check_tensor("y", y, torch.int64, (members, batch))
    losses, grad_z = torch.empty(members), torch.empty_like(z)
    tensors = (z, weight, bias, y, losses, grad_z, grad_weight, grad_bias)
    problem = _Classifier(members, batch, dim, classes, *(t.data_ptr() for t in tensors))
    library().nodecore_classify(ctypes.byref(problem))
    return losses, grad_z


class _Tape:
    """Memory for what a backward pass needs; handed on when no graph refers to it any more.

    Fresh memory costs more page faults than a solve takes to fill it.
    """

    _spare: ClassVar[list[Tensor]] = []

    def __init__(self, floats: int):
        fitting = [t for t in self._spare if floats <= t.numel() <= 2 * floats]
        self.memory = fitting[0] if fitting else torch.empty(floats)
        if fitting:
            self._spare[:] = [t for t in self._spare if t is not fitting[0]]

    def __del__(self):
        self._spare[:] = [self.memory, *self._spare[:1]]


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx, plan: FusedSolve, *tensors: Tensor) -> Tensor:
        ctx.plan, ctx.tape = plan, plan.tape()
        ctx.save_for_backward(*tensors)
        return plan.forward(tensors, ctx.tape)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor):
        gradients = ctx.plan.backward(ctx.saved_tensors, ctx.tape, grad.contiguous())
        return None, *gradients


def _tableau(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients as dense float64 arrays, without stages that nothing depends on."""
    a, b = np.ascontiguousarray(a, np.float64), np.ascontiguousarray(b, np.float64)
    if b.ndim != 1 or a.shape != (len(b), len(b)):
        raise ValueError(
            f"tableau_a has shape {a.shape}, tableau_b {b.shape}: "
            "give (stages, stages) and (stages,)"
        )
    return _live_stages(a.tobytes(), b.tobytes())


@functools.lru_cache(maxsize=64)
def _live_stages(a_bytes: bytes, b_bytes: bytes) -> tuple[np.ndarray, np.ndarray]:
    b = np.frombuffer(b_bytes)
    a = np.frombuffer(a_bytes).reshape(len(b), len(b))
    if np.triu(a).any():
        raise ValueError("tableau_a is not strictly lower triangular: give an explicit method")
    live = b != 0
    for stage in reversed(range(len(b))):
        live[stage] |= (a[live, stage] != 0).any()
    return np.ascontiguousarray(a[np.ix_(live, live)]), np.ascontiguousarray(b[live])


def _check(z0, layers, n_steps, step_size, last_step, positions) -> None:
    if z0.dim() != 3 or 0 in z0.shape:
        raise ValueError(f"z0 has shape {tuple(z0.shape)}: give (members, batch, dim), none zero")
    members, _, dim = z0.shape
    if positions < 1 or dim % positions:
        raise ValueError(f"positions = {positions} does not divide dim = {dim} of z0")
    if len(layers) != 3 or layers[1].window not in (1, 3):
        raise ValueError("layers: give three, the second with a window of 1 or 3")
    _check_tensor("z0", z0, torch.float32, z0.shape)
    channels = dim // positions
    for number, layer in enumerate(layers):
        if number != 1 and layer.window != 1:
            raise ValueError(
                f"layers[{number}].window = {layer.window}: only the second layer may have a "
                "window of 3; use the torch path"
            )
        out = dim // positions if number == 2 else layer.weight.shape[-1]
        shape = (members, layer.window * channels, out)
        _check_tensor(f"layers[{number}].weight", layer.weight, torch.float32, shape)
        _check_tensor(f"layers[{number}].bias", layer.bias, torch.float32, (members, out))
        channels = out
    _check_tensor("n_steps", n_steps, torch.int64, (members,))
    _check_tensor("step_size", step_size, torch.float64, (members,))
    _check_tensor("last_step", last_step, torch.float64, (members,))
    if min(n_steps.tolist()) < 1:
        raise ValueError(f"n_steps = {n_steps.tolist()}: every member needs at least 1 step")


def _check_tensor(name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    fits = tensor.dtype is dtype and tensor.shape == shape
    if fits and tensor.device.type == "cpu" and tensor.is_contiguous():
        return  # the usual case, every iteration of a training
    if tensor.device.type != "cpu":
        raise ValueError(f"{name} is on {tensor.device}: move it to the CPU, or use the torch path")
    if tensor.dtype != dtype:
        raise ValueError(f"{name} has dtype {tensor.dtype}: convert it with .to({dtype})")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: expected {shape}")
    raise ValueError(f"{name} is not contiguous (strides {tensor.stride()}): use .contiguous()")
