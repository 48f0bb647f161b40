"""A run: the unit of work, and what names its files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nodecore.evidence import store
from nodecore.training.adapted import Adapted, AnySteps, steps_of
from nodecore.training.changes import Changes, check_changes, get_changes, name_changes
from nodecore.training.cures import Cures, check_cures, get_cures, name_cures
from nodecore.training.loop import check_seeds
from nodecore.training.protocols import Protocol, digest, get_protocol

SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Run:
    """One ensemble to train: a data set, the steps of its training, and its seeds.

    steps: with a controller's name, not a controller. T: the time to integrate over, 1 in the
    paper, which fixed steps fill. cures: what the training does besides, none in the paper.
    changes: values of the protocol that are others, by name, such as (("width", 16),). Raises
    ValueError.
    """

    dataset: str
    steps: AnySteps
    seeds: tuple[int, ...] = SEEDS
    profile: str = "paper"
    T: float = 1.0
    cures: Cures = ()
    changes: Changes = ()

    def __post_init__(self):
        object.__setattr__(self, "seeds", tuple(sorted(check_seeds(self.seeds))))
        get_protocol(self.dataset, self.profile)
        object.__setattr__(self, "changes", check_changes(self.changes, self.dataset))
        object.__setattr__(self, "cures", check_cures(self.cures, self.steps, self.protocol))
        if not 0 < self.T < math.inf:
            raise ValueError(f"T = {self.T!r}: give a time > 0")
        if isinstance(self.steps, Adapted) and not isinstance(self.steps.controller, str):
            raise ValueError(
                f"controller = {self.steps.controller}: give its name, by which records are found"
            )

    @property
    def study(self) -> str:
        """The study it belongs to: `<dataset>-<train solver>`, `-adaption` (of steps), `-tolerance`
        (its adaption), `-growing-T`, `-per-sample`, `-cures`, or `-ablations`."""
        if self.changes:
            return f"{self.dataset}-ablations"
        if self.cures:
            return f"{self.dataset}-cures"
        if self.T != 1.0:
            return f"{self.dataset}-growing-T"
        if self.steps.per_sample:
            return f"{self.dataset}-per-sample"
        if not isinstance(self.steps, Adapted):
            return f"{self.dataset}-{self.steps.solver}"
        return f"{self.dataset}-{'adaption' if self.steps.first_rtol is None else 'tolerance'}"

    @property
    def training(self) -> str:
        """What its name says without the seeds, such as `euler-K8` or `euler-K16-loguniform-4`."""
        time = "" if self.T == 1.0 else f"-T{self.T:g}"
        cures = f"-{name_cures(self.cures)}" if self.cures else ""
        changes = f"-{name_changes(self.changes)}" if self.changes else ""
        return f"{self.steps.name}{time}{cures}{changes}"

    @property
    def name(self) -> str:
        """The stem of its files, such as `euler-K8-seeds0-4`."""
        return f"{self.training}-seeds{_ranges(self.seeds)}"

    @property
    def title(self) -> str:
        """Study and name, as one who chooses runs writes them."""
        return f"{self.study}/{self.name}"

    @property
    def protocol(self) -> Protocol:
        return replace(get_protocol(self.dataset, self.profile), T=self.T, **dict(self.changes))

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with the protocol, whose norm bounds the error, a
        controller's constants, where it begins, or the cures."""
        more = self.steps.constants if isinstance(self.steps, Adapted) else {}
        more |= {"per_sample": True} if self.steps.per_sample else {}
        more |= {"cures": name_cures(self.cures)} if self.cures else {}
        return digest(self.protocol.values | more)

    def path(self, root: Path | None = None) -> Path:
        """Return where its JSON lies below a root, by default the scratch store."""
        return (root or store.scratch_root()) / self.study / self.profile / f"{self.name}.json"


def run_of(header: Mapping) -> Run:
    """The run that a header describes. ValueError, TypeError or KeyError where there is none."""
    steps, cures = steps_of(header), get_cures(header.get("cures") or "")
    T, seeds = header["protocol"]["T"], tuple(header["seeds"])
    changes = get_changes(header.get("changes") or "", header["dataset"])
    return Run(header["dataset"], steps, seeds, header["profile"], T, cures, changes)


def _ranges(seeds):
    """(0, 1, 2, 5) -> "0-2,5"."""
    groups = []
    for seed in sorted(seeds):
        if groups and seed == groups[-1][-1] + 1:
            groups[-1].append(seed)
        else:
            groups.append([seed])
    return ",".join(f"{g[0]}-{g[-1]}" if len(g) > 1 else f"{g[0]}" for g in groups)
