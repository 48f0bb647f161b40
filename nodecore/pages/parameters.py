"""The parameters of a chapter: what a notebook was given must be what it knows."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import pairwise

from IPython import get_ipython


def check_parameters() -> None:
    """Refuse a parameter that this chapter does not have; call it right after the parameters.

    papermill itself only warns about an unknown name and exits with 0: a misspelt parameter
    would run the defaults and look like a result. Outside a notebook nothing is checked.

    Raises:
        ValueError: papermill passed a name that the parameters cell does not assign.
    """
    shell = get_ipython()
    if shell is not None:
        refuse_unknown(*passed_and_known(shell.user_ns["In"]))


def passed_and_known(cells: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names that papermill passed and names that the chapter has, from the sources run so far.

    papermill puts its cell, which opens with `# Parameters`, right behind the parameters cell.
    """
    for own, injected in pairwise(cells):
        if injected.startswith("# Parameters\n"):
            return assigned_names(injected), assigned_names(own)
    return [], []


def assigned_names(source: str) -> list[str]:
    """The plain names that the top level of `source` assigns, in order."""
    statements = ast.parse(source).body
    targets = [t for s in statements if isinstance(s, ast.Assign) for t in s.targets]
    targets += [s.target for s in statements if isinstance(s, ast.AnnAssign)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def refuse_unknown(passed: Iterable[str], known: Iterable[str]) -> None:
    """Raise unless every name in `passed` is in `known`.

    Raises:
        ValueError: with the unknown name, the nearest known one and all known ones.
    """
    known = sorted(known)
    for name in passed:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown parameter {name!r}{hint} (known: {', '.join(known)})")
