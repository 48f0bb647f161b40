"""From chapters to pages: stage, execute, build.

Every chapter is run by papermill on every build, so that a page never shows an output that the
code beside it did not make; what takes long was trained before and is loaded as evidence.
"""

import base64
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jupytext
import nbformat
import yaml
from dask.system import cpu_count
from papermill import PapermillExecutionError, execute_notebook, inspect_notebook
from traitlets.config import Config

from nodecore.data.files import PROJECT
from nodecore.evidence.progress import Bar, ticking
from nodecore.evidence.provenance import cpu_model, device_name
from nodecore.pages.parameters import assigned_values, check_names
from nodecore.pages.schema import check_value, describe
from nodecore.training.devices import get_device

# A link that carries its file, as downloads.download_links makes it.
DOWNLOAD = re.compile(
    r'<a download="(?P<file>[\w.-]+)" href="data:[\w/+]+;base64,(?P<content>[^"]*)"'
)


class BookError(RuntimeError):
    """The book cannot be built; the message names the chapter or page and where to look."""


@dataclass(frozen=True)
class Chapter:
    """A chapter on its way: its source, the staged notebook and the defaults of its parameters."""

    source: Path
    staged: Path
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.source.stem


def build_book(
    root: Path | None = None,
    output: Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    workers: int | None = None,
) -> Path:
    """Execute all chapters and build the pages into `output/_build/html`.

    `root` holds the book's sources; it and `output` are by default the project's folder.
    A parameter goes to every chapter that has it. Returns the first page of the book.

    Raises:
        ValueError: a parameter that no chapter has, or a value that it may not have; nothing has
            run then.
        BookError: a chapter that failed, a page that does not build, a missing source.
    """
    root = root or PROJECT
    work = (output or root).resolve() / "_build"
    chapters = stage(root, work / "stage")
    given = assign(chapters, parameters or {})
    execute_all(chapters, given, cwd=root, workers=workers)
    for chapter in chapters:
        write_downloads(chapter.staged)
        write_device(chapter, given[chapter.name])
    return build_pages(work / "stage", work)


def stage(root: Path, folder: Path) -> list[Chapter]:
    """Copy the book into `folder`, its chapters as notebooks that say how to run them.

    Raises:
        BookError: the book, or a page that its table of contents names, is not there.
    """
    if not (root / "_toc.yml").exists():
        raise BookError(
            f"{root} holds no book: build it in the project's folder, with nodecore installed from "
            "there (pip install -e .)"
        )
    shutil.rmtree(folder, ignore_errors=True)
    ignored = shutil.ignore_patterns("*.py", "results", "__pycache__", ".ipynb_checkpoints")
    shutil.copytree(root / "book", folder / "book", ignore=ignored)
    shutil.copy(root / "_toc.yml", folder)
    settings = _write_config(root / "_config.yml", folder / "_config.yml")
    repository = settings.get("repository", {}).get("url") or ""
    sources = [root / f"{page}.py" for page in pages(root / "_toc.yml")]
    for page in sources:
        if not page.exists() and not page.with_suffix(".md").exists():
            raise BookError(f"_toc.yml names {page.stem}, but there is neither {page} nor a .md")
    chapters = (source for source in sources if source.exists())
    return [stage_chapter(source, folder / "book", repository) for source in chapters]


def pages(toc: Path) -> list[str]:
    """All pages that a table of contents names, in reading order, without their endings."""
    contents = yaml.safe_load(toc.read_text())
    parts = contents.get("parts", [contents])
    return [contents["root"]] + [page["file"] for part in parts for page in part["chapters"]]


def _write_config(source: Path, target: Path) -> dict[str, Any]:
    """The book's settings with execution off: the staged notebooks have run already."""
    settings = yaml.safe_load(source.read_text())
    settings.setdefault("execute", {})["execute_notebooks"] = "off"
    target.write_text(yaml.safe_dump(settings, allow_unicode=True))
    return settings


