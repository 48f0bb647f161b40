"""Data flows one way, and the core needs little: what each module of nodecore may import."""

import ast
import re
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import nodecore

PACKAGE = Path(next(iter(nodecore.__path__)))
ORDER = ["ode", "data", "training", "analysis", "check", "evidence", "claims", "pages", "__main__"]
FILES = sorted(PACKAGE.rglob("*.py"))


def parts_of(file):
    """A file as the parts of its dotted name: nodecore/ode/fixed.py is ("ode", "fixed")."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


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


def modules_used(file):
    """The package's modules that a file imports, each as the parts of its name."""
    known = {parts_of(other) for other in FILES}
    for name in imported(file):
        parts = tuple(name.split(".")[1:])
        if name.startswith("nodecore."):
            yield parts if parts in known else parts[:-1]


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_imports_point_backwards(file):
    if not parts_of(file):
        return
    own = parts_of(file)[0]
    assert own in ORDER, f"{own}: give the new subpackage its place in ORDER"
    allowed = set(ORDER[: ORDER.index(own) + 1])
    used = {parts[0] for parts in modules_used(file) if parts}
    assert used <= allowed, f"{own} imports {used - allowed}"


def test_no_modules_import_one_another_in_a_circle():
    graph = {parts_of(file): set(modules_used(file)) - {parts_of(file)} for file in FILES}
    # The root imports what is asked for by name only, and a folder's docstring needs nothing.
    list(TopologicalSorter(graph).static_order())


def test_the_order_names_no_subpackage_that_is_gone():
    assert set(ORDER) == {parts_of(file)[0] for file in FILES if parts_of(file)}


def test_a_forward_import_would_be_seen(tmp_path, monkeypatch):
    late, loop = tmp_path / "ode" / "fixed.py", tmp_path / "training" / "loop.py"
    for file, text in (
        (late, "def late():\n    from nodecore.training import loop\n"),
        (loop, ""),
    ):
        file.parent.mkdir()
        file.write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "FILES", [late, loop])
    with pytest.raises(AssertionError, match=r"ode imports {'training'}"):
        test_imports_point_backwards(late)


def test_every_file_says_in_a_line_what_it_is():
    for file in FILES:
        docstring = ast.get_docstring(ast.parse(file.read_text()))
        assert docstring and docstring.splitlines()[0].rstrip().endswith((".", "!", "?", ":")), file


def test_plots_neither_solve_nor_train():
    for file in (PACKAGE / "pages/plots").glob("*.py"):
        used = {parts for parts in modules_used(file) if parts[:1] in (("ode",), ("training",))}
        assert used <= {("ode", "tableaus")}, file  # names are no solves


def test_no_file_needs_what_is_for_tests_only_or_unpickles():
    for file in FILES:
        packages = {name.split(".")[0] for name in imported(file)}
        statistics = parts_of(file) in (("evidence", "tables"), ("evidence", "means"))
        peers = {"scipy"} if statistics else set()
        forbidden = {"scipy", "torchdiffeq", "pytest", "hypothesis", "pickle", "dill"} - peers
        forbidden |= {"benchmarks"}
        assert not packages & forbidden, file
        assert not re.search(
            r"\btorch\.load\(|allow_pickle=True|\beval\((?!\))", file.read_text()
        ), file


def test_packages_that_are_imported_are_declared():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needs = [*project["dependencies"], *(need for needs in extras.values() for need in needs)]
    declared = {re.match(r"[\w-]+", need)[0].lower() for need in needs}
    tests = sorted(Path(__file__).parent.rglob("*.py"))
    own = {"nodecore", "benchmarks", *(file.stem for file in tests)}
    packages = {name.split(".")[0] for file in [*FILES, *tests] for name in imported(file)}
    for package in sorted(packages - own - sys.stdlib_module_names):
        assert declared & {d.lower() for d in packages_distributions()[package]}, package


# --- what the core needs --------------------------------------------------------------------------

CORE = [".".join(parts_of(file)) for file in FILES if parts_of(file)[:1] in (("ode",), ("check",))]
BLOCKED = ["pandas", "matplotlib", "safetensors", "tqdm", "scipy", "torchdiffeq", "IPython", "yaml"]


def import_without(blocked, modules):
    script = "import sys\n"
    script += "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    script += "".join(f"import nodecore.{name}\n" for name in modules)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)


def test_the_core_needs_torch_and_numpy_only():
    result = import_without(BLOCKED, CORE)
    assert result.returncode == 0, result.stderr


def test_the_package_tells_its_names_and_imports_nothing_for_it():
    script = "import sys, nodecore; print(*dir(nodecore)); print('torch' in sys.modules)"
    told = subprocess.check_output([sys.executable, "-c", script], text=True).splitlines()
    assert set(nodecore.__all__) <= set(told[0].split()) and told[1] == "False"
    assert all(getattr(nodecore, name).__name__ == name for name in nodecore.__all__)


def test_training_needs_tqdm_besides():
    result = import_without(set(BLOCKED) - {"tqdm"}, ["training.loop"])
    assert result.returncode == 0, result.stderr
