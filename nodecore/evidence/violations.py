"""Where an adapted step let a model be no flow: the worst failed check, and what followed."""

import numpy as np
import pandas as pd

from nodecore.analysis.evaluate import cross_solver_grid
from nodecore.evidence.found import Evidence
from nodecore.ode.fields import take_members
from nodecore.ode.steps import FixedSteps

HISTORY = ["iteration", "seed", "step_size", "n_steps", "train_accuracy", "test_accuracy"]
HISTORY += ["failed", "at_shortest", "outside_gap", "mark", "accuracy"]
GAPS = ["inside", "finer", "past"]
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
    last = _worst_of_each(evidence)
    if last.empty:
        return None
    return last.iloc[int(np.abs(last["outside_gap"].to_numpy(float)).argmax())]


def _worst_of_each(evidence) -> pd.DataFrame:
    """The row of each seed's largest gap: the one whose weights were kept last."""
    marked = seen(evidence, "mark")
    return marked.loc[marked["mark"] == "violation"].groupby("seed").tail(1)


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
        field, head = _marked_model(evidence, row["mark"], member)
        k = int(row["n_steps"])
        settings = {(s, f): FixedSteps(s, round(f * k)) for s in solvers for f in FACTORS}
        # With few steps, two factors may round to the same number.
        once = dict.fromkeys(settings.values())
        accuracies = dict(cross_solver_grid(field, head, test, once))
        moment = [row["mark"], int(row["iteration"]), k]
        tested += [[*moment, *key, float(accuracies[s])] for key, s in settings.items()]
    columns = ["mark", "iteration", "n_steps", "solver", "factor", "accuracy"]
    return pd.DataFrame(tested, columns=columns)


def corrections(evidence: Evidence) -> pd.DataFrame:
    """Gaps between Euler's method and midpoint in as many steps, on the test set, by seed.

    A row for each seed with a failed check whose weights were kept. Columns: inside, of these
    weights; finer, of the same in the steps of the next check that passed; past, of the weights at
    that check. NaN where none passed.
    """
    _, test = evidence.run.protocol.load()
    found = {}
    for _, violation in _worst_of_each(evidence).iterrows():
        member = evidence.run.seeds.index(violation["seed"])
        moments = marked_moments(evidence, violation).to_dict("records")
        models = [_marked_model(evidence, row["mark"], member) for row in moments]
        steps = [int(row["n_steps"]) for row in moments]
        gaps = [_gap(models[0], test, steps[0])]
        if len(models) > 1:
            gaps += [_gap(model, test, steps[1]) for model in models]
        found[violation["seed"]] = dict(zip(GAPS, gaps, strict=False))
    return pd.DataFrame.from_dict(found, orient="index").reindex(columns=GAPS)


def _marked_model(evidence, mark, member):
    return [take_members(part, [member]) for part in evidence.marked(mark)]


def _gap(model, test, n_steps):
    settings = [FixedSteps(solver, n_steps) for solver in ("euler", "midpoint")]
    field, head = model
    (_, own), (_, other) = cross_solver_grid(field, head, test, settings)
    return abs(float(own) - float(other))


test_moments.__test__ = False  # not a test case, whatever pytest makes of the name
