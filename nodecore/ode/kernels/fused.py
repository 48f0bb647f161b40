"""`solve_fused`: the C++ kernel behind ordinary torch tensors."""

import ctypes
import functools
import os
import threading
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from nodecore.ode.kernels.build import library
from nodecore.ode.kernels.structs import CONTROL, REPORT, Adaptive, Classifier, Problem

# A backward pass needs every stage's state, and the second hidden map unless it is computed again,
# which costs a seventh of the time. Beyond this many bytes the memory is worth more than that.
HIDDEN_BYTES = 512 * 2**20
# A forked child has none of its parent's OpenMP threads and would wait for them.
PROCESS = os.getpid()


class BlockLayer(NamedTuple):
    """One affine layer of a field, applied at every position with the same weights.

    taps = 1: y = x @ weight + bias, weight (members, in, out). taps = 3, for the middle layer: a
    convolution along a row with zero padding, weight (members, 3 * in, out), rows ordered
    (tap, in). taps = 9: the same over an image, weight (members, out, in, 3, 3) as conv2d has it.
    bias (members, out).
    """

    weight: Tensor
    bias: Tensor
    taps: int = 1

    @property
    def width(self) -> int:
        """Units out."""
        return self.bias.shape[-1]

    def strides(self) -> dict[str, int]:
        """Of one member's weight, between taps, units in and units out."""
        channels = self.weight[0].numel() // (self.taps * self.width)
        if self.taps == 9:
            return {"w2_tap": 1, "w2_in": 9, "w2_out": 9 * channels}
        return {"w2_tap": channels * self.width, "w2_in": self.width, "w2_out": 1}


def solve_fused(
    z0: Tensor,
    layers: tuple[BlockLayer, BlockLayer, BlockLayer],
    tableau_a: np.ndarray,
    tableau_b: np.ndarray,
    n_steps: Tensor,
    step_sizes: Tensor,
) -> Tensor:
    """z(T) of all members under an explicit Runge-Kutta method, in the shape of z0.

    z0 float32: (members, batch, dim), or (members, batch, 1, height, width) where the middle layer
    has 9 taps. Member m takes n_steps[m] steps of the sizes step_sizes[m, :n_steps[m]].
    Differentiable in z0, weights and biases. Between forward and backward a convolution keeps for
    each number of the state and each stage 4 bytes and a bit for each unit of the second layer
    (whole vectors of them): 16 bytes for the 96 units of MNIST's field. A dense field of two
    numbers keeps 12 bytes for each sample and stage of a long solve, and a little for each affine
    piece of the field that it meets; in a short one and in all other dense fields it is the state
    and, as long as memory is plenty, the second hidden map.

    Raises ValueError for shapes, dtypes, devices or strides that the kernel cannot take.
    """
    plan = FusedSolve(z0, layers, tableau_a, tableau_b, n_steps, step_sizes)
    return _apply(plan, z0, layers)


def solve_fused_adaptive(
    z0: Tensor,
    layers: tuple[BlockLayer, BlockLayer, BlockLayer],
    tableau_a: np.ndarray,
    tableau_b: np.ndarray,
    control: "StepControl",
) -> tuple[Tensor, "FusedAdaptive"]:
    """z(T) of all members in steps that keep the error within the tolerances: of each member's own,
    or of each sample's.

    Arguments and errors as for `solve_fused`; the second result says how each member went.
    Differentiable likewise, with the step sizes as constants.
    """
    plan = FusedAdaptive(z0, layers, tableau_a, tableau_b, control)
    return _apply(plan, z0, layers), plan


def _apply(plan, z0, layers):
    tensors = [z0, *(t for layer in layers for t in (layer.weight, layer.bias))]
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return _Solve.apply(plan, *tensors)
    return plan.forward(tensors, tape=None)


