"""Check whether a model of your own is a flow: `check_flow`, and what a flow would cost."""

import math
import sys
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from nodecore.analysis.crossings import find_crossings, refined_path, separated_starts
from nodecore.analysis.evaluate import (
    EXACT_RTOL,
    FLOAT32_RTOL,
    check_setting,
    critical_n_steps,
)
from nodecore.analysis.intervals import paired_difference, share_interval
from nodecore.analysis.lipschitz import jacobian_norms
from nodecore.check.model import FlowModel, affine_weight, depends_on_time
from nodecore.check.report import FlowCost, FlowReport, Tested
from nodecore.check.verdict import are_finite, beats_chance, judge, spread, total_variation
from nodecore.data.split import Split
from nodecore.ode.fields import boundary_distances
from nodecore.ode.solution import SolveError
from nodecore.ode.steps import (
    FixedSteps,
    Setting,
    Tolerance,
    check_n_steps,
    check_tolerance,
    choose_steps,
)
from nodecore.ode.tableaus import get_tableau, next_finer

SMALL = 64  # entries of a state up to which float64 costs little
PROBE_NUMBERS, LEAST_PROBE = 100_000, 64  # entries of the states, and samples, of other solvers
PART_NUMBERS, LEAST_PART = 50_000, 32  # entries of the states, and samples, that a cache holds
PILOT = 8  # samples of a first look
JACOBIAN_SAMPLES, JACOBIAN_TIMES, JACOBIAN_ITERATIONS = 16, 5, 20
CROSSING_STARTS, SUBSTEPS = 50, 8
SEARCH = 4  # times the training's steps: the finest of the search
SPREAD_SHARE = 0.1  # of the outputs' spread: the default tolerance

Layers = Callable[[Tensor], Tensor]


def check_flow(
    field: Callable[[Tensor, Tensor], Tensor],
    head: Layers | None,
    x: Tensor,
    y: Tensor | None = None,
    *,
    solver: str,
    n_steps: int | None = None,
    rtol: float | None = None,
    t: tuple[float, float] = (0.0, 1.0),
    stem: Layers | None = None,
    tolerance: float | None = None,
    rows: int = 1000,
    verbose: bool = True,
) -> FlowReport:
    """Check whether a trained model is the flow of its vector field or belongs to its solver.

    The verdict compares the training solver with dopri5 at a fine tolerance, on all samples:

    - With labels: "not a flow" if the accuracies differ by more than AGREEMENT (0.1), "flow" if by
      less, either with the whole 95 % interval of the paired difference. "cannot tell" if the
      interval holds the bound; if the accuracy is not surely above the largest class's share + 0.1,
      where a loss could not show; or if it agrees while surely over 10 % of the classes change.
    - Without: the same rule for the share of samples whose output (or end state, without a head)
      moves by more than `tolerance`.

    Other solvers, the search for the coarsest agreeing step, Jacobians and crossings are evidence
    besides, on evenly spaced samples, fewer the larger the states are.

    Modules are used as copies, in the mode they are in, on the field's device, half precision in
    float32; model, gradients and generators stay as they are.

    Args:
        field: f(t, z) -> dz/dt on states (batch, ...), t a tensor without axes; it may depend on t
            and have kinks.
        head: Takes end states to logits (batch, classes); None where there is none.
        x: Inputs (n, ...), states or what `stem` takes to states.
        y: Labels (n,) int64, or None.
        solver: Solver of the training, one of nodecore.ode.tableaus.TABLEAUS (torchdiffeq's "rk4"
            is `rk4_38` here).
        n_steps: Number of its steps over t.
        rtol: Instead, its tolerance; atol is the same, and a batch of `rows` has one step, as in
            torchdiffeq.
        t: Start and end of the time to integrate over.
        stem: Layers that take inputs to states.
        tolerance: Without labels, the difference of outputs that counts, in their units; by default
            a tenth of the outputs' root mean square distance from their mean.
        rows: Largest number of samples in a batch.
        verbose: Whether to print the cost to stderr beforehand; `flow_cost` gives it alone.

    Raises:
        ValueError: An argument is bad, or layers are random or mix samples, such as dropout and
            batch norm in training mode.
    """
    options = {"solver": solver, "n_steps": n_steps, "rtol": rtol, "t": t, "stem": stem}
    with torch.no_grad(), torch.random.fork_rng(_gpus()):
        check = _Check(field, head, x, y, tolerance=tolerance, rows=rows, **options)
        cost = check.cost()
        if verbose:
            print(f"check_flow: {cost}", file=sys.stderr, flush=True)
        return check.report(cost)


