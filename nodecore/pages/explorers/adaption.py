"""The adaption explorer: a recorded walk of the step size, and the rule with other constants."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import traitlets
from matplotlib.figure import Figure

from nodecore.evidence.found import Evidence
from nodecore.evidence.names import name_of
from nodecore.evidence.spending import evaluations_by_check
from nodecore.evidence.tables import accuracies
from nodecore.evidence.violations import seen
from nodecore.pages import plots
from nodecore.pages.explorers.bundle import bundle
from nodecore.pages.explorers.constants import SAME_STEP
from nodecore.pages.explorers.host import (
    Explorer,
    check_choice,
    check_evidence,
    check_range,
    none_for_nan,
)
from nodecore.pages.explorers.packing import encode_exactly
from nodecore.training.adaption import step_bounds
from nodecore.training.controllers import Algorithm1, Controller, Observation, StepState

RANGES = {"threshold": (0.01, 0.5), "decrease": (0.1, 0.95), "increase": (1.01, 1.5)}


@dataclass(frozen=True)
class Rerun:
    """The rule with other constants on recorded accuracies, one entry for each check.

    step_sizes: in use at each check. failed: bool. departs: the first iteration at which the step
    differs from the recorded one, or None; what comes after it is not a result, since the weights
    would have been trained with other steps.
    """

    step_sizes: np.ndarray
    failed: np.ndarray
    departs: int | None


class AdaptionExplorer(Explorer):
    """The recorded history of a training that adapts its steps; its rule can be varied.

    evidence: runs that adapt fixed steps. fixed: plain runs of fixed steps, to set beside those of
    the same data set. Every trait can be set and read: run (the name of a run), seed, iteration,
    and for Algorithm 1 threshold, decrease and increase; `rerun` follows.

    Raises ValueError without runs, or for one whose history has no checks; TraitError for a state
    that does not exist.
    """

    _esm = bundle("adaption.js")
    run = traitlets.Unicode().tag(sync=True)
    seed = traitlets.Int().tag(sync=True)
    iteration = traitlets.Int().tag(sync=True)
    threshold = traitlets.Float(0.1).tag(sync=True)
    decrease = traitlets.Float(0.5).tag(sync=True)
    increase = traitlets.Float(1.1).tag(sync=True)

    def __init__(self, evidence: Sequence[Evidence], fixed: Sequence[Evidence] = ()):
        check_evidence(evidence)
        self._runs = {found.run.title: found for found in evidence}
        self._checks = {name: _checks(found) for name, found in self._runs.items()}
        self._fixed = [(found.run.dataset, _balance(found).mean()) for found in fixed]
        first, found = next(iter(self._runs.items()))
        super().__init__(
            data={"runs": [self._pack(name) for name in self._runs], "ranges": RANGES},
            run=first,
            seed=found.run.seeds[0],
            iteration=_last_iteration(self._checks[first]),
            **_constants(found.run),
        )

    def _pack(self, name):
        """What the browser needs of a run; keys as in `js/adaption/state.js`."""
        found, rule = self._runs[name], _rule(self._runs[name].run)
        exact = dict(zip(found.run.seeds, none_for_nan(_balance(found)["exact"]), strict=True))
        return {
            "name": name,
            "title": _title(found.run),
            "solver": name_of(found.run.steps.solver),
            "testSolver": name_of(rule.better_solver(found.run.steps.solver)),
            "every": rule.every,
            "bounds": step_bounds(found.run.protocol.T),
            "constants": _constants(found.run) or None,
            "fixed": [none_for_nan(means) for means in self._fixed_beside(found)],
            "histories": [
                _pack_history(rows, _looks(found, rows)) | {"seed": seed, "exact": exact[seed]}
                for seed, rows in ((s, self._checks_of(name, s)) for s in found.run.seeds)
            ],
        }

    def _checks_of(self, name, seed) -> pd.DataFrame:
        rows = self._checks[name]
        return rows.loc[rows["seed"] == seed].reset_index(drop=True)

    def _fixed_beside(self, found) -> list[pd.Series]:
        """Means of nfe, own and exact of each run of fixed steps on the same data set."""
        return [means for dataset, means in self._fixed if dataset == found.run.dataset]

    # --- the state ------------------------------------------------------------------------------

    @traitlets.validate("run", "seed", "iteration", *RANGES)
    def _check(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if name in RANGES:
            check_range(name, value, *RANGES[name])
            return value
        if name == "iteration":
            last = _last_iteration(self._checks[self.run]) if self.run else value
            check_range(name, value, 0, last)
            return value
        seeds = self._runs[self.run].run.seeds if self.run else [value]
        choices = list(self._runs) if name == "run" else list(seeds)
        check_choice(name, value, choices)
        return value

    @traitlets.observe("run")
    def _settle(self, change):
        seeds = self._runs[self.run].run.seeds
        if self.seed not in seeds:
            self.seed = seeds[0]
        self.iteration = min(self.iteration, _last_iteration(self._checks[self.run]))

    @property
    def history(self) -> pd.DataFrame:
        """The recorded checks of the seed: iteration, step_size, the two accuracies, failed, and
        nfe, the evaluations per iteration up to the check."""
        return self._checks_of(self.run, self.seed)

    @property
    def looks(self) -> pd.DataFrame:
        """The looks at the test set of the seed: iteration, accuracy, and nfe as in `history`."""
        return _looks(self._runs[self.run], self.history)

    @property
    def rerun(self) -> Rerun | None:
        """The rule with the present constants; None where the run has another rule."""
        found, rows = self._runs[self.run], self.history
        if not _constants(found.run):
            return None
        rule = Algorithm1(threshold=self.threshold, decrease=self.decrease, increase=self.increase)
        state, sizes, failed = StepState(float(rows["step_size"].to_numpy()[0])), [], []
        for train, test in zip(rows["train_accuracy"], rows["test_accuracy"], strict=True):
            sizes.append(state.step_size)
            state = rule.update(state, Observation(train, test), step_bounds(found.run.protocol.T))
            failed.append(state.failed)
        away = np.abs(np.array(sizes) / rows["step_size"].to_numpy() - 1) > SAME_STEP
        departs = int(rows["iteration"].to_numpy()[away.argmax()]) if away.any() else None
        return Rerun(np.array(sizes), np.array(failed), departs)

    # --- the picture ----------------------------------------------------------------------------

    def describe(self) -> str:
        found, rows = self._runs[self.run], self.history
        row = rows[rows["iteration"] <= max(self.iteration, rows["iteration"][0])].iloc[-1]
        looks = self.looks
        reached = looks.loc[looks["iteration"] <= self.iteration, "accuracy"].tolist()
        accuracy = f"{100 * reached[-1]:.1f} %" if reached else "not yet seen"
        return (
            f"{_title(found.run)}, seed {self.seed}, "
            f"iteration {self.iteration:,}: h = {row['step_size']:.4f}, accuracy of the batch "
            f"{100 * row['train_accuracy']:.1f} % under the training solver, "
            f"{100 * row['test_accuracy']:.1f} % under the test solver; "
            f"{int(rows['failed'].to_numpy().sum())} of {len(rows)} checks failed; "
            f"{row['nfe']:.1f} evaluations per iteration so far, test accuracy {accuracy}"
        )

    def draw(self) -> Figure:
        figure = plt.figure(figsize=(8, 4.6), layout="constrained")
        places = figure.add_gridspec(2, 2, width_ratios=(3, 2))
        above = figure.add_subplot(places[0, 0])
        self._draw_steps(above)
        self._draw_accuracies(figure.add_subplot(places[1, 0], sharex=above))
        self._draw_balance(figure.add_subplot(places[:, 1]))
        figure.legend(loc="outside lower center", ncols=4, fontsize=8)
        figure.suptitle(self.title().replace("; ", ";\n", 1), fontsize=9)
        return figure

    def _draw_steps(self, ax):
        rows, rerun = self.history, self.rerun
        ax.step(rows["iteration"], 1 / rows["step_size"], where="pre", color="black")
        if rerun is not None and rerun.departs is not None:
            late = rows["iteration"] >= rerun.departs
            sizes = rerun.step_sizes[late]
            style = {"color": plots.CROSSING_COLOUR, "linestyle": "--"}
            ax.step(rows["iteration"][late], 1 / sizes, where="pre", **style)
        ax.set_yscale("log", base=2)
        ax.set_ylabel("steps $K$")

    def _draw_accuracies(self, ax):
        rows = self.history
        for name, colour in zip(("train", "test"), plots.CLASS_COLOURS, strict=False):
            ax.step(rows["iteration"], rows[f"{name}_accuracy"], where="post", color=colour)
        ax.set(xlabel="iteration", ylabel="accuracy of the batch", ylim=(0, 1))

    def _draw_balance(self, ax):
        """Draw the training's cost and accuracy so far beside those of fixed steps."""
        found, looks = self._runs[self.run], self.looks
        looks = looks[looks["iteration"] <= self.iteration]
        fixed = pd.DataFrame(self._fixed_beside(found), columns=["nfe", "own", "exact"])
        hollow = {"color": "grey", "markerfacecolor": "none"}
        ax.plot(looks["nfe"], looks["accuracy"], color="black", linewidth=1)
        ax.plot(looks["nfe"][-1:], looks["accuracy"][-1:], "o", label="this training so far")
        ax.plot(fixed["nfe"], fixed["own"], ".", color="grey", label="fixed steps, as trained")
        ax.plot(fixed["nfe"], fixed["exact"], ".", label="fixed steps, exact flow", **hollow)
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter("{x:g}")
        ax.set(xlabel="evaluations per iteration", ylabel="test accuracy")


