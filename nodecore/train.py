"""Training a whole ensemble at once: every seed of a run in one loop."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Protocol as Interface

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from nodecore.adapt import Controller, get_controller
from nodecore.adaption import Adaption, ToleranceAdaption, choose_first_rtol, choose_start
from nodecore.datasets import DATASETS
from nodecore.kernels import FusedAdaptive, classify_fused
from nodecore.protocols import Protocol
from nodecore.seeding import make_generator
from nodecore.solve import (
    Solution,
    SolveError,
    check_embedded,
    check_finer,
    check_n_steps,
    check_per_sample,
    check_tolerance,
    check_walk,
    choose_adaptive_backend,
    choose_backend,
    finer_solver,
    prepare_fused,
    solve_adaptive,
    solve_fixed,
)
from nodecore.tableaus import get_tableau
from nodecore.vector_fields import Conv1dField, Conv2dField, LinearHead, MLPField

# --- models ---------------------------------------------------------------------------------------

FIELDS = {"mlp": MLPField, "conv1d": Conv1dField, "conv2d": Conv2dField}
OPTIMISERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def get_device(device: str = "auto") -> torch.device:
    """ "auto" is cuda where there is one, else the CPU. ValueError for one that is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device = {device!r}: give auto, cpu or cuda") from error
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device = {device!r}: no CUDA device is visible here; use cpu or auto")
    return chosen


# float32: IEEE products throughout. tf32: products of 10-bit mantissas on a GPU's tensor cores.
# bf16: products in bfloat16, states and weights in float32.
PRECISIONS = ("float32", "tf32", "bf16")


