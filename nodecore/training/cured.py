"""A training iteration with cures that change the solves of a batch, or compare two of them."""

from collections.abc import Callable

import torch
from torch import Tensor

from nodecore.ode.fields import Field
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.kernels import BlockLayer
from nodecore.ode.prepare import prepare_fused
from nodecore.ode.runge_kutta import per_instance
from nodecore.ode.steps import count_steps
from nodecore.ode.tableaus import get_tableau
from nodecore.training.cures import (
    COARSER,
    Consistency,
    DrawnEnd,
    DrawnSolver,
    LocalError,
    find_cure,
)
from nodecore.training.ensemble import Ensemble, member_losses


def choose_cured_step(ensemble: Ensemble, backend: str) -> Callable[..., None] | None:
    """The iteration that cures ask for, where they change more than the number of steps and the
    optimiser; None where they do not."""
    consistency = find_cure(ensemble.cures, Consistency)
    drawn = find_cure(ensemble.cures, DrawnSolver) or find_cure(ensemble.cures, DrawnEnd)
    if consistency and not drawn and backend == "fused":
        return FusedConsistentStep(ensemble, consistency)
    local = find_cure(ensemble.cures, LocalError)
    if local is not None:
        return LocalErrorStep(ensemble, local)
    return CuredStep(ensemble) if consistency or drawn else None


def _other_solve(ensemble, against):
    """Solver and step sizes of the solve that the training's is compared with."""
    if against != COARSER:
        return against, ensemble.sizes
    T = ensemble.protocol.T
    sizes = torch.as_tensor(ensemble.sizes, dtype=torch.float64)
    halved = (count_steps(sizes, T) + 1) // 2
    return ensemble.tableau, T / halved.double()


class Stretched:
    """A field times a factor for each member, (members,): a solve of it to T is one of f to that
    many T, as f is autonomous."""

    def __init__(self, field: Field, factors: Tensor):
        self.field, self.factors = field, factors

    def __call__(self, t: float | Tensor, z: Tensor) -> Tensor:
        slopes = self.field(t, z)
        return slopes * per_instance(self.factors, slopes).to(slopes)

    def block_layers(self) -> tuple[BlockLayer, ...] | None:
        """Return the layers as the fused kernel takes them, if it does."""
        layers = self.field.block_layers()
        if layers is None:
            return None
        first, second, third = layers
        weight, bias = (p * per_instance(self.factors, p).to(p) for p in (third.weight, third.bias))
        return first, second, BlockLayer(weight, bias)


class CuredStep:
    """A training step whose solves are differentiated by autograd, through the kernel or torch."""

    def __init__(self, ensemble: Ensemble):
        self.ensemble = ensemble
        self.solver = find_cure(ensemble.cures, DrawnSolver)
        self.consistency = find_cure(ensemble.cures, Consistency)

    def __call__(self, x: Tensor, y: Tensor) -> None:
        ensemble = self.ensemble
        z, nfe = self._end(x)
        logits = ensemble.head(z)
        losses = member_losses(logits, y)
        if self.consistency is not None:
            other = self._solve(x, *_other_solve(ensemble, self.consistency.against))
            # loss = cross entropy + weight * distance(logits, logits of the other solve)
            distance = self.consistency.distance(logits, ensemble.head(other.z))
            losses = losses + self.consistency.weight * distance
            nfe = nfe + other.nfe
        ensemble.descend(losses, nfe)

    def _end(self, x):
        """z(T) of the solves that are drawn, and their evaluations.

        All members are solved under either solver where some take the other one: those that do not
        are no part of the loss, and are not counted.
        """
        usual, drawn = self._solve(x), self._drawn("other")
        if self.solver is None or drawn is None or not drawn.any():
            return usual.z, usual.nfe
        other = self._solve(x, self.solver.other)
        takes = per_instance(drawn, x).to(x.device)
        nfe = torch.where(drawn, torch.as_tensor(other.nfe), torch.as_tensor(usual.nfe))
        return torch.where(takes, other.z, usual.z), nfe

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


