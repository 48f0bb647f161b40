"""Pose a check: read its arguments, probe the model, choose samples and settings."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nodecore.analysis.evaluate import EXACT_RTOL, FLOAT32_RTOL
from nodecore.check import inputs, probes
from nodecore.check.inputs import Samples, Tree, map_tensors, tensors_of
from nodecore.check.model import FEW, FlowModel, Layers
from nodecore.check.reference import (
    METHOD,
    ExactSolver,
    Proof,
    Reference,
    Yardstick,
    make_mesh,
    prove,
)
from nodecore.check.scale import find_scale
from nodecore.check.settings import (
    CLASSICAL,
    OwnSolve,
    TimeGrid,
    better_settings,
    read_training,
    searched_settings,
)
from nodecore.check.solves import Solved, samples_at_once, solve_part, solve_samples
from nodecore.check.verdict import Rule
from nodecore.ode.solution import SolveError
from nodecore.ode.steps import FixedSteps, Steps, Tolerance

SMALL = 64  # entries of a state up to which float64 costs little
PROBE_NUMBERS, LEAST_PROBE = 100_000, 64  # entries of the states, and samples, of other solvers
PILOT = 64  # samples that show the steps of a training that chooses them itself
UNKNOWN_STEPS = 64  # of a training whose steps are not known


@dataclass(frozen=True)
class Problem:
    """What one check is about.

    Attributes:
        model: Stem, field and head.
        samples: States z (n, ...) at the start, and args.
        y: Labels (n,), or None.
        trained: The training's setting.
        tolerance: Of outputs without labels, or None.
        rows: Largest number of samples of a batch.
        probe: Samples that other settings are solved for, (m,), ascending.
        scan: Of the field in time.
        solver: Of the exact flow.
        probabilities: Whether the head gives probabilities.
        notes: What to keep in mind.
    """

    model: FlowModel
    samples: Samples
    y: Tensor | None
    trained: Steps
    tolerance: float | None
    rows: int
    probe: Tensor
    scan: probes.TimeScan
    solver: ExactSolver
    probabilities: bool
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Numbers of one state."""
        return self.samples.z[0].numel()

    @property
    def exact(self) -> Tolerance:
        """The setting of the exact flow."""
        return Tolerance(METHOD, self.solver.rtol)

    @property
    def better(self) -> list[Steps]:
        """Finer settings that are shown."""
        return [s for s in better_settings(self.trained) if s != self.exact]

    @property
    def searched(self) -> list[Steps]:
        """The training solver's settings, coarse to fine."""
        return searched_settings(self.trained)

    @property
    def probed(self) -> list[Steps]:
        """Settings that are solved for the probe alone."""
        every = dict.fromkeys([*self.better, *self.searched])
        return [s for s in every if s not in (self.trained, self.exact)]

    @property
    def chance(self) -> float | None:
        """Share of the largest class, None without labels."""
        return None if self.y is None else float(torch.bincount(self.y).max()) / len(self.y)

    @property
    def everyone(self) -> Tensor:
        """Indices of all samples, (n,)."""
        return torch.arange(len(self.samples))

    def at_once(self, setting: Steps) -> int:
        """Return the samples of a part; steps that a training chooses itself are of its batch."""
        own = isinstance(setting, OwnSolve) or setting.rtol is not None
        return self.rows if own else samples_at_once(self.size, self.rows)

    def solve(self, setting: Steps, index: Tensor) -> Solved:
        """Solve the samples `index` under a setting."""
        one = partial(solve_part, self.model, setting=setting)
        return solve_samples(self.model, self.samples, index, one, self.at_once(setting))

    def rule(self, own: Solved, exact: Solved) -> Rule:
        """Return what counts as another answer, from all samples under training and exact flow."""
        if self.y is not None or self.tolerance is not None:
            return Rule(self.y, self.tolerance)
        start = self.model.outputs(self.samples.z)
        return Rule(None, None, find_scale(exact.outputs, start, own.outputs))

    def prove(self, own: Solved, finer: list[Tensor]) -> Reference:
        """Solve the exact flow of all samples until it is settled.

        Args:
            own: All samples under the training solver.
            finer: Ends of the probe under it in twice and four times its steps, where it has steps.
        """
        at_once = self.at_once(self.trained if self.size > SMALL else self.exact)
        ends = (own.z[self.probe], *finer)
        yardstick = partial(self._yardstick, own)
        proof = Proof(self.samples, own.z, yardstick, ends, self.probe, at_once)
        return prove(proof, self.solver)

    def _yardstick(self, own: Solved, exact: Solved) -> Yardstick:
        """Return how ends are compared while the exact flow proves itself."""
        rule = self.rule(own, exact)

        def same(index: Tensor, z: Tensor, other: Tensor) -> Tensor:
            a, b = self.model.outputs(z), self.model.outputs(other)
            if self.y is not None:
                return ~rule.changed(a, b)
            return rule.changed(a, own.outputs[index]) == rule.changed(b, own.outputs[index])

        return Yardstick(find_scale(exact.z, self.samples.z), same)


