"""What a measurement ran on: without it the numbers mean nothing."""

import os
import platform
from datetime import date
from importlib.metadata import version
from pathlib import Path

from benchmarks.jax_client import JaxWorker

TORCH_SIDE = ("torch", "torchdiffeq", "torchode")


def describe(jax: JaxWorker | None) -> dict:
    """Processor, load average of the last minute, versions of all that is there, date."""
    versions = {name: found for name in TORCH_SIDE if (found := _version(name))}
    if jax:
        versions |= jax.ask(versions=True)
    return {
        "processor": _processor(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": versions,
        "date": date.today().isoformat(),
    }


def _version(name):
    try:
        return version(name)
    except ImportError:  # PackageNotFoundError is one
        return None


def _processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    widest = next((flag for flag in ("avx512f", "avx2") if flag in flags), "no AVX2")
    return f"{names[0] if names else platform.processor()} ({widest})"
