"""Decide a verdict: what is another answer, and when the numbers allow a verdict."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nodecore.analysis.evaluate import AGREEMENT
from nodecore.analysis.intervals import Z95, Interval, paired_difference, share_interval
from nodecore.check.scale import Scale, farthest
from nodecore.check.solves import Solved
from nodecore.ode.steps import Steps

FLOW, NOT_A_FLOW, CANNOT_TELL = "flow", "not a flow", "cannot tell"
SPREAD_SHARE = 0.1  # of the outputs' scale: the default tolerance

Loss = Callable[[Tensor, Tensor], Tensor]  # of outputs (m, ...) and rows (m,) -> (m,)


def least_samples(bound: float) -> int:
    """Return how many samples can show that at most a share of them changes, if none does.

    The upper end of Wilson's interval of no sample in n is z^2 / (n + z^2).
    """
    return math.ceil(Z95**2 * (1 - bound) / bound)


@dataclass(frozen=True)
class Tested:
    """The model under one setting, against the training solver on the same samples.

    Attributes:
        setting: Solver and how it chooses its steps.
        n: Number of samples.
        changed: Share of samples with another answer than under the training solver: another class,
            or an output farther away than the tolerance.
        accuracy: Share of samples that are right; None without labels.
        drop: Accuracy under the training solver less this one; None without labels.
        nfe: Evaluations of the field in one solve.
        unsettled: Samples whose answer is not known under either. Intervals reach from all of these
            being alike to all of them being changed; values are of the others.
    """

    setting: Steps
    n: int
    changed: Interval
    accuracy: Interval | None
    drop: Interval | None
    nfe: int
    unsettled: int = 0


@dataclass(frozen=True)
class Rule:
    """What counts as another answer.

    With labels y (n,), it is another class; with a `loss`, a loss that differs by more than
    `tolerance`. Otherwise it is an output that moves by more than `tolerance`, in its units (any
    one, if each output has its own), or without a tolerance by more than SPREAD_SHARE of its scale.
    For trajectories, a change at any of the `times` counts.
    """

    y: Tensor | None
    tolerance: float | Tensor | None
    scale: Scale | None = None
    times: int = 1
    loss: Loss | None = None

    def changed(self, outputs: Tensor, others: Tensor, index: Tensor) -> Tensor:
        """Tell which outputs (m, ...) of samples `index` are another answer than others of them."""
        if self.y is not None:
            return outputs.argmax(1) != others.argmax(1)
        if self.tolerance is None:
            assert self.scale is not None
            return self.scale.distance(outputs, others) > SPREAD_SHARE
        if self.loss is not None:
            return (self.loss(outputs, index) - self.loss(others, index)).abs() > self.tolerance
        if isinstance(self.tolerance, Tensor):
            return ((outputs - others).abs() > self.tolerance).reshape(len(outputs), -1).any(1)
        return farthest(outputs - others, self.times) > self.tolerance

    def judged(self, outputs: Tensor, index: Tensor) -> Tensor:
        """Tell which outputs (m, ...) of samples `index` are an answer: a loss may be NaN."""
        if self.loss is None:
            return torch.ones(len(outputs), dtype=torch.bool, device=outputs.device)
        return self.loss(outputs, index).isfinite()

    def tested(self, setting: Steps, found: Solved, own: Solved, sure: Tensor) -> Tested:
        """Compare a setting's samples with the training solver's.

        Args:
            setting: The setting.
            found: Samples under it.
            own: All samples under the training solver.
            sure: Samples whose answers are known under what is compared, (n,) bool.
        """
        index = found.index
        outputs, others, own_known = found.outputs, own.outputs[index], own.known[index]
        known = found.known & sure[index]
        known &= self.judged(outputs, index) & self.judged(others, index)
        changed = bounded_share(self.changed(outputs, others, index) & known, ~known)
        unsettled = int((~known).sum())
        if self.y is None:
            return Tested(setting, len(index), changed, None, None, found.nfe, unsettled)
        y = self.y[index]
        right, before = (outputs.argmax(1) == y) & found.known, others.argmax(1) == y
        accuracy = bounded_share(right & known, ~known)
        drop = bounded_drop(before, right, known, own_known)
        return Tested(setting, len(index), changed, accuracy, drop, found.nfe, unsettled)


# --- shares of samples, some of which are not known -----------------------------------------------


def bounded_share(mask: Tensor, unknown: Tensor) -> Interval:
    """Return the share of samples (n,) with `mask`, whichever way those that are unknown fall."""
    n, sure, n_open = len(mask), int(mask.sum()), int(unknown.sum())
    low, high = share_interval(sure, n).low, share_interval(sure + n_open, n).high
    return Interval(sure / max(1, n - n_open), low, high)


def bounded_drop(before: Tensor, right: Tensor, known: Tensor, own_known: Tensor) -> Interval:
    """Return the share right before less the share right, of the same samples (n,), likewise.

    One that is not known before, either, could be lost as well as won.
    """
    n, masks = len(known), (before & ~right & known, ~before & right & known)
    lost, won = (int(mask.sum()) for mask in masks)
    could_lose, could_win = (
        int(((mask | ~own_known) & ~known).sum()) for mask in (before, ~before)
    )
    low = paired_difference(lost, won + could_win, n).low
    high = paired_difference(lost + could_lose, won, n).high
    return Interval((lost - won) / max(1, int(known.sum())), low, high)


# --- the verdict ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Terms:
    """What a verdict is judged by, besides the numbers.

    Attributes:
        bound: Largest difference of accuracies, or share of changed answers, of a flow.
        chance: Share of the largest class; None without labels.
        changes: What of an output has to happen to count, in words.
    """

    bound: float
    chance: float | None
    changes: str

    def __str__(self) -> str:
        return f"{100 * self.bound:.3g} %"


def beats_chance(own: Tested, terms: Terms) -> bool:
    """Tell whether a loss of accuracy would show: it is surely above the largest class's share."""
    if own.accuracy is None or terms.chance is None:
        return False
    return own.accuracy.low > terms.chance + terms.bound


