"""Hold a model of any library as the check runs it: copies, one type, one device."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nodecore.check.convention import Convention, describe, find_convention
from nodecore.check.inputs import Samples, Tree, ascending, is_finite, map_tensors, tensors_of
from nodecore.ode.solution import SolveError

RANDOM_LAYERS = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)
FEW = 8  # samples of a first look
MASKED = -1e30  # far below any logit, and its square is finite in float64

Layers = Callable[[Any], Any]
Field = Callable[[Any, Tensor], Tensor]  # of a time, a number or a tensor, and states

# What a field raises where a state is none that it knows; others, such as no memory, are errors.
REFUSALS = (
    ArithmeticError,
    AssertionError,
    ValueError,
    torch.linalg.LinAlgError,  # pyright: ignore[reportPrivateImportUsage]
)


@dataclass(frozen=True)
class Packing:
    """States as the user has them and as they are solved: one tensor with axes behind the samples.

    Attributes:
        shapes: Shape of one sample's state, for each tensor of a tuple; None where it is one tensor
            with two axes or more, which stays as it is.
        is_tuple: Whether the user has a tuple.
    """

    shapes: tuple[torch.Size, ...] | None = None
    is_tuple: bool = False

    def pack(self, states: Tree, axes: int = 1) -> Tensor:
        """Return states, or a tuple of these, as one tensor with an axis behind the first `axes`.

        These are (n,), or (n, times) of trajectories.
        """
        if self.shapes is None:
            return states
        flat = [part.reshape(*part.shape[:axes], -1) for part in tensors_of(states)]
        return torch.cat(flat, dim=-1)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Numbers of the parts of a state that is a tuple; empty for another one."""
        return tuple(s.numel() for s in self.shapes or ()) if self.is_tuple else ()

    def unpack(self, z: Tensor) -> Tree:
        """Return states, or trajectories of states, as the user has them."""
        if self.shapes is None:
            return z
        parts = z.split([shape.numel() for shape in self.shapes], dim=-1)
        whole = [p.reshape(*z.shape[:-1], *s) for p, s in zip(parts, self.shapes, strict=True)]
        return tuple(whole) if self.is_tuple else whole[0]


def find_packing(states: Tree) -> Packing:
    """Return how these states are packed."""
    if isinstance(states, Tensor) and states.dim() >= 2:
        return Packing()
    shapes = tuple(part.shape[1:] for part in tensors_of(states))
    return Packing(shapes, is_tuple=not isinstance(states, Tensor))


