"""The exact flow, which proves itself before anything is judged by it.

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
from itertools import pairwise

import torch
from torch import Tensor

from nodecore.analysis.evaluate import FLOAT32_RTOL
from nodecore.check.inputs import Samples
from nodecore.check.model import FlowModel
from nodecore.check.scale import Scale
from nodecore.check.solves import (
    Part,
    Solved,
    from_inside,
    solve_samples,
    walk_times,
)
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.solution import VectorField

METHOD, SECOND = "dopri5", "rk4_38"
FINER = 10.0  # the tolerance of the second look is so much smaller
ROUNDS = 3  # of solving again what is not settled
TIGHTER, DENSER = 100.0, 4  # from round to round: the tolerance, and the mesh
FLOOR, FLOAT32_FLOOR = 1e-10, 1e-6  # the least tolerances that float64 and float32 can hold
APART, NOISE = 0.1, 0.01  # of the distance to the training's end, or of the scale: one and the same
AWAY, CLOSE = 4.0, 0.03  # what the finer rows still move, and of the scale: they end elsewhere
FAR = 1e3  # times the median distance travelled: a sample that may have no end state
LONG, SHORT = 3000, 1000  # steps between two times of a mesh, in float64 and in float32
MESH, STEADY_MESH = 4096, 128  # times of a mesh that are kept; where the field knows no time

SameAnswer = Callable[[Tensor, Tensor, Tensor], Tensor]  # (index, z, z) -> (m,) bool


@dataclass(frozen=True)
class Mesh:
    """Times at which the exact flow starts anew, ascending from start to end."""

    times: tuple[float, ...]

    def denser(self, factor: int) -> "Mesh":
        """Each interval in `factor` equal parts."""
        inner = [a + (b - a) * i / factor for a, b in pairwise(self.times) for i in range(factor)]
        return Mesh((*inner, self.times[-1]))


def make_mesh(steps: Tensor, jumps: tuple[float, ...], timed: bool) -> Mesh:
    """The mesh of a training's steps (times, ascending) and of the jumps of a field.

    timed: whether the field depends on time; of one that does not, at least 64 times are kept of
    a training with as many steps, so that nothing is stepped over that lasts a 64th of the time.

    A jump takes the place of a time that differs from it by rounding.
    """
    times = [float(t) for t in steps]
    close = 1e-6 * (times[-1] - times[0])
    inner = times[1:-1][:: 1 + len(times) // (MESH if timed else STEADY_MESH)]
    kept = [t for t in inner if all(abs(t - jump) > close for jump in jumps)]
    return Mesh((times[0], *sorted([*kept, *jumps]), times[-1]))


@dataclass(frozen=True)
class Reference:
    """The exact flow of all samples: solved, which are settled (n,) bool, and how it came about.

    rtol: of the first solve; again: how many had to be solved again.
    """

    solved: Solved
    settled: Tensor
    rtol: float
    again: int

    @property
    def notes(self) -> list[str]:
        """What the reader should know of it."""
        if not self.again:
            return []
        open_, n = int((~self.settled).sum()), len(self.settled)
        text = f"{self.again:,} of {n:,} samples needed a finer exact flow"
        return [f"{text}; for {open_:,} it has not converged" if open_ else f"{text}, and have it"]


# --- one part, three ways -------------------------------------------------------------------------


def walk_exactly(f: VectorField, z: Tensor, mesh: Mesh, rtol: float) -> Part:
    """States z (n, ...) along a mesh, adaptive between its times. May raise SolveError."""
    nfe, steps, last = 0, [torch.tensor([mesh.times[0]], dtype=torch.float64)], None
    for a, b in pairwise(mesh.times):
        solution = solve_adaptive(
            from_inside(f, b, z.dtype),
            z,
            METHOD,
            rtol=rtol,
            atol=rtol,
            t=(a, b),
            max_steps=LONG if z.dtype == torch.float64 else SHORT,
            first_step=None if last is None else min(last, b - a),
            backend="torch",
        )
        z, ts = solution.z, solution.ts.cpu()
        last = 2 * float(ts.diff()[-2:].max())
        nfe += int(solution.nfe)
        steps.append(ts[1:])
    return Part(z, ts=torch.cat(steps), nfe=nfe)


def first_solve(
    model: FlowModel, mesh: Mesh, rtol: float, double: bool
) -> Callable[[Samples], Part]:
    """Solves a part once, at a tolerance."""

    def solve(samples: Samples) -> Part:
        f, z = model.exact_field(samples, double)
        part = walk_exactly(f, z, mesh, rtol)
        return replace(part, z=part.z.to(samples.z.dtype))

    return solve


def second_look(
    model: FlowModel, mesh: Mesh, rtol: float, double: bool
) -> Callable[[Samples], Part]:
    """Solves a part at a finer tolerance, and by the second method in halves of its steps."""

    finest = FLOOR / FINER if double and model.in_float64 else FLOAT32_FLOOR

    def solve(samples: Samples) -> Part:
        f, z = model.exact_field(samples, double)
        finer = walk_exactly(f, z, mesh, max(rtol / FINER, finest))
        ts = finer.ts.tolist() if finer.ts is not None else []
        other = walk_times(f, z, Mesh(tuple(ts)).denser(2).times, SECOND, inside=True)[-1]
        dtype = samples.z.dtype
        return Part(finer.z.to(dtype), (other.to(dtype),), nfe=finer.nfe + 8 * (len(ts) - 1))

    return solve


# --- all samples ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Yardstick:
    """The scale of end states, and whether ends z and z' of samples give the same answer."""

    scale: Scale
    same: SameAnswer


