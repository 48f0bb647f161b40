"""A stable start: eigenvalues by NumPy from finite differences, and what stays as it was."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from nodecore.ode.steps import FixedSteps
from nodecore.ode.tableaus import get_tableau
from nodecore.training.cures import StableStart
from nodecore.training.ensemble import Ensemble
from nodecore.training.protocols import Protocol, get_protocol
from nodecore.training.stable import amplification

DENSE = Protocol("spheres2", "mlp", 16, 32, "adam", 1e-2, 8, n_train=96, n_test=40, T=1.5)
CONV = replace(DENSE, field="conv1d")
POLYNOMIALS = {"euler": [1, 1], "midpoint": [1 / 2, 1, 1], "rk4": [1 / 24, 1 / 6, 1 / 2, 1, 1]}


def begun(protocol, solver="euler", n_steps=6, seeds=(5, 1), stable=True):
    steps, cures = FixedSteps(solver, n_steps), (StableStart(),) if stable else ()
    return Ensemble(protocol, steps, seeds, torch.device("cpu"), "torch", cures)


def scaled_eigenvalues(ensemble, member):
    """h times the eigenvalues of the mean Jacobian, by central differences in float64."""
    field, x = ensemble.field.double(), ensemble.protocol.load()[0].x.double()
    x, e = x.expand(len(ensemble.seeds), -1, -1), 1e-6 * torch.eye(2, dtype=torch.float64)
    with torch.no_grad():
        columns = [(field(0.0, x + d) - field(0.0, x - d))[member].mean(0) / 2e-6 for d in e]
    h = ensemble.protocol.T / ensemble.steps.n_steps
    return h * np.linalg.eigvals(torch.stack(columns, 1).numpy())


@pytest.mark.parametrize("solver", POLYNOMIALS)
def test_amplification_is_the_solvers_polynomial(solver):
    w = torch.complex(torch.linspace(-4, 1, 7), torch.linspace(0, 3, 7)).to(torch.complex128)
    wanted = np.abs(np.polyval(POLYNOMIALS[solver], w.numpy()))
    np.testing.assert_allclose(amplification(w, get_tableau(solver)).numpy(), wanted, rtol=1e-12)


@pytest.mark.parametrize("protocol", [DENSE, CONV], ids=["dense", "convolution"])
@pytest.mark.parametrize("solver", POLYNOMIALS)
def test_the_steps_are_stable_in_the_mean_linearisation(protocol, solver):
    seeds = tuple(range(8))
    ensemble = begun(protocol, solver, seeds=seeds)
    scaled = np.array([scaled_eigenvalues(ensemble, i) for i in range(8)])
    assert (np.abs(np.polyval(POLYNOMIALS[solver], scaled)) < 1).all()
    is_real = np.abs(scaled.imag).max(1) < 1e-6
    assert is_real.any() and not is_real.all()
    assert len(np.unique(scaled[:, 0].real.round(4))) == 8
    plain = begun(protocol, solver, seeds=seeds, stable=False)
    before = np.array([scaled_eigenvalues(plain, i) for i in range(8)])
    assert not (np.abs(np.polyval(POLYNOMIALS[solver], before)) < 1).all()


def test_only_the_last_layer_gives_way_and_no_member_sees_another():
    both, alone, plain = begun(DENSE), begun(DENSE, seeds=(1,)), begun(DENSE, stable=False)
    names = [name for name, _ in both.field.named_parameters()]
    for name, ours, single, first in zip(
        names, *(e.field.parameters() for e in (both, alone, plain)), strict=True
    ):
        torch.testing.assert_close(ours[1], single[0])
        assert torch.equal(ours, first) == (name != "third.0")
    for ours, first in zip(both.head.parameters(), plain.head.parameters(), strict=True):
        assert torch.equal(ours, first)


def test_shorter_steps_stretch_the_same_eigenvalues():
    coarse, fine = begun(DENSE, n_steps=6), begun(DENSE, n_steps=12)
    np.testing.assert_allclose(
        scaled_eigenvalues(coarse, 0), scaled_eigenvalues(fine, 0), rtol=1e-4
    )


def test_states_of_other_dimensions_are_refused_before_work_starts():
    with pytest.raises(ValueError, match=r"eigenvalues are placed for states .* only"):
        begun(get_protocol("spheres10", "smoke"))
