"""Crossings: the rule against exact arithmetic, and what it says about flows."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodecore.analysis.crossings import find_crossings, refined_path, separated_starts
from nodecore.data.synthetic import POSITIONS, VELOCITIES, landscape_field
from nodecore.ode.fixed import solve_fixed


def as_path(*trajectories):
    """Trajectories as lists of (x, y) -> (n_points, N, 2)."""
    return np.array(trajectories, dtype=np.float64).transpose(1, 0, 2)


def found(path, **options):
    """{(first trajectory, its step, second trajectory, its step)}"""
    crossings = find_crossings(path, **options)
    where = np.stack([crossings.trajectories, crossings.steps], axis=2).reshape(-1, 4)
    assert len(where) == len({tuple(row) for row in where.tolist()})
    return {tuple(row) for row in where.tolist()}


# --- against exact arithmetic -------------------------------------------------------------------


def exact_crossings(path):
    """The rule in rational numbers, segment by segment, without boxes, sides or rounding."""
    points = [[tuple(map(Fraction, p)) for p in line] for line in path.transpose(1, 0, 2).tolist()]
    segments = [(n, k) for n, line in enumerate(points) for k in range(len(line) - 1)]
    return {(*a, *b) for a, b in combinations(segments, 2) if exact_cross(points, a, b)}


def exact_cross(points, a, b):
    (p0, p1), (q0, q1) = ((points[n][k], points[n][k + 1]) for n, k in (a, b))
    u, v, w = minus(p1, p0), minus(q1, q0), minus(q0, p0)
    if det(u, v) == 0:  # parallel, collinear or of length zero
        return False
    tau_a, tau_b = det(w, v) / det(u, v), det(w, u) / det(u, v)
    if 0 < tau_a < 1 and 0 < tau_b < 1:
        return True
    if tau_a == 0 and 0 < tau_b < 1 and a[1] > 0:
        return det(v, minus(points[a[0]][a[1] - 1], q0)) * det(v, minus(p1, q0)) < 0
    if tau_b == 0 and 0 < tau_a < 1 and b[1] > 0:
        return det(u, minus(points[b[0]][b[1] - 1], p0)) * det(u, minus(q1, p0)) < 0
    return False


def minus(p, q):
    return (p[0] - q[0], p[1] - q[1])


def det(u, v):
    return u[0] * v[1] - u[1] * v[0]


def polylines(numbers, max_points=9, max_trajectories=4):
    """Random paths (n_points, N, 2) with coordinates from `numbers`."""
    return st.tuples(st.integers(2, max_points), st.integers(1, max_trajectories)).flatmap(
        lambda size: st.lists(
            numbers, min_size=2 * size[0] * size[1], max_size=2 * size[0] * size[1]
        ).map(lambda values: np.array(values, dtype=np.float64).reshape(*size, 2))
    )


@settings(max_examples=150, deadline=None)
@given(polylines(st.integers(-3, 3)))
def test_a_small_grid_of_corners_touches_and_overlaps_is_decided_exactly(path):
    assert found(path) == exact_crossings(path)


@settings(max_examples=100, deadline=None)
@given(polylines(st.floats(-1e3, 1e3)))
def test_any_floats_are_decided_exactly(path):
    assert found(path) == exact_crossings(path)


@settings(max_examples=100, deadline=None)
@given(
    polylines(
        st.tuples(st.integers(0, 3), st.integers(-2, 2)).map(lambda n: 0.1 * n[0] + n[1] * 2**-54)
    )
)
def test_points_within_rounding_of_a_line_are_decided_exactly(path):
    assert found(path) == exact_crossings(path)


@pytest.mark.parametrize("scale", [1e-200, 1e-160, 1e160, 1e300])
def test_underflow_and_overflow_are_decided_exactly(scale):
    path = scale * as_path([(0, 0), (1, 1)], [(0, 1), (1, 0)], [(0, 0.75), (0.25, 1)])
    assert found(path) == exact_crossings(path) == {(0, 0, 1, 0), (1, 0, 2, 0)}


def test_the_blocked_search_misses_nothing():
    walk = np.random.default_rng(0).normal(size=(50, 5, 2)).cumsum(0)
    assert found(walk) == exact_crossings(walk)


# --- the rule, case by case ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "trajectories, expected",
    {
        "an X": ([[(0, 0), (2, 2)], [(0, 2), (2, 0)]], {(0, 0, 1, 0)}),
        "apart": ([[(0, 0), (2, 2)], [(5, 2), (7, 0)]], set()),
        "through a corner": ([[(0, 0), (1, 1), (2, 2)], [(0, 2), (2, 0), (3, 0)]], {(0, 1, 1, 0)}),
        "a corner touches": ([[(0, 0), (1, 1), (2, 0)], [(0, 1), (2, 1), (3, 1)]], set()),
        "a start on the other": ([[(1, 1), (2, 2)], [(0, 2), (2, 0)]], set()),
        "an end on the other": ([[(2, 2), (1, 1)], [(0, 2), (2, 0)]], set()),
        "overlap": ([[(0, 0), (2, 2)], [(1, 1), (3, 3)]], set()),
        "one starts on a later state of the other": (
            [[(0, 0), (1, 0), (2, 1)], [(1, 0), (2, 1), (2, 2)]],
            set(),
        ),
        "both merge": ([[(0, 0), (1, 1), (2, 1)], [(0, 2), (1, 1), (2, 1)]], set()),
        "a loop crosses itself": ([[(0, 0), (2, 0), (2, 1), (1, -1)]], {(0, 0, 0, 2)}),
        "resting": ([[(1, 1), (1, 1)], [(0, 2), (2, 0)]], set()),
    }.values(),
)
def test_the_rule(trajectories, expected):
    assert found(as_path(*trajectories)) == expected


def test_where_and_which():
    path = as_path(
        [(0, 0), (4, 0), (4, 4), (1, -2)],
        [(-1, 1), (1, -1), (1, -5), (1, -6)],
        [(9, 9), (9, 8), (9, 7), (9, 6)],
    )
    crossings = find_crossings(path)
    assert crossings.points.tolist() == [[2.0, 0.0]]
    assert crossings.fractions.tolist() == [[0.5, 2 / 3]]
    assert crossings.angles == pytest.approx([np.degrees(np.arctan2(6, -3))])
    assert (crossings.is_self.sum(), crossings.n_between) == (1, 0)
    assert crossings.share_of_pairs == 0.0


def test_shares_count_a_pair_once_and_leave_self_crossings_out():
    zigzag = [(0, -1), (1, 1), (2, -1), (3, 1)]
    line = [(-1, 0), (1, 0), (2, 0), (4, 0)]
    crossings = find_crossings(as_path(zigzag, line, [(8, 8), (8, 9), (9, 9), (9, 8)]))
    assert (crossings.n_between, crossings.is_self.sum()) == (3, 0)
    assert crossings.pairs.tolist() == [[0, 1]]
    assert crossings.share_of_pairs == pytest.approx(1 / 3)


def test_a_single_trajectory_has_no_pairs():
    assert np.isnan(find_crossings(as_path([(0, 0), (1, 1)])).share_of_pairs)


# --- one dimension: an exchange of order --------------------------------------------------------


def decay(rate):
    return lambda t, z: -rate * z


def test_in_1d_trajectories_that_follow_each_other_do_not_cross():
    starts = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    path = solve_fixed(decay(3.0), starts, "euler", n_steps=4, path=True).path
    assert find_crossings(path).n_between == 0


def test_in_1d_an_overshooting_step_exchanges_every_pair():
    starts = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    crossings = find_crossings(solve_fixed(decay(3.0), starts, "euler", n_steps=1, path=True).path)
    assert crossings.share_of_pairs == 1.0
    np.testing.assert_allclose(crossings.points, [[1 / 3, 0.0]] * 36, atol=1e-12)


# --- flows --------------------------------------------------------------------------------------


def landscape_crossings(n_steps, n_starts=100):
    low, high = torch.tensor([POSITIONS, VELOCITIES], dtype=torch.float64).T
    u = torch.rand(1000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    starts = low + (high - low) * u[separated_starts(u, n_starts)]
    path = solve_fixed(landscape_field, starts, "euler", n_steps=n_steps, path=True).path
    return find_crossings(path)


def test_separated_starts_of_the_true_field_cross_under_coarse_steps_only():
    assert landscape_crossings(4).share_of_pairs > 0.001
    assert len(landscape_crossings(128).pairs) == 0
    assert len(landscape_crossings(256).pairs) == 0


def stiff_pendulum(t, z):
    return torch.stack([z[:, 1], -25.0 * torch.sin(z[:, 0])], dim=1)


PENDULUM_STARTS = 4 * torch.rand(
    24, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)


def test_sub_steps_of_euler_add_nothing():
    coarse = find_crossings(
        refined_path(stiff_pendulum, PENDULUM_STARTS, "euler", n_steps=4, substeps=1)
    )
    path = refined_path(stiff_pendulum, PENDULUM_STARTS, "euler", n_steps=4, substeps=8)
    fine = find_crossings(path, substeps=8)
    assert coarse.n_between > 0
    assert fine.n_between == coarse.n_between
    np.testing.assert_array_equal(fine.steps, coarse.steps)
    np.testing.assert_allclose(fine.fractions, coarse.fractions, atol=1e-9)


def test_sub_steps_of_rk4_settle_the_count():
    def count(substeps):
        path = refined_path(stiff_pendulum, PENDULUM_STARTS, "rk4", n_steps=2, substeps=substeps)
        crossings = find_crossings(path, substeps=substeps)
        return crossings.n_between, len(crossings.pairs)

    assert count(64) == count(128)
    assert count(64)[1] > 0
    assert count(1) != count(64)


def test_a_refined_path_passes_through_the_solvers_states():
    path = solve_fixed(stiff_pendulum, PENDULUM_STARTS, "rk4", n_steps=3, path=True).path
    fine = refined_path(stiff_pendulum, PENDULUM_STARTS, "rk4", n_steps=3, substeps=5)
    assert len(fine) == 16
    torch.testing.assert_close(fine[::5], path, rtol=0, atol=0)


def test_a_sub_step_begins_at_the_time_of_its_step():
    """dz/dt = t by Euler's method: each half of a step goes by the slope at the step's start."""
    path = refined_path(lambda t, z: t + 0 * z, torch.zeros(1, 1), "euler", n_steps=2, substeps=2)
    assert path.flatten().tolist() == [0.0, 0.0, 0.0, 0.125, 0.25]


# --- starts -------------------------------------------------------------------------------------


def test_separated_starts_are_distinct_far_apart_and_always_the_same():
    x = torch.rand(500, 2, generator=torch.Generator().manual_seed(1))
    index = separated_starts(x, 50)
    assert torch.equal(index, separated_starts(x, 50))
    assert len(index.unique()) == 50
    apart = torch.pdist(x[index]).min()
    assert apart > 5 * torch.pdist(x[:50]).min()
    # Farthest-point sampling: no row is farther from its nearest start than the starts lie apart.
    assert torch.cdist(x, x[index]).min(1).values.max() <= apart


# --- bad input ----------------------------------------------------------------------------------

GOOD = np.zeros((3, 2, 2))


@pytest.mark.parametrize(
    "call, message",
    {
        "3-D": (lambda: find_crossings(np.zeros((3, 2, 3))), r"path of shape \(3, 2, 3\): give"),
        "no axis": (lambda: find_crossings(np.zeros((3, 2))), r"path of shape \(3, 2\): give"),
        "one point": (lambda: find_crossings(GOOD[:1]), r"path of shape \(1, 2, 2\): give"),
        "nan": (
            lambda: find_crossings(GOOD * np.nan),
            "not finite at trajectory 0, point 0: leave",
        ),
        "substeps": (lambda: find_crossings(GOOD, substeps=0), "substeps = 0: give"),
        "divides": (lambda: find_crossings(GOOD, substeps=3), "substeps = 3 does not divide the 2"),
        "refine": (
            lambda: refined_path(decay(1.0), torch.ones(2, 1), "rk4", n_steps=2, substeps=1.5),
            "substeps = 1.5: give",
        ),
        "too many starts": (lambda: separated_starts(torch.zeros(5, 2), 6), "n = 6: give"),
        "no starts": (lambda: separated_starts(torch.zeros(5, 2), 0), "n = 0: give"),
        "nan starts": (
            lambda: separated_starts(torch.full((5, 2), float("nan")), 2),
            r"x of shape \(5, 2\): give finite",
        ),
    }.values(),
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
