"""The adaption explorer: the record replayed, and the rule with other constants."""

import numpy as np
import pandas as pd
import pytest
import torch
import traitlets
from browsing import PHONE, ExplorerReader, as_html, plain

from nodecore.evidence import store
from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.ode.steps import FixedSteps, count_steps
from nodecore.pages.explorers import AdaptionExplorer
from nodecore.pages.explorers.adaption import _checks
from nodecore.training.adapted import Adapted

RUN = Run("spheres2", Adapted("euler", "algorithm1"))


@pytest.fixture(scope="module")
def evidence():
    return find(RUN, store.COMMITTED)


@pytest.fixture(scope="module")
def fixed():
    return [find(Run("spheres2", FixedSteps("euler", k)), store.COMMITTED) for k in (4, 64)]


@pytest.fixture
def explorer(evidence):
    return AdaptionExplorer([evidence])


@pytest.fixture(scope="module")
def html(evidence, fixed):
    return as_html(AdaptionExplorer([evidence], fixed))


def recorded(evidence, seed, column="failed"):
    """The rows of a seed that have a column, by default its checks, as they lie in the file."""
    table = pd.read_csv(evidence.stored.path.with_suffix(".history.csv"))
    return table[(table["seed"] == seed) & table[column].notna()].reset_index(drop=True)


def spent_by_hand(rows):
    """Evaluations per iteration up to the last of these checks of Euler against midpoint."""
    since = rows["iteration"].shift(fill_value=0)
    steps = (rows["iteration"] - since) * rows["n_steps"] + 2 * rows["n_steps"]
    return (2 + steps.sum()) / rows["iteration"].iloc[-1]


# --- from Python --------------------------------------------------------------------------------


def test_with_the_recorded_constants_the_rule_walks_as_recorded(explorer, evidence):
    for explorer.seed in RUN.seeds:
        rows, rerun = recorded(evidence, explorer.seed), explorer.rerun
        assert rerun.departs is None
        np.testing.assert_allclose(rerun.step_sizes, rows["step_size"])
        assert rerun.failed.tolist() == rows["failed"].astype(bool).tolist()


def test_another_threshold_departs_at_the_first_check_that_it_judges_otherwise(explorer, evidence):
    rows = recorded(evidence, 0)
    gaps = (rows["train_accuracy"] - rows["test_accuracy"]).abs()
    explorer.threshold = 0.05
    between = gaps[(gaps > 0.05) & (gaps <= 0.1)]
    assert len(between)
    assert explorer.rerun.departs == rows["iteration"][between.index[0] + 1]
    assert explorer.rerun.failed.sum() == (gaps > 0.05).sum()


def test_in_the_end_it_has_spent_what_the_record_says(explorer, evidence):
    spent = evidence.records.groupby("seed")["nfe_per_iteration"].first()
    for explorer.seed in RUN.seeds:
        assert explorer.history["nfe"].iloc[-1] == pytest.approx(spent[explorer.seed], rel=1e-9)
        looks, wanted = explorer.looks, recorded(evidence, explorer.seed, "accuracy")
        assert looks["iteration"].tolist() == wanted["iteration"].tolist()
        assert looks["accuracy"].tolist() == wanted["accuracy"].tolist()
        early = recorded(evidence, explorer.seed).query("iteration <= 500")
        assert looks["nfe"].iloc[0] == pytest.approx(spent_by_hand(early))


def test_fixed_steps_stand_beside_trainings_of_their_own_data_set(evidence, fixed):
    other = find(Run("landscape", RUN.steps), store.COMMITTED)
    own, others = AdaptionExplorer([evidence, other], fixed).data["runs"]
    for found, (nfe, accuracy, exact) in zip(fixed, own["fixed"], strict=True):
        rows = found.records
        solved = rows[rows["test_solver"] == "dopri5"]
        mine = rows[(rows["test_solver"] == "euler") & (rows["test_n_steps"] == rows["n_steps"])]
        assert nfe == found.run.steps.n_steps
        assert accuracy == pytest.approx(mine["accuracy"].mean())
        assert exact == pytest.approx(solved[solved["test_rtol"] == 1e-6]["accuracy"].mean())
    assert others["fixed"] == []


