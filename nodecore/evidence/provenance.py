"""Provenance of a record: machine, versions and revision."""

import os
import platform
import subprocess
from pathlib import Path

import torch

from nodecore.data.files import PROJECT
from nodecore.ode import kernels
from nodecore.ode.backends import resolve_backend


def kernel_version(backend: str) -> int | None:
    """Return the version of the fused kernel's arithmetic, where it was at work."""
    return kernels.VERSION if backend == "fused" else None


def backend_here() -> str:
    """The backend that solves here where none is named."""
    fused = resolve_backend() != "torch" and kernels.status().available
    return "fused" if fused else "torch"


def testing_here() -> dict[str, str | int | None]:
    """What tests on this CPU are made with, as headers have it."""
    backend = backend_here()
    made = {"device": device_name("cpu"), "torch": torch.__version__}
    return made | {"backend": backend, "kernel": kernel_version(backend)}


def device_name(device: str) -> str:
    """The model of a device; of the CPU also the threads."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"cpu ({cpu_model()}, {torch.get_num_threads()} threads)"


def cpu_model() -> str:
    """The model of this machine's processor, as far as the system names it.

    Virtual machines may give several generations one name without a number, such as "AMD EPYC";
    family and model, which tell these apart, are added to it.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    pairs = [line.partition(":")[::2] for line in reversed(lines)]  # of the first processor at last
    told = {key.strip(): value.strip() for key, value in pairs}
    name = told.get("model name") or platform.machine()
    if any(letter.isdigit() for letter in name) or "cpu family" not in told:
        return name
    return f"{name}, family {told['cpu family']}, model {told.get('model', '?')}"


def recorded_revision() -> dict[str, str | None]:
    """Return the git revision of the project for a header, with a + where files differ from it.

    NODECORE_REVISION gives it for a copy that is no checkout. Where it is unknown, it is None and
    revision_unknown has the reason.
    """
    told = os.environ.get("NODECORE_REVISION")
    if told:
        return {"revision": told}
    # git refuses another owner's checkout, but whoever runs the project's code trusts its folder.
    command = ["git", "-c", f"safe.directory={PROJECT}", "-C", str(PROJECT)]
    command += ["describe", "--always", "--abbrev=12", "--dirty=+"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        why = "git is not installed"
    else:
        if result.stdout.strip():
            return {"revision": result.stdout.strip()}
        why = " ".join(result.stderr.split())
    return {"revision": None, "revision_unknown": f"no git revision: {why}"}
