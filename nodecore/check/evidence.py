"""Gather evidence beside the verdict: Jacobians, crossings, errors by step size."""

import math
from dataclasses import dataclass
from itertools import pairwise, takewhile

import torch
from torch import Tensor

from nodecore.analysis.crossings import find_crossings, refined_path, separated_starts
from nodecore.analysis.intervals import Interval
from nodecore.check.inputs import Samples, is_finite
from nodecore.check.model import Field, FlowModel, guarded
from nodecore.check.probes import random_index, random_states
from nodecore.check.scale import farthest
from nodecore.check.settings import OwnSolve, TimeGrid
from nodecore.check.solves import Solved, solve_part
from nodecore.check.verdict import Rule
from nodecore.ode.lipschitz import jacobian_norms
from nodecore.ode.solution import SolveError
from nodecore.ode.steps import FixedSteps, Steps

JACOBIAN_SAMPLES, JACOBIAN_TIMES, JACOBIAN_ITERATIONS = 16, 5, 20
CROSSING_STARTS, SUBSTEPS = 50, 8
CROSSING_STEPS = 256  # of the training, at most: of more the search takes longer than the check


@dataclass(frozen=True)
class AlongTrajectories:
    """The longest step h of the training, a lower bound on L or None, and notes why not."""

    h: float
    lipschitz: float | None
    notes: tuple[str, ...] = ()


def along_trajectories(
    model: FlowModel,
    samples: Samples,
    trained: Steps,
    n_times: int = JACOBIAN_TIMES,
    n_iterations: int = JACOBIAN_ITERATIONS,
) -> AlongTrajectories:
    """Find the longest step, and the largest Jacobian norm along a few trajectories."""
    few = samples[random_index(len(samples), JACOBIAN_SAMPLES)]
    try:
        part = solve_part(model, few, trained, path=True)
    except SolveError:
        return AlongTrajectories(math.nan, None)
    assert part.ts is not None
    h = math.nan if isinstance(trained, OwnSolve) else float(part.ts.diff().max())
    end = part.z[:, -1] if model.output_times else part.z
    path = torch.stack([few.z, end]) if part.path is None else part.path
    ts = part.ts if part.path is not None else part.ts[[0, -1]]
    some = torch.linspace(0, len(ts) - 1, n_times).round().long().unique().tolist()
    try:
        norms = torch.cat([_norms(model, few, float(ts[i]), path[i], n_iterations) for i in some])
    except (RuntimeError, ValueError, SolveError) as error:
        note = f"no Jacobians, the field cannot be differentiated: {str(error)[:150]}"
        return AlongTrajectories(h, None, (note,))
    finite = norms[norms.isfinite()]  # a field may have a pole at an end of the time
    note = f"the Jacobian is not finite at {len(norms) - len(finite)} of {len(norms)} states"
    notes = (f"{note}: L comes from the others",) * (len(finite) < len(norms))
    return AlongTrajectories(h, float(finite.max()) if len(finite) else None, notes)


def _norms(model: FlowModel, samples: Samples, t: float, z: Tensor, n_iterations: int) -> Tensor:
    if model.convention.grad:
        raise ValueError("it differentiates inside")
    if torch.is_inference_mode_enabled():
        raise ValueError("torch.inference_mode() is on; call the check outside of it")
    kept = is_finite(z).nonzero()[:, 0]
    some = samples[kept.cpu()]
    f, z = guarded(model.field(some.args)), z[kept].to(some.z)
    if len(z) and _knows_time_alone(f, t, z):
        return z.new_zeros(len(z))
    return jacobian_norms(f, z, t=t, n_iterations=n_iterations)


def _knows_time_alone(f: Field, t: float, z: Tensor) -> bool:
    try:
        return torch.equal(f(t, z), f(t, random_states(z)))
    except Exception:  # it knows states such as the samples only
        return False


