"""A verdict is never silently wrong: the exact flow proves itself, or its samples are unsettled."""

import math
import re
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from checks import decay, normal, quiet
from torch import nn
from torch.nn import functional as F
from torchdiffeq import odeint

from nodecore.analysis.intervals import paired_difference
from nodecore.check.reference import Reference
from nodecore.check.solves import from_inside, walk_times
from nodecore.check.verdict import CANNOT_TELL, FLOW, NOT_A_FLOW, lost_recalls, recalls
from nodecore.ode.runge_kutta import rk_step
from nodecore.ode.tableaus import get_tableau


def pulse(low, high, size):
    """dz/dt = -0.1 z, and `size` more for a short time."""

    def field(t, z):
        return -0.1 * z + (size if low < float(t) < high else 0.0)

    return field


# --- what is short in time ------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize(
    "times", [(0.52, 0.58), (0.541, 0.549), (0.06, 0.065)], ids=["the task's", "short", "early"]
)
def test_a_pulse_that_training_and_an_adaptive_solve_step_over_is_seen(solver, times):
    low, high = times
    x, size = normal(60, 2), 1.2 / (high - low)
    report = quiet(pulse(low, high, size), None, x, solver=solver, n_steps=10)
    # The exact flow, by hand: decay, and what the pulse adds decays from then on.
    added = size * (math.exp(-0.1 * (1 - high)) - math.exp(-0.1 * (1 - low))) / 0.1
    own = walk_times(pulse(low, high, size), x, [k / 10 for k in range(11)], solver)[-1]
    moved = (own - (x * math.exp(-0.1) + added)).norm(dim=1)
    if float(moved.median()) > 0.5:
        assert report.verdict == NOT_A_FLOW
    np.testing.assert_allclose(report.distances, moved, rtol=0.01, atol=1e-3)
    assert report.settled.all() and any("the field jumps" in note for note in report.notes)


@pytest.mark.parametrize("width", [3e-3, 1e-4])
def test_a_smooth_bump_that_training_steps_over_is_seen(width):
    """dz/dt = -0.1 z + a Gaussian in time, whose area is 1.6."""
    middle, size = 0.43712, 1.6 / (width * math.sqrt(math.pi))

    def field(t, z):
        t = torch.as_tensor(t, dtype=torch.float64)
        return -0.1 * z + (size * torch.exp(-(((t - middle) / width) ** 2))).to(z)

    x = normal(60, 2)
    report = quiet(field, None, x, solver="euler", n_steps=10)
    own = x * 0.99**10  # no step begins within ten widths of the bump
    exact = x * math.exp(-0.1) + 1.6 * math.exp(-0.1 * (1 - middle))
    assert report.verdict == NOT_A_FLOW and report.settled.all()
    np.testing.assert_allclose(report.distances, (own - exact).norm(dim=1), rtol=0.01)


def residual_field(blocks):
    """Block k of a residual net on k <= t < k + 1."""
    return lambda t, z: blocks[min(int(t), len(blocks) - 1)](z)


@pytest.mark.parametrize("active", [0, 5, 11])
def test_a_quiet_residual_net_with_one_shift_is_exact_in_its_own_steps(active):
    blocks = [lambda z: torch.zeros_like(z)] * 12
    blocks[active] = lambda z: torch.tensor([2.0, 0.0]).expand_as(z)
    x = normal(200, 2)
    y = (x[:, 0] > 0).long()

    def head(z):
        return torch.stack([2 - z[:, 0], z[:, 0] - 2], 1)

    report = quiet(residual_field(blocks), head, x, y, solver="euler", n_steps=12, t=(0, 12))
    assert report.verdict == FLOW and report.distances.max() < 1e-5


def test_the_times_of_equal_steps_reach_every_block():
    """Sums of 0.1 fall short of 0.8: a field of blocks int(10 t) would be asked for one twice."""
    blocks = [lambda z, k=k: torch.full_like(z, 2.0**k) for k in range(10)]
    report = quiet(
        lambda t, z: 10 * blocks[min(int(t * 10), 9)](z), None, normal(40, 1).double(),
        solver="euler", n_steps=10,
    )  # fmt: skip
    assert report.verdict == FLOW and report.distances.max() < 1e-6