def stage_chapter(source: Path, folder: Path, repository: str = "") -> Chapter:
    """Turn one py:percent chapter into a notebook with its launch hint above the parameters.

    repository: the address of the book's repository, where it has one.

    Raises:
        BookError: the chapter has no cell tagged `parameters`.
    """
    notebook = jupytext.read(source)
    staged = folder / f"{source.stem}.ipynb"
    at = next((i for i, cell in enumerate(notebook.cells) if _is_parameters(cell)), None)
    if at is None:
        raise BookError(f"{source.name} has no cell tagged 'parameters'")
    jupytext.write(notebook, staged)
    meanings = {name: p["help"] for name, p in inspect_notebook(str(staged)).items()}
    values = assigned_values(notebook.cells[at].source)
    parameters = {name: values.get(name) for name in meanings}
    example = notebook.cells[at].metadata.get("example")
    hint = launch_hint(source, parameters, meanings, example) + hosts(source, repository)
    notebook.cells.insert(at, nbformat.v4.new_markdown_cell(hint))
    jupytext.write(notebook, staged)
    return Chapter(source, staged, parameters)


def _is_parameters(cell: nbformat.NotebookNode) -> bool:
    return "parameters" in cell.metadata.get("tags", [])


def launch_hint(
    source: Path, parameters: Mapping[str, Any], meanings: Mapping[str, str], example: str | None
) -> str:
    """The fold-out with this chapter's papermill line and a table of its parameters (MyST)."""
    rows = "\n".join(
        f"| `{name}` | `{default!r}` | {meanings[name]} | {describe(name, default)} |"
        for name, default in parameters.items()
    )
    path = f"book/{source.name}"
    return f"""````{{admonition}} Run this chapter yourself
:class: tip dropdown launch-hint
In the project's folder, with its environment active (`source .venv/bin/activate`):

```bash
jupytext --to ipynb -o - {path} \\
  | papermill - out.ipynb -p {example or "device cpu"}
```

or open `{path}` in JupyterLab (`make lab`). `-p NAME VALUE` changes any of these:

| parameter | default | meaning | what it may be |
| :-- | :-- | :-- | :-- |
{rows}
````"""


def hosts(source: Path, repository: str) -> str:
    """How to run a chapter on Binder and Colab (MyST); empty without a repository on GitHub."""
    host, _, name = repository.rstrip("/").partition("github.com/")
    if host != "https://" or not name:
        return ""
    binder = f"https://mybinder.org/v2/gh/{name}/HEAD?urlpath=lab/tree/book/{source.name}"
    return f"""

````{{admonition}} Run it elsewhere
:class: tip dropdown
[Open it on Binder]({binder}), or upload the notebook that this page's download button gives to
Colab, and run this cell there before all others:

```
!git clone --depth 1 {repository}
%cd {name.rpartition("/")[2]}
%pip install --quiet -e '.[book]'
```
````"""


