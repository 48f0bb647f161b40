"""The libraries of ODE solvers in torch: torchdiffeq seed by seed, torchode batched."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.cases import Case
from benchmarks.ours import autograd_call
from benchmarks.timing import Engine, Result, torch_engine
from nodecore.ode.tableaus import get_tableau

TORCHDIFFEQ, TORCHODE = "torchdiffeq, seed by seed", "torchode"
# Both estimate 2/3 of dopri5's error: with 2/3 of the tolerance they take steps as long as ours.
DOPRI5_SHARE = 1.5
# torchode and what it imports beside torch, installed apart from the book's own environment.
TORCHODE_FOLDER = Path(".venv-bench", "torchode")


# --- torchdiffeq ----------------------------------------------------------------------------------


class OneSeed(nn.Module):
    """The field of one member as one would write it for torchdiffeq."""

    def __init__(self, case: Case, weights: list[Tensor]):
        super().__init__()
        w, n, c = case.width, case.dim, case.channels
        self.kind, self.nfe = case.field, 0
        if case.field == "mlp":
            layers = [nn.Linear(n, w), nn.Linear(w, w), nn.Linear(w, n)]
        else:
            conv = nn.Conv1d if case.field == "conv1d" else nn.Conv2d
            layers = [conv(c, w, 1), conv(w, w, 3, padding=1), conv(w, c, 1)]
        self.layers = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        with torch.no_grad():
            for parameter, value in zip(self.parameters(), self.from_ours(weights), strict=True):
                parameter.copy_(value)

    def forward(self, t, z):
        self.nfe += 1
        return self.layers(z[:, None])[:, 0] if self.kind == "conv1d" else self.layers(z)

    def from_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """Weights and biases of one member, or their gradients, in the layout of these layers."""
        w1, b1, w2, b2, w3, b3 = tensors
        if self.kind == "mlp":
            w1, w2, w3 = w1.T, w2.T, w3.T
        elif self.kind == "conv1d":  # ours are rows by tap, then channel
            w = w2.shape[1]
            w1, w2, w3 = w1.T[:, :, None], w2.view(3, w, w).permute(2, 1, 0), w3.T[:, :, None]
        return [w1, b1, w2, b2, w3, b3]

    def to_ours(self, tensors: list[Tensor]) -> list[Tensor]:
        """The way back."""
        w1, b1, w2, b2, w3, b3 = tensors
        if self.kind == "mlp":
            w1, w2, w3 = w1.T, w2.T, w3.T
        elif self.kind == "conv1d":
            w = w2.shape[0]
            w1, w2, w3 = w1[..., 0].T, w2.permute(2, 1, 0).reshape(3 * w, w), w3[..., 0].T
        return [w1, b1, w2, b2, w3, b3]


def torchdiffeq_engine(case: Case) -> Engine:
    """One seed after the other, as the library is used."""
    from torchdiffeq import odeint

    if case.rtol is None:
        how = {"method": case.solver, "options": {"step_size": 1 / case.n_steps}}
    else:
        names = {"dopri5": ("dopri5", DOPRI5_SHARE), "fehlberg21": ("fehlberg2", 1.0)}
        method, share = names[case.solver]
        how = {"method": method, "rtol": case.rtol / share, "atol": case.rtol / share}
    span, (z0, cotangent) = torch.tensor([0.0, 1.0]), case.make_states()
    members = zip(*case.make_field().parameters(), strict=True)
    fields = [OneSeed(case, list(weights)) for weights in members]

    def call():
        results = []
        for field, start, gradient in zip(fields, z0, cotangent, strict=True):
            z = odeint(field, start, span, **how)[-1]
            gradients = torch.autograd.grad(z, list(field.parameters()), gradient)
            results.append((z.detach(), gradients))
        return results

    def as_ours(results) -> Result:
        back = [field.to_ours(list(g)) for field, (_, g) in zip(fields, results, strict=True)]
        z = torch.stack([z for z, _ in results])
        return z, [torch.stack(parts) for parts in zip(*back, strict=True)]

    call()
    nfe = None if case.rtol is None else sum(field.nfe for field in fields) / len(fields)
    # What torchdiffeq calls rk4 is the 3/8 rule, of the same cost.
    rule = autograd_call(replace(case, solver="rk4_38"), "torch") if case.solver == "rk4" else None
    return torch_engine(TORCHDIFFEQ, call, as_ours, nfe=nfe, reference=rule)


# --- torchode -------------------------------------------------------------------------------------


def torchode_is_there() -> bool:
    """Whether torchode can be imported, from TORCHODE_FOLDER if from nowhere else."""
    folder = str(TORCHODE_FOLDER.resolve())
    if TORCHODE_FOLDER.exists() and folder not in sys.path:
        sys.path.append(folder)  # last: what is there already goes first
    return importlib.util.find_spec("torchode") is not None


class _Flat(nn.Module):
    """A field of ours on torchode's instances (instances, features)."""

    def __init__(self, field, shape):
        super().__init__()
        self.field, self.shape = field, shape

    def forward(self, t, y):
        return self.field(None, y.view(self.shape)).reshape(y.shape)


def torchode_engine(case: Case) -> Engine:
    """An instance is a sample, or a member's whole batch; all step together, each in own steps.

    Without TorchScript, which is deprecated in torch and makes it no faster here. Its torch.compile
    serves `solve` not at all.
    """
    import torchode

    z0, cotangent = case.make_states()
    field = case.make_field()
    parameters = list(field.parameters())
    y0 = z0.flatten(0, case.instance_axes - 1).flatten(1)
    term = torchode.ODETerm(_Flat(field, z0.shape))
    method, share = _torchode_method(torchode, case.solver, term)
    tolerance = case.rtol / share
    controller = torchode.IntegralController(atol=tolerance, rtol=tolerance, term=term)
    # As everywhere here, a gradient takes the steps' sizes for constants.
    solver = torchode.AutoDiffAdjoint(method, controller, backprop_through_step_size_control=False)
    start, end = torch.zeros(len(y0)), torch.ones(len(y0))
    problem = torchode.InitialValueProblem(y0, start, end)

    def solve():
        return solver.solve(problem)

    def call() -> Result:
        z = solve().ys[:, 0].view(z0.shape)
        return z.detach(), list(torch.autograd.grad(z, parameters, cotangent))

    nfe = solve().stats["n_f_evals"].double().mean().item()
    return torch_engine(TORCHODE, call, nfe=nfe)


def _torchode_method(torchode, solver, term):
    """The stepping method, and by how much less than ours it estimates the error."""
    if solver == "dopri5":
        return torchode.Dopri5(term=term), DOPRI5_SHARE
    from torchode.single_step_methods.runge_kutta import ButcherTableau

    tableau = get_tableau(solver)
    coefficients = ButcherTableau.from_lists(
        c=list(tableau.c),
        a=[list(row) for row in tableau.a],
        b=list(tableau.b),
        b_low_order=list(tableau.b_embedded),
    )

    class Embedded(torchode.Heun):
        """A method of our tableaus; Heun's interpolation is exact where a step ends."""

        def __init__(self):
            super().__init__(term)
            self.tableau = coefficients

        def convergence_order(self):
            return tableau.order

    return Embedded(), 1.0