class LocalErrorStep:
    """A training step of Euler's method that charges one of its K steps for its local error.

    The steps before and after it are solves of their own, through the kernel or torch.
    """

    def __init__(self, ensemble: Ensemble, local: LocalError):
        self.ensemble, self.local = ensemble, local

    def __call__(self, x: Tensor, y: Tensor) -> None:
        ensemble = self.ensemble
        K, T = ensemble.steps.n_steps, ensemble.protocol.T
        assert K is not None  # check_cures has seen to it
        charged = (ensemble.iteration - 1) % K
        z = self._steps(x, charged, (0.0, charged * T / K))
        slope = ensemble.field(0.0, z)
        z = z + T / K * slope
        # K times Euler's local error h / 2 (f_(n+1) - f_n), to leading order
        error = T / 2 * (ensemble.field(0.0, z) - slope)
        z = self._steps(z, K - charged - 1, ((charged + 1) * T / K, T))
        penalty = error.flatten(2).square().sum(-1).mean(1)
        losses = member_losses(ensemble.head(z), y) + self.local.weight * penalty
        ensemble.descend(losses, K + 1)

    def _steps(self, z, n_steps, t):
        if n_steps == 0:
            return z
        solution = solve_fixed(
            self.ensemble.field, z, "euler", n_steps=n_steps, t=t, backend=self.ensemble.backend
        )
        self.ensemble.backend_used = solution.backend
        return solution.z


class FusedConsistentStep:
    """A training step that compares two solves, both through the fused kernel without autograd,
    which sees their logits only. Equal to CuredStep up to rounding, in half the time."""

    def __init__(self, ensemble: Ensemble, consistency: Consistency):
        self.ensemble, self.consistency, self.sizes = ensemble, consistency, None
        layers = ensemble.field.block_layers() or ()
        self.parameters = [t for layer in layers for t in (layer.weight, layer.bias)]
        *self.gradients, self.of_weight, self.of_bias = ensemble.views(ensemble.gradient)

    @torch.no_grad()
    def __call__(self, x: Tensor, y: Tensor) -> None:
        ensemble, (weight, bias) = self.ensemble, self.ensemble.head.linear
        if self.sizes is not ensemble.sizes:
            self._prepare(x)
        tensors = [x, *self.parameters]
        ends = [solve.forward(tensors, tape).flatten(2) for solve, tape in self.solves]
        losses, slopes = self._loss([torch.baddbmm(bias[:, None], z, weight) for z in ends], y)
        ensemble.gradient.zero_()
        for (solve, tape), z, slope in zip(self.solves, ends, slopes, strict=True):
            self.of_weight.baddbmm_(z.mT, slope)
            self.of_bias.add_(slope.sum(1))
            at_end = (slope @ weight.mT).view(x.shape)
            gradients = solve.backward(tensors, tape, at_end)[1:]
            for total, gradient in zip(self.gradients, gradients, strict=True):
                total.add_(gradient)
        ensemble.count(self.nfe)
        ensemble.account(losses)
        ensemble.update()

    def _loss(self, logits, y):
        """Losses, (members,), and the gradients of their sum with respect to either logits."""
        with torch.enable_grad():
            own, other = (values.requires_grad_() for values in logits)
            distance = self.consistency.distance(own, other)
            losses = member_losses(own, y) + self.consistency.weight * distance
            return losses.detach(), torch.autograd.grad(losses.sum(), (own, other))

    def _prepare(self, x):
        """Set both solves up for the sizes of now."""
        ensemble, self.sizes = self.ensemble, self.ensemble.sizes
        both = (ensemble.tableau, self.sizes), _other_solve(ensemble, self.consistency.against)
        self.solves, self.nfe = (), 0  # the tapes' memory serves the new ones
        for solver, sizes in both:
            how = {"t": (0.0, ensemble.protocol.T), "step_size": sizes}
            solve = prepare_fused(ensemble.field, x, solver, **how)
            self.solves += ((solve, solve.tape()),)
            self.nfe = self.nfe + solve.n_steps * get_tableau(solver).n_solution_stages
        ensemble.backend_used = "fused"
