"""Provenance of a record: machine, versions and revision."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from nodecore.evidence import store
from nodecore.ode import kernels


def kernel_version(backend: str) -> int | None:
    """Return the version of the fused kernel's arithmetic, where it was at work."""
    return kernels.VERSION if backend == "fused" else None


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
    """The git revision of the project, with a + where files differ from it. Outside git, or where
    git is not installed, what NODECORE_REVISION says, or None."""
    command = ["git", "-C", str(store.PROJECT), "describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        described = result.stdout.strip()
    except OSError:
        described = ""
    return described or os.environ.get("NODECORE_REVISION") or None


def recorded_revision() -> dict[str, str | None]:
    """The revision for a header, with a word where it is not known."""
    known = revision()
    why = "no git revision: not a checkout, or git is not installed"
    return {"revision": known} | ({} if known else {"revision_unknown": why})
