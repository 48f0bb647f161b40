"""Models as people have them: their steps, times, labels, states and ways of calling a field."""

import math
import re
from typing import NamedTuple

import numpy as np
import pytest
import torch
from checks import decay, normal, quiet
from scipy.integrate import solve_ivp
from torch import nn
from torchdiffeq import odeint

from nodecore.analysis.evaluate import solve_setting
from nodecore.check.convention import find_convention
from nodecore.check.inputs import Samples, read_labels, read_times
from nodecore.check.model import FlowModel
from nodecore.check.order import order_test
from nodecore.check.probes import probe_field, random_states, scan_time, states_beyond
from nodecore.check.settings import (
    TimeGrid,
    TwoTolerances,
    better_settings,
    count_given_steps,
    read_training,
    searched_settings,
)
from nodecore.check.verdict import (
    CANNOT_TELL,
    FLOW,
    NOT_A_FLOW,
    Terms,
    bounded_share,
    judge,
)
from nodecore.check.verdict import Tested as Row  # no test case
from nodecore.ode.steps import FixedSteps, Tolerance

EULER = {"solver": "euler", "n_steps": 4}
HEAD = nn.Linear(2, 2)
HEAD.weight.data, HEAD.bias.data = torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), torch.zeros(2)
ENDS = (0.0, 1.0)


def growing(t, z):
    return t * z


# --- steps ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"step_size": 0.4}, 0.6 * 0.6 * 0.8),
        ({"step_size": 0.25}, 0.75**4),
        ({"grid": torch.tensor([0.0, 0.1, 1.0])}, 0.9 * 0.1),
        ({"grid": [0, 0.5, 1]}, 0.25),
    ],
)
def test_steps_of_a_size_or_a_grid_are_taken_as_they_are(options, factor):
    x = normal(60, 2)
    report = quiet(decay, None, x, solver="euler", **options)
    moved = (x * (factor - math.exp(-1))).norm(dim=1)
    np.testing.assert_allclose(report.distances, moved, rtol=1e-3, atol=1e-5)
    assert len(report.tested) >= 4


