"""Verdicts on trajectories, on losses of one's own, with bounds and tolerances of one's own."""

import math

import numpy as np
import pytest
import torch
from checks import decay, normal, quiet
from torch.nn import functional as F
from torchdiffeq import odeint

from nodecore.analysis.intervals import share_interval
from nodecore.check.scale import Scale
from nodecore.check.settings import times_of
from nodecore.check.verdict import CANNOT_TELL, FLOW, NOT_A_FLOW, least_samples
from nodecore.ode.steps import FixedSteps

TIMES = torch.linspace(0, 1, 21)
GRID = {"solver": "euler", "grid": TIMES, "output_times": TIMES}


def damped(t, z):
    """An oscillator that is at rest long before the end, where any step size agrees."""
    return torch.stack([z[:, 1], -400 * z[:, 0] - 30 * z[:, 1]], 1)


def solved(field, x, times=TIMES, **how):
    """Trajectories (n, times, ...) by torchdiffeq."""
    return odeint(field, x, times.to(x), **how).transpose(0, 1)


# --- trajectories ---------------------------------------------------------------------------------


def test_what_is_wrong_on_the_way_is_seen_though_the_ends_agree():
    x = normal(150, 2)
    own = solved(damped, x, method="euler")
    exact = solved(damped, x.double(), rtol=1e-9, atol=1e-9)
    tolerance = 0.1 * exact.std().item()
    apart = (own - exact).norm(dim=2)
    ends = quiet(damped, None, x, solver="euler", n_steps=20, tolerance=tolerance)
    whole = quiet(damped, None, x, tolerance=tolerance, **GRID)
    assert ends.verdict == FLOW and whole.verdict == NOT_A_FLOW
    changed = (apart > tolerance).any(1).double().mean().item()
    assert whole.exact.changed.value == pytest.approx(changed, abs=0.01)
    np.testing.assert_allclose(whole.distances, apart.amax(1), rtol=1e-3, atol=1e-4)
    assert "at one of the times" in whole.reason
    assert any("trajectory at 21 times" in note for note in whole.notes)
    assert quiet(damped, None, x, **GRID).verdict == NOT_A_FLOW  # by its own scale, too


@pytest.mark.parametrize(
    "training",
    [
        {"solver": "midpoint", "n_steps": 40},
        {"solver": "dopri5", "rtol": 1e-4},
        {"solver": "rk4", "step_size": 0.05},
        {"solve": lambda f, z0, t: odeint(f, z0, t, method="dopri8", rtol=1e-5, atol=1e-5)},
    ],
)
def test_good_solvers_are_flows_at_all_times(training):
    x = normal(60, 2)
    report = quiet(decay, None, x, output_times=TIMES, **training)
    assert report.verdict == FLOW and report.settled.all() and report.distances.max() < 2e-3
    assert report.order is None or report.order.median.value == pytest.approx(
        report.order.expected, abs=0.2
    ) or report.order.near_kinks is not None  # fmt: skip


def test_a_head_takes_the_trajectory_and_labels_are_of_the_whole():
    """The class is where the trajectory is largest on its way, which a coarse solve overshoots."""
    x = normal(400, 2)

    def head(path):
        assert path.dim() == 3 and path.shape[1] == 21
        top = path[:, :, 1].amax(1)
        return torch.stack([8 - top, top - 8], 1)

    y = head(solved(damped, x.double(), rtol=1e-9, atol=1e-9)).argmax(1)
    own = head(solved(damped, x, method="euler")).argmax(1)
    report = quiet(damped, head, x, y, **GRID)
    assert report.training.accuracy.value == pytest.approx((own == y).double().mean().item())
    assert report.exact.accuracy.value == pytest.approx(1.0, abs=0.01)
    assert report.exact.changed.value == pytest.approx((own != y).double().mean().item(), abs=0.01)


def test_a_trajectory_has_no_margin_as_it_is_compared_time_by_time():
    x = normal(60, 2)
    weight = torch.stack([torch.zeros(42), torch.linspace(-1, 1, 42)])
    report = quiet(damped, lambda path: path.flatten(1) @ weight.T, x, (x[:, 0] > 0).long(), **GRID)
    assert report.margins is None and report.inside_margin is None


