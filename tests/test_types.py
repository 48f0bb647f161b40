"""What is public says what it takes and returns: a checker finds the rest from there."""

import ast
from pathlib import Path

import nodecore

PACKAGE = Path(next(iter(nodecore.__path__)))


def public_functions(body, owner=None):
    """(function, class or None) for each in a module's or a class's body, without nested ones."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if not node.name.startswith("_"):
                yield node, owner
        elif isinstance(node, ast.ClassDef):
            if not node.name.startswith("_"):
                yield from public_functions(node.body, node)
        else:  # such as under an if
            for part in ("body", "orelse", "finalbody"):
                yield from public_functions(getattr(node, part, []), owner)


def unannotated(function, owner):
    """The names of arguments that have no annotation, and "return"."""
    taken = function.args
    arguments = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg]
    decorators = [ast.unparse(decorator) for decorator in function.decorator_list]
    own = owner is not None and "staticmethod" not in decorators  # self or cls
    missing = [a.arg for a in arguments[own:] if a is not None and a.annotation is None]
    return missing + (["return"] if function.returns is None else [])


def missing_in(text):
    """What each public function lacks, by name, where it lacks something."""
    found = {f.name: unannotated(f, owner) for f, owner in public_functions(ast.parse(text).body)}
    return {name: missing for name, missing in found.items() if missing}


def test_public_functions_are_annotated():
    files = sorted(PACKAGE.rglob("*.py"))
    lacking = {f.relative_to(PACKAGE).as_posix(): missing_in(f.read_text()) for f in files}
    assert files and not {f: found for f, found in lacking.items() if found}


def test_a_gap_would_be_seen():
    text = """
class Open:
    def method(self, a, *b: int, c=1, **d): ...
    @staticmethod
    def static(a) -> None: ...
    def _private(self, a): ...
class _Hidden:
    def method(self, a): ...
if True:
    async def late(a: int): ...
def whole(a: int, /, *, b: str = "") -> None:
    def nested(x): ...
"""
    assert missing_in(text) == {"method": ["a", "c", "d", "return"], "static": ["a"],
                                "late": ["return"]}  # fmt: skip


def test_checkers_are_told_that_there_are_types():
    assert (PACKAGE / "py.typed").exists()
