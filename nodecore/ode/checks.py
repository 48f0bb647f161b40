"""Checks of arguments: what is refused is named with its value, and with what to give instead."""

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return value; raise ValueError that lists the choices unless it is one of them."""
    if value not in choices:
        raise ValueError(f"{name} = {value!r} is unknown; choose one of {', '.join(choices)}")
    return value


def check_count(name: str, value: Any, least: int = 1, what: str = "number") -> int:
    """Return value as an int; raise ValueError unless it is a whole number >= least."""
    if not _is_a(Integral, value) or value < least:
        raise ValueError(f"{name} = {value!r}: give a whole {what} >= {least}")
    return int(value)


def check_positive(name: str, value: Any) -> float:
    """Return value as a float; raise ValueError unless it is a finite number > 0."""
    if not _is_a(Real, value) or not 0 < value < math.inf:
        raise ValueError(f"{name} = {value!r}: give a finite number > 0")
    return float(value)


def _is_a(kind: type[Real], value: Any) -> bool:
    """Tell whether value is a number of this kind, of Python or numpy; a bool is not one."""
    return isinstance(value, kind) and not isinstance(value, bool)
