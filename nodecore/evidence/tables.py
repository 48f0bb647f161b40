"""Records -> the tables that chapters show: accuracy as trained, grid search, adaption, tolerances.

A frame here holds records of one study, columns as in store.COLUMNS.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from nodecore.analysis.evaluate import (
    AGREEMENT,
    EXACT,
    IMAGES_EXACT,
    better_setting,
    critical_n_steps,
)
from nodecore.analysis.intervals import TAILS
from nodecore.data.datasets import DATASETS, IMAGES
from nodecore.evidence import store
from nodecore.evidence.found import Evidence, find
from nodecore.evidence.runs import Run

RESAMPLES = 2000  # draws of seeds with replacement, for the uncertainty of a critical step
FEWEST = 5  # seeds that a range of redraws is told of: fewer repeat one another


def records_of(found: Iterable[Evidence]) -> pd.DataFrame:
    """The records of several runs in one frame; empty, with all columns, where there is none."""
    frames = [evidence.records for evidence in found]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=store.COLUMNS)


def trained_seeds(frame: pd.DataFrame) -> list[int]:
    """The seeds that trained in every record there is of them, in ascending order."""
    trained = pd.Series(frame.groupby("seed")["trained"].all(), dtype=bool)
    return trained.index[trained.to_numpy()].tolist()


def records_by_solver(found: Iterable[Evidence]) -> dict[tuple[str, str], pd.DataFrame]:
    """The records of several runs, a frame for each data set and training solver."""
    groups: dict[tuple[str, str], list[Evidence]] = {}
    for evidence in found:
        groups.setdefault((evidence.run.dataset, evidence.run.steps.solver), []).append(evidence)
    return {key: records_of(group) for key, group in groups.items()}


def records_if_whole(runs: Iterable[Run]) -> pd.DataFrame | None:
    """The records of all these runs in one frame; None where one of them is not there."""
    found = [find(run) for run in runs]
    return records_of(e for e in found if e is not None) if None not in found else None


def as_trained(frame: pd.DataFrame) -> pd.DataFrame:
    """The records under the training solver at the training's own setting, seeds that trained only.

    For an adapted run that setting is the step size, or tolerance, of its last iteration.
    """
    own_setting = (
        (frame["test_n_steps"] == frame["n_steps"])
        | (frame["test_n_steps"] == frame["final_n_steps"])
        | (frame["test_rtol"] == frame["rtol"])
        | (frame["test_rtol"] == frame["final_rtol"])
    )
    own_solver = frame["test_solver"] == frame["train_solver"]
    return frame.loc[frame["trained"].astype(bool) & own_solver & own_setting]


def under_exact_flow(frame: pd.DataFrame) -> pd.DataFrame:
    """The records under the setting that stands for the exact flow, seeds that trained only.

    Old records of images have the setting of the other data sets.
    """
    rtol, on_images = frame["test_rtol"], frame["dataset"].isin(IMAGES)
    exact = (rtol == EXACT.rtol) | (on_images & (rtol == IMAGES_EXACT.rtol))
    exact &= frame["test_solver"] == EXACT.solver
    return frame.loc[frame["trained"].astype(bool) & exact]


def own_accuracy(frame: pd.DataFrame, by: str = "n_steps") -> pd.DataFrame:
    """Accuracy as trained: mean and std (n - 1) over the seeds that trained, by n_steps or rtol."""
    return pd.DataFrame(as_trained(frame).groupby(by)["accuracy"].agg(["mean", "std"]))


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


By = str | list[str]  # n_steps or rtol; with "seed", of each seed by itself


def exact_gaps(frame: pd.DataFrame, by: By = "n_steps") -> pd.Series:
    """Gap between the mean accuracies as trained and under the exact flow, by n_steps or rtol."""
    return _gaps_to(under_exact_flow(frame), frame, by)


def _gaps_to(others, frame, by) -> pd.Series:
    """Gap between the mean accuracies as trained and of other records, by n_steps or rtol; NaN
    where no seed trained."""
    own, other = (
        pd.Series(rows.groupby(by)["accuracy"].mean(), dtype=float)
        for rows in (as_trained(frame), others)
    )
    return (own - other).abs().reindex(frame.groupby(by).size().index)


def mean_accuracies(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each training and test setting: mean, std (n - 1) and number of the seeds that
    trained."""
    settings = ["dataset", "profile", "train_solver", "n_steps"]
    settings += ["test_solver", "test_n_steps", "test_rtol"]
    rows = frame[frame["trained"].astype(bool)].groupby(settings, dropna=False)["accuracy"]
    table = pd.DataFrame(rows.agg(["mean", "std", "count"]))
    return table.rename(columns={"count": "seeds"}).reset_index()