def test_the_times_of_a_step_size_are_torchdiffeqs():
    x = normal(50, 2)
    ts = torch.tensor([0.0, 1.0])
    theirs = odeint(growing, x, ts, method="midpoint", options={"step_size": 0.3})[-1]
    report = quiet(growing, None, x, solver="midpoint", step_size=0.3)
    moved = (theirs - x * math.exp(0.5)).norm(dim=1)
    np.testing.assert_allclose(report.distances, moved, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(
    ("solve", "verdict"),
    [
        (lambda f, z0, t: odeint(f, z0, t, method="dopri8", rtol=1e-4, atol=1e-4)[-1], FLOW),
        (lambda f, z0, t: z0 + f(t[0], z0), NOT_A_FLOW),
    ],
)
def test_a_solve_of_ones_own_is_what_everything_is_judged_against(solve, verdict):
    report = quiet(decay, None, normal(60, 2), solve=solve)
    assert report.verdict == verdict and report.training.setting.solver == "own solver"


def each_at_its_own_time(f, z0, t):
    """The midpoint method in 4 steps of a sample that begins near 0, in 16 of another one."""
    times, z = t[0].expand(len(z0)).clone(), z0
    h = torch.where(z0[:, 0].abs() < 1, 1 / 4, 1 / 16) * (t[-1] - t[0])
    for k in range(16):
        step = torch.where((k * h).abs() < (t[-1] - t[0]).abs() - 1e-6, h, 0.0)
        half = z + step[:, None] / 2 * f(times, z)
        z, times = z + step[:, None] * f(times + step / 2, half), times + step
    return z


@pytest.mark.parametrize("t", [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize(
    "field",
    [
        lambda t, z: 3 * torch.cos(3 * t)[:, None] * torch.ones_like(z),
        lambda t, z: 3 * torch.cos(3 * torch.as_tensor(t)).reshape(-1, 1) * torch.ones_like(z),
        lambda t, z: 3 * math.cos(3 * float(t)) * torch.ones_like(z),
    ],
)
def test_a_solve_may_give_each_sample_a_time_of_its_own(field, t):
    """dz/dt = 3 cos(3 t): z(end) = z(start) + sin(3 end) - sin(3 start), whatever z is."""
    x = 1.5 * normal(60, 1)

    def slopes(times, z):
        return 3 * torch.cos(3 * times)[:, None] * torch.ones_like(z)

    own = each_at_its_own_time(slopes, x, torch.tensor(t))
    exact = x + math.sin(3 * t[1]) - math.sin(3 * t[0])
    report = quiet(field, None, x, solve=each_at_its_own_time, t=t, tolerance=0.05)
    assert report.verdict == FLOW
    np.testing.assert_allclose(report.distances, (own - exact).abs()[:, 0], rtol=1e-2, atol=1e-5)


def test_each_samples_time_goes_with_its_args():
    x, rates = 1.5 * normal(60, 1), normal(60, 1, seed=1).abs()

    def field(t, z, rate):
        return -rate * float(t) * z

    report = quiet(field, None, x, args=rates, solve=each_at_its_own_time)
    own = each_at_its_own_time(lambda t, z: -rates * t[:, None] * z, x, torch.tensor(ENDS))
    exact = x * torch.exp(-rates / 2)
    np.testing.assert_allclose(report.distances, (own - exact).abs()[:, 0], rtol=1e-2, atol=1e-6)
    with pytest.raises(ValueError, match=r"solve calls its field with 2 times for 60"):
        quiet(decay, None, x, solve=lambda f, z0, t: z0 + f(t, z0))


def test_a_solve_may_be_scipys_which_is_in_float64():
    torch.manual_seed(0)
    layer = nn.Linear(2, 2)

    def solve(f, z0, t):
        found = solve_ivp(
            lambda s, z: f(s, torch.from_numpy(z).view_as(z0)).numpy().ravel(),
            t.tolist(), z0.numpy().ravel(), rtol=1e-2,
        )  # fmt: skip
        return torch.from_numpy(found.y[:, -1]).view_as(z0)

    x = normal(60, 2)
    with torch.no_grad():
        own = solve(lambda t, z: layer(z.float()).double(), x, torch.tensor(ENDS))
        exact = odeint(lambda t, z: layer(z), x, torch.tensor(ENDS), rtol=1e-6, atol=1e-6)[-1]
    for field in (layer, lambda t, z: layer(z)):
        report = quiet(field, None, x, solve=solve)
        np.testing.assert_allclose(report.distances, (own - exact).norm(dim=1), atol=1e-5)


def test_a_size_that_was_rounded_leaves_no_sliver():
    assert [count_given_steps(round(1 / n, 12), 1.0) for n in range(1, 1000)] == [*range(1, 1000)]
    assert [count_given_steps(1 / n - 1e-6, 1.0) for n in (1, 2, 10)] == [2, 3, 11]


def test_a_tighter_tolerance_is_so_in_both_of_its_parts():
    both = TwoTolerances("dopri5", 1e-3, False, 1e-5)
    assert better_settings(both) == [TwoTolerances("dopri5", 1e-4, False, 1e-6)]
    coarsest = searched_settings(both)[0]
    assert (coarsest.rtol, coarsest.atol) == (1.0, 1e-2)


def test_the_trainings_own_tolerance_is_among_those_that_are_searched():
    assert Tolerance("dopri5", 1 / 3000) in searched_settings(Tolerance("dopri5", 1 / 3000))


@pytest.mark.parametrize("form", [lambda a: a, lambda a: (a, 1.0), lambda a: {"rate": a}])
def test_args_may_hold_arrays(form):
    x, rates = normal(60, 2), normal(60, 1, seed=1)

    def field(t, z, args):
        rate = args["rate"] if isinstance(args, dict) else args
        return -z * (rate[0] if isinstance(rate, tuple) else rate)

    of_arrays = quiet(field, None, x, args=form(rates.numpy()), **EULER)
    of_tensors = quiet(field, None, x, args=form(rates), **EULER)
    np.testing.assert_array_equal(of_arrays.distances, of_tensors.distances)


def test_args_may_be_a_named_tuple():
    class Pair(NamedTuple):
        a: torch.Tensor
        b: torch.Tensor

    x, rates = normal(60, 2), Pair(normal(60, 1).abs(), normal(60, 1, seed=1).abs())

    def field(t, z, args):
        return -args.a * args.b * z

    euler = quiet(field, None, x, args=rates, solver="euler", n_steps=1)
    moved = x * (1 - rates.a * rates.b - torch.exp(-rates.a * rates.b))
    np.testing.assert_allclose(euler.distances, moved.norm(dim=1), rtol=1e-3, atol=1e-5)


def test_a_solve_that_gives_the_trajectory_is_refused():
    with pytest.raises(ValueError, match=r"solve returned .*z\(T\), such as odeint.*\[-1\]"):
        quiet(decay, None, normal(60, 2), solve=lambda f, z0, t: odeint(f, z0, t))
    pair = normal(60, 2), normal(60)
    with pytest.raises(ValueError, match=r"such as tuple\(p\[-1\] for p in odeint\(field"):
        quiet(lambda t, s: (-s[0], -s[1]), None, pair, solve=lambda f, z0, t: odeint(f, z0, t)[-1])


def test_rtol_and_atol_may_differ():
    report = quiet(decay, None, normal(60, 2), solver="dopri5", rtol=1e-3, atol=1e-5)
    assert report.verdict == FLOW and "atol 1e-05" in str(report.training.setting)


@pytest.mark.parametrize("atol", [None, 1e-9])
def test_an_atol_that_is_left_out_is_noted(atol):
    """torchdiffeq's own is 1e-9: of small states that is another solve."""
    x, calls = 0.01 * normal(60, 2), []

    def rotation(t, z):
        calls.append(t)
        return 8 * torch.stack([-z[:, 1], z[:, 0]], 1)

    odeint(rotation, x, torch.tensor(ENDS), rtol=1e-3, atol=atol or 1e-3)
    nfe = len(calls)
    report = quiet(rotation, None, x, solver="dopri5", rtol=1e-3, atol=atol)
    assert report.training.nfe == nfe
    noted = any("torchdiffeq's own default is 1e-9" in note for note in report.notes)
    assert noted == (atol is None)


@pytest.mark.parametrize(
    ("name", "ours"), [("heun2", "heun"), ("Euler", "euler"), ("RK45", "dopri5")]
)
def test_names_of_other_libraries_are_understood(name, ours):
    setting, notes = read_training(ENDS, solver=name, n_steps=np.int64(4))
    assert setting == FixedSteps(ours, 4) and name in notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "tsit5", "rtol": 1e-3}, "unknown.*solve="),
        ({"solver": "euler"}, "give exactly one"),
        ({"solver": "euler", "n_steps": 4, "atol": 1e-3}, "it belongs to rtol"),
        ({"solver": "euler", "step_size": 1.5}, "step_size = 1.5: give a size in"),
        ({"solver": "euler", "grid": [0.0, 0.5]}, "begin and end where t does"),
        ({"solver": None}, "name the training's"),
        ({"solver": None, "solve": decay, "n_steps": 3}, "leave out n_steps"),
    ],
)
def test_a_training_that_is_not_clear_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        read_training(ENDS, **options)