@contextmanager
def in_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Products within are computed in one of PRECISIONS; afterwards as before."""
    products = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [product.fp32_precision for product in products]
    # A CUDA graph cannot replay from autocast's cache of weights in bfloat16.
    bf16 = torch.autocast(device.type, torch.bfloat16, precision == "bf16", cache_enabled=False)
    try:
        for product in products:
            product.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        with bf16:
            yield
    finally:
        for product, value in zip(products, before, strict=True):
            product.fp32_precision = value


def _check_precision(precision, protocol, device):
    if precision not in PRECISIONS:
        raise ValueError(
            f"precision = {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}"
        )
    if precision != "float32" and protocol.field != "conv2d":
        raise ValueError(
            f"precision = {precision!r}: only fields of images, not {protocol.dataset}, are "
            "trained in less than float32; leave it out"
        )
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(f"precision = {precision!r}: {device} has none; use float32 or bf16")


def make_model(protocol: Protocol, seeds: Sequence[int]) -> tuple[nn.Module, LinearHead]:
    """Vector field and classifier, one member for each seed, freshly initialised."""
    data = DATASETS[protocol.dataset]
    generators = [make_generator(seed, "initialisation") for seed in seeds]
    vector_field = FIELDS[protocol.field](data.shape[0], protocol.width, generators=generators)
    head = LinearHead(math.prod(data.shape), data.n_classes, generators=generators)
    return vector_field, head


def batches(
    n: int, batch_size: int, generators: Sequence[torch.Generator], iterations: int, done: int = 0
) -> Iterator[Tensor]:
    """Indices (members, batch_size): each member shuffles every epoch by its own generator.

    The last partial batch of an epoch is dropped. The first `done` batches are drawn and left out:
    what follows is what followed them. Raises ValueError where no full batch exists.
    """
    if batch_size > n:
        raise ValueError(f"batch_size = {batch_size} exceeds the {n} samples; make it smaller")
    per_epoch = n // batch_size
    for iteration in range(iterations):
        if iteration % per_epoch == 0:
            order = torch.stack([torch.randperm(n, generator=g) for g in generators])
        start = iteration % per_epoch * batch_size
        if iteration >= done:
            yield order[:, start : start + batch_size]


def member_losses(logits: Tensor, y: Tensor) -> Tensor:
    """Mean cross entropy of each member: logits (members, batch, classes) -> (members,)."""
    losses = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    return losses.view(y.shape).mean(1)


# --- training -------------------------------------------------------------------------------------

Progress = bool | Callable[[int], None]


@dataclass
class Trained:
    """A trained ensemble. nfe_per_iteration, step_size: (members,) float64, the evaluations counted
    with those of the checks (those of one sample, on average, where each steps by itself), and the
    step, or tolerance, that a controller had the last iteration take. diverged_at: iteration of the
    first non-finite loss, -1 for none.
    history: a dict for each check or look at the test set, where a controller was at work; marks:
    weights by name at the moments that the history marks, a dict for each mark."""

    field: nn.Module
    head: nn.Module
    protocol: Protocol
    seeds: list[int]
    nfe_per_iteration: Tensor
    diverged_at: Tensor
    seconds: float
    backend: str
    device: str
    precision: str = "float32"
    step_size: Tensor | None = None
    history: list[dict] = field(default_factory=list)
    marks: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class Checkpoint(Interface):
    """Where a training leaves its state, to go on from after a stop; checkpoint.py keeps a file.

    `identity` names the training, by values that JSON can hold: a state of another is not loaded.
    """

    def load(self, identity: dict) -> tuple[dict[str, Tensor], dict] | None:
        """The tensors and values last saved, or None."""

    def save(self, identity: dict, tensors: dict[str, Tensor], values: dict) -> None:
        """Keep a state in place of the last one."""

    def is_due(self) -> bool:
        """Whether it is time to save."""


class _Ensemble:
    """The model in training, its solver, and what is counted on the way.

    Whatever an iteration changes and a later one needs is in `state`.
    """

    def __init__(self, protocol, solver, seeds, n_steps, rtol, per_sample, device, backend):
        self.protocol, self.seeds, self.rtol = protocol, seeds, rtol
        self.instance_axes = 2 if per_sample else 1  # who steps by itself, where the steps adapt
        self.tableau = get_tableau(solver)
        self.backend, self.device = backend, device
        self.field, self.head = (m.to(device) for m in make_model(protocol, seeds))
        # All parameters lie in one vector: the optimiser then works on one tensor, not eight.
        parameters = [*self.field.parameters(), *self.head.parameters()]
        self.flat = torch.cat([p.detach().flatten() for p in parameters])
        self.flat.grad = torch.zeros_like(self.flat)
        self.sizes, self.shapes = zip(*((p.numel(), p.shape) for p in parameters), strict=True)
        values, gradients = self.views(self.flat), self.views(self.flat.grad)
        for parameter, value, gradient in zip(parameters, values, gradients, strict=True):
            parameter.data, parameter.grad = value, gradient
        graphed_adam = device.type == "cuda" and protocol.optimiser == "adam"
        options = {"capturable": True} if graphed_adam else {}
        make = OPTIMISERS[protocol.optimiser]
        self.optimiser = make([self.flat], lr=protocol.learning_rate, fused=True, **options)
        self.adaption: Adaption | None = None  # who changes step_size, if anyone does
        self.step_size = None if n_steps is None else protocol.T / n_steps
        self.nfe = torch.zeros(len(seeds), dtype=torch.float64, device=device)
        self.alive = torch.ones(len(seeds), dtype=torch.bool, device=device)
        self.finite_iterations = torch.zeros(len(seeds), dtype=torch.int64, device=device)
        self.iteration, self.backend_used = 0, "torch"
        self.n_accepted = None  # steps of the last training solve, where the solver chose them
        self.seconds = 0.0  # until the last checkpoint

    COUNTERS = ("nfe", "alive", "finite_iterations")

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """All that training changes, as tensors by name and values that JSON can hold."""
        tensors = {name: getattr(self, name) for name in ("flat", *self.COUNTERS)}
        for name, value in self.optimiser.state[self.flat].items():
            tensors[f"optimiser.{name}"] = value
        values = {
            "iteration": self.iteration,
            **{"backend_used": self.backend_used, "seconds": self.seconds},
        }
        if self.adaption is not None:
            more, values["adaption"] = self.adaption.state()
            tensors |= {f"adaption.{name}": value for name, value in more.items()}
        return tensors, values

    @torch.no_grad()
    def restore(self, tensors, values):
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
            self.adaption.restore(marks, values["adaption"])

    def views(self, flat):
        """A vector like `flat` as the parameters' shapes, in their order."""
        return [part.view(s) for part, s in zip(flat.split(self.sizes), self.shapes, strict=True)]

    def named(self, flat):
        """A vector like `flat` as weights by name, such as field.first.0."""
        modules = {"field": self.field, "head": self.head}
        names = [f"{key}.{n}" for key, m in modules.items() for n, _ in m.named_parameters()]
        return dict(zip(names, self.views(flat), strict=True))

    @property
    def steps(self):
        """What decides on the steps: their size, or the tolerance."""
        return self.step_size if self.rtol is None else self.rtol

    def solve(self, x, tableau, steps=None) -> Solution:
        """A solve of x; step sizes or tolerances are those of the training, or else `steps`."""
        span, steps = (0.0, self.protocol.T), self.steps if steps is None else steps
        if self.rtol is None:
            return solve_fixed(
                self.field, x, tableau, step_size=steps, t=span, backend=self.backend
            )
        how = {"rtol": steps, "atol": steps, "instance_axes": self.instance_axes}
        return solve_adaptive(self.field, x, tableau, **how, t=span, backend=self.backend)

    def solve_or_retire(self, x, tableau, steps=None) -> Solution:
        """The same; members that cannot be solved are given up."""
        while True:
            try:
                return self.solve(x, tableau, steps)
            except SolveError as error:
                self.retire(error.members)

    def forward(self, x) -> Tensor:
        """End states under the training solver; evaluations are counted."""
        solution = self.solve_or_retire(x, self.tableau)
        self.count(solution)
        self.n_accepted, self.backend_used = solution.n_accepted, solution.backend
        return solution.z

    def count(self, solution: Solution | FusedAdaptive) -> None:
        """Add the evaluations of each member; those of its samples count as their mean."""
        nfe = solution.nfe
        if isinstance(nfe, Tensor) and nfe.dim() > 1:
            nfe = nfe.double().mean(1)
        self.nfe += nfe.to(self.device) if isinstance(nfe, Tensor) else nfe

    def iterate(self, step, x, y) -> None:
        """One iteration on a batch, through `step`."""
        self.iteration += 1
        if self.adaption is None:
            step(x, y)
            return
        if self.iteration == 1:
            self.adaption.begin(x)
        step(x, y, partial(self.adaption.see, x, y) if self.adaption.due() else None)
        self.adaption.look()

    def step(self, x, y, see=None) -> None:
        """One iteration on a batch; `see` is shown the end states before the update."""
        z = self.forward(x)
        if see is not None:
            see(z.detach())
        self.descend(z, y)

    @torch.no_grad()
    def retire(self, failed):
        """Give up the members whose solve cannot go on: weights of zero solve in one step."""
        self.alive &= ~failed
        state = self.optimiser.state[self.flat].values()
        moments = [value for value in state if value.shape == self.flat.shape]
        for flat in (self.flat, *moments):
            for view in self.views(flat):
                view[failed] = 0.0

    def descend(self, z, y):
        losses = member_losses(self.head(z), y)
        self.account(losses.detach())
        self.flat.grad.zero_()
        losses.sum().backward()
        self.optimiser.step()

    def account(self, losses):
        """Note which members' losses, (members,), are still finite."""
        self.alive &= torch.isfinite(losses)
        self.finite_iterations += self.alive


