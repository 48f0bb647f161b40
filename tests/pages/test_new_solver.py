"""A solver that the package lacks: once its tableau is registered, it is trained, tested and drawn.

Nothing else is told of it. Where a test here fails, a new solver has come to need a second place.
"""

import inspect
import math
from dataclasses import replace
from itertools import product

import jupytext
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from nbformat.v4 import new_code_cell

from nodecore.analysis.evaluate import cross_solver_grid
from nodecore.data.files import PROJECT
from nodecore.evidence.found import find
from nodecore.evidence.names import name_of
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import Run
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.steps import FixedSteps
from nodecore.ode.tableaus import TABLEAUS
from nodecore.pages import plots
from nodecore.pages.build import execute

OLD = tuple(TABLEAUS)
TRAINED = Run("spheres2", FixedSteps("euler", 4), seeds=(0, 1), profile="smoke")


def register():
    """Register Heun's method of order three (Hairer, Norsett, Wanner 1993, p. 135).

    The source of this function is run in the chapter's kernel too, so it imports what it needs.
    """
    from nodecore.ode.tableaus import TABLEAUS, ButcherTableau

    TABLEAUS["heun3"] = ButcherTableau(
        "heun3",
        a=((), (1 / 3,), (0.0, 2 / 3)),
        b=(1 / 4, 0.0, 3 / 4),
        c=(0.0, 1 / 3, 2 / 3),
        order=3,
        label="Heun's third-order method",
    )
    return TABLEAUS["heun3"]


@pytest.fixture(autouse=True)
def heun3():
    """The new tableau, known while a test runs."""
    yield register()
    del TABLEAUS["heun3"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A store of its own."""
    return tmp_path_factory.mktemp("store")


def test_the_package_lacks_it_and_it_solves_with_its_order(heun3):
    assert all(heun3.b != TABLEAUS[name].b for name in OLD)
    # dz/dt = cos(t) z^2, z(0) = 1/2, has the solution z = 1 / (2 - sin t).
    z0 = torch.full((1, 1), 0.5, dtype=torch.float64)
    ends = [
        float(solve_fixed(lambda t, z: math.cos(t) * z**2, z0, "heun3", n_steps=k).z)
        for k in (32, 64)
    ]
    coarse, fine = (abs(z - 1 / (2 - math.sin(1.0))) for z in ends)
    assert math.log2(coarse / fine) == pytest.approx(3, abs=0.15)


def test_it_trains_and_is_found_again(root):
    run = replace(TRAINED, steps=FixedSteps("heun3", 4))
    evidence = obtain(run, device="cpu", root=root, progress=False)
    assert run.title == "spheres2-heun3/heun3-K4-seeds0-1"
    assert find(run, root).path == evidence.path
    records = evidence.records
    assert set(records["train_solver"]) == {"heun3"} and set(records["status"]) == {"ok"}
    assert set(records["nfe_per_iteration"]) == {3 * 4}
    # Its own steps, half and twice as long among them, and the exact flow.
    assert {("heun3", 2.0), ("heun3", 4.0), ("heun3", 8.0)} < set(
        zip(records["test_solver"], records["test_n_steps"], strict=True)
    )
    assert records["accuracy"].between(0, 1).all()


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_a_model_meets_it_as_a_test_solver(root, backend, monkeypatch):
    monkeypatch.setenv("NODECORE_KERNEL", backend)
    model = obtain(TRAINED, device="cpu", root=root, progress=False)
    _, test = TRAINED.protocol.load()
    settings = [FixedSteps(*s) for s in product(("heun3", "rk4"), (16, 32))]
    (_, ours), *_, (_, rk4) = cross_solver_grid(model.field, model.head, test, settings)
    assert ours.shape == (2,)
    torch.testing.assert_close(ours, rk4, atol=0.02, rtol=0)


def test_it_is_named_and_drawn_apart_from_all_others(root):
    label = "Heun's third-order method"
    assert name_of("heun3") == label
    styles = {name: plots.solver_style(name) for name in TABLEAUS}
    assert styles["heun3"]["label"] == label
    look = ("color", "marker", "linestyle")
    assert len({tuple(style[key] for key in look) for style in styles.values()}) == len(TABLEAUS)
    records = obtain(
        replace(TRAINED, steps=FixedSteps("heun3", 4)), device="cpu", root=root, progress=False
    ).records
    fig, ax = plt.subplots()
    plots.accuracy_by_steps(ax, records[records["test_solver"] == "heun3"], 4)
    [line] = [line for line in ax.lines if line.get_label() == label]
    assert line.get_color() == styles["heun3"]["color"]
    assert set(line.get_xdata()) >= {2, 4, 8}
    plt.close(fig)


def test_chapter_2_tests_under_it(tmp_path):
    notebook = jupytext.read(PROJECT / "book" / "02_trajectory_crossing.py")
    known = new_code_cell(f"{inspect.getsource(register)}\nregister();")
    drawn = new_code_cell(
        "print(*(text.get_text() for text in below.get_legend().get_texts()), sep='\\n')"
    )
    notebook.cells = [known, *notebook.cells, drawn]
    path = tmp_path / "chapter.ipynb"
    jupytext.write(notebook, path)
    parameters = {"profile": "smoke", "device": "cpu", "seeds": [0]}
    parameters |= {"n_steps_fine": 4, "n_steps_coarse": 2, "n_starts": 10, "n_drawn": 5}
    parameters["test_solvers"] = ["euler", "midpoint", "rk4", "heun3"]
    _, failure = execute(path, parameters, PROJECT)
    assert failure is None
    told = nbformat.read(path, 4).cells[-1].outputs[0].text
    assert "Heun's third-order method" in told.splitlines()
