"""The trajectory explorer: from Python, and in a reader's hands, in a page from the disk."""

import base64
import json
import re
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
import traitlets
from browsing import HELD_WORKERS, PHONE, ExplorerReader, as_html, plain
from torch import nn

from nodecore.analysis.evaluate import accuracy
from nodecore.data.seeding import make_generator
from nodecore.data.split import Split
from nodecore.evidence import store
from nodecore.evidence.catalogue import cure_run, get_study
from nodecore.evidence.found import find
from nodecore.evidence.runs import SEEDS, Run
from nodecore.ode.fields import LinearHead, MLPField, PiecewiseField
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.steps import FixedSteps
from nodecore.ode.tableaus import ButcherTableau
from nodecore.pages import plots
from nodecore.pages.explorers import (
    AdaptionExplorer,
    GridExplorer,
    Model,
    PairExplorer,
    ToleranceExplorer,
    TrajectoryExplorer,
)
from nodecore.pages.explorers.bundle import SOURCES, bundle
from nodecore.pages.explorers.constants import CONSTANTS
from nodecore.training.adapted import Adapted

RALSTON = ButcherTableau("ralston", a=((), (2 / 3,)), b=(1 / 4, 3 / 4), c=(0, 2 / 3), order=2)

ADAPTED = Run("spheres2", Adapted("euler", "algorithm1"))


def evidence(n_steps):
    return find(Run("spheres2", FixedSteps("euler", n_steps)), store.COMMITTED)


def points(n=300):
    """Points in the plane with three classes."""
    x = torch.rand(n, 2, generator=make_generator(0, "data")) * 3 - 1.5
    return x, (x[:, 0] > 0.5).long() + (x[:, 0] > -0.5).long()


def ensemble():
    """An untrained field and head of two members."""
    generators = [make_generator(seed, "initialisation") for seed in (0, 1)]
    field, head = MLPField(generators=generators), LinearHead(2, 3, generators=generators)
    return field.requires_grad_(False), head.requires_grad_(False)


def own_model():
    torch.manual_seed(0)
    field = nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 2))
    return field, nn.Linear(2, 3)


@pytest.fixture(scope="module")
def explorer():
    """Two runs of the committed evidence, an ensemble without training, and four solvers."""
    other = Model(*ensemble(), *points(), dataset="mine", seeds=(3, 5), trained=(True, False))
    solvers = ("euler", "midpoint", "rk4", RALSTON)
    first, last = (Model.from_evidence(evidence(k)) for k in (4, 64))
    return TrajectoryExplorer(**vars(first), others=[last, other], solvers=solvers, n_starts=60)


@pytest.fixture(scope="module")
def html(explorer):
    """The explorer's HTML as it starts, made once."""
    return as_html(explorer)


# --- from Python --------------------------------------------------------------------------------


def test_it_starts_as_trained_and_its_numbers_are_those_of_nodecore(explorer):
    assert (explorer.dataset, explorer.train_n_steps, explorer.n_steps) == ("spheres2", 4, 4)
    found = evidence(4)
    _, test = found.run.protocol.load()
    for explorer.n_steps in (3, 4):
        wanted = accuracy(found.field, found.head, test, FixedSteps("euler", explorer.n_steps))
        for explorer.seed in (0, 4):
            assert explorer.accuracy == pytest.approx(float(wanted[explorer.seed]), abs=0.002)
    explorer.n_steps, explorer.seed = 4, 0


def test_a_refused_state_names_what_there_is(explorer):
    for name, value, known in (
        ("dataset", "mnist", "spheres2, mine"),
        ("solver", "rk5", "euler, midpoint, rk4, ralston"),
        ("n_steps", 0, "1 to 512"),
        ("train_n_steps", 8, "4, 64"),
        ("seed", 7, "0, 1, 2, 3, 4"),
    ):
        with pytest.raises(traitlets.TraitError, match=f"{name} = .*choose one of {known}"):
            setattr(explorer, name, value)


def test_it_tells_one_step_as_one_and_thousands_with_a_comma(explorer):
    explorer.n_steps = 1
    assert " solved by Euler in 1 step: " in explorer.describe()
    assert " % of 1,000 test points are right; " in explorer.describe()
    explorer.n_steps = 4
    assert " in 4 steps: " in explorer.describe()


