"""Peak memory of a solve and its gradient on images, each in a new process: O(K * state)."""

import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.cases import IMAGES, Case
from benchmarks.ours import autograd_call, choose
from benchmarks.rows import make_row
from benchmarks.timing import use_one_core

BATCH = 32
HIGH_WATER = Path("/proc/self/clear_refs")  # writing 5 there makes VmHWM count anew


def images(n_steps: int, batch: int) -> Case:
    """The case whose memory is measured."""
    return replace(IMAGES, n_steps=n_steps, batch=batch)


def image_memory(case: Case) -> tuple[float, float]:
    """Milliseconds, and megabytes by which this process grows, in one solve and its gradient."""
    use_one_core()
    call = autograd_call(case, "auto")
    # Importing torch took more memory than a small solve.
    HIGH_WATER.write_text("5")
    before = _memory_mb("VmRSS")
    start = time.process_time()
    call()
    ms = (time.process_time() - start) * 1e3
    return ms, _memory_mb("VmHWM") - before


def measure_image_memory(n_steps: int, batch: int = BATCH) -> list[dict]:
    """One row; none where the system does not tell."""
    if not HIGH_WATER.exists():
        return []
    code = "from benchmarks.memory import *; "
    code += f"print(*image_memory(images({n_steps}, {batch})))"
    command, root = [sys.executable, "-c", code], Path(__file__).parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    ms, megabytes = map(float, done.stdout.split())
    case = images(n_steps, batch)
    name = f"MNIST field, Euler, K = {n_steps}, batch {batch}, 1 seed: memory"
    return [make_row(name, f"nodecore, {choose(case)}", ms=ms, peak_memory_mb=megabytes)]


def _memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024