def assign(chapters: list[Chapter], parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the parameters that go to each chapter, by the chapter's name.

    Raises:
        ValueError: a parameter that no chapter has, or a value that it may not have.
    """
    check_names(parameters, {name for chapter in chapters for name in chapter.parameters})
    for chapter in chapters:
        for name in parameters.keys() & chapter.parameters.keys():
            check_value(name, parameters[name], chapter.parameters[name])
    return {
        chapter.name: {k: v for k, v in parameters.items() if k in chapter.parameters}
        for chapter in chapters
    }


def execute_all(
    chapters: list[Chapter],
    given: Mapping[str, Mapping[str, Any]],
    cwd: Path,
    workers: int | None = None,
) -> None:
    """Run all chapters, several at a time, in processes that share the cores evenly.

    Ctrl-C ends these processes, and with them their kernels.

    Raises:
        BookError: the first chapter that failed; those still waiting are not started.
    """
    cores = cpu_count()
    workers = min(workers or cores, len(chapters)) or 1
    threads = max(1, cores // workers)
    context = multiprocessing.get_context("spawn")
    clock = Bar(total=len(chapters), bar_format="{n_fmt} of {total_fmt} chapters [{elapsed}]")
    with (
        ProcessPoolExecutor(workers, context, _set_threads, (threads,)) as pool,
        ticking(clock) as bar,
    ):
        try:
            with _deaf_to_ctrl_c():  # workers that begin are, too
                jobs = {
                    pool.submit(execute, chapter.staged, dict(given[chapter.name]), cwd): chapter
                    for chapter in chapters
                }
            for job in as_completed(jobs):
                chapter, (seconds, failure) = jobs[job], job.result()
                if failure:
                    pool.shutdown(cancel_futures=True)
                    raise BookError(
                        f"chapter {chapter.name} failed: {failure}\n"
                        f"the notebook up to there: {chapter.staged}"
                    )
                bar.write(f"executed {chapter.name} in {seconds:.0f} s")
                bar.update()
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():
                worker.terminate()  # its kernel ends when it sees that its parent has
            raise


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """Block Ctrl-C, in this thread and for good in processes that begin meanwhile."""
    resource_tracker.ensure_running()  # it unblocks Ctrl-C in the thread that first needs it
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _set_threads(threads: int) -> None:
    """Let the kernels that this process starts compute with so many threads."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def execute(notebook: Path, parameters: dict[str, Any], cwd: Path) -> tuple[float, str | None]:
    """Run one staged notebook in place; returns the seconds it took and how it failed, if so."""
    start, failure = time.perf_counter(), None
    try:
        with TemporaryDirectory() as sockets:
            execute_notebook(
                notebook,
                notebook,
                parameters,
                kernel_name="python3",
                cwd=cwd,
                progress_bar=False,
                request_save_on_cell_execute=False,
                config=_kernel_sockets(sockets),
                # A page holds an explorer's state once, in its HTML.
                store_widget_state=False,
                extra_arguments=["--IPKernelApp.log_level=50"],
            )
    except PapermillExecutionError as error:
        failure = f"{error.ename}: {error.evalue} (cell {error.exec_count})"
    except Exception as error:  # a kernel that died or never started is a failed chapter too
        failure = f"{type(error).__name__}: {error}"
    return time.perf_counter() - start, failure or fault_in(nbformat.read(notebook, 4))


def fault_in(notebook: nbformat.NotebookNode) -> str | None:
    """Name what keeps an executed notebook off the pages: a marked failure, a figure not alone."""
    if notebook.metadata.papermill.exception:
        return "papermill marks the notebook as failed"
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        shown = [output for output in cell.get("outputs", []) if output.output_type != "stream"]
        if figure and len(shown) != 1:
            name = figure.get("name", "without a name")
            return f"figure {name} has {len(shown)} outputs, not one: end its cell with plt.show()"
    return None


def write_downloads(notebook: Path) -> None:
    """Put the files that a notebook's links carry beside the pages, so that the pages stay small.

    They go where Sphinx takes static files from, and the links follow them.
    """
    folder = notebook.parent / "assets" / "downloads"

    def put(link):
        folder.mkdir(exist_ok=True)
        (folder / link["file"]).write_bytes(base64.b64decode(link["content"]))
        return f'<a download="{link["file"]}" href="../_static/downloads/{link["file"]}"'

    content = nbformat.read(notebook, 4)
    for cell in content.cells:
        for output in cell.get("outputs", []):
            if "text/html" in output.get("data", {}):
                output.data["text/html"] = DOWNLOAD.sub(put, output.data["text/html"])
    nbformat.write(content, notebook)


def write_device(chapter: Chapter, given: Mapping[str, Any]) -> None:
    """Say at the end of a page what computed it; trainings before it name their own."""
    device = str(get_device(given.get("device", chapter.parameters.get("device", "cpu"))))
    name = device_name(device) if device.startswith("cuda") else cpu_model()
    notebook = nbformat.read(chapter.staged, 4)
    text = f"This page was computed on `{device}` ({name})."
    notebook.cells.append(nbformat.v4.new_markdown_cell(text, id="device"))
    nbformat.write(notebook, chapter.staged)


def _kernel_sockets(folder: str) -> Config:
    """Talk to the kernel through files in `folder`: TCP ports of two chapters can collide."""
    return Config({"KernelManager": {"transport": "ipc", "ip": f"{folder}/kernel"}})


def build_pages(staged: Path, work: Path) -> Path:
    """Build the staged book with Jupyter Book into `work/html`; a warning is an error.

    Raises:
        BookError: with the warnings and errors that Sphinx printed.
    """
    shutil.rmtree(work / "html", ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(staged)]
    command += ["--path-output", str(work.parent), "--config", str(staged / "_config.yml")]
    command += ["--toc", str(staged / "_toc.yml"), "-W", "--keep-going", "--all"]
    start = time.perf_counter()
    with ticking(Bar(bar_format="building the pages [{elapsed}]")):
        done = subprocess.run(command, capture_output=True, text=True, cwd=staged)
    told = re.sub(r"\x1b\[[0-9;]*m", "", done.stderr)
    (work / "sphinx.log").write_text(done.stdout + told)
    if done.returncode:
        wrong = [line for line in told.splitlines() if "WARNING" in line or "ERROR" in line]
        raise BookError("\n".join(["the pages do not build:", *(wrong or [told])]))
    print(f"built the pages in {time.perf_counter() - start:.0f} s", flush=True)
    return work / "html" / "index.html"