def test_another_data_set_brings_a_model_of_its_own(explorer):
    explorer.dataset = "mine"
    assert (explorer.train_n_steps, explorer.seed) == (None, 3)
    assert explorer.accuracy == accuracy_by_hand(explorer, member=0)
    explorer.dataset = "spheres2"
    assert (explorer.train_n_steps, explorer.seed) == (4, 3)
    explorer.seed = 0


def accuracy_by_hand(explorer, member):
    """Euler's method written out, in float64."""
    field, head = (module.double() for module in ensemble())
    x, y = points()
    z = x.double().expand(2, -1, -1)
    for _ in range(explorer.n_steps):
        z = z + field(0.0, z) / explorer.n_steps
    return float((head(z).argmax(-1)[member] == y).double().mean())


def test_a_field_of_tanh_is_shown_and_one_that_the_browser_cannot_evaluate_is_refused():
    generators = [make_generator(seed, "initialisation") for seed in (0, 1)]
    field, head = MLPField(activation="tanh", generators=generators), ensemble()[1]
    x, y = points()
    shown = TrajectoryExplorer(field, head, x, y, n_steps=6)
    [first, second, last] = shown.data["models"][0]["field"]["layers"]
    assert [layer["activation"] for layer in (first, second, last)] == ["tanh", "tanh", None]
    wanted = accuracy(field, head, Split(x, y, 3), FixedSteps("euler", 6))
    for shown.seed in (0, 1):
        assert shown.accuracy == pytest.approx(float(wanted[shown.seed]), abs=0.002)
    soft = MLPField(activation="softplus", generators=generators)
    pieces = PiecewiseField([ensemble()[0], ensemble()[0]])
    for other, message in (
        (soft, "field has the activation 'softplus': give one with relu or tanh"),
        (pieces, "field has a PiecewiseField where an explorer takes nn.Linear"),
    ):
        with pytest.raises(ValueError, match=message):
            TrajectoryExplorer(other, head, x, y)


def test_evidence_twice_counts_once_and_the_first_is_shown():
    explorer = TrajectoryExplorer.from_evidence([evidence(64), evidence(4), evidence(64)])
    assert explorer.train_n_steps == 64
    assert [model["nSteps"] for model in explorer.data["models"]] == [4, 64]


@pytest.mark.parametrize(
    "change, message",
    {
        "shape of x": ({"x": torch.zeros(300, 3)}, r"x of shape \(300, 3\): give points in"),
        "labels": ({"y": torch.full((300,), 3)}, "y has labels 3 to 3"),
        "nan": ({"field": nn.Linear(2, 2)}, "field has weights that are NaN"),
        "3-D": ({"field": nn.Linear(3, 3)}, "field maps 3 numbers to 3"),
        "layer": ({"field": nn.Sequential(nn.GELU())}, "field has a GELU where"),
        "twice": ({"field": nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.ReLU())}, "has a ReLU"),
        "members": ({"field": ensemble()[0]}, "field has 2 members, head 1"),
        "seeds": ({"seeds": (0, 1)}, "seeds has 2 entries: give 1"),
        "classes": ({"classes": ["one"]}, "classes has 1 entries: give 3"),
        "points": (
            {"others": [Model(*own_model(), *points(200))]},
            "two models of 'own data' come with different points",
        ),
    }.values(),
)
def test_a_model_that_cannot_be_shown_is_refused(change, message):
    field, head = own_model()
    x, y = points()
    arguments = {"field": field, "head": head, "x": x, "y": y, **change}
    if "NaN" in message:
        arguments["field"].weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=message):
        TrajectoryExplorer(**arguments)


def test_without_a_kernel_a_picture_and_a_page_remain(explorer):
    data, _ = explorer._repr_mimebundle_()
    picture = base64.b64decode(data["image/png"])
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000
    assert data["image/png"] in data["text/html"]
    assert data["text/plain"].startswith("TrajectoryExplorer(spheres, 2-D, trained with h = 1/4")
    assert "application/vnd.jupyter.widget-view+json" in data


def test_models_that_cannot_be_told_apart_are_refused():
    runs = [cure_run("landscape", f"euler-K16-{cure}") for cure in ("solver-midpoint", "uniform-2")]
    both = r"cures/euler-K16-solver-midpoint.*-uniform-2\S* both trained with K = 16: give one"
    with pytest.raises(ValueError, match=both):
        TrajectoryExplorer.from_evidence([find(run) for run in runs])
    with pytest.raises(ValueError, match="evidence is empty: give at least one run"):
        TrajectoryExplorer.from_evidence([])