def test_a_refused_state_names_what_there_is(explorer):
    for name, value, known in (
        ("run", "mnist", "choose one of spheres2-adaption/euler-algorithm1-seeds0-4"),
        ("seed", 9, "choose one of 0, 1, 2, 3, 4"),
        ("iteration", 10_001, "give 0 to 10000"),
        ("threshold", 0.0, "give 0.01 to 0.5"),
    ):
        with pytest.raises(traitlets.TraitError, match=f"{name} = .*{known}"):
            setattr(explorer, name, value)
    with pytest.raises(ValueError, match="evidence is empty"):
        AdaptionExplorer([])


def test_a_history_that_is_not_the_rules_is_refused(evidence):
    rows = evidence.history.copy()
    rows.loc[300, "step_size"] *= 1.01

    class Edited:
        history, run, path = rows, evidence.run, evidence.path

    with pytest.raises(ValueError, match="are not those of algorithm1"):
        _checks(Edited)


def test_a_training_that_ends_before_its_first_check_is_refused(evidence):
    """Its history has no column of a check."""

    class Short:
        history = evidence.history.drop(columns=["train_accuracy", "test_accuracy", "failed"])
        run, path = evidence.run, evidence.path

    with pytest.raises(ValueError, match="has no checks: give a longer training"):
        AdaptionExplorer([Short])


def test_after_a_check_that_says_nothing_the_step_stays(evidence):
    """As Controller.update has it, where a training diverged."""
    rows = evidence.history[evidence.history["failed"].notna()]
    rows = rows[rows["seed"] == 0].iloc[:2].copy()
    rows["train_accuracy"] = np.nan
    rows["step_size"] = rows["step_size"].iloc[0]

    class Diverged:
        history, run, path = rows, evidence.run, evidence.path

    assert len(_checks(Diverged)) == 2


# --- in the browser -----------------------------------------------------------------------------


def test_moving_through_the_iterations_shows_the_record(visit_explorers, html, evidence):
    reader = ExplorerReader(visit_explorers(html))
    slider = reader.root.get_by_label("iteration", exact=True)
    for seed, presses in ((0, 3), (3, 14)):
        reader.choose("seed", str(seed))
        slider.press("Home")
        for _ in range(presses):
            slider.press("PageUp")
        reader.settle()
        rows = recorded(evidence, seed)
        row = rows[rows["iteration"] == 500 * presses].iloc[0]
        assert reader.number("iteration") == 500 * presses
        assert reader.number("train") == pytest.approx(100 * row["train_accuracy"], abs=0.051)
        assert reader.number("test") == pytest.approx(100 * row["test_accuracy"], abs=0.051)
        assert reader.number("n_steps") == row["n_steps"]
        failed = rows["failed"].astype(bool)[rows["iteration"] <= 500 * presses].sum()
        assert reader.number("failed") == failed
        spent = spent_by_hand(rows[rows["iteration"] <= 500 * presses])
        assert reader.number("nfe") == pytest.approx(spent, abs=0.051)
        look = recorded(evidence, seed, "accuracy").set_index("iteration").loc[500 * presses]
        assert reader.number("accuracy") == pytest.approx(100 * look["accuracy"], abs=0.051)
    assert reader.page.complaints == []


def test_between_two_looks_the_accuracy_is_that_of_the_one_before(visit_explorers, html):
    reader = ExplorerReader(visit_explorers(html))
    slider = reader.root.get_by_label("iteration", exact=True)
    slider.press("Home")
    reader.settle()
    accuracy = reader.root.locator("[data-number=accuracy]")
    assert accuracy.text_content() == "–", "nothing is seen before the first look"
    slider.press("PageUp")
    reader.settle()
    at_look = reader.number("accuracy")
    slider.press("ArrowRight")
    reader.settle()
    assert (reader.number("iteration"), reader.number("accuracy")) == (550, at_look)


def test_the_point_lies_where_its_numbers_are(visit_explorers, html):
    """Three moments of a training: distances in the plane are those of log cost and accuracy."""
    reader = ExplorerReader(visit_explorers(html))
    slider = reader.root.get_by_label("iteration", exact=True)
    slider.press("Home")
    places, numbers = [], []
    for presses in (1, 4, 8):
        for _ in range(presses):
            slider.press("PageUp")
        reader.settle()
        numbers.append([np.log2(reader.number("nfe")), reader.number("accuracy")])
        places.append(middle_of_point(reader))
    for axis in (0, 1):
        (a, b, c), (p, q, r) = np.array(numbers)[:, axis], np.array(places)[:, axis]
        assert abs(r - p) > 20, "it moves"
        assert (q - p) / (r - p) == pytest.approx((b - a) / (c - a), abs=0.02)


