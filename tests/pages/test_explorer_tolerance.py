"""The tolerance explorer: its steps and its accuracy are those of nodecore's adaptive solver."""

import base64

import numpy as np
import pytest
import torch
import traitlets
from browsing import HELD_WORKERS, ExplorerReader, as_html

from nodecore.analysis.evaluate import accuracy
from nodecore.evidence import store
from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.pages.explorers import ToleranceExplorer
from nodecore.pages.explorers.tolerance import StepCounts


def evidence(steps):
    return find(Run("spheres2", steps), store.COMMITTED)


RUNS = [FixedSteps("euler", 4), FixedSteps("euler", 64)]


@pytest.fixture(scope="module")
def explorer():
    return ToleranceExplorer([evidence(steps) for steps in RUNS], n_starts=12)


@pytest.fixture(scope="module")
def html(explorer):
    return as_html(explorer)


# --- from Python --------------------------------------------------------------------------------


def test_its_accuracy_is_that_of_the_evaluation(explorer):
    found = evidence(FixedSteps("euler", 64))
    _, test = found.run.protocol.load()
    explorer.training = found.run.name
    for explorer.solver, explorer.rtol in (("dopri5", 1e-3), ("fehlberg21", 0.1)):
        wanted = accuracy(found.field, found.head, test, Tolerance(explorer.solver, explorer.rtol))
        for explorer.seed in (0, 3):
            assert explorer.accuracy == pytest.approx(float(wanted[explorer.seed]), abs=1e-9)


def test_a_refused_state_names_what_there_is(explorer):
    for name, value, known in (
        ("training", "dopri5", "choose one of euler-K4-seeds0-4, euler-K64-seeds0-4"),
        ("seed", 9, "choose one of 0, 1, 2, 3, 4"),
        ("rtol", 0.0, "give 1e-06 to 10"),
    ):
        with pytest.raises(traitlets.TraitError, match=f"{name} = .*{known}"):
            setattr(explorer, name, value)
    with pytest.raises(ValueError, match="evidence is empty"):
        ToleranceExplorer([])


# --- in the browser -----------------------------------------------------------------------------


