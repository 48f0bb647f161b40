"""What the README promises is there: targets, commands, paths, and its papermill line."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nodecore.__main__ import app
from nodecore.data.files import PROJECT

README = (PROJECT / "README.md").read_text()
SHELL = "\n".join(re.findall(r"```bash\n(.*?)```", README, re.DOTALL))
PLACES = re.findall(r"\]\((?!https?:)([^)]+)\)", README) + re.findall(
    r"`((?:book|tests)/[^` ]*)`", README
)


def makefile_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):.*## ", (PROJECT / "Makefile").read_text(), re.MULTILINE))


def test_make_targets_exist():
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"book", "test", "lab", "reproduce"} <= named <= makefile_targets()


def test_make_help_lists_every_target():
    told = subprocess.run(["make", "help"], cwd=PROJECT, capture_output=True, text=True, check=True)
    for target in makefile_targets():
        assert f"make {target} " in told.stdout


def test_lab_passes_options_on_and_allows_root():
    """`id` says who runs it; nothing is started."""
    command = ["make", "-n", "-o", ".venv/.ready", "lab", "LAB_ARGS=--port 8899"]
    outside = {name: text for name, text in os.environ.items() if not name.startswith("MAKE")}
    how = {"cwd": PROJECT, "capture_output": True, "text": True, "check": True, "env": outside}
    told = subprocess.run(command, **how).stdout
    allowed = "--allow-root" if os.getuid() == 0 else ""
    assert told.split()[1:] == ["lab", "--notebook-dir=.", *allowed.split(), "--port", "8899"]


@pytest.mark.parametrize("place", sorted(set(PLACES)))
def test_paths_exist(place: str):
    assert (PROJECT / place).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"python -m nodecore (\w+)", README))))
def test_commands_exist(command: str):
    assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_containers_run_as_a_user_and_set_up_as_make_does():
    """They are not built here; what they name has to be there."""
    dockerfile = (PROJECT / "Dockerfile").read_text()
    assert re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)[-1] not in ("root", "0")
    container = json.loads((PROJECT / ".devcontainer/devcontainer.json").read_text())
    assert container["remoteUser"] != "root"
    for text in (dockerfile, container["postCreateCommand"]):
        assert "make .venv/.ready" in text
    assert ".venv" in (PROJECT / ".dockerignore").read_text()


def test_upgrade_is_a_script_that_runs():
    script = PROJECT / ".ci/upgrade"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_old_python_is_refused_with_a_remedy(tmp_path: Path):
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2 && exit 0\nexit 1\n')
    old.chmod(0o755)
    for name in ("Makefile", "requirements-lock.txt", "pyproject.toml"):
        (tmp_path / name).write_bytes((PROJECT / name).read_bytes())
    done = subprocess.run(
        ["make", "book", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "Python 3.11 or newer is needed" in done.stderr and "Python 3.9.2" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_papermill_line_runs(tmp_path: Path):
    [line] = [line for line in SHELL.splitlines() if line.startswith("jupytext")]
    line = line.replace(" out.ipynb", f" {tmp_path}/out.ipynb") + " -p profile smoke -p device cpu"
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.ipynb").exists()
