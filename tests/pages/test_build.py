"""From chapters to pages: what each chapter must hold, and that failures do not get through."""

import ast
import subprocess
import sys
import tokenize
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import jupytext
import nbformat
import pytest
from bs4 import BeautifulSoup
from typer.testing import CliRunner

from nodecore.__main__ import app, parse_parameter
from nodecore.pages import build
from nodecore.pages.build import ROOT, BookError, build_book, execute, pages, stage, stage_chapter
from nodecore.pages.parameters import (
    assigned_values,
    passed_and_known,
    refuse_unknown,
    refuse_unlike,
)

CHAPTERS = [ROOT / f"{page}.py" for page in pages(ROOT / "_toc.yml") if page[5:7].isdigit()]
SCORECARD = ROOT / "book/07_scorecard.py"
each_chapter = pytest.mark.parametrize("source", CHAPTERS, ids=lambda path: path.stem)

HEADER = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # One

# %% tags=["parameters"] example="n_steps 8"
profile = "paper"  # size of every run
n_steps = 16  # number of steps

# %%
from nodecore.pages.parameters import check_parameters

check_parameters()

# %%
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A book of one chapter, which prints its parameters."""
    (tmp_path / "book/assets").mkdir(parents=True)
    for name in ("book.css", "logo.svg"):
        (tmp_path / "book/assets" / name).write_bytes((ROOT / "book/assets" / name).read_bytes())
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters: [{file: book/01_one}]\n"
    )
    (tmp_path / "_config.yml").write_bytes((ROOT / "_config.yml").read_bytes())
    (tmp_path / "book/references.bib").touch()
    (tmp_path / "book/index.md").write_text("# A book\n")
    write_chapter(tmp_path, "print(profile, n_steps)")
    return tmp_path


def write_chapter(root: Path, code: str) -> None:
    (root / "book/01_one.py").write_text(HEADER + code + "\n")


def parameters_cell(source: Path) -> tuple[int, list]:
    """Where the parameters cell is among the cells of a chapter, and all cells."""
    cells = jupytext.read(source).cells
    tagged = [i for i, c in enumerate(cells) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1, "a chapter has one parameters cell"
    return tagged[0], cells


# --- every chapter ---------------------------------------------------------------------------


@each_chapter
def test_every_parameter_is_a_documented_literal(source: Path, tmp_path: Path):
    at, cells = parameters_cell(source)
    text = cells[at].source
    commented = {
        token.start[0]
        for token in tokenize.generate_tokens(StringIO(text).readline)
        if token.type == tokenize.COMMENT and token.start[1] > 0
    }
    for statement in ast.parse(text).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        ast.literal_eval(statement.value)
        assert statement.end_lineno in commented, f"no comment: {ast.unparse(statement)}"
    known = stage_chapter(source, tmp_path).parameters
    assert list(known) == list(assigned_values(text)), (
        "papermill cannot read a line ('=' in a comment?)"
    )


@each_chapter
def test_every_chapter_states_profile_device_and_example(source: Path):
    """The scorecard trains nothing: it judges what there is."""
    at, cells = parameters_cell(source)
    lines = cells[at].source.splitlines()
    if source != SCORECARD:
        assert any(line.startswith(('profile = "paper"', 'profile = "laptop"')) for line in lines)
        assert any(line.startswith('device = "auto"') for line in lines)
    name, value = cells[at].metadata["example"].split(maxsplit=1)
    assert name in assigned_values(cells[at].source) and value


@each_chapter
def test_every_chapter_refuses_unknown_parameters_first(source: Path):
    at, cells = parameters_cell(source)
    assert all(cell.cell_type == "markdown" for cell in cells[:at]), "parameters come first"
    after = next(cell for cell in cells[at + 1 :] if cell.cell_type == "code")
    assert "check_parameters()" in after.source


@each_chapter
def test_every_chapter_holds_glue_only(source: Path):
    functions = [
        n for n in ast.walk(ast.parse(source.read_text())) if isinstance(n, ast.FunctionDef)
    ]
    long = [f.name for f in functions if f.end_lineno - f.lineno > 15]
    assert not long, f"belongs in nodecore: {long}"


@each_chapter
def test_every_chapter_ran_at_smoke(source: Path, built_book: Path):
    notebook = nbformat.read(built_book / "stage/book" / f"{source.stem}.ipynb", 4)
    assert notebook.metadata.papermill.exception is None
    profile = notebook.metadata.papermill.parameters.get("profile")
    assert profile == (None if source == SCORECARD else "smoke")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code if cell.source.strip())


# --- parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "default", "message"),
    [
        ("datasets", "spheres2", ["landscape"], r"'spheres2': give a list, such as \['landscape"),
        ("seeds", 3, [0, 1], r"seeds = 3: give a list, such as \[0, 1\]"),
        ("seeds", ["a"], [0, 1], "'a' is not a whole number; give a list such as"),
        ("rtols", ["1e-1"], [0.1], "'1e-1' is not a number"),
        ("batch_size", 0, 128, "batch_size = 0: give a whole number >= 1"),
        ("batch_size", 1.5, 128, "give a whole number, such as 128"),
        ("seed", -1, 1, "seed = -1: give a whole number >= 0"),
        ("step_size", "fine", 1.0, "give a number, such as 1.0"),
        ("device", "gpu", "auto", "device = 'gpu': give auto, cpu or cuda"),
        ("profile", 3, "paper", "profile = 3: give text, such as 'paper'"),
    ],
)
def test_a_parameter_of_another_kind_is_refused(name, value, default, message):
    with pytest.raises(ValueError, match=message):
        refuse_unlike(name, value, default)


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [("seeds", [3], [0]), ("seed", 0, 1), ("step_size", 1, 0.5), ("x", 3, None), ("l", [], [1])],
)
def test_a_parameter_of_its_own_kind_passes(name, value, default):
    refuse_unlike(name, value, default)


def test_a_parameter_that_cannot_be_read_and_the_version():
    result = CliRunner().invoke(app, ["book", "-p", "n_steps_coarse=[1"])
    assert result.exit_code == 1
    assert "error: n_steps_coarse = '[1' cannot be read; write a value such as 8" in result.output
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"nodecore {version('nodecore')}\n")


def test_unknown_parameter_names_the_nearest_and_all():
    with pytest.raises(
        ValueError, match=r"'n_stpes'; did you mean 'n_steps'\? \(known: h, n_steps\)"
    ):
        refuse_unknown(["n_stpes"], ["n_steps", "h"])


def test_injected_cell_is_compared_with_the_cell_before():
    cells = ["", "a = 1\nb: int = 2", '# Parameters\nc = "x"\n', "a + b"]
    assert passed_and_known(cells) == ({"c": "x"}, {"a": 1, "b": 2})
    assert passed_and_known(["", "a = 1", "a"]) == ({}, {})


def test_book_refuses_a_parameter_before_running(tiny: Path):
    with pytest.raises(ValueError, match="did you mean 'n_steps'"):
        build_book(tiny, parameters={"n_stpes": 4})
    assert not nbformat.read(tiny / "_build/stage/book/01_one.ipynb", 4).metadata.get("papermill")


def test_papermill_alone_refuses_a_misspelt_parameter(tiny: Path):
    """papermill itself would warn, run the defaults and exit with 0."""
    [chapter] = stage(tiny, tiny / "stage")
    command = [sys.executable, "-m", "papermill", str(chapter.staged), str(tiny / "out.ipynb")]
    done = subprocess.run([*command, "-p", "n_stpes", "8"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "did you mean 'n_steps'" in done.stderr


def test_parameters_reach_the_chapter(tiny: Path):
    [chapter] = stage(tiny, tiny / "stage")
    seconds, failure = execute(chapter.staged, {"n_steps": 8}, tiny)
    assert failure is None and seconds > 0
    last = nbformat.read(chapter.staged, 4).cells[-1]
    assert last.outputs[0].text == "paper 8\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n=8", ("n", 8)),
        ("p=smoke", ("p", "smoke")),
        ("k=[1, 2]", ("k", [1, 2])),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_command_line_parameters_are_read_as_papermill_reads_them(text, expected):
    assert parse_parameter(text) == expected


@pytest.mark.parametrize("text", ["n", "=8"])
def test_command_line_parameter_needs_name_and_value(text):
    with pytest.raises(ValueError, match="NAME=VALUE"):
        parse_parameter(text)


# --- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            'raise RuntimeError("the solver is out of steps")',
            "RuntimeError: the solver is out of steps",
        ),
        ("import os; os._exit(1)", "DeadKernelError"),
    ],
    ids=["raises", "kernel-dies"],
)
def test_a_failing_chapter_stops_the_book(tiny: Path, monkeypatch, code: str, told: str):
    write_chapter(tiny, code)
    monkeypatch.setattr(build, "ROOT", tiny)
    result = CliRunner().invoke(app, ["book"])
    assert result.exit_code == 1
    assert "chapter 01_one failed" in result.stderr and told in result.stderr
    assert not (tiny / "_build/html").exists()


def test_a_notebook_marked_as_failed_is_not_published(tiny: Path, monkeypatch):
    [chapter] = stage(tiny, tiny / "stage")

    def papermill_that_returns(source, *_, **__):
        notebook = nbformat.read(source, 4)
        notebook.metadata.papermill = {"exception": True}
        nbformat.write(notebook, source)

    monkeypatch.setattr(build, "execute_notebook", papermill_that_returns)
    assert execute(chapter.staged, {}, tiny)[1] == "papermill marks the notebook as failed"


FIGURE = """
# %% mystnb={{"figure": {{"caption": "A line.", "name": "fig-line"}}}}
import matplotlib.pyplot as plt

