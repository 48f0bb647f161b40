"""The statistics behind a verdict: how large the differences between two solvers are."""

from torch import Tensor

from nodecore.analysis.evaluate import AGREEMENT
from nodecore.analysis.intervals import Interval
from nodecore.check.report import CANNOT_TELL, FLOW, NOT_A_FLOW, Tested


def spread(outputs: Tensor) -> float:
    """Root mean square distance of outputs (n, ...) from their mean."""
    rows = are_finite(outputs).flatten(1).double()
    return float((rows - rows.mean(0)).square().sum(1).mean().sqrt())


def total_variation(logits: Tensor, others: Tensor) -> float:
    """Mean of half the sum of ``|p - q|`` over the classes, probabilities by softmax."""
    p, q = logits.double().softmax(1), others.double().softmax(1)
    return float((p - q).abs().sum(1).mean() / 2)


# --- the verdict ----------------------------------------------------------------------------------


def beats_chance(accuracy: Interval, chance: float) -> bool:
    """Tell whether the accuracy is surely so far above the largest class that a loss would show."""
    return accuracy.low > chance + AGREEMENT


def judge(
    own: Tested, exact: Tested, chance: float | None, tolerance: float | None
) -> tuple[str, str]:
    """The verdict and its reason by the rule of `check_flow`."""
    bound = f"{100 * AGREEMENT:.0f} %"
    if own.nfe == 0 or exact.nfe == 0:
        return (
            CANNOT_TELL,
            f"{(exact if own.nfe else own).setting} failed (see the notes)",
        )
    if chance is None or own.accuracy is None:
        return _judge_difference(
            exact.changed, f"of the outputs move by more than {tolerance:.3g} under the exact flow"
        )
    if not beats_chance(own.accuracy, chance):
        return CANNOT_TELL, (
            f"the accuracy, {own.accuracy.percent()}, is not surely {bound} above the largest "
            f"class ({100 * chance:.1f} %), so a loss could not show; check end states, without y"
        )
    verdict, reason = _judge_difference(
        exact.drop, "of accuracy are lost under the exact flow, on the same samples"
    )
    if verdict == FLOW and exact.changed.low > AGREEMENT:
        return CANNOT_TELL, (
            f"the accuracy stays within {bound}, but the predicted class changes for "
            f"{exact.changed.percent()} of the samples"
        )
    return verdict, reason


def _judge_difference(difference, what):
    bound = f"{100 * AGREEMENT:.0f} %"
    found = f"{difference.percent()} {what}"
    if difference.beyond(AGREEMENT):
        return NOT_A_FLOW, f"{found}: more than {bound}"
    if difference.within(AGREEMENT):
        return FLOW, f"{found}: less than {bound}"
    return CANNOT_TELL, f"{found}: the interval holds {bound}; give more samples"


def are_finite(z: Tensor) -> Tensor:
    """Return the rows of z that are finite."""
    return z[z.flatten(1).isfinite().all(1)]
