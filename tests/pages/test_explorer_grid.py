"""The grid explorer: each cell is its record, from Python and in a reader's hands."""

import re

import numpy as np
import pytest
import traitlets
from browsing import PHONE, ExplorerReader, as_html

from nodecore.evidence import store
from nodecore.evidence.catalogue import GRIDS
from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.ode.steps import FixedSteps
from nodecore.pages.explorers import GridExplorer


def evidence(solver, n_steps):
    return find(Run("spheres2", FixedSteps(solver, n_steps)), store.COMMITTED)


@pytest.fixture(scope="module")
def explorer():
    runs = [("euler", 64), ("euler", 4), ("rk4", 2)]
    return GridExplorer([evidence(*run) for run in runs], n_starts=40, n_seeds=3)


@pytest.fixture(scope="module")
def html(explorer):
    return as_html(explorer)


def recorded(solver, n_steps, test_n_steps):
    """Mean over the seeds that trained, in percent, from the record itself."""
    rows = evidence(solver, n_steps).records.query(
        f"trained and test_solver == '{solver}' and test_n_steps == {test_n_steps}"
    )
    return 100 * rows["accuracy"].mean()


# --- from Python --------------------------------------------------------------------------------


def test_a_cell_is_its_record(explorer):
    for train_n_steps, test_n_steps in ((4, 8), (64, 2), (4, 4)):
        explorer.train_n_steps, explorer.test_n_steps = train_n_steps, test_n_steps
        mean = recorded("euler", train_n_steps, test_n_steps)
        assert 100 * explorer.accuracies.mean() == pytest.approx(mean)
    assert explorer.record == "book/results/spheres2-euler/paper/euler-K4-seeds0-4.json"
    assert f"tested with K = 4: mean accuracy {mean:.1f} % over 5 seeds" in repr(explorer)


def test_another_study_brings_a_cell_of_its_own(explorer):
    explorer.train_n_steps, explorer.test_n_steps = 64, 256
    explorer.study = "spheres2-rk4"
    assert (explorer.train_n_steps, explorer.test_n_steps) == (2, 2)
    explorer.study = "spheres2-euler"
    assert (explorer.train_n_steps, explorer.test_n_steps) == (4, 2)


def test_steps_beside_the_grid_have_the_cell_they_were_trained_in(monkeypatch):
    monkeypatch.setitem(GRIDS, "spheres2-euler", (1, 2, 8))
    beside = GridExplorer([evidence("euler", 4)], n_starts=4)
    assert (beside.train_n_steps, beside.test_n_steps) == (4, 4)
    with pytest.raises(traitlets.TraitError, match=r"choose one of 1, 2, 4, 8$"):
        beside.test_n_steps = 3


def test_a_refused_cell_names_what_there_is(explorer):
    for name, value, known in (
        ("study", "mnist-euler", "spheres2-euler, spheres2-rk4"),
        ("train_n_steps", 8, "4, 64"),
        ("test_n_steps", 3, "1, 2, 4, 8, 16, 32, 64, 128, 256"),
        ("seed", 4, "0, 1, 2"),
    ):
        with pytest.raises(traitlets.TraitError, match=f"{name} = .*choose one of {known}"):
            setattr(explorer, name, value)
    with pytest.raises(ValueError, match="evidence is empty"):
        GridExplorer([])


# --- in the browser -----------------------------------------------------------------------------


def test_hovering_and_arrow_keys_show_the_numbers_behind_a_cell(visit_explorers, html, explorer):
    reader = ExplorerReader(visit_explorers(html))
    cell(reader, 64, 8).hover()
    check(reader, explorer, 64, 8)
    reader.root.locator("td[tabindex='0']").press("ArrowDown")
    check(reader, explorer, 4, 8)
    for _ in range(3):
        reader.page.keyboard.press("ArrowLeft")
    check(reader, explorer, 4, 1)
    reader.page.keyboard.press("ArrowLeft")  # the edge
    check(reader, explorer, 4, 1)
    reader.choose("study", "spheres, 2-D, rk4")
    check(reader, explorer, 2, 1, "rk4")
    assert reader.page.complaints == []


