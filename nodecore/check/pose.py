"""Pose a check: read its arguments, probe the model, choose samples and steps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from nodecore.analysis.evaluate import AGREEMENT, EXACT_RTOL, FLOAT32_RTOL
from nodecore.check import inputs, probes
from nodecore.check.inputs import Samples, Tree, map_tensors, tensors_of
from nodecore.check.model import FEW, FlowModel, Layers
from nodecore.check.problem import LEAST_PROBE, PROBE_NUMBERS, SMALL, Problem
from nodecore.check.reference import ExactSolver, make_mesh
from nodecore.check.settings import (
    CLASSICAL,
    read_grid,
    read_training,
    steps_past,
    times_of,
    without_rounding,
)
from nodecore.check.solves import solve_part
from nodecore.check.verdict import Loss
from nodecore.ode.solution import SolveError
from nodecore.ode.steps import FixedSteps, Steps

LOSS_ROWS = 64  # samples that a loss is asked about, whether it mixes them
PILOT = 64  # samples that show the steps of a training that chooses them itself
UNKNOWN_STEPS = 64  # of a training whose steps are not known
ARE_PROBABILITIES = "the head gives probabilities: they are used as they are, without a softmax"


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
    loss: Any = None,
    bound: Any = AGREEMENT,
    output_times: Any = None,
    rows: Any = 1000,
    args: Tree = None,
    scan: probes.TimeScan | None = None,
    **training: Any,
) -> Problem:
    """Check and probe the arguments of `check_flow`; raise ValueError.

    A model whose `scan` in time is given is not probed here.
    """
    if not callable(field):
        raise ValueError(f"field = {field!r}: give a function (t, z) -> dz/dt, or a module")
    for name, layers in (("head", head), ("stem", stem)):
        if layers is not None and not callable(layers):
            raise ValueError(
                f"{name} is {type(layers).__name__}: give a function or module, or None; the order "
                "is field, head, x, y"
            )
    times, rows = inputs.read_times(t), inputs.whole("rows", rows)
    solved = inputs.ascending(times)
    trained, notes = read_training(solved, **training)
    x = inputs.read_inputs(x, integers=stem is not None)  # such as words, which a stem embeds
    n = len(tensors_of(x)[0])
    tolerance, bound = _read_tolerance(tolerance, y, loss), _read_bound(bound)
    targets = inputs.read_targets(y, n) if loss is not None else None
    y = None if loss is not None else inputs.read_labels(y, n)
    args = inputs.read_args(args, n)
    wanted = () if output_times is None else read_grid("output_times", output_times, solved)
    model = FlowModel(field, head, stem, x, times, args, wanted)
    _check_output_times(trained, model)
    samples, scan = _probed(model, x, args, rows, stem, scan)
    outputs = model.outputs(model.still(samples.z[:FEW]))
    _check_outputs(outputs, y)
    if loss is not None and targets is not None:
        index = probes.random_index(n, LOSS_ROWS)
        of_some = model.outputs(model.still(samples.z[index]))
        loss = _loss_of_rows(loss, model.cast(targets), of_some, index)
    tolerance = _fit_tolerance(tolerance, outputs)
    y = None if y is None else y.to(model.device)
    size = samples.z[0].numel()
    probe = probes.random_index(n, max(LEAST_PROBE, PROBE_NUMBERS // size))
    steps = _training_times(model, samples[probe[:PILOT]], trained)
    rtol, of_rtol = _exact_rtol(model, size, trained)
    double = model.in_float64 and (size <= SMALL or rtol < FLOAT32_RTOL)
    mesh = make_mesh(steps, scan.jumps, scan.depends, wanted)
    solver = ExactSolver(model, mesh, rtol, double)
    few = samples.z[probe[:FEW]]
    probabilities = y is not None and probes.is_probability(model, model.still(few))
    by_time = bool(wanted) and (head is None or (y is None and probes.is_by_time(model, few)))
    notes += [CLASSICAL[trained.solver]] if trained.solver in CLASSICAL else []
    notes += [*model.notes, *of_rtol, *scan.notes(model.sign)]
    notes += [ARE_PROBABILITIES] if probabilities else []
    notes += [_about_times(len(wanted), by_time)] if wanted else []
    return Problem(
        model=model,
        samples=samples,
        y=y,
        trained=trained,
        tolerance=tolerance,
        loss=loss,
        bound=bound,
        rows=rows,
        probe=probe,
        scan=scan,
        solver=solver,
        probabilities=probabilities,
        by_time=by_time,
        notes=tuple(notes),
    )


def _probed(model, x, args, rows, stem, scan):
    """Return the states at the start and the scan in time, which probes the model unless given."""
    asked = probes.random_index(len(tensors_of(x)[0]), rows)
    if stem is not None and scan is None:
        probes.probe_stem(model, map_tensors(lambda part: part[asked.to(part.device)], x))
    samples = _start(model, x, args, rows)
    if scan is None:
        some = samples[asked]
        probes.probe_field(model, some)
        probes.probe_head(model, model.still(some.z))
        scan = probes.scan_time(model, samples)
    return samples, scan


def _read_tolerance(tolerance: Any, y: Any, loss: Any) -> float | Tensor | None:
    """Return a number, or numbers (outputs,); raise ValueError."""
    if loss is not None:
        if not callable(loss) or y is None:
            raise ValueError(
                f"loss = {loss!r}: give a function (outputs, targets) -> (m,), and targets as y"
            )
        if tolerance is None:
            raise ValueError("loss is given: say as tolerance= which change of it counts")
        return inputs.positive("tolerance", tolerance)
    if tolerance is None:
        return None
    if y is not None:
        raise ValueError(f"tolerance = {tolerance!r} is for outputs without labels; leave out y")
    if isinstance(tolerance, list | tuple) or getattr(tolerance, "ndim", 0):
        return torch.tensor([inputs.positive("tolerance", value) for value in tolerance])
    return inputs.positive("tolerance", tolerance)


def _read_bound(bound: Any) -> float:
    bound = inputs.positive("bound", bound)
    if not bound < 1:
        raise ValueError(f"bound = {bound}: give a share in (0, 1), by default {AGREEMENT}")
    return bound


def _fit_tolerance(tolerance: float | Tensor | None, outputs: Tensor) -> float | Tensor | None:
    """Return the tolerance where the outputs (m, ...) are; raise ValueError if it does not fit."""
    if not isinstance(tolerance, Tensor):
        return tolerance
    if outputs.dim() < 2 or outputs.shape[-1] != len(tolerance):
        raise ValueError(
            f"tolerance has {len(tolerance)} entries for outputs {tuple(outputs.shape)}: give one "
            "number, or one for each entry of the last axis"
        )
    return tolerance.to(outputs)


def _loss_of_rows(
    loss: Callable[..., Any], targets: Tensor, outputs: Tensor, index: Tensor
) -> Loss:
    """Return a loss of outputs and rows; raise ValueError unless it is one number a sample.

    It is asked about the outputs (m, ...) of samples `index`.
    """
    rows = Samples(outputs, targets[index.to(targets.device)])
    found = loss(rows.z, rows.args)
    if isinstance(found, Tensor) and not found.is_floating_point():
        raise ValueError(f"loss returned {found.dtype}: give floating-point numbers, .double()")
    if not isinstance(found, Tensor) or found.shape != (len(outputs),):
        raise ValueError(
            f"loss returned {tuple(getattr(found, 'shape', ()))} for {len(outputs)} samples: give "
            "one number for each, such as F.mse_loss(out, y, reduction='none').flatten(1).mean(1)"
        )
    remedy = _loss_remedy(outputs, rows.args)
    probes.probe_rows("loss", lambda part: loss(part.z, part.args), rows, remedy, alone=remedy)
    return lambda outputs, index: loss(outputs, targets[index.to(targets.device)])


def _loss_remedy(outputs: Tensor, targets: Tensor) -> str:
    """Return the remedy for a loss that mixes samples: most often shapes that broadcast."""
    shapes = f"for outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}"
    said = f"a sample's loss must be of its own row alone; {shapes}:"
    if targets.dim() == 1 and outputs.shape[1:] == (1,):
        return f"{said} give y[:, None], or they are broadcast to all pairs"
    if outputs.dim() == 1 and targets.shape[1:] == (1,):
        return f"{said} give y[:, 0], or they are broadcast to all pairs"
    return f"{said} take no mean over the first axis"


def _check_output_times(trained: Steps, model: FlowModel) -> None:
    past = steps_past(trained, model.t, model.output_times)
    if past is not None:
        time = model.sign * past + 0.0
        raise ValueError(
            f"output_times holds {time:.6g}, where no step of {trained} ends: give all times of "
            "the training's steps as grid=, or, if its solver interpolates, the solver as solve="
        )


def _about_times(n_times: int, by_time: bool) -> str:
    counts = "if it changes at any of them" if by_time else "if it changes as a whole"
    return (
        f"the verdict is about the trajectory at {n_times} times: an output counts as changed "
        f"{counts}; each distance is the largest over these times"
    )


def _start(model: FlowModel, x: Tree, args: Tree, rows: int) -> Samples:
    """Return the samples at the start."""
    n = len(tensors_of(x)[0])
    parts = [map_tensors(lambda p, a=a: p[a : a + rows], x) for a in range(0, n, rows)]
    z = torch.cat([model.start(part) for part in parts])
    return Samples(z, map_tensors(model.cast, args))


def _check_outputs(outputs: Tensor, y: Tensor | None) -> None:
    """Raise ValueError unless outputs (m, ...) are numbers, and logits for the labels."""
    if outputs.is_complex():
        raise ValueError(
            "head returned complex numbers: give their parts, torch.view_as_real(out).flatten(1)"
        )
    classes = 0 if y is None else int(y.max()) + 1
    if y is None or (outputs.dim() == 2 and outputs.shape[1] >= max(2, classes)):
        return
    remedy = (
        "give logits (batch, classes); for a single logit v of shape (batch, 1), "
        "torch.cat([torch.zeros_like(v), v], 1), for a single probability p "
        "torch.cat([1 - p, p], 1); for a regression leave out y"
    )
    if int(y.min()) == 1 and outputs.shape[1:] == (classes - 1,):
        remedy = f"labels begin at 1 here: give y - 1; or {remedy}"
    raise ValueError(
        f"head returned {tuple(outputs.shape)} for {len(outputs)} states and labels up to "
        f"{classes - 1}: {remedy}"
    )


def _training_times(model: FlowModel, samples: Samples, trained: Steps) -> Tensor:
    """Return times of the training's steps, ascending; of equal ones where they are not known."""
    start, end, n_steps = *model.t, trained.n_steps or UNKNOWN_STEPS
    if times := times_of(trained, (start, end)):
        return torch.tensor(times, dtype=torch.float64)
    if not isinstance(trained, FixedSteps):
        try:
            ts = solve_part(model, samples, trained).ts
            assert ts is not None
            return ts
        except SolveError:
            pass  # of these samples; the check itself tells
    return torch.linspace(start, end, n_steps + 1, dtype=torch.float64)


def _exact_rtol(model: FlowModel, size: int, trained: Steps) -> tuple[float, list[str]]:
    """Return a tolerance as fine as is cheap, and below the training's; a note where it is not."""
    cheap = model.in_float64 and size <= SMALL
    finer = without_rounding((trained.rtol or 1.0) / 10)
    rtol = min(EXACT_RTOL if cheap else FLOAT32_RTOL, finer)
    if rtol >= FLOAT32_RTOL or model.in_float64:
        return rtol, []
    return FLOAT32_RTOL, [
        f"rtol = {trained.rtol:.3g} is finer than float32 can hold, also in training; the exact "
        f"flow uses {FLOAT32_RTOL:.3g}, because the field cannot be brought to float64: "
        f"{model.only_float32}"
    ]