def judge(own: Tested, exact: Tested, terms: Terms) -> tuple[str, str]:
    """Return the verdict and its reason, by the rule of `check_flow`."""
    bound, least = str(terms), least_samples(terms.bound)
    if exact.n < least:
        n_changed = round(exact.changed.value * (exact.n - exact.unsettled))
        return CANNOT_TELL, (
            f"{exact.n} samples are too few: at least {least} are needed to tell a share of "
            f"{bound} from none; here {n_changed} answers change (for a single trajectory, pass "
            "its states as starts of shorter ones)"
        )
    if exact.unsettled == exact.n:
        return CANNOT_TELL, (
            f"for none of the {exact.n:,} samples do both the training solver and the exact flow "
            "give a reliable end state: a solve failed or did not converge (see the notes)"
        )
    if terms.chance is None:
        found = f"{exact.changed.percent()} of the {terms.changes} under the exact flow"
        return _judge_difference(exact.changed, found, bound, exact, terms)
    if not beats_chance(own, terms):
        assert own.accuracy is not None
        return CANNOT_TELL, (
            f"the accuracy, {own.accuracy.percent()}, does not clearly exceed the share of the "
            f"largest class, {100 * terms.chance:.1f} %, by {bound}, so a loss could not show; to "
            "compare the outputs instead, leave out y"
        )
    assert exact.drop is not None
    (value, low, high), what = exact.drop, "lost"
    if value < 0:
        value, low, high, what = -value, -high, -low, "gained"
    difference, points = Interval(value, low, high), f"{100 * terms.bound:g} points"
    found = (
        f"{difference.points()} of accuracy are {what} under the exact flow, on the same samples"
    )
    verdict, reason = _judge_difference(difference, found, points, exact, terms)
    if verdict == FLOW and exact.changed.low > terms.bound:
        return CANNOT_TELL, (
            f"the accuracy stays within {bound}, but the predicted class changes for "
            f"{exact.changed.percent()} of the samples"
        )
    return verdict, reason