def cell(reader, train_n_steps, test_n_steps):
    label = f"trained with {train_n_steps}, tested with {test_n_steps}:"
    return reader.root.locator(f"td[aria-label^='{label}']")


def test_a_clicked_cell_stays_as_the_mouse_passes_over_others(visit_explorers, html, explorer):
    reader = ExplorerReader(visit_explorers(html))
    cell(reader, 64, 8).click()
    cell(reader, 4, 16).hover()
    reader.root.get_by_label("Trajectories of the cell").hover()
    check(reader, explorer, 64, 8)
    cell(reader, 4, 16).click()
    check(reader, explorer, 4, 16)
    cell(reader, 4, 16).click()  # lets the mouse choose again
    cell(reader, 64, 2).hover()
    check(reader, explorer, 64, 2)
    assert reader.page.complaints == []


def test_a_finger_that_scrolls_over_the_map_chooses_nothing(visit_explorers, html, explorer):
    page = visit_explorers(html, **PHONE)
    reader = ExplorerReader(page)
    chosen = reader.root.locator("td[aria-selected=true]").get_attribute("aria-label")
    box = cell(reader, 4, 16).bounding_box()
    screen = page.context.new_cdp_session(page)
    for kind, dy in (("Start", [0]), ("Move", [-40]), ("Move", [-80]), ("End", [])):
        points = [{"x": box["x"] + 5, "y": box["y"] + 5 + each} for each in dy]
        screen.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
        reader.next_frame()
    reader.settle()
    assert reader.root.locator("td[aria-selected=true]").get_attribute("aria-label") == chosen
    cell(reader, 4, 16).tap()
    check(reader, explorer, 4, 16)
    assert page.complaints == []


def test_the_cell_that_has_the_focus_is_ringed_otherwise_than_the_chosen_one(visit_explorers, html):
    reader = ExplorerReader(visit_explorers(html))
    chosen = reader.root.locator("td[tabindex='0']")
    outline = "cell => getComputedStyle(cell).outline"
    before = chosen.evaluate(outline)
    reader.root.get_by_label("trajectories of seed").focus()
    reader.page.keyboard.press("Tab")
    assert chosen.evaluate("cell => cell.matches(':focus-visible')")
    assert chosen.evaluate(outline) != before


def test_numbers_on_the_map_can_be_read(visit_explorers, html):
    page = visit_explorers(html)
    cells = page.locator(".nodecore-explorer td[aria-label]")
    style = "cells => cells.map(getComputedStyle).map(s => [s.color, s.backgroundColor])"
    for colours in cells.evaluate_all(style):
        low, high = sorted(luminance(channels(colour)) for colour in colours)
        assert (high + 0.05) / (low + 0.05) >= 4.5, colours


def channels(colour):
    """Of rgb(0, 127, 255), or color(srgb 0 0.5 1), from 0 to 1."""
    numbers = [float(part) for part in re.findall(r"[\d.]+", colour)]
    return numbers if colour.startswith("color(") else [number / 255 for number in numbers]


def luminance(colour):
    """Relative luminance of WCAG 2."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
    return np.dot(linear, [0.2126, 0.7152, 0.0722])


def check(reader, explorer, train_n_steps, test_n_steps, solver="euler"):
    reader.settle()
    explorer.study = f"spheres2-{solver}"
    explorer.train_n_steps, explorer.test_n_steps = train_n_steps, test_n_steps
    wanted = recorded(solver, train_n_steps, test_n_steps)
    assert reader.number("mean") == pytest.approx(wanted, abs=0.051)
    assert reader.number("crossings") == explorer.crossings.n_between
    selected = reader.root.locator("td[aria-selected=true]")
    assert selected.get_attribute("aria-label").startswith(
        f"trained with {train_n_steps}, tested with {test_n_steps}:"
    )
    assert selected.text_content() == f"{np.round(wanted):.0f}"
    assert reader.root.locator("code.record").text_content() == explorer.record
