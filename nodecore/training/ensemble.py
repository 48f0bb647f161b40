"""An ensemble of models, one for each seed, that trains as one batch."""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from nodecore.data.datasets import DATASETS
from nodecore.data.seeding import make_generator
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.fields import (
    Conv1dField,
    Conv2dField,
    Field,
    LinearHead,
    MLPField,
    PiecewiseField,
)
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.lipschitz import lipschitz_bound
from nodecore.ode.solution import Solution, SolveError
from nodecore.ode.steps import count_steps
from nodecore.ode.tableaus import ButcherTableau, get_tableau
from nodecore.training.adapted import AnySteps
from nodecore.training.adaption import Adaption
from nodecore.training.cures import Bounded, Cure, Decay, StableStart, find_cure
from nodecore.training.devices import in_precision
from nodecore.training.draws import Draws
from nodecore.training.protocols import Protocol
from nodecore.training.stable import place_eigenvalues

FIELDS = {"mlp": MLPField, "conv1d": Conv1dField, "conv2d": Conv2dField}
OPTIMISERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
DECAYING = {"adam": torch.optim.AdamW, "sgd": torch.optim.SGD}  # beside the gradient, by the rate


def make_model(protocol: Protocol, seeds: Sequence[int]) -> tuple[Field, LinearHead]:
    """Vector field and classifier, one member for each seed, freshly initialised."""
    data = DATASETS[protocol.dataset]
    generators = [make_generator(seed, "initialisation") for seed in seeds]
    changed = {}
    if protocol.field != "conv2d":
        changed = {"activation": protocol.activation, "initialisation": protocol.initialisation}
    fields = [
        FIELDS[protocol.field](data.shape[0], protocol.width, **changed, generators=generators)
        for _ in range(protocol.pieces)
    ]
    vector_field = fields[0] if protocol.pieces == 1 else PiecewiseField(fields, protocol.T)
    head = LinearHead(
        math.prod(data.shape), data.n_classes, protocol.initialisation, generators=generators
    )
    return vector_field, head


