"""Watch a training: how far the model is from its exact flow, every so often, on one batch.

`monitor` is called once in each iteration of a loop that exists already. It checks one batch every
N iterations, but never takes more than a stated share of the time: a check that would is put off.
Where a controller is given, the checks also choose the next step or tolerance.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real
from typing import Any

from torch import Tensor, nn

from nodecore.analysis.evaluate import FLOAT32_RTOL
from nodecore.analysis.intervals import Interval
from nodecore.check.evidence import along_trajectories
from nodecore.check.inputs import (
    Tree,
    ascending,
    map_tensors,
    positive,
    read_inputs,
    read_times,
    tensors_of,
    whole,
)
from nodecore.check.model import Layers, as_module
from nodecore.check.order import order_test
from nodecore.check.pose import forked, pose
from nodecore.check.probes import TimeScan, probe_field, probe_head, probe_stem
from nodecore.check.problem import Problem
from nodecore.check.settings import Solve, count_given_steps, finer_rows, read_training
from nodecore.check.solves import Solved, solve_samples
from nodecore.check.verdict import Tested
from nodecore.ode.steps import Steps
from nodecore.ode.tableaus import get_tableau
from nodecore.training.adapted import RTOL_BOUNDS
from nodecore.training.adaption import step_bounds
from nodecore.training.controllers import Controller, Observation, StepState, get_controller
from nodecore.training.devices import wait_for

WATCHED_RTOL = 1e-4  # of the exact flow, at most; images: 3 classes of 2,000 differ from 1e-6
JACOBIAN_TIMES, JACOBIAN_ITERATIONS = 2, 6  # fewer than in check_flow: h L is a bound from below
MARGIN = 1.5  # times the last check: what the next one may take

UNSCANNED = TimeScan(depends=True, asked=0)  # all steps of the training are kept then

# How what is given as a number is read.
NUMBERS = {"n_steps": whole, "step_size": positive, "rtol": positive, "atol": positive}

Row = dict[str, Any]


class Monitor:
    """A training that is watched; made by `monitor`. Call it once an iteration, with the batch.

    Attributes:
        rows: One for each check, a dict of numbers; ``pandas.DataFrame(watch.rows)`` is a table.
        iteration: How often it was called.
    """

    def __init__(
        self,
        model: dict[str, Any],
        training: dict[str, Any],
        controller: Controller | None,
        *,
        every: int,
        share: float | None,
        samples: int,
        verbose: bool,
    ):
        self._model, self._training, self._controller = model, training, controller
        self._every, self._limit, self._samples, self._verbose = every, share, samples, verbose
        self._span = abs(model["t"][1] - model["t"][0])
        self._state = StepState(self._first_step()) if controller else None
        self._began = time.perf_counter()
        self._spent, self._last, self._due = 0.0, 0.0, False
        self.rows: list[Row] = []
        self.iteration = 0

    # --- what the loop asks for -------------------------------------------------------------------

    def __call__(self, x: Tree, y: Any = None, args: Tree = None) -> Row | None:
        """Count an iteration, and check its batch where a check is due.

        Args:
            x: The batch's inputs (n, ...), as `check_flow` takes them.
            y: Its labels, or targets of the loss, or None.
            args: What the field is given besides, with n rows.

        Returns:
            The new row, or None where nothing was checked.
        """
        self.iteration += 1
        self._due |= self.iteration % self._every == 0
        if not self._due or not self._affordable():
            return None
        self._wait(x)  # so that the training's own work on a GPU is not counted as the check's
        before, n = time.perf_counter(), self._samples
        integers = self._model["stem"] is not None
        x, args = (map_tensors(lambda part: part[:n], v) for v in (read_inputs(x, integers), args))
        with forked(), _in_evaluation(self._model.values()):
            row = self._check(x, None if y is None else y[:n], args)
        self._last, self._due = time.perf_counter() - before, False
        self._spent += self._last
        row |= {"seconds": self._last, "share_of_time": self.share_of_time}
        self.rows.append(row)
        if self._verbose:
            print(describe(row), flush=True)
        return row

    @property
    def share_of_time(self) -> float:
        """Share of the time since it was made that its checks took."""
        return self._spent / (time.perf_counter() - self._began)

    @property
    def step_size(self) -> float:
        """The step to train with next, in the units of t: torchdiffeq's options step_size."""
        if "n_steps" in self._training:
            return self._span / self._training["n_steps"]
        return self._now("step_size")

    @property
    def n_steps(self) -> int:
        """Number of equal steps to train with next, over the time t."""
        if "step_size" in self._training:
            return count_given_steps(self._now("step_size"), self._span)
        return self._now("n_steps")

    @property
    def rtol(self) -> float:
        """The tolerance to train with next."""
        return self._now("rtol")

    def _now(self, name: str) -> Any:
        if self._training.get(name) is None:
            raise AttributeError(f"{name}: the monitor was not made with {name}=")
        return self._training[name]

    # --- one check --------------------------------------------------------------------------------

    def _affordable(self) -> bool:
        """Tell whether a check like the last one stays within the share of the time."""
        passed = time.perf_counter() - self._began
        return self._limit is None or self._spent + MARGIN * self._last <= self._limit * passed

    def _wait(self, x: Tree) -> None:
        """Wait until the GPUs of batch and model have done what they were given."""
        modules = _modules(self._model.values())
        weights = [weight for module in modules for weight in module.parameters()]
        for device in {tensor.device for tensor in [*tensors_of(x), *weights]}:
            wait_for(device)

    def _check(self, x: Tree, y: Any, args: Tree) -> Row:
        """Solve a batch under the training solver, finer ones and the exact flow."""
        problem = pose(x=x, y=y, args=args, scan=UNSCANNED, **self._model, **self._training)
        if not self.rows:
            if self._model["stem"] is not None:
                probe_stem(problem.model, x)
            probe_field(problem.model, problem.samples)
            probe_head(problem.model, problem.model.still(problem.samples.z))
        trained, everyone = problem.trained, problem.everyone
        own = problem.solve(trained, everyone)
        exact = _solve_exactly(problem)
        sure = own.known & exact.known
        rule = problem.rule(own, exact)
        under_own = rule.tested(trained, own, own, own.known)
        under_exact = rule.tested(problem.exact, exact, own, sure)
        finer = tuple(problem.solve(setting, everyone).z for setting in finer_rows(trained))
        order = order_test((own.z, *finer), get_tableau(trained.solver).order) if finer else None
        along = along_trajectories(
            problem.model, problem.samples, trained, JACOBIAN_TIMES, JACOBIAN_ITERATIONS
        )
        row: Row = {"iteration": self.iteration, "setting": str(trained), "samples": len(own.z)}
        row |= _numbers(under_own, under_exact)
        row |= {
            "unknown": int((~sure).sum()),
            "order": math.nan if order is None else order.median.value,
            "of_expected_order": math.nan if order is None else order.near.value,
            "nfe": own.nfe,
            "h_lipschitz": along.h * (math.nan if along.lipschitz is None else along.lipschitz),
        }
        return row | self._propose(trained, under_own, under_exact)

    # --- the next step ----------------------------------------------------------------------------

    def _first_step(self) -> float:
        if self._training.get("n_steps") is not None:
            return self._span / self._training["n_steps"]
        return self._training.get("step_size") or self._training["rtol"]

    def _propose(self, trained: Steps, own: Tested, exact: Tested) -> Row:
        """Let the controller see a check; what it chooses holds from the next iteration on."""
        if self._controller is None or self._state is None:
            return {}
        by_tolerance = trained.rtol is not None
        bounds = RTOL_BOUNDS if by_tolerance else step_bounds(self._span)
        self._state = self._controller.update(self._state, _observation(own, exact), bounds)
        step = self._state.step_size
        name = next(name for name in ("n_steps", "step_size", "rtol") if name in self._training)
        chosen = count_given_steps(step, self._span) if name == "n_steps" else step
        self._training[name] = chosen
        return {f"next_{name}": chosen}