def test_a_grid_halves():
    assert TimeGrid("euler", (0.0, 0.5, 1.0)).halved().times == (0.0, 0.25, 0.5, 0.75, 1.0)


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (torch.linspace(0, 1, 9), r"9 entries: give t=\(0.0, 1.0\).*grid="),
        ((0, 0.1, 1), "3 entries"),
        (torch.zeros(5, 2), "all samples share"),
        (1.0, r"t = 1.0: give two times"),
        ((0.0, math.inf), "finite times"),
    ],
)
def test_times_that_are_more_than_start_and_end_are_refused(t, message):
    with pytest.raises(ValueError, match=message):
        read_times(t)


@pytest.mark.parametrize("t", [(1.0, 0.0), (-0.5, -2.0), (-2.0, 0.5)])
def test_time_may_run_backwards_and_be_negative(t):
    """dz/dt = t z: z(end) = z(start) exp((end^2 - start^2) / 2)."""
    x = normal(50, 2)
    report = quiet(growing, None, x, solver="euler", n_steps=2, t=t)
    h = (t[1] - t[0]) / 2
    own = x * (1 + h * t[0]) * (1 + h * (t[0] + h))
    moved = (own - x * math.exp((t[1] ** 2 - t[0] ** 2) / 2)).norm(dim=1)
    np.testing.assert_allclose(report.distances, moved, rtol=1e-3, atol=1e-5)


def test_what_is_said_of_times_that_run_backwards_is_in_the_users_time():
    """dz/dt = -z^2 from z(1) = 2 has its pole at t = 1/2; a field jumps at 0.7."""

    def jumps(t, z):
        return torch.where(t > 0.7, 5.0, -1.0) * z

    x, back = normal(60, 2), {"t": (1.0, 0.0), "solver": "euler", "n_steps": 4}
    assert "t = 0.7:" in " ".join(quiet(jumps, None, x, **back).notes)
    with pytest.raises(ValueError, match=r"^output_times holds 0.4, where"):
        quiet(decay, None, x, output_times=[1.0, 0.4, 0.0], **back)
    two = torch.full((40, 1), 2.0)
    notes = " ".join(quiet(lambda t, z: -z * z, None, two, **back).notes)
    assert re.search(r"40 of 40 samples could not be solved.* at t = 0\.(5|49999)", notes)


