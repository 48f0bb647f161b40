"""The parameters of a chapter: what a notebook was given must be what it knows."""

import ast
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

import yaml
from IPython import get_ipython

from nodecore.pages.schema import check_value


def check_parameters() -> None:
    """Refuse a parameter that this chapter does not have; call it right after the parameters.

    papermill itself only warns about an unknown name and exits with 0: a misspelt parameter
    would run the defaults and look like a result. Outside a notebook nothing is checked.

    Raises:
        ValueError: papermill passed a name that the parameters cell does not assign, or a value
            that it may not have; see schema.ALLOWED.
    """
    shell = get_ipython()
    if shell is None:
        return
    passed, known = passed_and_known(shell.user_ns["In"])
    check_names(passed, known)
    for name, value in passed.items():
        check_value(name, value, known[name])


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


def check_names(passed: Iterable[str], known: Iterable[str]) -> None:
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


# --- from the command line ------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):
    """Reads 1e-3 as a number, as YAML 1.2 does; YAML 1.1 takes it for text."""


_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789"))


def parse_parameter(text: str) -> tuple[str, Any]:
    """Split `NAME=VALUE`; the value is read as papermill reads one (`8`, `1e-3`, `[1, 2]`).

    Raises:
        ValueError: there is no name or no `=`, or the value cannot be read.
    """
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise ValueError(f"a parameter is written NAME=VALUE, not {text!r}")
    try:
        return name, yaml.load(value, _Loader)
    except yaml.YAMLError as error:
        why = "write a value such as 8, true or [1, 2]"
        raise ValueError(f"{name} = {value!r} cannot be read; {why}") from error
