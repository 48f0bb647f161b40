"""The trajectories that an explorer draws, with their crossings, computed in Python."""

from dataclasses import dataclass

from torch import Tensor

from nodecore.analysis.crossings import Crossings, find_crossings, refined_path
from nodecore.ode.tableaus import ButcherTableau, get_tableau
from nodecore.pages.explorers.constants import CHORDS, MOST_CHORDS
from nodecore.pages.explorers.host import counted
from nodecore.pages.explorers.packing import Model


@dataclass(frozen=True)
class DrawnRun:
    """path (n_points, n, 2) float64, and the crossings of the trajectories that stay finite."""

    path: Tensor
    crossings: Crossings


def draw_run(
    model: Model, seed: int, starts: Tensor, solver: str | ButcherTableau, n_steps: int
) -> DrawnRun:
    """The trajectories from the points of index `starts`, as `js/compute/runs.js` draws them.

    A step of a solver of higher order is a curve, cut into chords.
    """
    field, _ = model.member(seed)
    substeps = _n_chords(solver, n_steps)
    z0 = model.x[starts].double()[None]
    path = refined_path(field, z0, solver, n_steps=n_steps, substeps=substeps)[:, 0]
    finite = path.isfinite().all(0).all(1)
    return DrawnRun(path, find_crossings(path[:, finite], substeps=substeps))


def tell_chords(solver: str | ButcherTableau, n_steps: int) -> str:
    """Tell how curved steps are drawn, to follow a number of crossings; empty for Euler."""
    if get_tableau(solver).order == 1:
        return ""
    return f", each step drawn as {counted(_n_chords(solver, n_steps), 'straight piece')}"


def _n_chords(solver, n_steps):
    """Into how many chords a step is cut: Euler's is straight, others are curves."""
    if get_tableau(solver).order == 1:
        return 1
    return max(1, min(MOST_CHORDS, CHORDS // n_steps))