def test_the_field_is_asked_before_the_end_of_a_step():
    times = []
    f = from_inside(lambda t, z: times.append(t) or z, 0.0, 0.5, torch.float32)
    f(0.25, torch.ones(1)), f(torch.tensor(0.5), torch.ones(1))
    assert times[0] == 0.25 and 0.5 - 1e-7 < times[1] < 0.5


def test_what_is_short_in_space_is_seen_as_the_finer_rows_see_it():
    """A ridge that is passed in 1 of 500 steps lifts by 1; it lies between stages of dopri5."""

    def field(t, z):
        on_it = (z[:, 0] - 0.5).abs() < 0.001
        return torch.stack([torch.ones_like(z[:, 0]), 500.0 * on_it, -z[:, 2]], 1)

    x = torch.cat([torch.full((36, 1), 0.0936), normal(36, 2)], 1).double()
    report = quiet(field, None, x, solver="euler", n_steps=500)
    assert report.verdict == FLOW and report.settled.all()
    assert any("needed a finer exact flow" in note for note in report.notes)


# --- what does not converge -----------------------------------------------------------------------


def watershed(t, z):
    """dz/dt = 20 tanh(z - cos 3 t): what begins e^-20 apart ends a unit apart."""
    return 20 * torch.tanh(z - torch.cos(3 * torch.as_tensor(t).to(z)))


@pytest.fixture(scope="module")
def on_the_watershed():
    back = [1 - k / 2000 for k in range(2001)]
    z = torch.zeros(1, 1, dtype=torch.float64)
    for b, a in pairwise(back):
        z = rk_step(watershed, b, z, a - b, get_tableau("rk4"))
    return z + 1e-6 * normal(36, 1).double()


def test_what_is_sensitive_is_judged_by_a_flow_that_has_converged(on_the_watershed):
    """At 1e-6 torchdiffeq's dopri5 is off as much as the training; at 1e-12 it is the witness."""
    x, ts = on_the_watershed, torch.tensor([0.0, 1.0], dtype=torch.float64)
    report = quiet(watershed, None, x, solver="rk4_38", n_steps=100)
    own = odeint(watershed, x, ts, method="rk4", options={"step_size": 0.01})[-1]
    exact, coarse = (odeint(watershed, x, ts, rtol=r, atol=r)[-1] for r in (1e-12, 1e-6))
    moved = (own - exact).norm(dim=1)
    assert (coarse - own).norm(dim=1).median() > 1.5 * moved.median()
    assert report.settled.all() and any("needed a finer exact flow" in n for n in report.notes)
    np.testing.assert_allclose(report.distances, moved, rtol=0.1, atol=0.05)


def test_what_float32_cannot_hold_is_not_told(on_the_watershed):
    report = quiet(watershed, None, on_the_watershed.float(), solver="rk4_38", n_steps=100)
    assert report.verdict == CANNOT_TELL and report.exact.unsettled > 10
    assert any("has not converged" in caution for caution in report.cautions)


def test_a_stiff_field_is_not_a_flow_in_steps_that_are_too_long():
    x = 1 + normal(60, 2).abs()
    report = quiet(lambda t, z: -100 * (z - torch.cos(t)), None, x, solver="euler", n_steps=20)
    assert report.verdict in (NOT_A_FLOW, CANNOT_TELL)
    fine = quiet(lambda t, z: -50 * (z - torch.cos(t)), None, x, solver="rk4", n_steps=100)
    assert fine.distances.max() < 1e-3


# --- samples that cannot be solved ----------------------------------------------------------------


def explosive(t, z):
    """Harmless near the data; beyond 3 it reaches infinity in finite time."""
    return torch.where(z.norm(dim=1, keepdim=True) > 3, (z * z).exp(), 0.1 * z)


@pytest.mark.parametrize("at", [[7], [0, 199]])
def test_a_sample_that_blows_up_does_not_decide(at):
    x = normal(200, 2).clamp(-1.5, 1.5)
    y = (x.norm(dim=1) > 1).long()
    x[at] = 5.0

    def head(z):
        return torch.stack([1.1 - z.norm(dim=1), z.norm(dim=1) - 1.1], 1)

    reports = [quiet(explosive, head, x, y, solver="euler", n_steps=16, rows=r) for r in (50, 200)]
    for report in reports:
        assert report.verdict == FLOW and report.exact.unsettled == len(at)
        assert f"{len(at)} of 200 samples could not be solved" in report.cautions[0]
    assert reports[0].exact.changed == reports[1].exact.changed