class StepControl(NamedTuple):
    """How an adaptive solve chooses its steps; meanings as in `solve_adaptive`.

    b_error: weights of the error estimate over the stages, and over one more, evaluated where the
    step ends, where same_as_last says that it is the first stage of the next step. exponent: of
    the error in the factor between two steps. rtol, atol: for all members, or (members,) float64.
    first_step: 0 for Hairer's. per_sample: each sample has an error norm and steps of its own.
    """

    b_error: np.ndarray
    same_as_last: bool
    exponent: float
    rtol: float | Tensor
    atol: float | Tensor
    t0: float
    t1: float
    first_step: float
    safety: float
    min_factor: float
    max_factor: float
    max_steps: int
    per_sample: bool = False


ENDS = ("arrived", "underflow", "not finite", "spent")  # what `state` numbers
UNKNOWN_LABEL = 2  # what the classifier returns for one; 1 is for want of memory, 0 for success


PARAMETERS = ("w1", "b1", "w2", "b2", "w3", "b3")


class FusedSolve:
    """A checked solve, for passes forward and backward as often as its shapes and steps stay.

    Arguments and errors as for `solve_fused`. `tensors` are always z0 and the weight and bias of
    each layer; `tape` carries what the backward pass needs from the forward pass.
    """

    def __init__(self, z0, layers, a, b, n_steps, step_sizes):
        _check(z0, layers)
        _check_steps(n_steps, step_sizes, z0.shape[0])
        self.a, self.b = _live_stages(*(array.tobytes() for array in _tableau(a, b)))
        self._set_up(z0, layers, n_steps, step_sizes)

    def _set_up(self, z0, layers, n_steps, step_sizes):
        self.n_steps, self.step_sizes = n_steps, step_sizes
        first, second, third = layers
        self.problem = Problem(
            members=z0.shape[0],
            batch=z0.shape[1],
            channels=third.width,
            height=z0.shape[-2] if second.taps == 9 else 1,
            width=z0.shape[-1] if second.taps > 1 else 1,
            taps=second.taps,
            width1=first.width,
            width2=second.width,
            **second.strides(),
            stages=len(self.b),
            most_steps=step_sizes.shape[-1],
            a=self.a.ctypes.data,
            b=self.b.ctypes.data,
            n_steps=n_steps.data_ptr(),
            step_sizes=step_sizes.data_ptr(),
        )
        self.kernel = library()

    def forward(self, tensors: Sequence[Tensor], tape: "_Tape | None") -> Tensor:
        z1 = torch.empty_like(tensors[0])
        self._call("nodecore_forward", tensors, tape, z1=z1)
        return z1

    def backward(
        self,
        tensors: Sequence[Tensor],
        tape: "_Tape",
        grad: Tensor,
        gradients: list[Tensor] | None = None,
    ) -> list[Tensor]:
        """Gradients of `tensors`, written into `gradients` where given (contiguous, alike)."""
        gradients = gradients or [torch.empty_like(t) for t in tensors]
        names = ["grad_z0", *(f"grad_{name}" for name in PARAMETERS)]
        outputs = dict(zip(names, gradients, strict=True))
        self._call("nodecore_backward", tensors, tape, grad_z1=grad, **outputs)
        return gradients

    def tape(self) -> "_Tape":
        return _Tape(self, int(self.n_steps.max()))

    def _call(
        self,
        function: str,
        tensors: Sequence[Tensor],
        tape: "_Tape | None",
        *structs,
        **more: Tensor,
    ) -> None:
        p = self.problem
        p.threads = torch.get_num_threads() if os.getpid() == PROCESS else 1
        p.tape = None
        if tape is not None:
            p.tape, p.tape_steps = tape.memory.data_ptr(), tape.steps
            p.keep_hidden = tape.keep_hidden
        for name, tensor in (*zip(("z0", *PARAMETERS), tensors, strict=True), *more.items()):
            setattr(p, name, tensor.data_ptr())
        if getattr(self.kernel, function)(ctypes.byref(p), *map(ctypes.byref, structs)):
            raise MemoryError(
                f"z0 has {p.members} members of {p.batch} samples: there is no memory to solve "
                "them; give fewer at a time"
            )


