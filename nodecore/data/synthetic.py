"""Concentric spheres and the energy landscape, made from a seeded generator."""

import numpy as np
import torch
from torch import Tensor

from nodecore.data.split import Split
from nodecore.ode.checks import check_count
from nodecore.ode.fixed import solve_fixed

# --- concentric spheres ---------------------------------------------------------------------------

# (r_min, r_max, class, parts of n): the outer and the inner shell are of the same class. The
# paper's text prints no radii or counts; these are its authors' released defaults.
SHELLS = ((0.1, 0.15, 0, 1), (0.25, 0.3, 1, 2), (0.4, 0.45, 0, 1))


def concentric_spheres(n: int, dim: int, generator: torch.Generator) -> Split:
    """Draw n points on three shells in `dim` dimensions, shell by shell.

    The direction is uniform, the radius r_min + (r_max - r_min) u^(1/dim) with u uniform, as
    Dupont, Doucet and Teh (2019) draw them. SHELLS has the radii, classes and shares. Raises
    ValueError for less than 4 points or no dimension.
    """
    check_count("n", n, 4)
    check_count("dim", dim)
    parts = sum(shell[3] for shell in SHELLS)
    counts = [n * share // parts for *_, share in SHELLS]
    counts[-1] += n - sum(counts)
    points, labels = [], []
    for count, (r_min, r_max, label, _) in zip(counts, SHELLS, strict=True):
        direction = torch.randn(count, dim, generator=generator, dtype=torch.float64)
        direction /= direction.norm(dim=1, keepdim=True)
        u = torch.rand(count, 1, generator=generator, dtype=torch.float64)
        points.append(direction * (r_min + (r_max - r_min) * u ** (1 / dim)))
        labels.append(torch.full((count,), label))
    return Split(torch.cat(points).float(), torch.cat(labels), n_classes=2)


# --- particle in an energy landscape --------------------------------------------------------------

POTENTIAL = 0.2 * np.polynomial.Polynomial.fromroots([2.0, 0.5, -1.0, -0.6, 1.6, 0.0])
SLOPE = POTENTIAL.deriv()
FRICTION = 0.2
POSITIONS = (-1.0, 2.0)  # of the start, uniform
VELOCITIES = (-2.0, 2.0)
# Friction has caught nearly all particles in one of the three wells by t = 15.
REST_STEP, REST_SPAN, REST_ROUNDS = 0.02, 5.0, 20
REST_MARGIN = 1e-6  # of energy below the barrier, well above rounding


def potential(x: Tensor) -> Tensor:
    """Compute V(x) = 0.2 (x-2)(x-0.5)(x+1)(x+0.6)(x-1.6) x, elementwise."""
    return _polynomial(POTENTIAL, x)


def landscape_field(t: float | Tensor, z: Tensor) -> Tensor:
    """Compute the true vector field (paper, eq. 4) on z = (x, v), shape (..., 2).

    dx/dt = v,  dv/dt = -V'(x) - gamma v,  gamma = 0.2.
    """
    x, v = z.unbind(-1)
    return torch.stack([v, -_polynomial(SLOPE, x) - FRICTION * v], dim=-1)


def landscape_extrema() -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the minima (3,) and of the maxima between them (2,), ascending."""
    roots = SLOPE.roots()
    roots = np.sort(roots[np.abs(roots.imag) < 1e-9].real)
    convex = POTENTIAL.deriv(2)(roots) > 0
    return roots[convex], roots[~convex]


def landscape_minima() -> np.ndarray:
    """Return the positions of the minima, one for each class, (3,) ascending."""
    return landscape_extrema()[0]


def energy_landscape(n: int, generator: torch.Generator) -> Split:
    """Draw n starts (x, v), each labelled by the minimum in which the particle comes to rest.

    The starts are uniform over POSITIONS and VELOCITIES. Raises ValueError for none, and what
    resting_place raises.
    """
    check_count("n", n)
    low = torch.tensor([POSITIONS[0], VELOCITIES[0]], dtype=torch.float64)
    high = torch.tensor([POSITIONS[1], VELOCITIES[1]], dtype=torch.float64)
    starts = low + (high - low) * torch.rand(n, 2, generator=generator, dtype=torch.float64)
    starts = starts.float()
    return Split(starts, resting_place(starts), n_classes=len(landscape_minima()))


def resting_place(starts: Tensor) -> Tensor:
    """Find the minimum, int64 (...), in which each particle (..., 2) comes to rest.

    The motion is integrated in float64 with rk4 until no particle has the energy to leave the well
    it is in: friction only takes energy. Raises RuntimeError where one still has it after
    REST_ROUNDS spans of time.
    """
    maxima = torch.from_numpy(landscape_extrema()[1]).to(starts.device)
    barriers = potential(maxima)
    lower = torch.minimum(barriers[[0, 0, 1]], barriers[[0, 1, 1]])  # of those beside each well
    z, caught = starts.double(), torch.zeros(starts.shape[:-1], dtype=torch.bool)
    for _ in range(REST_ROUNDS):
        z = solve_fixed(landscape_field, z, "rk4", step_size=REST_STEP, t=(0.0, REST_SPAN)).z
        x, v = z.unbind(-1)
        well = torch.bucketize(x.contiguous(), maxima)
        caught = potential(x) + v**2 / 2 < lower[well] - REST_MARGIN
        if bool(caught.all()):
            return well
    raise RuntimeError(
        f"{int((~caught).sum())} particles are caught in no well within t = "
        f"{REST_ROUNDS * REST_SPAN:g}; they may start on the edge of two basins"
    )


def _polynomial(p, x):
    """Evaluate p by Horner's rule; numpy's own evaluation would turn tensors into arrays."""
    value = torch.zeros_like(x)
    for coefficient in p.coef[::-1]:
        value = value * x + float(coefficient)
    return value
