"""What one check is about: a model, its samples, the training's setting; probed beforehand."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nodecore.analysis.evaluate import EXACT_RTOL, FLOAT32_RTOL
from nodecore.check.inputs import (
    Samples,
    Tree,
    map_tensors,
    positive,
    read_inputs,
    read_labels,
    read_times,
    tensors_of,
    whole,
)
from nodecore.check.model import FEW, FlowModel, Layers
from nodecore.check.probes import (
    TimeScan,
    describe,
    is_probability,
    probe_field,
    probe_head,
    probe_stem,
    random_index,
    scan_time,
)
from nodecore.check.reference import Mesh, first_solve, make_mesh, second_look
from nodecore.check.report import FlowCost
from nodecore.check.settings import (
    CLASSICAL,
    OwnSolve,
    better_settings,
    count_nfe,
    read_training,
    searched_settings,
)
from nodecore.check.solves import samples_at_once, solve_part
from nodecore.ode.solution import SolveError
from nodecore.ode.steps import FixedSteps, Steps, Tolerance

SMALL = 64  # entries of a state up to which float64 costs little
PROBE_NUMBERS, LEAST_PROBE = 100_000, 64  # entries of the states, and samples, of other solvers
PILOT = 64  # samples that show the steps of a training that chooses them itself
UNKNOWN_STEPS = 64  # of a training whose steps are not known
JACOBIANS = 2 * 20 * 16 * 5  # products: with J and its transpose, iterations, samples, times


@dataclass(frozen=True)
class Problem:
    """A check's model and samples z (n, ...) with labels y (n,), or None; the training's setting;
    the probe (m,): samples of other solvers; the mesh of the exact flow at `rtol`; notes."""

    model: FlowModel
    samples: Samples
    y: Tensor | None
    trained: Steps
    tolerance: float | None
    rows: int
    probe: Tensor
    scan: TimeScan
    mesh: Mesh
    rtol: float
    probabilities: bool
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Numbers of one state."""
        return self.samples.z[0].numel()

    @property
    def exact(self) -> Tolerance:
        """The setting of the exact flow."""
        return Tolerance("dopri5", self.rtol)

    @property
    def double(self) -> bool:
        """Whether the exact flow is solved in float64 from the start."""
        return self.model.in_float64 and (self.size <= SMALL or self.rtol < FLOAT32_RTOL)

    @property
    def better(self) -> list[Steps]:
        """Finer settings that are shown."""
        return [s for s in better_settings(self.trained) if s != self.exact]

    @property
    def searched(self) -> list[Steps]:
        """The training solver's, coarse to fine."""
        return searched_settings(self.trained)

    @property
    def probed(self) -> list[Steps]:
        """What is solved for the probe alone."""
        every = dict.fromkeys([*self.better, *self.searched])
        return [s for s in every if s not in (self.trained, self.exact)]

    @property
    def chance(self) -> float | None:
        """Share of the largest class, None without labels."""
        return None if self.y is None else float(torch.bincount(self.y).max()) / len(self.y)

    def at_once(self, setting: Steps) -> int:
        """Samples of a part; only steps that a training chose by itself are its whole batch's."""
        own = isinstance(setting, OwnSolve) or setting.rtol is not None
        return self.rows if own else samples_at_once(self.size, self.rows)


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
    **training: Any,
) -> Problem:
    """The problem of these arguments of `check_flow`, checked and probed. ValueError."""
    times, rows = read_times(t), whole("rows", rows)
    solved = (-times[0], -times[1]) if times[1] < times[0] else times
    trained, notes = read_training(t=solved, **training)
    x = read_inputs(x)
    y = read_labels(y, len(tensors_of(x)[0]))
    tolerance = _read_tolerance(tolerance, y)
    _check_args(args, len(tensors_of(x)[0]))
    model = FlowModel(field, head, stem, x, times, args)
    samples = _start(model, stem, x, args, rows)
    _check_outputs(model, samples, y)
    scan = scan_time(model, samples)
    y = None if y is None else y.to(model.device)
    size = samples.z[0].numel()
    probe = random_index(len(samples), max(LEAST_PROBE, PROBE_NUMBERS // size))
    steps = _training_times(model, samples[probe[:PILOT]], trained)
    mesh = make_mesh(steps, scan.jumps, scan.depends)
    rtol = _exact_rtol(model, size, trained)
    probabilities = y is not None and is_probability(model, samples.z[probe[:FEW]])
    notes = [*notes, *_said(trained), *model.notes, *describe(scan)]
    if probabilities:
        notes.append("the head gives probabilities: they are taken as such, with no softmax")
    return Problem(
        model, samples, y, trained, tolerance, rows, probe, scan, mesh, rtol, probabilities,
        tuple(notes),
    )  # fmt: skip


def _said(trained: Steps) -> list[str]:
    return [CLASSICAL[trained.solver]] if trained.solver in CLASSICAL else []


def _read_tolerance(tolerance: Any, y: Tensor | None) -> float | None:
    if tolerance is None:
        return None
    if y is not None:
        raise ValueError(f"tolerance = {tolerance!r} is for outputs without labels; leave out y")
    return positive("tolerance", tolerance)


def _check_args(args: Tree, n: int) -> None:
    for part in tensors_of(args):
        if part.dim() < 1 or len(part) != n:
            raise ValueError(
                f"args has a tensor of shape {tuple(part.shape)} for {n} samples: give a row for "
                "each sample; let the field close over what all samples share"
            )


def _start(model: FlowModel, stem: Layers | None, x: Tree, args: Tree, rows: int) -> Samples:
    """The samples at the start, after stem and field have been probed."""
    if stem is not None:
        probe_stem(model, x)
    n = len(tensors_of(x)[0])
    parts = [map_tensors(lambda p, a=a: p[a : a + rows], x) for a in range(0, n, rows)]
    samples = Samples(
        torch.cat([model.start(part) for part in parts]), map_tensors(model.cast, args)
    )
    probe_field(model, samples)
    probe_head(model, samples.z)
    return samples


def _check_outputs(model: FlowModel, samples: Samples, y: Tensor | None) -> None:
    outputs = model.outputs(samples.z[:FEW])
    if y is None:
        return
    classes = int(y.max()) + 1
    if outputs.dim() != 2 or outputs.shape[1] < max(2, classes):
        raise ValueError(
            f"head returned {tuple(outputs.shape)} for {len(outputs)} states and labels up to "
            f"{classes - 1}: give logits (batch, classes); for a single logit v of shape (batch, "
            "1), torch.cat([torch.zeros_like(v), v], 1), for a single probability p "
            "torch.cat([1 - p, p], 1)"
        )


def _training_times(model: FlowModel, samples: Samples, trained: Steps) -> Tensor:
    """Times of the training's steps, ascending; of some equal ones where they are not known."""
    start, end = model.t
    if isinstance(trained, FixedSteps):
        return torch.linspace(start, end, trained.n_steps + 1, dtype=torch.float64)
    try:
        ts = solve_part(model, samples, trained).ts
        assert ts is not None
        return ts.cpu()
    except SolveError:
        return torch.linspace(start, end, UNKNOWN_STEPS + 1, dtype=torch.float64)


def _exact_rtol(model: FlowModel, size: int, trained: Steps) -> float:
    """As fine as is cheap, and below the training's."""
    cheap = model.in_float64 and size <= SMALL
    rtol = min(EXACT_RTOL if cheap else FLOAT32_RTOL, (trained.rtol or 1.0) / 10)
    if rtol < FLOAT32_RTOL and not model.in_float64:
        raise ValueError(
            f"rtol = {trained.rtol}: a check of it needs float64, which a field that is no "
            "nn.Module cannot be brought to; give the module itself as field, or make all it uses "
            "float64, and x"
        )
    return rtol


# --- the cost -------------------------------------------------------------------------------------


def cost_of(problem: Problem) -> FlowCost:
    """Fixed steps counted, adaptive ones measured on a few samples."""
    n, probed = len(problem.samples), len(problem.probe)
    plan = dict.fromkeys(problem.probed, probed) | {problem.trained: n}
    fixed = sum(m * count_nfe(s) for s, m in plan.items())
    few = problem.samples[problem.probe[:FEW]]
    chosen = [(s, m) for s, m in plan.items() if not count_nfe(s)]
    adaptive = sum(m * _nfe(lambda s=s: solve_part(problem.model, few, s)) for s, m in chosen)
    rest = (problem.mesh, problem.rtol, problem.double)
    once = _nfe(lambda: first_solve(problem.model, *rest)(few))
    proof = _nfe(lambda: second_look(problem.model, *rest)(few))
    exact = n * once + probed * proof
    jacobians = JACOBIANS * min(16, n) // 16
    seconds = _seconds_of_one(problem) * (fixed + adaptive + (1 + problem.double) * exact)
    return FlowCost(n, fixed, jacobians, adaptive + exact, seconds)


def _nfe(solve: Callable[[], Any]) -> int:
    try:
        return solve().nfe
    except SolveError:
        return 0


def _seconds_of_one(problem: Problem) -> float:
    """Seconds that the field takes for one sample of a batch."""
    part = problem.samples[: problem.at_once(problem.exact)]
    f = problem.model.field(part.args)
    began = time.perf_counter()
    float(f(problem.model.t[0], part.z).sum())  # waits for a GPU
    return (time.perf_counter() - began) / len(part)