def _judge_difference(
    difference: Interval, found: str, bound: str, exact: Tested, terms: Terms
) -> tuple[str, str]:
    """Return the verdict on a difference, and why; found and bound tell it and its bound."""
    if difference.beyond(terms.bound):
        return NOT_A_FLOW, f"{found}: more than {bound}"
    if difference.within(terms.bound):
        return FLOW, f"{found}: less than {bound}"
    if exact.unsettled > 0.02 * exact.n:
        return CANNOT_TELL, (
            f"{found}: the interval contains {bound}, because the answer is unknown for "
            f"{exact.unsettled:,} of {exact.n:,} samples (see the notes)"
        )
    return CANNOT_TELL, f"{found}: the interval contains {bound}; give more samples"


@dataclass(frozen=True)
class Sensitivity:
    """The verdict for bounds other than the one that it was judged by.

    It is "not a flow" for bounds from `least` to `not_below`, "flow" for bounds from `flow_above`
    to `most`, and "cannot tell" for all others: so many samples cannot judge a bound below `least`,
    and a loss as large as a bound above `most` could not show.
    """

    least: float
    not_below: float
    flow_above: float
    most: float

    def __str__(self) -> str:
        ranges = {
            "not a flow": (self.least, self.not_below),
            "a flow": (self.flow_above, self.most),
        }
        texts = (
            f"{verdict} for bounds from {100 * low:.1f} to {100 * high:.1f} %"
            for verdict, (low, high) in ranges.items()
            if high - low > 5e-4
        )
        return ", ".join(texts) or "cannot tell for any bound"


def sensitivity(own: Tested, exact: Tested, terms: Terms) -> Sensitivity | None:
    """Return the sensitivity of a verdict; None where none can be judged."""
    if exact.n < least_samples(terms.bound) or exact.unsettled == exact.n:
        return None
    if terms.chance is not None and not beats_chance(own, terms):
        return None
    judged = exact.changed if exact.drop is None else exact.drop
    beyond, within = max(judged.low, -judged.high), max(abs(judged.low), abs(judged.high))
    least, most = share_interval(0, exact.n).high, 1.0
    if own.accuracy is not None and terms.chance is not None:
        # With labels, a flow keeps its classes, too; see `judge` and `beats_chance`.
        within, most = max(within, exact.changed.low), own.accuracy.low - terms.chance
    return Sensitivity(least, min(max(0.0, beyond), most), max(within, least), most)


def above_chance(own: Tested, exact: Tested, terms: Terms) -> Interval | None:
    """Return the drop as a share of the accuracy above the largest class's share.

    The verdict's bound is absolute, so it is easy for a model that is little better than chance; a
    tenth of what is above chance is as hard for all. The interval holds those of both numbers.
    None where no loss could show.
    """
    if own.accuracy is None or exact.drop is None or not beats_chance(own, terms):
        return None
    value, low, high = (accuracy - (terms.chance or 0.0) for accuracy in own.accuracy)
    drop = exact.drop
    return Interval(
        drop.value / value,
        drop.low / (high if drop.low > 0 else low),
        drop.high / (low if drop.high > 0 else high),
    )


# --- beside the verdict ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Recall:
    """Of a class with n samples, the share that is right under training solver and exact flow.

    drop: the first share less the second.
    """

    label: int
    n: int
    own: float
    exact: float
    drop: Interval

    def __str__(self) -> str:
        name = f"class {self.label} ({self.n:,} samples)"
        own, exact = f"{100 * self.own:.0f} %", f"{100 * self.exact:.0f} %"
        return f"{name}: {own} are right under the training solver, {exact} under the exact flow"


def recalls(y: Tensor, own: Tensor, exact: Tensor, known: Tensor) -> tuple[Recall, ...]:
    """Return the recall of each class among samples (n,) that are known, from their outputs."""
    found = []
    for label in y.unique().tolist():
        rows = (y == label) & known
        if n := int(rows.sum()):
            before, after = (v[rows].argmax(1) == label for v in (own, exact))
            lost, won = int((before & ~after).sum()), int((after & ~before).sum())
            drop = paired_difference(lost, won, n)
            found.append(Recall(label, n, int(before.sum()) / n, int(after.sum()) / n, drop))
    return tuple(found)


def lost_recalls(found: tuple[Recall, ...]) -> list[Recall]:
    """Return the classes that surely lose more of their recall than AGREEMENT, the worst first."""
    lost = [recall for recall in found if recall.drop.low > AGREEMENT]
    return sorted(lost, key=lambda recall: -recall.drop.value)
