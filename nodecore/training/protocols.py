"""Protocols that the data sets are trained with: the paper's, and smaller profiles, as data."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nodecore.data.datasets import IMAGES, SYNTHETIC, check_dataset, load
from nodecore.data.split import Split
from nodecore.ode.checks import check_choice


def digest(values: Mapping) -> str:
    """Twelve hexadecimal digits that change with any of the values, which JSON can hold."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Protocol:
    """Protocol of a data set's trainings; all experiments integrate from 0 to T."""

    dataset: str
    field: str  # one of ensemble.FIELDS
    width: int
    batch_size: int
    optimiser: str  # one of ensemble.OPTIMISERS
    learning_rate: float
    iterations: int
    n_train: int = 2000
    n_test: int = 1000
    data_seed: int = 0
    T: float = 1.0
    activation: str = "relu"  # one of fields.ACTIVATIONS
    initialisation: str = "kaiming"  # one of fields.INITIALISATIONS
    gradient: str = "backpropagation"  # or "adjoint", see training.adjoint
    pieces: int = 1  # of time, each with weights of its own

    @property
    def values(self) -> dict[str, Any]:
        """Return all values by name.

        Fields added after the first records were written are left out at their defaults, so that
        the digests of old records stay valid.
        """
        usual = {name: getattr(Protocol, name) for name in _UNCHANGED}
        return {key: value for key, value in asdict(self).items() if usual.get(key) != value}

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with any value of the protocol."""
        return digest(self.values)

    def load(self) -> tuple[Split, Split]:
        """The training and the test split."""
        return load(self.dataset, self.n_train, self.n_test, self.data_seed)


_UNCHANGED = ("activation", "initialisation", "gradient", "pieces")

# The paper's appendix A. Sizes of the synthetic sets are its authors' released defaults.
_SPHERES = Protocol("spheres2", "conv1d", 32, 128, "adam", 1e-4, 10_000)
PROTOCOLS = {
    "spheres2": _SPHERES,
    "spheres3": replace(_SPHERES, dataset="spheres3"),
    "spheres10": replace(_SPHERES, dataset="spheres10"),
    "spheres900": replace(_SPHERES, dataset="spheres900"),
    "landscape": Protocol("landscape", "mlp", 48, 128, "adam", 5e-4, 30_000),
    "mnist": Protocol("mnist", "conv2d", 96, 256, "sgd", 1e-2, 7020, n_train=60_000, n_test=10_000),
    "cifar10": Protocol(
        "cifar10", "conv2d", 128, 256, "adam", 1e-3, 7800, n_train=50_000, n_test=10_000
    ),
}

_TINY = {"width": 4, "batch_size": 16, "iterations": 4, "n_train": 64, "n_test": 32}

# What a profile changes. paper: nothing. laptop: what a CPU affords in minutes even without the
# fused kernel. smoke: seconds, to see that everything runs; never evidence.
PROFILES = {
    "paper": {},
    "laptop": {
        "spheres2": {"iterations": 4000},
        "spheres3": {"iterations": 4000},
        "spheres10": {"iterations": 1000},
        "spheres900": {"iterations": 1000},
        "landscape": {"iterations": 6000},
        "mnist": {"width": 16, "batch_size": 32, "iterations": 1500, "n_test": 1000},
        "cifar10": {"width": 16, "batch_size": 32, "iterations": 1500, "n_test": 1000},
    },
    "smoke": {
        **{name: {"iterations": 60, "n_train": 256, "n_test": 200} for name in SYNTHETIC},
        **{name: _TINY for name in IMAGES},
    },
}


def check_profile(profile: str) -> str:
    """Return the profile; raise ValueError that lists the known ones unless it is one."""
    return check_choice("profile", profile, PROFILES)


def get_protocol(dataset: str, profile: str = "paper") -> Protocol:
    """Return the protocol of a data set at a profile.

    Raises:
        ValueError: Either name is unknown; the message lists the known ones.
    """
    changes = PROFILES[check_profile(profile)]
    return replace(PROTOCOLS[check_dataset(dataset)], **changes.get(dataset, {}))