class _FusedStep:
    """A training step through the fused kernel, without autograd.

    The few small operations of classifier, loss and optimiser would take autograd as long as the
    kernel takes for the solve. Equal to `_Ensemble.step` up to rounding.
    """

    def __init__(self, ensemble):
        self.ensemble, self.steps, self.tape = ensemble, None, None
        layers = ensemble.field.block_layers()
        self.parameters = [t for layer in layers for t in (layer.weight, layer.bias)]
        self.gradients = [parameter.grad for parameter in self.parameters]

    @torch.no_grad()
    def __call__(self, x, y, see=None) -> None:
        ensemble, (weight, bias) = self.ensemble, self.ensemble.head.linear
        if self.steps is not ensemble.steps:
            self._prepare(x)
        z = self._forward([x, *self.parameters])
        if see is not None:
            see(z)
        losses, slope = classify_fused(z, weight, bias, y, weight.grad, bias.grad)
        gradients = [self.grad_x, *self.gradients]
        self.solve.backward([x, *self.parameters], self.tape, slope, gradients)
        ensemble.account(losses)
        ensemble.optimiser.step()

    def _forward(self, tensors):
        """z(T); evaluations are counted."""
        ensemble = self.ensemble
        z = self.solve.forward(tensors, self.tape)
        if ensemble.rtol is None:
            ensemble.nfe += self.nfe
            return z
        try:
            check_walk(self.solve)
        except SolveError as error:
            ensemble.retire(error.members)
            return self._forward(tensors)
        ensemble.count(self.solve)
        ensemble.n_accepted = self.solve.n_steps
        return z

    def _prepare(self, x):
        ensemble, span = self.ensemble, (0.0, self.ensemble.protocol.T)
        self.steps = ensemble.steps
        how = {"step_size" if ensemble.rtol is None else "rtol": self.steps}
        how |= {"per_sample": ensemble.instance_axes == 2}
        self.solve = prepare_fused(ensemble.field, x, ensemble.tableau, t=span, **how)
        self.tape = None  # its memory serves the new one
        self.tape = self.solve.tape()
        self.nfe = self.solve.n_steps * ensemble.tableau.n_solution_stages
        self.grad_x = torch.empty_like(x)
        ensemble.backend_used = "fused"


