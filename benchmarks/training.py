"""Iterations of a training with all that belongs to them, and a whole training beside JAX's."""

import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import torch

from benchmarks.agreement import Disagreement, difference
from benchmarks.cases import IMAGES, LANDSCAPE, Case
from benchmarks.jax_client import JaxWorker
from benchmarks.ours import BARE, BareSolve, serves
from benchmarks.rows import make_row
from benchmarks.strokes import draw_strokes
from benchmarks.timing import (
    Effort,
    Engine,
    core_seconds,
    paired_ratio,
    take_turns,
    time_calls,
    torch_engine,
)
from nodecore.data.seeding import make_generator
from nodecore.data.split import Split
from nodecore.ode.steps import FixedSteps
from nodecore.training.ensemble import make_model
from nodecore.training.loop import Trained, batches, train
from nodecore.training.protocols import Protocol, get_protocol

# --- one iteration --------------------------------------------------------------------------------

IMAGE_SIZE = 28


@cache
def drawn_split(n: int, seed: int) -> Split:
    """n drawn images in place of MNIST's; their labels mean nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (n,), generator=generator)
    return Split(draw_strokes(n, IMAGE_SIZE, generator)[:, None], labels, n_classes=10)


class DrawnDigits(Protocol):
    """MNIST's protocol on drawn images, which need not be fetched."""

    def load(self) -> tuple[Split, Split]:
        return drawn_split(self.n_train, 0), drawn_split(self.n_test, 1)


def protocol_of(case: Case) -> Protocol:
    """The paper's protocol with the field and batch of a case of the landscape or of images."""
    sizes = {"width": case.width, "batch_size": case.batch}
    if case.field == "mlp":
        return replace(get_protocol("landscape"), **sizes)
    values = asdict(get_protocol("mnist")) | sizes
    return DrawnDigits(**values | {"n_train": 4 * case.batch, "n_test": 1})


def train_case(case: Case, protocol: Protocol, iterations: int) -> Trained:
    """nodecore's training of a case."""
    protocol = replace(protocol, iterations=iterations)
    seeds = range(case.members)
    return train(
        protocol, FixedSteps(case.solver, case.n_steps), seeds, device="cpu", progress=False
    )


def measure_iteration(case: Case, iterations: int, effort: Effort) -> list[dict]:
    """An iteration, batches, classifier, loss and optimiser included, against the solve alone.

    iterations: trained at a time, over which what a training sets up is spread.
    """
    name = f"training iteration, {case.name}"
    if not serves(case):
        return [make_row(name, BARE, left_out="the kernel does not serve this field here")]
    protocol = protocol_of(case)

    def measure(calls):
        return time_calls(lambda: train_case(case, protocol, iterations), 1) / iterations

    pair = [Engine("iteration", measure), torch_engine("solve", BareSolve(case))]
    times = take_turns(pair, effort)
    ms = statistics.median(times["iteration"]) / case.members
    ratio = paired_ratio(times["iteration"], times["solve"])
    return [make_row(name, BARE, ms=ms, ratio=ratio, rounds=len(times["solve"]))]


ITERATED = {  # and how many iterations at a time
    replace(LANDSCAPE, name="energy landscape, Euler, K = 16"): 200,
    replace(LANDSCAPE, name="energy landscape, Euler, K = 16, 20 seeds", members=20): 50,
    replace(IMAGES, name="MNIST field, Euler, K = 8, batch 256, 1 seed", n_steps=8): 8,
}

# --- a whole training -----------------------------------------------------------------------------

WHOLE = "{} iterations, {}, Euler, K = 16, 5 seeds"
OURS, JAX, BUILD = "nodecore", "jax.lax.scan, optax", "nodecore, C++ compiler"
UPDATE = 1e-2  # relative difference of the change of the weights after 10 iterations


def train_in_jax(case: Case, protocol: Protocol, iterations: int, jax: JaxWorker):
    """The same training in JAX, from the same weights, on the same batches."""
    field, head = make_model(protocol, range(case.members))
    parameters = [p.detach() for p in (*field.parameters(), *head.parameters())]
    split, _ = protocol.load()
    generators = [make_generator(seed, "batches") for seed in range(case.members)]
    order = torch.stack(list(batches(len(split), protocol.batch_size, generators, iterations)))
    trained, compile_s, train_s = jax.train(
        case, protocol.learning_rate, parameters, split.x, split.y, order
    )
    return parameters, trained, compile_s, train_s


def check_training(case: Case, protocol: Protocol, jax: JaxWorker, iterations: int = 10) -> None:
    """Raises Disagreement unless JAX changes every weight as we do."""
    before, theirs, *_ = train_in_jax(case, protocol, iterations, jax)
    ours = train_case(case, protocol, iterations)
    modules = (*ours.field.parameters(), *ours.head.parameters())
    for number, (start, mine, other) in enumerate(zip(before, modules, theirs, strict=True)):
        found = difference(other - start, mine.detach() - start)
        if not found <= UPDATE:
            raise Disagreement(
                f"parameter {number} changes otherwise, by {found:.1e} of the change"
            )


def measure_whole_training(case: Case, effort: Effort, jax: JaxWorker | None) -> list[dict]:
    """Seconds of a whole training; compile_s of it before the first iteration.

    Left out alike: imports, making the data; of JAX's also drawing the weights and the batches.
    """
    protocol, n = protocol_of(case), effort.iterations
    name, rows = WHOLE.format(n, case.name), []
    protocol.load()  # made once and kept
    if jax:
        try:
            check_training(case, protocol, jax)
        except Disagreement as error:
            rows.append(make_row(name, JAX, refused=str(error)))
            jax = None
    seconds, others, compiles = [], [], []
    for _ in range(min(3, effort.most_rounds)):
        start = core_seconds()
        train_case(case, protocol, n)
        seconds.append(core_seconds() - start)
        if jax:
            *_, compile_s, train_s = train_in_jax(case, protocol, n, jax)
            compiles.append(compile_s)
            others.append(compile_s + train_s)
    rows.append(make_row(name, OURS, seconds=statistics.median(seconds), compile_s=0.0))
    if jax:
        compile_s = statistics.median(compiles)
        rows.append(make_row(name, JAX, seconds=statistics.median(others), compile_s=compile_s))
    return rows


def measure_build() -> list[dict]:
    """Seconds to compile the kernel, once on a machine, and to check it, once in a process."""
    code = "from benchmarks.timing import core_seconds; from nodecore.ode import kernels; "
    code += "start = core_seconds(); kernels.status(); print(core_seconds() - start)"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"XDG_CACHE_HOME": folder}
        for when in ("first time on a machine", "later processes"):
            done = subprocess.run(
                [sys.executable, "-c", code],
                **{"env": environment, "capture_output": True, "text": True, "check": True},
                cwd=Path(__file__).parents[1],
            )
            seconds = float(done.stdout)
            rows.append(make_row(f"kernel ready, {when}", BUILD, seconds=seconds))
    return rows
