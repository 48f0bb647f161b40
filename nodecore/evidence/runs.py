"""A run: the unit of work, and what names its files."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nodecore.data.datasets import check_dataset
from nodecore.ode.steps import check_embedded, check_n_steps, check_per_sample, check_tolerance
from nodecore.ode.tableaus import get_tableau
from nodecore.training.adaption import STARTS, USUAL_START, choose_first_rtol, choose_start
from nodecore.training.controllers import controller_name, get_controller
from nodecore.training.loop import check_seeds
from nodecore.training.protocols import Protocol, digest, get_protocol

SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Run:
    """One ensemble to train. Give one of n_steps, rtol or controller. Raises ValueError.

    T: the time to integrate over, 1 in the paper; n_steps fill it. per_sample: with rtol, each
    sample has an error norm and steps of its own, instead of each seed's batch. first_rtol: where
    a controller begins that adapts the tolerance of an embedded method, by default FIRST_RTOL.
    start: where one begins that adapts steps, one of adaption.STARTS, by default USUAL_START.
    """

    dataset: str
    train_solver: str
    n_steps: int | None = None
    rtol: float | None = None
    controller: str | None = None
    seeds: tuple[int, ...] = SEEDS
    profile: str = "paper"
    T: float = 1.0
    per_sample: bool = False
    first_rtol: float | None = None
    start: str | None = None

    def __post_init__(self):
        check_seeds(self.seeds)
        object.__setattr__(self, "seeds", tuple(sorted(self.seeds)))
        check_dataset(self.dataset)
        get_tableau(self.train_solver)
        get_protocol(self.dataset, self.profile)
        if not 0 < self.T < math.inf:
            raise ValueError(f"T = {self.T!r}: give a time > 0")
        if [self.n_steps, self.rtol, self.controller].count(None) != 2:
            raise ValueError(f"{self}: give exactly one of n_steps, rtol and controller")
        check_per_sample(self.per_sample, self.rtol)
        if self.n_steps is not None:
            check_n_steps(self.n_steps)
        if self.rtol is not None:
            check_tolerance("rtol", self.rtol)
            check_embedded(self.train_solver)
        if self.controller is not None:
            object.__setattr__(self, "controller", controller_name(self.controller))
        first_rtol = choose_first_rtol(self.first_rtol, self.train_solver, self.controller)
        object.__setattr__(self, "first_rtol", first_rtol)
        start = choose_start(self.start, self.train_solver, self.controller)
        object.__setattr__(self, "start", start)

    @property
    def study(self) -> str:
        """The study it belongs to: `<dataset>-<train solver>`, `-adaption` (of steps), `-tolerance`
        (its adaption), `-growing-T`, or `-per-sample`."""
        if self.T != 1.0:
            return f"{self.dataset}-growing-T"
        if self.per_sample:
            return f"{self.dataset}-per-sample"
        if self.controller is None:
            return f"{self.dataset}-{self.train_solver}"
        return f"{self.dataset}-{'tolerance' if self.adapts_tolerance else 'adaption'}"

    @property
    def adapts_tolerance(self) -> bool:
        """Whether a controller is at work on the tolerance of an embedded method."""
        return self.first_rtol is not None

    @property
    def name(self) -> str:
        """The stem of its files, such as `euler-K8` or `dopri5-tol0.001`, with its seeds."""
        if self.n_steps is not None:
            what = f"{self.train_solver}-K{self.n_steps}"
        elif self.rtol is not None:
            what = f"{self.train_solver}-tol{float(self.rtol)!r}".removesuffix(".0")
        else:
            what = f"{self.train_solver}-{self.controller}"
            what += f"-from{self.first_rtol!r}" if self.adapts_tolerance else ""
            what += f"-{self.start}" if self.start not in (None, USUAL_START) else ""
        time = "" if self.T == 1.0 else f"-T{self.T:g}"
        return f"{what}{time}-seeds{_ranges(self.seeds)}"

    @property
    def protocol(self) -> Protocol:
        return replace(get_protocol(self.dataset, self.profile), T=self.T)

    @property
    def controller_constants(self) -> dict | None:
        """Those of its controller, where there is one."""
        return self.controller and asdict(get_controller(self.controller))

    @property
    def start_constants(self) -> dict | None:
        """The tolerances that scale the norm of its start, where there are any."""
        return STARTS.get(self.start) or None

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that change with the protocol, whose norm bounds the error, a
        controller's constants, or where it begins."""
        more = {"controller": self.controller_constants} if self.controller else {}
        more |= {"per_sample": True} if self.per_sample else {}
        more |= {"first_rtol": self.first_rtol} if self.adapts_tolerance else {}
        more |= {"start": self.start_constants} if self.start_constants else {}
        return digest(asdict(self.protocol) | more)

    def path(self, root: Path) -> Path:
        """Where its JSON lies below a root."""
        return root / self.study / self.profile / f"{self.name}.json"


def _ranges(seeds):
    """(0, 1, 2, 5) -> "0-2,5"."""
    groups = []
    for seed in sorted(seeds):
        if groups and seed == groups[-1][-1] + 1:
            groups[-1].append(seed)
        else:
            groups.append([seed])
    return ",".join(f"{g[0]}-{g[-1]}" if len(g) > 1 else f"{g[0]}" for g in groups)
