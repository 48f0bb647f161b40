"""Step adaption during training: pure functions from what was observed to the next step size.

No torch here: a controller sees one member's numbers and returns its next state. What the step is,
it does not know: the size of fixed steps as well as the tolerance of an adaptive solver.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

from nodecore.ode.checks import check_choice
from nodecore.ode.tableaus import better_solver, get_tableau


@dataclass(frozen=True)
class Observation:
    """One check of one member: the same batch and weights under the training and the test solver.

    Accuracies in [0, 1]. flips: share of samples whose predicted class differs, there where the
    controller `reads` it; unlike accuracies they cannot cancel.
    """

    train_accuracy: float
    test_accuracy: float
    flips: float | None = None

    @property
    def gap(self) -> float:
        """Training solver's accuracy minus the test solver's."""
        return self.train_accuracy - self.test_accuracy

    @property
    def discord(self) -> float:
        """The gap, or a quarter of the flips: they tell of trouble before it costs accuracy."""
        if self.flips is None:
            raise ValueError("flips = None: a controller that holds discord low reads them")
        return max(self.gap, self.flips / 4)


Bounds = tuple[float, float]  # of a step: the shortest and the longest
SIGNALS = ("gap", "discord", "flips")  # what may be held low


@dataclass(frozen=True)
class StepState:
    """The step h in use, whether the last check failed, and what a controller remembers.

    wish: the step it would take if changes were free. checks, mean: how many it has seen since it
    last began anew, and the signal's mean. bad: the shortest step that was too long. error: the
    last check's, relative to a target.
    """

    step_size: float
    failed: bool = False
    wish: float | None = None
    checks: int = 0
    mean: float = 0.0
    bad: float = math.inf
    error: float = 0.0


def _constant(default: float, wanted: str, allows: Callable[[float], bool]) -> Any:
    """Describe a controller's constant: its default, and which values can work."""
    return field(default=default, metadata={"wanted": wanted, "allows": allows})


def _above(bound, default):
    return _constant(default, f"number > {bound}", lambda value: value > bound)


def _at_least_one(what, default):
    return _constant(default, f"{what} >= 1", lambda value: value >= 1)


def _share(default):
    return _constant(default, "share in (0, 1]", lambda value: 0 < value <= 1)


@dataclass(frozen=True)
class Controller:
    """Base of all controllers.

    test_solver: the better solver; None is the next of smaller error (`tableaus.better_solver`).
    every: iterations between checks. threshold: largest difference of accuracy that counts as
    agreement. Raises ValueError for constants that cannot work.
    """

    test_solver: str | None = None
    every: int = _constant(
        50, "whole number of iterations >= 1", lambda n: isinstance(n, int) and n >= 1
    )
    threshold: float = _constant(0.1, "share in (0, 1)", lambda share: 0 < share < 1)

    reads: ClassVar[tuple[str, ...]] = ()  # fields of Observation besides the accuracies
    tries_increases: ClassVar[bool] = False  # whether `confirm` wants to see a longer step first

    def __post_init__(self):
        if self.test_solver is not None:
            get_tableau(self.test_solver, "test_solver")
        for constant in (each for each in fields(self) if each.metadata):
            value, allows = getattr(self, constant.name), constant.metadata["allows"]
            if not (isinstance(value, int | float) and allows(value)):
                wanted = constant.metadata["wanted"]
                raise ValueError(f"{constant.name} = {value!r}: give a {wanted}")

    @property
    def constants(self) -> dict[str, Any]:
        """Its constants by name."""
        return asdict(self)

    def better_solver(self, solver: str) -> str:
        """The solver of its checks where `solver` trains."""
        return self.test_solver or better_solver(solver)

    def test_step(self, step_size: float) -> float:
        """The test solver's step where training takes step_size."""
        return step_size

    def update(self, state: StepState, seen: Observation, bounds: Bounds = (0.0, 1.0)) -> StepState:
        """The state after a check; the step stays within `bounds`, (0, T) for steps in time.

        An observation with a NaN says nothing: the check has failed, and the step stays. Raises
        ValueError for a step that is longer than the longest of `bounds`.
        """
        if state.step_size > bounds[1]:
            raise ValueError(
                f"step_size = {state.step_size!r} is longer than bounds[1] = {bounds[1]!r}: give "
                "bounds=(0, T) with the training's time T"
            )
        numbers = [getattr(seen, name) for name in ("train_accuracy", "test_accuracy", *self.reads)]
        if any(number is not None and math.isnan(number) for number in numbers):
            return replace(state, failed=True)
        return self.next_state(state, seen, bounds)

    def next_state(self, state: StepState, seen: Observation, bounds: Bounds) -> StepState:
        """What `update` returns after a check that says something."""
        raise NotImplementedError

    def disagrees(self, seen: Observation) -> bool:
        """Tell whether the accuracies differ by more than the threshold."""
        return abs(seen.gap) > self.threshold