def monitor(
    field: Callable[..., Any],
    head: Layers | None = None,
    *,
    solver: str | None = None,
    n_steps: int | None = None,
    rtol: float | None = None,
    atol: float | None = None,
    step_size: float | None = None,
    grid: Tensor | Sequence[float] | None = None,
    solve: Solve | None = None,
    t: tuple[float, float] = (0.0, 1.0),
    stem: Layers | None = None,
    tolerance: float | Sequence[float] | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    output_times: Tensor | Sequence[float] | None = None,
    every: int = 50,
    share: float | None = 0.05,
    samples: int = 128,
    controller: str | Controller | None = None,
    verbose: bool = True,
) -> Monitor:
    """Watch a training loop: is the model still the flow of its field, and at which step?

    Each check compares the training solver with the exact flow on one batch, as `check_flow` does,
    but takes the exact flow (dopri5 at 1e-4, or a tenth of the training's tolerance, in steps never
    longer than the training's) without a proof: it shows where a training is going, and
    `check_flow` decides at its end. A row has

    - `gap`: accuracy under the training solver less that under the exact flow, with the ends
      `gap_low` and `gap_high` of its 95 % interval; `accuracy`: under the training solver. NaN
      without labels;
    - `flips`: share of samples with another class, or without labels with an output that is
      farther away than `tolerance`, or with a `loss` that differs by more; `unknown`: number of
      samples that could not be solved;
    - `order`: the median observed order of convergence, and `of_expected_order`, the share of
      samples within 0.3 of the solver's order (`nodecore.check.order`); NaN without fixed steps;
    - `nfe`: evaluations of the field in one solve under the training solver;
    - `h_lipschitz`: h L, a bound from below, with the longest step h;
    - `seconds` of the check, and `share_of_time` of all checks so far;
    - `next_step_size`, `next_n_steps` or `next_rtol`, where there is a controller.

    Modules are checked in evaluation mode and then put back as they were; weights, gradients and
    generators are left alone.

    Args:
        field: f(t, z) -> dz/dt, as in `check_flow`, like all arguments up to `output_times`.
        head: Takes end states to logits or outputs; None where there is none.
        solver: Solver of the training.
        n_steps: Number of its equal steps over t.
        rtol: Its tolerance; solved as torchdiffeq does, see `check_flow`.
        atol: Absolute tolerance beside rtol.
        step_size: Its step, in the units of t.
        grid: Times of its steps.
        solve: Instead of these, the training's own, (field, z0, t) -> z(T).
        t: Start and end of the time.
        stem: Layers that take inputs to states.
        tolerance: Without labels, the difference of outputs that counts, in their units, or with
            `loss` the change of a sample's loss.
        loss: A loss of one's own, (outputs (m, ...), targets (m, ...)) -> (m,).
        output_times: Times at which outputs count, where states are trajectories.
        every: Iterations from check to check.
        share: Largest share of the time for checks; one that would take more is put off, but not
            the first, of which nothing is known. None checks every `every` iterations, so that a
            training with a controller can be repeated exactly.
        samples: Largest number of the batch's samples that are used, its first ones.
        controller: One of nodecore.training.controllers.CONTROLLERS but "confirmed-increase", or
            "auto". The monitor's `step_size`, `n_steps` or `rtol` is then what to train with in
            the next iteration. None leaves the step alone. Its `every` and `test_solver` are not
            used: the monitor checks every `every` iterations, with the exact flow.
        verbose: Whether to print a line for each check.

    Raises:
        ValueError: An argument is bad, here or, where it is about the model, at the first check.
    """
    training = {"solver": solver, "n_steps": n_steps, "rtol": rtol, "atol": atol}
    training |= {"step_size": step_size, "grid": grid, "solve": solve}
    training = {name: value for name, value in training.items() if value is not None}
    t = read_times(t)
    read_training(ascending(t), **training)
    training |= {
        name: NUMBERS[name](name, training[name]) for name in NUMBERS.keys() & training.keys()
    }
    if share is not None and not (isinstance(share, Real) and 0 < share < 1):
        raise ValueError(f"share = {share!r}: give a share of the time in (0, 1), or None")
    model = {"field": field, "head": head, "stem": stem, "t": t, "tolerance": tolerance}
    model |= {"loss": loss, "output_times": output_times}
    return Monitor(
        model,
        training,
        None if controller is None else _read_controller(controller, training, output_times),
        every=whole("every", every),
        share=share,
        samples=whole("samples", samples),
        verbose=verbose,
    )