# --- fields, states and labels --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "arguments", "time_axes"),
    [
        (nn.Linear(2, 2), 1, 0),
        (lambda z: -z, 1, 0),
        (lambda v, rate=2.0: -rate * v, 1, 0),
        (lambda t, z: -z, 2, 0),
        (lambda T, z=None: -z, 2, 0),
        (lambda tau, z: -z, 2, 0),
        (lambda _, z, rate=2.0: -rate * z, 2, 0),
        (lambda t, z, args: -z, 3, 0),
        (lambda t, z: z * t[:, None], 2, 1),
        (lambda t, z: z * torch.cat([t, t], 1), 2, 2),
    ],
)
def test_the_way_of_calling_a_field_is_found_out(field, arguments, time_axes):
    found = find_convention(field, torch.tensor(0.0), normal(8, 2), None)
    assert (found.arguments, found.time_axes) == (arguments, time_axes)


def of_one_axis(t, z):
    assert t.dim() == 1
    return -2 * t[:, None] * z


def of_a_table(t, z):
    return -2 * {1: lambda: t[:, None]}[t.dim()]() * z


def of_a_column(t, z):
    return -2 * torch.cat([t, z], -1)[:, :1] * z


@pytest.mark.parametrize("field", [of_one_axis, of_a_table, of_a_column])
def test_a_field_that_fails_on_a_time_without_axes_gets_one_for_each_sample(field):
    x = 1.5 * normal(60, 2)
    report = quiet(field, None, x, solver="euler", n_steps=2)
    moved = (x * (0.5 - math.exp(-1))).norm(dim=1)
    np.testing.assert_allclose(report.distances, moved, rtol=1e-3, atol=1e-5)
    assert any(note.startswith("the field is given t with a") for note in report.notes)
    own = each_at_its_own_time(lambda t, z: -2 * t[:, None] * z, x, torch.tensor(ENDS))
    of_solve = quiet(field, None, x, solve=each_at_its_own_time)
    moved = (own - x * math.exp(-1)).norm(dim=1)
    np.testing.assert_allclose(of_solve.distances, moved, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(
    "field",
    [
        lambda z, t: -z,
        lambda X, t: -X,
        lambda x_t, T: -x_t,
        lambda inputs, time: -inputs,
    ],
)
def test_a_field_that_takes_the_state_first_is_refused(field):
    with pytest.raises(ValueError, match="lambda t, z: field"):
        quiet(field, None, normal(50, 2), **EULER)


@pytest.mark.parametrize(
    ("field", "remedy"),
    [
        (lambda z, t=None: -z, "field(z, t=t); where t is no time, give lambda t, z: field(z)"),
        (lambda x, time=0.0: -x, "field(z, time=t); where time is no time"),
        (lambda x, *, t=0.0: -x, "field(z, t=t)"),
        (lambda z, scale, t: -z, "field(z, t=t)"),
        (lambda v, rate=2.0, t=0.0: -v, "field(z, t=t); where t is no time, give lambda t, z: f"),
        (lambda tau, z, s=1.0: -z, "where s is no time, give lambda t, z: field(t, z)"),
        (lambda tau, s: -s, "where s is the state, give lambda t, z: field(t, z)"),
    ],
)
def test_a_time_behind_the_state_is_refused_with_a_default_too(field, remedy):
    """It would be lost: the field would be called as f(z)."""

    class Field(nn.Module):
        forward = staticmethod(field)

    for given in (field, Field()):
        with pytest.raises(ValueError, match=re.escape(remedy)):
            quiet(given, None, normal(50, 2), **EULER)
    assert find_convention(lambda z, k=2.0: -k * z, torch.tensor(0.0), normal(8, 2), None)


def test_a_function_around_a_module_of_another_type_gets_a_remedy():
    layer = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"x is torch.float64; .*x.float\(\), or the module"):
        quiet(lambda t, z: layer(z), None, normal(50, 2).double(), **EULER)
    assert quiet(layer, None, normal(50, 2).double(), **EULER).tested
    quiet(lambda t, z: layer(z), None, normal(50, 2).double().float(), **EULER)


def test_a_field_may_differentiate_inside():
    class Hamiltonian(nn.Module):
        def __init__(self):
            super().__init__()
            self.stiffness = nn.Parameter(torch.tensor(2.0))

        def forward(self, t, z):
            z = z.requires_grad_(True)
            energy = (self.stiffness * z[:, 0] ** 2 + z[:, 1] ** 2).sum() / 2
            (g,) = torch.autograd.grad(energy, z, create_graph=True)
            return torch.stack([g[:, 1], -g[:, 0]], 1)

    x = normal(60, 2)
    field = Hamiltonian()
    assert quiet(field, None, x, solver="rk4", n_steps=8).verdict == FLOW
    assert not x.requires_grad and field.stiffness.grad is None


def spring_by_grad(z):
    return torch.autograd.grad((z**2).sum() / 2, z)[0]


