"""A model of any library as the check of its flow runs it: copies, one type, one device, probed."""

import copy
from dataclasses import replace

import torch
from torch import Tensor, nn

from nodecore.analysis.evaluate import FLOAT32_RTOL
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.solution import Solution, VectorField
from nodecore.ode.steps import FixedSteps, Setting

RANDOM_LAYERS = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._BatchNorm)


class FlowModel:
    """Stem, field and head; modules as copies in the mode they are in, half precision in float32.

    device and dtype are those of the first weight, or of x where there is none. t: (start, end).
    Raises ValueError for modules that are random or mix samples in their mode.
    """

    def __init__(self, field, head, stem, x: Tensor, t: tuple[float, float]):
        parts = {"field": field, "stem": stem, "head": head}
        modules = {name: p for name, p in parts.items() if isinstance(p, nn.Module)}
        for name, module in modules.items():
            _refuse_random(name, module)
        weights = [w for m in modules.values() for w in m.parameters() if w.is_floating_point()]
        like = weights[0] if weights else x
        self.device, self.dtype = like.device, torch.promote_types(like.dtype, torch.float32)
        copies = {k: copy.deepcopy(m).to(self.dtype) for k, m in modules.items()}
        for module in copies.values():
            module.requires_grad_(False)
        self._field, self._stem, self._head = (parts | copies).values()
        self.t = t
        self.in_float64 = self.dtype == torch.float64 or isinstance(field, nn.Module)

    def start(self, x: Tensor) -> Tensor:
        """Return the states that inputs begin with."""
        x = x.to(self.device, self.dtype)
        return x if self._stem is None else self._stem(x)

    def outputs(self, z: Tensor) -> Tensor:
        """Apply the head to end states; without one, return the states."""
        return z if self._head is None else self._head(z)

    def field(self, dtype: torch.dtype | None = None) -> VectorField:
        """Return the vector field as the solvers call it, t a number or a tensor."""
        field = self._field
        if dtype not in (None, self.dtype):
            field = copy.deepcopy(field).to(dtype)

        def f(t, z):
            return field(torch.as_tensor(t, dtype=z.dtype, device=z.device).reshape(()), z)

        return f

    def solve(self, z: Tensor, setting: Setting, path: bool = False) -> Solution:
        """Solve a batch of states, below FLOAT32_RTOL in float64; may raise SolveError."""
        shared = {"t": self.t, "path": path, "backend": "torch"}
        if isinstance(setting, FixedSteps):
            return solve_fixed(self.field(), z, setting.solver, n_steps=setting.n_steps, **shared)
        dtype = torch.float64 if setting.rtol < FLOAT32_RTOL else z.dtype
        tolerances = {"rtol": setting.rtol, "atol": setting.rtol}
        start = z.to(dtype)
        solution = solve_adaptive(self.field(dtype), start, setting.solver, **tolerances, **shared)
        return replace(solution, z=solution.z.to(z.dtype))


def _refuse_random(name, module):
    for path, layer in module.named_modules():
        if isinstance(layer, RANDOM_LAYERS) and layer.training and getattr(layer, "p", 1) > 0:
            raise ValueError(
                f"{name} is in training mode and holds {type(layer).__name__} ({path or name}): it "
                f"is another function at every call; call {name}.eval() first"
            )


# --- probes of what cannot be read off ------------------------------------------------------------


def depends_on_time(model: FlowModel, z: Tensor) -> bool:
    """Tell whether the field gives states z (n, ...) other slopes at other times.

    Raises:
        ValueError: It is no vector field on them: its answer has another shape, is another one at
            the second call, or another one among other samples.
    """
    f, (start, end) = model.field(), model.t
    slope = f(start, z)
    if not isinstance(slope, Tensor) or slope.shape != z.shape:
        found = tuple(slope.shape) if isinstance(slope, Tensor) else type(slope).__name__
        raise ValueError(
            f"field returned {found} for states {tuple(z.shape)}: it must give dz/dt in the shape "
            "of z; give a `stem` where inputs have another shape than states"
        )
    if _differ(f(start, z), slope):
        raise ValueError(
            "field gives two answers for the same states: call .eval() on what holds dropout"
        )
    if _differ(f(start, z[:1]), slope[:1], 1e-2):
        raise ValueError(
            "field gives a sample another answer when it is alone: call .eval() on what holds "
            "batch norm; samples must be treated one by one"
        )
    return _differ(f((start + end) / 2, z), slope) or _differ(f(end, z), slope)


def _differ(a, b, share=1e-5):
    return bool(((a - b).abs().max() > share * b.abs().max()).any())


def affine_weight(model: FlowModel, z: Tensor) -> Tensor | None:
    """Weight (classes, features) of a head that is affine, None of another one.

    Its derivative at one state must predict it at all states z (n, ...), and at -z and 3 z.
    """
    point = z[:1]
    try:
        logits, pull_back, *_ = torch.func.vjp(model.outputs, point)
        units = torch.eye(logits.shape[1], dtype=z.dtype, device=z.device)
        weight = torch.cat([pull_back(unit[None])[0].flatten(1) for unit in units])
    except RuntimeError:  # it cannot be differentiated
        return None
    states = torch.cat([z, -z, 3 * z])
    expected = (states - point).flatten(1) @ weight.T + logits
    return None if _differ(expected, model.outputs(states), 1e-4) else weight