plt.plot([0, 1])
{end}"""


@pytest.mark.parametrize(("end", "fails"), [("plt.show()", False), ("plt.legend()", True)])
def test_a_figure_is_alone_under_its_caption(tiny: Path, end: str, fails: bool):
    """Else the page shows `<Axes: >` as a second figure of the same name."""
    write_chapter(tiny, FIGURE.format(end=end))
    [chapter] = stage(tiny, tiny / "stage")
    failure = execute(chapter.staged, {}, tiny)[1]
    assert (
        failure == "figure fig-line has 2 outputs, not one: end its cell with plt.show()"
    ) == fails
    assert (failure is None) != fails


def test_a_broken_reference_stops_the_book(tiny: Path):
    (tiny / "book/index.md").write_text("# A book\n\nSee {ref}`nowhere`.\n")
    with pytest.raises(BookError, match=r"(?s)do not build.*index\.md.*nowhere"):
        build_book(tiny)


def test_a_missing_page_is_named(tiny: Path):
    (tiny / "book/01_one.py").unlink()
    with pytest.raises(BookError, match="01_one"):
        stage(tiny, tiny / "stage")


def test_a_chapter_without_parameters_is_named(tiny: Path):
    (tiny / "book/01_one.py").write_text("# %%\n1 + 1\n")
    with pytest.raises(BookError, match=r"01_one\.py has no cell tagged 'parameters'"):
        stage(tiny, tiny / "stage")


def test_old_pages_do_not_stay(tiny: Path):
    old = tiny / "_build/html/book/00_old.html"
    old.parent.mkdir(parents=True)
    old.touch()
    page = build_book(tiny, parameters={"n_steps": 4})
    assert page.exists() and not old.exists()
    text = BeautifulSoup((page.parent / "book/01_one.html").read_text(), "html.parser").get_text()
    assert "papermill - out.ipynb -p n_steps 8" in text
