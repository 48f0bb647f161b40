"""What an exact flow's accuracy costs in training: runs set beside one another, seed by seed."""

from collections.abc import Sequence

import pandas as pd

from nodecore.analysis.intervals import Interval
from nodecore.evidence.found import Evidence
from nodecore.evidence.means import difference_interval, mean_interval, summary
from nodecore.evidence.names import describe_changes, name_of
from nodecore.evidence.runs import Run
from nodecore.evidence.tables import agrees_at_end, as_trained, under_exact_flow
from nodecore.ode.steps import FixedSteps
from nodecore.training.adapted import Adapted
from nodecore.training.cures import ChosenSteps, DrawnSteps


def accuracies(evidence: Evidence) -> pd.DataFrame:
    """Tabulate the accuracies of a run by seed: "own", as trained, and "exact", of the exact flow.

    All seeds count, those that did not train, too: a cure that keeps them from it gets no credit.
    Of steps that are drawn, as trained is under the K that the run is named by.
    """
    every = evidence.records.assign(trained=True)
    parts = {"own": as_trained(every), "exact": under_exact_flow(every)}
    columns = {name: rows.set_index("seed")["accuracy"] for name, rows in parts.items()}
    nfe = every.groupby("seed")["nfe_per_iteration"].first()
    table = pd.DataFrame({**columns, "nfe": nfe}).astype(float).sort_index()
    return table.assign(gap=(table["own"] - table["exact"]).abs())


def frontier(found: Sequence[Evidence]) -> pd.DataFrame:
    """One row for each run, in the order given.

    Columns: training, its name without the seeds; solver; n_steps; plain, see is_plain; nfe,
    evaluations per iteration; own and exact, mean accuracies as trained and of the exact flow; std
    of the latter (n - 1) and its interval's ends low and high, 95 %, cut at 0 and 1; worst, the
    largest gap of a seed between the two; agreeing, seeds with a gap of at most AGREES_AT_END; and
    seeds, their number.
    """
    rows = []
    for evidence in found:
        table, run = accuracies(evidence), evidence.run
        exact = mean_interval(table["exact"])
        rows.append(
            {
                **{"training": run.training, "solver": run.steps.solver},
                **{"n_steps": run.steps.n_steps, "plain": is_plain(run)},
                **{"nfe": table["nfe"].mean(), "own": table["own"].mean()},
                **{"exact": exact.value, "std": table["exact"].std()},
                **{"low": max(0.0, exact.low), "high": min(1.0, exact.high)},
                "worst": table["gap"].max(),
                "agreeing": int(agrees_at_end(table["gap"]).sum()),
                "seeds": len(table),
            }
        )
    columns = ["training", "solver", "n_steps", "plain", "nfe", "own", "exact", "std"]
    return pd.DataFrame(rows, columns=[*columns, "low", "high", "worst", "agreeing", "seeds"])


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


def is_at_least(change: Interval) -> str:
    """Tell whether something is no worse than what it is compared with: "met" or "missed" where
    the interval of the difference says so, else "cannot tell"."""
    return "met" if change.low >= 0 else "missed" if change.high < 0 else "cannot tell"


def describe(run: Run) -> str:
    """Return what a training does, as text and figures print it; Euler's method goes unsaid, and
    beside changes of the protocol the number of steps, too."""
    if isinstance(run.steps, Adapted):
        drawn = [c.describe_around() for c in run.cures if isinstance(c, DrawnSteps)]
        return ", ".join([name_of(str(run.steps.controller)), *drawn])
    if run.changes:
        return describe_changes(run.changes)
    n_steps, solver = run.steps.n_steps or 0, run.steps.solver
    said = [cure.describe(n_steps) for cure in run.cures]
    if not any(isinstance(cure, ChosenSteps) for cure in run.cures):
        said = [f"K = {n_steps}", *said]
    return ", ".join(said if solver == "euler" else [name_of(solver), *said])