def test_all_the_committed_weights_fit_in_a_page():
    runs = [run for run in get_study("spheres2-euler") if run.seeds == SEEDS]
    explorer = TrajectoryExplorer.from_evidence([find(run) for run in runs])
    assert len(explorer._repr_mimebundle_()[0]["text/html"]) < 1.5e6  # one of two data sets


# --- the sources --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["trajectory.js", "compute/worker.js"])
def test_a_bundle_is_self_contained(name):
    source = bundle(name)
    assert not re.search(r"^import |^export (?!default)|https?:", source, re.MULTILINE)
    assert "node_modules" not in source and len(source) < 150_000


def test_the_constants_of_python_have_types():
    """The type check sees `constants.js` only through its declarations."""
    declared = (SOURCES / "constants.d.ts").read_text()
    assert re.findall(r"^export const (\w+):", declared, re.MULTILINE) == list(CONSTANTS)


def test_no_file_or_function_of_the_sources_is_long():
    for path in SOURCES.rglob("*.js"):
        lines = path.read_text().splitlines()
        assert len(lines) <= 300, path
        starts = [
            i for i, line in enumerate(lines) if re.match(r"(export )?(async )?function", line)
        ]
        for start in starts:
            assert lines.index("}", start) - start < 60, (path, lines[start])


# --- in the browser -----------------------------------------------------------------------------


def test_the_colours_are_the_books(visit_explorers, html):
    page = visit_explorers(html)
    section = "document.querySelector('.nodecore-explorer').shadowRoot.querySelector('section')"
    for name, colour in (
        *((f"class-{label}", colour) for label, colour in enumerate(plots.CLASS_COLOURS)),
        ("crossing", plots.CROSSING_COLOUR),
    ):
        shown = f"getComputedStyle({section}).getPropertyValue('--{name}').trim()"
        assert page.evaluate(shown) == colour


class Reader(ExplorerReader):
    """A reader with a trajectory explorer."""

    @property
    def slider(self):
        return self.root.get_by_label("number of test steps K")

    def steps_by_keyboard(self, n_steps):
        """From 1, double and add one: a key press for each binary digit, and one for each 1."""
        self.slider.press("Home")
        for digit in f"{n_steps:b}"[1:]:
            self.slider.press("PageUp")
            if digit == "1":
                self.slider.press("ArrowRight")

    def steps_by_mouse(self, share):
        box = self.slider.bounding_box()
        y = box["y"] + box["height"] / 2
        grip = self.slider.evaluate("s => Number(s.value)")
        x = [box["x"] + 8 + s * (box["width"] - 16) for s in (grip, share)]
        self.page.mouse.move(x[0], y)
        self.page.mouse.down()
        self.page.mouse.move(x[1], y, steps=8)
        self.page.mouse.up()

    def numbers(self):
        self.settle()
        return {name: self.number(name) for name in ("n_steps", "accuracy", "crossings")}


def wanted(explorer, **state):
    for name, value in state.items():
        setattr(explorer, name, value)
    return {
        "n_steps": explorer.n_steps,
        "accuracy": round(100 * explorer.accuracy, 1),
        "crossings": explorer.crossings.n_between,
    }


SOLVERS = {"Euler": "euler", "midpoint": "midpoint", "rk4": "rk4", "ralston": "ralston"}
BY_KEYBOARD = [  # training step, seed, solver, test steps
    *((4, 0, "Euler", 1), (4, 0, "Euler", 3), (4, 0, "Euler", 4), (4, 1, "Euler", 8)),
    *((4, 2, "midpoint", 4), (4, 0, "rk4", 5), (4, 0, "rk4", 64), (4, 3, "ralston", 6)),
    *((64, 0, "Euler", 2), (64, 0, "Euler", 64), (64, 4, "midpoint", 17), (64, 4, "Euler", 300)),
]


def test_the_numbers_by_keyboard_are_those_of_nodecore(visit_explorers, html, explorer):
    reader = Reader(visit_explorers(html))
    counted = 0
    for trained, seed, solver, n_steps in BY_KEYBOARD:
        reader.choose("trained with", f"h = 1/{trained}")
        reader.choose("seed", str(seed))
        reader.choose("test solver", solver)
        reader.steps_by_keyboard(n_steps)
        state = {
            "dataset": "spheres2",
            "train_n_steps": trained,
            "seed": seed,
            "solver": SOLVERS[solver],
        }
        expected = wanted(explorer, **state, n_steps=n_steps)
        assert reader.numbers() == expected, (trained, seed, solver)
        counted += expected["crossings"]
    assert counted > 100
    assert reader.page.complaints == []


