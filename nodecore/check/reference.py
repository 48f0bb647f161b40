"""Solve the exact flow, and prove it before anything is judged by it.

It is dopri5 at a fine tolerance, from time to time of a mesh: the training's own steps (at least 64
of them, where the field does not depend on time), so that it never steps over what the training
could see, and the jumps that a scan of the field in time found. A sample is *settled* where three
solves give the same answer: this one, one at a tenth of the tolerance, and one by another method,
the 3/8 rule in halves of the latter's steps. Besides, where the training solver in finer steps
tends to somewhere else, the mesh must be refined without moving the end. What is not settled is
solved again, at a hundredth of the tolerance on a finer mesh; what is never settled counts for
either answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nodecore.analysis.evaluate import FLOAT32_RTOL
from nodecore.check.inputs import Samples
from nodecore.check.model import Field, FlowModel
from nodecore.check.scale import Scale
from nodecore.check.settings import divided
from nodecore.check.solves import (
    Part,
    Patience,
    Solved,
    at_times,
    solve_samples,
    walk_adaptively,
    walk_times,
)

METHOD, SECOND = "dopri5", "rk4_38"
FINER = 10.0  # the tolerance of the second look is so much smaller
ROUNDS = 3  # of solving again what is not settled
TIGHTER, DENSER = 100.0, 4  # from round to round: the tolerance, and the mesh
FLOOR, FLOAT32_FLOOR = 1e-10, 1e-6  # the least tolerances that float64 and float32 can hold
# Two ends are the same within APART of the distance to the training's end, or NOISE of the scale.
APART, NOISE = 0.1, 0.01
# The finer rows end elsewhere beyond AWAY times their last change plus CLOSE of the scale.
AWAY, CLOSE = 4.0, 0.03
FAR = 1e3  # times the median distance travelled: a sample that may have no end state
MESH, STEADY_MESH = 4096, 128  # times of a mesh that are kept; where the field knows no time

SameAnswer = Callable[[Tensor, Tensor, Tensor], Tensor]  # (index, z, z) -> (m,) bool


Mesh = tuple[float, ...]  # times at which the exact flow starts anew, ascending from start to end


def make_mesh(
    steps: Tensor, jumps: tuple[float, ...], timed: bool, wanted: tuple[float, ...] = ()
) -> Mesh:
    """Make the mesh of a training's steps and of the jumps of a field.

    Args:
        steps: Times of the steps, ascending.
        jumps: Times at which the field jumps; one takes the place of a step that differs from it by
            rounding.
        timed: Whether the field depends on time; if not, 64 to 128 times are kept of more steps.
        wanted: Times at which outputs count, from start to end; they take precedence.
    """
    times = [float(t) for t in steps]
    close = 1e-6 * (times[-1] - times[0])
    inner = times[1:-1][:: 1 + len(times) // (MESH if timed else STEADY_MESH)]
    fixed = [*wanted[1:-1]]
    fixed += [jump for jump in jumps if all(abs(jump - t) > close for t in fixed)]
    kept = [t for t in inner if all(abs(t - other) > close for other in fixed)]
    return (times[0], *sorted([*kept, *fixed]), times[-1])


@dataclass(frozen=True)
class ExactSolver:
    """The exact flow at a tolerance along a mesh; in float64 if `double` and the model can."""

    model: FlowModel
    mesh: Mesh
    rtol: float
    double: bool

    def once(self, samples: Samples) -> Part:
        """Solve a part."""
        f, z = self.model.exact_field(samples, self.double)
        part = self._walk(f, z, self.rtol)
        return replace(part, z=part.z.to(samples.z.dtype))

    def _walk(self, f: Field, z: Tensor, rtol: float) -> Part:
        model = self.model
        wanted, parts = model.output_times, model.packing.sizes
        return walk_adaptively(f, z, self.mesh, METHOD, rtol, wanted, parts)

    def twice(self, samples: Samples) -> Part:
        """Solve a part at a finer tolerance, and by the second method in halves of its steps."""
        f, z = self.model.exact_field(samples, self.double)
        floor = FLOOR / FINER if self.double and self.model.in_float64 else FLOAT32_FLOOR
        finer = self._walk(f, z, max(self.rtol / FINER, floor))
        assert finer.ts is not None
        halves = divided(tuple(finer.ts.tolist()), 2)
        path = walk_times(f, z, halves, SECOND, inside=True)
        wanted, ts = self.model.output_times, torch.tensor(halves, dtype=torch.float64)
        other = at_times(torch.stack(path), ts, wanted) if wanted else path[-1]
        dtype, nfe = samples.z.dtype, finer.nfe + 4 * (len(halves) - 1)
        return Part(finer.z.to(dtype), other=other.to(dtype), nfe=nfe)

    def finer(self, mesh: bool, tolerance: bool) -> "ExactSolver":
        """Return one with a finer mesh or tolerance, as wanted, as far as these can be finer."""
        finer = self
        if mesh and len(self.mesh) <= STEADY_MESH:
            finer = replace(finer, mesh=divided(self.mesh, DENSER))
        floor = FLOOR if self.model.in_float64 else FLOAT32_RTOL
        if tolerance and self.rtol > floor:
            rtol = max(self.rtol / TIGHTER, floor)
            finer = replace(finer, rtol=rtol, double=True)
        return finer


# --- all samples ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Yardstick:
    """The scale of end states, and whether ends z and z' of samples give the same answer."""

    scale: Scale
    same: SameAnswer


