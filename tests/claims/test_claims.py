"""The claims: each verdict decided anew from the evidence; the rules on records made by hand."""

import csv
import json
import tomllib
from functools import partial
from html import escape
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from nodecore.claims import published
from nodecore.claims.paper import TABLE1, percent
from nodecore.claims.register import (
    CLAIMS,
    Claim,
    Judgement,
    collect,
    evidence_for,
    judge,
    judge_all,
    read_claims,
    write_verdicts,
)
from nodecore.claims.rules import (
    DECISIONS,
    FAILS,
    HOLDS,
    OTHER_SCALE,
    PARTLY,
    UNSURE,
    UNTESTED,
    Material,
    Part,
    get_decision,
)
from nodecore.claims.rules.models import changes
from nodecore.claims.scorecard import (
    COLUMNS,
    README,
    count_verdicts,
    readme_part,
    readme_with,
    table1,
    table1_text,
)
from nodecore.data.files import PROJECT
from nodecore.data.synthetic import landscape_field
from nodecore.evidence import store
from nodecore.evidence.found import find
from nodecore.ode.steps import FixedSteps
from nodecore.pages.claim_cards import cards, failing_list, records_list
from nodecore.training.adapted import Adapted

ALL = read_claims()
committed = partial(find, root=store.COMMITTED)


@pytest.fixture(scope="module")
def judgements():
    return judge_all(ALL)


# --- what is committed ----------------------------------------------------------------------------


def test_every_verdict_is_what_the_evidence_says(judgements):
    """After new evidence `make scorecard` writes them down; look at what has changed."""
    written = {claim.id: claim.verdict for claim in ALL}
    assert {j.claim.id: j.verdict for j in judgements} == written


def test_the_readme_says_what_the_records_say(judgements):
    text = README.read_text()
    assert readme_with(text, readme_part(judgements, table1())) == text
    assert "not measured yet" not in text or UNTESTED in {j.verdict for j in judgements}


def test_what_machines_read_is_what_the_records_say():
    """`make scorecard` writes both files; new evidence makes them anew."""
    for name, content in (
        (published.CRATE, published.crate()),
        (published.RESULTS, published.results(table1())),
    ):
        assert (store.COMMITTED / name).read_text() == published.as_text(content), name


def test_the_crate_names_files_that_are_there_and_each_run_once():
    graph = published.crate()["@graph"]
    entities = {entity["@id"]: entity for entity in graph}
    assert len(entities) == len(graph)
    runs = {str(path) for path in store.COMMITTED.glob("*/*/*.json")}
    actions = [entity for entity in graph if entity["@type"] == "CreateAction"]
    assert len(actions) == len(runs)
    assert {str(store.COMMITTED / action["result"][0]["@id"]) for action in actions} == runs
    for entity in graph:
        if entity["@type"] == "File":
            assert (store.COMMITTED / entity["@id"]).exists()
        for key in ("hasPart", "mentions", "result", "object"):
            assert all(part["@id"] in entities for part in entity.get(key, ()))


def test_whoever_cites_finds_one_version_everywhere():
    root = PROJECT
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    codemeta = json.loads((root / "codemeta.json").read_text())
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    versions = {citation["version"], codemeta["version"], project["version"]}
    assert len(versions) == 1 and citation["date-released"] == codemeta["dateModified"]
    assert codemeta["description"] == project["description"]
    assert citation["license"] == project["license"] and codemeta["license"].endswith("/MIT")
    assert citation["keywords"] == codemeta["keywords"] == project["keywords"]


def test_verdicts_rest_on_records_that_are_there(judgements):
    for judgement in judgements:
        assert all(path.is_relative_to(store.COMMITTED) for path in judgement.records)
        named = {path.parent.parent.name for path in judgement.records}
        assert named <= set(judgement.claim.studies)
        if judgement.verdict != UNTESTED and judgement.claim.studies:
            assert judgement.records and judgement.scale and judgement.parts
        assert judgement.reason


def test_every_function_decides_some_claim():
    assert {claim.decided_by for claim in ALL} == set(DECISIONS)
    assert all(function.rule.endswith(".") for function in DECISIONS.values())


def test_numbers_of_table_1_are_those_of_the_paper():
    told = {claim.id: claim.paper for claim in ALL if claim.id.startswith("table1-")}
    expected = {}
    for dataset, paper in TABLE1.items():
        low, high = paper["grid NFE"]
        accuracy = percent(*paper["grid accuracy"])
        expected[f"table1-{dataset}-grid"] = f"NFE {low}–{high}, accuracy {accuracy}"
        accuracy, nfe = percent(*paper["adaption accuracy"]), paper["adaption NFE"]
        expected[f"table1-{dataset}-adaption"] = f"NFE {nfe}, accuracy {accuracy}"
    assert told == expected


def test_failed_checks_are_those_counted_from_the_files(judgements):
    """Straight from the CSV, with loops, against what the card says."""
    [found] = [j for j in judgements if j.claim.id == "stays-a-flow"]
    for part, dataset in zip(found.parts, ("spheres2", "landscape"), strict=False):
        path = store.COMMITTED / f"{dataset}-adaption/paper/euler-algorithm1-seeds0-4.history.csv"
        with path.open() as file:
            rows = [r for r in csv.DictReader(file) if r["outside_gap"]]
        last = max(int(r["iteration"]) for r in rows)
        shares = []
        for seed in {r["seed"] for r in rows}:
            late = [r for r in rows if r["seed"] == seed and int(r["iteration"]) > last / 2]
            shares.append(np.mean([abs(float(r["outside_gap"])) > 0.1 for r in late]))
        mean, std = 100 * np.mean(shares), 100 * np.std(shares, ddof=1)
        assert part.found == f"{mean:.1f} ± {std:.1f} % of the checks fail"


def test_the_gap_to_the_exact_flow_is_that_of_the_files(judgements):
    [found] = [j for j in judgements if j.claim.id == "ends-as-a-flow"]
    path = store.COMMITTED / "landscape-adaption/paper/euler-algorithm1-seeds0-4.json"
    gaps = {r["seed"]: r["agreement_gap"] for r in json.loads(path.read_text())["records"]}
    [part] = [part for part in found.parts if part.where == "energy landscape"]
    assert f"worst seed {100 * max(gaps.values()):.1f}" in part.found