def describe(row: Row) -> str:
    """Return a row as a line of text; what does not apply is left out."""
    said = f"iteration {row['iteration']:,}: {row['setting']}"
    if not math.isnan(row["gap"]):
        gap = Interval(row["gap"], row["gap_low"], row["gap_high"])
        said += f"; accuracy {100 * row['accuracy']:.1f} %, gap {gap.percent()}"
    if not math.isnan(row["flips"]):
        said += f"; flips {100 * row['flips']:.1f} %"
    if row["unknown"]:
        said += f"; {row['unknown']} of {row['samples']} samples not solved"
    for key, name, kind in (
        ("order", "order", ".3g"),
        ("nfe", "NFE", ",.6g"),
        ("h_lipschitz", "h L >=", ".3g"),
    ):
        said += "" if math.isnan(row[key]) else f"; {name} {row[key]:{kind}}"
    for name, kind in (("n_steps", ","), ("step_size", ".3g"), ("rtol", ".3g")):
        if f"next_{name}" in row:
            said += f"; next {name} {row[f'next_{name}']:{kind}}"
    return f"{said}; {100 * row['share_of_time']:.1f} % of the time"


# --- inside ---------------------------------------------------------------------------------------


def _read_controller(
    controller: Any, training: dict[str, Any], output_times: Any = None
) -> Controller:
    """Return the controller; raise ValueError where it cannot be watched so."""
    rule = controller if isinstance(controller, Controller) else get_controller(controller)
    if not {"n_steps", "step_size", "rtol"} & set(training):
        raise ValueError(
            f"controller = {controller!r} chooses a step: give solver= with n_steps=, step_size= "
            "or rtol=, in place of grid= or solve="
        )
    if output_times is not None and "rtol" not in training:
        raise ValueError(
            f"controller = {controller!r} chooses steps that need not end at output_times: let it "
            "choose a tolerance, rtol="
        )
    if "atol" in training:
        raise ValueError(
            f"controller = {controller!r} chooses rtol = atol: leave out atol = {training['atol']}"
        )
    finest, coarsest = RTOL_BOUNDS
    if not finest <= training.get("rtol", finest) <= coarsest:
        raise ValueError(
            f"rtol = {training['rtol']}: a controller chooses tolerances from {finest:g} to "
            f"{coarsest:g}; begin with one of these"
        )
    if rule.tries_increases:
        raise ValueError(
            f"controller = {controller!r} tries a longer step before it takes it, which a monitor "
            "cannot: choose one such as algorithm1, settling-discord, remembering-discord"
        )
    return rule