@pytest.mark.parametrize("share", [0.0, 0.2, 0.35, 0.5, 0.8])
def test_the_numbers_by_mouse_are_those_of_nodecore(visit_explorers, html, explorer, share):
    reader = Reader(visit_explorers(html))
    reader.choose("data set", "mine")
    reader.choose("seed", "5 (did not train)")
    reader.steps_by_mouse(share)
    found = reader.numbers()
    assert found["n_steps"] == pytest.approx(512**share, rel=0.06, abs=1)
    state = {"dataset": "mine", "seed": 5, "solver": "euler"}
    assert found == wanted(explorer, **state, n_steps=int(found["n_steps"]))
    assert reader.page.complaints == []


def test_what_is_said_aloud_are_the_numbers(visit_explorers, html):
    reader = Reader(visit_explorers(html))
    reader.steps_by_keyboard(3)
    found = reader.numbers()
    said = reader.root.locator(".summary[aria-live=polite]")
    said.filter(has_text=" in 3 steps").wait_for()
    text = plain(said.text_content())
    assert f"{found['accuracy']:.1f} % of 1,000 test points" in text
    assert "\u00a0%" in said.text_content(), "no line ends before it"
    assert f"{found['crossings']:,.0f} crossings" in text
    assert reader.slider.get_attribute("aria-valuetext") == "K = 3, h = 1/3"


def test_the_ring_as_trained_stands_only_under_the_solver_of_the_training(visit_explorers, html):
    reader = Reader(visit_explorers(html))
    chart = reader.root.get_by_label("Test accuracy against the number of test steps")
    for solver, is_ringed in (("Euler", True), ("midpoint", False), ("Euler", True)):
        reader.choose("test solver", solver)
        reader.settle()
        assert (count_pixels(chart, "ink") > 0) == is_ringed, solver


def count_pixels(canvas, name):
    """How many pixels of a canvas have exactly a colour of the explorer."""
    return canvas.evaluate(
        """(canvas, name) => {
            const root = canvas.getRootNode().querySelector("section");
            const colour = getComputedStyle(root).getPropertyValue(`--${name}`).trim();
            const wanted = [...colour.match(/\\w\\w/g).map((part) => parseInt(part, 16)), 255];
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            let count = 0;
            for (let i = 0; i < data.length; i += 4) {
                count += wanted.every((part, k) => part === data[i + k]);
            }
            return count;
        }""",
        name,
    )


def test_crossings_of_curved_steps_are_said_to_be_those_of_chords(explorer, visit_explorers, html):
    reader = Reader(visit_explorers(html))
    crossings = reader.root.locator(".figure", has=reader.page.locator("[data-number=crossings]"))
    note = crossings.locator(".note")
    assert "piece" not in note.text_content()
    reader.choose("test solver", "midpoint")
    note.filter(has_text=", each step drawn as 8 straight pieces").wait_for()
    explorer.dataset, explorer.n_steps, explorer.solver = "spheres2", 4, "midpoint"
    assert ", each step drawn as 8 straight pieces" in explorer.describe()
    explorer.solver = "euler"
    assert "piece" not in explorer.describe()


def test_two_explorers_do_not_disturb_each_other(visit_explorers, html):
    own = TrajectoryExplorer(*own_model(), *points(), n_steps=5)
    page = visit_explorers(html, own)
    first, second = Reader(page, 0), Reader(page, 1)
    before = second.numbers()
    first.steps_by_keyboard(7)
    first.choose("test solver", "rk4")
    assert second.numbers() == before == wanted(own)
    second.steps_by_keyboard(2)
    assert first.numbers()["n_steps"] == 7
    assert second.numbers() == wanted(own, n_steps=2)
    assert page.complaints == []


def test_every_control_has_a_name(visit_explorers, html):
    page = visit_explorers(html)
    root = page.locator(".nodecore-explorer")
    controls = root.locator("select, input, button, canvas[tabindex]")
    assert controls.count() >= 10
    for control in controls.all():
        name = control.evaluate(
            "c => c.getAttribute('aria-label') || c.textContent.trim() && c.tagName === 'BUTTON' "
            "|| c.labels?.[0]?.textContent.trim()"
        )
        assert name, control.evaluate("c => c.outerHTML")


