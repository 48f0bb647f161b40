"""The check of a model of one's own: what it must say, what it must not touch, what it refuses."""

import copy
import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from checks import normal, quiet
from scipy import stats
from torch import nn
from torch.nn import functional as F
from torchdiffeq import odeint, odeint_adjoint

import nodecore
from nodecore import check_flow, flow_cost
from nodecore.analysis.evaluate import AGREEMENT
from nodecore.analysis.intervals import Interval, paired_difference, share_interval
from nodecore.check.model import FlowModel
from nodecore.check.probes import affine_weight
from nodecore.check.verdict import (
    CANNOT_TELL,
    FLOW,
    NOT_A_FLOW,
    Terms,
    above_chance,
    bounded_drop,
    judge,
)
from nodecore.check.verdict import (
    Tested as Compared,
)
from nodecore.data.split import Split
from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.evidence.tables import agreement_gaps
from nodecore.ode.fields import take_members
from nodecore.ode.steps import FixedSteps
from nodecore.ode.tableaus import TABLEAUS


class Field(nn.Module):
    """A plain field as torchdiffeq wants it."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, t, z):
        return self.layers(z)


def rotation(angle=2.0):
    """dz/dt = angle * (-z2, z1): the exact flow turns the plane by `angle`."""
    field = Field(nn.Linear(2, 2, bias=False))
    field.layers[0].weight.data = angle * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    return field


def linear_head(weight):
    head = nn.Linear(2, len(weight))
    head.weight.data, head.bias.data = torch.tensor(weight), torch.zeros(len(weight))
    return head


def turn(x, angle):
    cosine, sine = math.cos(angle), math.sin(angle)
    return x @ torch.tensor([[cosine, sine], [-sine, cosine]])


def euler_angle(n_steps, angle=2.0):
    """By how much Euler's method turns; it stretches besides, which is no matter to half-planes."""
    return n_steps * math.atan(angle / n_steps)


def turned_points(n=400, angle=2.0):
    """Points of the plane, labelled by the half-plane that the exact flow takes them to."""
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(n, 2))).float()
    return x, (turn(x, angle)[:, 0] > 0).long()


HALF_PLANES = [[-1.0, 0.0], [1.0, 0.0]]