def spring_by_backward(z):
    (z**2).sum().div(2).backward()
    return z.grad


def spring_in_place(z):
    z[:, 0] += 1
    z[:, 0] -= 1
    return spring_by_grad(z.requires_grad_())


def spring_of_its_own_leaf(z):
    own = z.detach().clone().requires_grad_()
    return spring_by_grad(own)


@pytest.mark.parametrize(
    "gradient", [spring_by_grad, spring_by_backward, spring_in_place, spring_of_its_own_leaf]
)
def test_a_field_may_differentiate_with_respect_to_the_states_it_is_given(gradient):
    """Euler turns the plane by an angle and stretches it."""

    def field(t, z):
        g = gradient(z)
        return torch.stack([g[:, 1], -g[:, 0]], 1)

    x = normal(60, 2)
    report = quiet(field, None, x, solver="euler", n_steps=1)
    turned = torch.stack([x[:, 1], -x[:, 0]], 1)
    moved = (x + turned - math.cos(1) * x - math.sin(1) * turned).norm(dim=1)
    np.testing.assert_allclose(report.distances, moved, rtol=1e-3)
    assert not x.requires_grad and x.grad is None


class OnlyFloat32(nn.Module):
    def __init__(self, refuse):
        super().__init__()
        self.layer, self.refuse = nn.Linear(2, 2), refuse

    def forward(self, t, z):
        self.refuse(z)
        return self.layer(z)


def asserts(z):
    assert z.dtype == torch.float32


@pytest.mark.parametrize("refuse", [asserts, lambda z: {torch.float32: 1}[z.dtype]])
def test_a_field_that_refuses_float64_stays_in_float32(refuse):
    notes = " ".join(quiet(OnlyFloat32(refuse), None, normal(60, 2), **EULER).notes)
    assert re.search("cannot be brought to float64: (Assertion|Key)Error", notes)


class Constants(nn.Module):
    """A plain tensor that is no parameter, and a result that is kept."""

    def __init__(self):
        super().__init__()
        self.inner, self.frequencies = nn.Linear(4, 2), torch.arange(4) * 0.5

    def forward(self, t, z):
        self.last = self.inner((t * self.frequencies).sin()) - z
        return self.last


@pytest.mark.filterwarnings("ignore")
def test_modules_that_will_not_be_copied_or_cast_as_they_are():
    field = Constants()
    field(torch.tensor(0.5), normal(3, 2))
    report = quiet(field, None, normal(60, 2), solver="rk4", n_steps=8)
    assert report.verdict == FLOW and report.exact.setting.rtol == 1e-6
    normed = nn.utils.weight_norm(nn.Linear(2, 2))
    normed(normal(3, 2)).sum().backward()
    assert quiet(normed, None, normal(60, 2), solver="rk4", n_steps=8).tested
    scripted = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))
    assert quiet(scripted, None, normal(60, 2), solver="rk4", n_steps=8).verdict == FLOW


def test_states_without_features_and_tuples_of_states():
    x = normal(60)
    flat = quiet(lambda t, z: -z, None, x, solver="euler", n_steps=2)
    moved = (x * (0.25 - math.exp(-1))).abs()
    np.testing.assert_allclose(flat.distances, moved, rtol=1e-3, atol=1e-5)

    def field(t, state):
        z, logp = state
        return -z, torch.full_like(logp, 2.0)

    both = quiet(field, None, (normal(60, 2), torch.zeros(60, 1)), solver="rk4", n_steps=8)
    assert both.verdict == FLOW
    one = quiet(field, lambda s: s[0], (normal(60, 2), torch.zeros(60)), solver="euler", n_steps=1)
    assert one.verdict == NOT_A_FLOW


def test_a_small_part_of_a_state_is_not_lost_among_a_large_one():
    """A flow in 200 dimensions: the states hardly depend on the step, their log-density does."""

    def field(t, state):
        z, _ = state
        return torch.zeros_like(z), 2 * t * (z.mean(1, keepdim=True) * 200**0.5)

    x = normal(200, 200), torch.zeros(200, 1)
    report = quiet(field, None, x, solver="euler", n_steps=4)
    assert report.verdict == NOT_A_FLOW  # one step in four of 2 t: 0.75 in place of 1
    score = x[0].mean(1) * 200**0.5
    changed = (0.25 * score).abs() > 0.1 * score.std()
    assert report.exact.changed.value == pytest.approx(changed.double().mean().item(), abs=0.03)