def _within(step, bounds):
    return min(max(step, bounds[0]), bounds[1])


def _check_factors(decrease, increase):
    if not 0 < decrease < 1 < increase:
        raise ValueError(
            f"decrease = {decrease!r}, increase = {increase!r}: give 0 < decrease < 1 < increase"
        )


@dataclass(frozen=True)
class Algorithm1(Controller):
    """The paper's Algorithm 1: halve h where a better solver disagrees, else lengthen it a little.

    decrease, increase: factors on h.
    """

    decrease: float = 0.5
    increase: float = 1.1

    def __post_init__(self):
        super().__post_init__()
        _check_factors(self.decrease, self.increase)

    def next_state(self, state: StepState, seen: Observation, bounds: Bounds) -> StepState:
        # if |train_acc - test_acc| > 0.1: h <- 0.5 h, else h <- 1.1 h   (paper, Algorithm 1)
        failed = self.disagrees(seen)
        factor = self.decrease if failed else self.increase
        return StepState(_within(factor * state.step_size, bounds), failed)


@dataclass(frozen=True)
class ConfirmedIncrease(Algorithm1):
    """The rule of the paper's later version: a finer test, and no increase that disagrees at once.

    The test solver steps by min(h, sqrt(h / resolution)).
    """

    resolution: float = _at_least_one("number of steps", 50.0)

    tries_increases: ClassVar[bool] = True

    def test_step(self, step_size: float) -> float:
        return min(step_size, math.sqrt(step_size / self.resolution))

    def confirm(self, state: StepState, longer: StepState, seen: Observation) -> StepState:
        """`longer` or `state`; `seen` holds the training solver's accuracy at the longer step."""
        return replace(state, failed=False) if self.disagrees(seen) else longer


@dataclass(frozen=True)
class Calm(Controller):
    """Base of our own controllers; signal: what they keep low, one of SIGNALS."""

    signal: str = "discord"

    def __post_init__(self):
        super().__post_init__()
        check_choice("signal", self.signal, SIGNALS)

    @property
    def reads(self) -> tuple[str, ...]:
        return () if self.signal == "gap" else ("flips",)


@dataclass(frozen=True)
class Settling(Calm):
    """Holds the signal at its target by integral control with a falling gain.

    A wish moves against the relative error, at most `most`, of each check; longer steps come with
    the part `hesitation` of the gain. The gain falls as settle / checks, and begins anew where the
    signal's running mean over `window` checks exceeds `restart` targets. The step follows once the
    wish has left it by more than the factor `band`.
    """

    target: float = _above(0, 0.035)
    gain: float = _above(0, 0.2)
    settle: float = _above(0, 8.0)
    most: float = _above(0, 2.0)
    hesitation: float = _above(0, 0.5)
    window: float = _at_least_one("number of checks", 10.0)
    restart: float = _above(1, 2.0)
    band: float = _above(1, 1.05)

    def next_state(self, state: StepState, seen: Observation, bounds: Bounds) -> StepState:
        value = getattr(seen, self.signal) / self.target
        mean = state.mean + (value - state.mean) / self.window
        checks = 0 if mean > self.restart else state.checks + 1
        error = min(value - 1.0, self.most)
        # log wish <- log wish - gain min(1, settle / checks) error, error = signal / target - 1
        gain = self.gain * min(1.0, self.settle / max(checks, 1))
        gain *= self.hesitation if error < 0 else 1.0
        factor = math.exp(-gain * error)
        wish = _within(factor * (state.wish or state.step_size), bounds)
        far = abs(math.log(wish / state.step_size)) > math.log(self.band)
        step = wish if far else state.step_size
        return StepState(step, self.disagrees(seen), wish, checks, mean)


