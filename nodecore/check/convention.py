"""Find out how a vector field is called: f(t, z), f(z) or f(t, z, args)."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from nodecore.check.inputs import Tree, map_tensors, tensors_of

TIMES, STATES = {"t", "time", "times", "s"}, {"z", "x", "y", "h", "u", "state", "states"}


@dataclass(frozen=True)
class Convention:
    """A way of calling a field.

    Attributes:
        arguments: 1 for f(z), 2 for f(t, z), 3 for f(t, z, args).
        batched: t has an entry for each sample.
        grad: The field differentiates inside, so it is called with gradients on.
    """

    arguments: int = 2
    batched: bool = False
    grad: bool = False

    def call(self, field: Callable[..., Any], t: Tensor, z: Tree, args: Tree) -> Tree:
        """Return dz/dt as the field gives it."""
        if not self.grad:
            return self._call(field, t, z, args)
        with torch.enable_grad():
            fresh = map_tensors(lambda part: part.detach().clone(), z)
            return map_tensors(lambda part: part.detach(), self._call(field, t, fresh, args))

    def _call(self, field: Callable[..., Any], t: Tensor, z: Tree, args: Tree) -> Tree:
        if self.arguments == 1:
            return field(z)
        if self.batched:
            t = t.expand(len(tensors_of(z)[0]))
        return field(t, z) if self.arguments == 2 else field(t, z, args)

    def notes(self) -> list[str]:
        """Describe what is not the usual f(t, z)."""
        said = {
            "the field is called as f(z), without the time": self.arguments == 1,
            "the field is called as f(t, z, args)": self.arguments == 3,
            "the field is given t with an entry for each sample, (n,)": self.batched,
            "the field differentiates inside: it is called with gradients on": self.grad,
        }
        return [text for text, is_so in said.items() if is_so]


def find_convention(field: Callable[..., Any], t: Tensor, z: Tree, args: Tree) -> Convention:
    """Return the first way of calling the field that works on states z; raise ValueError."""
    first = Convention(_count_arguments(field, args is not None))
    errors = []
    ways = [first, replace(first, batched=True), replace(first, grad=True)]
    if first.arguments == 2:
        ways.append(Convention(1))  # such as a scripted module, whose signature is not known
    for way in ways:
        try:
            found = way.call(field, t, z, args)
        except (RuntimeError, TypeError, IndexError, ValueError, AttributeError) as error:
            errors.append(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")
            continue
        _refuse_no_slope(found, z)
        return way
    shapes = ", ".join(str(tuple(part.shape)) for part in tensors_of(z))
    raise ValueError(
        f"field failed on states of shape {shapes} ({errors[0]}): it is called as field(t, z), t a "
        "tensor without axes and z a batch of states, or as field(t, z, args) with args=; where it "
        "closes over data of each sample, give them as args= or carry them in the state; where it "
        "differentiates inside, do so under torch.enable_grad(); a single system whose rows act on "
        "one another, such as a graph, cannot be checked"
    )


def _refuse_no_slope(found: Any, z: Tree) -> None:
    alike = isinstance(found, Tensor) if isinstance(z, Tensor) else isinstance(found, tuple | list)
    if not alike or len(tensors_of(found)) != len(tensors_of(z)):
        raise ValueError(
            f"field returned {type(found).__name__} for states of {len(tensors_of(z))} tensors: it "
            "must give dz/dt in the shape of z, a vector field and no solver around it"
        )


def _count_arguments(field: Callable[..., Any], has_args: bool) -> int:
    """Return how many arguments a field is called with, by its signature; raise ValueError."""
    names, most = _positional(field)
    if len(names) >= 2 and names[0] in STATES and names[1] in TIMES:
        raise ValueError(
            f"field({names[0]}, {names[1]}) takes the state first: it is called as field(t, z); "
            "give lambda t, z: field(z, t)"
        )
    if has_args and most < 3:
        raise ValueError(
            f"args is given, but field takes {most} arguments: let it be field(t, z, args)"
        )
    if has_args or len(names) >= 3:
        return 3
    return 1 if len(names) == 1 and (most == 1 or names[0] in STATES) else 2


def _positional(field: Callable[..., Any]) -> tuple[list[str], int]:
    """Return names of the positional arguments that are required, and the most that are taken."""
    try:
        signature = inspect.signature(field.forward if isinstance(field, nn.Module) else field)
    except (TypeError, ValueError):
        return ["t", "z"], 3
    parameters = list(signature.parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ["t", "z"], 3
    taken = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [p.name for p in taken if p.default is p.empty], len(taken)