def test_a_click_and_the_keyboard_start_trajectories(visit_explorers, html):
    page = visit_explorers(html)
    reader = Reader(page)
    reader.choose("background", "nothing")  # regions come from the worker after the numbers
    reader.settle()
    canvas = page.locator("canvas[tabindex]")
    empty = pixels(canvas)
    canvas.click(position={"x": 150, "y": 150})
    page.get_by_role("button", name="remove own").wait_for()
    clicked = pixels(canvas)
    assert clicked != empty
    for key in ("ArrowLeft", "ArrowUp", "Enter"):
        canvas.press(key)
    page.keyboard.press("Tab")  # the cross goes
    reader.settle()
    assert pixels(canvas) != clicked
    page.get_by_role("button", name="remove own").click()
    page.get_by_role("button", name="remove own").wait_for(state="hidden")
    reader.settle()
    assert pixels(canvas) == empty


def test_trajectories_by_keyboard_are_told(visit_explorers, html, explorer):
    page = visit_explorers(html)
    canvas = page.locator("canvas[tabindex]")
    spoken = page.locator(".unseen[aria-live=polite]")
    for _ in range(3):
        canvas.press("ArrowLeft")
    spoken.filter(has_text="Cross at z₁ = ").wait_for()
    place = spoken.text_content().removeprefix("Cross at ").removesuffix(".")
    canvas.press("Enter")
    spoken.filter(has_text=f"Trajectory from {place}: its class at t = 1 is ").wait_for()
    explorer.dataset, explorer.n_steps = "spheres2", 4
    z = torch.tensor([[float(part.split()[-1].replace("−", "-")) for part in place.split(",")]])
    field, head = explorer.model.member(explorer.seed)
    end = solve_fixed(field, z.double()[None], "euler", n_steps=4).z
    name = explorer.model.classes[int(head(end).argmax())]
    assert spoken.text_content().endswith(f" is {name}.")
    page.get_by_role("button", name="remove own").press("Enter")
    page.get_by_role("button", name="remove own").wait_for(state="hidden")
    focused = page.evaluate("document.activeElement.shadowRoot.activeElement.tagName")
    assert focused == "CANVAS", "the button is gone, and the page would begin from its top"
    assert page.complaints == []


def pixels(canvas):
    return canvas.evaluate("c => c.toDataURL()")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_play_runs_through_time_and_pauses(visit_explorers, html, motion):
    page = visit_explorers(html, reduced_motion=motion)
    slider = page.get_by_label("time t")
    watch_time(page)
    page.clock.install(time=0)
    page.clock.pause_at(1000)
    page.get_by_role("button", name="play").click()
    page.clock.run_for(1200)
    page.get_by_role("button", name="pause").click()
    page.clock.run_for(100)
    page.get_by_role("button", name="play").wait_for()
    seen = page.evaluate("[...seen]")
    assert slider.get_attribute("aria-valuetext") in ("t = 0.20", "t = 0.29", "t = 0.30")
    assert len(seen) <= 8 if motion == "reduce" else len(seen) > 8
    slider.press("Home")
    page.clock.run_for(100)
    assert slider.get_attribute("aria-valuetext") == "t = 0.00"
    assert page.complaints == []


def watch_time(page):
    """Keep every time that is shown from now on in `seen`."""
    page.get_by_label("time t").evaluate(
        """(slider) => {
            window.seen = new Set();
            new MutationObserver(() => seen.add(slider.getAttribute("aria-valuetext"))).observe(
                slider, { attributeFilter: ["aria-valuetext"] });
        }"""
    )


def test_a_replay_begins_where_it_was_though_a_frame_began_earlier(visit_explorers, html):
    """The clock of a frame may be behind the one that a script reads."""
    late = "(run) => window.inTime((now) => run(now - 500))"
    script = f"window.inTime = requestAnimationFrame; requestAnimationFrame = {late};"
    page = visit_explorers(f"<script>{script}</script>", html)
    watch_time(page)
    page.get_by_role("button", name="play").click()
    page.wait_for_function("seen.size > 2")
    assert min(float(text.removeprefix("t = ")) for text in page.evaluate("[...seen]")) == 0
    assert page.complaints == []


