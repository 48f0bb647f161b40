"""Changes of a protocol: names, the models that they make, and gradients by the adjoint."""

import math
from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
import torchdiffeq
from members import generators

from nodecore.evidence.runs import Run, run_of
from nodecore.ode.fields import Conv1dField, MLPField, PiecewiseField
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.steps import FixedSteps
from nodecore.training.adapted import Adapted, columns_of
from nodecore.training.adjoint import AdjointStep
from nodecore.training.changes import check_changes, get_changes, name_changes
from nodecore.training.cures import Decay
from nodecore.training.ensemble import Ensemble, make_model, member_losses
from nodecore.training.loop import train
from nodecore.training.protocols import Protocol, digest, get_protocol

TINY = Protocol("spheres2", "conv1d", 8, 32, "adam", 1e-2, 5, n_train=96, n_test=40)
DENSE = replace(TINY, field="mlp")


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", "width-16", "learning_rate-3.3e-05,optimiser-sgd", "activation-tanh,pieces-4"],
)
def test_a_name_gives_its_changes_back(name):
    assert name_changes(get_changes(name, "spheres2")) == name


def test_a_run_with_changes_is_found_by_its_header():
    run = Run("spheres2", FixedSteps("euler", 8), changes=(("width", 16), ("activation", "tanh")))
    assert run.name == "euler-K8-activation-tanh,width-16-seeds0-4"
    assert run.study == "spheres2-ablations"
    assert (run.protocol.width, run.protocol.activation) == (16, "tanh")
    header = {"dataset": "spheres2", "profile": "paper", "seeds": list(run.seeds)}
    header |= {**columns_of(run.steps), "protocol": {"T": 1.0}}
    header |= {"changes": name_changes(run.changes)}
    assert run_of(header) == run
    assert run.digest != Run("spheres2", FixedSteps("euler", 8)).digest


def test_what_is_not_changed_is_no_part_of_a_digest():
    later = ("activation", "initialisation", "gradient", "pieces")
    values = {k: v for k, v in asdict(TINY).items() if k not in later}
    assert TINY.digest == digest(values)
    assert replace(TINY, pieces=2).digest != TINY.digest


@pytest.mark.parametrize(
    ("changes", "dataset", "message"),
    [
        ([("depth", 3)], "spheres2", "give of .*width.*, each once"),
        ([("width", 16), ("width", 32)], "spheres2", "each once"),
        ([("width", 16), ("width", "16")], "spheres2", "give of .*width.*, each once"),
        (
            [("activation", "gelu")],
            "spheres2",
            "activation = 'gelu' is unknown; choose",
        ),
        ([("activation", "tanh")], "mnist", "for mnist give of gradient, learning_rate"),
        ([("width", 0)], "spheres2", "width = 0: give a whole number > 0"),
        ([("pieces", 2.0)], "spheres2", "pieces = 2.0: give a whole number > 0"),
        ([("learning_rate", True)], "spheres2", "learning_rate = True: give a finite float > 0"),
        ([("learning_rate", math.inf)], "spheres2", "learning_rate = inf: give a finite float > 0"),
    ],
)
def test_changes_that_cannot_work_are_refused(changes, dataset, message):
    with pytest.raises(ValueError, match=message):
        check_changes(changes, dataset)


def test_a_name_with_a_bad_number_is_refused():
    with pytest.raises(ValueError, match="width = 'wide': give a number"):
        get_changes("width-wide", "spheres2")


# --- models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["tanh", "softplus"])
@pytest.mark.parametrize("kind", [MLPField, Conv1dField])
def test_another_activation_is_that_of_torch(kind, activation):
    own = kind(2, 8, activation, generators=generators(1))
    z = torch.randn(1, 6, 2, generator=torch.Generator().manual_seed(0))
    activate = getattr(torch.nn.functional, activation, None) or getattr(torch, activation)
    (w1, b1), (w2, b2), (w3, b3) = own.first, own.second, own.third
    if kind is MLPField:
        wanted = activate(activate(z[0] @ w1[0] + b1[0]) @ w2[0] + b2[0]) @ w3[0] + b3[0]
    else:
        conv = torch.nn.functional.conv1d
        hidden = activate(conv(z.mT.reshape(2, 6, 1).permute(1, 2, 0), w1[0].T[..., None], b1[0]))
        taps = w2[0].view(3, 8, 8).permute(2, 1, 0)
        hidden = activate(conv(hidden, taps, b2[0], padding=1))
        wanted = conv(hidden, w3[0].T[..., None], b3[0])[:, 0]
    torch.testing.assert_close(own(0.0, z)[0], wanted)
    assert own.block_layers() is None  # the kernel has no such activation


def test_torchs_initialisation_is_uniform_within_its_bound():
    field, head = make_model(replace(DENSE, width=400, initialisation="torch"), [0])
    for weight, bias, fan_in in ((*field.first, 2), (*field.second, 400), (*field.third, 400)):
        bound = fan_in**-0.5
        assert weight.abs().max() <= bound and bias.abs().max() <= bound
    weight = field.second[0].detach()
    assert weight.abs().max() > 0.99 * 400**-0.5
    assert float(weight.std()) == pytest.approx(400**-0.5 / 3**0.5, rel=0.02)
    assert 0 < head.linear[1].abs().max() <= 2**-0.5
    usual, other = make_model(replace(DENSE, width=400), [0])
    assert float(usual.second[0].detach().std()) == pytest.approx((2 / 400) ** 0.5, rel=0.02)
    assert other.linear[1].abs().max() == 0