class _GraphedStep:
    """A training step on a GPU, captured once in a CUDA graph and replayed.

    Its thousands of small kernels then cost one launch. The first iterations run as they are, on a
    stream of their own, as torch.cuda.graph asks for; the capture itself computes nothing.
    """

    WARM_UP = 3

    def __init__(self, step):
        self.step, self.iterations, self.graph = step, 0, None
        self.stream = torch.cuda.Stream()

    def __call__(self, x, y) -> None:
        self.iterations += 1
        if self.iterations <= self.WARM_UP:
            return self._warm_up(x, y)
        if self.graph is None:
            self._capture(x, y)
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()

    def _warm_up(self, x, y):
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(x, y)
        torch.cuda.current_stream().wait_stream(self.stream)

    def _capture(self, x, y):
        self.x, self.y = x.clone(), y.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step(self.x, self.y)


def train(
    protocol: Protocol,
    solver: str,
    seeds: Sequence[int],
    *,
    n_steps: int | None = None,
    rtol: float | None = None,
    per_sample: bool = False,
    controller: str | Controller | None = None,
    first_rtol: float | None = None,
    start: str | None = None,
    look_every: int = 500,
    device: str = "auto",
    backend: str = "auto",
    progress: Progress = True,
    checkpoint: Checkpoint | None = None,
    precision: str = "float32",
) -> Trained:
    """Train one member for each seed, all in one batch, back-propagating through the solver.

    Give one of `n_steps` (fixed steps), `rtol` (an embedded method; atol is the same; with
    `per_sample` each sample has an error norm and steps of its own, instead of each member's
    batch), or `controller` (it adapts for each member the size of fixed steps, from `start` on, one
    of adaption.STARTS, or the tolerance of an embedded method, from `first_rtol` on, by default
    FIRST_RTOL: one of adapt.py, or its name, such as "auto" or "algorithm1"; the test split is
    looked at every `look_every` iterations). A member that diverges is marked and does not touch
    the others. `progress`: show a bar, or call this with the iterations done so far. With a
    `checkpoint` it goes on where the same training was stopped, to the same bits on a CPU; Ctrl-C
    then stops between two iterations and leaves a checkpoint. `precision`: of products in fields
    of images, one of PRECISIONS; tests afterwards are in float32.

    Raises ValueError for a bad argument, before any work.
    """
    seeds = list(seeds)
    controller = get_controller(controller) if isinstance(controller, str) else controller
    _check_training(solver, seeds, n_steps, rtol, controller)
    check_per_sample(per_sample, rtol)
    first_rtol = choose_first_rtol(first_rtol, solver, controller)
    start = choose_start(start, solver, controller)
    device = get_device(device)
    _check_precision(precision, protocol, device)
    training, test = (split.to(device) for split in protocol.load())
    ensemble = _Ensemble(protocol, solver, seeds, n_steps, rtol, per_sample, device, backend)
    if controller is not None:
        how = (ensemble, controller, test, look_every)
        of_tolerance = first_rtol is not None
        ensemble.adaption = (
            ToleranceAdaption(*how, first_rtol) if of_tolerance else Adaption(*how, start)
        )
    identity = _identity(ensemble, training.x, n_steps, rtol, controller, look_every)
    identity |= {"precision": precision, "first_rtol": first_rtol}
    identity |= {"start": start} if start else {}
    saved = checkpoint.load(identity) if checkpoint is not None else None
    if saved is not None:
        ensemble.restore(*saved)
    step = _choose_step(ensemble, identity["backend"])
    generators = [make_generator(seed, "batches") for seed in seeds]
    done, total = ensemble.iteration, protocol.iterations
    order = batches(len(training), protocol.batch_size, generators, total, done)
    began = time.perf_counter() - ensemble.seconds
    label = f"{protocol.dataset} {solver} " + (
        f"K = {n_steps}" if n_steps else f"{rtol or 'adapted'}"
    )
    bar = tqdm(
        order,
        label,
        total,
        initial=done,
        disable=progress is not True,
        mininterval=1.0,
        leave=False,
    )
    tell = progress if callable(progress) else lambda iteration: None
    tell(done)
    with _HeldInterrupt(checkpoint) as interrupt, in_precision(precision, device):
        for index in bar:
            index = index.to(device)
            ensemble.iterate(step, training.x[index], training.y[index])
            ended = interrupt.seen or ensemble.iteration == total
            if checkpoint is not None and (ended or checkpoint.is_due()):
                ensemble.seconds = time.perf_counter() - began
                checkpoint.save(identity, *ensemble.state())
            tell(ensemble.iteration)
            if interrupt.seen:
                raise KeyboardInterrupt
    adaption = ensemble.adaption
    diverged = torch.where(ensemble.alive, -1, ensemble.finite_iterations + 1)
    return Trained(
        ensemble.field,
        ensemble.head,
        protocol,
        seeds,
        nfe_per_iteration=(ensemble.nfe / protocol.iterations).cpu(),
        diverged_at=diverged.cpu(),
        seconds=time.perf_counter() - began,
        backend=ensemble.backend_used,
        device=str(device),
        precision=precision,
        step_size=ensemble.steps if controller else None,
        history=adaption.history if adaption else [],
        marks={k: ensemble.named(v) for k, v in adaption.marks.items()} if adaption else {},
    )


