"""A peer that computes something else is not a peer: results are compared before they are timed."""

from torch import Tensor

from benchmarks.cases import Case
from benchmarks.timing import Result

FIXED = 1e-3  # of the same steps: rounding, and kinks that it moves a sample across
# Steps of one's own choice: an end state differs by some tolerances, and a gradient through kinks
# by several hundredths, as ours do from the exact flow's. The tests hold peers to more, at a
# tolerance at which the choice no longer matters.
STATE_TOLERANCES, STATE_FLOOR, GRADIENT = 50.0, 1e-3, 0.3
NAMES = ("w1", "b1", "w2", "b2", "w3", "b3")


class Disagreement(Exception):
    """A peer's result is not ours; the message names the worst part."""


def difference(value: Tensor, reference: Tensor) -> float:
    """Norm of the difference over the norm of the reference; NaN counts as infinite."""
    if value.shape != reference.shape:
        return float("inf")
    relative = float((value.double() - reference.double()).norm() / reference.double().norm())
    return relative if relative == relative else float("inf")


def check_agreement(case: Case, result: Result, reference: Result) -> None:
    """Raises Disagreement unless z(T) and all six gradients are those of the reference."""
    allowed = dict.fromkeys(("z", *NAMES), FIXED)
    if case.rtol is not None:
        allowed = dict.fromkeys(NAMES, GRADIENT)
        allowed["z"] = max(STATE_FLOOR, STATE_TOLERANCES * case.rtol)
    (z, gradients), (our_z, our_gradients) = result, reference
    pairs = [("z", z, our_z), *zip(NAMES, gradients, our_gradients, strict=True)]
    for name, value, ours in pairs:
        found = difference(value, ours)
        if not found <= allowed[name]:
            raise Disagreement(
                f"{name} differs from ours by {found:.1e} of its norm, {allowed[name]:.1e} allowed"
            )
