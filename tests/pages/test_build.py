"""From chapters to pages: what each chapter must hold, and that failures do not get through."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tokenize
from importlib.metadata import version
from io import StringIO
from pathlib import Path

import jupytext
import nbformat
import psutil
import pytest
from bs4 import BeautifulSoup
from typer.testing import CliRunner

from nodecore.__main__ import app
from nodecore.data.files import PROJECT
from nodecore.evidence import store
from nodecore.evidence.catalogue import get_study
from nodecore.evidence.found import find
from nodecore.pages import build
from nodecore.pages.build import BookError, build_book, execute, pages, stage, stage_chapter
from nodecore.pages.parameters import (
    assigned_values,
    check_names,
    parse_parameter,
    passed_and_known,
)
from nodecore.pages.schema import ALLOWED, check_value, describe

SOURCES = [PROJECT / f"{page}.py" for page in pages(PROJECT / "_toc.yml")]
CHAPTERS = [source for source in SOURCES if source.exists()]  # and their appendices
MAIN_LINE = [source for source in CHAPTERS if source.stem.startswith("0")]
SCORECARD = "07_scorecard"
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
        (tmp_path / "book/assets" / name).write_bytes((PROJECT / "book/assets" / name).read_bytes())
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters: [{file: book/01_one}]\n"
    )
    (tmp_path / "_config.yml").write_bytes((PROJECT / "_config.yml").read_bytes())
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
    if source.stem != SCORECARD:
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


@pytest.mark.parametrize("source", MAIN_LINE, ids=lambda path: path.stem)
def test_a_chapter_answers_first_and_is_short(source: Path):
    """Appendices have what is longer."""
    cells = jupytext.read(source).cells
    assert "**Question.**" in cells[0].source and "**Answer.**" in cells[0].source
    for cell in cells:
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
        assert len(caption) <= 300, cell.metadata.mystnb["figure"]["name"]
        folded = {"hide-input", "remove-cell", "remove-input"} & set(cell.metadata.get("tags", []))
        if cell.cell_type == "code" and not folded:
            assert len(cell.source.splitlines()) <= 25


@each_chapter
def test_every_chapter_ran_at_smoke(source: Path, built_book: Path):
    notebook = nbformat.read(built_book / "stage/book" / f"{source.stem}.ipynb", 4)
    assert notebook.metadata.papermill.exception is None
    profile = notebook.metadata.papermill.parameters.get("profile")
    assert profile == (None if source.stem == SCORECARD else "smoke")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code if cell.source.strip())


# --- parameters ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "default", "message"),
    [
        ("datasets", "spheres2", ["landscape"], r"'spheres2': give a list of one entry or more, "),
        ("datasets", ["moons"], ["landscape"], "each one of spheres2, .*such as .'landscape'"),
        ("datasets", [], ["landscape"], "give a list of one entry or more"),
        ("planar", ["spheres10"], ["landscape"], "each one of spheres2, landscape, such as"),
        ("ablated", ["spheres10"], ["landscape"], "each one of landscape, spheres2, such as"),
        ("dataset", "spheres3", "spheres2", "give one of spheres2, landscape, such as 'spheres2'"),
        (
            "higher",
            ["landscape"],
            ["spheres3"],
            "each one of spheres3, spheres10, spheres900",
        ),
        ("solvers", ["euler"], ["dopri5"], "each one of .*fehlberg21, dopri5, such as"),
        ("seeds", 3, [0, 1], r"each a whole number >= 0, such as \[0, 1\]"),
        ("seeds", ["a"], [0, 1], r"seeds = \['a'\]: give a list"),
        ("seeds", [True], [0, 1], r"seeds = \[True\]: give a list"),
        ("rtols", ["1e-1"], [0.1], r"YAML reads 1e-1 as text; write 1\.0e-1"),
        ("rtols", [0.1, -1], [0.1], "each a number > 0"),
        ("batch_size", 0, 128, "batch_size = 0: give a whole number from 1 to 1000"),
        ("batch_size", 1.5, 128, "give a whole number from 1 to 1000, such as 128"),
        ("window", -5, 1000, "window = -5: give a whole number >= 1, such as 1000"),
        ("seed", -1, 1, "seed = -1: give a whole number >= 0"),
        ("step_size", "fine", 1.0, "give a number > 0, such as 1.0$"),
        ("step_size", "1e-3", 1.0, "YAML reads 1e-3 as text"),
        ("step_size", float("nan"), 1.0, "give a number > 0"),
        ("device", "gpu", "auto", "device = 'gpu': give auto, cpu or cuda"),
        ("device", "mps", "auto", "device = 'mps': give auto, cpu or cuda"),
        ("device", 1, "auto", "device = 1: give one of auto, cpu, cuda"),
        ("profile", 3, "paper", "profile = 3: give one of paper, laptop, smoke, such as 'paper'"),
        ("profile", "big", "paper", "profile = 'big': give one of paper, laptop, smoke"),
        ("root", 3, "", "root = 3: give text"),
    ],
)
def test_a_parameter_of_another_kind_is_refused(name, value, default, message):
    with pytest.raises(ValueError, match=message):
        check_value(name, value, default)


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [
        ("seeds", [3], [0]),
        ("seed", 0, 1),
        ("step_size", 1, 0.5),
        ("x", 3, None),
        ("others", [], ["landscape"]),
        ("datasets", ["spheres10", "spheres900"], ["landscape"]),
        ("device", "cpu", "auto"),
        ("flag", False, True),
    ],
)
def test_a_parameter_of_its_own_kind_passes(name, value, default):
    check_value(name, value, default)


@each_chapter
def test_the_defaults_of_a_chapter_are_allowed_and_its_table_says_what_is(source, tmp_path):
    chapter = stage_chapter(source, tmp_path)
    [hint] = [c.source for c in nbformat.read(chapter.staged, 4).cells if "launch-hint" in c.source]
    for name, default in chapter.parameters.items():
        check_value(name, default, default)
        assert re.search(
            rf"(?m)^\| `{name}` \| .* \| {re.escape(describe(name, default))} \|$", hint
        )


def test_the_schema_has_no_parameter_that_no_chapter_has(tmp_path):
    chapters = [stage_chapter(source, tmp_path) for source in CHAPTERS]
    assert set(ALLOWED) <= {name for chapter in chapters for name in chapter.parameters}


@each_chapter
def test_the_packages_page_has_every_module_that_a_chapter_imports(source):
    listed = set(re.findall(r"automodule:: (\S+)", (PROJECT / "book/api.md").read_text()))
    imports = [n for n in ast.walk(ast.parse(source.read_text())) if isinstance(n, ast.ImportFrom)]
    for node in (n for n in imports if n.module.startswith("nodecore.")):
        whole = {f"{node.module}.{alias.name}" for alias in node.names}
        assert node.module in listed or whole <= listed, ast.unparse(node)


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
        check_names(["n_stpes"], ["n_steps", "h"])


def test_injected_cell_is_compared_with_the_cell_before():
    cells = ["", "a = 1\nb: int = 2", '# Parameters\nc = "x"\n', "a + b"]
    assert passed_and_known(cells) == ({"c": "x"}, {"a": 1, "b": 2})
    assert passed_and_known(["", "a = 1", "a"]) == ({}, {})


def test_book_refuses_a_parameter_before_running(tiny: Path):
    with pytest.raises(ValueError, match="did you mean 'n_steps'"):
        build_book(tiny, parameters={"n_stpes": 4})
    with pytest.raises(ValueError, match="n_steps = 0: give a whole number >= 1, such as 16"):
        build_book(tiny, parameters={"n_steps": 0})
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
        ("h=1e-3", ("h", 1e-3)),
        ("h=[1e-3, 2.5E+1]", ("h", [1e-3, 25.0])),
        ("p=1e", ("p", "1e")),
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
    monkeypatch.setattr(build, "PROJECT", tiny)
    result = CliRunner().invoke(app, ["book"])
    assert result.exit_code == 1
    assert "chapter 01_one failed" in result.stderr and told in result.stderr
    assert not (tiny / "_build/html").exists()


def test_ctrl_c_stops_the_book_and_its_kernels(tiny: Path, tmp_path: Path):
    """As a terminal sends it: to all processes of the group."""
    begun = tmp_path / "begun"
    write_chapter(tiny, f"import time; open({str(begun)!r}, 'w').close(); time.sleep(300)")
    code = f"""