# --- the file -------------------------------------------------------------------------------------

ROW = {
    "id": "one",
    "claim": "It holds.",
    "where": "section 1",
    "chapter": "03_cross_solver_grids",
    "decided_by": "critical_step_exists",
    "studies": ["spheres2-euler"],
}


def write(path: Path, *rows) -> Path:
    path.write_text(yaml.safe_dump({"group": list(rows)}))
    return path


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"decided_by": "guess"}, "'guess' is unknown; choose one of .*critical_step_exists"),
        ({"studies": ["mnist-heun"]}, "one: study = 'mnist-heun' is unknown; .*mnist-euler"),
        ({"chapter": "08_more"}, "chapter = '08_more' is unknown; .*05_adaptive"),
        ({"colour": "red"}, "one: key = 'colour' is unknown; choose one of id, group"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(tmp_path: Path, change, told):
    with pytest.raises(ValueError, match=told):
        read_claims(write(tmp_path / "claims.yml", ROW | change))


def test_a_missing_key_and_a_second_id_are_named(tmp_path: Path):
    lacking = {key: value for key, value in ROW.items() if key != "where"}
    with pytest.raises(ValueError, match="one has no where"):
        read_claims(write(tmp_path / "claims.yml", lacking))
    with pytest.raises(ValueError, match="id = one: give each claim an id"):
        read_claims(write(tmp_path / "claims.yml", ROW, ROW))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "claims.yml: it has no groups"),
        ("- id: one", "claims.yml: it has no groups"),
        ("numbers:", "group = 'numbers' is no list of claims"),
        ("numbers: [It holds.]", "group = 'numbers' is no list of claims"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, text, told):
    (tmp_path / "claims.yml").write_text(text)
    with pytest.raises(ValueError, match=told):
        read_claims(tmp_path / "claims.yml")


def test_writing_verdicts_changes_nothing_else(tmp_path: Path):
    path = tmp_path / "claims.yml"
    path.write_text(CLAIMS.read_text())
    write_verdicts([Judgement(claim, (), "", (), ()) for claim in ALL], path)
    assert {claim.verdict for claim in read_claims(path)} == {UNTESTED}
    write_verdicts([SimpleNamespace(claim=claim, verdict=claim.verdict) for claim in ALL], path)
    assert path.read_text() == CLAIMS.read_text()


# --- how parts become a verdict -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "missing", "verdict"),
    [
        ([HOLDS, HOLDS], (), HOLDS),
        ([HOLDS, HOLDS], ("MNIST",), PARTLY),
        ([HOLDS, UNTESTED], (), PARTLY),
        ([HOLDS, FAILS], (), PARTLY),
        ([PARTLY], (), PARTLY),
        ([FAILS, FAILS], ("MNIST",), FAILS),
        ([FAILS, PARTLY], (), PARTLY),
        ([UNTESTED], (), UNTESTED),
        ([HOLDS, UNSURE], (), PARTLY),
        ([FAILS, OTHER_SCALE], (), FAILS),
        ([OTHER_SCALE, UNSURE, UNTESTED], (), UNSURE),
        ([OTHER_SCALE, UNTESTED], (), OTHER_SCALE),
        ([], ("MNIST",), UNTESTED),
    ],
)
def test_what_is_not_tested_everywhere_holds_in_part_at_most(parts, missing, verdict):
    claim = Claim(**{**ROW, "group": "group"})
    parts = tuple(Part(f"part {i}", v, "found") for i, v in enumerate(parts))
    judgement = Judgement(claim, parts, "paper scale, 5 seeds", missing, ())
    assert judgement.verdict == verdict
    assert ("MNIST (no evidence is committed)" in judgement.reason) == bool(missing)


def test_a_study_without_records_leaves_its_claims_untested(tmp_path: Path):
    assert collect(["spheres2-euler"], partial(find, root=tmp_path)) == {}
    for judgement in judge_all(ALL, tmp_path):
        if judgement.claim.studies:
            assert judgement.verdict == UNTESTED and not judgement.records


def test_image_claims_turn_once_their_records_are_there():
    [claim] = [c for c in ALL if c.id == "critical-mnist"]
    assert judge(claim, {}).verdict == UNTESTED
    evidence = {f"mnist-{s}": material(f"mnist-{s}", GRIDS["agrees"]) for s in ("euler", "rk4")}
    assert judge(claim, evidence).verdict == HOLDS
    assert judge(claim, evidence).scale == "paper scale, 5 seeds"
    only_euler = judge(claim, {"mnist-euler": evidence["mnist-euler"]})
    assert only_euler.verdict == PARTLY and only_euler.missing == ("MNIST, rk4",)


@pytest.mark.parametrize(
    ("gone", "expected", "cut"),
    [((3,), [1, 2, 4], False), ((0, 1, 7), [4, 8, 16, 32, 64], True), (range(9), None, None)],
)
def test_a_grid_is_read_as_far_as_its_runs_follow_one_another(gone, expected, cut):
    missing = [2**i for i in gone]
    found = collect(
        ["spheres2-euler"], lambda run: None if run.steps.n_steps in missing else committed(run)
    ).get("spheres2-euler")
    assert (found and found.records["n_steps"].unique().tolist()) == expected
    assert (found and found.cut) == cut


def test_where_coarse_runs_are_missing_a_critical_step_may_be_unknown():
    whole = material("mnist-euler", {k: v for k, v in GRIDS["agrees"].items() if k > 1})
    cut = Material(whole.study, whole.records, cut=True)
    rk4 = material("mnist-rk4", GRIDS["agrees"])
    assert verdicts("critical_step_exists", [whole]) == [FAILS]
    [part] = decide("critical_step_exists", [cut])
    assert part.verdict == UNTESTED and "coarser runs are missing" in part.found
    assert verdicts("higher_order_allows_larger_steps", [rk4, cut]) == [UNSURE]
    assert verdicts("grid_numbers_match", [cut]) == [UNTESTED]
    none = material("mnist-euler", GRIDS["agrees"], trained=False)
    [part] = decide("critical_step_exists", [none])
    assert (part.verdict, part.found) == (UNTESTED, "no seed trained")
    told = Material("mnist-euler", material("mnist-euler", GRIDS["agrees"]).records, cut=True)
    assert verdicts("critical_step_exists", [told]) == [HOLDS]