def middle_of_point(reader):
    """Mean pixel of the plane of cost and accuracy that has the accent's colour."""
    canvas = reader.root.get_by_label("Test accuracy against evaluations per iteration so far")
    return canvas.evaluate(
        """canvas => {
            const root = canvas.getRootNode().querySelector("section");
            const accent = getComputedStyle(root).getPropertyValue("--class-0").trim();
            const wanted = accent.match(/\\w\\w/g).map((part) => parseInt(part, 16));
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const found = [];
            for (let i = 0; i < width * height; i++) {
                const alike = [...wanted, 255].every((part, k) => part === data[4 * i + k]);
                if (alike) found.push([i % width, Math.floor(i / width)]);
            }
            return [0, 1].map((k) => found.reduce((sum, at) => sum + at[k], 0) / found.length);
        }"""
    )


def test_another_threshold_is_told_as_python_tells_it(visit_explorers, html, explorer):
    reader = ExplorerReader(visit_explorers(html))
    honest = reader.root.locator(".honest")
    assert "would have gone as recorded" in honest.text_content()
    slider = reader.root.get_by_label("threshold: largest difference that counts as agreement")
    for _ in range(6):
        slider.press("ArrowLeft")
    reader.settle()
    explorer.threshold = 0.04
    text = honest.text_content()
    assert f"at iteration {explorer.rerun.departs}." in text
    n_steps = int(count_steps(torch.tensor(explorer.rerun.step_sizes[-1]), 1.0))
    assert f"({explorer.rerun.failed.sum()} failed checks, {n_steps:,} steps at the end)" in text
    reader.root.get_by_role("button", name="as recorded").click()
    reader.settle()
    assert "would have gone as recorded" in honest.text_content()
    assert reader.page.complaints == []


@pytest.mark.parametrize("seed, iteration", [(4, 2150), (0, 100)])
def test_the_numbers_of_a_check_are_written_as_python_writes_them(
    visit_explorers, html, explorer, evidence, seed, iteration
):
    """A step that float32 would round to 0.3327, and an accuracy halfway between two tenths."""
    reader = ExplorerReader(visit_explorers(html))
    reader.choose("seed", str(seed))
    slider = reader.root.get_by_label("iteration", exact=True)
    slider.press("Home")
    for _ in range(iteration // 500):
        slider.press("PageUp")
    for _ in range(iteration % 500 // 50):
        slider.press("ArrowRight")
    reader.settle()
    explorer.seed, explorer.iteration = seed, iteration
    note = reader.root.locator("dd:has([data-number=n_steps]) .note").text_content()
    train, test, nfe = (
        plain(reader.root.locator(f"[data-number={name}]").text_content())
        for name in ("train", "test", "nfe")
    )
    for text in (note, f"{train} under the training", f"{test} under the", f"{nfe} evaluations"):
        assert f" {text}" in explorer.describe()


def test_the_rule_is_told_once(visit_explorers, html):
    """The slider says its value itself: no text beside it may say it again."""
    reader = ExplorerReader(visit_explorers(html))
    assert reader.root.locator("output, [role=status], [aria-live]").count() == 1
    assert reader.root.locator(".constant .now").all_text_contents() == ["0.10", "0.50", "1.10"]


def test_its_numbers_stand_in_one_row(visit_explorers, html):
    page = visit_explorers(html, viewport={"width": 700, "height": 900})
    values = page.locator(".nodecore-explorer .value")
    tops = {value.bounding_box()["y"] for value in values.all()}
    assert (values.count(), len(tops)) == (7, 1)


def test_it_plays(visit_explorers, html):
    page = visit_explorers(html)
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    page.get_by_role("button", name="play").click()
    page.clock.run_for(700)
    page.get_by_role("button", name="pause").click()
    assert ExplorerReader(page).number("iteration") == pytest.approx(10_000 * 0.7 / 12, abs=50)
    assert page.complaints == []


def test_a_finger_moves_through_the_iterations(visit_explorers, html):
    page = visit_explorers(html, **PHONE)
    reader = ExplorerReader(page)
    slider = reader.root.get_by_label("iteration", exact=True)
    said = reader.drag_by_finger(slider, 0.6, 0.3)
    for text, share in zip(said, (0.6, 0.3, 0.3), strict=True):
        assert float(text.removeprefix("iteration ").replace(",", "")) == pytest.approx(
            10_000 * share, abs=200
        )
    assert page.complaints == []