@dataclass(frozen=True)
class Proof:
    """What a proof needs to know. trained: the training's ends (n, ...); yardstick: from the first
    exact flow, the scale of end states and whether two ends (m, ...) give the same answer; finer:
    ends of the training solver in its steps, twice and four times these, of the samples `probe`;
    at_once: samples of a part; double: whether the first round is in float64."""

    model: FlowModel
    samples: Samples
    trained: Tensor
    yardstick: Callable[[Solved], "Yardstick"]
    finer: tuple[Tensor, ...]
    probe: Tensor
    at_once: int
    double: bool


def prove(proof: Proof, mesh: Mesh, rtol: float) -> Reference:
    """The exact flow of all samples, and for which of them it is settled."""
    model, everyone = proof.model, torch.arange(len(proof.samples))
    solved = _solve(proof, everyone, first_solve(model, mesh, rtol, proof.double))
    yardstick, known = proof.yardstick(solved), solved.known
    settled, doubted = _first_look(proof, mesh, rtol, solved, yardstick)
    todo = everyone[(known & (~settled | doubted)).cpu()]
    again, tolerance = len(todo), rtol
    for _ in range(ROUNDS):
        finer = _finer(mesh, tolerance, settled[todo], doubted[todo], model.in_float64)
        if len(todo) == 0 or finer == (mesh, tolerance):
            break  # nothing is open, or nothing can be finer
        (mesh, tolerance), before = finer, solved
        double = proof.double or (model.in_float64 and tolerance < rtol)
        solve = first_solve(model, mesh, tolerance, double)
        solved = _replaced(solved, _solve(proof, todo, solve))
        stays = _together(proof, yardstick, todo, solved.z[todo], before.z[todo])
        moved = todo[(~settled[todo] | ~stays).cpu()]
        if len(moved):
            settled[moved] = _agree(proof, mesh, tolerance, solved, yardstick, moved, double)
        doubted[todo] &= doubts(proof, yardstick.scale, solved.z)[todo] & ~stays
        todo = todo[(~settled | doubted)[todo].cpu()]
    return Reference(solved, settled & ~doubted & known, rtol, again)


