"""Step adaption during training: pure functions from what was observed to the next step size.

No torch here: a controller sees one member's numbers and returns its next state.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Observation:
    """One check of one member: accuracies of the same batch, in [0, 1], at the same step size."""

    train_accuracy: float  # under the training solver
    test_accuracy: float  # under the test solver, of smaller error


@dataclass(frozen=True)
class StepState:
    """The step size h in use and whether the last check failed."""

    step_size: float
    failed: bool = False


@dataclass(frozen=True)
class Algorithm1:
    """The paper's Algorithm 1: halve h where a better solver disagrees, else lengthen it a little.

    test_solver: the better solver. every: iterations between checks. threshold: largest difference
    of accuracy that counts as agreement. decrease, increase: factors on h.
    Raises ValueError for constants that cannot work.
    """

    test_solver: str = "midpoint"
    every: int = 50
    threshold: float = 0.1
    decrease: float = 0.5
    increase: float = 1.1

    name = "algorithm1"
    State = StepState  # what it keeps of a member

    def __post_init__(self):
        if not (isinstance(self.every, int) and self.every >= 1):
            raise ValueError(f"every = {self.every!r}: give a whole number of iterations >= 1")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold = {self.threshold!r}: give a share in (0, 1)")
        if not 0 < self.decrease < 1 < self.increase:
            raise ValueError(
                f"decrease = {self.decrease!r}, increase = {self.increase!r}: "
                "give 0 < decrease < 1 < increase"
            )

    def update(self, state: StepState, seen: Observation, longest: float = 1.0) -> StepState:
        """The state after a check; h never exceeds `longest`, the span of time T."""
        # if |train_acc - test_acc| > 0.1: h <- 0.5 h, else h <- 1.1 h   (paper, Algorithm 1)
        failed = abs(seen.train_accuracy - seen.test_accuracy) > self.threshold
        factor = self.decrease if failed else self.increase
        return StepState(min(factor * state.step_size, longest), failed)


CONTROLLERS = {Algorithm1.name: Algorithm1}


def get_controller(name: str):
    """The controller of that name with its own constants. ValueError lists the names."""
    if name not in CONTROLLERS:
        raise ValueError(
            f"controller = {name!r} is unknown; choose one of {', '.join(CONTROLLERS)}"
        )
    return CONTROLLERS[name]()
