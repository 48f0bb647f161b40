"""nodecore's own ways to a solve and its gradient."""

import torch

from benchmarks.cases import Case
from benchmarks.timing import Engine, Result, torch_engine
from nodecore.ode.backends import choose_adaptive_backend, choose_backend
from nodecore.ode.prepare import prepare_fused
from nodecore.ode.tableaus import get_tableau

BARE, FUSED, TORCH = "nodecore, bare", "nodecore, autograd", "nodecore, torch"


def choose(case: Case) -> str:
    """ "fused" or "torch": the backend that nodecore takes by itself."""
    vector_field, (z0, _) = case.make_field(), case.make_states()
    if case.rtol is None:
        return choose_backend(vector_field, z0)
    tableau = get_tableau(case.solver)
    return choose_adaptive_backend(vector_field, z0, tableau, case.instance_axes)


def serves(case: Case) -> bool:
    """Whether nodecore takes its kernel for a case, on this machine."""
    return choose(case) == "fused"


class BareSolve:
    """The kernel as `train` calls it: set up once, no autograd around it."""

    def __init__(self, case: Case):
        vector_field, (z0, self.cotangent) = case.make_field(), case.make_states()
        layers = vector_field.block_layers()
        self.tensors = [z0, *(t.detach() for layer in layers for t in (layer.weight, layer.bias))]
        how = {"n_steps": case.n_steps, "rtol": case.rtol, "per_sample": case.per_sample}
        self.solve = prepare_fused(vector_field, z0, case.solver, **how)
        self.tape = self.solve.tape()

    def __call__(self) -> Result:
        z = self.solve.forward(self.tensors, self.tape)
        _, *gradients = self.solve.backward(self.tensors, self.tape, self.cotangent)
        return z, gradients


def autograd_call(case: Case, backend: str):
    """`solve_fixed` or `solve_adaptive`, each call by itself, differentiated by autograd."""
    vector_field, (_, cotangent) = case.make_field(), case.make_states()
    parameters = list(vector_field.parameters())

    def call() -> Result:
        z = case.solve(vector_field, backend).z
        return z.detach(), list(torch.autograd.grad(z, parameters, cotangent))

    return call


def make_engines(case: Case) -> list[Engine]:
    """The kernel, bare and under autograd, where it serves; the torch path always. Ours first."""
    vector_field = case.make_field()

    def nfe(backend):
        if case.rtol is None:
            return None
        return case.solve(vector_field, backend).nfe.double().mean().item()

    engines = []
    if serves(case):
        engines.append(torch_engine(BARE, BareSolve(case), nfe=nfe("fused")))
        engines.append(torch_engine(FUSED, autograd_call(case, "fused"), nfe=nfe("fused")))
    engines.append(torch_engine(TORCH, autograd_call(case, "torch"), nfe=nfe("torch")))
    return engines