def flow_cost(
    field: Callable[[Tensor, Tensor], Tensor],
    head: Layers | None,
    x: Tensor,
    y: Tensor | None = None,
    **options: Any,
) -> FlowCost:
    """Estimate what `check_flow` with the same arguments would cost; solves a few samples only."""
    options.pop("verbose", None)
    with torch.no_grad(), torch.random.fork_rng(_gpus()):
        return _Check(field, head, x, y, **options).cost()


def _gpus():
    return range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []


# --- what is solved -------------------------------------------------------------------------------


def better_settings(trained: Setting) -> list[Setting]:
    """Finer steps and methods of higher order, or a tighter tolerance, for a training's setting."""
    solver = trained.solver
    if isinstance(trained, Tolerance):
        return [Tolerance(solver, trained.rtol / 10)]
    k = trained.n_steps
    better = next_finer(solver)
    settings = [FixedSteps(solver, 2 * k), FixedSteps(solver, 4 * k), check_setting(solver, k)]
    return list(dict.fromkeys([*settings, *([FixedSteps(better, k)] if better else [])]))


def searched_settings(trained: Setting) -> list[Setting]:
    """The training solver, coarse to fine: steps 1, 2, 4, ... and the training's multiples, or
    tolerances 1, 0.1, ... and the training's, to a tenth of it."""
    solver = trained.solver
    if isinstance(trained, FixedSteps):
        k = trained.n_steps
        steps = {k, 2 * k, SEARCH * k, *(2**i for i in range((SEARCH * k).bit_length()))}
        return [FixedSteps(solver, s) for s in sorted(steps)]
    rtol = trained.rtol
    decades = {10.0**-d for d in range(20) if 10.0**-d > rtol / 10}
    return [Tolerance(solver, r) for r in sorted({rtol, rtol / 10, *decades}, reverse=True)]


def _check_inputs(x, y, rows, tolerance, t):
    if not isinstance(x, Tensor) or x.dim() < 1:
        raise ValueError(f"x is {type(x).__name__}: give a tensor of inputs (n, ...)")
    labels = torch.zeros(len(x), dtype=torch.int64) if y is None else y
    Split(x, labels, int(labels.max()) + 1 if len(labels) else 1)  # raises what is wrong with them
    check_n_steps(rows)
    if tolerance is not None:
        check_tolerance("tolerance", tolerance)
    if tolerance is not None and y is not None:
        raise ValueError(f"tolerance = {tolerance!r} is for outputs without labels; leave out y")
    if not (math.isfinite(t[1] - t[0]) and t[1] > t[0]):
        raise ValueError(f"t = {t}: give finite times (start, end) with end > start")


