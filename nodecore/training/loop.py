"""Train an ensemble from its first iteration, or from a checkpoint, to its last."""

import dataclasses
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nodecore.data.seeding import make_generator
from nodecore.ode.backends import choose_adaptive_backend, choose_backend
from nodecore.ode.checks import check_count
from nodecore.ode.fields import Conv2dField
from nodecore.ode.steps import FixedSteps
from nodecore.training.adapted import Adapted, AnySteps
from nodecore.training.adaption import Adaption, ToleranceAdaption
from nodecore.training.controllers import check_in_use
from nodecore.training.cures import Cure, check_cures, name_cures
from nodecore.training.devices import (
    check_precision,
    get_device,
    in_precision,
    maps_fit,
    single_threaded,
    tuned_convolutions,
    without_kernel,
)
from nodecore.training.ensemble import Ensemble
from nodecore.training.iteration import choose_step
from nodecore.training.protocols import Protocol

if TYPE_CHECKING:  # a training needs torch and numpy alone, a checkpoint safetensors
    from nodecore.training.checkpoint import Checkpoint


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


Progress = bool | Callable[[int], None]


@dataclass
class Trained:
    """A trained ensemble, and how its training went.

    nfe_per_iteration, step_size: (members,) float64, the evaluations counted with those of the
    checks (those of one sample, on average, where each steps by itself), and the step, or
    tolerance, that a controller had the last iteration take. diverged_at: iteration of the first
    non-finite loss, -1 for none. history: a dict for each check or look at the test set, where a
    controller was at work; marks: weights by name at the moments that the history marks, a dict for
    each mark. execution: "graph" where the iterations were replays of a CUDA graph, else "eager";
    and why, where it tells.
    """

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
    history: list[dict] = dataclasses.field(default_factory=list)
    marks: dict[str, dict[str, Tensor]] = dataclasses.field(default_factory=dict)


def train(
    protocol: Protocol,
    steps: AnySteps,
    seeds: Sequence[int],
    *,
    look_every: int = 500,
    device: str = "auto",
    backend: str = "auto",
    progress: Progress = True,
    checkpoint: "Checkpoint | None" = None,
    precision: str = "float32",
    cures: Sequence[Cure] = (),
) -> Trained:
    """Train one member for each seed, all in one batch, back-propagating through the solver.

    steps: fixed ones, those of a tolerance, or Adapted ones; of these the test split is looked
    at every `look_every` iterations. A member that diverges is marked and does not touch the
    others; the training ends once all have. progress: show a bar, or call this with the
    iterations done so far. With a `checkpoint` it goes on where the same training was stopped,
    to the same bits on a CPU; Ctrl-C then stops between two iterations and leaves a checkpoint.
    precision: of products in fields of images, one of PRECISIONS; tests afterwards are in
    float32. cures: changes to the training, see nodecore.training.cures. All of them work with
    fixed steps (the steps that the model is meant for); cures that draw the number of steps also
    work with adapted step sizes.

    Raises ValueError for a bad argument, before any work.
    """
    seeds, look_every = check_seeds(seeds), check_count("look_every", look_every)
    cures = check_cures(cures, steps, protocol)
    if protocol.gradient == "adjoint" and (cures or not isinstance(steps, FixedSteps)):
        raise ValueError("gradient = 'adjoint': it is for fixed steps without cures; leave it out")
    if isinstance(steps, Adapted):
        check_in_use(steps.rule)
    place = get_device(device)
    check_precision(precision, protocol, place)
    if precision != "float32":  # which is all that the kernel computes in
        backend = without_kernel(backend, precision)
    training, test = (split.to(place) for split in protocol.load())
    ensemble = _set_up(protocol, steps, seeds, place, backend, precision, cures)
    if isinstance(steps, Adapted):
        adaption = Adaption if steps.first_rtol is None else ToleranceAdaption
        ensemble.adaption = adaption(ensemble, test, look_every)
    identity = _identity(ensemble, training.x, look_every, precision)
    saved = checkpoint.load(identity) if checkpoint is not None else None
    if saved is not None and _is_midway(ensemble, *saved):
        ensemble.restore(*saved)
    with (
        _HeldInterrupt(checkpoint) as interrupt,
        in_precision(precision, place),
        tuned_convolutions(),
    ):
        seconds = _iterate(ensemble, training, identity, progress, checkpoint, interrupt)
    if interrupt.seen:  # in the last iteration
        raise KeyboardInterrupt
    return _result(ensemble, seconds, precision)


def _set_up(protocol, steps, seeds, device, backend, precision, cures):
    ensemble = Ensemble(protocol, steps, seeds, device, backend, cures)
    if device.type == "cuda" and isinstance(ensemble.field, Conv2dField):
        ensemble.field.keeps_maps = False
        if steps.n_steps is not None and not cures:
            evaluations = steps.n_steps * ensemble.tableau.n_solution_stages * len(ensemble.seeds)
            ensemble.field.keeps_maps = maps_fit(protocol, evaluations, precision, device)
    return ensemble


