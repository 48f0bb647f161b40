"""Explicit Runge-Kutta methods as data: a new solver is coefficients only."""

import math
from dataclasses import dataclass

from nodecore.ode.checks import check_choice

TOLERANCE = 1e-12  # of the consistency checks; the coefficients are float64


@dataclass(frozen=True)
class ButcherTableau:
    """An explicit Runge-Kutta method, checked for consistency when it is made.

    Attributes:
        name: Name in TABLEAUS, parameters and records.
        a: Rows of the strictly lower triangle: row i has i entries, the first is empty.
        b: Weights of the solution that is carried on.
        c: Nodes; each is the sum of its row of a.
        order: Order of the solution with weights b.
        b_embedded: Weights of an embedded method; b - b_embedded estimates the local error.
        embedded_order: Order of the solution with weights b_embedded.
        label: Name in text and figures, by default `name`.

    Raises:
        ValueError: A condition fails; the message names tableau, condition and value.
    """

    name: str
    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    c: tuple[float, ...]
    order: int
    b_embedded: tuple[float, ...] | None = None
    embedded_order: int | None = None
    label: str = ""

    def __post_init__(self):
        object.__setattr__(self, "label", self.label or self.name)
        stages = len(self.b)
        if not (len(self.a) == len(self.c) == stages):
            self._refuse(f"a has {len(self.a)} rows, b {stages} and c {len(self.c)} entries")
        for i, (row, ci) in enumerate(zip(self.a, self.c, strict=True)):
            if len(row) != i:
                self._refuse(f"row {i} of a has {len(row)} entries; an explicit method has {i}")
            if not math.isclose(sum(row), ci, abs_tol=TOLERANCE):
                self._refuse(f"row {i} of a sums to {sum(row)}, but c[{i}] = {ci}")
        self._check_weights("b", self.b)
        if self.b_embedded is not None:
            if self.embedded_order is None:
                self._refuse("b_embedded needs embedded_order")
            self._check_weights("b_embedded", self.b_embedded)

    def _check_weights(self, label, weights):
        if len(weights) != len(self.b):
            self._refuse(f"{label} has {len(weights)} entries for {len(self.b)} stages")
        if not math.isclose(sum(weights), 1.0, abs_tol=TOLERANCE):
            self._refuse(f"{label} sums to {sum(weights)} instead of 1")

    def _refuse(self, what):
        raise ValueError(f"ButcherTableau {self.name!r}: {what}; correct the coefficients")

    @property
    def b_error(self) -> tuple[float, ...] | None:
        """Weights of the local error estimate, b - b_embedded; None without an embedded method."""
        if self.b_embedded is None:
            return None
        return tuple(p - q for p, q in zip(self.b, self.b_embedded, strict=True))

    @property
    def first_same_as_last(self) -> bool:
        """True if the last stage is the first of the next step, so that it costs nothing."""
        return self.c[-1] == 1.0 and self.b[-1] == 0.0 and self.a[-1] == self.b[:-1]

    @property
    def n_solution_stages(self) -> int:
        """Number of stages that the solution needs; those after serve the error estimate alone."""
        return max(i for i, weight in enumerate(self.b) if weight != 0.0) + 1


# Coefficients: Hairer, Norsett, Wanner (1993), "Solving Ordinary Differential Equations I", unless
# another source is named.
EULER = ButcherTableau("euler", a=((),), b=(1.0,), c=(0.0,), order=1, label="Euler")
MIDPOINT = ButcherTableau("midpoint", a=((), (0.5,)), b=(0.0, 1.0), c=(0.0, 0.5), order=2)
HEUN = ButcherTableau("heun", a=((), (1.0,)), b=(0.5, 0.5), c=(0.0, 1.0), order=2)
RK4 = ButcherTableau(
    "rk4",
    a=((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)),
    b=(1 / 6, 1 / 3, 1 / 3, 1 / 6),
    c=(0.0, 1 / 2, 1 / 2, 1.0),
    order=4,
)
RK4_38 = ButcherTableau(  # the 3/8 rule, which torchdiffeq calls "rk4"
    "rk4_38",
    a=((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
    c=(0.0, 1 / 3, 2 / 3, 1.0),
    order=4,
)
BOSH3 = ButcherTableau(  # Bogacki, Shampine (1989), Appl. Math. Lett. 2(4), 321-325
    "bosh3",
    a=((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    b=(2 / 9, 1 / 3, 4 / 9, 0.0),
    c=(0.0, 1 / 2, 3 / 4, 1.0),
    order=3,
    b_embedded=(7 / 24, 1 / 4, 1 / 3, 1 / 8),
    embedded_order=2,
    label="Bogacki–Shampine 3(2)",
)
FEHLBERG21 = ButcherTableau(  # Fehlberg (1969), NASA TR R-315; the second-order solution goes on
    "fehlberg21",
    a=((), (1 / 2,), (1 / 256, 255 / 256)),
    b=(1 / 512, 255 / 256, 1 / 512),
    c=(0.0, 1 / 2, 1.0),
    order=2,
    b_embedded=(1 / 256, 255 / 256, 0.0),
    embedded_order=1,
    label="Fehlberg 2(1)",
)
DOPRI5 = ButcherTableau(  # Dormand, Prince (1980); Hairer et al. p. 178
    "dopri5",
    a=(
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    b=(35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0),
    c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    order=5,
    b_embedded=(5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40),
    embedded_order=4,
    label="Dopri 5(4)",
)

TABLEAUS = {
    tableau.name: tableau
    for tableau in (EULER, MIDPOINT, HEUN, RK4, RK4_38, BOSH3, FEHLBERG21, DOPRI5)
}


def get_tableau(solver: str | ButcherTableau, argument: str = "solver") -> ButcherTableau:
    """Return the tableau of that name; a tableau is returned as it is.

    Raises:
        ValueError: The name is unknown; the message names the argument and lists the known ones.
    """
    if isinstance(solver, ButcherTableau):
        return solver
    return TABLEAUS[check_choice(argument, solver, TABLEAUS)]


def next_better(solver: str | ButcherTableau) -> str | None:
    """Return the name of the solver that has a smaller error at the same step.

    It is the first one in TABLEAUS of the next higher order, among the methods for fixed steps or,
    where none of these is higher, among all. None where no order is higher.
    """
    higher = [t for t in TABLEAUS.values() if t.order > get_tableau(solver).order]
    fixed = [t for t in higher if t.b_embedded is None]
    best = min(fixed or higher, key=lambda tableau: tableau.order, default=None)
    return None if best is None else best.name


def better_solver(solver: str | ButcherTableau) -> str:
    """Return next_better of a solver; raise ValueError where there is none."""
    better = next_better(solver)
    if better is None:
        tableau = get_tableau(solver)
        raise ValueError(
            f"solver = {tableau.name!r}: no solver here is of higher order than {tableau.order}; "
            "use another one"
        )
    return better


def check_better(solver: str | ButcherTableau, test_solver: str | ButcherTableau) -> None:
    """Raise ValueError unless test_solver is of higher order than solver: of smaller error."""
    tableau, better = get_tableau(solver), get_tableau(test_solver)
    if better.order <= tableau.order:
        raise ValueError(
            f"test_solver = {better.name!r} (order {better.order}) is not better than the training "
            f"solver {tableau.name!r} (order {tableau.order}); use {better_solver(tableau)}"
        )