class _Check:
    """One check: what is solved, for which samples, and what comes of it."""

    def __init__(self, field, head, x, y, *, solver, n_steps=None, rtol=None, t=(0.0, 1.0),
                 stem=None, tolerance=None, rows=1000):  # fmt: skip
        self.trained = choose_steps(solver, n_steps, rtol)
        _check_inputs(x, y, rows, tolerance, t)
        self.model = FlowModel(field, head, stem, x, (float(t[0]), float(t[1])))
        self.rows, self.tolerance, self.notes = rows, tolerance, []
        self.z0 = torch.cat([self.model.start(part) for part in x.split(rows)])
        self.y = None if y is None else y.to(self.model.device)
        self.timed = depends_on_time(self.model, self.z0[:PILOT])
        self._check_outputs()
        self.size = self.z0[0].numel()
        self.exact = Tolerance("dopri5", self._exact_rtol())
        wanted = max(LEAST_PROBE, PROBE_NUMBERS // self.size)
        self.probe = torch.arange(len(self.z0))[:: math.ceil(len(self.z0) / wanted)]

    def _check_outputs(self):
        outputs = self.model.outputs(self.z0[:PILOT])
        classes = 0 if self.y is None else int(self.y.max()) + 1
        if classes and (outputs.dim() != 2 or outputs.shape[1] < max(2, classes)):
            raise ValueError(
                f"head returned {tuple(outputs.shape)} for {len(outputs)} states and labels up to "
                f"{classes - 1}: give logits (batch, classes); for a single logit v, "
                "torch.cat([-v, v], 1)"
            )

    def _exact_rtol(self):
        """Return a tolerance as fine as is cheap, and below the training's."""
        cheap = self.model.in_float64 and self.size <= SMALL
        rtol = min(EXACT_RTOL if cheap else FLOAT32_RTOL, (self.trained.rtol or 1.0) / 10)
        if rtol < FLOAT32_RTOL and not self.model.in_float64:
            raise ValueError(
                f"rtol = {self.trained.rtol}: a check of it needs float64, which a field that is "
                "no nn.Module cannot be brought to; give a module, or x in float64"
            )
        return rtol

    @cached_property
    def better(self) -> list[Setting]:
        return [s for s in better_settings(self.trained) if s != self.exact]

    @cached_property
    def searched(self) -> list[Setting]:
        return searched_settings(self.trained)

    @property
    def probed(self) -> list[Setting]:
        """Settings that are solved for the probe alone."""
        return [s for s in dict.fromkeys([*self.better, *self.searched]) if s not in self.full]

    @property
    def full(self) -> list[Setting]:
        """Settings that are solved for all samples."""
        return [self.trained, self.exact]

    def cost(self) -> FlowCost:
        """Count the evaluations of fixed steps, and measure adaptive ones on a few samples."""
        plan = {s: len(self.probe) for s in self.probed} | dict.fromkeys(self.full, len(self.z0))
        fixed = sum(n * _nfe(s) for s, n in plan.items() if isinstance(s, FixedSteps))
        adaptive = {s: n * self._pilot_nfe(s) for s, n in plan.items() if isinstance(s, Tolerance)}
        slow = sum(n for s, n in adaptive.items() if s.rtol < FLOAT32_RTOL)
        # An iteration takes a product with the Jacobian and one with its transpose.
        samples = min(JACOBIAN_SAMPLES, len(self.z0))
        times = min(JACOBIAN_TIMES, (self.trained.n_steps or JACOBIAN_TIMES) + 1)
        jacobians = 2 * JACOBIAN_ITERATIONS * samples * times
        total = fixed + sum(adaptive.values()) + slow + 2 * jacobians
        seconds = self._seconds_of_one() * total
        return FlowCost(len(self.z0), fixed, jacobians, sum(adaptive.values()), seconds)

    def _pilot_nfe(self, setting):
        try:
            return int(self.model.solve(self.z0[:PILOT], setting).nfe)
        except SolveError:
            return 0

    def _seconds_of_one(self):
        """Measure the seconds that the field takes for one sample of a batch."""
        part = self.z0[: self._samples_at_once(self.exact)]
        began = time.perf_counter()
        float(self.model.field()(self.model.t[0], part).sum())  # waits for a GPU
        return (time.perf_counter() - began) / len(part)

    def _samples_at_once(self, setting):
        """Small parts are faster; only the training's tolerance is shared by its whole batch."""
        if setting.rtol is not None and setting != self.exact:
            return self.rows
        return min(self.rows, max(LEAST_PART, PART_NUMBERS // self.size))

    def _solve(self, setting, index):
        """Return outputs, end states and evaluations; NaN where a part cannot be solved."""
        ends, nfe = [], 0
        for part in self.z0[index].split(self._samples_at_once(setting)):
            try:
                solution = self.model.solve(part, setting)
                ends.append(solution.z)
                nfe = max(nfe, int(solution.nfe))
            except SolveError as error:
                ends.append(torch.full_like(part, math.nan))
                self.notes.append(f"{setting} failed: {error}")
        outputs = torch.cat([self.model.outputs(end) for end in ends])
        return outputs, torch.cat(ends), nfe

    def report(self, cost: FlowCost) -> FlowReport:
        """Run all solves and build the report."""
        everyone = torch.arange(len(self.z0))
        solved = {s: (everyone, *self._solve(s, everyone)) for s in self.full}
        (_, out, z, _), (_, exact_out, exact_z, _) = (solved[s] for s in self.full)
        if self.y is None and self.tolerance is None:
            self.tolerance = SPREAD_SHARE * spread(exact_out)
        for setting in self.probed:
            solved[setting] = (self.probe, *self._solve(setting, self.probe))
        shown = [self.trained, *self.better, self.exact]
        tested = tuple(self._tested(s, out, *solved[s]) for s in shown)
        verdict, reason = judge(tested[0], tested[-1], self.chance, self.tolerance)
        weight = None if self.y is None else affine_weight(self.model, are_finite(z)[:LEAST_PROBE])
        return FlowReport(
            verdict,
            reason,
            tested=tested,
            chance=self.chance,
            tolerance=self.tolerance,
            distances=(z - exact_z).double().flatten(1).norm(dim=1).cpu().numpy(),
            margins=None if weight is None else _margins(exact_out, weight),
            probability_change=None if self.y is None else total_variation(out, exact_out),
            **self._along_trajectories(),
            coarsest=self._coarsest(exact_out, solved, tested[0]),
            searched=tuple(self.searched),
            crossing_shares=self._crossing_shares(),
            cost=cost,
            notes=tuple(self.notes),
        )

    # what the solves say

    @cached_property
    def chance(self) -> float | None:
        """Share of the largest class."""
        return None if self.y is None else float(torch.bincount(self.y).max()) / len(self.y)

    def _tested(self, setting, reference, index, outputs, ends, nfe):
        """The samples of `index` under a setting, against the outputs of a reference, of all."""
        n, reference = len(index), reference[index]
        finite = outputs.flatten(1).isfinite().all(1)
        if self.y is None:
            changed = (outputs - reference).flatten(1).norm(dim=1) > self.tolerance
            return Tested(setting, n, share_interval(_count(changed | ~finite), n), None, None, nfe)
        changed = (outputs.argmax(1) != reference.argmax(1)) | ~finite
        y = self.y[index]
        right, before = (outputs.argmax(1) == y) & finite, reference.argmax(1) == y
        drop = paired_difference(_count(before & ~right), _count(right & ~before), n)
        others, accuracy = (share_interval(_count(v), n) for v in (changed, right))
        return Tested(setting, n, others, accuracy, drop, nfe)

    def _coarsest(self, exact_out, solved, own):
        """The coarsest searched setting from which on all agree with the exact flow."""
        accuracy, chance = own.accuracy, self.chance
        if accuracy is not None and chance is not None and not beats_chance(accuracy, chance):
            return None  # no loss could show
        gaps = {}
        for fineness, setting in enumerate(self.searched):
            found = self._tested(setting, exact_out, *solved[setting])
            gaps[fineness] = found.changed.value if found.drop is None else abs(found.drop.value)
        critical = critical_n_steps(gaps)
        return None if critical is None else self.searched[critical]

    def _along_trajectories(self):
        """The longest step, and the largest Jacobian norm at a few times of a few trajectories."""
        samples = self.z0[:: math.ceil(len(self.z0) / JACOBIAN_SAMPLES)]
        try:
            solution = self.model.solve(samples, self.trained, path=True)
        except SolveError:
            return {"h": math.nan, "lipschitz": None}
        h = float(solution.ts.diff().max())
        some = torch.linspace(0, len(solution.ts) - 1, JACOBIAN_TIMES).round().long().unique()
        try:
            norms = [self._norms(float(solution.ts[i]), solution.states[i]) for i in some]
        except RuntimeError as error:
            self.notes.append(f"no Jacobians, the field cannot be differentiated: {error}")
            return {"h": h, "lipschitz": None}
        return {"h": h, "lipschitz": float(torch.cat(norms).max())}

    def _norms(self, t, z):
        z = are_finite(z).to(self.z0.dtype)
        return jacobian_norms(self.model.field(), z, t=t, n_iterations=JACOBIAN_ITERATIONS)

    def _crossing_shares(self):
        """Share of pairs that cross by number of steps, in the plane, where a flow allows none."""
        k = self.trained.n_steps
        if k is None or self.z0.shape[1:] != (2,):
            return {}
        if self.timed:
            self.notes.append("the field depends on time: its trajectories may cross in the plane")
            return {}
        starts = self.z0[separated_starts(self.z0, min(CROSSING_STARTS, len(self.z0)))]
        try:
            return {steps: self._crossing_share(starts, steps) for steps in (k, 2 * k, 4 * k)}
        except ValueError as error:  # a trajectory that overflows
            self.notes.append(f"no crossings: {error}")
            return {}

    def _crossing_share(self, starts, n_steps):
        dtype = torch.float64 if self.model.in_float64 else None  # neighbours merge later
        f, (start, end) = self.model.field(dtype), self.model.t

        def over_unit_time(t, z):
            return (end - start) * f(start, z)

        substeps = 1 if self.trained.solver == "euler" else SUBSTEPS
        options = {"n_steps": n_steps, "substeps": substeps}
        path = refined_path(
            over_unit_time, starts.to(dtype or starts.dtype), self.trained.solver, **options
        )
        return find_crossings(path, substeps).share_of_pairs


def _nfe(setting):
    return setting.n_steps * get_tableau(setting.solver).n_solution_stages


def _count(mask):
    return int(mask.sum())


def _margins(logits, weight):
    return boundary_distances(logits[None], weight[None])[0].double().cpu().numpy()