# --- the rules, each verdict reached --------------------------------------------------------------


def rows_of(solver, n_steps, own, better, exact, seed=0, **more):
    """Records of one model: own accuracy, at the better solver's settings, and under dopri5."""
    base = {"train_solver": solver, "n_steps": n_steps, "seed": seed, "trained": True}
    base |= {"profile": "paper", "nfe_per_iteration": float(n_steps)} | more
    tests = [(solver, n_steps, own), ("midpoint", n_steps, better), (solver, 2 * n_steps, better)]
    rows = [base | {"test_solver": s, "test_n_steps": k, "accuracy": a} for s, k, a in tests]
    return [*rows, base | {"test_solver": "dopri5", "test_rtol": 1e-6, "accuracy": exact}]


def material(study, grid, n_seeds=5, **more):
    """A study from {n_steps: (own, better, exact)}, the same for each seed up to 0.002."""
    solver = study.split("-")[1]
    rows = [
        row
        for n_steps, values in grid.items()
        for seed in range(n_seeds)
        for row in rows_of(solver, n_steps, *(v - 0.002 * seed for v in values), seed, **more)
    ]
    return Material(study, pd.DataFrame(rows, columns=store.COLUMNS))


GRIDS = {
    "agrees": {1: (0.95, 0.4, 0.4), 2: (0.9, 0.85, 0.84), 4: (0.9, 0.9, 0.9)},
    "agrees later": {1: (0.95, 0.4, 0.4), 2: (0.9, 0.7, 0.7), 4: (0.9, 0.9, 0.9)},
    "never agrees": {1: (0.95, 0.4, 0.4), 2: (0.9, 0.6, 0.6)},
    "flow disagrees": {1: (0.95, 0.4, 0.4), 2: (0.9, 0.85, 0.6)},
    "always agrees": {1: (0.9, 0.9, 0.9), 2: (0.9, 0.9, 0.9)},
    "agrees at its end": {1: (0.95, 0.4, 0.4), 2: (0.9, 0.85, 0.84)},
    "flow agrees at its end": {1: (0.95, 0.4, 0.4), 2: (0.9, 0.85, 0.6), 4: (0.9, 0.9, 0.9)},
    "poor": {1: (0.6, 0.3, 0.3), 2: (0.9, 0.85, 0.84)},
}


def decide(name, studies, numbers=None):
    return DECISIONS[name]({m.study: m for m in studies}, numbers or {})


def verdicts(name, studies, numbers=None):
    return [part.verdict for part in decide(name, studies, numbers)]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ("agrees", HOLDS),
        ("never agrees", PARTLY),
        ("flow disagrees", PARTLY),
        ("agrees at its end", PARTLY),
        ("flow agrees at its end", PARTLY),
        ("always agrees", FAILS),
    ],
)
def test_a_critical_step(grid, expected):
    [part] = decide("critical_step_exists", [material("landscape-euler", GRIDS[grid])])
    assert part.verdict == expected
    if expected == HOLDS:
        sure = "critical K: 2 (100 % of redrawn seeds; single seeds K = 2)"
        assert f"{sure}; against the exact flow 2" in part.found


def test_critical_steps_beside_one_another():
    early, late = (
        [material("spheres2-euler", GRIDS["agrees"]), material("landscape-euler", GRIDS[grid])]
        for grid in ("agrees", "agrees later")
    )
    assert verdicts("critical_step_differs", late) == [HOLDS]
    assert verdicts("critical_step_differs", early) == [FAILS]
    third = [*late, material("mnist-euler", GRIDS["agrees"])]
    assert verdicts("critical_step_differs", third) == [HOLDS, FAILS, HOLDS]
    assert verdicts("critical_step_differs", early[:1]) == []
    unknown = material("mnist-euler", GRIDS["never agrees"])
    assert verdicts("critical_step_differs", [*late, unknown]) == [HOLDS, UNSURE, UNSURE]
    numbers = {"synthetic": ["spheres2", "landscape"], "images": ["mnist", "cifar10"]}
    assert verdicts("synthetic_needs_more_steps", third, numbers) == [FAILS, HOLDS]
    assert verdicts("synthetic_needs_more_steps", third[1:], numbers) == [HOLDS]
    assert verdicts("synthetic_needs_more_steps", [third[0], third[2]], numbers) == [FAILS]
    assert verdicts("synthetic_needs_more_steps", late, numbers) == []
    few, small = (
        material("mnist-euler", GRIDS["agrees"], **how)
        for how in ({"n_seeds": 4}, {"profile": "laptop"})
    )
    ends = {k: values for k, values in GRIDS["agrees"].items() if k < 4}  # it might disagree at 4
    cut = material("mnist-euler", ends)
    for other, expected in ((few, UNSURE), (cut, UNSURE), (small, OTHER_SCALE)):
        for name in ("critical_step_differs", "synthetic_needs_more_steps"):
            assert verdicts(name, [late[1], other], numbers) == [expected]


def test_ranges_that_meet_leave_it_open():
    """Seed 0 agrees from K = 2 on and seed 1 from 4: redraws of the two have either."""
    torn = material("landscape-euler", {1: (0.95, 0.4, 0.4), 2: (0.9, 0.9, 0.9)}).records
    late = material("landscape-euler", GRIDS["agrees later"]).records
    both = pd.concat([torn[torn["seed"] == 0], late[late["seed"] == 1]])
    both = Material("landscape-euler", both[both["n_steps"] < 4])
    four = pd.concat([both.records, late[late["n_steps"] == 4]])
    torn = Material("landscape-euler", four)
    early = material("spheres2-euler", GRIDS["agrees"])
    assert verdicts("critical_step_differs", [torn, early]) == [UNSURE]
    numbers = {"synthetic": ["landscape"], "images": ["spheres2"]}
    assert verdicts("synthetic_needs_more_steps", [torn, early], numbers) == [UNSURE]