def test_samples_that_blow_up_take_no_others_with_them():
    """dz/dt = z^2 from 2 is infinite at t = 0.5; what lies below 1 has a solution."""

    class Square(nn.Module):
        def forward(self, t, z):
            return torch.stack([z[:, 0].square(), 1.5 * torch.sin(3 * z[:, 1])], 1)

    generator = torch.Generator().manual_seed(0)
    start = 0.5 * torch.rand(600, generator=generator)
    start[torch.randperm(600, generator=generator)[:40]] = 2.0
    x = torch.stack([start, normal(600)], 1)
    report = quiet(Square(), None, x, solver="euler", n_steps=4)
    assert report.settled.tolist() == (start < 1).tolist()
    assert "40 of 600 samples could not be solved" in report.cautions[0]
    assert report.verdict == NOT_A_FLOW
    note = next(note for note in report.notes if "could not be solved by dopri5" in note)
    assert "rtol" not in note  # the tolerance is the check's own


class Guarded(nn.Module):
    """The explosive field; it refuses states far away in one of the ways that people have."""

    def __init__(self, refuse):
        super().__init__()
        self.refuse = refuse

    def forward(self, t, z):
        if (z.norm(dim=1) > 50).any() or not z.isfinite().all():
            self.refuse()
        return explosive(t, z)


def fail():
    raise AssertionError("the state has left the region")


REFUSALS = {
    "assert": fail,
    "validation": lambda: torch.distributions.Normal(math.nan, 1.0, validate_args=True),
    "matrix": lambda: torch.linalg.cholesky(-torch.eye(2)),
    "overflow": lambda: math.exp(1e4),
}


@pytest.mark.parametrize("how", REFUSALS)
@pytest.mark.parametrize("by", ["solver", "solve"])
def test_a_sample_that_a_field_refuses_does_not_decide(how, by):
    x = normal(200, 2).clamp(-1.5, 1.5)
    y = (x.norm(dim=1) > 1).long()
    x[[3, 150]] = 5.0

    def head(z):
        if not z.isfinite().all():
            raise ValueError("logits of no state")
        return torch.stack([1.1 - z.norm(dim=1), z.norm(dim=1) - 1.1], 1)

    def walk(f, z, t):
        for i in range(16):
            z = z + f(i / 16, z) / 16
        return z

    training = {"solver": "euler", "n_steps": 16} if by == "solver" else {"solve": walk}
    report = quiet(Guarded(REFUSALS[how]), head, x, y, **training)
    assert report.verdict == FLOW and report.exact.unsettled == 2
    assert "2 of 200 samples could not be solved" in report.cautions[0]
    notes = " ".join(report.notes)
    assert "2 of 200 samples could not be solved by dopri5" in notes
    assert "the field raised" in notes and " at t = 0" in notes


def test_a_field_that_runs_out_of_memory_is_an_error():
    class Large(nn.Module):
        def forward(self, t, z):
            if float(t) > 0.5:
                raise torch.OutOfMemoryError("no memory")
            return -z

    with pytest.raises(torch.OutOfMemoryError, match="no memory"):
        quiet(Large(), None, normal(50, 2), solver="euler", n_steps=4)


def test_a_time_that_ends_at_a_pole_of_the_formula_is_solved():
    """A denoiser of N(0, c^2): dx/ds = (x - D) / s with D = c^2 x / (c^2 + s^2), down to s = 0."""

    class Score(nn.Module):
        def forward(self, s, x):
            return (x - 0.3 * x / (0.3 + s**2)) / s  # next to 0, rounding over nothing

    x, sizes = 4 * normal(200, 2), [4.0, 2.0, 1.0, 0.5, 0.0]
    report = quiet(Score(), None, x, solver="euler", grid=sizes, t=(4.0, 0.0))
    exact, z = x * math.sqrt(0.3 / (0.3 + 16)), x.clone()
    for s, following in pairwise(sizes):
        z = z + (following - s) * Score()(s, z)
    assert report.settled.all()
    assert report.distances == pytest.approx((z - exact).norm(dim=1).numpy(), abs=1e-4)


