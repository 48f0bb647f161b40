"""Tables from records: hand-made records in, numbers that can be checked by eye out."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nodecore.claims.paper import percent
from nodecore.evidence import store
from nodecore.evidence.tables import (
    adaption_ends,
    as_trained,
    calmness,
    compare_controllers,
    critical_rtols,
    critical_sensitivity,
    critical_shares,
    exact_gaps,
    first_and_last,
    grid_search,
    mean_accuracies,
    same_step,
    seed_critical,
    tolerance_ends,
    tolerances,
    trend,
)


def frame(rows, **common):
    common = {"train_solver": "euler", "trained": True} | common
    return pd.DataFrame([common | row for row in rows], columns=store.COLUMNS)


def fixed_steps(accuracies, trained=lambda k, seed: True):
    """Records of (own, midpoint, exact) accuracies by n_steps, a tuple for each seed."""
    rows = []
    for n_steps, seeds in accuracies.items():
        for seed, (own, midpoint, exact) in enumerate(seeds):
            base = {"n_steps": n_steps, "seed": seed, "trained": trained(n_steps, seed)}
            tests = [
                {"test_solver": "euler", "test_n_steps": n_steps, "accuracy": own},
                {"test_solver": "euler", "test_n_steps": 3 * n_steps, "accuracy": 0.0},
                {"test_solver": "midpoint", "test_n_steps": n_steps, "accuracy": midpoint},
                {"test_solver": "dopri5", "test_rtol": 1e-6, "accuracy": exact},
            ]
            rows += [base | test for test in tests]
    return frame(rows)


GRID = {
    1: [(0.95, 0.4, 0.3), (0.97, 0.4, 0.3)],
    2: [(0.8, 0.95, 0.6), (0.9, 0.75, 0.6)],
    4: [(0.8, 0.8, 0.8), (0.7, 0.7, 0.7)],
}


def test_accuracies_at_the_same_step():
    table = fixed_steps(GRID, trained=lambda k, seed: (k, seed) != (4, 1))
    own = (table["test_solver"] == "euler") & (table["test_n_steps"] == table["n_steps"])
    table.loc[own, "accuracy_all"] = 0.5
    found = same_step(table)
    assert found.loc[(2, 1), "as trained"] == pytest.approx(0.9)
    assert found["test solver"].groupby("n_steps").mean().tolist() == pytest.approx(
        [0.4, 0.85, 0.8]
    )
    assert found["all"].groupby("n_steps").mean().tolist() == [0.5, 0.5, 0.5]
    assert found["rk4"].isna().all() and (4, 1) not in found.index


def test_grid_search_takes_the_best_of_the_ode_like_runs_only():
    found = grid_search(fixed_steps(GRID))
    assert (found.critical, found.coarser) == (2, 1)
    assert found.nfe == "2–3" and not found.at_end
    at_end = grid_search(fixed_steps({k: GRID[k] for k in (1, 2)}))
    assert at_end.nfe == "2–3 or more"
    assert found.mean == pytest.approx(0.85)
    assert found.std == pytest.approx(math.sqrt(0.005))


def test_a_critical_step_is_told_with_what_it_depends_on():
    frame = fixed_steps(GRID).assign(dataset="spheres2")
    found = critical_sensitivity(frame, (0.001, 0.1, 0.6))
    # means as trained 0.96, 0.85, 0.75, under midpoint 0.4, 0.85, 0.75: gaps 0.56, 0 and 0
    assert found.by_bound == {0.001: 2, 0.1: 2, 0.6: 1}
    assert (found.agreeing, found.seeds) == (0, 2)  # at K = 2 both gaps are 0.15
    assert found.worst == pytest.approx(0.15)
    assert found.worst_share == pytest.approx(0.15 / (0.8 - 0.5))
    assert found.redraws == ()  # two seeds say too little
    five = fixed_steps({k: [*seeds, *seeds, seeds[0]] for k, seeds in GRID.items()})
    redraws = critical_sensitivity(five.assign(dataset="spheres2"), (0.1,)).redraws
    assert set(redraws) <= {1.0, 2.0, 4.0} and len(redraws) == 2
    none = critical_sensitivity(fixed_steps({1: GRID[1]}).assign(dataset="spheres2"), (0.1,))
    assert (none.by_bound, none.seeds) == ({0.1: None}, 0)


def test_seeds_that_disagree_are_counted_though_their_mean_agrees():
    assert grid_search(fixed_steps(GRID)).disagreeing == 2


def test_no_critical_step_is_none():
    assert grid_search(fixed_steps({1: GRID[1]})) is None
    assert grid_search(fixed_steps(GRID, trained=lambda k, seed: False)) is None


def test_seeds_that_did_not_train_do_not_count():
    table = fixed_steps(GRID, trained=lambda k, seed: (k, seed) != (1, 1))
    assert len(as_trained(table)) == 5
    gaps = exact_gaps(table)
    assert gaps.to_dict() == pytest.approx({1: 0.65, 2: 0.25, 4: 0.0})
    assert exact_gaps(fixed_steps(GRID, trained=lambda k, seed: False)).isna().all()


def test_each_seed_has_its_own_critical_step():
    table = fixed_steps(GRID)  # gaps 0.55, 0.15, 0 and 0.57, 0.15, 0
    assert seed_critical(table).to_dict() == {0: 4, 1: 4}
    assert seed_critical(fixed_steps({1: GRID[1]})).isna().all()


@pytest.mark.parametrize("study", ["spheres2-euler", "landscape-euler", "landscape-rk4"])
def test_critical_steps_of_the_evidence_are_those_counted_by_hand(study):
    """Straight from the files, with loops: the last failure of each seed decides."""
    failures, grid = {}, {}
    for path in (store.COMMITTED / study / "paper").glob("*.json"):
        document = json.loads(path.read_text())
        k, seeds = document["header"]["n_steps"], document["header"]["seeds"]
        other = ("midpoint", k) if study.endswith("euler") else ("rk4", 2 * k)
        table = {
            (r["seed"], r["test_solver"], r["test_n_steps"]): r["accuracy"]
            for r in document["records"]
        }
        for seed in seeds:
            grid.setdefault(seed, []).append(k)  # some seeds have steps between those of the grid
            own = table[seed, document["header"]["train_solver"], k]
            if abs(own - table[(seed, *other)]) > 0.1:
                failures.setdefault(seed, []).append(k)
    gridded = [seed for seed, steps in grid.items() if len(steps) > 1]  # others trained at one K
    expected = {
        seed: min(k for k in grid[seed] if k > max(failures[seed]))
        for seed in gridded
        if seed in failures
    }
    paths = (store.COMMITTED / study / "paper").glob("*.json")
    found = seed_critical(pd.concat([store.load_run(path).frame() for path in paths]))
    assert found[found.index.isin(gridded)].to_dict() == expected and len(expected) >= 5


def test_a_run_in_which_a_seed_did_not_train_does_not_count_for_it():
    table = fixed_steps(GRID, trained=lambda k, seed: (k, seed) != (2, 0))
    assert seed_critical(table).to_dict() == {0: 4, 1: 4}
    agreeing = {1: [(0.9, 0.9, 0.9), (0.9, 0.5, 0.5)], 2: [(0.9, 0.1, 0.1), (0.9, 0.9, 0.9)]}
    table = fixed_steps(agreeing, trained=lambda k, seed: (k, seed) != (2, 0))
    assert seed_critical(table).to_dict() == {0: 1, 1: 2}


def test_the_critical_step_of_drawn_seeds_follows_the_mean_and_not_each_seed():
    """At 2 the gaps are -0.15 and 0.15: half of the draws have both seeds, and these cancel."""
    shares = critical_shares(fixed_steps(GRID))
    assert shares.index.tolist() == [2, 4]
    assert shares[2] == pytest.approx(0.5, abs=0.05)
    assert shares.sum() == pytest.approx(1.0)
    pd.testing.assert_series_equal(shares, critical_shares(fixed_steps(GRID)))


def test_drawn_seeds_that_did_not_train_leave_the_mean():
    table = fixed_steps(GRID, trained=lambda k, seed: (k, seed) != (4, 1))
    shares = critical_shares(table)  # only the second seed drawn: no gap at 4, so none is critical
    assert shares[np.nan] == pytest.approx(0.25, abs=0.05)
    assert critical_shares(fixed_steps(GRID, trained=lambda k, seed: False)).empty


def random_accuracies(slope, n_seeds=5, noise=0.01):
    rng = np.random.default_rng(0)
    grid = [1, 2, 4, 8, 16]
    values = {
        k: [(0.8 + slope * np.log2(k) + noise * rng.normal(),) * 3 for _ in range(n_seeds)]
        for k in grid
    }
    return values, np.array([[own for own, _, _ in values[k]] for k in grid])


def test_means_count_the_seeds_that_trained():
    table = fixed_steps(GRID, trained=lambda k, seed: (k, seed) != (1, 1))
    means = mean_accuracies(table).set_index(["n_steps", "test_solver", "test_n_steps"])
    assert means["seeds"].tolist() == [1] * 4 + [2] * 8
    row = means.loc[(2, "midpoint", 2)]
    assert row["mean"] == pytest.approx(0.85) and row["std"] == pytest.approx(math.sqrt(0.02))


def test_a_trend_is_found_with_its_size():
    values, table = random_accuracies(-0.02)
    found = trend(fixed_steps(values))
    slopes = np.polyfit(np.arange(5), table, 1)[0]  # NumPy's fit, all seeds at once
    assert found.slope == pytest.approx(slopes.mean())
    half = stats.t.ppf(0.975, 4) * slopes.std(ddof=1) / math.sqrt(5)
    assert (found.low, found.high) == pytest.approx((slopes.mean() - half, slopes.mean() + half))
    assert found.high < 0 and found.p_slope < 0.01 and found.p_any < 0.01 and found.rho < -0.8


def test_noise_has_no_trend():
    found = trend(fixed_steps(random_accuracies(0.0)[0]))
    assert found.low < 0 < found.high and found.p_slope > 0.05 and found.p_any > 0.05


def test_a_dip_is_a_dependence_without_a_trend():
    values = {
        k: [(0.5 + 0.4 * (k != 4) + s / 100,) * 3 for s in range(5)] for k in [1, 2, 4, 8, 16]
    }
    found = trend(fixed_steps(values))
    assert found.slope == pytest.approx(0.0) and found.p_any < 0.01


def test_a_trend_needs_two_seeds():
    assert trend(fixed_steps({k: rows[:1] for k, rows in GRID.items()})) is None
    assert trend(fixed_steps(GRID, trained=lambda k, seed: False)) is None
    assert math.isnan(trend(fixed_steps(GRID, trained=lambda k, s: (k, s) != (1, 0))).p_any)


def test_adaption_ends_reads_each_seed_at_its_own_last_step():
    rows = []
    for seed, final in enumerate([8, 16]):
        base = {"seed": seed, "final_n_steps": final, "nfe_per_iteration": 10.0 + seed}
        base |= {"reversals": 3, "failed_checks": 2, "spread": 0.5}
        tests = [("euler", k, 0.5 + k / 100) for k in (8, 16)]
        tests += [("midpoint", k, 0.4 + k / 100) for k in (8, 16)]
        rows += [base | {"test_solver": s, "test_n_steps": k, "accuracy": a} for s, k, a in tests]
        rows.append(base | {"test_solver": "dopri5", "test_rtol": 1e-6, "accuracy": 0.3})
    table = adaption_ends(frame(rows, controller="algorithm1"))
    assert table["as trained"].tolist() == pytest.approx([0.58, 0.66])
    assert table["midpoint"].tolist() == pytest.approx([0.48, 0.56])
    assert table["exact flow"].tolist() == [0.3, 0.3]


def test_a_walk_is_told_by_its_first_and_last_step():
    """Seed 2 did not train; looks at the test set, which know no step, come between."""
    steps = {0: [90, 45, 8], 1: [7, 14, 16], 2: [5, 5, 5]}
    history = [
        row
        for i in range(3)
        for seed in steps
        for row in (
            {"iteration": 50 * (i + 1), "seed": seed, "n_steps": steps[seed][i]},
            {"iteration": 50 * (i + 1), "seed": seed, "accuracy": 0.1},
        )
    ]
    records = frame(
        [
            {"seed": seed, "final_n_steps": steps[seed][-1], "trained": seed != 2}
            | {"test_solver": solver, "test_n_steps": k, "accuracy": k / 100}
            for seed in steps
            for solver in ("euler", "midpoint")
            for k in (8, 16)
        ]
    )
    history = pd.DataFrame([{"iteration": 1, "seed": 0, "accuracy": 0.1}, *history])
    table = first_and_last(SimpleNamespace(records=records, history=history))
    assert table.index.tolist() == [0, 1]
    assert table["first_n_steps"].tolist() == [90, 7]
    assert table["final_n_steps"].tolist() == [8, 16]
    assert table["accuracy"].tolist() == [0.08, 0.16]
    short = SimpleNamespace(records=records, history=history[["iteration", "seed", "accuracy"]])
    assert first_and_last(short)["first_n_steps"].isna().all()


def test_tolerances_go_from_coarse_to_fine():
    rows = [
        {"rtol": rtol, "seed": seed, "test_solver": "dopri5", "test_rtol": test, "accuracy": value}
        for rtol, exact in [(1e-4, 0.8), (1e-1, 0.5)]
        for seed in (0, 1)
        for test, value in [(rtol, 0.8), (1e-6, exact)]
    ]
    table = tolerances(frame(rows, train_solver="dopri5", nfe_per_iteration=7.0))
    assert table.index.tolist() == [1e-1, 1e-4]
    assert table["gap"].tolist() == pytest.approx([0.3, 0.0])
    assert table["trained"].tolist() == [2, 2]


def test_the_critical_tolerance_is_the_coarsest_from_which_on_the_exact_flow_agrees():
    exact = {1e1: (0.5, 0.8), 1e-1: (0.72, 0.8), 1e-3: (0.6, 0.8), 1e-5: (0.78, 0.75)}
    rows = [
        {
            **{"rtol": rtol, "seed": seed, "test_solver": "dopri5", "test_rtol": test},
            **{"accuracy": value, "trained": (rtol, seed) != (1e-3, 1)},
        }
        for rtol, seeds in exact.items()
        for seed, other in enumerate(seeds)
        for test, value in [(rtol, 0.8), (1e-6, other)]
    ]
    found = critical_rtols(frame(rows, train_solver="dopri5"))
    # Seed 1 did not train at 1e-3: there the mean is that of seed 0.
    assert found.to_dict() == {"mean": 1e-5, 0: 1e-5, 1: 1e1}


def test_where_an_adapted_tolerance_ended():
    common = {"train_solver": "fehlberg21", "reversals": 3, "failed_checks": 2, "spread": 0.5}
    tests = [("fehlberg21", 0.02, 0.9), ("dopri5", 0.02, 0.4), ("dopri5", 1e-6, 0.7)]
    rows = [
        {"seed": seed, "final_rtol": 0.02, "test_solver": solver, "test_rtol": rtol}
        | {"accuracy": value + seed / 100, "trained": seed == 0, "nfe_per_iteration": 12.0}
        for seed in (0, 1)
        for solver, rtol, value in tests
    ]
    ends = tolerance_ends(frame(rows, **common))
    assert ends["as trained"].tolist() == pytest.approx([0.9, 0.91])
    assert ends["exact flow"].tolist() == pytest.approx([0.7, 0.71])
    assert ends[["final_rtol", "reversals", "spread"]].iloc[1].tolist() == [0.02, 3, 0.5]


@pytest.mark.parametrize(
    ("mean", "std", "text"),
    [
        (0.79, 0.026, "79.0 ± 2.6 %"),
        (0.79, math.nan, "79.0 %"),
        (math.nan, math.nan, "-"),
    ],
)
def test_percent_prints_what_there_is(mean, std, text):
    assert percent(mean, std) == text


# --- controllers ----------------------------------------------------------------------------------


def adapted(controller, **columns):
    """Records of two seeds, a column of two values each, beside tests that do not count."""
    rows = []
    for seed in (0, 1):
        base = {name: values[seed] for name, values in columns.items()}
        base |= {"seed": seed, "controller": controller, "final_n_steps": 10 + seed}
        tests = [("euler", 10 + seed, base["accuracy"]), ("euler", 20, 0.0), ("rk4", 10, 0.0)]
        for solver, n_steps, accuracy in tests:
            test = {"test_solver": solver, "test_n_steps": n_steps, "accuracy": accuracy}
            rows.append(base | test)
    return frame(rows)


RESTLESS = adapted(
    "algorithm1",
    nfe_per_iteration=(40.0, 60.0), accuracy=(0.7, 0.8), reversals=(20, 30),
    spread=(0.2, 0.4), failed_checks=(8, 12), agreement_gap=(0.04, 0.08),
)  # fmt: skip


def test_controllers_are_compared_over_their_seeds_as_trained():
    table = compare_controllers(RESTLESS)
    row = table.loc["algorithm1"]
    assert row["seeds", ""] == 2 and row["agreeing", ""] == 1
    assert row["agreement_gap", "max"] == 0.08
    means = {"nfe_per_iteration": 50, "accuracy": 0.75, "reversals": 25, "spread": 0.3}
    assert {name: row[name, "mean"] for name in means} == pytest.approx(means)
    assert row["reversals", "std"] == pytest.approx(math.sqrt(50))


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, set()),
        ({"reversals": (4, 7)}, {"reversals"}),
        ({"spread": (0.06, 0.07)}, {"spread"}),
        ({"failed_checks": (10, 11)}, {"failed_checks"}),
        ({"nfe_per_iteration": (55.0, 56.0)}, {"nfe_per_iteration"}),
        ({"accuracy": (0.7, 0.79)}, {"accuracy"}),
        ({"agreement_gap": (0.0, 0.051)}, {"agreement_gap"}),
    ],
)
def test_each_goal_is_held_against_algorithm_1(change, missed):
    calm = {
        "nfe_per_iteration": (54.0, 56.0), "accuracy": (0.7, 0.8), "reversals": (4, 6),
        "spread": (0.05, 0.07), "failed_checks": (10, 10), "agreement_gap": (0.0, 0.9 - 0.85),
    }  # fmt: skip
    table = compare_controllers(pd.concat([RESTLESS, adapted("calm", **calm | change)]))
    goals = calmness(table, "calm")
    assert set(goals.index[~goals["holds"].astype(bool)]) == missed
    assert len(goals) == 6
