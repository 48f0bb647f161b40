"""Crossings of trajectories: the mark of a numerical solution that is no solution of an ODE.

Solution curves of an autonomous ODE that meet are the same curve. Two trajectories of a solver
cross where sub-steps of theirs reach the same state, Psi_{tau h}(z_{n,k}) = Psi_{tau' h}(z_{n',k'})
with 0 < tau, tau' < 1 (Ott et al. 2020, section 4). A sub-step of Euler's method is the straight
segment from z_k to z_{k+1}, so its crossings are those of polygons and are found exactly. The
sub-step of a method of higher order is a curve; `refined_path` replaces it by chords.

The rule, for polygons:

- a crossing is a point where two trajectories *change sides*: in the interior of a segment of both,
  or at an inner corner of one whose neighbours lie on opposite sides of the other's segment;
- contact without a change of sides is no crossing: a start or an end on another trajectory, a
  corner that touches and turns back, collinear segments that overlap, a corner of both (from a
  shared state on, two trajectories are one). So starts on the same orbit, which follow each other,
  do not cross.

In 1-D all orbits lie on one line and overlap there. What an ODE forbids is to overtake, so a 1-D
crossing is an exchange of order: a crossing of the graphs in the (k, z) plane, by the same rule.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from nodecore.ode.checks import check_count
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.runge_kutta import rk_step
from nodecore.ode.solution import VectorField
from nodecore.ode.tableaus import ButcherTableau, get_tableau

BLOCK = 16  # consecutive segments that share a bounding box
PAIRS_AT_ONCE = 1 << 20  # bounds the memory of the search
# Rounding bound of the 2 x 2 determinant: Shewchuk (1997), Discrete Comput. Geom. 18, 305-363.
ROUNDING = (3 + 16 * 2.0**-53) * 2.0**-53
UNDERFLOW = 1e-290


@dataclass(frozen=True)
class Crossings:
    """M crossings among `n_trajectories` trajectories, sorted by trajectory and step.

    points: (M, 2) float64; in 1-D (k + tau, z). trajectories: (M, 2) the two trajectories, first <=
    second, equal where one crosses itself. steps: (M, 2) the step k of each. fractions: (M, 2) the
    tau of each within its step. angles: (M,) degrees between the two directions; in phase space an
    autonomous field has one direction at each point, so a flow would have 0.
    """

    points: np.ndarray
    trajectories: np.ndarray
    steps: np.ndarray
    fractions: np.ndarray
    angles: np.ndarray
    n_trajectories: int

    @property
    def is_self(self) -> np.ndarray:
        """(M,) bool: a trajectory crosses itself."""
        return self.trajectories[:, 0] == self.trajectories[:, 1]

    @property
    def n_between(self) -> int:
        """Crossings of two different trajectories."""
        return int((~self.is_self).sum())

    @property
    def pairs(self) -> np.ndarray:
        """(P, 2): the different trajectories that cross, each pair once."""
        return np.unique(self.trajectories[~self.is_self], axis=0)

    @property
    def share_of_pairs(self) -> float:
        """Share of all pairs of trajectories that cross; nan for a single trajectory."""
        n_pairs = self.n_trajectories * (self.n_trajectories - 1) // 2
        return len(self.pairs) / n_pairs if n_pairs else float("nan")


def find_crossings(path: Tensor | np.ndarray, substeps: int = 1) -> Crossings:
    """Find all crossings of trajectories, which are taken as polygons with the vertices in `path`.

    This is exact for Euler's method. The steps of other methods are curves, and where the chords
    between their ends cross the curves need not: give the path that `refined_path` makes of them,
    with enough sub-steps that the count stays.

    Sides are decided exactly for the numbers in `path`; the points themselves are rounded.

    Args:
        path: States (n_points, N, dim) of N trajectories, dim 1 or 2.
        substeps: Number of segments of `path` that make one step of the solver.

    Raises:
        ValueError: The shape is another, states are not finite, or `substeps` does not divide the
            segments.
    """
    vertices = _check_path(path, substeps)
    n_trajectories, n_points, _ = vertices.shape
    found = [_select_crossings(vertices, a, b) for a, b in _close_pairs(vertices)]
    segments, taus = (np.concatenate(part) for part in zip(*found, strict=True))
    trajectories, segment = np.divmod(segments, n_points - 1)
    steps, substep = np.divmod(segment, substeps)
    fractions = (substep + taus) / substeps
    (start, end), (other_start, other_end) = (_ends(vertices, column) for column in segments.T)
    points = start + taus[:, :1] * (end - start)
    angles = _angles(end - start, other_end - other_start)
    order = np.lexsort((fractions[:, 0], *steps.T[::-1], *trajectories.T[::-1]))
    columns = (column[order] for column in (points, trajectories, steps, fractions, angles))
    return Crossings(*columns, n_trajectories=n_trajectories)


@torch.no_grad()
def refined_path(
    f: VectorField,
    z0: Tensor,
    solver: str | ButcherTableau,
    *,
    n_steps: int,
    substeps: int,
) -> Tensor:
    """Solve from t = 0 to 1 and return the trajectory with its sub-steps.

    Between z_k and z_{k+1} lie Psi_{tau h}(z_k), tau = 1/substeps, 2/substeps, ... For Euler's
    method substeps = 1 is exact. Otherwise s -> Psi_s(z) is a curve, smooth where f is, and a chord
    over h / substeps stays within (h / substeps)^2 / 8 times its largest second derivative of it:
    crossings that are farther from a mere contact than this are counted right, so raise `substeps`
    until the count stays.

    Args:
        f: Vector field.
        z0: Initial state; use float64, in which neighbours do not merge early.
        solver: Name of a method, or its tableau.
        n_steps: Number of equal steps.
        substeps: Number of parts that each step is cut into.

    Returns:
        States like z0 along a new first axis, `substeps` for each step and the last.

    Raises:
        ValueError: An argument is bad.
    """
    check_count("substeps", substeps)
    tableau = get_tableau(solver)
    states = list(solve_fixed(f, z0, solver, n_steps=n_steps, path=True).states)
    h = 1 / n_steps
    sizes = [h * i / substeps for i in range(1, substeps)]
    points = []
    for k, z in enumerate(states[:-1]):
        points += [z, *(rk_step(f, k / n_steps, z, size, tableau) for size in sizes)]
    return torch.stack([*points, states[-1]])


def euler_path(f: VectorField, starts: Tensor, n_steps: int, members: int = 1) -> Tensor:
    """Trajectories by Euler's method, (n_steps + 1, members, n, 2), in double precision.

    Every member begins at the same starts (n, 2).
    """
    z0 = starts.double().expand(members, -1, -1)
    path = solve_fixed(f, z0, "euler", n_steps=n_steps, path=True).path
    assert path is not None
    return path


def separated_starts(x: Tensor, n: int) -> Tensor:
    """Choose n rows of x that lie far apart, always the same ones.

    Farthest-point sampling (Gonzalez 1985): begin next to the mean, then always take the row that
    is farthest from those taken.

    Args:
        x: Points (N, dim).
        n: Number of rows to choose, 1 to N.

    Returns:
        Indices (n,) int64 of the rows.

    Raises:
        ValueError: x is no finite matrix, or n is outside [1, N].
    """
    if x.dim() != 2 or not bool(torch.isfinite(x).all()):
        raise ValueError(f"x of shape {tuple(x.shape)}: give finite points as rows (N, dim)")
    if not 1 <= n <= len(x):
        raise ValueError(f"n = {n}: give a number of starts between 1 and the {len(x)} rows of x")
    x = x.double()
    chosen = [int((x - x.mean(0)).norm(dim=1).argmin())]
    distance = torch.full((len(x),), float("inf"), dtype=x.dtype, device=x.device)
    while len(chosen) < n:
        distance = torch.minimum(distance, (x - x[chosen[-1]]).norm(dim=1))
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen, device=x.device)


# --- the search: pairs of segments whose bounding boxes overlap ---------------------------------


def _close_pairs(vertices: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs a < b of segments (numbered through) with overlapping boxes, in portions.

    Boxes of whole blocks are compared first: smooth trajectories are far from most others.
    """
    numbers, low, high = _blocks(vertices)
    block_low, block_high = np.nanmin(low, axis=1), np.nanmax(high, axis=1)
    rows = max(1, PAIRS_AT_ONCE // len(numbers))
    pairs = max(1, PAIRS_AT_ONCE // numbers.shape[1] ** 2)
    for first in range(0, len(numbers), rows):
        some = slice(first, first + rows)
        near = _overlap(block_low[some], block_high[some], block_low[first:], block_high[first:])
        p, q = (first + index for index in np.nonzero(np.triu(near)))
        for i, j in ((p[k : k + pairs], q[k : k + pairs]) for k in range(0, len(p), pairs)):
            block, s, t = np.nonzero(_overlap(low[i], high[i], low[j], high[j]))
            a, b = numbers[i[block], s], numbers[j[block], t]
            yield a[a < b], b[a < b]


def _blocks(vertices):
    """Numbers of the segments, (blocks, size), and their boxes' corners, (blocks, size, 2) each.

    A block that is not full has nan for corners, which overlaps nothing.
    """
    start, end = vertices[:, :-1], vertices[:, 1:]
    n_trajectories, n_segments, _ = start.shape
    size = min(BLOCK, n_segments)
    empty = ((0, 0), (0, -n_segments % size), (0, 0))
    low, high = (
        np.pad(corner, empty, constant_values=np.nan).reshape(-1, size, 2)
        for corner in (np.minimum(start, end), np.maximum(start, end))
    )
    numbers = np.arange(n_trajectories * n_segments).reshape(n_trajectories, n_segments)
    return np.pad(numbers, empty[:2]).reshape(-1, size), low, high


def _overlap(low_a, high_a, low_b, high_b):
    """Tell which of the boxes a (..., A, 2) overlap which of b (..., B, 2): bool (..., A, B)."""
    x, y = (
        (low_a[..., :, None, axis] <= high_b[..., None, :, axis])
        & (low_b[..., None, :, axis] <= high_a[..., :, None, axis])
        for axis in (0, 1)
    )
    return x & y


# --- the test: do two segments change sides? ----------------------------------------------------


def _select_crossings(vertices, a, b):
    """The segment pairs (a, b) that cross, (M, 2), and where on each: tau, (M, 2)."""
    (a0, a1), (b0, b1) = _ends(vertices, a), _ends(vertices, b)
    a0_side, a1_side = _side(b0, b1, a0), _side(b0, b1, a1)
    b0_side, b1_side = _side(a0, a1, b0), _side(a0, a1, b1)
    a_apart, b_apart = a0_side * a1_side < 0, b0_side * b1_side < 0
    crosses = a_apart & b_apart
    crosses |= _passes_corner(vertices, a, (b0, b1), (a0_side == 0) & b_apart, a1_side)
    crosses |= _passes_corner(vertices, b, (a0, a1), (b0_side == 0) & a_apart, b1_side)
    return np.stack([a, b], axis=1)[crosses], _taus(*(p[crosses] for p in (a0, a1, b0, b1)))


def _taus(a0, a1, b0, b1):
    """Return tau, tau' where a0 + tau (a1 - a0) and b0 + tau' (b1 - b0) meet: (M, 2), rounded."""
    scale = np.abs([a1 - a0, b1 - b0]).max(axis=(0, 2))[:, None]  # against under- and overflow
    along_a, along_b, apart = (a1 - a0) / scale, (b1 - b0) / scale, (b0 - a0) / scale
    taus = np.stack([_cross(apart, along_b), _cross(apart, along_a)], axis=1)
    return np.clip(taus / _cross(along_a, along_b)[:, None], 0.0, 1.0)


def _passes_corner(vertices, segment, line, at_corner, side_after):
    """Where `segment` starts on `line`, `at_corner`: did it come from the other side? (M,) bool"""
    passes = np.zeros(len(segment), dtype=bool)
    has_before = segment % (vertices.shape[1] - 1) > 0
    (index,) = np.nonzero(at_corner & has_before)
    before, _ = _ends(vertices, segment[index] - 1)
    side_before = _side(line[0][index], line[1][index], before)
    passes[index] = side_before * side_after[index] < 0
    return passes


def _ends(vertices, segments):
    """Start and end of segments that are numbered through all trajectories, (M, 2) each."""
    trajectory, k = np.divmod(segments, vertices.shape[1] - 1)
    return vertices[trajectory, k], vertices[trajectory, k + 1]


def _angles(u, v):
    """Degrees between the directions u and v, (M, 2) each -> (M,), 0 to 180."""
    u, v = (w / np.abs(w).max(axis=1, keepdims=True) for w in (u, v))  # against under- and overflow
    return np.degrees(np.arctan2(np.abs(_cross(u, v)), (u * v).sum(axis=1)))


def _cross(u, v):
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]


def _side(p, q, r):
    """Exact side of r from the line p -> q: 1 left, -1 right, 0 on it; (M, 2) each -> (M,)."""
    with np.errstate(over="ignore", invalid="ignore"):
        u, v = q - p, r - p
        left, right = u[:, 0] * v[:, 1], u[:, 1] * v[:, 0]
        area = left - right
        certain = np.abs(area) > ROUNDING * (np.abs(left) + np.abs(right)) + UNDERFLOW
    # An end of the line itself, such as the corner between two steps, is the common case.
    shared = (r == p).all(1) | (r == q).all(1)
    side = np.where(shared, 0.0, np.sign(area))
    for i in np.nonzero(~certain & ~shared)[0]:
        side[i] = _exact_side(p[i], q[i], r[i])
    return side


def _exact_side(p, q, r):
    (px, py), (qx, qy), (rx, ry) = (map(Fraction, point.tolist()) for point in (p, q, r))
    area = (qx - px) * (ry - py) - (qy - py) * (rx - px)
    return (area > 0) - (area < 0)


# --- checks -------------------------------------------------------------------------------------


def _check_path(path, substeps):
    """The vertices as float64 (N, n_points, 2); 1-D states become (k, z)."""
    check_count("substeps", substeps)
    path = path.detach().cpu().numpy() if isinstance(path, Tensor) else np.asarray(path)
    shape = path.shape
    if len(shape) != 3 or shape[0] < 2 or shape[1] < 1 or shape[2] not in (1, 2):
        raise ValueError(
            f"path of shape {shape}: give (n_points >= 2, trajectories, dim) with dim 1 or 2 (in "
            "higher dimensions curves miss one another, and crossings of projections mean nothing)"
        )
    if (shape[0] - 1) % substeps:
        raise ValueError(
            f"substeps = {substeps} does not divide the {shape[0] - 1} segments of path; give the "
            "number that refined_path was given"
        )
    path = path.astype(np.float64).transpose(1, 0, 2)
    if not np.isfinite(path).all():
        n, k = (int(i) for i in np.argwhere(~np.isfinite(path))[0][:2])
        raise ValueError(
            f"path is not finite at trajectory {n}, point {k}: leave the trajectories out that "
            "overflow, or solve with more steps"
        )
    if shape[2] == 1:
        k = np.broadcast_to(np.arange(shape[0])[:, None] / substeps, path.shape)
        path = np.concatenate([k, path], axis=2)
    return path