def test_samples_that_could_not_be_solved_are_not_said_to_have_not_converged():
    known = torch.tensor([True, True, True, False, False])
    settled = torch.tensor([True, True, False, False, False])
    solved: Any = SimpleNamespace(known=known)
    [note] = Reference(solved, settled, 3).notes
    assert note == "3 of 5 samples needed a finer exact flow; for 1 it has not converged"


def test_samples_whose_exact_flow_ends_early_count_for_either_answer():
    """dz/dt = z^2 reaches infinity at 1 / z(0), which Euler's method does not notice."""
    x = torch.cat([0.1 * normal(180, 1).abs().clamp(max=2), 1.2 + normal(20, 1).abs().clamp(max=1)])
    report = quiet(lambda t, z: z * z, None, x, solver="euler", n_steps=8, tolerance=0.05)
    assert report.exact.unsettled == 20 and report.verdict == CANNOT_TELL
    exact = x[:180] / (1 - x[:180])
    own = x[:180]
    for _ in range(8):
        own = own + own * own / 8
    np.testing.assert_allclose(report.distances[:180], (own - exact).abs()[:, 0], atol=1e-5)
    assert report.exact.changed.value == pytest.approx(
        float(((own - exact).abs() > 0.05).sum()) / 180
    )


# --- without labels -------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 34])
def test_few_samples_are_no_verdict(n):
    report = quiet(decay, None, normal(n, 5), solver="euler", n_steps=1)
    assert report.verdict == CANNOT_TELL and f"{n} samples are too few" in report.reason


def test_outputs_that_are_all_alike_are_judged_by_how_far_they_went():
    x = torch.ones(50, 3)
    assert quiet(decay, None, x, solver="rk4", n_steps=8).verdict == FLOW
    assert quiet(decay, None, x, solver="euler", n_steps=2).verdict == NOT_A_FLOW
    still = quiet(lambda t, z: 0 * z, None, x, solver="euler", n_steps=2)
    assert still.verdict == FLOW and still.distances.max() == 0


def test_units_do_not_decide_and_data_in_the_state_do_not_dilute():
    angle = 2.0
    turning = angle * torch.tensor([[0.0, -1.0], [1.0, 0.0]])

    def rotation(t, z):
        return torch.cat([z[:, :2] @ turning.T.to(z), torch.zeros_like(z[:, 2:])], 1)

    x, data = normal(80, 2), 1e4 * normal(80, 30, seed=1)
    units = torch.tensor([1.0, 1e6])

    def scaled(t, z):
        return units.to(z) * (z / units.to(z) @ turning.T.to(z))

    verdicts = [
        quiet(rotation, None, torch.cat([x, data], 1), solver="euler", n_steps=2).verdict,
        quiet(scaled, None, x * units, solver="euler", n_steps=2).verdict,
        quiet(rotation, None, x, solver="euler", n_steps=2).verdict,
    ]
    assert verdicts == [NOT_A_FLOW] * 3
    good = quiet(rotation, None, torch.cat([x, data], 1), solver="rk4", n_steps=8)
    assert good.verdict == FLOW
    mixed = quiet(
        lambda t, z: torch.stack([-z[:, 0], torch.zeros_like(z[:, 1])], 1),
        None, x * torch.tensor([1e-3, 1e3]), solver="euler", n_steps=1,
    )  # fmt: skip
    assert mixed.verdict == NOT_A_FLOW  # the small one alone is wrong


def test_an_axis_behind_the_first_does_not_make_units_one():
    """A state (n, 1, 2), as of torchdiffeq's demo, is the state (n, 2)."""
    units = torch.tensor([1e4, 1.0])

    def field(t, z):
        a, b = (z / units).unbind(-1)
        return units * torch.stack([0.1 * a, 6 * b * (a - b)], -1)

    generator = torch.Generator().manual_seed(0)
    x = units * (0.3 + torch.rand(200, 2, generator=generator))
    flat, deep = (quiet(field, None, s, solver="euler", n_steps=4) for s in (x, x[:, None]))
    assert flat.verdict == deep.verdict == NOT_A_FLOW
    assert flat.exact.changed == deep.exact.changed