from pathlib import Path
from nodecore.__main__ import app
from nodecore.pages import build
build.PROJECT = Path({str(tiny)!r})
app(["book"])
"""
    how = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, **how) as process:
        while not begun.exists() and process.poll() is None:
            time.sleep(0.1)
        processes = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130
    assert errors.rstrip().endswith("and the same command begins anew with these")
    assert "Traceback" not in errors
    assert len(processes) >= 2 and not psutil.wait_procs(processes, timeout=30)[1]


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


def test_old_pages_do_not_stay_and_a_clock_goes_on_meanwhile(tiny: Path, monkeypatch, capfd):
    monkeypatch.setattr("nodecore.evidence.progress.TICK", 0.2)
    old = tiny / "_build/html/book/00_old.html"
    old.parent.mkdir(parents=True)
    old.touch()
    page = build_book(tiny, parameters={"n_steps": 4})
    assert page.exists() and not old.exists()
    text = BeautifulSoup((page.parent / "book/01_one.html").read_text(), "html.parser").get_text()
    assert "papermill - out.ipynb -p n_steps 8" in text
    assert "This page was computed on cpu (" in text
    told = capfd.readouterr()
    assert "executed 01_one in " in told.out and "building the pages [00:0" in told.err
    assert told.err.count("of 1 chapters [00:0") > 3


def test_hosts_are_offered_where_the_book_has_a_repository(tiny: Path):
    def hint():
        [chapter] = stage(tiny, tiny / "stage")
        cells = nbformat.read(chapter.staged, 4).cells
        return next(cell.source for cell in cells if "launch-hint" in cell.source)

    assert "Binder" not in hint()
    config = (PROJECT / "_config.yml").read_text()
    address = "https://github.com/someone/book"
    (tiny / "_config.yml").write_text(config.replace('url: ""', f"url: {address}"))
    assert "https://mybinder.org/v2/gh/someone/book/HEAD?urlpath=lab/tree/book/01_one.py" in hint()
    assert f"!git clone --depth 1 {address}\n%cd book\n" in hint()


def test_without_a_book_the_message_says_where_to_build(tmp_path: Path):
    with pytest.raises(BookError, match=r"holds no book: build it in the project's folder"):
        build_book(tmp_path)


# --- what comes from records ------------------------------------------------------------------


MARKUP = "<img src=x onerror=alert(1)>"
# Texts that a record may have as it likes, or is not told apart by here.
FREE = {"backend", "device", "torch", "revision", "date", "python", "execution", "precision"}
SHOW_RECORDS = """
from pathlib import Path
from IPython.display import HTML, Markdown
from nodecore.claims.register import collect, judge, read_claims
from nodecore.claims.scorecard import table1, table1_text
from nodecore.evidence.found import find
from nodecore.evidence.catalogue import get_study
from nodecore.pages.claim_cards import cards, records_list
look = lambda run: find(run, Path({root!r}))
judgements = [judge(c, collect(c.studies, look)) for c in read_claims() if c.id == "critical-mnist"]

