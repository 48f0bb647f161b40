"""The adaption explorer: the record replayed, and the rule with other constants."""

import numpy as np
import pandas as pd
import pytest
import traitlets
from browsing import ExplorerReader, as_html

from nodecore.evidence import store
from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.pages.explorers import AdaptionExplorer
from nodecore.pages.explorers.adaption import _checks
from nodecore.training.adapted import Adapted

RUN = Run("spheres2", Adapted("euler", "algorithm1"))


@pytest.fixture(scope="module")
def evidence():
    return find(RUN, store.COMMITTED)


@pytest.fixture
def explorer(evidence):
    return AdaptionExplorer([evidence])


@pytest.fixture(scope="module")
def html(evidence):
    return as_html(AdaptionExplorer([evidence]))


def recorded(evidence, seed):
    """The checks as they lie in the file."""
    table = pd.read_csv(evidence.stored.path.with_suffix(".history.csv"))
    return table[(table["seed"] == seed) & table["failed"].notna()].reset_index(drop=True)


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
        assert reader.number("n_steps") == np.ceil(1 / row["step_size"] * (1 - 1e-6))
        failed = rows["failed"].astype(bool)[rows["iteration"] <= 500 * presses].sum()
        assert reader.number("failed") == failed
    assert reader.page.complaints == []


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
    n_steps = np.ceil(1 / explorer.rerun.step_sizes[-1] * (1 - 1e-6))
    assert f"({explorer.rerun.failed.sum()} failed checks, {n_steps:.0f} steps at the end)" in text
    reader.root.get_by_role("button", name="as recorded").click()
    reader.settle()
    assert "would have gone as recorded" in honest.text_content()
    assert reader.page.complaints == []


def test_it_plays_and_fits_a_phone(visit_explorers, html):
    page = visit_explorers(html, viewport={"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    reader = ExplorerReader(page)
    page.get_by_role("button", name="play").click()
    page.get_by_role("button", name="pause").wait_for()
    page.wait_for_timeout(700)
    page.get_by_role("button", name="pause").click()
    assert 0 < reader.number("iteration") < 10_000
    assert page.complaints == []
