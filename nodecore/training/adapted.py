"""Steps that a controller adapts in the course of a training, and where their adaption begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nodecore.ode.checks import check_choice, check_positive
from nodecore.ode.steps import Setting, Steps, Tolerance, choose_steps
from nodecore.ode.tableaus import check_better, get_tableau
from nodecore.training.controllers import ALL_CONTROLLERS, Controller, controller_name

RTOL_BOUNDS = 1e-5, 10.0  # of tolerances that a controller may choose
# Starting here, the model is a flow before coarser tolerances are tried.
FIRST_RTOL = RTOL_BOUNDS[0]

# Norms in which the first step is chosen, with the tolerances that scale them. The paper does not
# specify them. As elsewhere here rtol = atol, at the usual default of 1e-3; 100 times that begins
# with a tenth of the steps.
STARTS = {"euclidean": {}, "hairer": {"rtol": 1e-3, "atol": 1e-3}}
USUAL_START = "euclidean"


@dataclass(frozen=True)
class Adapted(Steps):
    """Steps whose size, or an embedded method's tolerance, a controller adapts for each member.

    controller: a Controller, or its name, such as "auto" or "algorithm1". start: where the adaption
    of steps begins, one of STARTS, by default USUAL_START: "euclidean", in Euclidean norms of the
    states, averaged over the batch, which grow with the number of dimensions and know no tolerance;
    or "hairer", in the root mean square of Hairer, Norsett and Wanner (1993, p. 169), each entry
    over atol + rtol abs(z0), with the tolerances in STARTS. first_rtol: where the adaption of a
    tolerance begins, by default FIRST_RTOL. Raises ValueError.
    """

    solver: str
    controller: str | Controller
    start: str | None = None
    first_rtol: float | None = None

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.controller, Controller):
            object.__setattr__(self, "controller", controller_name(self.controller))
        if get_tableau(self.solver).b_embedded is None:
            self._begin_with_a_step()
        else:
            self._begin_with_a_tolerance()

    def _begin_with_a_step(self):
        if self.first_rtol is not None:
            raise ValueError(
                f"first_rtol = {self.first_rtol!r}: it is where the adaption of a tolerance "
                "begins; give it with an embedded method, or leave it out"
            )
        object.__setattr__(self, "start", self.start or USUAL_START)
        check_choice("start", self.start, STARTS)
        check_better(self.solver, self.rule.better_solver(self.solver))

    def _begin_with_a_tolerance(self):
        if self.start is not None:
            raise ValueError(
                f"start = {self.start!r}: it is where the adaption of steps begins; give it with a "
                "method of fixed steps, or leave it out"
            )
        if self.rule.test_solver is not None:
            raise ValueError(
                f"test_solver = {self.rule.test_solver!r}: a tolerance is checked with dopri5 at a "
                "finer one; leave it out"
            )
        given = FIRST_RTOL if self.first_rtol is None else self.first_rtol
        first, (finest, coarsest) = check_positive("first_rtol", given), RTOL_BOUNDS
        if not finest <= first <= coarsest:
            raise ValueError(f"first_rtol = {given!r}: give one from {finest:g} to {coarsest:g}")
        object.__setattr__(self, "first_rtol", first)

    @property
    def rule(self) -> Controller:
        """The controller itself."""
        chosen = self.controller
        return ALL_CONTROLLERS[chosen] if isinstance(chosen, str) else chosen

    @property
    def name(self) -> str:
        """Stem of file names, such as `euler-algorithm1` or `dopri5-algorithm1-from0.01`."""
        name = f"{self.solver}-{self.controller}"
        name += f"-from{self.first_rtol!r}" if self.first_rtol is not None else ""
        return name + (f"-{self.start}" if self.start not in (None, USUAL_START) else "")

    @property
    def constants(self) -> dict[str, Any]:
        """Values that its trainings depend on besides the protocol.

        They are the controller's constants, the first tolerance, and those that scale the norm of
        its start, where there are any.
        """
        constants: dict[str, Any] = {"controller": self.rule.constants}
        constants |= {} if self.first_rtol is None else {"first_rtol": self.first_rtol}
        scales = STARTS.get(self.start or "")
        return constants | ({"start": scales} if scales else {})


AnySteps = Setting | Adapted  # how the steps of a training may be chosen


def columns_of(steps: AnySteps) -> dict[str, Any]:
    """Return the columns of a record that describe the steps of a training; see `steps_of`."""
    kept = ("n_steps", "rtol", "per_sample", "controller", "first_rtol", "start")
    return {"train_solver": steps.solver, **{name: getattr(steps, name) for name in kept}}


def steps_of(values: Mapping[str, Any]) -> AnySteps:
    """The steps of a training that these columns of a record describe: train_solver with n_steps,
    rtol and per_sample, or controller with first_rtol and start. ValueError where none do."""
    solver, controller = values["train_solver"], values.get("controller")
    if controller is not None:
        return Adapted(solver, controller, values.get("start"), values.get("first_rtol"))
    if values.get("per_sample"):
        return Tolerance(solver, values["rtol"], per_sample=True)
    return choose_steps(solver, values.get("n_steps"), values.get("rtol"))