@pytest.mark.parametrize("k", [4, 5, 6])
def test_as_many_outputs_as_there_are_times_are_no_times(k):
    """Euler's method for dz/dt = z ends at (1 + h)^4 z(0): k copies of the end are one output."""
    x, times = 1 + 0.2 * normal(200, 1), torch.linspace(0, 1, 5)
    away = (math.e - 1.25**4) * x.abs()[:, 0]

    def head(path):
        return path[:, -1].expand(-1, k)

    options = {"solver": "euler", "n_steps": 4, "output_times": times}
    report = quiet(lambda t, z: z, head, x, tolerance=0.5, **options)
    share = (away * k**0.5 > 0.5).double().mean().item()
    assert report.exact.changed.value == pytest.approx(share)
    assert "at one of the times" not in report.reason


@pytest.mark.parametrize("head", [lambda path: 2 * path, lambda path: 2 * path[..., 0]])
def test_outputs_that_are_each_of_one_time_count_at_each(head):
    x, times = 1 + 0.2 * normal(200, 1), torch.linspace(0, 1, 5)
    options = {"solver": "euler", "n_steps": 4, "output_times": times, "tolerance": 0.56}
    report = quiet(lambda t, z: z, head, x, **options)
    changed = 2 * (math.e - 1.25**4) * x.abs()[:, 0] > 0.56  # it is largest at the end
    assert 0.2 < changed.double().mean() < 0.8
    assert report.exact.changed.value == pytest.approx(changed.double().mean().item())
    assert "at one of the times" in report.reason


def test_states_that_are_tuples_and_time_that_runs_backwards():
    x, dp = normal(60, 2), torch.zeros(60)
    times = torch.linspace(1, 0, 5)

    def field(t, state):
        z, _ = state
        return -z, z.sum(1)

    def head(path):
        z, logp = path
        assert z.shape[1:] == (5, 2) and logp.shape[1:] == (5,)
        return z

    options = {"t": (1.0, 0.0), "solver": "euler", "grid": times, "output_times": times}
    report = quiet(field, head, (x, dp), **options)
    own = odeint(field, (x, dp), times, method="euler")
    exact = odeint(field, (x.double(), dp.double()), times.double(), rtol=1e-9, atol=1e-9)
    whole = [torch.cat([z, logp[..., None]], 2) for z, logp in (own, exact)]
    apart = (whole[0] - whole[1]).norm(dim=2).amax(0)
    np.testing.assert_allclose(report.distances, apart, rtol=1e-3, atol=1e-5)
    theirs = quiet(field, head, (x, dp), t=(1.0, 0.0), output_times=times,
                   solve=lambda f, z0, t: odeint(f, z0, t, method="euler"))  # fmt: skip
    np.testing.assert_allclose(theirs.distances, apart, rtol=1e-3, atol=1e-5)
    assert theirs.verdict == report.verdict


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "euler", "n_steps": 4}, "output_times holds 0.05, where no step of euler, 4"),
        ({"solver": "euler", "n_steps": 20, "t": (0, 2)}, "output_times goes from 0.0 to 1.0"),
        ({"solve": lambda f, z0, t: odeint(f, z0, t)[-1]}, "give the states at all 21 times"),
    ],
)
def test_output_times_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        quiet(decay, None, normal(60, 2), output_times=TIMES, **options)


@pytest.mark.parametrize("parts", [(), (1, 3)])
def test_trajectories_are_as_far_apart_as_where_they_are_farthest(parts):
    """By loops over 3 times and the parts of 4 components, one of which is not counted once."""
    unit = torch.arange(1.0, 13.0, dtype=torch.float64)
    counted = torch.arange(12) != 6
    a, b = normal(20, 3, 4).double(), normal(20, 3, 4, seed=1).double()
    expected = []
    for difference in (a - b).flatten(1).tolist():
        distances = []
        for time in range(3):
            for part in ((0,), (1, 2, 3)) if parts else ((0, 1, 2, 3),):
                kept = [4 * time + i for i in part if 4 * time + i != 6]
                squares = [(difference[i] / (i + 1)) ** 2 for i in kept]
                distances.append(math.sqrt(sum(squares) / len(squares)))
        expected.append(max(distances))
    found = Scale(unit, counted, 3, parts).distance(a, b)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_times_of_steps():
    assert times_of(FixedSteps("euler", 4), (0.0, 2.0)) == (0.0, 0.5, 1.0, 1.5, 2.0)