@pytest.mark.parametrize(
    ("rk4", "euler", "expected"),
    [
        ("agrees", "agrees later", [HOLDS]),
        ("agrees", "agrees", [FAILS]),
        ("never agrees", "agrees", [UNSURE]),
    ],
)
def test_orders(rk4, euler, expected):
    studies = [material("mnist-rk4", GRIDS[rk4]), material("mnist-euler", GRIDS[euler])]
    assert verdicts("higher_order_allows_larger_steps", studies) == expected
    small = [Material(m.study, m.records.assign(profile="laptop")) for m in studies]
    assert verdicts("higher_order_allows_larger_steps", small) == [OTHER_SCALE]


def sloped(slope, n_seeds=3):
    values = {2**i: (0.9 + slope * i,) * 3 for i in range(4)}
    found = material("landscape-euler", values, n_seeds)
    noise = np.random.default_rng(0).normal(0, 1e-3, len(found.records))
    return Material(found.study, found.records.assign(accuracy=found.records["accuracy"] + noise))


def test_a_trend():
    assert verdicts("accuracy_has_no_trend", [sloped(-0.02)]) == [FAILS]
    assert verdicts("accuracy_has_no_trend", [sloped(0.0)]) == [HOLDS]
    assert verdicts("accuracy_has_no_trend", [sloped(0.0, n_seeds=1)]) == [UNTESTED]
    assert verdicts("accuracy_has_no_trend", [sloped(0.003)]) == [PARTLY]  # a small one, but there
    wide = sloped(0.0)
    tilt = 0.02 * (wide.records["seed"] - 1) * np.log2(wide.records["n_steps"].astype(float))
    tilted = wide.records.assign(accuracy=wide.records["accuracy"] + tilt)
    assert verdicts("accuracy_has_no_trend", [Material(wide.study, tilted)]) == [UNSURE]


def test_accurate_without_a_flow():
    assert verdicts("accurate_without_a_flow", [material("mnist-rk4", GRIDS["agrees"])]) == [HOLDS]
    assert verdicts("accurate_without_a_flow", [material("mnist-rk4", GRIDS["poor"])]) == [FAILS]
    for grid in ("never agrees", "always agrees"):
        found = [material("mnist-rk4", GRIDS[grid])]
        assert verdicts("accurate_without_a_flow", found) == [UNTESTED]


def test_the_critical_run_is_none_of_those_that_are_no_flow():
    grid = {1: (0.9, 0.4, 0.4), 2: (0.75, 0.75, 0.75), 4: (0.9, 0.9, 0.9)}
    assert verdicts("accurate_without_a_flow", [material("mnist-rk4", grid)]) == [HOLDS]


def test_one_better_solver_against_the_exact_flow():
    right, half = (material("mnist-euler", GRIDS[g]) for g in ("agrees", "flow disagrees"))
    assert verdicts("simple_test_suffices", [right]) == [HOLDS]
    assert verdicts("simple_test_suffices", [half]) == [FAILS]
    mixed = [
        material("landscape-euler", {k: GRIDS["agrees"][2 if k > 1 else 1] for k in range(1, 8)})
    ]
    assert verdicts("simple_test_suffices", [*mixed, half]) == [PARTLY]


def test_a_model_is_near_the_bound_by_either_test():
    """Five of 150 models have another answer, each near the bound by the simple test alone."""
    grid = {k: (0.9, 0.9, 0.9) for k in range(2, 31)} | {1: (0.9, 0.82, 0.6)}
    [part] = decide("simple_test_suffices", [material("mnist-euler", grid)])
    assert part.verdict == PARTLY and "near the bound for 0 of 5" in part.found


def test_seeds_that_did_not_train():
    found = material("mnist-euler", GRIDS["agrees"], n_seeds=5)
    lost = found.records["seed"] == 0
    one = lost & (found.records["n_steps"] == 1)
    assert verdicts("trains_at_every_step", [found]) == [HOLDS]
    for rows, expected in ((one, PARTLY), (found.records["n_steps"] < 4, FAILS)):
        records = found.records.assign(trained=~rows)
        assert verdicts("trains_at_every_step", [Material(found.study, records)]) == [expected]
    alone = found.records[found.records["seed"] == 0].assign(trained=~one)
    assert verdicts("trains_at_every_step", [Material(found.study, alone)]) == [UNSURE]


def test_the_grid_and_the_settings():
    found = material("mnist-euler", GRIDS["agrees"])
    assert verdicts("grid_is_the_same", [found], {"mnist-euler": 4}) == [HOLDS]
    assert verdicts("grid_is_the_same", [found], {"mnist-euler": 8}) == [PARTLY]
    header = {"protocol": {"width": 96, "iterations": 100}}
    run = SimpleNamespace(stored=SimpleNamespace(header=header))
    trained = Material("mnist-euler", found.records, (run,))
    for iterations, expected in ((100, HOLDS), (7020, PARTLY)):
        numbers = {"mnist": {"width": 96, "iterations": iterations}}
        [part] = decide("protocol_is_the_same", [trained], numbers)
        assert part.verdict == expected
    assert part.found == "iterations 100, not 7020"


@pytest.mark.parametrize(
    ("better", "kept", "lost"), [(0.9, HOLDS, FAILS), (0.6, PARTLY, PARTLY), (0.5, FAILS, HOLDS)]
)
def test_accuracy_under_better_solvers(better, kept, lost):
    exact = 0.9 if better > 0.5 else 0.5
    found = material("landscape-euler", {8: (0.9, better, exact)})
    assert verdicts("accuracy_is_kept", [found], {"n_steps": 8}) == [kept]
    assert verdicts("accuracy_is_lost", [found], {"n_steps": 8}) == [lost]
    assert verdicts("accuracy_is_lost", [found], {"n_steps": 4}) == []


def test_better_settings_are_all_that_are_no_coarser_under_the_seeds_that_trained():
    records = material("landscape-euler", {8: (0.9, 0.7, 0.8)}).records
    records.loc[records["test_solver"] == "midpoint", "accuracy"] -= 0.2
    coarser = records[records["test_n_steps"] == 16].assign(test_n_steps=4, accuracy=0.1)
    lost = records.assign(seed=5, trained=False, accuracy=0.0).drop_duplicates("test_solver")
    found = changes(pd.concat([records, coarser, lost]))
    assert sorted(c.value for c in found) == pytest.approx([0.1, 0.2, 0.4])


