"""Step adaption during training: pure functions from what was observed to the next step size.

No torch here: a controller sees one member's numbers and returns its next state. What the step is,
it does not know: the size of fixed steps as well as the tolerance of an adaptive solver.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True)
class Observation:
    """One check of one member: the same batch and weights under the training and the test solver.

    Accuracies in [0, 1]. The other numbers are there where the controller `reads` them.
    flips: share of samples whose predicted class differs, never below the accuracies' difference.
    closeness: how near the end states' difference comes to the classifier's boundary: mean over
    the samples of distance / margin, at most 1 each. stretch: rate of the strongest change of the
    field along the trajectories, L in h L.
    """

    train_accuracy: float
    test_accuracy: float
    flips: float | None = None
    closeness: float | None = None
    stretch: float | None = None

    @property
    def gap(self) -> float:
        """By how much the training solver's accuracy is the higher one."""
        return self.train_accuracy - self.test_accuracy


@dataclass(frozen=True)
class StepState:
    """The step h in use, whether the last check failed, and what a controller remembers.

    wish: the step it would choose if it could change it at no cost. checks: how many it has seen.
    bad: the shortest step at which a check failed.
    """

    step_size: float
    failed: bool = False
    wish: float | None = None
    checks: int = 0
    mean: float = 0.0
    bad: float = math.inf


@dataclass(frozen=True)
class Controller:
    """What all controllers share.

    test_solver: the better solver; None is the next one of smaller error (`solve.finer_solver`).
    every: iterations between checks. threshold: largest difference of accuracy that counts as
    agreement. Raises ValueError for constants that cannot work.
    """

    test_solver: str | None = None
    every: int = 50
    threshold: float = 0.1

    reads: ClassVar[tuple[str, ...]] = ()  # fields of Observation besides the accuracies
    tries_increases: ClassVar[bool] = False  # whether `confirm` wants to see a longer step first

    def __post_init__(self):
        if not (isinstance(self.every, int) and self.every >= 1):
            raise ValueError(f"every = {self.every!r}: give a whole number of iterations >= 1")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold = {self.threshold!r}: give a share in (0, 1)")

    def test_step(self, step_size: float) -> float:
        """The test solver's step where training takes step_size."""
        return step_size

    def disagrees(self, seen: Observation) -> bool:
        return abs(seen.gap) > self.threshold


def _within(step, bounds):
    return min(max(step, bounds[0]), bounds[1])


@dataclass(frozen=True)
class Algorithm1(Controller):
    """The paper's Algorithm 1: halve h where a better solver disagrees, else lengthen it a little.

    decrease, increase: factors on h.
    """

    decrease: float = 0.5
    increase: float = 1.1

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.decrease < 1 < self.increase:
            raise ValueError(
                f"decrease = {self.decrease!r}, increase = {self.increase!r}: "
                "give 0 < decrease < 1 < increase"
            )

    def update(self, state: StepState, seen: Observation, bounds=(0.0, 1.0)) -> StepState:
        """The state after a check; h stays within `bounds`."""
        # if |train_acc - test_acc| > 0.1: h <- 0.5 h, else h <- 1.1 h   (paper, Algorithm 1)
        failed = self.disagrees(seen)
        factor = self.decrease if failed else self.increase
        return StepState(_within(factor * state.step_size, bounds), failed)


@dataclass(frozen=True)
class ConfirmedIncrease(Algorithm1):
    """The rule of the paper's later version: a finer test, and no increase that disagrees at once.

    The test solver steps by min(h, sqrt(h / resolution)).
    """

    resolution: float = 50.0

    tries_increases: ClassVar[bool] = True

    def test_step(self, step_size: float) -> float:
        return min(step_size, math.sqrt(step_size / self.resolution))

    def confirm(self, state: StepState, longer: StepState, seen: Observation) -> StepState:
        """`longer` or `state`; `seen` holds the training solver's accuracy at the longer step."""
        return replace(state, failed=False) if self.disagrees(seen) else longer


@dataclass(frozen=True)
class Settling(Controller):
    """Integral control of a signal with a gain that falls, and a dead band around the step in use.

    The wish moves by error x gain each check, the gain falling as settle / checks; the step follows
    when the wish has left it by more than the factor `band`.
    """

    signal: str = "flips"
    target: float = 0.05
    gain: float = 0.2
    settle: float = 20.0
    band: float = 1.1
    most: float = 2.0  # of the error

    @property
    def reads(self):
        return () if self.signal == "gap" else (self.signal,)

    def update(self, state: StepState, seen: Observation, bounds=(0.0, 1.0)) -> StepState:
        checks = state.checks + 1
        error = min(getattr(seen, self.signal) / self.target - 1.0, self.most)
        gain = self.gain * min(1.0, self.settle / checks)
        wish = _within((state.wish or state.step_size) * math.exp(-gain * error), bounds)
        far = abs(math.log(wish / state.step_size)) > math.log(self.band)
        step = wish if far else state.step_size
        return StepState(step, self.disagrees(seen), wish, checks)


@dataclass(frozen=True)
class Remembering(Controller):
    """Hysteresis: averages the gap since its last change, and never returns to a step that failed.

    The step shrinks where one gap exceeds the threshold or the mean of at least `patience` gaps
    exceeds `alarm`; it grows where that mean is below `calm`, up to `keep` times the bad step.
    """

    decrease: float = 0.8
    increase: float = 1.1
    patience: int = 4
    calm: float = 0.02
    alarm: float = 0.05
    keep: float = 0.9

    def update(self, state: StepState, seen: Observation, bounds=(0.0, 1.0)) -> StepState:
        checks, h, bad = state.checks + 1, state.step_size, state.bad
        mean = (state.mean * state.checks + seen.gap) / checks
        sure, failed = checks >= self.patience, self.disagrees(seen)
        if failed or (sure and mean > self.alarm):
            bad, h = min(bad, h), self.decrease * h
        elif sure and mean < self.calm:
            h = max(h, min(self.increase * h, self.keep * bad))
        h = _within(h, bounds)
        if h != state.step_size:
            checks, mean = 0, 0.0
        return StepState(h, failed, checks=checks, mean=mean, bad=bad)


CONTROLLERS = {"algorithm1": Algorithm1()}


def get_controller(name: str) -> Controller:
    """The controller of that name. ValueError lists the names."""
    if name not in CONTROLLERS:
        raise ValueError(
            f"controller = {name!r} is unknown; choose one of {', '.join(CONTROLLERS)}"
        )
    return CONTROLLERS[name]
