"""Solvers against torchdiffeq, SciPy and hand-written references; evaluations are counted."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from marks import needs_kernel
from scipy.integrate import solve_ivp
from torchdiffeq import odeint

from nodecore.data.seeding import make_generator
from nodecore.ode.adaptive import initial_step_size, solve_adaptive
from nodecore.ode.backends import resolve_backend
from nodecore.ode.dense import Dense, of_torchdiffeq
from nodecore.ode.fields import MLPField
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.runge_kutta import rk_stages, rk_step
from nodecore.ode.solution import Solution, SolveError
from nodecore.ode.steps import count_steps
from nodecore.ode.tableaus import DOPRI5, MIDPOINT, RK4, TABLEAUS, ButcherTableau, get_tableau

EVALUATIONS = {  # for a fixed step; a last stage that the solution does not need is left out
    "euler": 1,
    "midpoint": 2,
    "heun": 2,
    "rk4": 4,
    "rk4_38": 4,
    "bosh3": 3,
    "fehlberg21": 3,
    "dopri5": 6,
}
EMBEDDED = ["bosh3", "fehlberg21", "dopri5"]
TORCHDIFFEQ = {"euler": "euler", "midpoint": "midpoint", "rk4_38": "rk4"}


def field(t, z):
    """A forced pendulum, stiffer where the state is larger; z (..., 2)."""
    x, v = z[..., 0], z[..., 1]
    t = torch.as_tensor(t, dtype=z.dtype)
    t = t.reshape(t.shape[: x.dim()] + (1,) * (x.dim() - t.dim()))
    return torch.stack([v, -4 * torch.sin(x) - 0.3 * v**3 + torch.cos(3 * t) * x**2], dim=-1)


def states(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(*shape, 2)))


class Counting:
    """A field that counts its calls."""

    def __init__(self, f=field):
        self.f, self.calls = f, 0

    def __call__(self, t, z):
        self.calls += 1
        return self.f(t, z)


# --- fixed steps --------------------------------------------------------------------------------


@pytest.mark.parametrize("n_steps", [1, 7, 32])
@pytest.mark.parametrize("solver", TORCHDIFFEQ)
def test_fixed_steps_equal_torchdiffeq(solver, n_steps):
    z0, grid = states(5), torch.linspace(0, 2, n_steps + 1, dtype=torch.float64)
    ours = solve_fixed(field, z0, solver, n_steps=n_steps, t=(0.0, 2.0), path=True)
    # On this grid torchdiffeq takes one step from each time to the next.
    theirs = odeint(field, z0, grid, method=TORCHDIFFEQ[solver])
    torch.testing.assert_close(ours.path, theirs, rtol=0, atol=1e-12)
    torch.testing.assert_close(ours.ts, grid, rtol=0, atol=1e-12)
    assert torch.equal(ours.z, ours.path[-1])


@pytest.mark.parametrize("step_size", [0.3, 0.25, 0.07, 1.0])
@pytest.mark.parametrize("solver", TORCHDIFFEQ)
def test_a_shortened_last_step_lands_as_torchdiffeq_does(solver, step_size):
    z0, ends = states(5), torch.tensor([0.0, 1.0], dtype=torch.float64)
    ours = solve_fixed(field, z0, solver, step_size=step_size)
    options = {"step_size": step_size}
    theirs = odeint(field, z0, ends, method=TORCHDIFFEQ[solver], options=options)[-1]
    torch.testing.assert_close(ours.z, theirs, rtol=0, atol=1e-12)
    assert ours.n_accepted == len(ours.ts) - 1 == math.ceil(1 / step_size)
    assert ours.ts[-1] == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("solver", ["midpoint", "rk4", "dopri5"])
def test_members_with_their_own_step_size_walk_as_if_alone(solver):
    z0, sizes = states(4, 3), torch.tensor([0.3, 1.0, 0.125, 0.07])
    together = solve_fixed(field, z0, solver, step_size=sizes, path=True)
    for m, h in enumerate(sizes.tolist()):
        alone = solve_fixed(field, z0[m], solver, step_size=h, path=True)
        torch.testing.assert_close(together.z[m], alone.z, rtol=0, atol=1e-14)
        taken = alone.n_accepted + 1
        torch.testing.assert_close(together.path[:taken, m], alone.path, rtol=0, atol=1e-14)
        torch.testing.assert_close(together.ts[m, :taken], alone.ts, rtol=0, atol=1e-14)
        assert (together.nfe[m], together.n_accepted[m]) == (alone.nfe, alone.n_accepted)


@pytest.mark.parametrize("solver", TABLEAUS)
def test_fixed_evaluations_are_counted(solver):
    f = Counting()
    assert solve_fixed(f, states(2), solver, n_steps=5).nfe == f.calls == 5 * EVALUATIONS[solver]
    f = Counting()
    nfe = solve_fixed(f, states(2, 1), solver, step_size=torch.tensor([0.5, 0.3])).nfe
    assert nfe.tolist() == [2 * EVALUATIONS[solver], 4 * EVALUATIONS[solver]]
    assert f.calls == nfe.max()


def test_a_step_that_divides_the_span_leaves_no_sliver():
    n_steps = torch.arange(1, 3000)
    for span in (1.0, 0.3, 7.0):
        assert torch.equal(count_steps(span / n_steps.double(), span), n_steps)
    just_longer = torch.tensor([0.25, 0.1], dtype=torch.float64) - 1e-9
    assert count_steps(just_longer, 1.0).tolist() == [5, 11]


MEMBERS = torch.tensor([0.1 * 3, 0.15], dtype=torch.float64)


@pytest.mark.parametrize("h", [0.1 * 3, MEMBERS], ids=["one", "members"])
def test_a_step_that_is_longer_than_the_span_by_rounding_is_taken(h):
    assert 0.1 * 3 > 0.3
    ours = solve_fixed(field, states(2, 3), "rk4", step_size=h, t=(0.0, 0.3))
    whole = solve_fixed(field, states(2, 3), "rk4", n_steps=1, t=(0.0, 0.3))
    torch.testing.assert_close(ours.z[0], whole.z[0], rtol=0, atol=1e-14)


def test_what_is_done_to_the_times_of_a_solve_does_not_reach_the_next_one():
    for _ in range(2):
        ts = solve_fixed(field, states(2), "euler", n_steps=4).ts
        assert ts.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]
        ts.zero_()


def test_a_step_starts_from_a_known_slope():
    z, k1 = states(3), field(0.5, states(3))
    fresh = rk_stages(field, 0.5, z, 0.1, RK4)
    known = rk_stages(Counting(field), 0.5, z, 0.1, RK4, k1)
    assert all(torch.equal(a, b) for a, b in zip(fresh, known, strict=True))
    assert len(rk_stages(field, 0.5, z, 0.1, DOPRI5, n_stages=6)) == 6
    half = z + 0.05 * field(0.5, z)
    torch.testing.assert_close(rk_step(field, 0.5, z, 0.1, MIDPOINT), z + 0.1 * field(0.55, half))


# --- adaptive steps -----------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "tolerance"), [("bosh3", 1e-9), ("dopri5", 1e-11)])
@pytest.mark.parametrize("axes", [0, 1])
def test_tight_tolerances_reach_the_solution_of_dop853(solver, tolerance, axes):
    z0 = states(3)
    z = solve_adaptive(
        field,
        z0,
        solver,
        rtol=tolerance,
        atol=tolerance,
        t=(0.0, 3.0),
        instance_axes=axes,
        max_steps=50_000,
    ).z
    for start, end in zip(z0.numpy(), z.numpy(), strict=True):

        def numpy_field(t, y):
            x, v = y
            return [v, -4 * np.sin(x) - 0.3 * v**3 + np.cos(3 * t) * x**2]

        exact = solve_ivp(numpy_field, (0, 3), start, "DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
        np.testing.assert_allclose(end, exact, rtol=0, atol=300 * tolerance)


@pytest.mark.parametrize("t", [(0.57, 1.7), (-0.3, 0.1), (0.1, 0.7)])
def test_a_solve_ends_at_the_end_that_it_is_given(t):
    """Where t0 + (t1 - t0) is rounded to another number than t1."""
    z0 = states(2)
    fixed = [{"n_steps": 7}, {"step_size": 0.3}, {"step_size": torch.tensor([0.1, 0.3])}]
    for how in fixed:
        assert (solve_fixed(field, z0, "euler", t=t, **how).ts[..., -1] == t[1]).all()
    for axes in (0, 1):
        s = solve_adaptive(field, z0, "dopri5", rtol=1e-3, atol=1e-3, t=t, instance_axes=axes)
        assert (s.ts[..., -1] == t[1]).all()


def test_the_error_follows_the_tolerance():
    z0 = states(3)
    exact = solve_adaptive(field, z0, "dopri5", rtol=1e-12, atol=1e-12).z
    for solver in EMBEDDED:
        errors = [
            float((solve_adaptive(field, z0, solver, rtol=tol, atol=tol).z - exact).abs().max())
            for tol in (1e-2, 1e-4, 1e-6)
        ]
        assert errors[0] > 10 * errors[1] > 100 * errors[2]
        assert errors[2] < 1e-3


@pytest.mark.parametrize("solver", EMBEDDED)
@pytest.mark.parametrize("first_step", [None, 1.0])
def test_adaptive_evaluations_are_counted(solver, first_step):
    f = Counting()
    s = solve_adaptive(
        f, 2 * states(4), solver, rtol=1e-4, atol=1e-4, t=(0.0, 2.0), first_step=first_step
    )
    tries, stages = s.n_accepted + s.n_rejected, len(get_tableau(solver).b)
    start = 1 if first_step else 2
    # Without first-same-as-last each accepted step but the last asks for the slope where it ends.
    fresh = s.n_accepted - 1 if solver == "fehlberg21" else 0
    assert s.nfe == f.calls == start + tries * (stages - 1) + fresh
    assert s.n_rejected > 0 or not first_step
    assert s.n_accepted == len(s.ts) - 1
    assert (s.ts[0], s.ts[-1]) == (0.0, 2.0)
    assert bool((s.ts.diff() > 0).all())


@pytest.mark.parametrize("solver", EMBEDDED)
@pytest.mark.parametrize("axes", [1, 2])
def test_instances_that_step_by_themselves_walk_as_if_alone(solver, axes):
    z0 = states(3, 2) * torch.tensor([0.1, 1.0, 6.0])[:, None, None]
    options = {"rtol": 1e-3, "atol": 1e-4, "t": (0.0, 2.0), "path": True}
    together = solve_adaptive(field, z0, solver, instance_axes=axes, **options)
    assert together.nfe.shape == z0.shape[:axes]
    assert len(together.nfe.unique()) > 1
    assert together.n_rejected.sum() > 0
    for index in np.ndindex(*z0.shape[:axes]):
        f = Counting()
        alone = solve_adaptive(f, z0[index], solver, **options)
        torch.testing.assert_close(together.z[index], alone.z, rtol=1e-12, atol=1e-12)
        counts = (together.nfe, together.n_accepted, together.n_rejected)
        assert [int(c[index]) for c in counts] == [f.calls, alone.n_accepted, alone.n_rejected]
        # Where others stepped and this one did not, its row repeats a time.
        times = torch.unique_consecutive(together.ts[index])
        torch.testing.assert_close(times, alone.ts, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5, 1e-7, 1e-9])
def test_dopri5_costs_what_torchdiffeq_spends(tolerance):
    z0, f, g = 2 * states(20), Counting(), Counting()
    t = torch.tensor([0.0, 3.0], dtype=torch.float64)
    ours = solve_adaptive(f, z0, "dopri5", rtol=tolerance, atol=tolerance, t=(0.0, 3.0))
    # torchdiffeq takes other embedded weights; its error estimate is 2/3 of Dormand and Prince's.
    odeint(g, z0, t, method="dopri5", rtol=tolerance / 1.5, atol=tolerance / 1.5)
    assert ours.nfe == f.calls == pytest.approx(g.calls, rel=0.02, abs=12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-5])
def test_parts_step_as_a_tuple_does_in_torchdiffeq(tolerance, dtype):
    """A rotation beside 700 numbers that stand still: one mean over all would hide its error."""
    turning, carried = states(20).to(dtype), torch.ones(20, 700, dtype=dtype)
    parts, ends, calls = (2, 700), torch.tensor([0.0, 3.0]).to(dtype), [0, 0]

    def slopes(z):
        return torch.stack([-2 * z[:, 1], 2 * z[:, 0].sin()], 1)

    def ours(t, z):
        calls[0] += 1
        return torch.cat([slopes(z[:, :2]), 0 * z[:, 2:]], 1)

    def theirs(t, pair):
        calls[1] += 1
        return slopes(pair[0]), 0 * pair[1]

    how = {"rtol": tolerance, "atol": tolerance}
    dense = Dense((0.0, 3.0))
    joined = torch.cat([turning, carried], 1)
    found = solve_adaptive(
        ours, joined, of_torchdiffeq("dopri5"), t=(0.0, 3.0), parts=parts, dense=dense, **how
    )
    expected = odeint(theirs, (turning, carried), ends, method="dopri5", **how)[0][-1]
    assert calls[0] == calls[1] == found.nfe
    # torchdiffeq's times are in float32 where the states are, those here never.
    close = {"rtol": 0, "atol": 1e-12 if dtype == torch.float64 else 3e-4}
    torch.testing.assert_close(found.z[:, :2], expected, **close)


def hairer_first_step(f, t0, y0, order):
    """Hairer, Norsett, Wanner (1993), p. 169, steps a) to f), with the root mean square norm."""

    def norm(v):
        return math.sqrt(sum(x * x for x in v) / len(v))

    slope = f(t0, y0)
    d0, d1 = norm(y0), norm(slope)
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * (d0 / d1)
    slope1 = f(t0 + h0, [y + h0 * k for y, k in zip(y0, slope, strict=True)])
    d2 = norm([b - a for a, b in zip(slope, slope1, strict=True)]) / h0
    if max(d1, d2) <= 1e-15:
        h1 = max(1e-6, h0 * 1e-3)
    else:
        h1 = (0.01 / max(d1, d2)) ** (1 / (order + 1))
    return min(100 * h0, h1)


PLAIN_FIELDS = {  # on lists of floats
    "pendulum": lambda t, y: [y[1], -4 * math.sin(y[0]) + math.cos(3 * t)],
    "stiff": lambda t, y: [-1000 * (y[0] - math.cos(t)), -y[1]],
    "slow": lambda t, y: [1e-3 * y[1], 1e-3 * y[0] * y[1]],
    "almost at rest": lambda t, y: [1e-7 * y[1], t],
    "at rest": lambda t, y: [0.0, 0.0],
}


@pytest.mark.parametrize("order", [1, 2, 4])
@pytest.mark.parametrize("name", PLAIN_FIELDS)
@pytest.mark.parametrize("y0", [[1.0, -0.5], [30.0, 4.0], [1e-7, 1e-6], [0.0, 0.0]], ids=str)
def test_the_first_step_is_hairers(name, order, y0):
    plain = PLAIN_FIELDS[name]
    f = Counting(lambda t, z: torch.tensor(plain(float(t), z.tolist()), dtype=z.dtype))
    z0 = torch.tensor(y0, dtype=torch.float64)
    h = initial_step_size(f, 0.2, z0, order, lambda v: v.square().mean().sqrt())
    assert float(h) == pytest.approx(hairer_first_step(plain, 0.2, y0, order), rel=1e-12)
    assert h.dtype == torch.float64
    assert f.calls == 2


def test_each_instance_has_a_first_step_of_its_own():
    z0, f = states(3, 4), Counting()

    def norm(v):
        return v.square().mean((1, 2)).sqrt()

    h = initial_step_size(f, 0.0, z0, 1, norm, field(0.0, z0))
    assert f.calls == 1
    for m in range(3):
        alone = initial_step_size(field, 0.0, z0[m], 1, lambda v: v.square().mean().sqrt())
        assert float(h[m]) == pytest.approx(float(alone), rel=1e-12)


# --- gradients ----------------------------------------------------------------------------------


def weighted(w):
    """A field that bends and depends on time."""
    return lambda t, z: torch.tanh(z @ w) * (1 + t) - torch.sin(2 * z)


def weights_and_states():
    rng = np.random.default_rng(3)
    w, z0 = (torch.from_numpy(rng.normal(size=(2, 2))) for _ in range(2))
    return w.requires_grad_(), z0.requires_grad_()


@pytest.mark.parametrize("solver", TABLEAUS)
@pytest.mark.parametrize("step_size", [0.5, 0.4, torch.tensor([0.4, 1.0])], ids=str)
def test_gradients_through_fixed_steps(solver, step_size):
    def solve(w, z0):
        f = weighted(w)
        if isinstance(step_size, torch.Tensor):
            f = lambda t, z: torch.tanh(z @ w) - torch.sin(2 * z)  # noqa: E731
        return solve_fixed(f, z0, solver, step_size=step_size).z

    assert torch.autograd.gradcheck(solve, weights_and_states())


@pytest.mark.parametrize("solver", EMBEDDED)
@pytest.mark.parametrize("first_step", [None, 1.5])
def test_gradients_through_adaptive_steps(solver, first_step):
    w, z0 = weights_and_states()
    options = {"rtol": 1e-3, "atol": 1e-3, "t": (0.0, 2.0), "first_step": first_step}
    solution = solve_adaptive(weighted(w), z0, solver, **options)
    assert solution.n_rejected > 0 or first_step is None
    ts = solution.ts.tolist()

    def replay(w, z):
        for start, end in pairwise(ts):
            z = rk_step(weighted(w), start, z, end - start, get_tableau(solver))
        return z

    assert torch.autograd.gradcheck(replay, (w, z0))
    torch.testing.assert_close(solution.z, replay(w, z0), rtol=1e-13, atol=1e-13)
    cotangent = torch.tensor([[1.0, -2.0], [0.5, 3.0]], dtype=torch.float64)
    for ours, frozen in zip(
        torch.autograd.grad(solution.z, (w, z0), cotangent),
        torch.autograd.grad(replay(w, z0), (w, z0), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(ours, frozen, rtol=1e-12, atol=1e-12)


# --- the fused kernel behind both solves ----------------------------------------------------------


def ensemble_field(members=2):
    return MLPField(2, 8, generators=[make_generator(s, "initialisation") for s in range(members)])


@needs_kernel
@pytest.mark.parametrize("how", [{"n_steps": 5}, {"step_size": torch.tensor([0.3, 0.125])}])
def test_the_fused_kernel_gives_what_torch_gives(how):
    f, z0 = ensemble_field(), states(2, 6).float()
    fused, plain = (solve_fixed(f, z0, "rk4", backend=b, **how) for b in ("fused", "torch"))
    assert (fused.backend, plain.backend) == ("fused", "torch")
    torch.testing.assert_close(fused.ts, plain.ts)
    torch.testing.assert_close(fused.z, plain.z, rtol=1e-4, atol=1e-5)
    for ours, theirs in ((fused.nfe, plain.nfe), (fused.n_accepted, plain.n_accepted)):
        assert torch.equal(torch.as_tensor(ours), torch.as_tensor(theirs))


@needs_kernel
@pytest.mark.parametrize("solver", EMBEDDED)
@pytest.mark.parametrize("tolerance", [10.0, 1e-2, 1e-4])
@pytest.mark.parametrize("first_step", [None, 1.5])
def test_the_fused_kernel_takes_the_steps_that_torch_takes(solver, tolerance, first_step):
    f, z0 = ensemble_field(4), states(4, 70).float() * torch.tensor([0.1, 1, 3, 9])[:, None, None]
    parameters = [z0.requires_grad_(), *f.parameters()]
    options = {"rtol": tolerance, "atol": tolerance, "t": (0.5, 2.0), "instance_axes": 1}
    fused, plain = (
        solve_adaptive(f, z0, solver, first_step=first_step, backend=b, **options)
        for b in ("fused", "torch")
    )
    assert (fused.backend, plain.backend) == ("fused", "torch")
    assert first_step is None or tolerance > 1e-4 or bool((fused.n_rejected > 0).any())
    for name in ("nfe", "n_accepted", "n_rejected"):
        assert torch.equal(getattr(fused, name), getattr(plain, name)), name
    for ours, theirs in zip(fused.ts, plain.ts, strict=True):
        ours, theirs = (torch.unique_consecutive(times) for times in (ours, theirs))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
        assert ours[-1] == 2.0
    torch.testing.assert_close(fused.z, plain.z, rtol=1e-4, atol=1e-4)
    cotangent = states(4, 70, seed=1).float()
    gradients = [torch.autograd.grad(s.z, parameters, cotangent) for s in (fused, plain)]
    for ours, theirs in zip(*gradients, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


@needs_kernel
@pytest.mark.parametrize("solver", EMBEDDED)
@pytest.mark.parametrize("tolerance", [10.0, 1e-2, 1e-4])
def test_a_samples_steps_in_the_fused_kernel_are_those_in_float64(solver, tolerance):
    """The error of one sample can be as small as rounding: then its steps are any."""
    scale = torch.tensor([0.1, 1, 3, 9])[:, None, None]
    z0, options = states(4, 70) * scale, {"rtol": tolerance, "atol": tolerance, "t": (0.5, 2.0)}
    fused = solve_adaptive(ensemble_field(4), z0.float(), solver, instance_axes=2, **options)
    exact = solve_adaptive(ensemble_field(4).double(), z0, solver, instance_axes=2, **options)
    assert (fused.backend, exact.backend) == ("fused", "torch")
    counts = zip(*((s.nfe, s.n_accepted, s.n_rejected) for s in (fused, exact)), strict=True)
    same = torch.stack([ours == theirs for ours, theirs in counts]).all(0)
    assert same.all() if tolerance > 1e-4 else same.double().mean() > 0.85
    assert len(exact.nfe.unique()) > 1, "the samples do step by themselves"
    assert bool((fused.ts[..., -1] == 2.0).all())
    assert (fused.z - exact.z)[same].norm() <= 1e-3 * exact.z[same].norm()


@pytest.mark.parametrize("backend", ["torch", pytest.param("fused", marks=needs_kernel)])
@pytest.mark.parametrize("axes", [1, 2])
def test_each_member_may_have_a_tolerance_of_its_own(backend, axes):
    f, z0 = ensemble_field(3), 3 * states(3, 20).float()
    rtol, atol = torch.tensor([[1e-1, 1e-3, 1e-4], [1e-2, 1e-4, 1e-3]], dtype=torch.float64)
    options = {"instance_axes": axes, "backend": backend}
    together = solve_adaptive(f, z0, "bosh3", rtol=rtol, atol=atol, **options)
    for m, (r, a) in enumerate(zip(rtol.tolist(), atol.tolist(), strict=True)):
        alone = solve_adaptive(f, z0, "bosh3", rtol=r, atol=a, **options)
        assert torch.equal(together.nfe[m], alone.nfe[m])
        torch.testing.assert_close(together.z[m], alone.z[m], rtol=1e-6, atol=1e-6)
    assert len(together.nfe.unique()) > 1


@needs_kernel
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
def test_the_fused_dopri5_takes_the_steps_of_torchdiffeq(tolerance):
    f, z0, first_step = ensemble_field(), 3 * states(2, 40).float(), 0.05
    options = {"rtol": tolerance, "atol": tolerance, "first_step": first_step}
    ours = solve_adaptive(f, z0, "dopri5", instance_axes=1, backend="fused", **options)
    for m in range(2):
        g = Counting(lambda t, z, m=m: f(t, z.expand(2, 40, 2))[m])
        # the factor: as above; step_t: its last step lands on the end, as ours does
        end = odeint(
            g,
            z0[m],
            torch.tensor([0.0, 1.0]),
            method="dopri5",
            rtol=tolerance / 1.5,
            atol=tolerance / 1.5,
            options={"first_step": torch.tensor(first_step), "step_t": torch.tensor([1.0])},
        )[-1]
        assert int(ours.nfe[m]) == g.calls
        torch.testing.assert_close(ours.z[m], end, rtol=1e-4, atol=5e-4)


@needs_kernel
def test_the_fused_kernel_reaches_the_solution_of_dop853():
    f, z0 = ensemble_field(), states(2, 7).float()
    with torch.no_grad():
        ours = solve_adaptive(f, z0, "dopri5", rtol=1e-6, atol=1e-6, instance_axes=1)
        assert ours.backend == "fused"
        exact = ensemble_field().double()
        for m in range(2):
            whole = torch.zeros(2, 7, 2, dtype=torch.float64)

            def slope(t, y, m=m, whole=whole):
                whole[m] = torch.from_numpy(y).view(7, 2)
                return exact(t, whole)[m].numpy().ravel()

            start = z0[m].double().numpy().ravel()
            end = solve_ivp(slope, (0, 1), start, "DOP853", rtol=1e-10, atol=1e-10).y[:, -1]
            np.testing.assert_allclose(ours.z[m].numpy().ravel(), end, rtol=0, atol=3e-4)


@needs_kernel
def test_the_fused_kernel_serves_adaptive_steps_of_members_and_samples_only():
    f, z0 = ensemble_field(), states(2, 6).float()
    options = {"rtol": 1e-2, "atol": 1e-2}
    assert solve_adaptive(f, z0, "bosh3", instance_axes=0, **options).backend == "torch"
    with pytest.raises(ValueError, match=r"instance_axes = 1 or 2; got 0.*backend='torch'"):
        solve_adaptive(f, z0, "bosh3", instance_axes=0, backend="fused", **options)
    assert solve_adaptive(f, z0, "bosh3", instance_axes=1, path=True, **options).backend == "torch"
    # An estimate from a stage of its own: more than the kernel computes.
    heun = ButcherTableau(
        "heun21", a=((), (1.0,), (0.5, 0.0)), b=(0.5, 0.5, 0.0), c=(0.0, 1.0, 0.5), order=2,
        b_embedded=(0.0, 0.0, 1.0), embedded_order=1,
    )  # fmt: skip
    assert solve_adaptive(f, z0, heun, instance_axes=1, **options).backend == "torch"


@needs_kernel
def test_the_environment_chooses_what_auto_means(monkeypatch):
    f, z0 = ensemble_field(), states(2, 6).float()
    for name, used in (("torch", "torch"), ("fused", "fused"), ("auto", "fused")):
        monkeypatch.setenv("NODECORE_KERNEL", name)
        assert solve_fixed(f, z0, "euler", n_steps=2).backend == used
    monkeypatch.delenv("NODECORE_KERNEL")
    assert solve_fixed(f, z0, "euler", n_steps=2).backend == "fused"
    assert solve_fixed(f.double(), z0.double(), "euler", n_steps=2).backend == "torch"


# --- bad input, and solves that cannot go on ----------------------------------------------------

Z0 = torch.ones(3, 2)
NOT_FIXED = [
    ({"solver": "rk45", "n_steps": 2}, "solver = 'rk45' is unknown; choose one of euler, "),
    ({"n_steps": 0}, "n_steps = 0: give a whole number of steps >= 1"),
    ({"n_steps": -1}, "n_steps = -1"),
    ({"n_steps": 2.0}, r"n_steps = 2\.0"),
    ({"n_steps": True}, "n_steps = True"),
    ({}, "n_steps = None and step_size = None: give exactly one"),
    ({"n_steps": 2, "step_size": 0.5}, "n_steps = 2 and step_size = 0.5: give exactly one"),
    ({"step_size": 0.0}, r"step_size = \[0.0\]: give sizes in \(0, T\] with T = 1.0"),
    ({"step_size": -0.1}, r"step_size = \[-0.1\]"),
    ({"step_size": 1.01}, r"step_size = \[1.01\]"),
    ({"step_size": math.nan}, r"step_size = \[nan\]"),
    ({"step_size": torch.tensor([0.5, 0.5])}, "2 entries for 3 members; give one for each"),
    ({"step_size": [0.5, 0.5]}, "2 entries for 3 members; give one for each"),
    ({"step_size": torch.tensor([0.5, 0.0, 0.5])}, r"step_size = \[0.5, 0.0, 0.5\]"),
    ({"n_steps": 2, "t": (1.0, 1.0)}, r"t = \(1.0, 1.0\): give finite times .* with end > start"),
    ({"n_steps": 2, "t": (0.0, math.inf)}, "give finite times"),
    ({"n_steps": 2, "z0": torch.ones(0, 2)}, r"z0 = \(0, 2\) torch.float32: give a floating-point"),
    ({"n_steps": 2, "z0": torch.ones(3, 2, dtype=torch.int64)}, "give a floating-point tensor"),
    ({"n_steps": 2, "z0": [1.0]}, "z0 = list: give a floating-point tensor"),
    ({"n_steps": 2, "backend": "numba"}, "backend = 'numba' is unknown; choose one of auto, fused"),
    ({"n_steps": 2, "backend": "fused"}, "'fused' serves dense fields and convolutions .*'torch'"),
]
NOT_ADAPTIVE = [
    ({"solver": "rk4"}, "'rk4' has no embedded method .* use one of bosh3, fehlberg21, dopri5"),
    ({"rtol": 0.0}, "rtol = 0.0: give a finite number > 0"),
    ({"rtol": -1e-3}, "rtol = -0.001: give a finite number > 0"),
    ({"atol": -1.0}, "atol = -1.0: give a finite number > 0"),
    ({"atol": math.inf}, "atol = inf"),
    ({"rtol": math.nan}, "rtol = nan"),
    (
        {"rtol": torch.ones(2), "instance_axes": 1},
        r"rtol has shape \(2,\): give one tolerance for each of z0's 3 members",
    ),
    ({"atol": torch.ones(3)}, "with instance_axes >= 1; got 0"),
    (
        {"atol": torch.tensor([1, 0, 1.0]), "instance_axes": 1},
        "atol = 0.0: give a finite number > 0",
    ),
    ({"max_steps": 0}, "0: give a whole number of steps >= 1"),
    ({"first_step": 0.0}, "first_step = 0.0"),
    ({"first_step": -0.1}, "first_step = -0.1"),
    ({"instance_axes": 2}, "instance_axes = 2: give 0 to 1 for 2 axes"),
    ({"instance_axes": -1}, "instance_axes = -1"),
    ({"parts": (1, 2)}, r"parts = \(1, 2\), .*add up to z0's last axis, 2"),
    ({"parts": (1, 1), "instance_axes": 1}, "and instance_axes=0"),
    ({"t": (1.0, 0.0)}, "with end > start"),
    ({"z0": torch.ones(0, 2)}, "not empty"),
]


def refuse_to_be_called(t, z):
    raise AssertionError("work began before the arguments were checked")


@pytest.mark.parametrize(("bad", "message"), NOT_FIXED, ids=[m for _, m in NOT_FIXED])
def test_bad_arguments_of_fixed_steps(bad, message):
    arguments = {"z0": Z0, "solver": "euler"} | bad
    with pytest.raises(ValueError, match=message):
        solve_fixed(refuse_to_be_called, arguments.pop("z0"), arguments.pop("solver"), **arguments)


@pytest.mark.parametrize(("bad", "message"), NOT_ADAPTIVE, ids=[m for _, m in NOT_ADAPTIVE])
def test_bad_arguments_of_adaptive_steps(bad, message):
    arguments = {"z0": Z0, "solver": "dopri5", "rtol": 1e-3, "atol": 1e-3} | bad
    z0, solver = arguments.pop("z0"), arguments.pop("solver")
    with pytest.raises(ValueError, match=message):
        solve_adaptive(refuse_to_be_called, z0, solver, **arguments)


def test_an_unknown_backend_in_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("NODECORE_KERNEL", "fast")
    told = "NODECORE_KERNEL = 'fast' is unknown; choose one of auto, fused, torch"
    with pytest.raises(ValueError, match=told):
        resolve_backend()
    with pytest.raises(ValueError, match="backend = 'slow' is unknown"):
        resolve_backend("slow")


def cliff(t, z):
    """So steep from t = 1/2 on that no step in float64 is short enough."""
    t = torch.as_tensor(t).reshape(torch.as_tensor(t).shape + (1,) * (z.dim() - t.dim()))
    return torch.where(t < 0.5, 0.0, 1e12) * torch.ones_like(z)


def gap(t, z):
    return torch.where(z > 1.2, torch.nan, 1.0)


STUCK = [
    (cliff, {}, "step size underflowed to .* at t = 0.5; loosen rtol and atol, or use float64"),
    (field, {"max_steps": 3}, "3 steps reached only t = .*; raise max_steps, or loosen rtol"),
    (gap, {}, "not finite after a step of .* from t = .*; check the field's weights"),
]


@pytest.mark.parametrize(("f", "options", "message"), STUCK, ids=["underflow", "steps", "finite"])
def test_a_solve_that_cannot_go_on_says_why_and_what_to_do(f, options, message):
    z0 = torch.ones(1, 2, dtype=torch.float64)
    with pytest.raises(SolveError, match=message):
        solve_adaptive(f, z0, "dopri5", rtol=1e-10, atol=1e-10, **options)


@needs_kernel
@pytest.mark.parametrize(
    ("factor", "options", "message"),
    [
        (1e12, {"t": (1e6, 1e6 + 1)}, "step size underflowed to .* at t = 1e\\+06; loosen rtol"),
        (1e3, {"max_steps": 3}, "3 steps reached only t = .*; raise max_steps, or loosen rtol"),
        (math.nan, {}, "not finite after a step of .* from t = 0; check the field's weights"),
    ],
    ids=["underflow", "steps", "finite"],
)
def test_the_fused_kernel_says_why_a_solve_cannot_go_on(factor, options, message):
    f, z0 = ensemble_field(3), states(3, 40).float()
    with torch.no_grad():
        f.third[0][1] *= factor
    options = {"rtol": 1e-1, "atol": 1e-1, "instance_axes": 1, **options}
    for backend in ("fused", "torch"):
        with pytest.raises(SolveError, match=message) as caught:
            solve_adaptive(f, z0, "fehlberg21", backend=backend, **options)
        assert caught.value.failed.tolist() == [False, True, False]


@pytest.mark.parametrize("backend", ["torch", pytest.param("fused", marks=needs_kernel)])
def test_as_many_steps_as_it_takes_are_enough_and_one_less_is_not(backend):
    f, z0 = ensemble_field(3), states(3, 40).float()
    how = {"rtol": 1e-4, "atol": 1e-4, "instance_axes": 1, "first_step": 1.0, "backend": backend}
    free = solve_adaptive(f, z0, "fehlberg21", **how)
    tried = int((free.n_accepted + free.n_rejected).max())
    assert int(free.n_rejected.sum()) > 0
    assert torch.equal(solve_adaptive(f, z0, "fehlberg21", max_steps=tried, **how).z, free.z)
    with pytest.raises(SolveError, match=f"{tried - 1} steps reached only"):
        solve_adaptive(f, z0, "fehlberg21", max_steps=tried - 1, **how)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_the_instance_at_fault_is_marked(bad):
    z0 = torch.ones(3, 2, 2, dtype=torch.float64)
    z0[1, 0, 0] = bad
    with pytest.raises(SolveError) as caught:
        solve_adaptive(field, z0, "bosh3", rtol=1e-3, atol=1e-3, instance_axes=1)
    assert caught.value.failed.tolist() == [False, True, False]


def test_fixed_steps_return_what_overflows():
    z = solve_fixed(lambda t, z: z**3, torch.full((1, 1), 1e20), "euler", n_steps=4).z
    assert not torch.isfinite(z).any()


def test_a_solution_cannot_be_changed():
    solution = solve_fixed(field, states(1), "euler", n_steps=1)
    assert isinstance(solution, Solution)
    with pytest.raises(AttributeError):
        solution.nfe = 0
