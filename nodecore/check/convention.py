"""Find out how a vector field is called: f(t, z), f(z) or f(t, z, args)."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nodecore.check.inputs import FEW_PARTS, Tree, map_tensors, tensors_of

TIMES = {"t", "time", "times", "s"}
ONE_STATE = (
    "x has a single axis, so each of its numbers is a sample; where x is one state, give x[None], "
    "which adds an axis for the samples; "
)


@dataclass(frozen=True)
class Convention:
    """A way of calling a field.

    Attributes:
        arguments: 1 for f(z), 2 for f(t, z), 3 for f(t, z, args).
        time_axes: 0 for t without axes; with an entry for each sample 1 for (n,), 2 for (n, 1).
        grad: The field differentiates inside, so it is called with gradients on.
    """

    arguments: int = 2
    time_axes: int = 0
    grad: bool = False

    def call(self, field: Callable[..., Any], t: Tensor, z: Tree, args: Tree) -> Tree:
        """Return dz/dt as the field gives it."""
        if not self.grad:
            return self._call(field, t, z, args)
        with torch.enable_grad():
            slope = self._call(field, t, map_tensors(_differentiable, z), args)
            return map_tensors(lambda part: part.detach(), slope)

    def _call(self, field: Callable[..., Any], t: Tensor, z: Tree, args: Tree) -> Tree:
        if self.arguments == 1:
            return field(z)
        if self.time_axes:
            t = t.expand(len(tensors_of(z)[0])).reshape(-1, *[1] * (self.time_axes - 1))
        return field(t, z) if self.arguments == 2 else field(t, z, args)

    def notes(self) -> list[str]:
        """Describe what is not the usual f(t, z)."""
        said = {
            "the field is called as f(z), without the time": self.arguments == 1,
            "the field is called as f(t, z, args)": self.arguments == 3,
            "the field is given t with an entry for each sample, (n,)": self.time_axes == 1,
            "the field is given t with a row for each sample, (n, 1)": self.time_axes == 2,
            "the field differentiates inside: it is called with gradients on": self.grad,
        }
        return [text for text, is_so in said.items() if is_so]


def _differentiable(part: Tensor) -> Tensor:
    """Return a copy that requires gradients, as the states of a training do.

    It is no leaf: a field may change it in place.
    """
    if not part.is_floating_point():
        return part.clone()
    copied = part.detach().requires_grad_().clone()
    copied.retain_grad()  # for a field that calls backward() and reads z.grad
    return copied


def find_convention(field: Callable[..., Any], t: Tensor, z: Tree, args: Tree) -> Convention:
    """Return the first way of calling the field that works on states z; raise ValueError."""
    first = Convention(_count_arguments(field, args is not None))
    errors = []
    ways = [first, *(replace(first, time_axes=axes) for axes in (1, 2)), replace(first, grad=True)]
    if first.arguments == 2:
        ways.append(Convention(1))  # such as a scripted module, whose signature is not known
    for way in ways:
        try:
            found = way.call(field, t, z, args)
        except Exception as error:  # such as an assert on the shape of t
            errors.append(describe(error))
            continue
        _refuse_no_slope(found, z)
        return way
    raise ValueError(
        f"field failed on states of {_shapes(z)} ({errors[0]}): {_of_types(errors[0], z)}"
        f"{_of_axes(z)}it is called as field(t, z), with t a tensor without axes and z a batch of "
        "states, or as field(t, z, args) if args= is given; if it closes over data of each sample, "
        "give them as args= or carry them in the state; if it differentiates inside, do so under "
        "torch.enable_grad(); a single system whose rows act on one another, such as a graph, "
        "cannot be checked"
    )


def describe(error: Exception) -> str:
    """Return the type and the text of an error on one line, 200 characters of it."""
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _shapes(z: Tree) -> str:
    """List the shapes of states, the first one where there are many."""
    shapes = [str(tuple(part.shape)) for part in tensors_of(z)]
    if len(shapes) > FEW_PARTS:
        return f"{len(shapes)} tensors, the first of shape {shapes[0]}"
    return f"shape {', '.join(shapes)}"


def _of_axes(z: Tree) -> str:
    """Return the remedy for x that is one state, or the samples one by one."""
    if isinstance(z, Tensor):
        return ONE_STATE if z.dim() == 1 else ""
    many = len(tensors_of(z)) > FEW_PARTS
    return "where x holds the samples one by one, give torch.stack(x); " if many else ""


def _of_types(error: str, z: Tree) -> str:
    """Return the remedy for a field that is a function around a module of another type than x."""
    if "dtype" not in error and "scalar type" not in error:
        return ""
    return (
        f"x is {tensors_of(z)[0].dtype}; where the weights have another type, give x in it, such "
        "as x.float(), or the module itself as field, whose type x then takes; "
    )


def _refuse_no_slope(found: Any, z: Tree) -> None:
    alike = isinstance(found, Tensor) if isinstance(z, Tensor) else isinstance(found, tuple | list)
    if not alike or len(tensors_of(found)) != len(tensors_of(z)):
        raise ValueError(
            f"field returned {type(found).__name__} for states of {len(tensors_of(z))} tensors: it "
            "must return dz/dt in the shape of z; give the vector field itself, not its solver"
        )


def _count_arguments(field: Callable[..., Any], has_args: bool) -> int:
    """Return how many arguments a field is called with, by its signature; raise ValueError."""
    parameters = _parameters(field)
    if parameters is None:
        return 3 if has_args else 2
    _refuse_state_first(parameters)
    taken = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    names = [p.name for p in taken if p.default is p.empty]  # those that are required
    if has_args and len(taken) < 3:
        raise ValueError(
            f"args is given, but field takes {len(taken)} arguments: let it be field(t, z, args)"
        )
    if has_args or len(names) >= 3:
        return 3
    alone = len(taken) == 1 or not _is_time(parameters[0])
    return 1 if len(names) == 1 and alone else 2


def _is_time(parameter: inspect.Parameter) -> bool:
    return parameter.name.lower() in TIMES


def _refuse_state_first(parameters: list[inspect.Parameter]) -> None:
    """Raise ValueError where a time comes after the state, with a default, too: else it is lost."""
    time = next((p for p in parameters[1:] if _is_time(p)), None)
    if time is None or _is_time(parameters[0]):
        return
    state, told = parameters[0].name, ""
    optional = time.default is not time.empty
    if optional:
        called = "z" if time is parameters[1] else "t, z"
        told = f"; where {time.name} is no time, give lambda t, z: field({called})"
    elif time.name == "s":  # as people call a state, too
        told = "; where s is the state, give lambda t, z: field(t, z)"
    raise ValueError(
        f"field({state}, {time.name}{' = ...' if optional else ''}) takes the state first: it is "
        f"called as field(t, z); give lambda t, z: field(z, {time.name}=t){told}"
    )


def _parameters(field: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Return the parameters that a field names, None where it names none or takes any number."""
    try:
        signature = inspect.signature(field.forward if isinstance(field, nn.Module) else field)
    except (TypeError, ValueError):
        return None
    parameters = list(signature.parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return [p for p in parameters if p.kind is not p.VAR_KEYWORD]
