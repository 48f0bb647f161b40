"""The parameters of a chapter: what a notebook was given must be what it knows."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from IPython import get_ipython

from nodecore.training.devices import get_device


def check_parameters() -> None:
    """Refuse a parameter that this chapter does not have; call it right after the parameters.

    papermill itself only warns about an unknown name and exits with 0: a misspelt parameter
    would run the defaults and look like a result. Outside a notebook nothing is checked.

    Raises:
        ValueError: papermill passed a name that the parameters cell does not assign, or a value of
            another kind than the one that stands there.
    """
    shell = get_ipython()
    if shell is None:
        return
    passed, known = passed_and_known(shell.user_ns["In"])
    refuse_unknown(passed, known)
    for name, value in passed.items():
        refuse_unlike(name, value, known[name])


Values = dict[str, Any]  # by name; None for one that is no literal


def passed_and_known(cells: Sequence[str]) -> tuple[Values, Values]:
    """What papermill passed and what the chapter has, from the sources run so far.

    papermill puts its cell, which opens with `# Parameters`, right behind the parameters cell.
    """
    for own, injected in pairwise(cells):
        if injected.startswith("# Parameters\n"):
            return assigned_values(injected), assigned_values(own)
    return {}, {}


def assigned_values(source: str) -> Values:
    """The plain names that the top level of `source` assigns, in order, with their values."""
    values = {}
    for statement in ast.parse(source).body:
        if not isinstance(statement, ast.Assign | ast.AnnAssign):
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        for target in targets:
            if isinstance(target, ast.Name):
                values[target.id] = _literal(statement.value)
    return values


def _literal(node):
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


def refuse_unlike(name: str, value: Any, default: Any) -> None:
    """Raise unless a parameter's value is of its default's kind.

    Raises:
        ValueError: with the name, the value and what to give instead.
    """
    if default is None:
        return
    if not _is_like(value, default):
        raise ValueError(f"{name} = {value!r}: give {_kind(default)}, such as {default!r}")
    if isinstance(default, list):
        for entry in value if default else ():
            if not _is_like(entry, default[0]):
                raise ValueError(
                    f"{name} = {value!r}: {entry!r} is not {_kind(default[0])}; "
                    f"give a list such as {default!r}"
                )
    least = 0 if "seed" in name else 1  # of whole numbers; seeds are counted from 0
    if isinstance(default, int) and default >= least and value < least:
        raise ValueError(f"{name} = {value!r}: give a whole number >= {least}")
    if name == "device":
        get_device(value)


def _is_like(value, default):
    if isinstance(default, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is type(default)


def _kind(default):
    kinds = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    return kinds.get(type(default), f"a {type(default).__name__}")


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
