"""A controller at work on an ensemble in training: what it sees, what it decides, what is kept."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import torch
from torch import Tensor

from nodecore.data.split import Split
from nodecore.ode.adaptive import initial_step_size
from nodecore.ode.solution import Solution, SolveError
from nodecore.ode.steps import count_steps
from nodecore.ode.tableaus import better_solver, get_tableau
from nodecore.training.adapted import RTOL_BOUNDS, STARTS
from nodecore.training.controllers import Observation, StepState

MOST_STEPS = 10_000  # no step gets shorter than T / MOST_STEPS
OUTSIDE_EVERY = 50  # iterations between two outside checks, which are the same for every controller
OUTSIDE_GAP = 0.1  # largest difference of accuracy that an outside check lets pass


def batch_accuracies(logits: Tensor, y: Tensor) -> Tensor:
    """Share of correct predictions of each member, (members,) float64."""
    return (logits.argmax(-1) == y).double().mean(1)


# --- what a controller may read: (members,) float64 -----------------------------------------------


def flips(logits: Tensor, others: Tensor) -> Tensor:
    """Share of samples whose predicted class differs; logits (members, batch, classes)."""
    return (logits.argmax(-1) != others.argmax(-1)).double().mean(1)


def start_norm(start: str, z0: Tensor) -> Callable[[Tensor], Tensor]:
    """The norm of a start: of a tensor like z0, (members, batch, ...), one for each member."""
    if start == "euclidean":
        return lambda v: v.flatten(2).norm(dim=-1).mean(1)
    # |v| = sqrt(1/n sum_i (v_i / sc_i)^2),  sc_i = atol + |z0_i| rtol
    scale = STARTS[start]["atol"] + STARTS[start]["rtol"] * z0.abs()
    return lambda v: (v / scale).flatten(1).square().mean(1).sqrt()


def step_bounds(T: float) -> tuple[float, float]:
    """The shortest and the longest fixed step that a controller may choose."""
    return T / MOST_STEPS, T


# --- the controller at work -----------------------------------------------------------------------


class Adaption:
    """Fixed steps of an ensemble in training, their size adapted for each member by itself.

    history: a row for each member and iteration at which something was seen. marks: weights of all
    members, a vector like the ensemble's, each at the iteration that its history gives that mark.
    """

    def __init__(self, ensemble, test: Split, look_every: int):
        self.ensemble, self.controller = ensemble, ensemble.steps.rule
        self.test, self.look_every = test, look_every
        self.states: list[StepState] = []
        self.history: list[dict] = []
        self.marks: dict[str, Tensor] = {}
        self.worst = [OUTSIDE_GAP] * len(ensemble.seeds)
        self.violated = [False] * len(ensemble.seeds)
        self.set_up()

    def set_up(self) -> None:
        """Set what has to be known before the first batch."""
        self.bounds = step_bounds(self.ensemble.protocol.T)
        self.outside = better_solver(self.ensemble.tableau)
        tested = self.controller.better_solver(self.ensemble.steps.solver)
        self.test_tableau = get_tableau(tested)

    def begin(self, x: Tensor) -> Tensor | None:
        """The steps to begin with, (members,): Hairer's first step with order 1, on the first
        batch, for each member by itself."""
        ensemble, (shortest, T) = self.ensemble, self.bounds
        with ensemble.in_float32():  # its differences of slopes would drown in rounding
            h = initial_step_size(
                ensemble.field, 0.0, x, 1, start_norm(ensemble.steps.start, x)
            ).cpu()
        ensemble.count(2)
        # A slope that is not finite is no reason to stop: the loss will mark that member.
        h = torch.where(h > 0, h, T).clamp(shortest, T)
        return self._turn_to([StepState(float(value)) for value in h])

    def _turn_to(self, states) -> Tensor | None:
        """Take these states; their sizes, (members,) float64, or None where they stay the same."""
        before, self.states = self.states, states
        sizes = [state.step_size for state in states]
        stays = sizes == [state.step_size for state in before]  # new sizes are a new plan
        return None if stays else torch.tensor(sizes, dtype=torch.float64)

    def taken(self) -> Tensor:
        """Steps of the training solver, (members,)."""
        return count_steps(self.ensemble.sizes, self.ensemble.protocol.T)

    def solve_outside(self, x: Tensor) -> Solution:
        """The solve of the outside check, the same for every controller."""
        return self.ensemble.solve(x, self.outside)

    def tests_outside(self) -> bool:
        """Tell whether the controller's better solve is that of the outside check, too."""
        sizes = [state.step_size for state in self.states]
        same_steps = sizes == [self.controller.test_step(size) for size in sizes]
        return same_steps and self.test_tableau == get_tableau(self.outside)

    def solve_test(self, x: Tensor) -> Solution:
        """The better solve that the controller compares with."""
        sizes = [self.controller.test_step(state.step_size) for state in self.states]
        sizes = torch.tensor(sizes, dtype=torch.float64)
        return self.ensemble.solve(x, self.test_tableau, sizes)

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """All that training changes here: the marks, and values that JSON can hold."""
        values = {name: getattr(self, name) for name in ("history", "worst", "violated")}
        return self.marks, {**values, "states": [asdict(state) for state in self.states]}

    def restore(self, marks: dict[str, Tensor], values: dict) -> Tensor | None:
        """Become what `state` described; the sizes that were in use."""
        self.marks, self.history = marks, values["history"]
        self.worst, self.violated = values["worst"], values["violated"]
        return self._turn_to([StepState(**state) for state in values["states"]])

    def due(self) -> bool:
        """True if the training's end states are to be seen in this iteration."""
        iteration = self.ensemble.iteration
        return iteration % self.controller.every == 0 or iteration % OUTSIDE_EVERY == 0

    def is_last(self) -> bool:
        """True if the iteration is the training's last one."""
        return self.ensemble.iteration == self.ensemble.protocol.iterations

    @torch.no_grad()
    def see(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor | None:
        """Check and adapt, where due: a batch and its end states z before the update. Returns the
        sizes of the next steps, or the next tolerances, (members,), where they change."""
        ensemble, iteration = self.ensemble, self.ensemble.iteration
        logits = ensemble.head(z)
        train = batch_accuracies(logits, y)
        rows = [
            {"iteration": iteration, "seed": seed, "step_size": float(h), "n_steps": int(k)}
            for seed, h, k in zip(ensemble.seeds, ensemble.sizes, self.taken(), strict=True)
        ]
        test = self.solve_test(x) if iteration % self.controller.every == 0 else None
        if iteration % OUTSIDE_EVERY == 0:
            outside = test if test and self.tests_outside() else self.solve_outside(x)
            other = batch_accuracies(ensemble.head(outside.z), y)
            for member, row in enumerate(rows):
                row["outside_gap"] = float(train[member] - other[member])
                self._mark(member, row)
        self.history += rows
        if not test:
            return None
        checked, states = self._check(x, y, logits, train, test)
        for row, more in zip(rows, checked, strict=True):
            row.update(more)
        # After the last one no iteration is left that would take the new step.
        return None if self.is_last() else self._turn_to(states)

    def _mark(self, member, row):
        """Keep a member's weights at its worst violation in the second half, and past it."""
        gap = abs(row["outside_gap"])
        if row["iteration"] > self.ensemble.protocol.iterations / 2 and gap > self.worst[member]:
            self.worst[member], self.violated[member] = gap, True
            row["mark"] = "violation"
        elif gap <= OUTSIDE_GAP and self.violated[member]:
            self.violated[member] = False
            row["mark"] = "recovery"
        if "mark" in row:
            kept = self.marks.setdefault(row["mark"], torch.zeros_like(self.ensemble.flat))
            views = self.ensemble.views
            for copy, weights in zip(views(kept), views(self.ensemble.flat), strict=True):
                copy[member] = weights[member]

    def _check(self, x, y, logits, train, solution):
        """Return what the history says of a check, for each member, and the states it leads to."""
        ensemble, controller = self.ensemble, self.controller
        ensemble.count(solution.nfe)
        others = ensemble.head(solution.z)
        test = batch_accuracies(others, y)
        values = [train.tolist(), test.tolist()]
        if "flips" in controller.reads:
            values.append(flips(logits, others).tolist())
        seen = [Observation(*each) for each in zip(*values, strict=True)]
        states = [
            controller.update(s, o, self.bounds) for s, o in zip(self.states, seen, strict=True)
        ]
        if controller.tries_increases:
            states = self._try(x, y, seen, states)
        checked = [
            {
                "train_accuracy": o.train_accuracy,
                "test_accuracy": o.test_accuracy,
                "failed": s.failed,
                "at_shortest": s.step_size <= self.bounds[0],
                **({} if o.flips is None else {"flips": o.flips}),
            }
            for o, s in zip(seen, states, strict=True)
        ]
        return checked, states

    def _try(self, x, y, seen, states):
        """Return the states after the training solver has taken the longer steps on trial."""
        ensemble = self.ensemble
        longer = torch.tensor(
            [n.step_size > s.step_size for n, s in zip(states, self.states, strict=True)]
        )
        sizes = torch.tensor([s.step_size for s in states], dtype=torch.float64)
        solution = ensemble.solve_or_retire(x, ensemble.tableau, sizes)
        ensemble.count(torch.where(longer, solution.nfe.cpu(), 0))
        tried = batch_accuracies(ensemble.head(solution.z), y).tolist()
        return [
            self.controller.confirm(old, new, Observation(a, o.test_accuracy)) if tries else new
            for old, new, a, o, tries in zip(self.states, states, tried, seen, longer, strict=True)
        ]

    @torch.no_grad()
    def look(self) -> None:
        """Record each member's accuracy on the test split, where due; counts no evaluations.

        A look must not change the training. If a member cannot be solved here, nothing is
        recorded; the next training solve gives it up.
        """
        ensemble, test, iteration = self.ensemble, self.test, self.ensemble.iteration
        if iteration % self.look_every:
            return
        x = test.x.expand(len(ensemble.seeds), *test.x.shape)
        try:
            with ensemble.in_float32():
                z = ensemble.solve(x, ensemble.tableau).z
        except SolveError:
            return
        for seed, value in zip(
            ensemble.seeds, batch_accuracies(ensemble.head(z), test.y).tolist(), strict=True
        ):
            self.history.append({"iteration": iteration, "seed": seed, "accuracy": value})


class ToleranceAdaption(Adaption):
    """Tolerances of an adaptive solver, rtol = atol, adapted for each member by itself.

    The controller's step is the tolerance. As in the paper's later version, the test solves with
    dopri5 at a fifth of the tolerance (a tenth if dopri5 trains), refined until it takes more steps
    than the training solver, but not below FINEST_TEST, where float32 error estimates fail.
    """

    FINEST_TEST = 1e-6

    def set_up(self) -> None:
        self.bounds = RTOL_BOUNDS
        self.test_tableau = get_tableau("dopri5")
        self.finer = 10.0 if self.ensemble.tableau.name == "dopri5" else 5.0

    def begin(self, x: Tensor) -> Tensor | None:
        first = StepState(self.ensemble.steps.first_rtol)
        return self._turn_to([first] * len(self.ensemble.seeds))

    def taken(self) -> Tensor:
        return self.ensemble.n_accepted.cpu()

    def solve_test(self, x: Tensor) -> Solution:
        # Tolerances lie on the CPU, and what is decided on them, too.
        ensemble, taken = self.ensemble, self.taken()
        tolerance, nfe = ensemble.sizes, torch.zeros_like(ensemble.nfe, device="cpu")
        coarse = torch.ones_like(nfe, dtype=torch.bool)
        while bool(coarse.any()):
            finer = (tolerance / self.finer).clamp(min=self.FINEST_TEST)
            tolerance = torch.where(coarse, finer, tolerance)
            solution = ensemble.solve_or_retire(x, self.test_tableau, tolerance)
            nfe += torch.where(coarse, solution.nfe.cpu(), 0)  # the others have their answer
            coarse &= (solution.n_accepted.cpu() <= taken) & (tolerance > self.FINEST_TEST)
        return replace(solution, nfe=nfe)

    def tests_outside(self) -> bool:
        return True

    def solve_outside(self, x: Tensor) -> Solution:
        return self.solve_test(x)


# --- how restless a walk was ----------------------------------------------------------------------


def restlessness(history: Sequence[Mapping], seed: int, iterations: int) -> dict:
    """Measure how a seed's step went in the second half of a training of so many iterations.

    Returns:
        A dict of reversals, changes of sign between successive changes of log h that are not zero;
        spread, standard deviation of log K; failed_checks, outside checks whose gap exceeds
        OUTSIDE_GAP.
    """
    late = [
        row
        for row in history
        if row["seed"] == seed and "step_size" in row and row["iteration"] > iterations / 2
    ]
    moves = np.sign(np.diff([row["step_size"] for row in late]))
    moves = moves[moves != 0]
    return {
        "reversals": int((moves[1:] != moves[:-1]).sum()),
        "spread": float(np.log([row["n_steps"] for row in late]).std()) if late else None,
        "failed_checks": sum(abs(row.get("outside_gap", 0.0)) > OUTSIDE_GAP for row in late),
    }
