"""States within the steps of an embedded method, as torchdiffeq interpolates them."""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from nodecore.ode.runge_kutta import weighted_sum
from nodecore.ode.tableaus import DOPRI5, ButcherTableau, get_tableau

# Weights of the state half way through a step. dopri5: Shampine (1986), Math. Comp. 46, 135-150.
HALF_WAY = {
    "dopri5": (
        *(6025192743 / 60171106304, 0.0, 51252292925 / 130801643196, -2691868925 / 90256659456),
        *(187940372067 / 3189068634112, -1776094331 / 39487288512, 11237099 / 470086768),
    ),
    "bosh3": (0.0, 0.5, 0.0, 0.0),
    "fehlberg21": (0.0, 0.5, 0.0),
}
# Shampine's companion of fourth order: its error estimate is two thirds of Dormand and Prince's.
SHAMPINE = replace(
    DOPRI5,
    b_embedded=(
        *(1951 / 21600, 0.0, 22642 / 50085, 451 / 720),
        *(-12231 / 42400, 649 / 6300, 1 / 60),
    ),
)


def of_torchdiffeq(solver: str) -> ButcherTableau:
    """Return the embedded method that torchdiffeq has under a name."""
    return SHAMPINE if solver == "dopri5" else get_tableau(solver)


class Dense:
    """Takes the states at given times from a walk whose steps do not end there.

    They lie on the quartic through both ends of a step with their slopes, and the state half way.

    Attributes:
        times: Ascending, from the start of the walk to its end.
        states: Those of the times that the walk has passed, each in the shape of its state.
    """

    def __init__(self, times: Sequence[float]):
        self.times = tuple(times)
        self.states: list[Tensor] = []

    def take(
        self,
        tableau: ButcherTableau,
        t: float,
        h: float,
        ends: tuple[Tensor, Tensor],
        stages: Sequence[Tensor],
        is_last: bool,
    ) -> None:
        """Take the states at the times up to t + h, all if it is the last, from a step."""
        left = self.times[len(self.states) :]
        passed = [time for time in left if is_last or time - t <= h]
        if not passed:
            return
        z, z_new = ends
        rise, start, end = z_new - z, h * stages[0], h * stages[-1]
        weights = HALF_WAY.get(tableau.name)  # without them the quartic is Hermite's cubic
        bulge = h * weighted_sum(weights, stages) if weights else rise / 2 + (start - end) / 8
        # p(0) = z, p'(0) = start, p(1) = z_new, p'(1) = end, p(1/2) = z + bulge.
        square = end - 4 * start - 5 * rise + 16 * bulge
        cube = 5 * start - 3 * end + 14 * rise - 32 * bulge
        fourth = 2 * (end - start) - 8 * rise + 16 * bulge
        for time in passed:
            x = (time - t) / h
            self.states.append(z + x * (start + x * (square + x * (cube + x * fourth))))
