"""Hold what one check needs: a model, its samples, and the rules of the verdict."""

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from nodecore.check import probes
from nodecore.check.inputs import Samples
from nodecore.check.model import FlowModel
from nodecore.check.reference import METHOD, ExactSolver, Proof, Reference, Yardstick, prove
from nodecore.check.scale import Scale, find_scale
from nodecore.check.settings import OwnSolve, better_settings, searched_settings, steps_past
from nodecore.check.solves import Patience, Solved, samples_at_once, solve_part, solve_samples
from nodecore.check.verdict import Loss, Rule, Terms
from nodecore.ode.steps import Steps, Tolerance

SMALL = 64  # entries of a state up to which float64 costs little
PROBE_NUMBERS, LEAST_PROBE = 100_000, 64  # entries of the states, and samples, of other solvers


@dataclass(frozen=True)
class Problem:
    """What one check is about.

    Attributes:
        model: Stem, field and head.
        samples: States z (n, ...) at the start, and args.
        y: Labels (n,), or None.
        trained: The training's setting.
        tolerance: Of outputs without labels, for each output if (outputs,), of a loss, or None.
        loss: Of outputs (m, ...) and rows (m,), or None.
        bound: Largest difference of accuracies, or share of changed answers, of a flow.
        rows: Largest number of samples of a batch.
        probe: Samples that other settings are solved for, (m,), ascending.
        scan: Of the field in time.
        solver: Of the exact flow.
        probabilities: Whether the head gives probabilities.
        by_time: Whether outputs are (n, times, ...), each of one of the output times.
        notes: What to keep in mind.
        patience: With Ctrl-C; see `solve_samples`.
    """

    model: FlowModel
    samples: Samples
    y: Tensor | None
    trained: Steps
    tolerance: float | Tensor | None
    loss: Loss | None
    bound: float
    rows: int
    probe: Tensor
    scan: probes.TimeScan
    solver: ExactSolver
    probabilities: bool
    by_time: bool
    notes: tuple[str, ...]
    patience: Patience | None = None

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
        """The training solver's settings, coarse to fine; only ones that reach the output times."""
        model, found = self.model, searched_settings(self.trained)
        return [s for s in found if steps_past(s, model.t, model.output_times) is None]

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
    def compared(self) -> str:
        """What a tolerance is of, in words."""
        if self.loss is not None:
            return "loss"
        return "outputs" if self.model.has_head else "end states"

    @property
    def terms(self) -> Terms:
        """What the verdict is judged by."""
        what = "losses change" if self.loss is not None else "outputs move"
        if self.tolerance is None:
            far = "a tenth of their scale"
        elif isinstance(self.tolerance, Tensor):
            far = "the tolerance of any"
        else:
            far = f"{self.tolerance:.3g}"
        at = " at one of the times" if self.by_time and self.loss is None else ""
        return Terms(self.bound, self.chance, f"{what} by more than {far}{at}")

    @property
    def times(self) -> int:
        """Number of times of what is solved: of trajectories, or 1."""
        return len(self.model.output_times) or 1

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
        at_once, patience = self.at_once(setting), self.patience
        return solve_samples(self.model, self.samples, index, one, at_once, patience=patience)

    def _outputs(self, z: Tensor) -> Tensor:
        """Apply the head to states (m, ...), in parts."""
        return torch.cat([self.model.outputs(part) for part in z.split(self.rows)])

    @cached_property
    def _start_outputs(self) -> Tensor:
        """The outputs (n, ...) of states that stay where they start."""
        return self._outputs(self.model.still(self.samples.z))

    def rule(self, own: Solved, exact: Solved) -> Rule:
        """Return what counts as another answer, from all samples under training and exact flow."""
        times, scale = self.times if self.by_time else 1, None
        if self.y is None and self.tolerance is None:
            start, parts = self._start_outputs, self.model.output_sizes
            scale = find_scale(exact.outputs, start, own.outputs, times, parts)
        return Rule(self.y, self.tolerance, scale, times, self.loss)

    def prove(self, own: Solved, finer: list[Tensor]) -> Reference:
        """Solve the exact flow of all samples until it is settled.

        Args:
            own: All samples under the training solver.
            finer: Ends of the probe under it in twice and four times its steps, where it has steps.
        """
        at_once = self.at_once(self.trained if self.size > SMALL else self.exact)
        ends = (own.z[self.probe], *finer)
        yardstick = partial(self._yardstick, own)
        proof = Proof(self.samples, own.z, yardstick, ends, self.probe, at_once, self.patience)
        return prove(proof, self.solver)

    def _yardstick(self, own: Solved, exact: Solved) -> Yardstick:
        """Return how ends are compared while the exact flow proves itself."""
        rule = self.rule(own, exact)

        def same(index: Tensor, z: Tensor, other: Tensor) -> Tensor:
            a, b = self._outputs(z), self._outputs(other)
            if self.y is not None:
                return ~rule.changed(a, b, index)
            trained = own.outputs[index]
            return rule.changed(a, trained, index) == rule.changed(b, trained, index)

        return Yardstick(self.scale_of_states(exact.z), same)

    def scale_of_states(self, exact: Tensor, own: Tensor | None = None) -> Scale:
        """Return the scale of end states, or of trajectories."""
        start, parts = self.model.still(self.samples.z), self.model.packing.sizes
        return find_scale(exact, start, own, self.times, parts)