@pytest.mark.parametrize(
    ("shares", "apart", "cross"),
    [
        ((0.0, 0.0), HOLDS, FAILS),
        ((0.0, 0.2), PARTLY, PARTLY),
        ((0.005, 0.012), PARTLY, PARTLY),  # at most 1 % of all pairs, though not of each seed's
        ((0.012, 0.03), FAILS, HOLDS),
    ],
)
def test_trajectories_that_cross(monkeypatch, shares, apart, cross):
    paths = SimpleNamespace(path=lambda: torch.tensor([shares]))
    monkeypatch.setattr("nodecore.claims.rules.models.follow", lambda evidence, n: paths)
    monkeypatch.setattr(
        "nodecore.claims.rules.models.find_crossings",
        lambda path: SimpleNamespace(share_of_pairs=float(path)),
    )
    run = SimpleNamespace(run=SimpleNamespace(steps=FixedSteps("euler", 8)))
    records = material("landscape-euler", {8: (0.9, 0.9, 0.9)}).records
    found = [Material("landscape-euler", records, (run,))]
    assert verdicts("trajectories_keep_apart", found, {"n_steps": 8}) == [apart]
    assert verdicts("trajectories_cross", found, {"n_steps": 8}) == [cross]


@pytest.mark.parametrize(
    ("factors", "expected"),
    [((-1.0, 3.0), HOLDS), ((-1.0, 1.0), FAILS), ((3.0, 3.0), FAILS), ((-1.0, -1.3), FAILS)],
)
def test_fields_differ_from_one_another_and_from_the_true_one(factors, expected):
    """Fields that are the true one times a number: (a - b) over the mean of their lengths."""
    x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0))
    protocol = SimpleNamespace(load=lambda: (None, SimpleNamespace(x=x)))
    run = SimpleNamespace(protocol=protocol, seeds=(0, 1), steps=FixedSteps("euler", 8))

    def field(t, z):
        return torch.stack([c * landscape_field(t, v) for c, v in zip(factors, z, strict=True)])

    records = material("landscape-euler", {8: (0.9, 0.9, 0.9)}).records
    found = Material("landscape-euler", records, (SimpleNamespace(run=run, field=field),))
    found.found[0].records = records
    assert verdicts("fields_differ", [found], {"n_steps": 8}) == [expected]


@pytest.mark.parametrize(
    ("numbers", "expected"), [({"a": 900}, [HOLDS]), ({"a": 400, "b": 460}, [FAILS, HOLDS])]
)
def test_dimensions(numbers, expected):
    found = DECISIONS["dimension_is_near"]({}, {"ours": 900, "theirs": numbers})
    assert [part.verdict for part in found] == expected


# --- Algorithm 1 ----------------------------------------------------------------------------------


def adapted(history=(), dataset="spheres2", start="euclidean", **columns):
    """An adaption study of two seeds: a value or a pair of them for each column, by controller."""
    names = {"algorithm1": columns} | columns.pop("others", {})
    rows = [
        {"train_solver": "euler", "controller": name, "seed": seed, "final_n_steps": 8}
        | {"test_solver": "euler", "test_n_steps": 8, "trained": True, "profile": "paper"}
        | {key: np.broadcast_to(value, 2)[seed] for key, value in (columns | values).items()}
        | {"start": start}
        for name, values in names.items()
        for seed in (0, 1)
    ]
    columns = ["iteration", "seed", "n_steps", "outside_gap", "mark"]
    run = SimpleNamespace(steps=Adapted("euler", "algorithm1", start))
    found = SimpleNamespace(run=run, history=pd.DataFrame(history, columns=columns))
    return Material(f"{dataset}-adaption", pd.DataFrame(rows, columns=store.COLUMNS), (found,))


@pytest.mark.parametrize(("first", "expected"), [(2, HOLDS), (4, FAILS)])
def test_the_first_step(first, expected):
    history = [(50, 0, 1, 0.0, None), (50, 1, first, 0.0, None), (100, 1, 99, 0.0, None)]
    studies = [adapted(history, accuracy=0.9), material("spheres2-euler", GRIDS["agrees"])]
    assert verdicts("start_is_not_too_small", studies) == [expected]
    assert verdicts("start_is_not_too_small", studies[:1]) == []
    unknown = [studies[0], material("spheres2-euler", GRIDS["never agrees"])]
    for name in ("start_is_not_too_small", "adaption_matches_the_grid"):
        assert verdicts(name, unknown) == [UNTESTED]
    assert verdicts("adaption_is_cheaper_than_the_grid", unknown) == [UNTESTED]


def torn_grid(study):
    """Seed 0 agrees from K = 2 on, the others from 4: redraws have either, and the grid goes on."""
    late = material(study, GRIDS["agrees later"] | {8: (0.9, 0.9, 0.9)}).records
    coarse = late["seed"].eq(0) & late["n_steps"].eq(2)
    others = late["seed"].gt(1) & late["n_steps"].lt(4)
    return Material(study, late.assign(accuracy=late["accuracy"].mask(coarse, 0.9))[~others])


@pytest.mark.parametrize(("first", "expected"), [(2, HOLDS), (3, UNSURE), (5, FAILS)])
def test_a_start_within_the_redraws_cannot_tell(first, expected):
    grid = torn_grid("spheres2-euler")
    assert grid.critical_range == (2, 4)
    history = [(50, seed, first, 0.0, None) for seed in (0, 1)]
    studies = [adapted(history, accuracy=0.9), grid]
    assert verdicts("start_is_not_too_small", studies) == [expected]


def test_a_start_beyond_the_end_of_a_grid_of_few_seeds_cannot_tell():
    grid = {k: values for k, values in GRIDS["agrees"].items() if k < 4}
    history = [(50, seed, 4, 0.0, None) for seed in (0, 1)]
    studies = [adapted(history, accuracy=0.9), material("spheres2-euler", grid, n_seeds=2)]
    assert verdicts("start_is_not_too_small", studies) == [UNSURE]


