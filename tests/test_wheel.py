"""The wheel: what it asks for, what it holds, and that it works without the book's packages."""

import os
import re
import shutil
import subprocess
import sys
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest
from test_imports import BLOCKED, PACKAGE

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
BOOK_ONLY = [*BLOCKED, "dask", "distributed", "filelock", "typer"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built offline, from a copy of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(PACKAGE, source / "nodecore", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PACKAGE.parent / name, source)
    how = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", folder]
    subprocess.run([*PIP, "wheel", *how, source], check=True, capture_output=True, text=True)
    [built] = folder.glob("nodecore-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    how = ["--quiet", "--no-deps", "--no-index", "--target", target]
    subprocess.run([*PIP, "install", *how, wheel], check=True, capture_output=True, text=True)
    return target


def python(installed, cwd, *arguments, blocked=BOOK_ONLY):
    """Run Python with this wheel and torch and numpy, as if `blocked` were not installed."""
    site = cwd / "site"
    site.mkdir(exist_ok=True)
    # An entry of None ends an import as if the module were not there.
    lines = "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    (site / "sitecustomize.py").write_text(f"import sys\n{lines}")
    environment = os.environ | {"PYTHONPATH": f"{site}:{installed}"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment)


def test_it_asks_for_torch_and_numpy_and_offers_the_rest_as_extras(wheel):
    with ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = message_from_string(archive.read(name).decode())
    needs = metadata.get_all("Requires-Dist")
    assert [n for n in needs if "extra ==" not in n] == ["torch>=2.13", "numpy>=2.0"]
    assert set(metadata.get_all("Provides-Extra")) == {"plot", "cluster", "book", "test"}
    assert metadata["License-Expression"] == "MIT" and metadata["Requires-Python"] == ">=3.11"
    for field in ("Summary", "Author", "Keywords", "Classifier", "Project-URL"):
        assert metadata[field], field
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_it_holds_the_sources_of_the_kernel_and_of_the_explorers_and_is_small(wheel):
    names = set(ZipFile(wheel).namelist())
    for suffix in (".py", ".cpp", ".h", ".js", ".css"):
        files = {f"nodecore/{p.relative_to(PACKAGE)}" for p in PACKAGE.rglob(f"*{suffix}")}
        assert files <= names, files - names
    assert "nodecore/py.typed" in names and any(n.endswith("LICENSE") for n in names)
    assert wheel.stat().st_size < 1e6


CHECK = """
import torch, nodecore
print(nodecore.__file__)
x = torch.linspace(-1, 1, 200).view(100, 2)
report = nodecore.check_flow(lambda t, z: -z, None, x, solver="euler", n_steps=64, verbose=False)
print(report.verdict, report._repr_html_()[:4])
report.plot()
"""


def test_it_checks_a_model_where_nothing_of_the_book_is_installed(installed, tmp_path):
    done = python(installed, tmp_path, "-c", CHECK)
    file, verdict = done.stdout.splitlines()
    assert Path(file).is_relative_to(installed), done.stderr
    assert verdict == "flow <div"
    assert "plot needs matplotlib: pip install matplotlib" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("blocked", "arguments", "told"),
    [
        (["typer"], ["--help"], "error: typer is not installed; .*'.\\[cluster\\]'"),
        (["pandas"], ["study", "status"], "error: pandas is not installed; .*'.\\[cluster\\]'"),
        (["dask"], ["study", "run"], "error: dask is not installed; .*'.\\[cluster\\]'"),
        (["jupytext"], ["book"], "error: jupytext is not installed; .*'.\\[book\\]'"),
    ],
)
def test_a_command_says_which_packages_it_lacks(installed, tmp_path, blocked, arguments, told):
    done = python(installed, tmp_path, "-m", "nodecore", *arguments, blocked=blocked)
    assert done.returncode == 1
    assert re.fullmatch(told, done.stderr.splitlines()[-1]) and "Traceback" not in done.stderr


def test_results_of_a_wheel_go_below_the_working_folder(installed, tmp_path):
    code = "from nodecore.evidence.store import scratch_root; print(scratch_root())"
    environment = {k: v for k, v in os.environ.items() if k != "NODECORE_RESULTS"}
    command = [sys.executable, "-c", code]
    environment |= {"PYTHONPATH": str(installed)}
    (installed / "book").mkdir(exist_ok=True)  # another package's
    told = subprocess.check_output(command, text=True, cwd=tmp_path, env=environment)
    assert told.strip() == str(tmp_path / "_build" / "results")


@pytest.mark.parametrize("arguments", [["run", "--committed"], ["take", "records-1.tar"]])
def test_a_wheel_has_no_committed_evidence(installed, tmp_path, arguments):
    done = python(installed, tmp_path, "-m", "nodecore", "study", *arguments, blocked=[])
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "nodecore is installed by itself there" in done.stderr.splitlines()[-1]


def test_the_import_takes_no_time_to_speak_of_beyond_torchs(installed, tmp_path):
    code = """
import time
import torch, torch.func
start = time.process_time()
import nodecore.check.check_flow
print(time.process_time() - start)
"""
    done = python(installed, tmp_path, "-c", code)
    assert float(done.stdout) < 2.0, "seconds of a processor"
