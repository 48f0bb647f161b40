"""Records -> the tables that chapters show: accuracy as trained, grid search, adaption, tolerances.

A frame here holds records of one study, columns as in store.COLUMNS.
"""

from dataclasses import dataclass

import pandas as pd

from nodecore.evaluate import AGREEMENT, EXACT, critical_n_steps
from nodecore.study import agreement_gaps


def as_trained(frame: pd.DataFrame) -> pd.DataFrame:
    """The records under the training solver at the training's own setting, seeds that trained only.

    For an adapted run that setting is the step size it ended with.
    """
    own_setting = (
        (frame["test_n_steps"] == frame["n_steps"])
        | (frame["test_n_steps"] == frame["final_n_steps"])
        | (frame["test_rtol"] == frame["rtol"])
    )
    own_solver = frame["test_solver"] == frame["train_solver"]
    return frame[frame["trained"].astype(bool) & own_solver & own_setting]


def under_exact_flow(frame: pd.DataFrame) -> pd.DataFrame:
    """The records under the setting that stands for the exact flow, seeds that trained only."""
    exact = (frame["test_solver"] == EXACT.solver) & (frame["test_rtol"] == EXACT.rtol)
    return frame[frame["trained"].astype(bool) & exact]


def own_accuracy(frame: pd.DataFrame, by: str = "n_steps") -> pd.DataFrame:
    """Accuracy as trained: mean and std (n - 1) over the seeds that trained, by n_steps or rtol."""
    return as_trained(frame).groupby(by)["accuracy"].agg(["mean", "std"])


def exact_gaps(frame: pd.DataFrame, by: str = "n_steps") -> pd.Series:
    """Gap between the mean accuracies as trained and under the exact flow, by n_steps or rtol."""
    exact = under_exact_flow(frame).groupby(by)["accuracy"].mean()
    gaps = (own_accuracy(frame, by)["mean"] - exact).abs()
    return gaps.reindex(sorted(frame[by].unique())).astype(float)


def seed_gaps(frame: pd.DataFrame) -> pd.DataFrame:
    """The agreement gaps of each seed by itself: a column for each, n_steps as index."""
    return pd.DataFrame({seed: agreement_gaps(rows) for seed, rows in frame.groupby("seed")})


@dataclass(frozen=True)
class GridSearch:
    """What a grid of training n_steps finds.

    critical: the coarsest n_steps from which on the solvers agree. coarser: the one before it on
    the grid, None if there is none. disagreeing: seeds that trained and do not agree at `critical`
    by themselves. best, mean, std: n_steps of the highest mean accuracy among the ODE-like runs.
    """

    critical: int
    coarser: int | None
    disagreeing: int
    best: int
    mean: float
    std: float

    @property
    def nfe(self) -> str:
        """NFE around the critical step as the paper counts them, K + 1, such as 33-65."""
        return "-".join(str(k + 1) for k in (self.coarser, self.critical) if k)


def grid_search(frame: pd.DataFrame) -> GridSearch | None:
    """The critical step and the best ODE-like run of a study; None if no step is critical."""
    gaps = agreement_gaps(frame).to_dict()
    critical = critical_n_steps(gaps)
    if critical is None:
        return None
    coarser = max((k for k in gaps if k < critical), default=None)
    disagreeing = int((seed_gaps(frame).loc[critical] > AGREEMENT).sum())
    ode_like = own_accuracy(frame).loc[critical:]
    best = int(ode_like["mean"].idxmax())
    return GridSearch(critical, coarser, disagreeing, best, *map(float, ode_like.loc[best]))


def adaption_ends(frame: pd.DataFrame, test_solver: str = "midpoint") -> pd.DataFrame:
    """Where each seed of an adapted run ended, and how restless its step size was.

    Index: seed. Accuracies as trained, under the test solver at the same step, and under the exact
    flow, for every seed whether it trained or not.
    """
    every = frame.assign(trained=True)
    better = every.assign(train_solver=test_solver)
    accuracies = {
        "as trained": as_trained(every),
        test_solver: as_trained(better),
        "exact flow": under_exact_flow(every),
    }
    columns = ["trained", "final_n_steps", "nfe_per_iteration"]
    restless = ["reversals", "failed_checks", "spread"]
    seeds = frame.drop_duplicates("seed").set_index("seed")
    found = {name: rows.set_index("seed")["accuracy"] for name, rows in accuracies.items()}
    return seeds[columns].assign(**found).join(seeds[restless])


def tolerances(frame: pd.DataFrame) -> pd.DataFrame:
    """By training rtol: seeds, those that trained, NFE per iteration, accuracies and their gap."""
    seeds = frame.drop_duplicates(["rtol", "seed"]).groupby("rtol")
    exact = under_exact_flow(frame).groupby("rtol")["accuracy"].agg(["mean", "std"])
    table = pd.DataFrame(
        {
            "seeds": seeds.size(),
            "trained": seeds["trained"].sum(),
            "nfe_per_iteration": seeds["nfe_per_iteration"].mean(),
            "gap": exact_gaps(frame, "rtol"),
        }
    )
    table = table.join(own_accuracy(frame, "rtol")).join(exact.add_suffix(" exact"))
    return table.sort_index(ascending=False)