def test_pieces_are_the_layers_of_a_residual_network():
    field, _ = make_model(replace(TINY, pieces=4), [0, 1])
    z = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0))
    wanted = z
    for layer in field.pieces:
        wanted = wanted + 0.25 * layer(0.0, wanted)
    assert torch.equal(solve_fixed(field, z, "euler", n_steps=4).z, wanted)
    first = [piece.first[0] for piece in field.pieces]
    assert not torch.equal(first[0], first[1])


class Constant(torch.nn.Module):
    """A piece whose slope is a number."""

    def __init__(self, slope):
        super().__init__()
        self.slope = slope

    def forward(self, t, z):
        return torch.full_like(z, self.slope)


@pytest.mark.parametrize("n", [49, 60])
def test_a_step_that_begins_at_a_border_but_for_rounding_has_the_piece_behind_it(n):
    """1 / 49 * 49 < 1; in float32, in which members' own steps are timed, 35 / 60 * 60 < 35."""
    field: Any = PiecewiseField([Constant(k) for k in range(n)])
    z = torch.zeros(2, 3, 2)
    sizes = torch.full((2,), 1 / n, dtype=torch.float64)
    for how in ({"n_steps": n}, {"step_size": sizes}):
        slopes = solve_fixed(field, z, "euler", path=True, **how).states.diff(dim=0) * n
        assert slopes[:, 1, 2, 0].round().tolist() == list(range(n))


def test_times_that_differ_take_pieces_of_their_own():
    pieces = [MLPField(2, 4, generators=generators()) for _ in range(3)]
    field = PiecewiseField(pieces, T=1.5)
    z = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    slopes = field(torch.tensor([0.2, 1.5]), z)
    torch.testing.assert_close(slopes[0], pieces[0](0.0, z)[0])
    torch.testing.assert_close(slopes[1], pieces[2](0.0, z)[1])


# --- trainings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [TINY, DENSE, replace(TINY, T=1.5)], ids=["conv", "mlp", "T"])
@pytest.mark.parametrize(("solver", "n_steps"), [("euler", 5), ("midpoint", 4)])
def test_the_adjoints_gradient_is_torchdiffeqs(protocol, solver, n_steps):
    ensembles = [
        Ensemble(protocol, FixedSteps(solver, n_steps), [0, 1], torch.device("cpu"), "torch")
        for _ in range(2)
    ]
    own, other = ensembles
    data, _ = protocol.load()
    x, y = data.x[:32].expand(2, -1, -1), data.y[:32].expand(2, -1)
    own.optimiser.step = lambda: None
    AdjointStep(own)(x, y)
    times = torch.tensor([0.0, protocol.T])
    options = {"step_size": protocol.T / n_steps}
    z = torchdiffeq.odeint_adjoint(other.field, x, times, method=solver, options=options)[-1]
    other.gradient.zero_()
    member_losses(other.head(z), y).sum().backward()
    torch.testing.assert_close(own.gradient, other.gradient, rtol=1e-4, atol=1e-6)
    assert (own.nfe == n_steps * own.tableau.n_solution_stages).all()


def test_the_adjoint_approaches_back_propagation_with_the_step():
    differences = []
    for n_steps in (8, 64):
        gradients = []
        for step in (AdjointStep, lambda ensemble: ensemble.step):
            how = (FixedSteps("euler", n_steps), [0], torch.device("cpu"), "torch")
            ensemble = Ensemble(DENSE, *how)
            ensemble.optimiser.step = lambda: None
            data, _ = DENSE.load()
            step(ensemble)(data.x[None, :32], data.y[None, :32])
            gradients.append(ensemble.gradient.clone())
        differences.append(float((gradients[0] - gradients[1]).norm() / gradients[1].norm()))
    assert differences[0] > 0.01
    assert differences[1] < differences[0] / 4


@pytest.mark.parametrize(
    "change",
    [{"gradient": "adjoint"}, {"activation": "tanh"}, {"pieces": 3}, {"initialisation": "torch"}],
    ids=str,
)
def test_changed_protocols_train(change):
    before, _ = make_model(replace(TINY, **change), [0, 1])
    trained = train(replace(TINY, **change), FixedSteps("euler", 3), [0, 1], progress=False)
    assert (trained.diverged_at == -1).all()
    for old, new in zip(before.parameters(), trained.field.parameters(), strict=True):
        assert not torch.equal(old, new)


@pytest.mark.parametrize(
    ("steps", "cures"),
    [(Adapted("euler", "algorithm1"), ()), (FixedSteps("euler", 3), (Decay(0.1),))],
    ids=["adapted", "cured"],
)
def test_the_adjoint_is_for_fixed_steps_alone(steps, cures):
    protocol = replace(get_protocol("spheres2", "smoke"), gradient="adjoint")
    with pytest.raises(ValueError, match="gradient = 'adjoint': it is for fixed steps"):
        train(protocol, steps, [0], cures=cures, progress=False)
