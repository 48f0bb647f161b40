"""What the chapters' parameters may be: one table for the check, its messages and the pages."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nodecore.data.datasets import IMAGES, SYNTHETIC
from nodecore.evidence.catalogue import ABLATIONS
from nodecore.ode.tableaus import TABLEAUS
from nodecore.training.controllers import CONTROLLERS, VARIATIONS
from nodecore.training.devices import get_device
from nodecore.training.protocols import PROFILES


@dataclass(frozen=True)
class Allowed:
    """What a parameter of its default's kind may be, or each entry of a list.

    Attributes:
        choices: The texts that are allowed; without any, all are.
        least: The smallest whole number. Other numbers are finite and greater than 0.
        most: The largest whole number.
        empty: Whether a list may be empty.
    """

    choices: tuple[str, ...] = ()
    least: int = 1
    most: float = math.inf
    empty: bool = False

    def admits(self, value: Any, default: Any) -> bool:
        """Tell whether a value may stand where the chapter has `default`."""
        if isinstance(default, list):
            entries = value if isinstance(value, list) else ()
            like = default[0] if default else None
            return (
                isinstance(value, list)
                and (bool(entries) or self.empty)
                and all(like is None or self.admits(entry, like) for entry in entries)
            )
        if isinstance(default, float):
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and 0 < value < math.inf
        if type(value) is not type(default):
            return False
        if type(default) is int:
            return self.least <= value <= self.most
        return not isinstance(value, str) or not self.choices or value in self.choices

    def text(self, default: Any) -> str:
        """Say what `admits` lets pass."""
        if isinstance(default, list):
            few = "any number of entries" if self.empty else "one entry or more"
            return f"a list of {few}" + (f", each {self.text(default[0])}" if default else "")
        if isinstance(default, bool):
            return "true or false"
        if isinstance(default, int):
            bounded = self.most < math.inf
            bounds = f"from {self.least} to {self.most}" if bounded else f">= {self.least}"
            return f"a whole number {bounds}"
        if isinstance(default, float):
            return "a number > 0"
        return f"one of {', '.join(self.choices)}" if self.choices else "text"


class _Device(Allowed):
    """A device that is there; its number may follow, as in cuda:1."""

    def admits(self, value, default):
        if isinstance(value, str):
            get_device(value)  # whose error says what is there
        return isinstance(value, str)


_EMBEDDED = tuple(name for name, tableau in TABLEAUS.items() if tableau.b_embedded)
_PLANAR = tuple(name for name, dataset in SYNTHETIC.items() if dataset.shape == (2,))
_CONTROLLER = Allowed(("auto", *CONTROLLERS, *VARIATIONS))
_SEED = Allowed(least=0)
# By name, for all chapters; a parameter that is not listed may be anything that _ANY admits.
ALLOWED = {
    "profile": Allowed(tuple(PROFILES)),
    "device": _Device(("auto", "cpu", "cuda")),
    "datasets": Allowed(tuple(SYNTHETIC)),
    "planar": Allowed(_PLANAR),
    "dataset": Allowed(_PLANAR),  # whose trajectories an explorer draws
    "others": Allowed(_PLANAR, empty=True),
    "higher": Allowed(tuple(name for name in SYNTHETIC if name not in _PLANAR)),
    "images": Allowed(tuple(IMAGES)),
    "ablated": Allowed(tuple(ABLATIONS)),
    "solvers": Allowed(_EMBEDDED),
    "test_solvers": Allowed(tuple(TABLEAUS)),
    "calm": _CONTROLLER,
    "controller": _CONTROLLER,
    "controllers": _CONTROLLER,
    "seed": _SEED,
    "seeds": _SEED,
    "shown_seed": _SEED,
    "n_starts": Allowed(least=2, most=1000),  # pairs, of the test set's points
    "batch_size": Allowed(most=1000),  # of the test set's points
    "resolution": Allowed(least=2, most=1000),  # squared, it is the number of solves
}
_ANY = Allowed()


def describe(name: str, default: Any) -> str:
    """Say what a parameter may be, for a message or a table."""
    return ALLOWED.get(name, _ANY).text(default)


def check_value(name: str, value: Any, default: Any) -> None:
    """Raise unless a parameter may have this value in a chapter that gives it `default`.

    Raises:
        ValueError: with the name, the value and what to give instead.
    """
    if default is None or ALLOWED.get(name, _ANY).admits(value, default):
        return
    entries = value if isinstance(value, list) else [value]
    raise ValueError(
        f"{name} = {value!r}: give {describe(name, default)}, such as {default!r}"
        f"{_hint(entries, default)}"
    )


def _hint(entries: Iterable, default: Any) -> str:
    """YAML takes a number without a point for text: say so where that is what happened."""
    like = default[0] if isinstance(default, list) and default else default
    for entry in entries:
        if isinstance(entry, str) and isinstance(like, float) and _is_number(entry):
            mantissa, e, exponent = entry.partition("e")
            return f" (YAML reads {entry} as text; write {mantissa}.0{e}{exponent})"
    return ""


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