def test_a_small_component_that_depends_on_time_is_not_lost_beside_a_large_one():
    """dz/dt = 5 sin(40 t) - z, which jumps by 30 at t = 0.7, beside a component of 1e9."""

    def field(t, z):
        small = 5 * torch.sin(40 * t) + 30 * (t > 0.7) - z[:, 1]
        return torch.stack([-0.1 * (1 + t) * z[:, 0], small], 1)

    x = torch.stack([1e9 * (1 + normal(200).abs()), normal(200)], 1)
    notes = quiet(field, None, x, solver="euler", n_steps=6).notes
    assert any("may cross" in note for note in notes)
    assert any("at t = 0.7:" in note for note in notes)


def test_what_is_of_the_size_of_rounding_is_no_dependence_on_time():
    def field(t, z):
        noise = torch.sin(40 * t) ** 2 + torch.cos(40 * t) ** 2 - 1
        return torch.stack([-z[:, 0], noise + 0 * z[:, 1]], 1)

    notes = quiet(field, None, normal(60, 2), **EULER).notes
    assert any("assumed not to depend on time" in note for note in notes)


class OfAClass(nn.Module):
    """A class stands in the state, as a number."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.layer = nn.Embedding(3, 2), nn.Linear(4, 2)

    def forward(self, t, state):
        z, c = state
        both = torch.cat([z, self.embedding(c.long()[:, 0])], 1)
        return torch.tanh(self.layer(both)), torch.zeros_like(c)


def of_a_covariance(t, P):
    lower = torch.linalg.cholesky(P)
    return 0.1 * lower @ lower.mT - 0.5 * P + torch.eye(2)


def entropy(p):
    return torch.distributions.Categorical(probs=p).entropy()


def test_states_are_taken_from_the_samples_where_random_ones_are_outside_the_domain():
    classes = torch.arange(60)[:, None] % 3
    state = torch.cat([normal(60, 2), classes.float()], 1)
    model = FlowModel(OfAClass(), None, None, (state[:, :2], state[:, 2:]), ENDS)
    beyond = states_beyond(lambda z: model.field()(0.0, z), state, model.packing.sizes)
    assert torch.equal(beyond[:, :2], state[:, :2])
    assert torch.equal(beyond[:, 2], state[:, 2].roll(1)) and not torch.equal(beyond, state)
    probe_field(model, Samples(state))
    assert not scan_time(model, Samples(state)).depends
    factors = normal(60, 2, 2)
    covariances = factors @ factors.mT + 0.1 * torch.eye(2)
    assert torch.equal(states_beyond(torch.linalg.cholesky, covariances), covariances)
    assert not torch.equal(states_beyond(torch.linalg.det, covariances), covariances)
    assert quiet(of_a_covariance, None, covariances, solver="rk4", n_steps=8).verdict == FLOW


@pytest.mark.parametrize("times", [None, [0.0, 0.5, 1.0]])
def test_a_head_may_know_probabilities_only(times):
    x = normal(60, 3).softmax(1)
    report = quiet(lambda t, p: 1 / 3 - p, entropy, x, solver="rk4", n_steps=2, output_times=times)
    assert report.verdict == FLOW
    assert times is None or any("at any of them" in note for note in report.notes)


def test_a_head_that_takes_and_gives_probabilities_is_seen_to_give_them():
    def probabilities(p):
        return torch.distributions.Categorical(probs=p).probs

    x = normal(60, 3).softmax(1)
    y = x.argmax(1)
    report = quiet(lambda t, p: 0 * p, probabilities, x, y, solver="rk4", n_steps=2)
    assert report.verdict == FLOW and any("gives probabilities" in note for note in report.notes)


def test_a_head_that_fails_beyond_the_samples_is_not_affine():
    def of_a_square(p):
        assert bool((p >= 0).all())
        return p.sqrt()

    x = normal(60, 3).softmax(1)
    y = x.argmax(1)
    report = quiet(lambda t, p: 0 * p, of_a_square, x, y, solver="rk4", n_steps=2)
    assert report.verdict == FLOW and report.margins is None


def test_a_random_point_is_around_the_samples_in_each_component():
    x = torch.stack([1e9 * normal(300), normal(300), torch.ones(300)], 1)
    spread = random_states(x).std(0)
    assert 1e9 < spread[0] < 2e9 and 1 < spread[1] < 2 and spread[2] > 1


def test_what_mixes_samples_at_random_points_only_is_still_refused():
    def field(t, z):
        return -z if bool((z < 1).all()) else z - z.mean(0)

    with pytest.raises(ValueError, match="field gives a sample another answer when it is alone"):
        quiet(field, None, torch.rand(60, 2), **EULER)


@pytest.mark.parametrize(
    ("x", "remedy"),
    [
        (list(normal(60, 2)), r"list of 60 tensors of shape \(2,\): give torch.stack\(x\)"),
        (tuple(normal(60, 2)), r"tuple of 60 tensors of shape \(2,\): give torch.stack\(x\)"),
        (list(normal(60)), r"60 tensors of shape \(\): give torch.stack\(x\)"),
        (list(normal(60, 2).numpy()), r"give numpy.stack\(x\)"),
        (tuple(normal(60, 80)), r"of 60 tensors, the first of .*, give torch.stack\(x\)"),
        (normal(2), r"sample alone.*where x is one state, give x\[None\]"),
        (normal(80), r"shape \(8,\).*where x is one state, give x\[None\]"),
    ],
)
def test_samples_one_by_one_and_a_state_without_them_get_a_remedy(x, remedy):
    size = 80 if np.shape(x[0]) == (80,) or len(x) == 80 else 2
    with pytest.raises(ValueError, match=remedy):
        quiet(nn.Linear(size, size), None, x, **EULER)


def test_a_state_may_have_many_parts():
    x = tuple(normal(60, seed=k) for k in range(10))
    report = quiet(lambda t, s: tuple(-p for p in s), None, x, solver="rk4", n_steps=8)
    assert report.verdict == FLOW


def test_targets_that_are_missing_may_come_with_a_mask():
    x = normal(60, 3)
    y = torch.where(x > 1, math.nan, x)

    def loss(outputs, targets):
        values, mask = targets.unbind(-1)
        return (mask * (outputs - values) ** 2).mean(1)

    how = {"loss": loss, "tolerance": 0.1, "solver": "rk4", "n_steps": 8}
    with pytest.raises(ValueError, match=r"torch.stack\(\[y.nan_to_num\(0, 0, 0\), y.isfinite"):
        quiet(decay, None, x, y, **how)
    masked = torch.stack([y.nan_to_num(0, 0, 0), y.isfinite()], -1)
    assert quiet(decay, None, x, masked, **how).verdict == FLOW


def test_a_stem_may_take_words():
    torch.manual_seed(0)
    words, stem = torch.randint(0, 30, (120,)), nn.Embedding(30, 3)
    labels = (words % 2).long()
    head = nn.Linear(3, 2)
    of_words = quiet(decay, head, words, labels, stem=stem, **EULER)
    embedded = quiet(decay, head, stem(words).detach(), labels, **EULER)
    np.testing.assert_allclose(of_words.distances, embedded.distances, rtol=1e-5)
    with pytest.raises(ValueError, match=r"torch.view_as_real\(x\)"):
        quiet(decay, None, torch.randn(60, 2, dtype=torch.complex64), **EULER)


def test_a_compiled_field_is_not_compiled_again():
    def backend(graph, inputs):
        raise AssertionError("it was compiled")

    field = nn.Linear(2, 2)
    compiled = torch.compile(field, backend=backend)
    report = quiet(compiled, None, normal(60, 2), solver="rk4", n_steps=8)
    plain = quiet(field, None, normal(60, 2), solver="rk4", n_steps=8)
    np.testing.assert_array_equal(report.distances, plain.distances)


@pytest.mark.parametrize(
    "form",
    [
        lambda y: y[:, None],
        lambda y: nn.functional.one_hot(y),
        lambda y: y.float(),
        lambda y: y.numpy(),
        lambda y: y.tolist(),
        lambda y: y.int(),
    ],
)
def test_labels_as_people_have_them(form):
    y = torch.tensor([0, 2, 1, 1])
    assert torch.equal(read_labels(form(y), 4), y)


@pytest.mark.parametrize("y", [torch.rand(4), torch.rand(4, 3), torch.tensor([0, 1, -1, 0])])
def test_targets_that_are_no_labels_are_refused(y):
    with pytest.raises(ValueError, match=r"^y has"):
        read_labels(y, 4)


# --- the order test -------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
def test_the_order_of_a_smooth_field_is_the_solvers(solver, order):
    x = 0.2 + 0.3 * normal(60, 1).abs().double()
    report = quiet(lambda t, z: torch.cos(t) * z * z, None, x, solver=solver, n_steps=32)
    assert report.order.expected == order and report.order.near.value > 0.8
    assert report.order.median.value == pytest.approx(order, abs=0.1)
    assert "converge with the solver's order" in str(report)


def test_the_order_of_steps_that_are_too_coarse_is_not():
    stiff = quiet(lambda t, z: -20 * (z - torch.cos(t)), None, normal(60, 1), **EULER)
    assert stiff.order.near.value < 0.2
    z = torch.ones(3, 2)
    assert order_test((z, z, z), 1) is None  # rounding says nothing


def lorenz(t, z):
    a, b, c = z.unbind(-1)
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], -1)


def test_no_order_is_told_from_rounding_that_a_sensitive_field_amplifies():
    """In float64 the ends converge with order 4; in float32 most differ by rounding alone."""
    x = normal(60, 3) + torch.tensor([0.0, 0.0, 25.0])
    how = {"solver": "rk4_38", "step_size": 0.01, "t": (0.0, 2.0)}
    double, single = (quiet(lorenz, None, v, **how).order for v in (x.double(), x))
    assert double.n == 60 and double.median.value > 3.7
    assert single is None
    at_rest = torch.tensor([1.0, 0.5, 0.25])[:, None, None] * torch.ones(3, 60, 1)
    at_rest[:, 20:] = 1.0
    assert order_test(tuple(at_rest), 1).n == 20  # those that do not move are no matter


def spinning(t, z):
    return 2 * torch.stack([-z[:, 1], z[:, 0]], 1)


def two_of_four(z):
    """Classes by quarter planes; two of them are called alike, and a turn swaps the others."""
    return torch.stack([z[:, 0] + z[:, 1], z[:, 0] - z[:, 1], -z[:, 0]], 1)


@pytest.mark.parametrize("labels", [None, "lost", "most lost", "kept", "by chance"])
def test_the_verdict_for_other_bounds_is_that_of_a_judge_with_them(labels):
    """Without labels; where accuracy is lost, also more of it than lies above the largest class;
    where classes change and it is not lost; and at chance."""
    x, training = normal(400, 2), {"solver": "euler", "n_steps": 1 if labels == "most lost" else 4}
    field, head = spinning, None if labels is None else two_of_four
    if labels == "most lost":  # half a turn, where one step of Euler's method makes a fifth of one
        field, head = (lambda t, z: math.pi / 2 * spinning(t, z)), HEAD
    own = solve_setting(field, x, FixedSteps(**training)).z
    y = None if head is None else head(own).argmax(1)
    if labels == "kept":  # every second one is right, wherever it ends
        exact = solve_setting(field, x, FixedSteps("rk4", 64)).z
        y = torch.where(torch.arange(400) % 2 == 0, y, two_of_four(exact).argmax(1))
    if labels == "by chance":
        y = y.roll(1)
    report = quiet(field, head, x, y, **training)
    found = report.sensitivity
    assert (found is None) == (labels == "by chance")
    assert report.verdict == CANNOT_TELL or found is not None
    assert labels is not None or found.not_below == report.exact.changed.low
    for bound in np.linspace(0.002, 0.998, 499) if found else ():
        verdict, _ = judge(report.training, report.exact, Terms(bound, report.chance, ""))
        expected = NOT_A_FLOW if found.least <= bound < found.not_below else CANNOT_TELL
        expected = FLOW if found.flow_above < bound < found.most else expected
        assert verdict == expected, bound


def test_too_few_samples_are_told_with_the_number_of_answers_that_change():
    mask, unknown = torch.arange(20) < 5, torch.arange(20) >= 10
    changed = bounded_share(mask, unknown)
    own = Row(FixedSteps("euler", 4), 20, changed, None, None, 4, 10)
    verdict, why = judge(own, own, Terms(0.1, None, "outputs move"))
    assert verdict == CANNOT_TELL and "20 samples are too few" in why
    assert "here 5 answers change" in why


def test_arrays_in_reverse_and_labels_of_any_integer_type_are_read():
    x, y = normal(60, 2), (normal(60, 2)[:, 0] > 0).long()
    plain = quiet(decay, HEAD, x, y, **EULER)
    reverse = quiet(decay, HEAD, x.flip(0).numpy()[::-1], y.numpy().astype(np.uint16), **EULER)
    np.testing.assert_array_equal(plain.distances, reverse.distances)
    assert str(plain.training.accuracy) == str(reverse.training.accuracy)


def test_words_without_weights_are_not_said_to_be_weights():
    words = torch.randint(0, 5, (60, 2), generator=torch.Generator().manual_seed(0))
    report = quiet(decay, None, words, stem=lambda words: words.float() / 5, **EULER)
    assert not any("are solved in float32" in note for note in report.notes)
    half = quiet(decay, None, normal(60, 2).half(), **EULER)
    assert any("inputs in float16 are solved in float32" in note for note in half.notes)


def test_a_tolerance_is_told_with_what_it_is_of():
    x = normal(60, 2)
    states = quiet(decay, None, x, **EULER)
    outputs = quiet(decay, lambda z: 1000 * z, x, **EULER)
    assert (states.tolerance_of, outputs.tolerance_of) == ("end states", "outputs")
    assert "(end states)" in str(states) and "(outputs)" in str(outputs)
