"""The monitor of a training: what its rows say, what it costs, what it must not touch."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchdiffeq import odeint

from nodecore import check_flow, monitor
from nodecore.check.monitor import describe
from nodecore.training.controllers import Observation, StepState, get_controller

ENDS = torch.tensor([0.0, 1.0])
HEAD = nn.Linear(2, 2)
HEAD.weight.data, HEAD.bias.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.zeros(2)


def rotation(t, z):
    """dz/dt = 2 (-z2, z1): the exact flow turns the plane by 2."""
    return 2 * torch.stack([-z[:, 1], z[:, 0]], 1)


def batch(n=120, seed=0):
    x = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 2))).float()
    exact = odeint(rotation, x, ENDS, rtol=1e-6, atol=1e-6)[-1]
    return x, (exact[:, 0] > 0).long()


def watched(*args, **options):
    return monitor(*args, verbose=False, share=None, **{"every": 1} | options)


# --- what it says ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "evaluations"),
    [
        ({"solver": "euler", "n_steps": 2}, {"method": "euler", "options": {"step_size": 0.5}}, 2),
        (
            {"solver": "midpoint", "step_size": 0.4},
            {"method": "midpoint", "options": {"step_size": 0.4}},
            6,
        ),
    ],
)
def test_a_row_says_what_torchdiffeq_says(ours, theirs, evaluations):
    x, y = batch()
    row = watched(rotation, HEAD, **ours)(x, y)
    with torch.no_grad():
        own, exact = (
            HEAD(odeint(rotation, x, ENDS, **how)[-1]).argmax(1)
            for how in (theirs, {"rtol": 1e-7, "atol": 1e-7})
        )
    shares = [(v == y).double().mean().item() for v in (own, exact)]
    assert row["accuracy"] == pytest.approx(shares[0])
    assert row["gap"] == pytest.approx(shares[0] - shares[1], abs=1e-9)
    assert row["gap_low"] < row["gap"] < row["gap_high"]
    assert row["flips"] == pytest.approx((own != exact).double().mean().item(), abs=1e-9)
    assert row["nfe"] == evaluations and row["iteration"] == 1 and row["unknown"] == 0
    h = 0.5 if "n_steps" in ours else 0.4
    assert row["h_lipschitz"] == pytest.approx(2 * h, rel=1e-3)


def test_the_order_is_the_solvers_where_steps_are_fine_and_absent_without_steps():
    x, _ = batch()
    assert watched(rotation, solver="euler", n_steps=64)(x)["order"] == pytest.approx(1, abs=0.1)
    adaptive = watched(rotation, solver="dopri5", rtol=1e-3)(x)
    assert math.isnan(adaptive["order"]) and adaptive["flips"] == 0 and adaptive["nfe"] > 7


def test_rows_are_a_table_and_lines_say_them(capsys):
    x, y = batch()
    watch = monitor(rotation, HEAD, solver="euler", n_steps=2, every=2, share=None)
    assert [watch(x, y) is None for _ in range(5)] == [True, False, True, False, True]
    table = pd.DataFrame(watch.rows)
    assert list(table["iteration"]) == [2, 4] and (table["seconds"] > 0).all()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "iteration 2: euler, 2 steps" in lines[0]
    row = watch.rows[0] | {"nfe": 1024, "next_n_steps": 1126}
    assert "; NFE 1,024; " in describe(row) and "; next n_steps 1,126; " in describe(row)
    assert f"flips {100 * table['flips'][0]:.1f} %" in lines[0] and "% of the time" in lines[0]


def test_samples_that_blow_up_are_counted_and_no_step_grows_for_them():
    x = torch.full((40, 1), 5.0)
    watch = watched(
        lambda t, z: (z * z).exp(), solver="euler", step_size=0.5, controller="algorithm1"
    )
    row = watch(x)
    assert row["unknown"] == 40 and math.isnan(row["flips"]) and watch.step_size == 0.25


def test_a_solve_of_ones_own_is_watched():
    x, y = batch()
    watch = watched(rotation, HEAD, solve=lambda f, z0, t: odeint(f, z0, t, method="heun3")[-1])
    row = watch(x, y)
    ends = [odeint(rotation, x, ENDS, method=m)[-1][:, 0] > 0 for m in ("heun3", "dopri5")]
    assert row["nfe"] == 3 and row["flips"] == pytest.approx((ends[0] != ends[1]).double().mean())


def test_trajectories_and_losses_are_watched():
    x, _ = batch()
    times = torch.tensor([0.0, 0.5, 1.0])

    def loss(out, target):
        return (out - target).abs().amax((1, 2))

    options = {"solver": "euler", "n_steps": 4, "output_times": times, "tolerance": 0.5}
    watch = watched(rotation, loss=loss, **options)
    own, exact = (
        odeint(rotation, x, times, **how).transpose(0, 1)
        for how in ({"method": "euler", "options": {"step_size": 0.25}}, {"rtol": 1e-7})
    )
    targets = torch.zeros_like(own)
    flips = (loss(own, targets) - loss(exact, targets)).abs() > 0.5
    assert watch(x, targets)["flips"] == pytest.approx(flips.double().mean().item())
    far = (own - exact).norm(dim=2).amax(1) > 0.5
    assert watched(rotation, **options)(x)["flips"] == pytest.approx(far.double().mean().item())
    head = nn.Flatten()
    report = check_flow(rotation, head, x, verbose=False, **options)  # of whole trajectories
    flips = watched(rotation, head, **options)(x)["flips"]
    assert flips == pytest.approx(report.exact.changed.value)
    with pytest.raises(ValueError, match=r"need not end at output_times: .*rtol="):
        watched(rotation, controller="algorithm1", **options)


# --- what it costs, and leaves alone --------------------------------------------------------------


@pytest.mark.parametrize("share", [0.01, 0.05])
def test_checks_take_no_more_than_their_share_of_the_time(monkeypatch, share):
    """A clock that stands still but for 1 s in each iteration and 20 ms in each evaluation."""
    clock = SimpleNamespace(now=0.0)
    stopped = SimpleNamespace(perf_counter=lambda: clock.now)
    monkeypatch.setattr("nodecore.check.monitor.time", stopped)

    def field(t, z):
        clock.now += 0.02
        return -z

    watch = monitor(field, solver="euler", n_steps=2, every=10, share=share, verbose=False)
    x, _ = batch(40)
    shares = []
    for _ in range(500):
        clock.now += 1.0
        watch(x)
        shares.append(watch.share_of_time)
    assert max(shares[300:]) <= share
    assert 1 < len(watch.rows) < 100


def test_the_model_and_the_generators_stay_as_they_are():
    torch.manual_seed(0)
    field = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    field[2].eval()
    before, modes = copy.deepcopy(field.state_dict()), [layer.training for layer in field]
    F.mse_loss(field(batch()[0]), batch()[0]).backward()
    before = copy.deepcopy(field.state_dict())
    gradient, state = field[0].weight.grad.clone(), torch.get_rng_state()
    row = watched(lambda_free(field), solver="euler", n_steps=2)(batch()[0])
    assert math.isfinite(row["flips"]) and torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in field.state_dict().items())
    assert [layer.training for layer in field] == modes
    assert torch.equal(field[0].weight.grad, gradient)


def lambda_free(layers):
    """A module around layers, as torchdiffeq wants its field."""

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers

        def forward(self, t, z):
            return self.layers(z)

    return Field()


# --- the next step --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["algorithm1", "settling-discord", "remembering-discord"])
def test_a_controller_moves_the_step_as_it_does_by_hand(name):
    rule, state = get_controller(name), StepState(0.5)
    watch = watched(rotation, HEAD, solver="euler", step_size=0.5, controller=name)
    for seed in range(8):
        x, y = batch(seed=seed)
        with torch.no_grad():
            options = {"step_size": state.step_size}
            own, exact = (
                HEAD(odeint(rotation, x, ENDS, **how)[-1]).argmax(1)
                for how in (
                    {"method": "euler", "options": options},
                    {"rtol": 1e-7, "atol": 1e-7},
                )
            )
        shares = [(v == y).double().mean().item() for v in (own, exact)]
        seen = Observation(*shares, flips=(own != exact).double().mean().item())
        state = rule.update(state, seen)
        row = watch(x, y)
        assert watch.step_size == pytest.approx(state.step_size, rel=1e-6) == row["next_step_size"]


def test_numbers_of_steps_and_tolerances_are_moved_too():
    x, y = batch()
    times = torch.tensor([0.0, 5.0])
    watch = watched(rotation, HEAD, solver="euler", n_steps=2, t=times, controller="algorithm1")
    assert type(watch.step_size) is float
    assert watch(x, y)["next_n_steps"] == watch.n_steps == 4  # h = 2.5 disagrees
    watch = watched(rotation, HEAD, solver="dopri5", rtol=1e-3, controller="algorithm1")
    assert watch(x, y)["next_rtol"] == watch.rtol == pytest.approx(1.1e-3)


def test_a_controller_whose_checks_fail_stops_at_a_shortest_step(monkeypatch):
    monkeypatch.setattr("nodecore.check.monitor._observation", lambda *_: Observation(1.0, 0.0))
    x, y = batch(10)
    watch = watched(rotation, HEAD, solver="euler", n_steps=6000, controller="algorithm1")
    assert watch(x, y)["next_n_steps"] == 10_000


def test_a_method_of_a_module_in_training_mode_is_checked_in_evaluation_mode():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))

        def vector_field(self, t, z):
            return self.layers(z)

    net, (x, y) = Net(), batch(40)
    method, module = (
        watched(field, HEAD, solver="euler", n_steps=2)(x, y)
        for field in (net.vector_field, lambda t, z: net.layers[0](z))
    )
    assert method["gap"] == module["gap"] and method["flips"] == module["flips"]
    assert net.training and net.layers[1].training


def test_what_a_monitor_was_not_made_with_is_named():
    watch = watched(rotation, HEAD, solver="dopri5", rtol=1e-3)
    with pytest.raises(AttributeError, match="step_size: the monitor was not made with step_size="):
        _ = watch.step_size


def test_numbers_of_any_kind_are_read_once():
    watch = watched(rotation, HEAD, solver="euler", n_steps=8.0, controller="algorithm1")
    assert list(range(watch.n_steps)) == list(range(8))
    watch = watched(rotation, HEAD, solver="euler", step_size=torch.tensor(0.25))
    assert type(watch.step_size) is float


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "euler"}, "give exactly one"),
        ({"solver": "euler", "n_steps": 2, "share": 0.0}, r"share = 0.0: give a share"),
        ({"solver": "euler", "n_steps": 2, "share": "a"}, r"share = 'a': give a share"),
        ({"solver": "euler", "n_steps": 2, "every": 0}, "every = 0"),
        ({"solver": "euler", "n_steps": 2, "controller": "pid"}, "controller = 'pid' is unknown"),
        ({"solver": "euler", "n_steps": 2, "controller": "sawtooth"}, "is retired"),
        (
            {"solver": "euler", "n_steps": 2, "controller": "confirmed-increase"},
            "tries a longer step",
        ),
        ({"solver": "euler", "grid": [0.0, 1.0], "controller": "auto"}, "chooses a step"),
        ({"solver": "dopri5", "rtol": 1e-3, "atol": 1e-5, "controller": "auto"}, "leave out atol"),
        ({"solver": "dopri5", "rtol": 1e-6, "controller": "auto"}, "rtol = 1e-06: a controller"),
        ({"solver": "dopri5", "rtol": 20, "controller": "auto"}, "from 1e-05 to 10"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_the_training(options, message):
    with pytest.raises(ValueError, match=message):
        monitor(rotation, HEAD, **options)
