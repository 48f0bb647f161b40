"""All that is measured, by name, in the order in which it runs."""

from collections.abc import Callable
from functools import partial

from benchmarks.cases import CASES, LANDSCAPE, one_of_each, shrink
from benchmarks.growth import measure_growth
from benchmarks.jax_client import JaxWorker
from benchmarks.memory import measure_image_memory
from benchmarks.ours import serves
from benchmarks.solving import measure_case
from benchmarks.timing import Effort
from benchmarks.training import (
    ITERATED,
    measure_build,
    measure_iteration,
    measure_whole_training,
)

Job = Callable[[], list[dict]]
MEMORY_STEPS = (4, 16)


def list_jobs(effort: Effort, jax: JaxWorker | None, tiny: bool = False) -> dict[str, Job]:
    """Jobs that return rows. tiny: the same problems in a size that takes no time."""
    cases, iterated, landscape = CASES, ITERATED, LANDSCAPE
    if tiny:
        cases = list(map(shrink, one_of_each(cases)))
        iterated = {shrink(case): 2 for case in iterated}
        landscape = shrink(landscape)
    jobs: dict[str, Job] = {}
    for case in cases:
        jobs[case.name] = partial(measure_case, case, effort, jax)
    if serves(landscape):
        jobs["growth"] = partial(measure_growth, landscape, effort)
    for case, n in iterated.items():
        jobs[f"training iteration, {case.name}"] = partial(measure_iteration, case, n, effort)
    for n_steps in (2,) if tiny else MEMORY_STEPS:
        jobs[f"memory, K = {n_steps}"] = partial(measure_image_memory, n_steps)
    if not tiny:
        jobs["whole training, kernel build"] = measure_build
    jobs["whole training"] = partial(measure_whole_training, landscape, effort, jax)
    return jobs