@pytest.mark.parametrize("label", ["number of test steps K", "time t"])
def test_a_finger_moves_a_slider(visit_explorers, html, label):
    page = visit_explorers(html, **PHONE)
    reader = Reader(page)
    said = reader.drag_by_finger(reader.root.get_by_label(label), 0.8, 0.4)
    for text, share in zip(said, (0.8, 0.4, 0.4), strict=True):
        if label == "time t":
            assert float(text.removeprefix("t = ")) == pytest.approx(share, abs=0.02)
        else:
            n_steps = int(text.removeprefix("K = ").split(",")[0])
            assert n_steps == pytest.approx(512**share, rel=0.1)
    assert page.complaints == []


def test_an_answer_to_what_was_left_again_is_not_shown(visit_explorers, html, explorer):
    page = visit_explorers(HELD_WORKERS, html)
    reader = Reader(page)
    numbers = "accuracy", "crossings"
    reader.settle()
    before = " | ".join(reader.root.locator(f"[data-number={n}]").text_content() for n in numbers)
    page.evaluate("() => { hold = true; }")
    reader.slider.press("ArrowRight")
    page.wait_for_function("late.length > 1")  # the trajectories, and the accuracy
    reader.slider.press("ArrowLeft")
    reader.next_frame()
    reader.watch(*numbers)
    page.evaluate("release()")
    reader.settle()
    assert reader.watched() == [before]
    reader.slider.press("ArrowRight")  # what was dropped may be asked again
    state = {"dataset": "spheres2", "train_n_steps": 4, "seed": 0, "solver": "euler"}
    assert reader.numbers() == wanted(explorer, **state, n_steps=5)
    assert page.complaints == []


def test_what_is_shown_too_long_is_pale_until_the_answer_comes(visit_explorers, html):
    page = visit_explorers(HELD_WORKERS, html)
    reader = Reader(page)
    reader.settle()
    page.evaluate("() => { hold = true; }")
    reader.slider.press("ArrowRight")
    shown = [reader.root.locator(each) for each in (".plane", ".summary", ".figure .note")]
    for each in shown:
        assert_opacity(each.first, 0.45)
    page.evaluate("release()")
    reader.settle()
    for each in shown:
        assert_opacity(each.first, 1)
    assert page.complaints == []


def assert_opacity(locator, wanted):
    """Wait for it: opacity changes gradually."""
    [element] = locator.element_handles()
    share = f"Math.abs(getComputedStyle(each).opacity - {wanted}) < 0.001"
    locator.page.wait_for_function(f"(each) => {share}", arg=element)


def test_it_follows_the_theme_of_the_page(visit_explorers, html):
    page = visit_explorers(html)
    section = "document.querySelector('.nodecore-explorer').shadowRoot.querySelector('section')"
    ink = f"getComputedStyle({section}).color"
    light = page.evaluate(ink)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    page.wait_for_function(f"{ink} !== {light!r}")
    assert max(map(int, re.findall(r"\d+", light))) < 64 < 192
    assert min(map(int, re.findall(r"\d+", page.evaluate(ink))[:3])) > 192


def test_on_paper_it_is_light_whatever_the_page_is(visit_explorers, html):
    """The canvases, too: they are drawn anew before the browser prints."""
    page = visit_explorers(html, color_scheme="dark")
    reader = Reader(page)
    reader.choose("background", "nothing")
    canvas = page.locator("canvas[tabindex]")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    reader.settle()
    light = pixels(canvas)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    reader.settle()
    assert pixels(canvas) != light
    page.emulate_media(media="print")
    page.locator(".nodecore-explorer section[data-theme=light]").wait_for()
    assert pixels(canvas) == light
    page.emulate_media(media="screen")
    page.locator(".nodecore-explorer section[data-theme=dark]").wait_for()
    assert page.complaints == []


@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_any_width_and_is_sharp(visit_explorers, html, width):
    page = visit_explorers(html, viewport={"width": width, "height": 900}, device_scale_factor=2)
    Reader(page).settle()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    canvas = page.locator("canvas[tabindex]")
    shown = canvas.bounding_box()["width"]
    assert canvas.evaluate("c => c.width") == pytest.approx(2 * shown, abs=2)


ON_A_PHONE = {
    "grid": lambda: GridExplorer([evidence(4), evidence(64)], n_starts=4),
    "pair": lambda: PairExplorer.from_evidence([evidence(4), evidence(64)], n_starts=4),
    "tolerance": lambda: ToleranceExplorer([evidence(4)], n_starts=4),
    "adaption": lambda: AdaptionExplorer([find(ADAPTED, store.COMMITTED)], [evidence(4)]),
}


