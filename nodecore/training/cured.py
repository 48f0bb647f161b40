"""A training iteration with cures that change the solves of a batch, or compare two of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nodecore.ode.fields import Field
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.kernels import BlockLayer
from nodecore.ode.steps import count_steps
from nodecore.training.cures import COARSER, Consistency, Cure, DrawnEnd, DrawnSolver
from nodecore.training.ensemble import Ensemble, member_losses


def needs_solves(cures: Sequence[Cure]) -> bool:
    """Tell whether cures change more than the number of steps and the optimiser."""
    return any(isinstance(cure, DrawnSolver | DrawnEnd | Consistency) for cure in cures)


class Stretched:
    """A field times a factor for each member, (members,): a solve of it to T is one of f to that
    many T, as f is autonomous."""

    def __init__(self, field: Field, factors: Tensor):
        self.field, self.factors = field, factors

    def __call__(self, t: float | Tensor, z: Tensor) -> Tensor:
        return _scaled(self.field(t, z), self.factors)

    def block_layers(self) -> tuple[BlockLayer, ...] | None:
        """Return the layers as the fused kernel takes them, if it does."""
        layers = self.field.block_layers()
        if layers is None:
            return None
        first, second, third = layers
        weight, bias = (_scaled(tensor, self.factors) for tensor in (third.weight, third.bias))
        return first, second, BlockLayer(weight, bias)


def _scaled(tensor, factors):
    return tensor * factors.to(tensor).view(-1, *[1] * (tensor.dim() - 1))


class CuredStep:
    """A training step whose solves are differentiated by autograd, through the kernel or torch."""

    def __init__(self, ensemble: Ensemble):
        self.ensemble = ensemble
        # No two cures of a training decide the same.
        self.solver = next((c for c in ensemble.cures if isinstance(c, DrawnSolver)), None)
        self.consistency = next((c for c in ensemble.cures if isinstance(c, Consistency)), None)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        ensemble = self.ensemble
        z, nfe = self._end(x)
        logits = ensemble.head(z)
        losses = member_losses(logits, y)
        if self.consistency is not None:
            other = self._compared(x, self.consistency.against)
            # loss = cross entropy + weight * distance(logits, logits of the other solve)
            distance = self.consistency.distance(logits, ensemble.head(other.z))
            losses = losses + self.consistency.weight * distance
            nfe = nfe + other.nfe
        ensemble.gradient.zero_()
        losses.sum().backward()
        ensemble.nfe += nfe.to(ensemble.device) if isinstance(nfe, Tensor) else nfe
        ensemble.account(losses.detach())
        ensemble.optimiser.step()

    def _end(self, x):
        """z(T) of the solves that are drawn, and their evaluations.

        All members are solved under either solver where some take the other one: those that do not
        are no part of the loss, and are not counted.
        """
        usual, drawn = self._solve(x), self._drawn("other")
        if self.solver is None or drawn is None or not drawn.any():
            return usual.z, usual.nfe
        other = self._solve(x, self.solver.other)
        takes = drawn.view(-1, *[1] * (x.dim() - 1)).to(x.device)
        nfe = torch.where(drawn, torch.as_tensor(other.nfe), torch.as_tensor(usual.nfe))
        return torch.where(takes, other.z, usual.z), nfe

    def _compared(self, x, against):
        if against != COARSER:
            return self._solve(x, against)
        T = self.ensemble.protocol.T
        sizes = torch.as_tensor(self.ensemble.sizes, dtype=torch.float64)
        halved = (count_steps(sizes, T) + 1) // 2
        return self._solve(x, sizes=T / halved.double())

    def _solve(self, x, solver=None, sizes=None):
        ensemble, stretch = self.ensemble, self._drawn("stretch")
        field = ensemble.field if stretch is None else Stretched(ensemble.field, stretch)
        solution = solve_fixed(
            field,
            x,
            solver or ensemble.tableau,
            step_size=ensemble.sizes if sizes is None else sizes,
            t=(0.0, ensemble.protocol.T),
            backend=ensemble.backend,
        )
        ensemble.backend_used = solution.backend
        return solution

    def _drawn(self, what):
        """What is drawn for this iteration, (members,), or None."""
        values = getattr(self.ensemble.draws, what)
        return None if values is None else values[self.ensemble.iteration - 1]
