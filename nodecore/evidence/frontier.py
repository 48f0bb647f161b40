"""What an exact flow's accuracy costs in training: runs set beside one another, seed by seed."""

from collections.abc import Sequence

import pandas as pd

from nodecore.analysis.intervals import Interval
from nodecore.evidence.found import Evidence
from nodecore.evidence.means import difference_interval, mean_interval, summary
from nodecore.evidence.runs import Run
from nodecore.evidence.tables import accuracies, agrees_at_end, trained_seeds
from nodecore.ode.steps import FixedSteps


def frontier(found: Sequence[Evidence]) -> pd.DataFrame:
    """One row for each run, in the order given.

    Columns: training, its name without the seeds; solver; n_steps; plain, see is_plain; nfe,
    evaluations per iteration; own and exact, mean accuracies as trained and of the exact flow; std
    of the latter (n - 1) and its interval's ends low and high, 95 %, cut at 0 and 1; worst, the
    largest gap of a seed between the two; agreeing, seeds with a gap of at most AGREES_AT_END;
    trained, how many trained; and seeds, their number.
    """
    rows = []
    for evidence in found:
        table, run = accuracies(evidence), evidence.run
        exact = mean_interval(table["exact"])
        rows.append(
            {
                "training": run.training,
                "solver": run.steps.solver,
                "n_steps": run.steps.n_steps,
                "plain": is_plain(run),
                "nfe": table["nfe"].mean(),
                "own": table["own"].mean(),
                "exact": exact.value,
                "std": table["exact"].std(),
                "low": max(0.0, exact.low),
                "high": min(1.0, exact.high),
                "worst": table["gap"].max(),
                "agreeing": int(agrees_at_end(table["gap"]).sum()),
                "trained": len(trained_seeds(evidence.records)),
                "seeds": len(table),
            }
        )
    columns = ["training", "solver", "n_steps", "plain", "nfe", "own", "exact", "std"]
    columns += ["low", "high", "worst", "agreeing", "trained", "seeds"]
    return pd.DataFrame(rows, columns=columns)


def is_plain(run: Run) -> bool:
    """Tell whether a training takes fixed steps and does nothing else."""
    return isinstance(run.steps, FixedSteps) and not run.cures and not run.changes


def difference(one: Evidence, other: Evidence) -> Interval:
    """Estimate by how much the exact flow of one run is more accurate than that of another.

    Runs of the same seeds are compared seed by seed; else the seeds count as independent.
    """
    ours, theirs = (accuracies(evidence)["exact"] for evidence in (one, other))
    if ours.index.equals(theirs.index):
        return mean_interval(ours - theirs)
    return difference_interval(summary(ours), summary(theirs))


def judge_at_least(change: Interval) -> str:
    """Tell whether something is no worse than what it is compared with: "met" or "missed" where
    the interval of the difference says so, else "cannot tell"."""
    return "met" if change.low >= 0 else "missed" if change.high < 0 else "cannot tell"