# --- losses, tolerances and bounds of one's own ---------------------------------------------------


def test_a_loss_of_ones_own_decides_by_the_share_whose_loss_changes():
    x = normal(200, 2)
    target = x * math.exp(-1)

    def loss(out, y):
        return F.mse_loss(out, y, reduction="none").mean(1)

    own = loss(x * 0.5**2, target)
    for tolerance in (0.001, 0.02):
        options = {"solver": "euler", "n_steps": 2, "loss": loss, "tolerance": tolerance}
        report = quiet(decay, None, x, target, **options)
        share = (own > tolerance).double().mean().item()
        assert report.exact.changed.value == pytest.approx(share, abs=0.01)
        assert report.verdict == (NOT_A_FLOW if share > 0.15 else FLOW)
        assert f"losses change by more than {tolerance:.3g}" in report.reason


@pytest.mark.parametrize(
    ("loss", "head", "remedy"),
    [
        (lambda out, y: (out - y).square().mean(1), None, r"targets \(60,\): give y\[:, None\]"),
        (lambda out, y: (out - y).square().mean(1), lambda z: z[:, 0], r"give y\[:, 0\]"),
        (lambda out, y: (out - out.mean(0)).square()[:, 0], None, r"of its own row alone"),
    ],
)
def test_a_loss_that_mixes_samples_is_refused(loss, head, remedy):
    """Outputs (m, 1) less targets (m,) are (m, m): each loss would be one of all targets."""
    x = normal(60, 1)
    y = 2.5 * x if head else 2.5 * x[:, 0]
    options = {"solver": "euler", "n_steps": 2, "tolerance": 0.5}
    with pytest.raises(ValueError, match=rf"^loss gives .* another answer .*{remedy}"):
        quiet(lambda t, z: z, head, x, y, loss=loss, **options)


def test_a_loss_that_fits_is_of_each_sample():
    x = normal(60, 1)
    report = quiet(
        lambda t, z: z, None, x, 2.5 * x[:, 0], solver="euler", n_steps=2, tolerance=0.5,
        loss=lambda out, y: (out - y[:, None]).square().mean(1),
    )  # fmt: skip
    changed = ((2.25 - 2.5) ** 2 - (math.e - 2.5) ** 2) * x.square() > 0.5
    assert report.exact.changed.value == changed.double().mean().item()