# %%
HTML(cards(judgements) + records_list(judgements))

# %%
Markdown(table1_text(table1(Path({root!r}))))

# %%
look(get_study("mnist-euler", "laptop")[0]).records.iloc[:3].T
"""


def sign(path: Path, change) -> None:
    """Change a record and set its checksum right, as whoever wants to deceive would."""
    document = json.loads(path.read_text())
    change(document)
    document.pop("sha256")
    document["sha256"] = store._digest(document)
    path.write_text(json.dumps(document))


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Two studies of the committed evidence, to be spoilt."""
    for study in ("mnist-euler", "mnist-rk4"):
        place = tmp_path / "store" / study / "laptop"
        shutil.copytree(store.COMMITTED / study / "laptop", place)
    return tmp_path / "store"


def test_markup_in_a_text_of_a_record_is_refused_or_free(copied: Path):
    path = copied / "mnist-euler/laptop/euler-K1-seeds0-2.json"
    run, before = get_study("mnist-euler", "laptop")[0], path.read_text()
    document = json.loads(before)
    texts = {k for k, v in document["header"].items() if isinstance(v, str)}
    texts |= {k for record in document["records"] for k, v in record.items() if isinstance(v, str)}
    assert {"study", "test_solver", "test_split_all", "status"} <= texts
    for name in texts | {"controller", "start", "revision"}:

        def spoil(document, name=name):
            document["header"][name] = MARKUP
            for record in document["records"]:
                record |= {name: MARKUP} if name in record else {}

        sign(path, spoil)
        try:
            found = find(run, copied)
            assert name in {*FREE, "weights_sha256"} or found is None, f"{name} may hold markup"
        except store.RecordError as error:
            assert str(path) in str(error)
        path.write_text(before)


def test_markup_in_records_is_text_on_a_page(tiny: Path, copied: Path):
    def spoil(document):
        document["header"] |= dict.fromkeys(FREE, MARKUP)

    for path in copied.rglob("*.json"):
        sign(path, spoil)
    write_chapter(tiny, SHOW_RECORDS.format(root=str(copied)))
    page = build_book(tiny)
    soup = BeautifulSoup((page.parent / "book/01_one.html").read_text(), "html.parser")
    assert not soup.find_all(onerror=True)
    assert soup.find(id="records-mnist-euler-laptop") and "MNIST" in soup.get_text()
    assert MARKUP in soup.find("table", class_="dataframe").get_text()