@contextmanager
def forked() -> Iterator[None]:
    """Compute without gradients, and leave the generators of all devices as they are."""
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.no_grad(), torch.random.fork_rng(gpus):
        yield


def pose(
    field: Callable[..., Any],
    head: Layers | None,
    x: Any,
    y: Any = None,
    *,
    t: Any = (0.0, 1.0),
    stem: Layers | None = None,
    tolerance: Any = None,
    rows: Any = 1000,
    args: Tree = None,
    scan: probes.TimeScan | None = None,
    **training: Any,
) -> Problem:
    """Check and probe the arguments of `check_flow`; raise ValueError.

    A model whose `scan` in time is given has been probed before and is not probed again.
    """
    times, rows = inputs.read_times(t), inputs.whole("rows", rows)
    solved = (-times[0], -times[1]) if times[1] < times[0] else times
    trained, notes = read_training(t=solved, **training)
    x = inputs.read_inputs(x)
    n = len(tensors_of(x)[0])
    y, tolerance = inputs.read_labels(y, n), _read_tolerance(tolerance, y)
    inputs.check_args(args, n)
    model = FlowModel(field, head, stem, x, times, args)
    if stem is not None and scan is None:
        probes.probe_stem(model, x)
    samples = _start(model, x, args, rows)
    if scan is None:
        probes.probe_field(model, samples)
        probes.probe_head(model, samples.z)
        scan = probes.scan_time(model, samples)
    _check_outputs(model, samples, y)
    y = None if y is None else y.to(model.device)
    size = samples.z[0].numel()
    probe = probes.random_index(n, max(LEAST_PROBE, PROBE_NUMBERS // size))
    steps = _training_times(model, samples[probe[:PILOT]], trained)
    rtol = _exact_rtol(model, size, trained)
    double = model.in_float64 and (size <= SMALL or rtol < FLOAT32_RTOL)
    solver = ExactSolver(model, make_mesh(steps, scan.jumps, scan.depends), rtol, double)
    probabilities = y is not None and probes.is_probability(model, samples.z[probe[:FEW]])
    notes += [CLASSICAL[trained.solver]] if trained.solver in CLASSICAL else []
    notes += [*model.notes, *scan.notes()]
    if probabilities:
        notes.append("the head gives probabilities: they are taken as such, with no softmax")
    return Problem(
        model, samples, y, trained, tolerance, rows, probe, scan, solver, probabilities,
        tuple(notes),
    )  # fmt: skip


def _read_tolerance(tolerance: Any, y: Any) -> float | None:
    if tolerance is None:
        return None
    if y is not None:
        raise ValueError(f"tolerance = {tolerance!r} is for outputs without labels; leave out y")
    return inputs.positive("tolerance", tolerance)


def _start(model: FlowModel, x: Tree, args: Tree, rows: int) -> Samples:
    """Return the samples at the start."""
    n = len(tensors_of(x)[0])
    parts = [map_tensors(lambda p, a=a: p[a : a + rows], x) for a in range(0, n, rows)]
    z = torch.cat([model.start(part) for part in parts])
    return Samples(z, map_tensors(model.cast, args))


def _check_outputs(model: FlowModel, samples: Samples, y: Tensor | None) -> None:
    """Raise ValueError unless the head gives logits for the labels."""
    outputs = model.outputs(samples.z[:FEW])
    classes = 0 if y is None else int(y.max()) + 1
    if classes and (outputs.dim() != 2 or outputs.shape[1] < max(2, classes)):
        raise ValueError(
            f"head returned {tuple(outputs.shape)} for {len(outputs)} states and labels up to "
            f"{classes - 1}: give logits (batch, classes); for a single logit v of shape (batch, "
            "1), torch.cat([torch.zeros_like(v), v], 1), for a single probability p "
            "torch.cat([1 - p, p], 1)"
        )


def _training_times(model: FlowModel, samples: Samples, trained: Steps) -> Tensor:
    """Return times of the training's steps, ascending; of equal ones where they are not known."""
    start, end, n_steps = *model.t, trained.n_steps or UNKNOWN_STEPS
    if isinstance(trained, TimeGrid):
        return torch.tensor(trained.times, dtype=torch.float64)
    if not isinstance(trained, FixedSteps):
        try:
            ts = solve_part(model, samples, trained).ts
            assert ts is not None
            return ts
        except SolveError:
            pass  # of these samples; the check itself tells
    return torch.linspace(start, end, n_steps + 1, dtype=torch.float64)


def _exact_rtol(model: FlowModel, size: int, trained: Steps) -> float:
    """Return a tolerance as fine as is cheap, and below the training's."""
    cheap = model.in_float64 and size <= SMALL
    rtol = min(EXACT_RTOL if cheap else FLOAT32_RTOL, (trained.rtol or 1.0) / 10)
    if rtol < FLOAT32_RTOL and not model.in_float64:
        raise ValueError(
            f"rtol = {trained.rtol}: a check of it needs float64, which a field that is no "
            "nn.Module cannot be brought to; give the module itself as field, or make all it uses "
            "float64, and x"
        )
    return rtol
