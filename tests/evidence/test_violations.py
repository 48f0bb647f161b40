"""The worst failed check of an adaption, and the models around it, from the committed evidence."""

from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.evidence.violations import corrections, seen, test_moments, worst_violation
from nodecore.training.adapted import Adapted


@pytest.fixture(scope="module")
def evidence():
    return find(Run("landscape", Adapted("euler", "algorithm1")))


def test_the_worst_violation_has_the_largest_gap_of_those_that_were_kept_last(evidence):
    worst = {}
    for row in evidence.history.to_dict("records"):
        if row.get("mark") == "violation":
            worst[row["seed"]] = abs(row["outside_gap"])  # a later mark replaces an earlier one
    found = worst_violation(evidence)
    assert worst[found["seed"]] == abs(found["outside_gap"]) == max(worst.values()) > 0.1


def test_moments_are_tested_with_the_weights_of_the_moment(evidence):
    violation = worst_violation(evidence)
    table = test_moments(evidence, violation, ("euler", "midpoint"))
    assert len(table) == 2 * 2 * 4  # inside and past it, two solvers, four factors
    (field, head), member = (
        evidence.marked("violation"),
        evidence.run.seeds.index(violation["seed"]),
    )
    _, test = evidence.run.protocol.load()
    z, k = test.x.expand(len(evidence.run.seeds), -1, -1), int(violation["n_steps"])
    with torch.no_grad():
        for _ in range(k):
            z = z + field(0.0, z) / k
        right = float((head(z)[member].argmax(-1) == test.y).double().mean())
    chosen = (table["mark"] == "violation") & (table["solver"] == "euler") & (table["factor"] == 1)
    assert table.loc[chosen, "accuracy"].item() == pytest.approx(right, abs=0.002)


def test_with_one_step_factors_that_round_alike_are_all_there(evidence, monkeypatch):
    row = worst_violation(evidence).to_frame().T.assign(n_steps=1)
    monkeypatch.setattr("nodecore.evidence.violations.marked_moments", lambda *_: row)
    table = test_moments(evidence, worst_violation(evidence), ("euler",))
    by_factor = table.set_index("factor")["accuracy"]
    assert list(by_factor.index) == [1, 4 / 3, 2, 4] and by_factor[1] == by_factor[4 / 3]


def test_a_training_without_marks_has_no_violation():
    bare: Any = SimpleNamespace(history=pd.DataFrame({"iteration": [50], "seed": [0]}), path="a")
    assert seen(bare, "mark").empty and worst_violation(bare) is None
    fixed: Any = SimpleNamespace(history=None, path="a")
    with pytest.raises(ValueError, match="a has no history: give a run with adapted steps"):
        seen(fixed, "mark")


def test_corrections_are_gaps_on_the_test_set_of_every_seed(evidence):
    table = corrections(evidence)
    assert list(table.columns) == ["inside", "finer", "past"] and len(table) == 5
    worst = worst_violation(evidence)
    tested = test_moments(evidence, worst, ("euler", "midpoint"))
    by = tested.set_index(["mark", "solver", "factor"])["accuracy"]
    gaps = {m: abs(by[m, "euler", 1] - by[m, "midpoint", 1]) for m in ("violation", "recovery")}
    row = table.loc[worst["seed"]]
    assert row["inside"] == pytest.approx(gaps["violation"])
    assert row["past"] == pytest.approx(gaps["recovery"])
    # The next check has about twice the steps: the first weights were tested with twice theirs.
    twice = abs(by["violation", "euler", 2] - by["violation", "midpoint", 2])
    assert row["finer"] == pytest.approx(twice, abs=0.02)


@pytest.mark.parametrize(("own", "other"), [(0.9, 0.6), (0.6, 0.9)])
def test_a_gap_has_no_sign(evidence, monkeypatch, own, other):
    pairs = [(None, torch.tensor([own])), (None, torch.tensor([other]))]
    monkeypatch.setattr("nodecore.evidence.violations.cross_solver_grid", lambda *_: pairs)
    assert corrections(evidence).to_numpy() == pytest.approx(0.3)


def test_a_violation_that_never_passed_has_no_later_gap(evidence, monkeypatch):
    alone = evidence.history[evidence.history["mark"] != "recovery"]
    monkeypatch.setattr(type(evidence), "history", property(lambda self: alone))
    table = corrections(evidence)
    assert len(table) == 5 and table["inside"].notna().all()
    assert table[["finer", "past"]].isna().all(axis=None)
