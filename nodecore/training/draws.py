"""What the cures of a training draw, for all its iterations at once: there is no state to keep."""

from collections.abc import Sequence

import torch
from torch import Tensor

from nodecore.data.seeding import make_generator
from nodecore.ode.tableaus import get_tableau
from nodecore.training.cures import (
    COARSER,
    ChosenSteps,
    Consistency,
    Cure,
    DrawnEnd,
    DrawnSolver,
    LocalError,
    find_cure,
)


class Draws:
    """Draws of a training, each member's from a generator of its own seed.

    n_steps (iterations, members) int64; other, whether the other solver takes a batch, bool, and
    stretch, the ends over T, float64, likewise; None where no cure decides it, and n_steps where a
    controller has the K around which they are drawn: see `around`.
    """

    def __init__(
        self, cures: Sequence[Cure], n_steps: int | None, seeds: Sequence[int], iterations: int
    ) -> None:
        shape, generators = (iterations, 3), [make_generator(seed, "draws") for seed in seeds]
        draws = [torch.rand(shape, generator=g, dtype=torch.float64) for g in generators]
        steps, solvers, ends = torch.stack(draws, 1).unbind(2)
        share = torch.arange(iterations, dtype=torch.float64)[:, None] / iterations
        self.steps, self.share = steps, share
        self.rule = find_cure(cures, ChosenSteps)
        self.n_steps: Tensor | None = None
        self.other: Tensor | None = None
        self.stretch: Tensor | None = None
        for cure in cures:
            if isinstance(cure, ChosenSteps) and n_steps is not None:
                self.n_steps = cure.counts(n_steps, steps, share)
            elif isinstance(cure, DrawnSolver):
                self.other = cure.chosen(solvers)
            elif isinstance(cure, DrawnEnd):
                self.stretch = cure.stretch(ends)

    def around(self, n_steps: Tensor, iteration: int) -> Tensor:
        """Return the numbers of steps of an iteration, the first is 1, around these, (members,)."""
        assert self.rule is not None
        at = iteration - 1
        return self.rule.counts(n_steps, self.steps[at], self.share[at])


def count_evaluations(
    cures: Sequence[Cure], solver: str, n_steps: int, seeds: Sequence[int], iterations: int
) -> Tensor:
    """Count the evaluations of f per iteration of a training with cures, (members,) float64.

    The mean over its iterations, all solves together, of the numbers that are drawn: what such a
    training must have counted.
    """
    draws = Draws(cures, n_steps, seeds, iterations)
    steps = torch.full((iterations, len(seeds)), n_steps)
    steps = steps if draws.n_steps is None else draws.n_steps
    own, total = get_tableau(solver).n_solution_stages, 0 * steps
    for cure in cures:
        if isinstance(cure, DrawnSolver) and draws.other is not None:
            total += draws.other * (get_tableau(cure.other).n_solution_stages - own) * steps
        elif isinstance(cure, Consistency) and cure.against == COARSER:
            total += own * ((steps + 1) // 2)
        elif isinstance(cure, Consistency):
            total += get_tableau(cure.against).n_solution_stages * steps
        elif isinstance(cure, LocalError):
            total += 1
    return (total + own * steps).double().mean(0)