class FusedAdaptive(FusedSolve):
    """An adaptive solve, for passes as often as its shapes and tolerances stay.

    After a pass forward, one entry for each member, or for each sample, (members, batch), where
    these step by themselves: n_steps, those of them that were `rejected` (a member's n_steps are
    those that were not), `nfe`, `state` (an index of ENDS), and the time and the step where it
    ended; step_sizes holds the steps, (..., max_steps), of which n_steps count. The rejected ones
    of a sample have size 0.
    """

    FIRST_STEPS = 16  # that a new tape has room for

    def __init__(self, z0, layers, a, b, control: StepControl):
        _check(z0, layers)
        self.a, self.b = _tableau(a, b)
        _check_explicit(self.a)
        self.b_error = np.ascontiguousarray(control.b_error, np.float64)
        if self.b_error.shape != (len(self.b) + control.same_as_last,):
            raise ValueError(
                f"b_error has {len(self.b_error)} entries for {len(self.b)} stages; "
                "give one for each, and one more with same_as_last"
            )
        shape = z0.shape[: 2 if control.per_sample else 1]
        sizes = torch.empty(*shape, control.max_steps, dtype=torch.float64)
        self._set_up(z0, layers, torch.zeros(shape, dtype=torch.int64), sizes)
        self.problem.adaptive, self.problem.per_sample = True, control.per_sample
        self.nfe, self.rejected, self.state = torch.zeros(3, *shape, dtype=torch.int64)
        self.time, self.step = torch.zeros(2, *shape, dtype=torch.float64)
        self.rtol, self.atol = (
            torch.as_tensor(value, dtype=torch.float64).expand(len(z0)).contiguous()
            for value in (control.rtol, control.atol)
        )
        self.adaptive = Adaptive(
            same_as_last=control.same_as_last,
            rtol=self.rtol.data_ptr(),
            atol=self.atol.data_ptr(),
            b_error=self.b_error.ctypes.data,
            **{name: getattr(control, name) for name in CONTROL.split()},
            **{name: getattr(self, name).data_ptr() for name in REPORT.split()},
        )

    def forward(self, tensors: Sequence[Tensor], tape: "_Tape | None") -> Tensor:
        z1 = self._walk(tensors, tape)
        most = int(self.n_steps.max())
        if tape is not None and most > tape.steps:
            # Only now is it known how long the tape has to be; the second walk is the first again.
            tape.resize(self, 2 * most)
            z1 = self._walk(tensors, tape)
        return z1

    def _walk(self, tensors, tape):
        z1 = torch.empty_like(tensors[0])
        self._call("nodecore_adaptive", tensors, tape, self.adaptive, z1=z1)
        return z1

    def tape(self) -> "_Tape":
        return _Tape(self, self.FIRST_STEPS)