def _is_midway(ensemble, tensors, values):
    """Tell whether a saved state is one of this training: no iteration is beyond its last."""
    done = values.get("iteration") if isinstance(values, dict) else None
    own, _ = ensemble.state()
    return (
        isinstance(done, int)
        and 0 < done <= ensemble.protocol.iterations
        and all(name in tensors and tensors[name].shape == own[name].shape for name in own)
        and bool((tensors["finite_iterations"][tensors["alive"]] == done).all())
    )


def _iterate(ensemble, training, identity, progress, checkpoint, interrupt):
    """Go through what is left of the iterations; the seconds of all, those before a stop too."""
    protocol, done, total = ensemble.protocol, ensemble.iteration, ensemble.protocol.iterations
    step = choose_step(ensemble, identity["backend"])
    generators = [make_generator(seed, "batches") for seed in ensemble.seeds]
    order = batches(len(training), protocol.batch_size, generators, total, done)
    began = time.perf_counter() - ensemble.seconds
    bar = _with_bar(order, ensemble, done) if progress is True else order
    tell = progress if callable(progress) else lambda iteration: None
    tell(done)
    with single_threaded(ensemble.device):
        for index in bar:
            if ensemble.is_lost():  # the last checkpoint is of before, and comes to the same end
                break
            index = index.to(ensemble.device)
            ensemble.iterate(step, training.x[index], training.y[index])
            stops = interrupt.seen  # asked once: who stops has saved
            ended = stops or ensemble.iteration == total
            if checkpoint is not None and (ended or checkpoint.is_due()):
                ensemble.seconds = time.perf_counter() - began
                checkpoint.save(identity, *ensemble.state())
            tell(ensemble.iteration)
            if stops:
                raise KeyboardInterrupt
    return time.perf_counter() - began


def _result(ensemble, seconds, precision):
    adaption = ensemble.adaption
    diverged = torch.where(ensemble.alive, -1, ensemble.finite_iterations + 1)
    return Trained(
        ensemble.field,
        ensemble.head,
        ensemble.protocol,
        ensemble.seeds,
        nfe_per_iteration=(ensemble.nfe / ensemble.iteration).cpu(),
        diverged_at=diverged.cpu(),
        seconds=seconds,
        backend=ensemble.backend_used,
        device=str(ensemble.device),
        precision=precision,
        execution=ensemble.how_executed(),
        step_size=ensemble.chosen if adaption else None,
        history=adaption.history if adaption else [],
        marks={k: ensemble.named(v) for k, v in adaption.marks.items()} if adaption else {},
    )


def _with_bar(order, ensemble, done):
    from tqdm import tqdm  # a training without a bar needs torch and numpy alone

    protocol, steps = ensemble.protocol, ensemble.steps
    label = f"{protocol.dataset} {steps}"
    return tqdm(order, label, protocol.iterations, initial=done, mininterval=1.0, leave=False)


class _HeldInterrupt:
    """Hold back the first Ctrl-C so that the loop stops between iterations, where the state is
    complete; `seen` then is True. A second Ctrl-C acts at once. SIGTERM is treated alike if it
    raises KeyboardInterrupt."""

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


def _identity(ensemble, x, look_every, precision):
    """Return what must be the same for a training to go on: all that its bits depend on."""
    batch = x[: ensemble.protocol.batch_size].expand(len(ensemble.seeds), -1, *x.shape[1:])
    if ensemble.by_tolerance:
        how = {"instance_axes": ensemble.instance_axes, "backend": ensemble.backend}
        backend = choose_adaptive_backend(ensemble.field, batch, ensemble.tableau, **how)
    else:
        backend = choose_backend(ensemble.field, batch, backend=ensemble.backend)
    steps = ensemble.steps
    return {
        "protocol": ensemble.protocol.values,
        "solver": ensemble.tableau.name,
        "seeds": ensemble.seeds,
        "n_steps": steps.n_steps,
        "rtol": steps.rtol,
        "instance_axes": ensemble.instance_axes,
        "controller": repr(steps.rule if isinstance(steps, Adapted) else None),
        "look_every": look_every,
        "backend": backend,
        "device": str(ensemble.device),
        "torch": torch.__version__,
        "precision": precision,
        "first_rtol": steps.first_rtol,
        **({"start": steps.start} if steps.start else {}),
        **({"cures": name_cures(ensemble.cures)} if ensemble.cures else {}),
    }


def check_seeds(seeds: Sequence[int]) -> list[int]:
    """Return the seeds as ints; raise ValueError unless they are whole numbers >= 0, at least one,
    each once."""
    checked = [check_count("seed", seed, least=0) for seed in seeds]
    if not checked or len(set(checked)) != len(checked):
        raise ValueError(f"seeds = {checked}: give at least one whole number >= 0, each once")
    return checked