class FlowModel:
    """Stem, field and head; modules as copies in the mode they are in, half precision in float32.

    Attributes:
        device: Device of the first weight, or of x where there is none.
        dtype: Its type, at least float32.
        only_float32: Why the field cannot be solved in float64; empty where it can.
        t: Start and end, ascending: where the user's time runs backwards, -t is solved.
        output_times: Times from start to end, as they are solved, at which outputs count; empty
            where the end alone does. What is solved are then trajectories (n, times, ...).
        notes: What was found out on the way.

    Raises:
        ValueError: A module is random or mixes samples in its mode, or cannot be copied; or the
            field cannot be called.
    """

    def __init__(
        self,
        field: Callable[..., Any],
        head: Layers | None,
        stem: Layers | None,
        x: Tree,
        t: tuple[float, float],
        args: Tree = None,
        output_times: tuple[float, ...] = (),
    ):
        given = {"field": field, "stem": stem, "head": head}
        parts = {name: as_module(part) for name, part in given.items()}
        modules = {name: p for name, p in parts.items() if isinstance(p, nn.Module)}
        for name, module in modules.items():
            refuse_random(name, module)
        weights = [w for m in modules.values() for w in m.parameters() if w.is_floating_point()]
        like = weights[0] if weights else tensors_of(x)[0]
        self.device, self.dtype = like.device, torch.promote_types(like.dtype, torch.float32)
        copies = {name: private(name, m, self.dtype) for name, m in modules.items()}
        self._field, self._stem, self._head = (parts | copies).values()
        self._casts: dict[torch.dtype, nn.Module] = {}
        self.backwards = t[1] < t[0]
        self.t = ascending(t)
        self.output_times = output_times
        self.notes: list[str] = []
        if like.is_floating_point() and like.dtype != self.dtype:
            kind, what = str(like.dtype).removeprefix("torch."), "weights" if weights else "inputs"
            self.notes.append(
                f"{what} in {kind} are solved in float32: the verdict is about the steps; with "
                f"many of them, rounding in {kind} may change answers that agree here"
            )
        self.convention, self.packing = Convention(), Packing()
        first = self._started(map_tensors(lambda part: part[:FEW], x))
        self.packing = find_packing(first)
        self._first = self.packing.pack(first)[:1]
        self._try_field(first, map_tensors(lambda part: self.cast(part[:FEW]), args))

    def _try_field(self, states: Tree, args: Tree) -> None:
        """Find out how the field is called, and whether it can be brought to float64."""
        start = torch.tensor(self.t[0], dtype=self.dtype, device=self.device)
        self.convention = find_convention(self._field, start, states, args)
        self.notes += self.convention.notes()
        self.only_float32 = self._why_only_float32(states, args)
        if self.only_float32 and isinstance(self._field, nn.Module):
            self.notes.append(f"the field cannot be brought to float64: {self.only_float32}")

    def _why_only_float32(self, states: Tree, args: Tree) -> str:
        """Say why the field cannot be brought to float64; nothing where it can."""
        if self.dtype == torch.float64:
            return ""
        if not isinstance(self._field, nn.Module):
            return "it is not an nn.Module; give the module itself, or x and all it uses in float64"
        try:
            z = self.packing.pack(states).double()
            found = self.field(args, torch.float64)(self.t[0], z).dtype
        except Exception as error:  # such as an assert on the type
            return describe(error)[:100]
        if found == torch.float64:
            return ""
        return f"it gives {found} for float64; make its own tensors like z, torch.zeros_like(z)"

    @property
    def in_float64(self) -> bool:
        """Whether the field can be solved in float64."""
        return not self.only_float32

    def cast(self, tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Bring a tensor to the model's device, and floating-point numbers to its type."""
        real = tensor.is_floating_point()
        return tensor.to(self.device, (dtype or self.dtype) if real else tensor.dtype)

    def _started(self, x: Tree) -> Tree:
        x = map_tensors(self.cast, x)
        return x if self._stem is None else self._stem(map_tensors(torch.clone, x))

    def start(self, x: Tree) -> Tensor:
        """Return the states (n, ...) that inputs begin with."""
        return self.packing.pack(self._started(x))

    def still(self, z: Tensor) -> Tensor:
        """Return states (n, ...) as what is solved: where it is trajectories, ones that stay."""
        n_times = len(self.output_times)
        return z[:, None].expand(len(z), n_times, *z.shape[1:]) if n_times else z

    @property
    def sign(self) -> float:
        """What takes the user's time to the one that is solved, and back: -1 where it runs back."""
        return -1.0 if self.backwards else 1.0

    @property
    def has_head(self) -> bool:
        """Tell whether outputs are those of a head, and not the states."""
        return self._head is not None

    @property
    def output_sizes(self) -> tuple[int, ...]:
        """Numbers of the parts of an output, where it is a state that is a tuple."""
        return self.packing.sizes if self._head is None else ()

    def outputs(self, z: Tensor) -> Tensor:
        """Apply the head to end states or trajectories (n, ...); without one, return these.

        The head never sees those that are not finite; their outputs are NaN. -inf, such as the
        logit of a class that is masked, becomes MASKED.
        """
        if self._head is None:
            return z
        states, lost = z.clone(), ~is_finite(z)  # a copy, as a ReLU may work in place
        if bool(lost.any()):
            states[lost] = self.still(self._first)[0].to(z)
        found = self._head(self.packing.unpack(states))
        if not isinstance(found, Tensor) or not found.is_floating_point():
            return found  # a probe tells
        found = found.nan_to_num(math.nan, math.inf, MASKED)
        if bool(lost.any()):
            found[lost] = math.nan
        return found

    def field(self, args: Tree = None, dtype: torch.dtype | None = None) -> Field:
        """Return the vector field as the solvers call it.

        Args:
            args: What it is given besides, with the rows of the states that it will be called with.
            dtype: Type of the states, the model's where not given.

        Returns:
            f(t, z) of a time, or where the field takes one for each sample, of these (n,).
        """
        inner = self._field
        if dtype is not None and dtype != self.dtype and isinstance(inner, nn.Module):
            if dtype not in self._casts:
                self._casts[dtype] = private("field", inner, dtype)
            inner = self._casts[dtype]
        args = map_tensors(lambda part: self.cast(part, dtype), args)

        def f(t: Any, z: Tensor) -> Tensor:
            time = self.sign * torch.as_tensor(t, dtype=z.dtype, device=z.device)
            time = time.reshape(()) if time.numel() == 1 else time
            slope = self.packing.pack(
                self.convention.call(inner, time, self.packing.unpack(z), args)
            )
            return self.sign * slope if self.backwards else slope

        return f

    def exact_field(self, samples: Samples, double: bool = True) -> tuple[Field, Tensor]:
        """Return field and states, in float64 where that is wanted and can be; see `guarded`."""
        dtype = torch.float64 if double and self.in_float64 else self.dtype
        return guarded(self.field(samples.args, dtype)), samples.z.to(dtype)


def guarded(f: Field) -> Field:
    """Return a field whose refusals of a state raise SolveError, which halves of a part survive."""

    def asked(t: Any, z: Tensor) -> Tensor:
        try:
            return f(t, z)
        except REFUSALS as error:
            failed = torch.ones(len(z), dtype=torch.bool)
            time = float(torch.as_tensor(t).min())
            what = f"the field raised {describe(error)} at {{t}}"
            raise SolveError(what, failed, time, z) from error

    return asked


class _Method(nn.Module):
    """A method of a module, as a module that can be copied and brought to another type with it."""

    def __init__(self, method: Any):
        super().__init__()
        self.owner, self.forward = method.__self__, method  # a copy's is bound to the copy


def as_module(part: Any) -> Any:
    """Return what a function was made of, where that is a module: a method's, or a compiled one.

    A compiled module would compile its copies anew; what it was made of is the same function.
    """
    part = getattr(part, "_orig_mod", part)
    return _Method(part) if isinstance(getattr(part, "__self__", None), nn.Module) else part


# --- copies ---------------------------------------------------------------------------------------


def private(name: str, module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Copy a module to a floating-point type, tensors that are no parameters included, complex
    ones to the complex type of that precision.

    Raises:
        ValueError: It cannot be copied.
    """

    def cast(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(dtype.to_complex())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    memo: dict[int, Any] = {}
    for layer in module.modules():  # what autograd made cannot be copied as it is
        for value in vars(layer).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    try:
        copied = copy.deepcopy(module, memo)._apply(cast)  # .to(dtype) drops imaginary parts
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{name} cannot be copied ({type(error).__name__}: {str(error)[:150]}), and the check "
            f"works on copies only: give a function around it, lambda *inputs: {name}(*inputs)"
        ) from error
    for layer in copied.modules():
        for key, value in list(vars(layer).items()):
            if isinstance(value, Tensor):
                vars(layer)[key] = cast(value.detach())
    for weight in copied.parameters():
        weight.requires_grad_(False)
    return copied


def refuse_random(name: str, module: nn.Module) -> None:
    """Raise ValueError for layers that are random or mix samples in the mode they are in."""
    for path, layer in module.named_modules():
        if isinstance(layer, RANDOM_LAYERS) and layer.training and getattr(layer, "p", 1) > 0:
            raise ValueError(
                f"{name} is in training mode and holds {type(layer).__name__} ({path or name}), "
                f"which is random or mixes samples in this mode; call {name}.eval() first"
            )