def crossing_shares(
    model: FlowModel, samples: Samples, trained: Steps, timed: bool
) -> tuple[dict[int, float], list[str]]:
    """Return the share of pairs that cross by number of steps, in the plane, and notes why not."""
    plane = samples.z.shape[1:] == (2,) and model.packing.shapes is None
    if not isinstance(trained, FixedSteps) or not plane or samples.args is not None:
        return {}, []
    if trained.n_steps > CROSSING_STEPS:
        return {}, [f"crossings are not counted for more than {CROSSING_STEPS} steps"]
    if timed:
        return {}, ["the field depends on time: its trajectories may cross in the plane"]
    k, n = trained.n_steps, min(CROSSING_STARTS, len(samples))
    try:
        starts = samples.z[separated_starts(samples.z, n)]
        shares = {
            steps: _crossing_share(model, starts, trained.solver, steps, SUBSTEPS * k // steps)
            for steps in (k, 2 * k, 4 * k)
        }
    except (ValueError, SolveError) as error:  # such as a trajectory that overflows
        return {}, [f"no crossings: {error}"]
    return shares, []


def _crossing_share(
    model: FlowModel, starts: Tensor, solver: str, n_steps: int, substeps: int
) -> float:
    dtype = torch.float64 if model.in_float64 else None  # neighbours merge later
    f, (start, end) = guarded(model.field(None, dtype)), model.t

    def over_unit_time(t: Tensor | float, z: Tensor) -> Tensor:
        return (end - start) * f(start, z)

    substeps = 1 if solver == "euler" else substeps  # straight, or chords of one length
    states = starts.to(dtype or starts.dtype)
    path = refined_path(over_unit_time, states, solver, n_steps=n_steps, substeps=substeps)
    return find_crossings(path, substeps).share_of_pairs


@dataclass(frozen=True)
class StepError:
    """The training solver in other steps, against the exact flow.

    Attributes:
        setting: Solver and how it chooses its steps.
        size: Its longest step, in the units of t, or its tolerance.
        distance: Median distance of the end states, in their units.
        wrong: Share of samples with a wrong class; None without labels.
        agrees: Whether its answers surely are those of the exact flow, as a verdict would have it.
    """

    setting: Steps
    size: float
    distance: float
    wrong: Interval | None
    agrees: bool


def errors_by_step(
    rule: Rule,
    solved: dict[Steps, Solved],
    exact: Solved,
    settled: Tensor,
    span: float,
    times: int,
    bound: float,
) -> tuple[StepError, ...]:
    """Compare settings of the training solver, coarse to fine, with the exact flow.

    Args:
        rule: What counts as another answer.
        solved: Samples under each of them.
        exact: All samples under the exact flow.
        settled: Samples for which it is settled, (n,) bool.
        span: Length of the time.
        times: Number of output times of trajectories, or 1.
        bound: Largest difference of accuracies, or share of changed answers, of a flow.
    """
    found = []
    for setting, rows in solved.items():
        tested = rule.tested(setting, rows, exact, settled)
        difference = tested.changed if tested.drop is None else tested.drop
        agrees = difference.within(bound) and tested.changed.low <= bound
        distances = farthest(rows.z - exact.z[rows.index], times)
        distances = distances[distances.isfinite() & settled[rows.index]]
        distance = float(distances.median()) if len(distances) else math.nan
        right = tested.accuracy
        wrong = right and Interval(1 - right.value, 1 - right.high, 1 - right.low)
        size = step_or_tolerance(setting, span)
        found.append(StepError(setting, size, distance, wrong, agrees))
    return tuple(found)


def step_or_tolerance(setting: Steps, span: float) -> float:
    """Return the longest step of a setting over a time span, or its tolerance."""
    if setting.rtol is not None:
        return setting.rtol
    if isinstance(setting, TimeGrid):
        return max(b - a for a, b in pairwise(setting.times))
    assert setting.n_steps is not None
    return span / setting.n_steps


def coarsest(curve: tuple[StepError, ...]) -> Steps | None:
    """Return the coarsest setting from which on all agree with the exact flow; None if none."""
    agreeing = list(takewhile(lambda error: error.agrees, reversed(curve)))
    return agreeing[-1].setting if agreeing else None