def _finer(
    mesh: Mesh, tolerance: float, settled: Tensor, doubted: Tensor, in_float64: bool
) -> tuple[Mesh, float]:
    """Mesh and tolerance of the next round: a finer mesh for doubts, a finer tolerance for what is
    not settled."""
    if bool(doubted.any()) and len(mesh.times) <= STEADY_MESH:
        mesh = mesh.denser(DENSER)
    if not bool(settled.all()):
        tolerance = max(tolerance / TIGHTER, min(tolerance, FLOOR if in_float64 else FLOAT32_RTOL))
    return mesh, tolerance


def _first_look(
    proof: Proof, mesh: Mesh, rtol: float, solved: Solved, yardstick: Yardstick
) -> tuple[Tensor, Tensor]:
    """(n,) bool each: where three solves agree, and where the finer rows end elsewhere.

    The probe is looked at first; where all of it agrees, the others are taken to agree.
    """
    settled, doubted = solved.known.clone(), doubts(proof, yardstick.scale, solved.z)
    known = solved.known.cpu()
    probe = proof.probe[known[proof.probe]]
    if len(probe) == 0:
        return settled, doubted
    settled[probe] = _agree(proof, mesh, rtol, solved, yardstick, probe, proof.double)
    others = known.index_fill(0, probe, False).nonzero()[:, 0]
    if len(others) and not bool(settled[probe].all()):
        settled[others] = _agree(proof, mesh, rtol, solved, yardstick, others, proof.double)
    return settled, doubted


def _solve(
    proof: Proof, index: Tensor, solve: Callable[[Samples], Part], n_others: int = 0
) -> Solved:
    return solve_samples(
        proof.model, proof.samples, index, solve, proof.at_once, n_others, _calm(proof)
    )


def _calm(proof: Proof) -> Tensor:
    """(n,) bool: samples that the training solver carries no extraordinary distance."""
    travel = (proof.trained - proof.samples.z).reshape(len(proof.trained), -1).norm(dim=1).cpu()
    typical = travel[torch.isfinite(travel)]
    return travel <= FAR * typical.median() if len(typical) else torch.isfinite(travel)


def _replaced(solved: Solved, better: Solved) -> Solved:
    """The samples of `better` in the place of theirs."""
    outputs, z = solved.outputs.clone(), solved.z.clone()
    outputs[better.index], z[better.index] = better.outputs, better.z
    failures = tuple(dict.fromkeys([*solved.failures, *better.failures]))
    return replace(solved, outputs=outputs, z=z, nfe=max(solved.nfe, better.nfe), failures=failures)


def _agree(
    proof: Proof,
    mesh: Mesh,
    rtol: float,
    solved: Solved,
    yardstick: Yardstick,
    index: Tensor,
    double: bool,
) -> Tensor:
    """Whether three solves of samples `index` agree, (m,) bool."""
    looked = _solve(proof, index, second_look(proof.model, mesh, rtol, double), n_others=1)
    agrees = torch.ones(len(index), dtype=torch.bool, device=solved.z.device)
    for other in (looked.z, *looked.others):
        agrees &= _together(proof, yardstick, index, solved.z[index], other)
    return agrees


def _together(
    proof: Proof, yardstick: Yardstick, index: Tensor, z: Tensor, other: Tensor
) -> Tensor:
    """Whether two ends (m, ...) of samples are one and the same, as far as a verdict goes."""
    scale = yardstick.scale
    apart = scale.distance(z, other)
    moved = scale.distance(z, proof.trained[index]).nan_to_num(0.0, 0.0)
    near = apart <= (APART * moved).clamp(min=NOISE)
    return near & yardstick.same(index, z, other)  # what is not finite is not near


def doubts(proof: Proof, scale: Scale, z: Tensor) -> Tensor:
    """(n,) bool: the training solver in finer steps tends to another end than z (n, ...)."""
    doubted = torch.zeros(len(z), dtype=torch.bool, device=z.device)
    if len(proof.finer) < 3:
        return doubted
    own, twice, four = proof.finer
    first, second = scale.distance(own, twice), scale.distance(twice, four)
    gap = scale.distance(four, z[proof.probe])
    doubted[proof.probe] = (gap > AWAY * second + CLOSE) & (second <= first + CLOSE)
    return doubted
