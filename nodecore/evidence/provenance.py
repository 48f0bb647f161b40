"""Provenance of a record: machine, versions and revision."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from nodecore.evidence import store
from nodecore.ode import kernels
from nodecore.ode.backends import resolve_backend


def kernel_version(backend: str) -> int | None:
    """Return the version of the fused kernel's arithmetic, where it was at work."""
    return kernels.VERSION if backend == "fused" else None


def backend_here() -> str:
    """The backend that solves here where none is named."""
    fused = resolve_backend() != "torch" and kernels.status().available
    return "fused" if fused else "torch"


def device_name(device: str) -> str:
    """The model of a device; of the CPU also the threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"cpu ({_cpu_model()}, {torch.get_num_threads()} threads)"


def _cpu_model():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def revision() -> str | None:
    """The git revision of the project, with a + where files differ from it. NODECORE_REVISION says
    it where it is set, for a copy that is no checkout; None where nobody knows it."""
    told = os.environ.get("NODECORE_REVISION")
    if told:
        return told
    command = ["git", "-C", str(store.PROJECT), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # git is not installed
        return None
    return result.stdout.strip() or None


def recorded_revision() -> dict[str, str | None]:
    """The revision for a header, with a word where it is not known."""
    known = revision()
    why = "no git revision: not a checkout, or git is not installed"
    return {"revision": known} | ({} if known else {"revision_unknown": why})