def _title(run):
    return f"{name_of(run.dataset)}, {name_of(run.steps.controller)}"


def _last_iteration(rows: pd.DataFrame) -> int:
    return int(rows["iteration"].to_numpy().max())


def _balance(found) -> pd.DataFrame:
    """What each seed of a run cost in the end, and what it is worth: nfe, own and exact."""
    return accuracies(found).loc[:, ["nfe", "own", "exact"]]


def _looks(found, checks) -> pd.DataFrame:
    """The looks at the test set of the seed whose checks these are: iteration, accuracy and nfe."""
    looks = seen(found, "accuracy")
    own = looks.loc[looks["seed"] == checks["seed"].iloc[0], ["iteration", "accuracy"]]
    return pd.merge_asof(own, checks[["iteration", "nfe"]], on="iteration")


def _checks(found) -> pd.DataFrame:
    """The recorded checks of a run, with nfe, the evaluations per iteration up to each.

    Raises ValueError without any, or where they are not those of the rule that the record names.
    """
    checks = seen(found, "failed").astype({"failed": bool})
    if checks.empty:
        raise ValueError(f"{found.path} has no checks: give a longer training")
    rule = _algorithm1(found.run)
    if rule is not None:
        bounds = step_bounds(found.run.protocol.T)
        for seed, rows in checks.groupby("seed"):
            recorded = rows[["step_size", "train_accuracy", "test_accuracy"]].to_numpy(float)
            wanted = [
                rule.update(StepState(size), Observation(*pair), bounds).step_size
                for size, *pair in recorded.tolist()
            ]
            if not np.allclose(wanted[:-1], recorded[1:, 0], rtol=SAME_STEP):
                raise ValueError(
                    f"{found.path}: the steps of seed {seed} are not those of "
                    f"{found.run.steps.controller}; run the study again"
                )
    spent = [
        pd.Series(evaluations_by_check(found.run, rows) / rows["iteration"], index=rows.index)
        for _, rows in checks.groupby("seed")
    ]
    return checks.assign(nfe=pd.concat(spent))


def _rule(run) -> Controller:
    """What adapts the steps of a run."""
    return run.steps.rule


def _algorithm1(run) -> Algorithm1 | None:
    """The rule of a run where it is Algorithm 1; None for another rule."""
    rule = _rule(run)
    return rule if type(rule) is Algorithm1 else None


def _constants(run) -> dict[str, float]:
    """The constants of Algorithm 1; empty for another rule."""
    rule = _algorithm1(run)
    return {} if rule is None else {name: getattr(rule, name) for name in RANGES}


def _pack_history(rows, looks):
    return {
        "iterations": rows["iteration"].astype(int).tolist(),
        "steps": encode_exactly(rows["step_size"]),
        "train": encode_exactly(rows["train_accuracy"]),
        "test": encode_exactly(rows["test_accuracy"]),
        "failed": rows["failed"].tolist(),
        "spent": encode_exactly(rows["nfe"]),
        "looks": looks["iteration"].astype(int).tolist(),
        "accuracies": encode_exactly(looks["accuracy"]),
    }
