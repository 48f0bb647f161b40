"""Where an adapted step let a model be no flow: the worst failed check, and what followed."""

import numpy as np
import pandas as pd

from nodecore.analysis.evaluate import cross_solver_grid
from nodecore.evidence.found import Evidence
from nodecore.ode.fields import take_members
from nodecore.ode.steps import FixedSteps, Setting

HISTORY = ["iteration", "seed", "step_size", "n_steps", "train_accuracy", "test_accuracy"]
HISTORY += ["failed", "at_shortest", "outside_gap", "mark", "accuracy"]
FACTORS = (1, 4 / 3, 2, 4)  # of the training's steps, that marked models are tested with


def seen(evidence: Evidence, column: str) -> pd.DataFrame:
    """Return the rows of a history that have a column; a short training may lack some.

    Raises ValueError where no controller was at work.
    """
    if evidence.history is None:
        raise ValueError(f"{evidence.path} has no history: give a run with adapted steps")
    return evidence.history.reindex(columns=HISTORY).dropna(subset=column)


def worst_violation(evidence: Evidence) -> pd.Series | None:
    """Return the row of the largest gap whose weights were kept, or None."""
    marked = seen(evidence, "mark")
    last: pd.DataFrame = marked.loc[marked["mark"] == "violation"].groupby("seed").tail(1)
    if last.empty:
        return None
    return last.iloc[int(np.abs(last["outside_gap"].to_numpy(float)).argmax())]


def marked_moments(evidence: Evidence, violation: pd.Series) -> pd.DataFrame:
    """Return the violation's row and that of the next check of its seed which passed, if any."""
    own = seen(evidence, "mark")
    own = own.loc[own["seed"] == violation["seed"]]
    passed = (own["mark"] == "recovery") & (own["iteration"] > violation["iteration"])
    later: pd.DataFrame = own.loc[passed]
    return pd.concat([violation.to_frame().T, later.tail(1)])


def test_moments(evidence: Evidence, violation: pd.Series, solvers: tuple) -> pd.DataFrame:
    """Test a seed's model, as it was at the marked moments, under solvers and finer steps.

    Returns columns mark, iteration, n_steps, solver, factor (of FACTORS) and accuracy.
    """
    member, (_, test) = evidence.run.seeds.index(violation["seed"]), evidence.run.protocol.load()
    tested = []
    for row in marked_moments(evidence, violation).to_dict("records"):
        model = [take_members(part, [member]) for part in evidence.marked(row["mark"])]
        k = int(row["n_steps"])
        settings: dict[Setting, float] = {
            FixedSteps(s, round(f * k)): f for s in solvers for f in FACTORS
        }
        moment = [row["mark"], int(row["iteration"]), k]
        for setting, accuracy in cross_solver_grid(model[0], model[1], test, list(settings)):
            tested.append([*moment, setting.solver, settings[setting], float(accuracy)])
    columns = ["mark", "iteration", "n_steps", "solver", "factor", "accuracy"]
    return pd.DataFrame(tested, columns=columns)


test_moments.__test__ = False  # not a test case, whatever pytest makes of the name