@dataclass(frozen=True)
class Proof:
    """What is proved, and against what.

    Attributes:
        samples: All samples, n of them.
        trained: The training's ends (n, ...).
        yardstick: Gives the yardstick, from the first exact flow.
        finer: Ends of the training solver in its steps, twice and four times these, of the samples
            `probe`; fewer where it has no fixed steps.
        probe: Samples that are looked at first, (m,).
        at_once: Largest number of samples of a part.
        patience: With Ctrl-C; see `solve_samples`.
    """

    samples: Samples
    trained: Tensor
    yardstick: Callable[[Solved], Yardstick]
    finer: tuple[Tensor, ...]
    probe: Tensor
    at_once: int
    patience: Patience | None = None


@dataclass(frozen=True)
class Reference:
    """The exact flow of all samples: which are settled (n,) bool, how many were solved again."""

    solved: Solved
    settled: Tensor
    again: int

    @property
    def notes(self) -> list[str]:
        """What the reader should know of it."""
        if not self.again:
            return []
        n_open, n = int((self.solved.known & ~self.settled).sum()), len(self.settled)
        text = f"{self.again:,} of {n:,} samples needed a finer exact flow"
        return [
            f"{text}; for {n_open:,} it has not converged" if n_open else f"{text}; all converged"
        ]


def prove(proof: Proof, solver: ExactSolver) -> Reference:
    """Solve the exact flow of all samples, and find out for which of them it is settled.

    The probe is looked at first; where all of it is settled, the others are taken to be, too.
    """
    everyone = torch.arange(len(proof.samples))
    solved = _solve(proof, solver, everyone)
    known, yardstick = solved.known, proof.yardstick(solved)
    doubted = doubts(proof, yardstick.scale, solved.z)
    agreed = known.clone()
    probed = torch.zeros_like(known, device="cpu").index_fill(0, proof.probe, True)
    for index in (everyone[known.cpu() & probed], everyone[known.cpu() & ~probed]):
        agreed[index] = _agree(proof, solver, solved, yardstick, index)
        if len(index) and bool(agreed[index].all()):
            break
    todo = everyone[(known & ~(agreed & ~doubted)).cpu()]
    again = len(todo)
    for _ in range(ROUNDS):
        finer = solver.finer(bool(doubted[todo].any()), not bool(agreed[todo].all()))
        if len(todo) == 0 or finer == solver:
            break  # nothing is open, or nothing can be finer
        solver, before = finer, solved
        solved = _replaced(solved, _solve(proof, solver, todo))
        stays = _together(proof, yardstick, todo, solved.z[todo], before.z[todo])
        moved = todo[~(agreed[todo] & stays).cpu()]
        agreed[moved] = _agree(proof, solver, solved, yardstick, moved)
        doubted[todo] &= doubts(proof, yardstick.scale, solved.z)[todo] & ~stays
        todo = todo[(~agreed | doubted)[todo].cpu()]
    return Reference(solved, agreed & ~doubted & known, again)


def _solve(proof: Proof, solver: ExactSolver, index: Tensor, twice: bool = False) -> Solved:
    """Solve samples; those that the training carries extraordinarily far are parts of their own."""
    travel = (
        (proof.trained - solver.model.still(proof.samples.z))
        .reshape(len(proof.trained), -1)
        .norm(dim=1)
        .cpu()
    )
    calm = travel <= FAR * travel[torch.isfinite(travel)].nanmedian()
    solve = solver.twice if twice else solver.once
    where = (proof.samples, index, solve, proof.at_once, calm, proof.patience)
    return solve_samples(solver.model, *where)


def _replaced(solved: Solved, better: Solved) -> Solved:
    """Put the samples of `better` in the place of theirs."""
    outputs, z = solved.outputs.clone(), solved.z.clone()
    outputs[better.index], z[better.index] = better.outputs, better.z
    failures = tuple(dict.fromkeys([*solved.failures, *better.failures]))
    return replace(solved, outputs=outputs, z=z, nfe=max(solved.nfe, better.nfe), failures=failures)


def _agree(
    proof: Proof, solver: ExactSolver, solved: Solved, yardstick: Yardstick, index: Tensor
) -> Tensor:
    """Tell whether three solves of samples agree, (m,) bool."""
    if len(index) == 0:
        return torch.ones(0, dtype=torch.bool, device=solved.z.device)
    looked = _solve(proof, solver, index, twice=True)
    first, second = (
        _together(proof, yardstick, index, solved.z[index], z) for z in (looked.z, looked.other)
    )
    return first & second


def _together(
    proof: Proof, yardstick: Yardstick, index: Tensor, z: Tensor, other: Tensor
) -> Tensor:
    """Tell whether two ends (m, ...) of samples are one and the same, as far as a verdict goes."""
    scale = yardstick.scale
    apart = scale.distance(z, other)
    moved = scale.distance(z, proof.trained[index]).nan_to_num(0.0, 0.0)
    near = apart <= (APART * moved).clamp(min=NOISE)
    return near & yardstick.same(index, z, other)  # what is not finite is not near


def doubts(proof: Proof, scale: Scale, z: Tensor) -> Tensor:
    """Tell where the training solver in finer steps tends to another end than z (n, ...)."""
    doubted = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    if len(proof.finer) < 3:
        return doubted
    own, twice, four = proof.finer
    first, second = scale.distance(own, twice), scale.distance(twice, four)
    gap = scale.distance(four, z[proof.probe])
    doubted[proof.probe] = (gap > AWAY * second + CLOSE) & (second <= first + CLOSE)
    return doubted
