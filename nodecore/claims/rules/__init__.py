"""Does a claim of the paper hold here? One function for each kind of claim.

A function gets the evidence of the studies that a claim names, by name, those without any left
out, and the claim's numbers. It yields a part for each data set or number it could look at. Its
`rule` says in a sentence what it asks; `DECISIONS` has them all by name.
"""

from nodecore.claims.rules import adaption, grids, models
from nodecore.claims.rules.base import (
    DECIDED,
    DECISIONS,
    FAILS,
    HOLDS,
    OTHER_SCALE,
    PARTLY,
    SYMBOLS,
    UNSURE,
    UNTESTED,
    VERDICTS,
    Material,
    Part,
    get_decision,
)

__all__ = [
    "DECIDED",
    "DECISIONS",
    "FAILS",
    "HOLDS",
    "OTHER_SCALE",
    "PARTLY",
    "SYMBOLS",
    "UNSURE",
    "UNTESTED",
    "VERDICTS",
    "Material",
    "Part",
    "adaption",
    "get_decision",
    "grids",
    "models",
]
