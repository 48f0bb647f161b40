"""Gradients by the continuous adjoint, in place of back-propagation through the solver."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nodecore.ode.fixed import solve_fixed
from nodecore.training.ensemble import Ensemble, member_losses


class AdjointStep:
    """A training step whose gradients come from a second ODE, solved from T back to 0.

    With a = dL/dz: da/dt = -a^T df/dz, dL/dtheta = -int a^T df/dtheta dt from T to 0 (Chen et al.
    2018, arXiv:1806.07366, algorithm 1), beside z itself, in the steps of the training's solver.
    The gradient is that of the flow, up to the solver's error; back-propagation has the steps'.
    """

    def __init__(self, ensemble: Ensemble):
        self.ensemble = ensemble
        self.parameters = list(ensemble.field.parameters())
        self.gradients = ensemble.views(ensemble.gradient)[: len(self.parameters)]

    def __call__(self, x: Tensor, y: Tensor) -> None:
        ensemble = self.ensemble
        with torch.no_grad():
            solution = ensemble.forward(x)
        z = solution.z.requires_grad_()
        losses = member_losses(ensemble.head(z), y)
        ensemble.gradient.zero_()
        losses.sum().backward()  # down to z, and to the classifier's weights
        for total, gradient in zip(self.gradients, self._integrate(z), strict=True):
            total.add_(gradient)
        ensemble.count(solution.nfe)
        ensemble.account(losses.detach())
        ensemble.update()

    @torch.no_grad()
    def _integrate(self, z: Tensor) -> list[Tensor]:
        """Return the gradients of the field's parameters, in their shapes."""
        ensemble, T = self.ensemble, self.ensemble.protocol.T
        parts = [z.detach(), z.grad, *(torch.zeros_like(p) for p in self.parameters)]

        def backwards(s: float | Tensor, joined: Tensor) -> Tensor:
            state, adjoint, *_ = _split(joined, parts)
            with torch.enable_grad():
                state = state.requires_grad_()
                slope = ensemble.field(T - s, state)
                found = torch.autograd.grad(slope, [state, *self.parameters], adjoint)
            return _join([-slope.detach(), *found])

        joined = solve_fixed(
            backwards, _join(parts), ensemble.tableau, step_size=ensemble.sizes, t=(0.0, T)
        ).z
        return _split(joined, parts)[2:]


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Lay tensors (members, ...) side by side, (members, n)."""
    return torch.cat([part.flatten(1) for part in parts], 1)


def _split(joined: Tensor, parts: Sequence[Tensor]) -> list[Tensor]:
    """Undo `_join`, in the shapes of `parts`."""
    pieces = joined.split([part[0].numel() for part in parts], 1)
    return [piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)]
