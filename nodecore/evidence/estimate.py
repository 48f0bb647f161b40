"""Estimate an image study's time and memory before it starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nodecore.data.datasets import DATASETS, IMAGES
from nodecore.evidence.progress import makespan
from nodecore.evidence.runs import Run
from nodecore.evidence.selection import cost, evaluations
from nodecore.evidence.sweep import count_jobs
from nodecore.ode.fields import Conv2dField, hidden_bytes
from nodecore.ode.fixed import solve_fixed
from nodecore.training.devices import get_device, in_precision, seconds_of, single_threaded
from nodecore.training.ensemble import make_model

TORCH = 10**9  # bytes, about: torch with its libraries and what it keeps for itself


@dataclass(frozen=True)
class Estimate:
    """hours: of training, without tests, `jobs` runs at a time. gigabytes: at most at a time."""

    runs: int
    jobs: int
    hours: float
    gigabytes: float
    device: str

    def __str__(self):
        together = f", {self.jobs} at a time," if self.jobs > 1 else ""
        return (
            f"{self.runs} run{'s' * (self.runs > 1)} on images: "
            f"about {self.hours:.1f} h of training on {self.device}"
            f"{together} and up to {self.gigabytes:.1f} GB of memory"
        )


def estimate(
    runs: Sequence[Run],
    *,
    device: str = "auto",
    precision: str = "float32",
    jobs: int | None = None,
) -> Estimate | None:
    """The estimate for those of the runs that are on images; None where none is.

    Times one evaluation with its gradient for each data set and profile. ValueError for a device
    that is not there, and for jobs that sweep.count_jobs refuses.
    """
    jobs, place = count_jobs(jobs, device), get_device(device)
    runs = sorted((run for run in runs if run.dataset in IMAGES), key=cost, reverse=True)
    if not runs:
        return None
    jobs = min(jobs, len(runs))
    seconds = {p: _evaluation_seconds(p, place, precision) for p in {r.protocol for r in runs}}
    trainings = [
        run.protocol.iterations * len(run.seeds) * evaluations(run) * seconds[run.protocol]
        for run in runs
    ]
    most = sum(sorted(memory(run, place) for run in runs)[-jobs:])
    return Estimate(len(runs), jobs, makespan(trainings, jobs) / 3600, most / 1e9, str(place))


def memory(run: Run, device: torch.device) -> int:
    """Bytes: torch, the data, a state for each evaluation, the hidden maps that live at a time."""
    protocol, data = run.protocol, DATASETS[run.dataset]
    pixels = math.prod(data.shape)
    state = 4 * len(run.seeds) * protocol.batch_size * pixels
    everything = 4 * (protocol.n_train + protocol.n_test) * pixels
    area = pixels // data.shape[0]
    kept = hidden_bytes(protocol.batch_size, protocol.width, area)  # by one member's evaluation
    if kept <= Conv2dField.SMALL:
        hidden = 2 * kept * len(run.seeds) * evaluations(run)
    else:
        at_once = Conv2dField.IMAGES_AT_ONCE if device.type == "cpu" else protocol.batch_size
        # Two layers before and after their ReLU, and two of their gradients.
        hidden = 3 * kept * at_once // protocol.batch_size
    return TORCH + everything + state * evaluations(run) + hidden


def _evaluation_seconds(protocol, device, precision):
    """Measure the seconds of one member's evaluation on a batch and of its gradient."""
    field = make_model(protocol, [0])[0].to(device)
    shape = (1, protocol.batch_size, *DATASETS[protocol.dataset].shape)
    z = torch.rand(shape, device=device, generator=torch.Generator(device).manual_seed(0))
    z.requires_grad_()
    backend = "auto" if precision == "float32" else "torch"  # as a training chooses it

    def evaluate():
        solve_fixed(field, z, "euler", n_steps=1, backend=backend).z.sum().backward()

    with in_precision(precision, device), single_threaded(device):
        return seconds_of(evaluate, device)
