"""The pair explorer: its numbers against nodecore's, by keyboard, in a browser."""

import re

import pytest
from browsing import PHONE, ExplorerReader, as_html, plain

from nodecore.evidence.catalogue import cure_run
from nodecore.evidence.found import find
from nodecore.evidence.runs import SEEDS, Run
from nodecore.ode.steps import FixedSteps
from nodecore.pages.explorers import PairExplorer


def evidence(n_steps):
    return find(Run("landscape", FixedSteps("euler", n_steps), seeds=SEEDS, profile="paper"))


@pytest.fixture(scope="module")
def explorer():
    return PairExplorer.from_evidence([evidence(8), evidence(64)], n_starts=40)


def test_both_models_follow_the_slider_with_the_numbers_of_nodecore(explorer, visit_explorers):
    page = visit_explorers(as_html(explorer))
    reader = ExplorerReader(page)
    slider = reader.root.get_by_label("number of test steps K")
    for key, n_steps in (("PageUp", 16), ("ArrowRight", 17), ("Home", 1)):
        slider.press(key)
        said = reader.root.locator("[aria-live=polite]")
        steps = "1 step" if n_steps == 1 else f"{n_steps} steps"
        said.filter(has_text=f"Solved in {steps}: ").wait_for()
        assert reader.root.locator(".now").text_content() == f"K = {n_steps}, h = 1/{n_steps}"
        explorer.n_steps = n_steps
        assert explorer.describe().startswith(f"Solved in {steps}: ")
        for part in explorer.describe().split(": ")[1].split("; "):
            known, _ = part.split(" pairs cross")  # trained with …, … % are right and …
            assert f"{known} of 780 pairs cross" in plain(said.text_content())
    explorer.n_steps = 8
    assert page.complaints == []


def test_the_number_below_the_slider_stands_under_the_thumb(explorer, visit_explorers):
    page = visit_explorers(as_html(explorer))
    root = ExplorerReader(page).root
    slider = root.get_by_label("number of test steps K")
    track = slider.bounding_box()
    ticks = root.locator(".ticks span")
    assert ticks.all_text_contents() == [str(2**i) for i in range(10)]
    for text, share in (("1", 0.0), ("8", 1 / 3), ("256", 8 / 9)):
        tick = ticks.filter(has_text=re.compile(f"^{text}$")).bounding_box()
        thumb = track["x"] + 8 + share * (track["width"] - 16)
        assert tick["x"] + tick["width"] / 2 == pytest.approx(thumb, abs=1)
    last = ticks.last.bounding_box()
    assert last["x"] + last["width"] == pytest.approx(track["x"] + track["width"], abs=1)
    assert page.complaints == []


def test_a_phone_shows_both_models_and_the_slider_at_once(explorer, visit_explorers):
    page = visit_explorers(as_html(explorer), **PHONE)
    root = ExplorerReader(page).root
    first, second = (each.bounding_box() for each in root.locator("canvas[role=img]").all())
    assert first["y"] == second["y"] and first["x"] + first["width"] < second["x"]
    slider = root.get_by_label("number of test steps K").bounding_box()
    assert first["y"] < slider["y"] < first["y"] + 500
    assert page.complaints == []


def test_a_cured_training_tells_its_cure_beside_a_plain_one(visit_explorers):
    runs = [cure_run("landscape", name) for name in ("euler-K24", "euler-K16-solver-midpoint")]
    explorer = PairExplorer.from_evidence(list(map(find, runs)), n_starts=10)
    said = explorer.describe().split(": ")[1]
    assert "trained with K = 16, or midpoint, drawn, " in said and "trained with h = 1/24, " in said
    page = visit_explorers(as_html(explorer))
    headings = ExplorerReader(page).root.locator("p.heading")
    assert headings.all_text_contents() == [
        "trained with K = 16, or midpoint, drawn",
        "trained with h = 1/24",
    ]
    assert page.complaints == []


def test_two_trainings_of_one_data_set_are_needed(explorer):
    with pytest.raises(ValueError, match="1 models of 1 data sets: give two trainings"):
        PairExplorer.from_evidence([evidence(8)], n_starts=4)