@pytest.mark.parametrize("outliers", [1, 15])
def test_outliers_do_not_set_the_scale_of_all(outliers):
    turning = 2.0 * torch.tensor([[0.0, -1.0], [1.0, 0.0]])
    x = normal(200, 2)
    x[:outliers] = 1e6
    report = quiet(lambda t, z: z @ turning.T.to(z), None, x, solver="euler", n_steps=2)
    assert report.verdict == NOT_A_FLOW and report.exact.changed.value > 0.95


# --- layers that are not what they seem -----------------------------------------------------------

SLOW = {"solver": "euler", "n_steps": 4}


def slow(t, z):
    return 1e-3 * z


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (lambda z: F.dropout(z, 0.5, training=True), "head gives two answers"),
        (lambda z: z + 1e-3 * torch.randn_like(z), "head gives two answers"),
        (lambda z: z - z.mean(0), "head gives a sample another answer when it is alone"),
        (lambda z: z * torch.arange(len(z))[:, None], "head gives samples another answer"),
        (lambda z: (z, z), "head returned tuple"),
    ],
)
def test_a_head_that_is_random_or_mixes_samples_is_refused(head, message):
    with pytest.raises(ValueError, match=message):
        quiet(slow, head, normal(60, 2), **SLOW)


@pytest.mark.parametrize(
    "stem", [lambda x: F.dropout(x, 0.3, training=True), lambda x: x / x.norm()]
)
def test_a_stem_that_is_random_or_mixes_samples_is_refused(stem):
    with pytest.raises(ValueError, match="stem gives"):
        quiet(slow, None, normal(60, 2), stem=stem, **SLOW)


def test_a_head_that_works_on_a_batch_only_is_refused():
    with pytest.raises(ValueError, match=r"head fails on a sample alone .*call .eval"):
        quiet(slow, lambda z: F.batch_norm(z, None, None, training=True), normal(60, 2), **SLOW)


def in_place(t, z):
    z *= -1
    return z


def into_one_tensor():
    kept = {}

    def field(t, z):
        out = kept.setdefault((z.shape, z.dtype), torch.empty_like(z))
        return out.copy_(-z)

    return field


