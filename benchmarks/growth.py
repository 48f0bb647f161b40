"""How much longer a call takes when one thing doubles."""

import statistics
from dataclasses import replace

from benchmarks.cases import Case
from benchmarks.ours import BARE, BareSolve
from benchmarks.rows import make_row
from benchmarks.timing import Effort, paired_ratio, take_turns, torch_engine

CHANGES = {
    "K 16 to 32": {"n_steps": 32},
    "5 to 10 members": {"members": 10},
    "5 to 20 members": {"members": 20},
    "batch 128 to 256": {"batch": 256},
}


def measure_growth(base: Case, effort: Effort) -> list[dict]:
    """A row for each of CHANGES of a case that the kernel serves."""
    rows = []
    for change, values in CHANGES.items():
        case = replace(base, **values)
        pair = [torch_engine(n, BareSolve(c)) for n, c in (("before", base), ("after", case))]
        times = take_turns(pair, effort)
        ratio = paired_ratio(times["after"], times["before"])
        ms = statistics.median(times["after"]) / case.members
        rows.append(make_row(f"growth, {base.name}: {change}", BARE, ms=ms, ratio=ratio))
    return rows
