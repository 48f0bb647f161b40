"""Changes of a protocol, one value at a time, as names that files and records carry."""

import math
from collections.abc import Iterable
from typing import Any

from nodecore.data.datasets import IMAGES
from nodecore.ode.checks import check_choice
from nodecore.ode.fields import ACTIVATIONS, INITIALISATIONS
from nodecore.training.ensemble import OPTIMISERS

Changes = tuple[tuple[str, float | int | str], ...]  # values of a protocol that are others, by name
OF_IMAGES = ("gradient", "learning_rate", "optimiser", "width")  # what may change
OF_OTHERS = ("activation", "initialisation", "pieces")  # and of other fields
_KINDS = {"learning_rate": float, "pieces": int, "width": int}
_WANTED = {float: "a finite float", int: "a whole number"}
_CHOICES = {
    "activation": tuple(ACTIVATIONS),
    "gradient": ("backpropagation", "adjoint"),
    "initialisation": tuple(INITIALISATIONS),
    "optimiser": tuple(OPTIMISERS),
}


def name_changes(changes: Changes) -> str:
    """Return changes as one text, such as `activation-tanh,width-16`."""
    return ",".join(f"{name}-{value}" for name, value in changes)


def get_changes(name: str, dataset: str) -> Changes:
    """Return the changes that a text of `name_changes` describes; none for an empty one.

    Raises:
        ValueError: A name or value is unknown; the message lists the known ones.
    """
    pairs = (each.partition("-")[::2] for each in name.split(",")) if name else ()
    return check_changes([(key, _parsed(key, value)) for key, value in pairs], dataset)


def _parsed(key, value):
    try:
        return _KINDS.get(key, str)(value)
    except ValueError as error:
        raise ValueError(f"{key} = {value!r}: give a number") from error


def check_changes(changes: Iterable[tuple[str, Any]], dataset: str) -> Changes:
    """Return changes of a data set's protocol in the order of their names.

    Raises:
        ValueError: A name or value is unknown or stands twice, or the data set's field has none.
    """
    changes = tuple(sorted(changes, key=lambda change: change[0]))
    names = [name for name, _ in changes]
    changeable = OF_IMAGES if dataset in IMAGES else (*OF_IMAGES, *OF_OTHERS)
    for name, value in changes:
        if name not in changeable or names.count(name) > 1:
            raise ValueError(
                f"changes = {changes!r}: for {dataset} give of {', '.join(changeable)}, each once"
            )
        if name in _CHOICES:
            check_choice(name, value, _CHOICES[name])
        elif type(value) is not _KINDS[name] or not 0 < value < math.inf:
            raise ValueError(f"{name} = {value!r}: give {_WANTED[_KINDS[name]]} > 0")
    return changes
