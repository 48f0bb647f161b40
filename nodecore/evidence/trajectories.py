"""The trajectories of a trained ensemble: its members from the same starts, in double precision."""

from copy import deepcopy
from dataclasses import dataclass

from torch import Tensor, nn

from nodecore.analysis.crossings import euler_path, separated_starts
from nodecore.data.split import Split
from nodecore.evidence.found import Evidence
from nodecore.evidence.tables import trained_seeds
from nodecore.ode.fields import take_members
from nodecore.ode.solution import VectorField
from nodecore.ode.steps import FixedSteps


@dataclass(frozen=True)
class Followed:
    """An ensemble that was trained with Euler's method, and where its members go.

    test: its test set. starts: (N,) the rows of it that all members begin at, far apart. double:
    the vector field in double precision.
    """

    evidence: Evidence
    test: Split
    starts: Tensor
    double: nn.Module

    @property
    def n_steps(self) -> int:
        """The steps of the training."""
        steps = self.evidence.run.steps
        assert isinstance(steps, FixedSteps)
        return steps.n_steps

    @property
    def used(self) -> list[int]:
        """The seeds that trained; should none have, all."""
        return trained_seeds(self.evidence.records) or list(self.evidence.run.seeds)

    @property
    def rows(self) -> list[int]:
        """The members of these seeds."""
        return [self.evidence.run.seeds.index(seed) for seed in self.used]

    def path(self, n_steps: int | None = None) -> Tensor:
        """The trajectories by Euler's method in this number of steps, or as trained.

        (n_steps + 1, members, N, dim)
        """
        members = len(self.evidence.run.seeds)
        return euler_path(self.double, self.test.x[self.starts], n_steps or self.n_steps, members)

    def member(self, i: int) -> VectorField:
        """The vector field of one member alone, on z (N, dim)."""
        alone = take_members(self.double, [i])
        return lambda t, z: alone(t, z[None])[0]


def follow(evidence: Evidence, n_starts: int) -> Followed:
    """Choose starts that lie far apart in the test set, and the field to follow from there."""
    _, test = evidence.run.protocol.load()
    starts = separated_starts(test.x, min(n_starts, len(test.x)))
    return Followed(evidence, test, starts, deepcopy(evidence.field).double())