class Reader(ExplorerReader):
    """A reader with a tolerance explorer."""

    def tolerance_by_keyboard(self, exponent):
        """From 10, page by page a power of ten tighter."""
        slider = self.root.get_by_label("tolerance, rtol = atol")
        slider.press("Home")
        for _ in range(round(10 * (1 - exponent)) // 10):
            slider.press("PageUp")
        for _ in range(round(10 * (1 - exponent)) % 10):
            slider.press("ArrowRight")


SETTINGS = [
    *(("Euler, K = 4", 0, "Dopri 5(4)", -2), ("Euler, K = 4", 1, "Fehlberg 2(1)", -0.5)),
    *(("Euler, K = 64", 2, "Bogacki–Shampine 3(2)", 1), ("Euler, K = 64", 0, "Dopri 5(4)", -5)),
]
SOLVERS = {"Dopri 5(4)": "dopri5", "Fehlberg 2(1)": "fehlberg21", "Bogacki–Shampine 3(2)": "bosh3"}


def test_the_numbers_by_keyboard_are_those_of_nodecore(visit_explorers, html, explorer):
    reader = Reader(visit_explorers(html))
    rejected = 0
    for training, seed, solver, exponent in SETTINGS:
        reader.choose("trained with", training)
        reader.choose("seed", str(seed))
        reader.choose("test solver", solver)
        reader.tolerance_by_keyboard(exponent)
        reader.settle()
        explorer.training = f"euler-K{training.split()[-1]}-seeds0-4"
        explorer.seed, explorer.solver, explorer.rtol = seed, SOLVERS[solver], 10.0**exponent
        assert reader.number("accuracy") == pytest.approx(100 * explorer.accuracy, abs=0.051)
        steps = explorer.steps
        assert steps_shown(reader) == steps, (training, solver)
        rejected += steps.rejected
        each = solve_each(explorer)
        assert reader.number("accepted") == pytest.approx(np.mean(each), abs=0.051)
    assert rejected > 0
    assert reader.page.complaints == []


def steps_shown(reader):
    accepted = int(reader.number("batch_accepted"))
    note = reader.root.locator("dd:has([data-number=batch_accepted]) .note").text_content()
    rejected, nfe = (int(word) for word in note.replace(",", "").split() if word.isdigit())
    return StepCounts(accepted, rejected, nfe)


def solve_each(explorer):
    """Accepted steps of each start that is drawn, solved by nodecore one sample at a time."""
    _, model = explorer._runs[explorer.training]
    field, _ = model.member(explorer.seed)
    x = model.x[explorer._starts[model.dataset]].double()
    tolerance = {"rtol": explorer.rtol, "atol": explorer.rtol}
    with torch.no_grad():
        return solve_adaptive(
            field, x[None], explorer.solver, instance_axes=2, **tolerance
        ).n_accepted.tolist()


def test_a_tolerance_is_written_alike_everywhere(visit_explorers):
    explorer = ToleranceExplorer([evidence(FixedSteps("euler", 4))], n_starts=3)
    reader = Reader(visit_explorers(explorer))
    slider = reader.root.get_by_label("tolerance, rtol = atol")
    for exponent, text in ((0, "1"), (-2, "0.01"), (-2.5, "3.2e-3"), (-3, "1e-3"), (-5, "1e-5")):
        reader.tolerance_by_keyboard(exponent)
        reader.settle()
        explorer.rtol = 10.0**exponent
        assert slider.get_attribute("aria-valuetext") == f"tolerance {text}"
        assert reader.root.locator(".now").text_content() == text
        assert f" at tolerance {text}: " in explorer.describe()
    assert reader.page.complaints == []


def test_a_line_that_is_not_there_is_not_explained(visit_explorers):
    explorer = ToleranceExplorer([evidence(FixedSteps("euler", 4))], n_starts=3)
    reader = Reader(visit_explorers(explorer))
    told = reader.root.get_by_text("The line: recorded accuracies of this seed.")
    recorded = {test["solver"] for test in explorer.data["models"][0]["tests"]}
    assert recorded < set(SOLVERS.values())
    for title, solver in SOLVERS.items():
        reader.choose("test solver", title)
        reader.settle()
        assert told.is_visible() == (solver in recorded), solver


def test_a_late_answer_to_another_seed_is_dropped(visit_explorers, html):
    """It is not shown, and does not make the page solve the present seed again."""
    page = visit_explorers(HELD_WORKERS, html)
    reader = Reader(page)
    reader.settle()
    page.evaluate("() => { hold = true; }")
    reader.root.get_by_label("tolerance, rtol = atol").press("ArrowRight")
    page.wait_for_function("late.length === 2")  # each start by itself, and all points alike
    reader.choose("seed", "1")
    reader.next_frame()
    own = reader.number("accepted")
    count_norms = "Math.sqrt = (x) => { window.norms = (window.norms ?? 0) + 1; return x ** 0.5; }"
    page.evaluate(f"() => {{ {count_norms}; }}")  # each adaptive step takes one
    reader.watch("accepted")
    page.evaluate("release()")
    reader.settle()
    assert page.evaluate("window.norms") is None
    assert reader.watched() == [f"{own:.1f}"]
    assert page.complaints == []


def test_a_step_that_cannot_be_taken_is_told(visit_explorers, explorer):
    """Weights of a diverged training: no tolerance solves them."""
    wild = ToleranceExplorer([evidence(FixedSteps("euler", 4))], n_starts=3)
    model = wild.data["models"][0]
    wild.data = {**wild.data, "models": [{**model, "weights": huge(model["weights"])}]}
    page = visit_explorers(wild)
    reader = Reader(page)
    reader.settle()
    assert reader.root.locator("[data-number=accuracy]").text_content() == "none"
    assert "3 cannot be solved" in reader.root.locator(".figures").text_content()
    assert page.complaints == []


def huge(weights):
    raw = np.frombuffer(base64.b64decode(weights), "<f4") * np.float32(1e20)
    return base64.b64encode(raw.astype("<f4").tobytes()).decode()