def beside(one, other):
    """Two adaption studies as one."""
    records = pd.concat([one.records, other.records], ignore_index=True)
    return Material(one.study, records, (*one.found, *other.found))


def test_both_starts_are_judged_where_the_start_matters():
    """The textbook's comes last, begins too short, and costs more than the grid's step."""
    euclidean, scaled = (
        adapted([(50, seed, k, 0.0, None) for seed in (0, 1)], start=start, accuracy=0.896,
                nfe_per_iteration=nfe, reversals=turns, agreement_gap=gap)
        for start, k, nfe, turns, gap in (("euclidean", 2, 2.5, 5, 0.0), ("hairer", 4, 100.0, 0, 1))
    )  # fmt: skip
    studies = [beside(euclidean, scaled), material("spheres2-euler", GRIDS["agrees"])]
    labels = ["spheres, 2-D, Euclidean norms", "spheres, 2-D, scaled norms"]
    for name, expected in (
        ("start_is_not_too_small", [HOLDS, FAILS]),
        ("adaption_matches_the_grid", [HOLDS, PARTLY]),
        ("adaption_is_cheaper_than_the_grid", [HOLDS, FAILS]),
    ):
        parts = decide(name, studies)
        assert [part.verdict for part in parts] == expected, name
        assert [part.where for part in parts] == labels
        assert [part.where for part in decide(name, [euclidean, studies[1]])] == ["spheres, 2-D"]
    numbers = decide("adaption_numbers_match", studies[:1])
    assert [part.where for part in numbers] == [
        *("NFE, Euclidean norms", "accuracy, Euclidean norms"),
        *("NFE, scaled norms", "accuracy, scaled norms"),
    ]
    assert [numbers[0].found, numbers[2].found] == ["2.5 ± 0.0", "100.0 ± 0.0"]
    # All else is about the usual one.
    assert verdicts("steps_fluctuate", studies) == [HOLDS]
    assert verdicts("ends_as_a_flow", studies) == [HOLDS]


def test_what_is_about_the_usual_start_is_untested_without_it():
    history = [(100, seed, 4, 0.3, "violation") for seed in (0, 1)]
    base = {"accuracy": 0.9, "reversals": 5, "agreement_gap": 0.0, "nfe_per_iteration": 50.0}
    base |= {"others": {"algorithm1-every-25": {}}}
    for name in (
        *("steps_fluctuate", "violations_are_corrected", "stays_a_flow_in_training"),
        *("ends_as_a_flow", "constants_are_robust"),
    ):
        [part] = decide(name, [adapted(history, start="hairer", **base)])
        assert part.verdict == UNTESTED
        assert part.found == "nothing was trained from Euclidean norms"


def test_constants_are_varied_from_the_usual_start():
    base = {"accuracy": 0.9, "nfe_per_iteration": 50.0, "agreement_gap": 0.05}
    base |= {"reversals": 5, "spread": 0.1, "failed_checks": 3}
    usual = adapted(others={"algorithm1-every-25": {}}, **base)
    both = beside(usual, adapted(start="hairer", **{**base, "accuracy": 0.2}))
    assert verdicts("constants_are_robust", [both]) == [HOLDS]


@pytest.mark.parametrize(
    ("reversals", "expected"), [((9, 2), HOLDS), ((9, 1), PARTLY), ((0, 1), FAILS)]
)
def test_fluctuation(reversals, expected):
    assert verdicts("steps_fluctuate", [adapted(reversals=reversals)]) == [expected]


@pytest.mark.parametrize(
    ("finer", "past", "expected"),
    [
        ((0.15, 0.15), (0.02, 0.02), HOLDS),
        ((0.45, 0.55), (0.02, 0.12), PARTLY),  # one seed stays beyond 0.1
        ((0.35, 0.35), (0.12, 0.12), FAILS),
        ((0.02, 0.02), (0.02, 0.02), UNSURE),  # the smaller step did it all
        ((0.02, 0.02), (0.08, 0.08), FAILS),
        ((0.15, 0.15), (0.02, np.nan), UNSURE),  # one seed never passed again
    ],
)
def test_corrections(monkeypatch, finer, past, expected):
    gaps = pd.DataFrame({"inside": (0.3, 0.3), "finer": finer, "past": past})
    monkeypatch.setattr("nodecore.claims.rules.adaption.corrections", lambda evidence: gaps)
    [part] = decide("violations_are_corrected", [adapted(accuracy=0.9)])
    assert part.verdict == expected
    assert part.found.startswith("gap 30.0 ± 0.0 points at the failed check, ")
    images = adapted(dataset="mnist", accuracy=0.9)
    assert verdicts("violations_are_corrected", [images]) == [UNTESTED]


def test_no_violation_is_nothing_to_correct(monkeypatch):
    nothing = pd.DataFrame(columns=["inside", "finer", "past"])
    monkeypatch.setattr("nodecore.claims.rules.adaption.corrections", lambda evidence: nothing)
    found = adapted([(200, 0, 4, 0.0, None)], accuracy=0.9)
    assert verdicts("violations_are_corrected", [found]) == [UNTESTED]


@pytest.mark.parametrize(("failing", "expected"), [(0, HOLDS), (10, PARTLY), (60, FAILS)])
def test_checks_that_fail(failing, expected):
    history = [(50 * i, 0, 4, 0.9, None) for i in range(1, 100)]  # the first half does not count
    gaps = [0.2 * (-1) ** i for i in range(failing)] + [0.1] * (100 - failing)
    history += [(50 * (100 + i), 0, 4, gap, None) for i, gap in enumerate(gaps)]
    [part] = decide("stays_a_flow_in_training", [adapted(history, accuracy=0.9)])
    assert part.verdict == expected and part.found == f"{failing:.1f} % of the checks fail"


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [((0.95 - 0.9, 0.9 - 0.85), HOLDS), ((0.06, 0.0), PARTLY), ((0.06, 0.2), FAILS)],
)
def test_the_end(gaps, expected):
    assert verdicts("ends_as_a_flow", [adapted(agreement_gap=gaps)]) == [expected]