def same_step(frame: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the accuracies of the seeds that trained, by training n_steps and seed.

    Columns: "as trained"; "test solver", that of the critical step; "rk4" at the same step; "exact
    flow"; "all", as trained on all test images. NaN where there are no records.
    """
    rk4 = (frame["test_solver"] == "rk4") & (frame["test_n_steps"] == frame["n_steps"])
    parts = {
        "as trained": as_trained(frame)["accuracy"],
        "test solver": _under_test_solver(frame)["accuracy"],
        "rk4": frame[rk4 & frame["trained"].astype(bool)]["accuracy"],
        "exact flow": under_exact_flow(frame)["accuracy"],
        "all": as_trained(frame)["accuracy_all"],
    }
    by = [frame["n_steps"], frame["seed"]]
    return pd.DataFrame({name: v.astype(float).groupby(by).mean() for name, v in parts.items()})


def _under_test_solver(frame) -> pd.DataFrame:
    """The records under the test solver of the critical step, seeds that trained only."""
    pairs = list(zip(frame["train_solver"], frame["n_steps"], strict=True))
    checks = {(solver, k): better_setting(solver, int(k)) for solver, k in set(pairs)}
    tested = frame["test_solver"] == [checks[pair].solver for pair in pairs]
    tested &= frame["test_n_steps"] == [checks[pair].n_steps for pair in pairs]
    return frame.loc[tested & frame["trained"].astype(bool)]


def agreement_gaps(frame: pd.DataFrame, by: By = "n_steps") -> pd.Series:
    """Gap between the mean accuracies under the training and its test solver, by training n_steps.

    Means over the seeds that trained; NaN where none did. `frame`: records of one study.
    """
    return _gaps_to(_under_test_solver(frame), frame, by)


Gaps = Callable[[pd.DataFrame, By], pd.Series]  # agreement_gaps or exact_gaps


def tell_critical(frame: pd.DataFrame, gaps: Gaps = agreement_gaps) -> str:
    """The critical n_steps of the mean as text.

    Where the grid's coarse end is not there, or it ends at that step, it is a bound only.
    """
    grid = gaps(frame, "n_steps")
    critical = critical_n_steps(grid.to_dict())
    if critical is None:
        return "none"
    if critical == grid.index[0] > 1:
        return f"at most {critical}"
    return f"at least {critical}" if critical == grid.index[-1] else f"{critical}"


def tell_n_steps(n_steps: float | None) -> str:
    """A critical n_steps as text, "none" for None or NaN."""
    return "none" if n_steps is None or np.isnan(n_steps) else f"{n_steps:.0f}"


def seed_gaps(
    frame: pd.DataFrame, gaps: Gaps = agreement_gaps, by: str = "n_steps"
) -> pd.DataFrame:
    """The gaps of each seed by itself: a column for each, n_steps or rtol as index."""
    return gaps(frame, [by, "seed"]).unstack("seed")


def seed_critical(frame: pd.DataFrame) -> pd.Series:
    """The critical n_steps of each seed by itself; NaN where it agrees at none of the grid.

    A run in which a seed did not train does not count for it.
    """
    found = {s: critical_n_steps(gap.dropna().to_dict()) for s, gap in seed_gaps(frame).items()}
    return pd.Series(found, dtype=float).rename_axis("seed")


def critical_shares(frame: pd.DataFrame) -> pd.Series:
    """Compute how often each n_steps would be the critical one if other seeds had been drawn.

    Bootstrap: as many seeds as there are, drawn with replacement, always the same draws; the mean
    is over those that trained. Shares by critical n_steps, NaN for none; empty if no seed trained.
    """
    gaps = _signed_gaps(frame)
    n_seeds = gaps.shape[1]
    if n_seeds == 0:
        return pd.Series(dtype=float)
    drawn = np.random.default_rng(0).integers(n_seeds, size=(RESAMPLES, n_seeds))
    sums, counts = (
        table.to_numpy()[:, drawn].sum(axis=2) for table in (gaps.fillna(0.0), gaps.notna())
    )
    means = np.abs(np.divide(sums, counts, where=counts > 0, out=np.full(sums.shape, np.nan)))
    found = [critical_n_steps(dict(zip(gaps.index, mean, strict=True))) for mean in means.T]
    return pd.Series(found, dtype=float).value_counts(normalize=True, dropna=False).sort_index()


def redraw_range(frame: pd.DataFrame) -> tuple[float, ...]:
    """The ends of the range of critical n_steps that holds 95 % of the redraws of seeds.

    NaN stands for none, which counts as the largest; empty if fewer than FEWEST seeds trained.
    """
    shares = critical_shares(frame).cumsum()
    ends = TAILS if len(set(as_trained(frame)["seed"])) >= FEWEST else ()
    return tuple(float(shares.loc[shares >= q - 1e-9].index[0]) for q in ends)


@dataclass(frozen=True)
class CriticalSensitivity:
    """How much a critical n_steps depends on its bound and on its seeds.

    by_bound: the critical n_steps of the mean for other bounds. redraws: the ends of the range that
    holds 95 % of the redraws of seeds, NaN for none; empty for few seeds. agreeing, seeds: how many
    agree at the critical n_steps by themselves, of how many that can be judged, being more than the
    bound above chance; worst: the largest gap of these, and worst_share: relative to accuracy above
    chance, 1 / number of classes. The last four are 0 where no step is critical or no seed judged.
    """

    by_bound: dict[float, int | None]
    redraws: tuple[float, ...]
    agreeing: int = 0
    seeds: int = 0
    worst: float = 0.0
    worst_share: float = 0.0


def critical_sensitivity(frame: pd.DataFrame, bounds: tuple[float, ...]) -> CriticalSensitivity:
    """Compute the critical n_steps for other bounds and seeds, and look at each seed there."""
    gaps, redraws = agreement_gaps(frame).to_dict(), redraw_range(frame)
    by_bound = {bound: critical_n_steps(gaps, bound) for bound in bounds}
    critical = critical_n_steps(gaps)
    if critical is None:
        return CriticalSensitivity(by_bound, redraws)
    each = seed_gaps(frame).loc[critical].dropna()
    own = as_trained(frame).set_index(["n_steps", "seed"])["accuracy"].loc[critical]
    above = own - 1 / DATASETS[frame["dataset"].iloc[0]].n_classes
    each = each[above > AGREEMENT]  # a weaker model could not lose as much as the bound
    if each.empty:
        return CriticalSensitivity(by_bound, redraws)
    agreeing, share = int((each <= AGREEMENT).sum()), float((each / above).max())
    return CriticalSensitivity(by_bound, redraws, agreeing, len(each), float(each.max()), share)


def _signed_gaps(frame):
    """Accuracy as trained less that under the test solver: n_steps by seed, seeds that trained."""
    own, other = (
        rows.pivot(index="n_steps", columns="seed", values="accuracy")
        for rows in (as_trained(frame), _under_test_solver(frame))
    )
    return (own - other).reindex(sorted(frame["n_steps"].unique()))


@dataclass(frozen=True)
class Trend:
    """Dependence of the accuracy as trained on log2 of the training n_steps.

    slope, low, high: mean over seeds of the change of accuracy for twice the steps, and its 95 %
    confidence interval. p_slope: of the t test that this slope is zero (a line for each seed; the
    seeds are independent, the runs of one seed are not). rho: Spearman's rank correlation over all
    models. p_any: Friedman's test that n_steps makes no difference at all, whatever its shape; NaN
    below three runs or where a seed did not train.
    """

    slope: float
    low: float
    high: float
    p_slope: float
    rho: float
    p_any: float


def trend(frame: pd.DataFrame) -> Trend | None:
    """The trend of the accuracy as trained; None unless two seeds trained at two n_steps each.

    Of seeds that were tried on a part of the grid only, their runs do not count.
    """
    tried = pd.Series(frame.groupby("seed")["n_steps"].nunique())
    whole = tried.loc[tried == tried.max()].index
    frame = frame.loc[frame["seed"].isin(whole)]
    table = as_trained(frame).pivot(index="n_steps", columns="seed", values="accuracy")
    table = table.loc[:, table.notna().sum() > 1]
    if table.shape[1] < 2:
        return None
    slopes = [_slope(column.dropna()) for _, column in table.items()]
    test: Any = stats.ttest_1samp(slopes, 0.0)  # scipy's results have classes made as it runs
    low, high = test.confidence_interval(0.95)
    models = table.stack()
    ranks: Any = stats.spearmanr(models.index.get_level_values("n_steps"), models)
    complete = len(table) > 2 and bool(table.notna().all(axis=None))
    p_any = stats.friedmanchisquare(*table.to_numpy()).pvalue if complete else np.nan
    return Trend(*map(float, (np.mean(slopes), low, high, test.pvalue, ranks.statistic, p_any)))


def _slope(accuracies):
    """Slope of the least-squares line through accuracies by n_steps, per doubling."""
    line: Any = stats.linregress(np.log2(accuracies.index.to_numpy(float)), accuracies)
    return line.slope


@dataclass(frozen=True)
class GridSearch:
    """Result of the search on a grid of training n_steps.

    critical: the coarsest n_steps from which on the solvers agree. coarser: the one before it on
    the grid, None if there is none. at_end: whether the grid ends at `critical`, so that finer
    steps might disagree again. disagreeing: seeds that trained and do not agree at `critical`
    by themselves. best: n_steps of the ODE-like run with the highest mean accuracy; mean, std: that
    mean and its standard deviation over seeds; seeds: how many trained there.
    """

    critical: int
    coarser: int | None
    at_end: bool
    disagreeing: int
    best: int
    mean: float
    std: float
    seeds: int

    @property
    def nfe(self) -> str:
        """NFE around the critical step as the paper counts them, K + 1, such as 33–65."""
        pair = "–".join(str(k + 1) for k in (self.coarser, self.critical) if k)
        return f"{pair} or more" if self.at_end else pair

    @property
    def accuracy(self) -> tuple[float, float, int]:
        """Mean and std of accuracy, and number of seeds, of the best ODE-like run."""
        return self.mean, self.std, self.seeds


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
    mean, std = map(float, ode_like.loc[best])
    seeds = len(as_trained(frame).query("n_steps == @best"))
    at_end = critical == max(gaps)
    return GridSearch(critical, coarser, at_end, disagreeing, best, mean, std, seeds)


def adaption_ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Tabulate where each seed of an adapted run ended, and how restless its step size was.

    Index: seed. Accuracies as trained, under midpoint at the same step, and under the exact flow,
    for every seed whether it trained or not.
    """
    every = frame.assign(trained=True)
    accuracies = {
        "as trained": as_trained(every),
        "midpoint": as_trained(every.assign(train_solver="midpoint")),
        "exact flow": under_exact_flow(every),
    }
    return _ends(frame, "final_n_steps", accuracies)


def _ends(frame, final, accuracies):
    """A row for each seed: where it ended, the accuracies of these records, how restless it was."""
    columns, restless = (
        ["trained", final, "nfe_per_iteration"],
        ["reversals", "failed_checks", "spread"],
    )
    found = {
        name: rows.drop_duplicates("seed").set_index("seed")["accuracy"]
        for name, rows in accuracies.items()
    }
    seeds = frame.drop_duplicates("seed").set_index("seed")
    return seeds[columns].assign(**found).join(seeds[restless])


def first_and_last(evidence: Evidence) -> pd.DataFrame:
    """The records as trained of a run whose steps were adapted, seeds that trained only, and with
    how many steps each began: first_n_steps, beside final_n_steps. Index: seed."""
    seen = pd.DataFrame(evidence.history).reindex(columns=["seed", "n_steps"]).dropna()
    first = pd.Series(seen.groupby("seed")["n_steps"].first(), name="first_n_steps")
    return as_trained(evidence.records).set_index("seed").join(first)


AGREES_AT_END = 0.05  # largest gap to the exact flow that counts as agreement after training


def agrees_at_end(gap: Any) -> Any:
    """Tell whether a gap, or each of a column, is at most AGREES_AT_END, but for rounding."""
    return gap <= AGREES_AT_END + 1e-9


def compare_controllers(frame: pd.DataFrame) -> pd.DataFrame:
    """Tabulate the measures of adaption by controller, in the order of the records.

    Columns: seeds; how many agree with the exact flow at the end, and the worst such gap; mean and
    std (n - 1) over all seeds of each measure, as (name, "mean") and (name, "std").
    """
    every = as_trained(frame.assign(trained=True)).groupby("controller", sort=False)
    names = ["nfe_per_iteration", "accuracy", "reversals", "spread", "failed_checks"]
    table = pd.DataFrame(every[[*names, "agreement_gap"]].agg(["mean", "std"]))
    table["seeds", ""] = every.size()
    table["agreeing", ""] = every["agreement_gap"].agg(lambda gap: agrees_at_end(gap).sum())
    table["agreement_gap", "max"] = every["agreement_gap"].max()
    return table


def calmness(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Compare a controller with the goals that were set beforehand against Algorithm 1.

    table: of compare_controllers. A row for each goal: value, bound, and whether it holds. Bounds
    are on means over the seeds; of the gap to the exact flow, on the worst seed.
    """
    ours, theirs = (table.loc[controller] for controller in (name, "algorithm1"))
    factors = {"reversals": 0.2, "spread": 0.2, "failed_checks": 1.0, "nfe_per_iteration": 1.1}
    rows = {k: (ours[k, "mean"], factor * theirs[k, "mean"]) for k, factor in factors.items()}
    rows["agreement_gap"] = ours["agreement_gap", "max"], AGREES_AT_END
    goals = pd.DataFrame(rows, index=["value", "bound"]).T
    goals["holds"] = goals["value"] <= goals["bound"]
    goals.loc["agreement_gap", "holds"] = agrees_at_end(ours["agreement_gap", "max"])
    accuracy = ours["accuracy", "mean"], theirs["accuracy", "mean"]
    goals.loc["accuracy"] = [*accuracy, accuracy[0] >= accuracy[1]]
    return goals


def tolerances(frame: pd.DataFrame) -> pd.DataFrame:
    """Tabulate by training rtol the seeds, those that trained, NFE per iteration and accuracies."""
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


def critical_rtols(frame: pd.DataFrame) -> pd.Series:
    """The coarsest training rtol from which on the exact flow agrees, of the mean and of each seed.

    Index: "mean" and the seeds; NaN where none does. A run in which a seed did not train does not
    count for it.
    """
    gaps = {"mean": exact_gaps(frame, "rtol")}
    gaps |= {seed: gap.dropna() for seed, gap in seed_gaps(frame, exact_gaps, "rtol").items()}
    # With another sign, finer tolerances are larger numbers, as finer numbers of steps are.
    turned = {who: gap.rename(lambda rtol: -rtol).to_dict() for who, gap in gaps.items()}
    return -pd.Series({who: critical_n_steps(gap) for who, gap in turned.items()}, dtype=float)


def tolerance_ends(frame: pd.DataFrame) -> pd.DataFrame:
    """Tabulate by seed where an adapted tolerance ended, and how restless it was."""
    every = frame.assign(trained=True)
    accuracies = {"as trained": as_trained(every), "exact flow": under_exact_flow(every)}
    return _ends(frame, "final_rtol", accuracies)