def classify_fused(
    z: Tensor, weight: Tensor, bias: Tensor, y: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean cross entropy of each member, (members,), and its gradient with respect to z.

    z (members, batch, dim), weight (members, dim, classes), bias (members, classes) and the
    gradients, which are written, float32; y (members, batch) int64 labels below `classes`. All
    contiguous, on the CPU. Raises ValueError otherwise, MemoryError where there is none.
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
    problem = Classifier(members, batch, dim, classes, *(t.data_ptr() for t in tensors))
    outcome = library().nodecore_classify(ctypes.byref(problem))
    if outcome == UNKNOWN_LABEL:
        raise ValueError(f"y has labels {int(y.min())} to {int(y.max())}: give 0 to {classes - 1}")
    if outcome:
        raise MemoryError(f"z has {members} members of {batch} samples: give fewer at a time")
    return losses, grad_z


class _Tape:
    """Memory for what a backward pass needs, with room for `steps` steps of each member; handed on
    when no graph refers to it any more.

    Fresh memory costs more page faults than a solve takes to fill it.
    """

    _spare: ClassVar[list[Tensor]] = []
    _lock = threading.RLock()  # a tape may be collected within `resize` itself
    LARGEST = 16  # times the memory that is needed, of what is handed on

    def __init__(self, plan: FusedSolve, steps: int):
        self.memory = torch.empty(0)  # handed on where `resize` finds no room
        self.resize(plan, steps)

    def resize(self, plan: FusedSolve, steps: int) -> None:
        """Other memory, whose contents are lost."""
        p = plan.problem
        hidden_bytes = 4 * p.members * steps * p.stages * p.batch * p.width2
        self.steps, self.keep_hidden = steps, hidden_bytes <= HIDDEN_BYTES
        p.tape_steps, p.keep_hidden = self.steps, self.keep_hidden
        size = plan.kernel.nodecore_tape_floats
        size.restype = ctypes.c_int64
        floats = size(ctypes.byref(p))
        # A solve whose number of steps is drawn finds that of the most steps.
        with self._lock:
            fitting = (t for t in self._spare if floats <= t.numel() <= self.LARGEST * floats)
            spare = next(fitting, None)
            self._spare[:] = [t for t in self._spare if t is not spare]
        self.memory = torch.empty(floats) if spare is None else spare

    def __del__(self):
        with self._lock:
            self._spare[:] = [self.memory, *self._spare[:1]]


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, plan: FusedSolve, *tensors: Tensor) -> Tensor:
        ctx.plan, ctx.tape = plan, plan.tape()
        ctx.save_for_backward(*tensors)
        return plan.forward(tensors, ctx.tape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.plan.backward(ctx.saved_tensors, ctx.tape, grad.contiguous())
        return None, *gradients


def _tableau(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients as dense float64 arrays."""
    a, b = np.ascontiguousarray(a, np.float64), np.ascontiguousarray(b, np.float64)
    if b.ndim != 1 or a.shape != (len(b), len(b)):
        raise ValueError(
            f"tableau_a has shape {a.shape}, tableau_b {b.shape}: "
            "give (stages, stages) and (stages,)"
        )
    return a, b


def _check_explicit(a: np.ndarray) -> None:
    if np.triu(a).any():
        raise ValueError("tableau_a is not strictly lower triangular: give an explicit method")


@functools.lru_cache(maxsize=64)
def _live_stages(a_bytes: bytes, b_bytes: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The coefficients without stages that nothing depends on."""
    b = np.frombuffer(b_bytes)
    a = np.frombuffer(a_bytes).reshape(len(b), len(b))
    _check_explicit(a)
    live = b != 0
    for stage in reversed(range(len(b))):
        live[stage] |= (a[live, stage] != 0).any()
    return np.ascontiguousarray(a[np.ix_(live, live)]), np.ascontiguousarray(b[live])


def _check(z0, layers) -> None:
    if len(layers) != 3 or layers[1].taps not in (1, 3, 9):
        raise ValueError("layers: give three, the second with 1, 3 or 9 taps")
    for number in (0, 2):
        if layers[number].taps != 1:
            raise ValueError(
                f"layers[{number}].taps = {layers[number].taps}: only the middle layer may have "
                "more than one; use the torch path"
            )
    taps = layers[1].taps
    axes = 5 if taps == 9 else 3
    if z0.dim() != axes or 0 in z0.shape:
        wanted = "(members, batch, 1, height, width)" if taps == 9 else "(members, batch, dim)"
        raise ValueError(f"z0 has shape {tuple(z0.shape)}: give {wanted}, none zero")
    _check_tensor("z0", z0, torch.float32, z0.shape)
    members, channels = len(z0), z0.shape[2] if taps != 3 else 1
    if taps == 9 and channels != 1:
        raise ValueError(f"z0 has {channels} channels: the kernel takes one; use the torch path")
    widths = channels, layers[0].width, layers[1].width, channels
    for number, (layer, before, width) in enumerate(zip(layers, widths, widths[1:], strict=False)):
        shape = (members, layer.taps * before, width)
        if taps == 9:  # as conv2d has them
            size = 3 if number == 1 else 1
            shape = (members, width, before, size, size)
        _check_tensor(f"layers[{number}].weight", layer.weight, torch.float32, shape)
        _check_tensor(f"layers[{number}].bias", layer.bias, torch.float32, (members, width))


def _check_steps(n_steps, step_sizes, members) -> None:
    _check_tensor("n_steps", n_steps, torch.int64, (members,))
    if min(n_steps.tolist()) < 1:
        raise ValueError(f"n_steps = {n_steps.tolist()}: every member needs at least 1 step")
    most = max(*n_steps.tolist(), step_sizes.shape[-1])
    _check_tensor("step_sizes", step_sizes, torch.float64, (members, most))


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