class _HeldInterrupt:
    """Holds a first Ctrl-C back while it is entered, so that the loop can stop between iterations,
    where the state is whole; `seen` tells of it. A second Ctrl-C acts at once."""

    def __init__(self, wanted):
        # Only Python's own way with it is held back, and only the main thread may.
        own = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        main = threading.current_thread() is threading.main_thread()
        self.seen, self.holds = False, wanted is not None and own and main

    def __enter__(self):
        if self.holds:
            signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, *_):
        self.seen = True
        self.__exit__()

    def __exit__(self, *_):
        if self.holds:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _identity(ensemble, x, n_steps, rtol, controller, look_every):
    """What must be the same for a training to go on: all that its bits depend on."""
    batch = x[: ensemble.protocol.batch_size].expand(len(ensemble.seeds), -1, *x.shape[1:])
    if ensemble.rtol is None:
        backend = choose_backend(ensemble.field, batch, backend=ensemble.backend)
    else:
        how = {"instance_axes": ensemble.instance_axes, "backend": ensemble.backend}
        backend = choose_adaptive_backend(ensemble.field, batch, ensemble.tableau, **how)
    return {
        "protocol": asdict(ensemble.protocol),
        "solver": ensemble.tableau.name,
        "seeds": ensemble.seeds,
        "n_steps": n_steps,
        "rtol": rtol,
        "instance_axes": ensemble.instance_axes,
        "controller": repr(controller),
        "look_every": look_every,
        "backend": backend,
        "device": str(ensemble.device),
        "torch": torch.__version__,
    }


def _choose_step(ensemble, backend):
    """The kernel has a way of its own, and a GPU has one where the steps stay the same."""
    if ensemble.device.type == "cuda":
        stays = ensemble.rtol is None and ensemble.adaption is None
        return _GraphedStep(ensemble.step) if stays else ensemble.step
    return _FusedStep(ensemble) if backend == "fused" else ensemble.step


def check_seeds(seeds: Sequence[int]) -> None:
    """ValueError unless seeds are whole numbers >= 0, at least one, each once."""
    valid = all(isinstance(seed, int) and seed >= 0 for seed in seeds)
    if not seeds or not valid or len(set(seeds)) != len(seeds):
        raise ValueError(f"seeds = {list(seeds)}: give at least one whole number >= 0, each once")


def _check_training(solver, seeds, n_steps, rtol, controller):
    get_tableau(solver)
    check_seeds(seeds)
    given = [value is not None for value in (n_steps, rtol, controller)]
    if sum(given) != 1:
        raise ValueError(
            f"n_steps = {n_steps}, rtol = {rtol}, controller = {controller}: give exactly one"
        )
    if n_steps is not None:
        check_n_steps(n_steps)
    if rtol is not None:
        check_tolerance("rtol", rtol)
        check_embedded(solver)
    if controller is not None and get_tableau(solver).b_embedded is None:
        check_finer(solver, controller.test_solver or finer_solver(solver))