def member_losses(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy of each member: logits (members, batch, classes) -> (members,)."""
    losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    return losses.view(y.shape).mean(1)


See = Callable[[Tensor], None]  # what is shown the end states of a batch


class Ensemble:
    """The model in training, its solver, and what is counted on the way.

    Whatever an iteration changes and a later one needs is in `state`.
    """

    def __init__(
        self,
        protocol: Protocol,
        steps: AnySteps,
        seeds: Sequence[int],
        device: torch.device,
        backend: str = "auto",
        cures: Sequence[Cure] = (),
    ):
        self.protocol, self.steps, self.seeds = protocol, steps, seeds
        self.cures = tuple(cures)
        self.tableau = get_tableau(steps.solver)
        # Whether an embedded method chooses the steps, and who then steps by itself.
        self.by_tolerance = steps.rtol is not None or steps.first_rtol is not None
        self.instance_axes = 2 if steps.per_sample else 1
        self.backend, self.device = backend, device
        field, head = make_model(protocol, seeds)
        if find_cure(cures, StableStart):
            self._begin_stable(field)
        self.field, self.head = field.to(device), head.to(device)
        self._flatten()
        self.optimiser = self._make_optimiser()
        # What cures draw for each iteration, where there are any.
        self.draws = Draws(self.cures, steps.n_steps, seeds, protocol.iterations) if cures else None
        self.adaption: Adaption | None = None  # who says what `chosen` is to be, if anyone does
        # The size of the steps that are meant, or the tolerance: one, or (members,) float64.
        self.chosen: float | Tensor | None = (
            steps.rtol if steps.n_steps is None else protocol.T / steps.n_steps
        )
        self.sizes = self.chosen  # the same of the next solve, which may be drawn
        self.nfe = torch.zeros(len(seeds), dtype=torch.float64, device=device)
        self.alive = torch.ones(len(seeds), dtype=torch.bool, device=device)
        self.finite_iterations = torch.zeros(len(seeds), dtype=torch.int64, device=device)
        self.iteration, self.backend_used = 0, "torch"
        self.execution = "eager"
        # Steps of the last training solve, where the solver chose them.
        self.n_accepted: int | Tensor | None = None
        self.seconds = 0.0  # until the last checkpoint
        # The largest bound on L that a cure allows, where there is such a cure.
        self.steepest: float | None = None
        if bounded := find_cure(cures, Bounded):
            assert steps.n_steps is not None  # check_cures has seen to it
            self.steepest = bounded.most * steps.n_steps / protocol.T
            self._bound(self.steepest)

    def _flatten(self):
        """Lay all parameters in one vector: the optimiser then works on one tensor, not eight."""
        parameters = [*self.field.parameters(), *self.head.parameters()]
        self.flat = torch.cat([p.detach().flatten() for p in parameters])
        self.flat.grad = self.gradient = torch.zeros_like(self.flat)
        self.lengths, self.shapes = zip(*((p.numel(), p.shape) for p in parameters), strict=True)
        values, gradients = self.views(self.flat), self.views(self.gradient)
        for parameter, value, gradient in zip(parameters, values, gradients, strict=True):
            parameter.data, parameter.grad = value, gradient

    def _make_optimiser(self):
        protocol, decay = self.protocol, find_cure(self.cures, Decay)
        graphed_adam = self.device.type == "cuda" and protocol.optimiser == "adam"
        options = {"capturable": True} if graphed_adam else {}
        options |= {} if decay is None else {"weight_decay": decay.weight}
        make = (OPTIMISERS if decay is None else DECAYING)[protocol.optimiser]
        return make([self.flat], lr=protocol.learning_rate, fused=True, **options)

    COUNTERS = ("nfe", "alive", "finite_iterations")
    LOST_EVERY = 100

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """All that training changes, as tensors by name and values that JSON can hold."""
        tensors = {name: getattr(self, name) for name in ("flat", *self.COUNTERS)}
        for name, value in self.optimiser.state[self.flat].items():
            tensors[f"optimiser.{name}"] = value
        values = {
            "iteration": self.iteration,
            "backend_used": self.backend_used,
            "seconds": self.seconds,
        }
        if self.adaption is not None:
            more, values["adaption"] = self.adaption.state()
            tensors |= {f"adaption.{name}": value for name, value in more.items()}
        return tensors, values

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor], values: dict) -> None:
        """Become what `state` described; before the first iteration."""
        marks = {}
        for name, value in tensors.items():
            place, _, entry = name.rpartition(".")
            if place == "optimiser":
                self.optimiser.state[self.flat][entry] = value.to(self.device)
            elif place == "adaption":
                marks[entry] = value.to(self.device)
            else:
                getattr(self, name).copy_(value)
        self.iteration = values["iteration"]
        self.backend_used, self.seconds = values["backend_used"], values["seconds"]
        if self.adaption is not None:
            self._take(self.adaption.restore(marks, values["adaption"]))

    def views(self, flat: Tensor) -> list[Tensor]:
        """A vector like `flat` as the parameters' shapes, in their order."""
        return [part.view(s) for part, s in zip(flat.split(self.lengths), self.shapes, strict=True)]

    def named(self, flat: Tensor) -> dict[str, Tensor]:
        """A vector like `flat` as weights by name, such as field.first.0."""
        modules = {"field": self.field, "head": self.head}
        names = [f"{key}.{n}" for key, m in modules.items() for n, _ in m.named_parameters()]
        return dict(zip(names, self.views(flat), strict=True))

    def _take(self, sizes):
        if sizes is not None:
            self.sizes = self.chosen = sizes

    def solve(
        self, x: Tensor, tableau: str | ButcherTableau, sizes: Tensor | None = None
    ) -> Solution:
        """Solve for x; step sizes or tolerances are those of the training, or else `sizes`."""
        span, chosen = (0.0, self.protocol.T), self.sizes if sizes is None else sizes
        if not self.by_tolerance:
            return solve_fixed(
                self.field, x, tableau, step_size=chosen, t=span, backend=self.backend
            )
        if chosen is None:
            raise ValueError("sizes = None: the adaption has not begun")
        return solve_adaptive(
            self.field,
            x,
            tableau,
            rtol=chosen,
            atol=chosen,
            t=span,
            instance_axes=self.instance_axes,
            backend=self.backend,
        )

    def solve_or_retire(
        self, x: Tensor, tableau: str | ButcherTableau, sizes: Tensor | None = None
    ) -> Solution:
        """Solve like `solve`, but give members up that cannot be solved."""
        while True:
            try:
                return self.solve(x, tableau, sizes)
            except SolveError as error:
                self.retire(error.members)

    def forward(self, x: Tensor) -> Solution:
        """The solve of a batch under the training solver."""
        solution = self.solve_or_retire(x, self.tableau)
        self.n_accepted, self.backend_used = solution.n_accepted, solution.backend
        return solution

    def count(self, nfe: int | Tensor) -> None:
        """Add evaluations of each member, (members,); those of its samples count as their mean."""
        if isinstance(nfe, Tensor):
            nfe = (nfe.double().mean(1) if nfe.dim() > 1 else nfe).to(self.device)
        self.nfe += nfe

    def iterate(self, step: Callable[..., None], x: Tensor, y: Tensor) -> None:
        """Train for one iteration on a batch, through `step`."""
        self.iteration += 1
        if self.draws is not None and self.draws.n_steps is not None:
            self.sizes = self.protocol.T / self.draws.n_steps[self.iteration - 1].double()
        if self.adaption is None:
            step(x, y)
            return
        if self.iteration == 1:
            self._take(self.adaption.begin(x))
        adaption = self.adaption
        if adaption.due():  # of the steps that are meant, whatever is drawn between checks
            step(x, y, partial(self._adapt, adaption, x, y))
        else:
            self._draw()
            step(x, y)
            self.sizes = self.chosen
        adaption.look()

    def _draw(self):
        """Draw the next solve's steps around those that a controller means."""
        if self.draws is not None and isinstance(self.chosen, Tensor):
            meant = count_steps(self.chosen, self.protocol.T)
            self.sizes = self.protocol.T / self.draws.around(meant, self.iteration).double()

    def _adapt(self, adaption, x, y, z):
        self._take(adaption.see(x, y, z))

    def step(self, x: Tensor, y: Tensor, see: See | None = None) -> None:
        """Train for one iteration on a batch; `see` is shown the end states before the update.

        Where the memory of a GPU does not suffice, it tries once more without keeping hidden maps.
        """
        try:
            return self.attempt(x, y, see)
        except torch.OutOfMemoryError:
            if not self.spare_memory():
                raise
        self.attempt(x, y, see)

    def attempt(self, x: Tensor, y: Tensor, see: See | None = None) -> None:
        """Train for one iteration; one that ends for want of memory has changed nothing, unless
        `see` has."""
        solution = self.forward(x)
        if see is not None:
            see(solution.z.detach())
        self.descend(member_losses(self.head(solution.z), y), solution.nfe)

    def descend(self, losses: Tensor, nfe: int | Tensor) -> None:
        """Update the weights by the gradients of losses (members,), which took nfe evaluations.

        What it counts and updates comes after all that takes memory.
        """
        self.gradient.zero_()
        losses.sum().backward()
        self.count(nfe)
        self.account(losses.detach())
        self.update()

    def update(self) -> None:
        """Update the weights by their gradients, and keep to the bound on the slopes."""
        self.optimiser.step()
        if self.steepest is not None:
            self._bound(self.steepest)

    def _begin_stable(self, field):
        assert self.steps.n_steps is not None  # check_cures has seen to it
        x, step_size = self.protocol.load()[0].x, self.protocol.T / self.steps.n_steps
        place_eigenvalues(field, x, self.tableau, step_size, self.seeds)

    @torch.no_grad()
    def _bound(self, steepest):
        """Shrink the layers of members whose bound on L is beyond."""
        assert not isinstance(self.field, Conv2dField | PiecewiseField)
        weights = [layer.weight for layer in self.field.layers()]
        finite = torch.stack([weight.isfinite().flatten(1).all(1) for weight in weights]).all(0)
        if not finite.all():  # they have no singular values
            self.retire(~finite)
        shrink = (steepest / lipschitz_bound(self.field)).clamp(max=1) ** (1 / len(weights))
        for weight in weights:
            weight.mul_(shrink.to(weight).view(-1, 1, 1))

    def spare_memory(self) -> bool:
        """Keep no hidden maps from now on; whether any were kept."""
        field = self.field
        if not isinstance(field, Conv2dField) or not field.keeps_maps:
            return False
        field.keeps_maps = False
        return True

    def how_executed(self) -> str:
        """`execution` of the training, and whether hidden maps were computed twice."""
        twice = getattr(self.field, "keeps_maps", None) is False
        return self.execution + (", hidden maps recomputed" if twice else "")

    def in_float32(self) -> AbstractContextManager[None]:
        """Return a context that computes in float32; the first step and the looks at the test split
        use it whatever the training's precision."""
        return in_precision("float32", self.device)

    @torch.no_grad()
    def retire(self, failed: Tensor) -> None:
        """Give up the members whose solve cannot go on: weights of zero solve in one step."""
        self.alive &= ~failed
        state = self.optimiser.state[self.flat].values()
        moments = [value for value in state if value.shape == self.flat.shape]
        for flat in (self.flat, *moments):
            for view in self.views(flat):
                view[failed] = 0.0

    def account(self, losses: Tensor) -> None:
        """Note which members' losses, (members,), are still finite."""
        self.alive &= torch.isfinite(losses)
        self.finite_iterations += self.alive

    def is_lost(self) -> bool:
        """True if no member is left to train, which is asked every LOST_EVERY iterations alone: a
        GPU waits for the answer."""
        asked = self.iteration > 0 and self.iteration % self.LOST_EVERY == 0
        return asked and not self.alive.any()