@pytest.mark.parametrize("kind", ON_A_PHONE)
def test_it_fits_a_phone(visit_explorers, kind):
    page = visit_explorers(ON_A_PHONE[kind](), viewport={"width": 360, "height": 800})
    ExplorerReader(page).settle()
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.complaints == []


def test_settings_are_there_again_after_a_way_back(visit_explorers, html):
    page = visit_explorers(html, html)
    first, second = Reader(page, 0), Reader(page, 1)
    first.choose("seed", "2")
    second.steps_by_keyboard(7)
    page.wait_for_function("location.hash.includes('explorer1.n_steps=7')")
    address = page.evaluate("location.href")
    page.goto("about:blank")
    page.go_back()
    wait_until_ready(page)
    assert page.evaluate("location.href") == address
    assert second.numbers()["n_steps"] == 7
    assert first.numbers()["n_steps"] == 4
    assert first.root.get_by_label("seed", exact=True).input_value() == "2"
    page.goto("about:blank")
    page.goto(address.replace("seed=2", "seed=99"))  # a link to what is no longer there
    wait_until_ready(page)
    first.numbers()
    assert first.root.get_by_label("seed", exact=True).input_value() == "0"
    assert page.complaints == []


def wait_until_ready(page):
    page.wait_for_function("!document.querySelector('.nodecore-explorer:not([data-ready])')")


def test_sliders_are_seen_in_forced_colours(visit_explorers, html):
    page = visit_explorers(html, forced_colors="active")
    picture = Reader(page).slider.screenshot()
    pixels = plt.imread(BytesIO(picture), format="png")
    middle = pixels[len(pixels) // 2].reshape(-1, pixels.shape[-1])
    assert len(np.unique(middle, axis=0)) > 2  # page, track and thumb


# --- damaged state, broken workers ---------------------------------------------------------------


def damaged(html, damage):
    """An explorer's HTML with its state changed by damage(state)."""
    content = re.search(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)[1]
    parts = json.loads(content)
    damage(parts["state"])
    return html.replace(content, json.dumps(parts).replace("<", r"\u003c"))


def cut_weights(state):
    state["data"]["models"][0]["weights"] = state["data"]["models"][0]["weights"][:4000]


def put_nan(state):
    model = state["data"]["models"][0]
    raw = np.frombuffer(base64.b64decode(model["weights"]), "<f4").copy()
    raw[17] = np.nan
    model["weights"] = base64.b64encode(raw.tobytes()).decode()


def widen_layer(state):
    state["data"]["models"][0]["field"]["layers"][1]["outputs"] = 33


def lose_models(state):
    state["data"]["models"] = []


@pytest.mark.parametrize(
    "damage, told",
    [
        (cut_weights, "numbers, not"),
        (put_nan, "NaN"),
        (widen_layer, "numbers, not"),
        (lose_models, "no model"),
        (lambda state: state.update(solver="rk5"), "solver rk5"),
        (lambda state: state.update(n_steps=None), "n_steps = null"),
        (lambda state: state.update(seed=99), "seed = 99"),
    ],
)
def test_damaged_state_is_named_in_the_widget(visit_explorers, html, damage, told):
    page = visit_explorers(damaged(html, damage))
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert told in alert.text_content()
    assert "Trajectory explorer cannot be shown" in alert.text_content()


BROKEN = {
    "it does not load": """<script>
        const broken = new Blob(["throw new Error('broken')"]);
        window.Worker = class extends Worker {
            constructor() { super(URL.createObjectURL(broken)); }
        };
    </script>""",
    "it throws as it answers": """<script>
        window.Worker = class extends Worker {
            postMessage(message) { super.postMessage({ ...message, model: undefined }); }
        };
    </script>""",
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_worker_that_fails_is_told_and_stays_told(visit_explorers, html, how):
    page = visit_explorers(BROKEN[how], html)
    alert = page.get_by_role("alert")
    alert.filter(has_text="cannot be shown: its worker fails (").wait_for()
    page.set_viewport_size({"width": 700, "height": 700})  # all is drawn anew
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    for _ in range(3):
        Reader(page).next_frame()
    assert alert.is_visible()
    assert not page.locator("dl").is_visible()
