"""Train an ensemble from its first iteration, or from a checkpoint, to its last."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Protocol as Interface

import torch
from torch import Tensor, nn

from nodecore.data.seeding import make_generator
from nodecore.ode.backends import choose_adaptive_backend, choose_backend
from nodecore.ode.fields import Conv2dField
from nodecore.ode.steps import check_embedded, check_n_steps, check_per_sample, check_tolerance
from nodecore.ode.tableaus import check_finer, finer_solver, get_tableau
from nodecore.training.adaption import Adaption, ToleranceAdaption, choose_first_rtol, choose_start
from nodecore.training.controllers import Controller, get_controller
from nodecore.training.devices import (
    check_precision,
    get_device,
    in_precision,
    maps_fit,
    single_threaded,
    without_kernel,
)
from nodecore.training.ensemble import Ensemble
from nodecore.training.iteration import choose_step
from nodecore.training.protocols import Protocol


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


# --- training -------------------------------------------------------------------------------------

Progress = bool | Callable[[int], None]


@dataclass
class Trained:
    """A trained ensemble. nfe_per_iteration, step_size: (members,) float64, the evaluations counted
    with those of the checks (those of one sample, on average, where each steps by itself), and the
    step, or tolerance, that a controller had the last iteration take. diverged_at: iteration of the
    first non-finite loss, -1 for none.
    history: a dict for each check or look at the test set, where a controller was at work; marks:
    weights by name at the moments that the history marks, a dict for each mark. execution: "graph"
    where the iterations were replays of a CUDA graph, else "eager"; and why, where it tells."""

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
    execution: str = "eager"
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
    check_precision(precision, protocol, device)
    if precision != "float32":  # which is all that the kernel computes in
        backend = without_kernel(backend, precision)
    training, test = (split.to(device) for split in protocol.load())
    ensemble = Ensemble(protocol, solver, seeds, n_steps, rtol, per_sample, device, backend)
    if device.type == "cuda" and isinstance(ensemble.field, Conv2dField):
        ensemble.field.keeps_maps = n_steps is not None and maps_fit(ensemble, n_steps, precision)
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
    step = choose_step(ensemble, identity["backend"])
    generators = [make_generator(seed, "batches") for seed in seeds]
    done, total = ensemble.iteration, protocol.iterations
    order = batches(len(training), protocol.batch_size, generators, total, done)
    began = time.perf_counter() - ensemble.seconds
    label = f"{protocol.dataset} {solver} " + (
        f"K = {n_steps}" if n_steps else f"{rtol or 'adapted'}"
    )
    bar = _with_bar(order, label, total, done) if progress is True else order
    tell = progress if callable(progress) else lambda iteration: None
    tell(done)
    with (
        _HeldInterrupt(checkpoint) as interrupt,
        in_precision(precision, device),
        single_threaded(device),
    ):
        for index in bar:
            index = index.to(device)
            ensemble.iterate(step, training.x[index], training.y[index])
            stops = interrupt.seen  # asked once: who stops has saved
            ended = stops or ensemble.iteration == total
            if checkpoint is not None and (ended or checkpoint.is_due()):
                ensemble.seconds = time.perf_counter() - began
                checkpoint.save(identity, *ensemble.state())
            tell(ensemble.iteration)
            if stops:
                raise KeyboardInterrupt
    if interrupt.seen:  # in the last iteration
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
        execution=ensemble.how_executed(),
        step_size=ensemble.steps if controller else None,
        history=adaption.history if adaption else [],
        marks={k: ensemble.named(v) for k, v in adaption.marks.items()} if adaption else {},
    )


def _with_bar(order, label, total, done):
    from tqdm import tqdm  # a training without a bar needs torch and numpy alone

    return tqdm(order, label, total, initial=done, mininterval=1.0, leave=False)


class _HeldInterrupt:
    """Holds a first Ctrl-C back while it is entered, so that the loop can stop between iterations,
    where the state is whole; `seen` tells of it. A second Ctrl-C acts at once. So with SIGTERM,
    where it raises KeyboardInterrupt, too."""

    def __init__(self, wanted):
        # Only Python's own way with them is held back, and only the main thread may.
        main = threading.current_thread() is threading.main_thread()
        signals = (signal.SIGINT, signal.SIGTERM) if wanted is not None and main else ()
        self.seen = False
        self.held = [s for s in signals if signal.getsignal(s) is signal.default_int_handler]

    def __enter__(self):
        for held in self.held:
            signal.signal(held, self._note)
        return self

    def _note(self, *_):
        self.seen = True
        self.__exit__()

    def __exit__(self, *_):
        for held in self.held:
            signal.signal(held, signal.default_int_handler)


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