@pytest.mark.parametrize(
    ("change", "harmless"),
    [
        ({}, True),
        ({"accuracy": 0.84}, False),
        ({"nfe_per_iteration": 101.0}, False),
        ({"nfe_per_iteration": 24.0}, False),
        ({"agreement_gap": 0.11}, False),
    ],
)
def test_constants(change, harmless):
    base = {"accuracy": 0.9, "nfe_per_iteration": 50.0, "agreement_gap": 0.05}
    base |= {"reversals": 5, "spread": 0.1, "failed_checks": 3}
    other = {"algorithm1-every-25": change}
    expected = HOLDS if harmless else FAILS
    assert verdicts("constants_are_robust", [adapted(others=other, **base)]) == [expected]
    two = other | {"algorithm1-every-100": {"accuracy": 0.5}}
    expected = PARTLY if harmless else FAILS
    assert verdicts("constants_are_robust", [adapted(others=two, **base)]) == [expected]


def test_changes_that_the_seeds_cannot_judge():
    base = {"accuracy": 0.9, "nfe_per_iteration": 50.0, "agreement_gap": 0.05}
    for column, pair in (("accuracy", (0.9, 0.8)), ("nfe_per_iteration", (50.0, 120.0))):
        found = adapted(others={"algorithm1-every-25": {column: pair}}, **base)
        [part] = decide("constants_are_robust", [found])
        assert part.verdict == UNSURE
        assert part.found == "harmless: none; harmful: none; undecided: every 25"


@pytest.mark.parametrize(
    ("accuracy", "nfe", "expected"),
    [
        ((0.9, 0.899), 2.5, HOLDS),
        ((0.9, 0.899), 3.0, PARTLY),  # no fewer than either bound
        ((0.9, 0.899), 4.0, PARTLY),
        ((0.6, 0.61), 4.0, FAILS),
        ((0.9, 0.8), 2.5, UNSURE),
    ],
)
def test_adaption_beside_the_grid(accuracy, nfe, expected):
    studies = [
        adapted(accuracy=accuracy, nfe_per_iteration=nfe),
        material("spheres2-euler", GRIDS["agrees"]),
    ]
    assert verdicts("adaption_matches_the_grid", studies) == [expected]
    cheaper = HOLDS if nfe < 3 else FAILS  # the grid up to K = 2: 1 + 2 evaluations
    assert verdicts("adaption_is_cheaper_than_the_grid", studies) == [cheaper]


@pytest.mark.parametrize(
    ("nfe", "accuracy", "expected"),
    [
        (100.0, (0.985, 0.995), [HOLDS, HOLDS]),
        (60.0, (0.955, 0.957), [PARTLY, PARTLY]),
        (20.0, (0.5, 0.51), [FAILS, FAILS]),
        (300.0, (0.5, 0.51), [FAILS, FAILS]),
        ((50.0, 150.0), (0.9, 0.99), [UNSURE, UNSURE]),
    ],
)
def test_numbers_of_algorithm_1(nfe, accuracy, expected):
    found = adapted(nfe_per_iteration=nfe, accuracy=accuracy)
    assert verdicts("adaption_numbers_match", [found]) == expected
    small = Material(found.study, found.records.assign(profile="laptop"), found.found)
    assert verdicts("adaption_numbers_match", [small]) == [OTHER_SCALE, OTHER_SCALE]


def test_the_papers_accuracies_are_those_of_its_five_seeds(monkeypatch):
    """Welch's t: half a width of 0.037 with five seeds, of 0.27 with the two of here."""
    monkeypatch.setitem(TABLE1["spheres2"], "adaption accuracy", (0.9, 0.03))
    found = adapted(nfe_per_iteration=100.0, accuracy=0.9)
    assert verdicts("adaption_numbers_match", [found])[1] == HOLDS


@pytest.mark.parametrize(
    ("critical", "expected"), [(16, HOLDS), (8, PARTLY), (32, PARTLY), (4, FAILS), (64, FAILS)]
)
def test_the_pair_of_the_grid(critical, expected):
    """MNIST: the paper's 9 is the last K that fails, 8, and one evaluation."""
    grid = {2**i: (0.96, 0.96 if 2**i >= critical else 0.5, 0.96) for i in range(8)}
    first, _ = decide("grid_numbers_match", [material("mnist-euler", grid)])
    sure = f"(100 % of redrawn seeds; single seeds K = {critical})"
    assert first == Part("NFE", expected, f"{critical // 2 + 1}–{critical + 1} {sure}")
    for few, alone in ((1, ""), (3, f" (single seeds K = {critical})")):
        unsure, _ = decide("grid_numbers_match", [material("mnist-euler", grid, n_seeds=few)])
        assert unsure == Part("NFE", UNSURE, f"{critical // 2 + 1}–{critical + 1}{alone}")
    small = material("mnist-euler", grid, profile="laptop")
    assert verdicts("grid_numbers_match", [small]) == [OTHER_SCALE, OTHER_SCALE]


@pytest.mark.parametrize(("last", "expected"), [(16, FAILS), (8, UNTESTED)])
def test_a_grid_that_ends_before_the_papers_step_tells_nothing(last, expected):
    grid = {k: (0.96, 0.5, 0.5) for k in (4, 8, 16) if k <= last}
    assert verdicts("grid_numbers_match", [material("mnist-euler", grid)]) == [expected]


def test_a_critical_step_at_the_end_of_a_shorter_grid_tells_nothing_of_the_papers():
    grid = {k: (0.96, 0.96 if k == 8 else 0.5, 0.96) for k in (1, 2, 4, 8)}
    nfe, _ = verdicts("grid_numbers_match", [material("mnist-euler", grid)])
    assert nfe == UNSURE


def test_constants_come_from_the_records():
    found = adapted(accuracy=0.9)
    found.found[0].stored = SimpleNamespace(header={"controller_constants": {"every": 50}})
    assert verdicts("constants_are_the_same", [found], {"every": 50}) == [HOLDS]
    assert verdicts("constants_are_the_same", [found], {"every": 25}) == [FAILS]


# --- tolerances -----------------------------------------------------------------------------------