def _observation(own: Tested, exact: Tested) -> Observation:
    """Return what a controller sees; samples that are not known count as lost."""
    lost = exact.unsettled / exact.n
    flips = exact.changed.value * (1 - lost) + lost
    if own.accuracy is None or exact.accuracy is None:
        return Observation(1.0, 1.0 - flips, flips=flips)
    accuracy = own.accuracy.value * (1 - own.unsettled / own.n)
    return Observation(accuracy, exact.accuracy.value * (1 - lost), flips=flips)


def _numbers(own: Tested, exact: Tested) -> Row:
    """Return accuracy, gap with its interval, and flips; NaN where they do not apply."""
    nan = Interval(math.nan, math.nan, math.nan)
    lost = exact.unsettled == exact.n
    value, low, high = nan if lost else exact.drop or nan
    flips = math.nan if lost else exact.changed.value
    gap = {"gap": value, "gap_low": low, "gap_high": high}
    return {"accuracy": (own.accuracy or nan).value, **gap, "flips": flips}


def _solve_exactly(problem: Problem) -> Solved:
    """Solve the exact flow of a batch once, at a tolerance that is enough for watching."""
    rtol = min(WATCHED_RTOL, (problem.trained.rtol or 1.0) / 10)
    solver = replace(problem.solver, rtol=rtol, double=rtol < FLOAT32_RTOL)
    model, samples = problem.model, problem.samples
    return solve_samples(model, samples, problem.everyone, solver.once, len(samples))


def _modules(parts: Iterable[Any]) -> list[nn.Module]:
    """Return those of the parts that are modules, or methods of one."""
    return [part for part in map(as_module, parts) if isinstance(part, nn.Module)]


@contextmanager
def _in_evaluation(parts: Iterable[Any]) -> Iterator[None]:
    """Put modules into evaluation mode, and each layer back into its own."""
    modules = _modules(parts)
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for layer, mode in modes:
            layer.training = mode
