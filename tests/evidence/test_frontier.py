"""The frontier's rows and differences on made-up records."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nodecore.analysis.intervals import Interval
from nodecore.evidence import store
from nodecore.evidence import verify as verifying
from nodecore.evidence.catalogue import (
    CURES,
    FINALISTS,
    ablation_run,
    cure_run,
    residual_run,
    steered_run,
)
from nodecore.evidence.found import find
from nodecore.evidence.frontier import (
    difference,
    frontier,
    judge_at_least,
)
from nodecore.evidence.names import describe_run
from nodecore.evidence.obtain import obtain
from nodecore.evidence.selection import evaluations_of
from nodecore.evidence.tables import accuracies
from nodecore.evidence.verify import verify

BUDGET = 24  # evaluations an iteration


def finalists(table: pd.DataFrame) -> list[str]:
    """Choose two trainings with cures whose exact flow is the most accurate, by mean over seeds.

    Of a table of `frontier`, among those of at most BUDGET evaluations, rounded.
    """
    cured = ~table["plain"].astype(bool)
    within = table.loc[cured & (table["nfe"].astype(float).round() <= BUDGET)]
    return within.sort_values("exact", ascending=False, kind="stable")["training"].head(2).tolist()


def made_up(own, exact, training="euler-K16-loguniform-4", nfe=20.0, trained=True) -> Any:
    """Evidence of a run whose seeds have these accuracies as trained and of the exact flow."""
    run = cure_run("landscape", training, seeds=tuple(range(len(own))))
    n_steps = run.steps.n_steps
    common = {"dataset": "landscape", "train_solver": run.steps.solver, "n_steps": n_steps}
    common |= {"nfe_per_iteration": nfe, "trained": trained}
    rows = [
        {"seed": seed, "accuracy": value, **setting}
        for values, setting in (
            (own, {"test_solver": "euler", "test_n_steps": n_steps}),
            (exact, {"test_solver": "dopri5", "test_rtol": 1e-6}),
            (exact, {"test_solver": "dopri5", "test_rtol": 1e-3}),
            (exact, {"test_solver": "euler", "test_n_steps": 2 * n_steps}),
        )
        for seed, value in enumerate(values)
    ]
    records = pd.DataFrame([common | row for row in rows], columns=store.COLUMNS)
    return SimpleNamespace(run=run, records=records)


def test_a_row_has_the_means_the_worst_gap_and_the_seeds_that_agree():
    table = frontier([made_up([0.8, 0.9, 0.7], [0.75, 0.7, 0.72])])
    [row] = table.to_dict("records")
    assert row["own"] == pytest.approx(0.8) and row["exact"] == pytest.approx(2.17 / 3)
    assert row["std"] == pytest.approx(np.std([0.75, 0.7, 0.72], ddof=1))
    assert row["worst"] == pytest.approx(0.2)
    assert (row["agreeing"], row["seeds"], row["nfe"]) == (2, 3, 20.0)
    half = 4.303 * np.std([0.75, 0.7, 0.72], ddof=1) / np.sqrt(3)  # t of 2 degrees of freedom
    ends = row["exact"] - half, row["exact"] + half
    assert (row["low"], row["high"]) == pytest.approx(ends, abs=1e-4)


def test_intervals_of_accuracies_end_at_0_and_1():
    [high] = frontier([made_up([0.9, 0.9], [0.99, 0.9])]).to_dict("records")
    [low] = frontier([made_up([0.1, 0.1], [0.01, 0.1])]).to_dict("records")
    assert (high["high"], low["low"]) == (1.0, 0.0)


def test_seeds_that_did_not_train_count():
    table = accuracies(made_up([0.3, 0.3], [0.3, 0.2], trained=False))
    assert table["exact"].tolist() == [0.3, 0.2]


def test_no_runs_give_no_rows():
    assert frontier([]).empty and "exact" in frontier([])


def test_a_difference_is_of_the_exact_flows():
    base = np.array([0.5, 0.6, 0.7, 0.8, 0.9])
    others = made_up(base + 0.5, base)
    others.records["seed"] += 5
    change = difference(made_up(base, base + 0.02), others)
    assert change.value == pytest.approx(0.02)
    half = 2.306 * np.sqrt(2 * 0.025 / 5)  # t of 8 degrees of freedom, variance 0.025
    assert (change.low, change.high) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-4)
    assert difference(made_up(base, base + 0.5), others).low > 0.2


def test_runs_of_the_same_seeds_are_compared_seed_by_seed():
    base, apart = np.array([0.5, 0.6, 0.7, 0.8, 0.9]), np.array([0.01, 0.03, 0.02, 0.02, 0.02])
    change = difference(made_up(base, base + apart), made_up(base + 0.5, base))
    half = 2.776 * np.std(apart, ddof=1) / np.sqrt(5)  # t of 4 degrees of freedom
    assert change == pytest.approx((0.02, 0.02 - half, 0.02 + half), abs=1e-4)


def test_finalists_are_the_most_accurate_cures_within_the_budget():
    runs = [
        made_up([0.9], [0.99], "euler-K16-squared-0.1-midpoint", nfe=48.0),
        made_up([0.9], [0.95], "euler-K16", nfe=16.0),
        made_up([0.9], [0.80], "euler-K16-uniform-2", nfe=24.4),
        made_up([0.9], [0.85], "euler-K16-end-0.5", nfe=16.0),
        made_up([0.9], [0.70], "euler-K16-decay-0.1", nfe=16.0),
    ]
    chosen = finalists(frontier(runs))
    assert chosen == ["euler-K16-end-0.5", "euler-K16-uniform-2"]


def test_at_least_needs_the_interval():
    assert judge_at_least(Interval(0.1, 0.0, 0.2)) == "met"
    assert judge_at_least(Interval(-0.1, -0.2, -0.01)) == "missed"
    assert judge_at_least(Interval(0.1, -0.1, 0.2)) == "cannot tell"


def test_a_run_is_described():
    said = {
        "euler-K16": "K = 16",
        "euler-K16-loguniform-4": "K log-uniform on 4 to 64",
        "euler-K16-squared-0.1-coarser": "K = 16, like K/2, weight 0.1",
        "rk4-K5-uniform-2,kl-1-coarser": "rk4, K uniform on 2 to 10, like K/2 (KL), weight 1",
    }
    assert {name: describe_run(cure_run("landscape", name)) for name in said} == said
    assert [cure_run("landscape", name).training for name in said] == list(said)


def test_what_is_no_training_is_refused():
    with pytest.raises(ValueError, match="training = 'euler': give one such as euler-K16"):
        cure_run("landscape", "euler")


# --- from a training to a table -------------------------------------------------------------------


def test_a_run_with_a_cure_is_kept_found_and_verified(monkeypatch, tmp_path):
    run = cure_run("landscape", CURES[0], profile="smoke")
    kept = obtain(run, root=tmp_path, device="cpu", progress=False)
    assert kept.path.endswith(f"landscape-cures/smoke/{CURES[0]}-seeds0-4.json")
    assert kept.stored.header["cures"] == "loguniform-4"
    assert set(kept.records["cures"]) == {"loguniform-4"}
    again = find(run, tmp_path)
    assert again.run == run
    assert find(cure_run("landscape", "euler-K16", profile="smoke"), tmp_path) is None
    [row] = frontier([again]).to_dict("records")
    assert row["nfe"] == pytest.approx(float(evaluations_of(run).mean()))
    [checked] = verify(["landscape-cures"], "smoke", root=tmp_path).to_dict("records")
    assert checked["agrees"] and not checked["problem"]
    monkeypatch.setattr(verifying, "evaluations_of", lambda run: evaluations_of(run) + 1)
    [checked] = verify(["landscape-cures"], "smoke", root=tmp_path).to_dict("records")
    assert "nfe_per_iteration of seed 0 is" in checked["problem"]


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (
            steered_run("landscape", "pi-finer", profile="smoke"),
            "PI control by midpoint, K drawn, factor 4",
        ),
        (ablation_run("landscape", 8, "activation-tanh", profile="smoke"), "tanh"),
        (residual_run("spheres2", 4, profile="smoke"), "4 layers"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_steered_and_changed_runs_are_kept_found_and_verified(run, says, tmp_path):
    obtain(run, root=tmp_path, device="cpu", progress=False)
    again = find(run, tmp_path)
    assert again.run == run and describe_run(run) == says
    [checked] = verify([run.study], "smoke", root=tmp_path).to_dict("records")
    assert checked["agrees"] and not checked["problem"]


# --- the committed evidence -----------------------------------------------------------------------


@pytest.mark.parametrize("dataset", FINALISTS)
def test_finalists_follow_from_the_first_seeds_by_the_rule(dataset):
    found = [find(cure_run(dataset, training), store.COMMITTED) for training in CURES]
    if not all(found):
        pytest.skip(f"{sum(map(bool, found))} of {len(found)} cures have records so far")
    assert list(FINALISTS[dataset]) == finalists(frontier(found))