@pytest.fixture(scope="module")
def map_of_one_step():
    """A model trained with one Euler step: x -> x + f(x), free to cross; rings of two classes."""
    generator = torch.Generator().manual_seed(0)
    radius = torch.rand(200, generator=generator)
    angle = 2 * math.pi * torch.rand(200, generator=generator)
    x = radius[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
    y = ((radius > 0.4) & (radius < 0.75)).long()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        field = Field(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 2))
        head = nn.Linear(2, 2)
    optimiser = torch.optim.Adam([*field.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(300):
        optimiser.zero_grad()
        F.cross_entropy(head(x + field(0.0, x)), y).backward()
        optimiser.step()
    optimiser.zero_grad()
    return field, head, x, y


@pytest.fixture(scope="module")
def report_of_map(map_of_one_step):
    return quiet(*map_of_one_step, solver="euler", n_steps=1)


# --- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", TABLEAUS)
def test_an_exact_flow_is_one_for_every_solver_that_is_fine_enough(solver):
    x, y = turned_points()
    k = 64 if solver == "euler" else 16
    report = quiet(rotation(), linear_head(HALF_PLANES), x, y, solver=solver, n_steps=k)
    assert report.verdict == FLOW
    assert report.coarsest is not None and report.coarsest.n_steps <= k
    # Euler's method stretches by sqrt(1 + (2 h)^2) a step; the end state tells.
    if solver == "euler":
        stretch = (1 + (2 / 64) ** 2) ** 32
        assert np.median(report.distances) == pytest.approx(
            float(x.norm(dim=1).median()) * (stretch - 1), rel=0.05
        )
    assert report.h * report.lipschitz == pytest.approx(2 / k, rel=1e-4)
    assert report.crossing_shares[4 * k] == 0.0  # the orbits are circles


def test_a_map_trained_with_one_step_is_not_a_flow(report_of_map):
    report = report_of_map
    assert report.verdict == NOT_A_FLOW
    assert report.training.accuracy.value > 0.9
    assert report.exact.drop.low > AGREEMENT and "accuracy" in report.reason
    assert report.crossing_shares[1] > 0.02 and list(report.crossing_shares) == [1, 2, 4]
    assert report.h * report.lipschitz > 1


def test_accuracy_that_is_gained_under_the_exact_flow_is_no_flow_either():
    x, _ = turned_points(200)
    y = (turn(x, euler_angle(1) + 1.2)[:, 0] > 0).long()
    report = quiet(rotation(angle=euler_angle(1) + 1.2), linear_head(HALF_PLANES), x, y, **OPTIONS)
    assert report.exact.drop.high < 0 and "of accuracy are gained" in report.reason


def test_random_labels_are_no_evidence(map_of_one_step):
    field, head, x, y = map_of_one_step
    mixed = y[torch.from_numpy(np.random.default_rng(3).permutation(len(y)))]
    report = quiet(field, head, x, mixed, solver="euler", n_steps=1)
    assert report.verdict == CANNOT_TELL and "largest class" in report.reason
    assert report.coarsest is None


def test_a_loss_within_noise_is_no_verdict(map_of_one_step):
    field, head, x, y = map_of_one_step
    assert quiet(field, head, x[:8], y[:8], solver="euler", n_steps=1).verdict == CANNOT_TELL


def test_changes_that_cancel_in_the_accuracy_are_no_flow_to_be_sure_of():
    x, y = turned_points(1000)
    ours, exact = (turn(x, angle)[:, 0] > 0 for angle in (euler_angle(2), 2.0))
    differ = (ours != exact).nonzero()[:, 0]
    y[differ] = torch.arange(len(differ)) % 2  # as many right under one as under the other
    report = quiet(rotation(), linear_head(HALF_PLANES), x, y, solver="euler", n_steps=2)
    assert report.exact.drop.within(AGREEMENT) and report.training.accuracy.value > 0.8
    assert report.exact.changed.value == pytest.approx(len(differ) / 1000) and len(differ) > 120
    assert report.verdict == CANNOT_TELL and "predicted class changes" in report.reason


@pytest.mark.parametrize(("solver", "n_steps"), [("euler", 4), ("rk4", 8)])
def test_models_of_the_study_agree_with_their_critical_step(solver, n_steps):
    """Per seed: the gap between training and test solver of its records, where it is clear."""
    evidence = find(Run("spheres2", FixedSteps(solver, n_steps)))
    whole = evidence.run.protocol.load()[1]
    test = Split(whole.x[:300], whole.y[:300], whole.n_classes)
    for member, seed in enumerate(evidence.run.seeds[:1]):
        records = evidence.records[evidence.records["seed"] == seed]
        gap = abs(agreement_gaps(records)[n_steps])
        field, head = single(evidence.field, member), single(evidence.head, member)
        report = quiet(field, head, test.x, test.y, solver=solver, n_steps=n_steps)
        if report.verdict == CANNOT_TELL:
            unsure = max(abs(report.exact.drop.high - report.exact.drop.value), 0.0)
            cancels = report.exact.changed.low > AGREEMENT
            assert abs(gap - AGREEMENT) < 2 * unsure or cancels
        else:
            assert (report.verdict == FLOW) == (gap <= AGREEMENT)


class Single(nn.Module):
    """One member of an ensemble's field or head as a plain module."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args):
        *times, z = args
        return self.module(*times, z[None])[0]


def single(module, member):
    return Single(take_members(module, [member]))


def test_a_torchdiffeq_model_and_our_field_with_its_weights_give_the_same_report():
    evidence = find(Run("landscape", FixedSteps("euler", 8)))
    x, y = turned_points(50)
    ours, head = (single(m, 1) for m in (evidence.field, evidence.head))
    layers = [nn.Linear(2, 48), nn.Linear(48, 48), nn.Linear(48, 2)]
    for layer, (weight, bias) in zip(
        layers, (ours.module.first, ours.module.second, ours.module.third), strict=True
    ):
        layer.weight.data, layer.bias.data = weight[0].T.clone(), bias[0].clone()
    theirs = Field(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
    plain = nn.Linear(2, 3)
    plain.weight.data, plain.bias.data = head.module.linear[0][0].T, head.module.linear[1][0]
    a = quiet(ours, head, x, y, solver="euler", n_steps=8)
    b = quiet(theirs, plain, x, y, solver="euler", n_steps=8)
    assert (a.verdict, a.tested, a.coarsest) == (b.verdict, b.tested, b.coarsest)
    np.testing.assert_allclose(a.distances, b.distances, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(a.margins, b.margins, rtol=1e-3, atol=1e-4)
    # What torchdiffeq itself makes of the model.
    times = torch.linspace(0, 1, 9)
    with torch.no_grad():
        logits = plain(odeint(theirs, x, times, method="euler")[-1])
        exact = plain(odeint(theirs, x, times, method="dopri5", rtol=1e-6, atol=1e-6)[-1])
    share = [float((v.argmax(1) == y).double().mean()) for v in (logits, exact)]
    assert b.training.accuracy.value == pytest.approx(share[0], abs=1e-9)
    assert b.exact.accuracy.value == pytest.approx(share[1], abs=2e-3)


def test_a_tolerance_and_a_field_of_time():
    """dz/dt = cos(t) z on [1, 4]: z(4) = z(1) exp(sin 4 - sin 1)."""
    x, y = turned_points()
    y = (x[:, 0] > 0).long()

    def field(t, z):
        assert t.shape == ()
        return torch.cos(t) * z

    report = quiet(field, linear_head(HALF_PLANES), x, y, solver="dopri5", rtol=1e-3, t=(1, 4))
    assert report.verdict == FLOW and not report.crossing_shares
    euler = quiet(field, None, x, solver="euler", n_steps=3, t=(1, 4))
    exact = x * math.exp(math.sin(4) - math.sin(1))
    by_hand = x * (1 + math.cos(1)) * (1 + math.cos(2)) * (1 + math.cos(3))
    np.testing.assert_allclose(euler.distances, (by_hand - exact).norm(dim=1), rtol=1e-3)
    assert any("depends on time" in note for note in euler.notes)
    assert euler.h == pytest.approx(1.0)


def test_regression_is_judged_by_how_far_the_outputs_move():
    x, _ = turned_points()
    coarse = quiet(rotation(), None, x, solver="euler", n_steps=2)
    assert coarse.verdict == NOT_A_FLOW and coarse.training.accuracy is None
    assert coarse.tolerance == pytest.approx(0.1 * float(x.var(0, correction=0).sum().sqrt()), 1e-3)
    assert quiet(rotation(), None, x, solver="midpoint", n_steps=16).verdict == FLOW
    # The same model with a tolerance that lets nothing, or everything, pass.
    fine = quiet(rotation(), None, x, solver="midpoint", n_steps=16, tolerance=1e-6)
    assert fine.verdict == NOT_A_FLOW and fine.exact.changed.value == 1.0
    assert quiet(rotation(), None, x, solver="euler", n_steps=2, tolerance=99.0).verdict == FLOW
    # A head's outputs, here a single number for each sample.
    one = quiet(rotation(), nn.Linear(2, 1), x, solver="midpoint", n_steps=16)
    assert one.verdict == FLOW and "tolerance" in str(one)


def test_images_with_a_stem():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(40, 1, 6, 6, generator=generator), torch.arange(40) % 2
    stem = nn.Conv2d(1, 3, 1)
    field = Field(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 3, 1))
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    report = quiet(field, head, x, y, solver="euler", n_steps=4, stem=stem, rows=16)
    assert report.distances.shape == report.margins.shape == (40,)
    with torch.no_grad():
        z = stem(x)
        for _ in range(4):
            z = z + 0.25 * field(0.0, z)
        right = (head(z).argmax(1) == y).double().mean()
    assert report.training.accuracy.value == pytest.approx(float(right))


def test_a_flow_that_blows_up_cannot_be_told():
    """dz/dt = exp(z^2) from 5 reaches infinity at once."""
    x = torch.full((36, 1), 5.0)
    report = quiet(lambda t, z: (z * z).exp(), None, x, solver="euler", n_steps=4)
    assert report.verdict == CANNOT_TELL and "for none of the 36 samples" in report.reason
    assert any("dopri5" in note for note in report.notes)


# --- what it measures -----------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (75, 1000), (10, 10)])
def test_shares_have_wilsons_interval(count, n):
    expected = stats.binomtest(count, n).proportion_ci(method="wilson")
    value, low, high = share_interval(count, n)
    assert (value, low, high) == pytest.approx((count / n, expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("p", "q", "n"), [(0.15, 0.03, 100), (0.1, 0.1, 60), (0.2, 0.1, 1000)])
def test_paired_differences_are_held_in_95_of_100_cases(p, q, n):
    drawn = np.random.default_rng(0).multinomial(n, [p, q, 1 - p - q], size=4000)
    found = [paired_difference(a, b, n) for a, b, _ in drawn]
    held = np.mean([v.low <= p - q <= v.high for v in found])
    assert 0.94 <= held <= 0.99


def test_only_an_affine_head_has_a_margin():
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 2))).float()
    linear = nn.Linear(2, 3)
    bent = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3))
    norm = nn.Sequential(nn.BatchNorm1d(2), linear).eval()
    norm[0].running_var.fill_(4.0)
    weights = [
        affine_weight(FlowModel(rotation(), head, None, z, (0, 1)), z)
        for head in (linear, bent, norm)
    ]
    torch.testing.assert_close(weights[0], linear.weight.data)
    assert weights[1] is None
    inside, flat = z / z.abs().max(), FlowModel(rotation(), nn.Hardtanh(), None, z, (0, 1))
    assert affine_weight(flat, inside) is None  # affine where the samples are, and not beyond
    torch.testing.assert_close(weights[2], linear.weight.data / math.sqrt(4 + 1e-5))


def test_margins_promise_classes(map_of_one_step, report_of_map):
    report = report_of_map
    assert 0 < report.inside_margin <= 1 - report.exact.changed.value
    field, head, x, y = map_of_one_step
    bent = quiet(field, lambda z: head(z) ** 3, x[:50], y[:50], solver="euler", n_steps=1)
    assert bent.margins is None and "probabilities change" in str(bent)


def test_the_search_is_for_the_coarsest_step_that_agrees():
    x, y = turned_points()
    report = quiet(rotation(), linear_head(HALF_PLANES), x, y, solver="euler", n_steps=64)
    n_steps = [error.setting.n_steps for error in report.curve]
    assert n_steps == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    gaps = {}
    for k in n_steps:
        right = (turn(x, euler_angle(k))[:, 0] > 0) == y
        gaps[k] = 1 - float(right.double().mean())
    coarsest = min(k for k in n_steps if all(gaps[j] <= AGREEMENT for j in n_steps if j >= k))
    assert report.coarsest == FixedSteps("euler", coarsest) and coarsest > 1


def test_the_curve_of_errors_marks_the_training_and_tells_a_model_of_its_solver(
    map_of_one_step, report_of_map
):
    x, y = turned_points()
    good = quiet(rotation(), linear_head(HALF_PLANES), x, y, solver="euler", n_steps=64)
    assert [error.size for error in good.curve] == [1 / 2**k for k in range(9)]
    for error in good.curve:
        k = error.setting.n_steps
        stretched = turn(x, euler_angle(k)) * (1 + (2 / k) ** 2) ** (k / 2)
        apart = (stretched - turn(x, 2.0)).norm(dim=1).median().item()
        assert error.distance == pytest.approx(apart, rel=1e-3, abs=1e-6)
        wrong = ((turn(x, euler_angle(k))[:, 0] > 0) != y).double().mean().item()
        assert error.wrong.value == pytest.approx(wrong, abs=1e-9)
    assert "error by step size" not in str(good) and "error by step size" in str(report_of_map)
    figure = report_of_map.plot()
    assert len(figure.axes) == 3 and "wrong answers" in figure.axes[2].get_ylabel()
    assert any(text.get_text() == "training" for text in figure.axes[2].texts)
    plain = quiet(rotation(), None, x, solver="euler", n_steps=8)
    assert plain.plot().axes[2].get_ylabel() == "median distance"


def test_a_drop_is_also_told_as_a_share_of_what_is_above_chance(report_of_map):
    report = report_of_map
    own, drop, chance = report.training.accuracy, report.exact.drop, report.chance
    assert report.relative_drop.value == pytest.approx(drop.value / (own.value - chance))
    assert report.relative_drop.low <= drop.low / (own.value - chance)
    assert report.relative_drop.high >= drop.high / (own.value - chance)
    assert "above chance: " in str(report)
    # A model of accuracy 0.7 where chance is 0.5 loses 0.07: a flow by the plain rule only.
    x, y = turned_points(4000)
    noise = torch.from_numpy(np.random.default_rng(1).random(4000)) < 0.55
    y[noise] = torch.arange(4000)[noise] % 2
    weak = quiet(rotation(), linear_head(HALF_PLANES), x, y, solver="euler", n_steps=2)
    assert abs(weak.exact.drop.value) < 0.1 < abs(weak.relative_drop.value)
    assert f": {NOT_A_FLOW}, if 10 %" in str(weak).split("above chance: ")[1].splitlines()[0]


def compared(accuracy, drop):
    """400 samples under a setting, with no class changed."""
    none = share_interval(0, 400)
    return Compared(FixedSteps("euler", 1), 400, none, Interval(*accuracy), Interval(*drop), 1)


@pytest.mark.parametrize(("low", "verdict"), [(0.59, CANNOT_TELL), (0.61, FLOW)])
def test_a_loss_of_the_bound_must_show_above_chance(low, verdict):
    """Where the largest class is half of all, an accuracy of less than 0.6 cannot lose 0.1."""
    found = compared((0.65, low, 0.7), (0.0, -0.01, 0.01))
    assert judge(found, found, Terms(0.1, 0.5, "classes"))[0] == verdict


@pytest.mark.parametrize("drop", [(0.1, 0.05, 0.15), (0.01, -0.04, 0.06), (-0.1, -0.15, -0.05)])
def test_the_share_above_chance_reaches_over_both_intervals(drop):
    found = compared((0.8, 0.75, 0.85), drop)
    corners = [d / (a - 0.5) for d, a in product(drop[1:], (0.75, 0.85))]
    expected = (drop[0] / (0.8 - 0.5), min(corners), max(corners))
    assert above_chance(found, found, Terms(0.1, 0.5, "classes")) == pytest.approx(expected)


def test_ctrl_c_after_the_verdict_gives_the_report_without_the_rest():
    x, y = turned_points()
    whole = quiet(rotation(), linear_head(HALF_PLANES), x, y, solver="euler", n_steps=8)
    inner, seen = rotation(), {"batches": 0}

    def impatient(t, z):
        seen["batches"] += 1
        if seen["batches"] > limit:
            seen["batches"] = -(10**9)
            raise KeyboardInterrupt
        return inner(t, z)

    limit = 10**6
    quiet(impatient, linear_head(HALF_PLANES), x, y, solver="euler", n_steps=8)
    total, seen["batches"] = seen["batches"], 0
    limit = total - 20  # in the Jacobians and crossings
    late = quiet(impatient, linear_head(HALF_PLANES), x, y, solver="euler", n_steps=8)
    assert (late.verdict, late.exact.drop) == (whole.verdict, whole.exact.drop)
    assert "stopped by Ctrl-C" in late.cautions[-1] and not late.crossing_shares
    seen["batches"], limit = 0, 5  # before the solves begin
    with pytest.raises(KeyboardInterrupt):
        quiet(impatient, linear_head(HALF_PLANES), x, y, solver="euler", n_steps=8)


@pytest.mark.parametrize("after", [20, 300, 1200])
def test_ctrl_c_before_the_verdict_leaves_what_is_known(after):
    """600 samples in parts of 100; only the exact flow, in float64, is interrupted."""
    x, y = turned_points(600)
    seen = {"exact": 0}

    class Impatient(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = rotation()

        def forward(self, t, z):
            seen["exact"] += z.dtype == torch.float64 and len(z) == 100
            if seen["exact"] == after:
                seen["exact"] += 1
                raise KeyboardInterrupt
            return self.inner(t, z)

    options = {"solver": "euler", "n_steps": 2, "rows": 100}
    report = quiet(Impatient(), linear_head(HALF_PLANES), x, y, **options)
    assert "stopped by Ctrl-C before all samples were solved" in report.cautions[-1]
    assert report.exact.unsettled > 0 and report.tested[0].unsettled == 0
    whole = quiet(rotation(), linear_head(HALF_PLANES), x, y, **options)
    assert report.verdict in (CANNOT_TELL, whole.verdict)
    assert report.exact.drop.low <= whole.exact.drop.value <= report.exact.drop.high


def test_the_cost_is_what_it_takes(capsys):
    x, y = turned_points(300)
    counted = {"samples": 0}
    inner = rotation()

    def field(t, z):
        counted["samples"] += len(z)
        return inner(t, z)

    options = {"solver": "rk4", "n_steps": 8}
    cost = flow_cost(field, linear_head(HALF_PLANES), x, y, **options)
    before = counted["samples"]
    assert capsys.readouterr().err == ""
    # rk4 takes 4 stages: steps 1 to 32; dopri5 with 8 steps has 6.
    assert cost.fixed == 300 * (4 * (1 + 2 + 4 + 8 + 16 + 32) + 6 * 8)
    check_flow(field, linear_head(HALF_PLANES), x, y, **options)
    spent = counted["samples"] - 2 * before  # the check looks once more
    assert capsys.readouterr().err.startswith("check_flow: 300 samples")
    # On top: the samples of trajectories, and the crossings, which are 50 starts.
    crossings = 50 * 4 * (8 * 8 + 16 * 4 + 32 * 2)
    assert 1 / 3 < (spent - crossings) / (cost.fixed + cost.adaptive + cost.jacobians) < 3


def test_a_pole_at_an_end_leaves_the_jacobians_of_the_other_times():
    """dz/dt = (1 - z) / (1 - t): L(t) = 1 / (1 - t), 4 at the last time before the end."""
    x, _ = turned_points(60)
    report = quiet(lambda t, z: (1 - z) / (1 - t), None, x, solver="euler", n_steps=4)
    assert report.lipschitz == pytest.approx(4.0, rel=1e-4)
    assert any("not finite at 16 of 80 states" in note for note in report.notes)
    assert "nan" not in str(report)


def test_a_field_of_time_alone_has_l_zero_and_inference_mode_is_named():
    x, _ = turned_points(60)
    report = quiet(lambda t, z: torch.cos(3 * t) * torch.ones_like(z), None, x, **OPTIONS)
    assert report.lipschitz == 0.0 and not any("Jacobian" in note for note in report.notes)
    with torch.inference_mode():
        report = quiet(rotation(), None, x, **OPTIONS)
    assert report.lipschitz is None
    assert any("inference_mode() is on; call the check outside" in note for note in report.notes)


# --- what it leaves alone -------------------------------------------------------------------------


def test_the_model_and_the_generators_stay_as_they_are(map_of_one_step):
    field, head, x, y = (copy.deepcopy(part) for part in map_of_one_step)
    field.train(), head.eval()
    head.weight.grad = torch.ones_like(head.weight)
    before = copy.deepcopy((field.state_dict(), head.state_dict()))
    torch.manual_seed(5)
    state = torch.get_rng_state()
    quiet(field, head, x, y, solver="midpoint", n_steps=2)
    assert torch.equal(torch.get_rng_state(), state) and torch.is_grad_enabled()
    assert field.training and field.layers.training and not head.training
    for module, weights in zip((field, head), before, strict=True):
        for name, value in module.state_dict().items():
            assert torch.equal(value, weights[name]) and value.dtype == torch.float32
        assert all(p.requires_grad for p in module.parameters())
    assert torch.equal(head.weight.grad, torch.ones_like(head.weight))
    assert all(p.grad is None for p in field.parameters()) and x.dtype == torch.float32


def test_half_precision_is_checked_in_float32(map_of_one_step, report_of_map):
    (field, head, x, y), whole = (copy.deepcopy(p) for p in (map_of_one_step, report_of_map))
    field.bfloat16(), head.bfloat16()
    half = quiet(field, head, x.bfloat16(), y, solver="euler", n_steps=1)
    assert half.verdict == whole.verdict == NOT_A_FLOW
    assert half.training.accuracy.value == pytest.approx(whole.training.accuracy.value, abs=0.05)
    assert field.layers[0].weight.dtype == torch.bfloat16
    assert any("weights in bfloat16 are solved in float32" in note for note in half.notes)
    assert not any("float32" in note for note in whole.notes)


def test_the_same_call_gives_the_same_report(map_of_one_step, report_of_map):
    a, b = report_of_map, quiet(*map_of_one_step, solver="euler", n_steps=1)
    assert str(a) == str(b) and np.array_equal(a.distances, b.distances)


# --- what it shows --------------------------------------------------------------------------------


def test_the_report_is_read_in_a_terminal_in_a_notebook_and_as_a_picture(report_of_map):
    report = report_of_map
    text, html = str(report), report._repr_html_()
    assert text.startswith("not a flow: ") and max(map(len, text.splitlines())) < 130
    shown = BeautifulSoup(html, "html.parser").get_text()
    for row in report.tested:
        assert row.accuracy.percent() in text and row.accuracy.percent() in shown
    assert "<strong>not a flow</strong>" in html and html.count("<tr>") == 1 + len(report.tested)
    figure = report.plot()
    assert len(figure.axes) == 3 and figure.axes[0].get_title() == "not a flow"


def test_names_of_the_package_are_imported_when_asked_for():
    assert nodecore.check_flow is check_flow
    with pytest.raises(AttributeError, match="no attribute 'chek_flow'"):
        nodecore.chek_flow  # noqa: B018


# --- bad input ------------------------------------------------------------------------------------

X, Y = turned_points(16)
HEAD = linear_head(HALF_PLANES)
OPTIONS = {"solver": "euler", "n_steps": 4}


def changed(**options):
    return {"field": rotation(), "head": HEAD, "x": X, "y": Y, **OPTIONS, **options}


class OwnZeros(nn.Module):
    def forward(self, t, z):
        return torch.zeros(z.shape)


def spectral():
    torch.manual_seed(0)
    middle = nn.utils.parametrizations.spectral_norm(nn.Linear(64, 64))
    return Field(nn.Linear(2, 64), middle, nn.Linear(64, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (changed(solver="rk5"), "solver = 'rk5' is unknown; choose one of euler"),
        (changed(field=None), "field = None: give a function"),
        (
            changed(n_steps=torch.tensor([1, 2])),
            r"n_steps = tensor\(\[1, 2\]\): give a whole number",
        ),
        (changed(n_steps=None, grid=0.1), "grid = 0.1: give a list of times"),
        (changed(output_times=0.5), "output_times = 0.5: give a list of times"),
        (changed(t=(None, 1.0)), "give start and end as two numbers"),
        (changed(t=(0.0, "a")), "give start and end as two numbers"),
        (changed(n_steps=None, grid=[0.0, "a", 1.0]), r"grid = .*: give a list of times"),
        (changed(head=X), "head is Tensor: give a function or module, .* field, head, x, y"),
        (changed(stem=3), "stem is int: give a function or module"),
        (changed(x=np.array(["a"] * 16)), "x is ndarray: give a tensor of inputs"),
        (changed(x=np.array(3.0)), r"x is Tensor: give a tensor of inputs \(n, ...\)"),
        (
            changed(y=["a"] * 16, loss=lambda out, y: out[:, 0] - y, tolerance=0.5),
            "y is list: give targets as a tensor",
        ),
        (changed(y=[[1], [1, 2]] * 8), "y is list: give labels as a tensor"),
        (changed(head=lambda z: z[:, :1] > 0, y=None), "head returned bools: give numbers"),
        (
            changed(y=Y, loss=lambda out, y: out.argmax(1) != y, tolerance=0.5),
            r"loss returned torch.bool: give floating-point numbers, .double\(\)",
        ),
        (
            changed(y=X / 0, loss=lambda out, y: (out - y).square().mean(1), tolerance=0.5),
            "y has targets that are not finite",
        ),
        (changed(n_steps=None), "give exactly one"),
        (changed(rtol=1e-3), "give exactly one"),
        (changed(n_steps=0), "n_steps = 0: give a whole number"),
        (changed(n_steps=None, rtol=1e-3), "'euler' has no embedded method"),
        (changed(t=(1.0, 1.0)), "t = .*two different finite times"),
        (changed(rows=0), "rows = 0"),
        (changed(x=X[:0], y=Y[:0]), "0 samples|at least one"),
        (changed(y=Y[:5]), "x has 16 samples, y 5"),
        (changed(y=Y + 0.5), "no whole numbers: .* leave out y"),
        (changed(y=Y - 1), "labels -1 to 0"),
        (changed(y=Y + 2), r"head returned \(8, 2\) .* labels up to 3"),
        (changed(x=X.int()), "give floating-point samples"),
        (changed(x=X / 0), "NaN or infinite"),
        (changed(head=nn.Linear(2, 1)), r"single logit .*zeros_like\(v\), v\], 1\)"),
        (changed(head=None, y=None, tolerance=-1.0), "tolerance = -1.0: give a finite number > 0"),
        (changed(tolerance=0.1), "leave out y"),
        (changed(field=lambda t, z: z[:, :1]), r"returned \(8, 1\) for states \(8, 2\)"),
        (changed(field=lambda t, z: torch.randn_like(z)), "two answers for the same states"),
        (changed(field=lambda t, z: z - z.mean(0)), "another answer when it is alone"),
        (changed(field=Field(nn.Linear(2, 2), nn.Dropout(0.1))), r"Dropout .*field.eval\(\)"),
        (changed(field=Field(nn.BatchNorm1d(2))), r"BatchNorm1d \(layers.0\).*field.eval\(\)"),
        (changed(head=nn.Sequential(nn.Dropout(0.1), HEAD)), r"head is in training mode"),
        (changed(head=torch.view_as_complex, y=None), r"complex numbers: .*view_as_real\(out\)"),
        (changed(solver="dopri8"), r"'dopri8' is unknown; .*dopri5, or give .* solve="),
        (
            changed(n_steps=None, solver=None, solve=lambda f, z, t: [z]),
            r"a list \[\(\d+, 2\)\] .* give a tensor",
        ),
        (changed(y=Y % 2 + 1), "labels begin at 1 here: give y - 1"),
        (changed(y=10 * (Y % 2)), "for a regression leave out y"),
        (changed(x={"z": X}), "x is dict: give .* or a tuple of tensors"),
        (
            changed(head=lambda z: HEAD(z[-1])),
            r"returned 2 rows for 16 samples: .*leave out a \[-1",
        ),
        (changed(head=lambda z: z.sum(1).squeeze(), y=None, x=X), r"name the one .*squeeze\(-1\)"),
        (changed(field=spectral()), "gives two answers .* or spectral norm"),
    ],
)
def test_bad_arguments_are_refused_with_a_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        quiet(**arguments)


@pytest.mark.parametrize(
    ("field", "why"),
    [
        (lambda t, z: -z, "it is not an nn.Module"),
        (OwnZeros(), r"it gives torch.float32 for float64; make its own .*torch.zeros_like\(z\)"),
    ],
)
def test_a_tolerance_that_float32_cannot_hold_is_checked_and_noted(field, why):
    report = quiet(field, None, X.repeat(4, 1), solver="dopri5", rtol=1e-7, atol=1e-9)
    [note] = [note for note in report.notes if "finer than float32 can hold" in note]
    assert report.verdict == FLOW and re.search(why, note)


class Drift(nn.Module):
    """A module whose field is a method with another name."""

    def __init__(self):
        super().__init__()
        self.net = nn.Linear(2, 2)

    def slope(self, t, z):
        return self.net(z)


def test_a_method_of_a_module_is_brought_to_float64_with_it():
    drift = Drift()
    weight = drift.net.weight.clone()
    report = quiet(drift.slope, None, X.repeat(4, 1), solver="dopri5", rtol=1e-7, atol=1e-9)
    assert report.verdict == FLOW and not any("float32" in note for note in report.notes)
    assert drift.net.weight.dtype == torch.float32 and torch.equal(drift.net.weight, weight)


def test_a_solve_may_ask_for_a_module():
    def solve(f, z, t):
        return odeint_adjoint(f, z, t, method="euler", options={"step_size": 0.25})[-1]

    field, x = rotation(), X.repeat(4, 1)
    report = quiet(field, None, x, solve=solve)
    assert report.distances == pytest.approx(
        quiet(field, None, x, solver="euler", n_steps=4).distances, abs=1e-5
    )


def test_a_class_that_is_masked_changes_nothing():
    """-inf is a logit: the class is never predicted."""
    x = normal(300, 2)
    y = (x[:, 0] > 0).long()
    head = nn.Linear(2, 3)
    head.weight.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    head.bias.data = torch.tensor([0.0, 0.0, -50.0])
    mask = torch.tensor([0.0, 0.0, -math.inf])
    plain, masked = (
        quiet(rotation(0.5), layers, x, y, solver="euler", n_steps=2)
        for layers in (head, lambda z: head(z) + mask)
    )
    assert masked.verdict == plain.verdict and masked.exact == plain.exact
    assert masked.settled.all()


def test_a_class_that_the_state_carries_is_asked_about_as_it_is():
    """At a random state there is no such class."""
    labels = torch.arange(60) % 3
    bias = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])

    def field(t, state):
        z, label = state
        return 0.1 * bias[label.long()[:, 0]] - 0.1 * z, torch.zeros_like(label)

    x = normal(60, 2)
    report = quiet(field, None, (x, labels[:, None].float()), solver="euler", n_steps=8)
    exact = bias[labels] + (x - bias[labels]) * math.exp(-0.1)
    euler = bias[labels] + (x - bias[labels]) * (1 - 0.1 / 8) ** 8
    assert report.verdict == FLOW
    assert report.distances == pytest.approx((exact - euler).norm(dim=1).numpy(), abs=1e-5)


def test_a_field_that_falls_back_to_float32_is_noted():
    report = quiet(OwnZeros(), None, X.repeat(4, 1), **OPTIONS)
    assert any("torch.float32 for float64" in note for note in report.notes)


def test_complex_weights_keep_their_imaginary_parts():
    """dz/dt = 6i z turns the plane; with the real part of the weight it would stand still."""

    class Turning(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([6j]))
            self.one = torch.tensor([1.0 + 0j])  # no parameter

        def forward(self, t, z):
            return torch.view_as_real(self.one * self.w * torch.view_as_complex(z)[:, None])[:, 0]

    module, x = Turning(), torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    held = quiet(module, None, x, solver="euler", n_steps=2)
    called = quiet(lambda t, z: module(t, z), None, x, solver="euler", n_steps=2)
    assert held.verdict == called.verdict == NOT_A_FLOW
    assert held.tested[-1].changed.value == called.tested[-1].changed.value > 0.9


def test_no_more_samples_than_rows_are_held_at_once():
    most, x = {"field": 0, "head": 0}, torch.randn(700, 2)

    def field(t, z):
        most["field"] = max(most["field"], len(z))
        return -z

    def head(z):
        most["head"] = max(most["head"], len(z))
        return z

    quiet(field, head, x, solver="euler", n_steps=4, rows=300)
    assert most == {"field": 300, "head": 300}


def test_a_loss_that_is_no_number_counts_for_either_verdict():
    x, y = turned_points(200)
    lost = torch.arange(200) < 80

    def loss(out, target):
        right = (out.argmax(1) == target[:, 0]).double()
        return right.masked_fill(target[:, 1] == 1, math.nan)

    targets = torch.stack([y, lost.long()], 1)
    report = quiet(rotation(), HEAD, x, targets, loss=loss, tolerance=0.5, solver="rk4", n_steps=16)
    assert report.verdict == CANNOT_TELL and report.tested[-1].unsettled == 80
    assert report.tested[-1].changed.high > 0.4


@pytest.mark.parametrize("label", [0, 1])
def test_what_the_training_solver_cannot_solve_could_be_lost_as_well_as_won(label):
    """Whatever class the outputs of failed solves, which are NaN, seem to have."""
    n, own_known = 100, torch.arange(100) >= 20
    before = torch.ones(n, dtype=torch.bool)
    before[:20] = label == 0
    drop = bounded_drop(before, before & own_known, own_known, own_known)
    assert drop.value == 0 and drop.low < -0.2 and drop.high > 0.2


def test_dropout_and_batch_norm_in_eval_mode_are_fine():
    layers = nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)
    assert quiet(**changed(field=Field(*layers).eval())).verdict in (FLOW, NOT_A_FLOW, CANNOT_TELL)
    training = Field(nn.Linear(2, 2), nn.Dropout(0.0)).train()
    assert quiet(**changed(field=training)).tested
