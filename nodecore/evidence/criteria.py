"""Which tests tell flows from the rest, among models that were trained with the same steps?

Each criterion scores a model: the higher the score, the less it looks like a flow. A model counts
as a flow if its accuracies as trained and under the exact flow agree. Only models with the same
number of steps are compared, since that number alone would separate the others.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from nodecore.analysis.evaluate import for_members, solve_setting
from nodecore.analysis.intervals import TAILS, Interval
from nodecore.analysis.margins import class_margins
from nodecore.check.order import order_test
from nodecore.check.scale import find_scale
from nodecore.data.split import Split
from nodecore.evidence.found import Evidence
from nodecore.evidence.tables import accuracies, agrees_at_end, trained_seeds
from nodecore.ode.fields import Conv1dField, LinearHead, MLPField
from nodecore.ode.lipschitz import jacobian_norms, lipschitz_bound
from nodecore.ode.steps import FixedSteps

JACOBIAN_SAMPLES = 32
RESAMPLES = 2000
# Name: whether labels are needed, and the evaluations of the field for a sample, in units of K
# besides the training's own solve; None: no solve.
CRITERIA: dict[str, tuple[bool, float | None]] = {
    "accuracy lost under midpoint": (True, 2),
    "classes changed under midpoint": (False, 2),
    "classes changed in half the step": (False, 2),
    "end states moved by midpoint": (False, 2),
    "end states moved beyond the margin": (False, 2),
    "observed order is not 1": (False, 6),
    "h L along trajectories": (False, None),
    "h L bounded by spectral norms": (False, None),
}


@torch.no_grad()
def scores(evidence: Evidence, split: Split) -> pd.DataFrame:
    """Score the seeds of a run with Euler's method that trained, on samples in random order.

    Returns:
        One row for each seed: seed, n_steps, flow, whether it is one by the accuracies of the whole
        test set, and a column for each of CRITERIA.
    """
    run, field, head = evidence.run, evidence.field, evidence.head
    assert isinstance(run.steps, FixedSteps) and run.steps.solver == "euler"
    assert isinstance(field, MLPField | Conv1dField) and isinstance(head, LinearHead)
    k = run.steps.n_steps
    start = for_members(field, split.x)
    own, twice, four, other = (
        solve_setting(field, start, FixedSteps(solver, steps)).z
        for solver, steps in (("euler", k), ("euler", 2 * k), ("euler", 4 * k), ("midpoint", k))
    )
    classes, by_twice, by_other = (head(z).argmax(-1) for z in (own, twice, other))
    right, still_right = ((c == split.y).double().mean(1) for c in (classes, by_other))
    orders = [order_test(ends, 1) for ends in zip(own, twice, four, strict=True)]
    inside = (other.double() - own.double()).norm(dim=-1) < class_margins(head, own)
    some = torch.stack([start, own])[:, :, :JACOBIAN_SAMPLES]
    norms = torch.stack([jacobian_norms(field, z, instance_axes=2) for z in some])
    columns = {
        "accuracy lost under midpoint": (right - still_right).abs(),
        "classes changed under midpoint": (classes != by_other).double().mean(1),
        "classes changed in half the step": (classes != by_twice).double().mean(1),
        "end states moved by midpoint": _moved(start, own, other),
        "end states moved beyond the margin": 1 - inside.double().mean(1),
        "observed order is not 1": [1 - (o.near.value if o else 1.0) for o in orders],
        "h L along trajectories": norms.amax((0, 2)) / k,
        "h L bounded by spectral norms": lipschitz_bound(field) / k,
    }
    gaps = accuracies(evidence)["gap"]
    table = pd.DataFrame(
        {"seed": run.seeds, "n_steps": k}
        | {name: np.asarray(column) for name, column in columns.items()}
    )
    table = table[table["seed"].isin(trained_seeds(evidence.records))]
    return table.assign(flow=[agrees_at_end(gaps.at[seed]) for seed in table["seed"]])


def _moved(start: torch.Tensor, own: torch.Tensor, other: torch.Tensor) -> list[float]:
    """Return the median distance of end states, in units of each member's scale."""
    found = []
    for member in range(len(own)):
        scale = find_scale(other[member], start[member])
        found.append(float(scale.distance(own[member], other[member]).median()))
    return found


# --- how well a score tells -----------------------------------------------------------------------


def discrimination(table: pd.DataFrame, criterion: str) -> Interval:
    """Estimate how often a criterion scores a model that is no flow above one that is.

    Over all pairs of such models with equal n_steps, ties as one half: the area under the receiver
    operating characteristic, within n_steps. 0.5 is chance. The 95 % interval is by bootstrap over
    seeds, whose models at all n_steps are drawn together; NaN where there is no pair.
    """
    seeds = sorted(table["seed"].unique())
    score, flow = _grids(table, criterion, seeds)
    value, _ = rank_share(score, flow)
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(seeds), (RESAMPLES, len(seeds)))
    areas = [rank_share(score[:, rows], flow[:, rows])[0] for rows in drawn]
    low, high = np.nanquantile(areas, TAILS) if not np.isnan(value) else (np.nan,) * 2
    return Interval(value, float(low), float(high))


def _grids(
    table: pd.DataFrame, criterion: str, seeds: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores and whether flows, (numbers of steps, seeds); NaN where there is no model."""
    wide = [
        table.pivot(index="n_steps", columns="seed", values=column)[seeds]
        for column in (criterion, "flow")
    ]
    return wide[0].to_numpy(float), wide[1].to_numpy(float)


def rank_share(score: ArrayLike, flow: ArrayLike) -> tuple[float, int]:
    """Count how often a model that is no flow has the higher score of a pair with one that is.

    Args:
        score: Scores of models, (rows, models); only those of one row are compared.
        flow: Whether they are flows, 1 or 0; NaN for one that does not count.

    Returns:
        The share of the pairs, ties as one half, and their number; NaN where there is none.
    """
    higher, pairs = 0.0, 0
    for scores_of, flows in zip(np.asarray(score, float), np.asarray(flow, float), strict=True):
        bad, good = (scores_of[flows == kind] for kind in (0.0, 1.0))
        difference = bad[:, None] - good[None]
        higher += float((difference > 0).sum() + (difference == 0).sum() / 2)
        pairs += difference.size
    return (higher / pairs if pairs else float("nan")), pairs