def test_labels_of_pixels_have_a_loss():
    """Points of a picture are classed by their sign after a turn that Euler's method misses."""

    def turn(t, z):
        return 2 * torch.stack([-z[:, 1], z[:, 0]], 1)

    def error(out, y):
        return ((out[:, 0] > 0).long() != y).double().flatten(1).mean(1)

    x = normal(80, 2, 4, 4)
    y = (odeint(turn, x, torch.tensor([0.0, 1.0]))[-1][:, 0] > 0).long()
    with pytest.raises(ValueError, match=r"labels of nodes or pixels give a loss"):
        quiet(turn, None, x, y, solver="euler", n_steps=2)
    bad, good = (
        quiet(turn, None, x, y, solver="euler", n_steps=k, loss=error, tolerance=0.1)
        for k in (2, 64)
    )
    assert (bad.verdict, good.verdict) == (NOT_A_FLOW, FLOW)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": F.mse_loss, "tolerance": 0.1}, r"loss returned \(\).*one number for each"),
        ({"loss": F.mse_loss}, "say as tolerance="),
        ({"loss": "mse", "tolerance": 0.1}, "loss = 'mse': give a function"),
        ({"y": None, "tolerance": [0.1, 0.1, 0.1]}, "tolerance has 3 entries for outputs"),
        ({"y": None, "bound": 1.5}, r"bound = 1.5: give a share in \(0, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    x = normal(60, 2)
    with pytest.raises(ValueError, match=message):
        quiet(decay, None, x, **{"y": x} | options, solver="euler", n_steps=2)


def test_each_output_may_have_a_tolerance_of_its_own():
    x = normal(200, 2)
    moved = (x * (0.5 - math.exp(-1))).abs()
    tight, loose = 0.01, 1.0
    for tolerance in ([tight, loose], [loose, tight], torch.tensor([loose, loose])):
        report = quiet(decay, None, x, solver="euler", n_steps=1, tolerance=tolerance)
        expected = 0.0 * moved + x.abs() * math.exp(-1)  # one Euler step ends at zero
        share = (expected > torch.as_tensor(tolerance)).any(1).double().mean().item()
        assert report.exact.changed.value == pytest.approx(share)
        assert "tolerance " in str(report) and report.plot().axes


def test_a_bound_of_ones_own_moves_the_verdict():
    x = normal(400, 2)
    changed = (x.norm(dim=1) * math.exp(-1) > 0.95).double().mean().item()
    interval = share_interval(round(400 * changed), 400)
    assert 0.02 < changed < 0.1
    for bound in (0.5 * interval.low, 0.5 * (interval.low + interval.high), 2 * interval.high):
        report = quiet(decay, None, x, solver="euler", n_steps=1, tolerance=0.95, bound=bound)
        expected = FLOW if interval.high <= bound else CANNOT_TELL
        assert report.verdict == (NOT_A_FLOW if interval.low > bound else expected)
    assert [least_samples(b) for b in (0.1, 0.05, 0.2)] == [35, 73, 16]
    for bound in (0.1, 0.05, 0.2):
        n = least_samples(bound)
        assert share_interval(0, n).high <= bound < share_interval(0, n - 1).high


# --- adaptive solvers -----------------------------------------------------------------------------


def turning(t, z):
    """A rotation that speeds up outwards: coarse tolerances take few long steps."""
    speed = 3 + z.square().sum(1, keepdim=True)
    return speed * torch.stack([-z[:, 1], z[:, 0]], 1)


@pytest.mark.parametrize("solver", ["dopri5", "bosh3"])
@pytest.mark.parametrize("times", [None, torch.linspace(0, 1, 12)])
def test_a_tolerance_is_solved_as_torchdiffeq_does_past_the_end(solver, times):
    """It steps past the end and interpolates, which at a coarse tolerance is another model."""
    x, ends = normal(80, 2), torch.tensor([0.0, 1.0]) if times is None else times
    own = solved(turning, x, ends, method=solver, rtol=0.1, atol=0.1)
    exact = solved(turning, x.double(), ends, rtol=1e-10, atol=1e-10)
    away = (own - exact).norm(dim=2)[:, 1:].amax(1)
    report = quiet(turning, None, x, solver=solver, rtol=0.1, output_times=times)
    assert float(away.max()) > 0.05
    np.testing.assert_allclose(report.distances, away, rtol=0.02, atol=1e-4)


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_a_tolerance_of_a_tuple_is_kept_by_each_of_its_parts(tolerance):
    """torchdiffeq takes the largest part's error: data carried along do not loosen a tolerance."""
    x, data = normal(80, 2), normal(80, 784, seed=1)
    ends, calls = torch.tensor([0.0, 1.0]), []

    def field(t, state):
        calls.append(t)
        return turning(t, state[0]), torch.zeros_like(state[1])

    own = odeint(field, (x, data), ends, rtol=tolerance, atol=tolerance)[0][-1]
    nfe = len(calls)
    exact = odeint(turning, x.double(), ends.double(), rtol=1e-10, atol=1e-10)[-1]
    report = quiet(field, lambda s: s[0], (x, data), solver="dopri5", rtol=tolerance)
    assert report.training.nfe == nfe
    np.testing.assert_allclose(report.distances, (own - exact).norm(dim=1), rtol=0.02, atol=2e-5)