def with_memory():
    seen = []

    def field(t, z):
        seen.append(z.clone())
        before = seen[-2] if len(seen) > 1 and seen[-2].shape == z.shape else z
        return -0.5 * (z + before)

    return field


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (in_place, "field changes the states it is given: let it work on z.clone()"),
        (into_one_tensor(), "field returns one tensor that its next call overwrites"),
        (with_memory(), "what it remembers of earlier calls"),
    ],
)
def test_a_field_that_is_no_function_of_its_state_is_refused(field, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        quiet(field, None, normal(60, 2), solver="rk4", n_steps=8)


def test_layers_that_work_in_place_leave_inputs_and_states_alone():
    x = normal(60, 2)
    before = x.clone()
    options = {"solver": "euler", "n_steps": 2}
    pure = quiet(decay, lambda z: z.relu(), x, stem=lambda x: x.relu(), **options)
    inside = quiet(decay, nn.ReLU(inplace=True), x, stem=nn.ReLU(inplace=True), **options)
    assert torch.equal(x, before) and inside.verdict == pure.verdict
    np.testing.assert_array_equal(inside.distances, pure.distances)


def test_a_field_that_closes_over_data_of_each_sample_is_refused_and_takes_them_as_args():
    data, x = normal(90, 2, seed=1), normal(90, 2)
    with pytest.raises(ValueError, match=r"works on some|field failed.*args="):
        quiet(lambda t, z: z * data.to(z), None, x, **SLOW)
    with pytest.raises(ValueError, match=r"another order: it closes over data.*args="):
        quiet(lambda t, z: z * data[: len(z)].to(z), None, x, **SLOW)
    report = quiet(lambda t, z, a: z * a, None, x, args=data, solver="euler", n_steps=8)
    exact = x * data.exp()
    np.testing.assert_allclose(
        report.distances, (x * (1 + data / 8) ** 8 - exact).norm(dim=1), rtol=1e-3, atol=1e-5
    )


def test_a_field_whose_time_dependence_is_rare_is_found_out():
    def field(t, z):
        return z if not 0.3 < float(t) < 0.31 else 2 * z

    def far_out(t, z):
        far = z.norm(dim=1, keepdim=True) > 2.5  # 4 % of the samples
        return torch.where(far, torch.cos(9 * torch.as_tensor(t).to(z)), -z)

    for timed in (field, far_out):
        report = quiet(timed, None, normal(50, 2), solver="euler", n_steps=20)
        assert any("depends on time" in note for note in report.notes)
    plain = quiet(decay, None, normal(50, 2), solver="euler", n_steps=20)
    assert any("assumed not to depend on time" in note for note in plain.notes)


# --- what the report says besides -----------------------------------------------------------------


@pytest.mark.parametrize(("solver", "said"), [("rk4", "rk4_38"), ("rk4_38", "3/8 rule")])
def test_the_first_line_says_which_rk4_it_was(solver, said):
    report = quiet(decay, None, normal(50, 2), solver=solver, n_steps=2)
    assert said in str(report).splitlines()[0] and any(said in note for note in report.notes)


def test_probabilities_are_taken_as_they_are():
    linear = nn.Linear(2, 3)
    torch.nn.init.constant_(linear.bias, 0.0)
    linear.weight.data = 4 * torch.tensor([[1.0, 0.0], [-0.5, 0.9], [-0.5, -0.9]])
    x = normal(200, 2)
    y = linear(x).argmax(1)
    found = [
        quiet(decay, head, x, y, solver="euler", n_steps=2).probability_change
        for head in (
            linear,
            lambda z: linear(z).softmax(1),
            lambda z: linear(z).log_softmax(1),
            lambda z: linear(z).softmax(1).half(),
        )
    ]
    p, q = (linear(factor * x).softmax(1) for factor in (0.25, math.exp(-1)))  # of 2 steps, exact
    assert found[0] == pytest.approx(((p - q).abs().sum(1).mean() / 2).item(), rel=1e-3)
    assert found[3] == pytest.approx(found[0], rel=1e-2)
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


def test_a_class_that_wins_about_as_many_samples_as_it_loses_is_not_said_to_lose():
    """Of 100, 40 are lost and 25 are won: the interval holds no loss at all."""
    y = torch.zeros(100).long()
    own = torch.eye(2)[torch.tensor([0] * 40 + [1] * 25 + [0] * 35)]
    exact = torch.eye(2)[torch.tensor([1] * 40 + [0] * 25 + [0] * 35)]
    (recall,) = recalls(y, own, exact, torch.ones(100, dtype=torch.bool))
    assert (recall.own, recall.exact, recall.n) == (0.75, 0.6, 100)
    assert recall.drop == paired_difference(40, 25, 100) and recall.drop.low < 0
    assert lost_recalls((recall,)) == []


def test_a_class_that_loses_its_recall_and_states_that_move_stand_beside_the_verdict():
    """40 of 600 points: one Euler step takes them from -1 to 1, the exact flow to -0.1."""
    x = torch.cat([torch.full((280, 1), 10.0), torch.full((280, 1), 20.0), torch.full((40, 1), -1)])
    y = torch.tensor([1] * 280 + [2] * 280 + [0] * 40)

    def head(z):
        inside = (z[:, 0] > 0) & (z[:, 0] < 5)
        return torch.stack([1.0 * inside, 1.0 * (z[:, 0] < 15) - 0.5, 1.0 * (z[:, 0] > 15)], 1)

    def field(t, z):
        return torch.where(z < 0, -2 * z, 0 * z)

    report = quiet(field, head, x, y, solver="euler", n_steps=1)
    assert report.verdict == FLOW and [r.n for r in report.recalls] == [40, 280, 280]
    assert report.recalls[0].own == 1.0 and report.recalls[0].exact == 0.0
    assert "class 0 (40 samples): 100 % are right" in str(report).splitlines()[2]
    assert [str(r) for r in lost_recalls(report.recalls)] == [report.cautions[0]]
    far = quiet(lambda t, z: z, lambda z: torch.cat([-z, z], 1), normal(300, 1),
                (normal(300, 1)[:, 0] > 0).long(), solver="euler", n_steps=1)  # fmt: skip
    assert far.verdict == FLOW and any("the accuracy stays" in text for text in far.cautions)