def tolerant(accuracies):
    """A study from {rtol: (own, finer, exact)}, two seeds alike."""
    rows = [
        {"train_solver": "dopri5", "rtol": rtol, "seed": seed, "trained": True, "test_rtol": test}
        | {"test_solver": "dopri5", "accuracy": value, "profile": "paper"}
        for rtol, values in accuracies.items()
        for seed in (0, 1)
        for test, value in zip((rtol, rtol / 10, 1e-6), values, strict=True)
    ]
    return Material("spheres2-dopri5", pd.DataFrame(rows, columns=store.COLUMNS))


@pytest.mark.parametrize(
    ("coarse", "fine", "expected"),
    [
        ((0.9, 0.5, 0.5), (0.9, 0.9, 0.9), [HOLDS, HOLDS]),
        ((0.9, 0.9, 0.85), (0.9, 0.7, 0.9), [FAILS, PARTLY]),
        ((0.9, 0.5, 0.5), (0.9, 0.7, 0.9), [HOLDS, FAILS]),
        ((0.9, 0.5, 0.5), (0.9, 0.5, 0.5), [HOLDS, FAILS]),
    ],
)
def test_tolerances(coarse, fine, expected):
    found = [tolerant({10.0: coarse, 1e-2: fine})]
    names = ("coarse_tolerance_depends", "fine_tolerance_is_independent")
    assert [v for name in names for v in verdicts(name, found)] == expected


# --- models of a reduced scale --------------------------------------------------------------------


def test_what_the_paper_says_of_its_models_smaller_ones_leave_open(judgements):
    """Only what is said of the set-up, or of any model at all, may they decide."""
    tried = 0
    for judgement in judgements:
        claim = judgement.claim
        if claim.group == "settings" or claim.id in ("simple-test", "margin-keeps-the-class"):
            continue
        small = {m.study: m for m in judgement.materials if not m.at_papers_scale}
        parts = get_decision(claim.decided_by)(small, claim.numbers) if small else []
        assert {part.verdict for part in parts} <= {OTHER_SCALE, UNTESTED}, claim.id
        tried += len(parts)
    assert tried > 10


def test_what_does_not_hold_is_listed_and_leads_to_its_card(judgements):
    html = failing_list(judgements)
    failing = [j for j in judgements if FAILS in {part.verdict for part in j.parts}]
    assert failing and html.count('href="#claim-') == len(failing)
    for judgement in failing:
        assert f'href="#claim-{judgement.claim.id}"' in html
        for part in judgement.parts:
            assert (escape(f"{part.where}: {part.found}") in html) == (part.verdict == FAILS)


# --- what is shown --------------------------------------------------------------------------------


def test_cards_show_verdict_numbers_and_records(judgements):
    html = cards(judgements)
    for judgement in judgements:
        assert f'id="claim-{judgement.claim.id}"' in html
    assert html.count("</details>") == len(ALL)
    hostile = Part("<script>", HOLDS, "a < b & c")
    claim = Claim(**{**ROW, "group": "group", "claim": "1 < 2"})
    shown = cards([Judgement(claim, (hostile,), "", (), ())])
    assert "<script>" not in shown and "a &lt; b &amp; c" in shown and "1 &lt; 2" in shown


def test_records_are_carried_whole():
    [claim] = [c for c in ALL if c.id == "critical-cifar10"]
    judgement = judge(claim, evidence_for(claim, committed))
    html = records_list([judgement, judgement])
    for link in ("cifar10-euler-paper", "cifar10-rk4-laptop"):  # each at its best scale
        assert html.count(f'id="records-{link}"') == 1 and f'download="{link}.csv"' in html
        assert f'href="#records-{link}"' in cards([judgement])
    assert "book/results/cifar10-rk4/laptop/" in html


def test_counts_add_up_and_settings_are_counted_apart(judgements):
    findings, settings = count_verdicts(judgements).split(" Apart from these, ")
    counted = [[int(w) for w in text.split() if w.isdigit()] for text in (findings, settings)]
    assert [numbers[0] for numbers in counted] == [sum(numbers[1:]) for numbers in counted]
    assert counted[1][0] == sum(claim.group == "settings" for claim in ALL)
    assert counted[0][0] + counted[1][0] == len(ALL)


def test_table_1_says_where_the_scale_is_reduced():
    nan = float("nan")
    rows = [
        ["mnist", "grid", "paper", "", "9–16", 9, 12.5, 16, 0.965, 0.002, nan, nan],
        ["mnist", "grid", "here", "laptop scale, 1 seed", "5–9", 5, 7, 9, 0.9, nan, 0.6, nan],
        ["mnist", "Algorithm 1", "paper", "", "9.8", 9.8, 9.8, 9.8, 0.956, 0.005, nan, nan],
        ["landscape", "grid", "here", "paper scale, 5 seeds", "5–9", 5, 7, 9, 0.9, 0.1, 0.6, 0.1],
        [
            "spheres2",
            "grid",
            "here",
            "paper scale, 5 to 20 seeds",
            "5–9",
            5,
            7,
            9,
            0.9,
            nan,
            nan,
            nan,
        ],
    ]
    lines = table1_text(pd.DataFrame(rows, columns=COLUMNS)).splitlines()[2:]
    assert lines == [
        "| MNIST | grid, laptop scale, 1 seed | 9–16 | 5–9 | 96.5 ± 0.2 % | 90.0 % | 60.0 % |",
        "| | Algorithm 1 | 9.8 | not measured yet | 95.6 ± 0.5 % | not measured yet | – |",
        "| energy landscape | grid | – | 5–9 | – | 90.0 ± 10.0 % | 60.0 ± 10.0 % |",
        "| spheres, 2-D | grid, 5 to 20 seeds | – | 5–9 | – | 90.0 % | – |",
    ]


def test_table_1_has_a_calmer_controller_for_every_data_set():
    table = table1()
    calmer = table[table["training"].isin(["remembering discord", "settling by discord"])]
    assert list(calmer["dataset"]) == list(TABLE1) and set(calmer["source"]) == {"here"}


def test_a_readme_without_its_marks_is_refused():
    with pytest.raises(ValueError, match="lost a mark"):
        readme_with("# A project\n", "part")