@dataclass(frozen=True)
class Remembering(Calm):
    """Hysteresis: averages the signal since its last change, and remembers what was too long.

    The step shrinks by `decrease` where a check fails, by `ease` where the mean of at least
    `patience` checks exceeds `alarm`. It grows where that mean is below `calm`, but never beyond
    `keep` times the shortest step that had to shrink.
    """

    decrease: float = 0.9
    ease: float = _share(0.95)
    increase: float = 1.1
    patience: int = _at_least_one("number of checks", 6)
    calm: float = 0.01
    alarm: float = 0.04
    keep: float = _share(0.9)

    def __post_init__(self):
        super().__post_init__()
        _check_factors(self.decrease, self.increase)
        if not 0 <= self.calm < self.alarm:
            raise ValueError(
                f"calm = {self.calm!r}, alarm = {self.alarm!r}: give 0 <= calm < alarm"
            )

    def next_state(self, state: StepState, seen: Observation, bounds: Bounds) -> StepState:
        checks, h, bad = state.checks + 1, state.step_size, state.bad
        mean = state.mean + (getattr(seen, self.signal) - state.mean) / checks
        sure, failed = checks >= self.patience, self.disagrees(seen)
        if failed or (sure and mean > self.alarm):
            bad, h = min(bad, h), h * (self.decrease if failed else self.ease)
        elif sure and mean < self.calm:
            h = max(h, min(self.increase * h, self.keep * bad))
        h = _within(h, bounds)
        if h != state.step_size:  # what was seen belongs to the step before
            checks, mean = 0, 0.0
        return StepState(h, failed, checks=checks, mean=mean, bad=bad)


@dataclass(frozen=True)
class ProportionalIntegral(Calm):
    """Steers log h by the signal's relative error and its change, in PI form.

    Errors count as at most `most`. Gustafsson, Lundh, Soederlind 1988 (BIT 28, p. 270) choose an
    adaptive solver's steps so.
    """

    signal: str = "flips"
    target: float = _above(0, 0.05)
    integral: float = _above(0, 0.02)
    proportional: float = _constant(0.04, "number >= 0", lambda value: value >= 0)
    most: float = _above(0, 2.0)

    def next_state(self, state: StepState, seen: Observation, bounds: Bounds) -> StepState:
        # log h <- log h - k_I e_n - k_P (e_n - e_(n-1)),  e = signal / target - 1
        error = min(getattr(seen, self.signal) / self.target - 1, self.most)
        change = error - state.error if state.checks else 0.0
        factor = math.exp(-self.integral * error - self.proportional * change)
        step = _within(factor * state.step_size, bounds)
        return StepState(step, self.disagrees(seen), checks=state.checks + 1, error=error)


@dataclass(frozen=True)
class Retired(Controller):
    """A rule that did worse than others and is no longer here. Its records are, and name the
    revision that trained them; `given` holds the constants that they depend on.
    """

    name: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)

    @property
    def constants(self) -> dict[str, Any]:
        return dict(self.given)


CONTROLLERS = {
    "algorithm1": Algorithm1(),
    "confirmed-increase": ConfirmedIncrease(),
    "settling-discord": Settling(),
    "remembering-discord": Remembering(),
    "pi-finer": ProportionalIntegral(target=0.025),
}
VARIATIONS = {  # of the paper's constants, one at a time
    f"algorithm1-{name}-{value:g}": Algorithm1(**{name: value})
    for name, values in {
        "every": (25, 100),
        "threshold": (0.05, 0.2),
        "decrease": (0.25, 0.7),
        "increase": (1.05, 1.2),
    }.items()
    for value in values
}
_SETTLING, _REMEMBERING = asdict(Settling()), asdict(Remembering())
_SEES_NOTHING = {"most_steps": 48, "fewest_steps": 18, "increase": 1.1}
RETIRED = {
    name: Retired(name=name, given=constants)
    for name, constants in {
        "settling-gap": _SETTLING | {"signal": "gap"},
        "settling-closeness": _SETTLING | {"signal": "closeness", "target": 0.55},
        "settling-bend": _SETTLING | {"signal": "bend", "target": 0.45},
        "remembering-gap": _REMEMBERING | {"signal": "gap"},
        "pi": asdict(ProportionalIntegral()),  # compared with the same solver at half the step
        "sawtooth": asdict(Controller()) | _SEES_NOTHING,
    }.items()
}
ALL_CONTROLLERS = CONTROLLERS | VARIATIONS | RETIRED
AUTO = "remembering-discord"  # what "auto" means


def controller_name(name: str) -> str:
    """The name of a controller, also of a retired one; "auto" is the one that did best. ValueError
    lists the names."""
    name = AUTO if name == "auto" else name
    if name not in ALL_CONTROLLERS:
        raise ValueError(
            f"controller = {name!r} is unknown; choose one of auto, {', '.join(CONTROLLERS)}, "
            f"or a variation, {', '.join(VARIATIONS)}"
        )
    return name


def check_in_use(rule: Controller) -> Controller:
    """The controller itself. Raises ValueError for a retired one."""
    if isinstance(rule, Retired):
        raise ValueError(
            f"controller = {rule.name!r} is retired: its records remain, and name the revision "
            f"that trained them; choose one of auto, {', '.join(CONTROLLERS)}"
        )
    return rule


def get_controller(name: str) -> Controller:
    """The controller of that name, or of "auto". ValueError lists the names."""
    return check_in_use(ALL_CONTROLLERS[controller_name(name)])
