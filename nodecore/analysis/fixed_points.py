"""Zeros of a vector field: where they lie, and whether they attract."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from nodecore.ode.solution import VectorField

Corner = Tensor | Sequence[float]  # of a box, (dim,)
TOLERANCE = 1e-9  # of |f| at a zero, relative to the largest |f| on the grid of starts
STARTS_PER_AXIS = 40  # points of the grid that Newton's method starts from
NEWTON_STEPS = 40
POINTS_PER_SIDE = 2000  # of a box, along which a winding number is counted


@dataclass(frozen=True)
class FixedPoints:
    """M zeros of f in a box: points (M, dim) and the eigenvalues (M, dim) of df/dz there."""

    points: Tensor
    eigenvalues: Tensor

    @property
    def kinds(self) -> list[str]:
        """Kind of each zero, "sink", "source" or "saddle", by the signs of the real parts."""
        real = self.eigenvalues.real
        sink, source = (real < 0).all(1).tolist(), (real > 0).all(1).tolist()
        return [
            "sink" if down else "source" if up else "saddle"
            for down, up in zip(sink, source, strict=True)
        ]

    @property
    def index(self) -> int:
        """Sum of sign det(df/dz): equals `winding_number` of the box if no zero was missed."""
        return int(self.eigenvalues.prod(1).real.sign().sum())


def find_fixed_points(
    f: VectorField,
    low: Corner,
    high: Corner,
    *,
    starts: Tensor | None = None,
) -> FixedPoints:
    """Find the zeros of an autonomous field in a box.

    Newton's method takes NEWTON_STEPS from a grid of points and from `starts`. A step stays shorter
    than a tenth of the box, so that a field of ReLU layers, linear in pieces, is searched piece by
    piece.

    Args:
        f: Field f(t, z) on z (N, dim) float64.
        low: Lowest corner of the box, (dim,).
        high: Highest corner of the box, (dim,).
        starts: More points to start from, (M, dim), such as states that were visited.

    Returns:
        The zeros, sorted by coordinates, with the eigenvalues of df/dz there.

    Raises:
        ValueError: The box is empty.
    """
    low, high = _check_box(low, high)
    z = _grid(low, high, STARTS_PER_AXIS)
    if starts is not None:
        z = torch.cat([z, starts])
    scale = f(_zero(z), z).detach().norm(dim=1).max()
    longest = (high - low).max() / 10
    for _ in range(NEWTON_STEPS):
        value, jacobian = value_and_jacobian(f, z)
        step = (torch.linalg.pinv(jacobian) @ value[..., None])[..., 0]
        z = z - step * (longest / step.norm(dim=1, keepdim=True)).clamp(max=1.0)
    residual = f(_zero(z), z).detach().norm(dim=1)
    inside = ((z >= low) & (z <= high)).all(1)
    points = _distinct(z[inside & (residual <= TOLERANCE * scale)], longest * 1e-4)
    _, jacobian = value_and_jacobian(f, points)
    return FixedPoints(points, torch.linalg.eigvals(jacobian))


def find_visited(f: VectorField, path: Tensor) -> tuple[FixedPoints, bool]:
    """Find the zeros in the box that trajectories in the plane visit.

    Args:
        f: Field f(t, z) on z (N, 2) float64.
        path: Trajectories (n_points, N, 2); Newton's method starts from some of their states, too.

    Returns:
        The zeros, and whether their index is the winding number of the box, as it is where none
        was missed.
    """
    states = path[:: max(1, len(path) // 8)].flatten(0, 1)
    box = states.amin(0), states.amax(0)
    found = find_fixed_points(f, *box, starts=states)
    return found, found.index == winding_number(f, *box)


def value_and_jacobian(f: VectorField, z: Tensor) -> tuple[Tensor, Tensor]:
    """Compute f (..., dim) and df/dz (..., dim, dim) of an autonomous field that treats samples one
    by one, at states (..., dim)."""
    z = z.detach().requires_grad_(True)
    value = f(_zero(z), z)
    rows = [
        torch.autograd.grad(value[..., i].sum(), z, retain_graph=True)[0]
        for i in range(z.shape[-1])
    ]
    return value.detach(), torch.stack(rows, dim=-2)


@torch.no_grad()
def winding_number(f: VectorField, low: Corner, high: Corner) -> int:
    """Count the turns of f(z), z (N, 2) float64, along the edge of a 2-D box.

    The count is the sum of the indices of the zeros inside. See find_fixed_points for the box; f is
    evaluated at POINTS_PER_SIDE points along each side.
    """
    (x0, y0), (x1, y1) = (corner.tolist() for corner in _check_box(low, high))
    corners = torch.tensor([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]], dtype=torch.float64)
    part = torch.linspace(0, 1, POINTS_PER_SIDE, dtype=torch.float64)[:, None]
    edge = torch.cat([a + part * (b - a) for a, b in pairwise(corners)])
    value = f(_zero(edge), edge)
    angles = np.unwrap(torch.atan2(value[:, 1], value[:, 0]).numpy())
    return round((angles[-1] - angles[0]) / (2 * np.pi))


def _zero(z):
    return z.new_zeros(())


def _grid(low, high, n):
    axes = [torch.linspace(a, b, n, dtype=torch.float64) for a, b in zip(low, high, strict=True)]
    return torch.cartesian_prod(*axes).reshape(n ** len(axes), len(axes))


def _distinct(points, distance):
    """Return one point of each group closer than `distance`, sorted by coordinates."""
    kept = []
    for point in sorted(points.tolist()):
        point = torch.tensor(point, dtype=torch.float64)
        if all((point - other).norm() > distance for other in kept):
            kept.append(point)
    return torch.stack(kept) if kept else points[:0]


def _check_box(low, high):
    low, high = (torch.as_tensor(corner, dtype=torch.float64) for corner in (low, high))
    if low.shape != high.shape or low.dim() != 1 or not bool((low < high).all()):
        raise ValueError(
            f"low = {low.tolist()}, high = {high.tolist()}: give opposite corners with low < high"
        )
    return low, high
