"""Data flows one way, and the core needs little: what each module of nodecore may import."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nodecore

PACKAGE = Path(next(iter(nodecore.__path__)))
ORDER = [
    *(
        "seeding",
        "tableaus",
        "kernels",
        "solve",
        "adapt",
        "images",
        "datasets",
        "adaption",
        "protocols",
    ),
    *("vector_fields", "train", "evaluate", "margins", "crossings", "fixed_points", "lipschitz"),
    *("intervals", "flow_report", "flow_model", "flow"),
    *(
        "store",
        "deadline",
        "checkpoint",
        "study",
        "joined",
        "cluster",
        "processes",
        "sweep",
        "retest",
        "budget",
        "archives",
        "estimate",
        "summary",
        "paper",
        "plots",
        "figures",
    ),
    *("verdicts", "claims", "scorecard"),
    *("explorers", "parameters", "book", "__main__"),
]
FILES = sorted(PACKAGE.rglob("*.py"))


def room(file):
    """The module or sub-package of nodecore that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(file):
    """Every module that a file imports, inside functions too, as dotted names."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file.name}: import by the full name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def rooms_used(file):
    used = {name.split(".")[1] for name in imported(file) if name.startswith("nodecore.")}
    return used - {room(file)}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_backwards(file):
    own = room(file)
    if own == "__init__":
        return
    assert own in ORDER, f"{own}: give the new module its place in ORDER"
    earlier = set(ORDER[: ORDER.index(own)])
    assert rooms_used(file) <= earlier, f"{own} imports {rooms_used(file) - earlier}"


def test_the_order_names_no_module_that_is_gone():
    assert set(ORDER) == {room(file) for file in FILES} - {"__init__"}


def test_a_forward_import_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    file = tmp_path / "solve.py"
    file.write_text("def late():\n    from nodecore import tableaus, train\n")
    with pytest.raises(AssertionError, match=r"solve imports {'train'}"):
        test_imports_point_backwards(file)


def test_plots_neither_solve_nor_train():
    assert not rooms_used(PACKAGE / "plots.py") & {"solve", "adapt", "train", "study", "kernels"}


def test_no_file_needs_what_is_for_tests_only_or_unpickles():
    for file in FILES:
        packages = {name.split(".")[0] for name in imported(file)}
        peers = {"summary": {"scipy"}}.get(room(file), set())
        forbidden = {"scipy", "torchdiffeq", "pytest", "hypothesis", "pickle", "dill"} - peers
        forbidden |= {"benchmarks"}
        assert not packages & forbidden, file
        assert not re.search(
            r"\btorch\.load\(|allow_pickle=True|\beval\((?!\))", file.read_text()
        ), file


# --- what the core needs --------------------------------------------------------------------------

CORE = [
    *("seeding", "tableaus", "kernels", "solve", "adapt", "datasets", "vector_fields"),
    *("evaluate", "margins", "crossings", "fixed_points", "lipschitz"),
    *("intervals", "flow_report", "flow_model", "flow"),
]
BLOCKED = ["pandas", "matplotlib", "safetensors", "tqdm", "scipy", "torchdiffeq", "IPython", "yaml"]


def import_without(blocked, modules):
    script = "import sys\n"
    script += "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    script += "".join(f"import nodecore.{name}\n" for name in modules)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_the_core_needs_torch_and_numpy_only():
    result = import_without(BLOCKED, CORE)
    assert result.returncode == 0, result.stderr


def test_training_needs_tqdm_besides():
    result = import_without(set(BLOCKED) - {"tqdm"}, ["train"])
    assert result.returncode == 0, result.stderr


INSTALLED = """
import sys
for name in {blocked}:
    sys.modules[name] = None
import torch, nodecore
assert {target!r} in nodecore.__file__, nodecore.__file__
x = torch.linspace(-1, 1, 200).view(100, 2)
report = nodecore.check_flow(lambda t, z: -z, None, x, solver="euler", n_steps=64, verbose=False)
print(report.verdict, report._repr_html_()[:4])
"""


def test_installed_elsewhere_it_asks_for_torch_and_numpy_and_checks_a_model(tmp_path):
    """`pip install .` into a project that has none of the book's packages."""
    source, target = tmp_path / "source", tmp_path / "target"
    shutil.copytree(PACKAGE, source / "nodecore", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.txt"):
        shutil.copy(PACKAGE.parent / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    pip += ["--disable-pip-version-check", "--target", str(target), str(source)]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [metadata] = target.glob("nodecore-*.dist-info/METADATA")
    required = re.findall(r"^Requires-Dist: (\w+)[^;\n]*$", metadata.read_text(), re.MULTILINE)
    assert required == ["torch", "numpy"]
    script = INSTALLED.format(blocked=[*BLOCKED, "pandas", "dask", "typer"], target=str(target))
    command = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": str(target)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "flow <div\n"
