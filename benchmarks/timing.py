"""Engines take turns (A B C A B C ...), so that what else the machine does falls on all alike.

Times are those that a process spends on its one core. On an idle machine that is the time that
passes; on a busy one, what passes while others have the core is nobody's merit.
"""

import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Result = tuple[Tensor, list[Tensor]]  # z(T) and the gradient of each parameter, members first


@dataclass(frozen=True)
class Effort:
    """How often things are measured.

    most_rounds, least_rounds: of turns; a case ends between them, once `seconds` are spent.
    least_ms: a measurement repeats what is shorter. iterations: of the whole training.
    """

    most_rounds: int = 7
    least_rounds: int = 3
    seconds: float = 12.0
    least_ms: float = 20.0
    iterations: int = 2000


FULL = Effort()
QUICK = Effort(most_rounds=2, least_rounds=2, least_ms=0.0, iterations=20)


@dataclass
class Engine:
    """Something that can be timed.

    measure: milliseconds per call, for a number of calls. result: what a call computes, where it is
    to be compared, and with what where it is not the case itself. nfe: evaluations of an adaptive
    solve, mean over the samples. compile_s: seconds to compile before the first call.
    """

    name: str
    measure: Callable[[int], float]
    result: Callable[[], Result] | None = None
    reference: Callable[[], Result] | None = None
    nfe: float | None = None
    compile_s: float | None = None
    calls: int = 1


def use_one_core() -> None:
    """Keep this process and its children on one core, and torch to one thread."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    if hasattr(os, "sched_setaffinity"):
        # The last one: the first is where most machines handle their interrupts.
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def core_seconds() -> float:
    """Seconds that this process and the children it waited for have spent on a core so far."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def time_calls(call: Callable[[], object], calls: int) -> float:
    """Milliseconds per call."""
    start = time.process_time()
    for _ in range(calls):
        call()
    return (time.process_time() - start) / calls * 1e3


def torch_engine(
    name: str,
    call: Callable[[], object],
    as_ours: Callable[[object], Result] = lambda result: result,
    **facts,
) -> Engine:
    """An engine of this process; `as_ours` puts what a call returns into the layout of Result."""
    return Engine(name, lambda calls: time_calls(call, calls), lambda: as_ours(call()), **facts)


def take_turns(engines: Sequence[Engine], effort: Effort) -> dict[str, list[float]]:
    """Milliseconds per call of each engine by name, one for each round."""
    for engine in engines:
        engine.measure(1)  # warm
        once = max(engine.measure(1), 1e-3)
        engine.calls = max(1, min(200, int(effort.least_ms / once)))
    times, spent = {engine.name: [] for engine in engines}, 0.0
    for done in range(effort.most_rounds):
        if done >= effort.least_rounds and spent > effort.seconds:
            break
        for engine in engines:
            ms = engine.measure(engine.calls)
            times[engine.name].append(ms)
            spent += ms * engine.calls / 1e3
    return times


def paired_ratio(values: list[float], others: list[float]) -> float:
    """How many times as long as the others the values took: the median over the rounds."""
    return statistics.median(v / o for v, o in zip(values, others, strict=True))
