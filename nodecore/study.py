"""Runs and studies: which there are, and the evidence of each, found or trained.

A run is a data set, a training solver and a step size, tolerance or controller, with all its seeds
as one ensemble. Its evidence is looked for in the committed store, then in the scratch store;
what is in neither is trained and written to the scratch store.
"""

import math
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from nodecore import kernels, store
from nodecore.adapt import EVERY, controller_name, get_controller
from nodecore.adaption import (
    FIRST_RTOL,
    STARTS,
    USUAL_START,
    choose_first_rtol,
    choose_start,
    restlessness,
)
from nodecore.checkpoint import Checkpoint
from nodecore.datasets import IMAGES, Split, check_dataset, exact_test_images, load
from nodecore.deadline import Deadline
from nodecore.evaluate import (
    EXACT,
    FINER,
    PAPER_FACTORS,
    TestSetting,
    accuracy,
    check_setting,
    cross_solver_settings,
    exact_flow,
    has_trained,
    predict,
)
from nodecore.protocols import Protocol, check_profile, digest, get_protocol
from nodecore.solve import (
    check_embedded,
    check_n_steps,
    check_per_sample,
    check_tolerance,
    count_steps,
)
from nodecore.tableaus import get_tableau
from nodecore.train import (
    Progress,
    Trained,
    check_seeds,
    get_device,
    in_precision,
    make_model,
    single_threaded,
    train,
)
from nodecore.vector_fields import take_members

SEEDS = (0, 1, 2, 3, 4)
TOLERANCES = (1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
FIRST_RTOLS = (1e-2, FIRST_RTOL)  # adapted tolerances begin coarse, or at the finest one


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


# --- the studies --------------------------------------------------------------------------------


def _powers(last: int) -> tuple[int, ...]:
    return tuple(2**i for i in range(last.bit_length()))


GRIDS = {  # training n_steps of the fixed-step studies
    "spheres2-euler": _powers(256),
    "spheres2-rk4": _powers(128),
    "spheres3-euler": _powers(256),
    "spheres3-rk4": _powers(32),
    "spheres10-euler": _powers(128),
    "spheres10-rk4": _powers(32),
    "spheres900-euler": _powers(64),
    "spheres900-rk4": _powers(8),
    "landscape-euler": _powers(256),
    "landscape-rk4": _powers(64),
}
IMAGE_GRIDS = {
    "mnist-euler": {"paper": _powers(64), "laptop": _powers(16)},
    "mnist-rk4": {"paper": _powers(16), "laptop": _powers(4)},
    "cifar10-euler": {"paper": _powers(64), "laptop": _powers(16)},
    "cifar10-rk4": {"paper": _powers(16), "laptop": _powers(4)},
}
IMAGE_SEEDS = {"paper": SEEDS, "laptop": (0, 1, 2), "smoke": (0, 1)}
FIRST_SEEDS = (0, 1, 2)  # a study that has all its runs of these can be shown
# Where all seeds together would train for a day, each of them is a run.
ALONE = {("mnist", "paper"), ("spheres900", "paper")}
BEYOND = {("mnist", "euler", 64), ("mnist", "rk4", 16)}  # where the critical step lies


def together(dataset: str, profile: str, seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """Which of the seeds share a run: all, or where that is too long each has one of its own."""
    return [(seed,) for seed in seeds] if (dataset, profile) in ALONE else [tuple(seeds)]


def turn(run: Run) -> int:
    """When it is trained: 0 for what a study waits for, 1 for more seeds, 2 for steps that are
    finer than need be."""
    if (run.dataset, run.train_solver, run.n_steps) in BEYOND:
        return 2
    return 0 if run.seeds[0] in FIRST_SEEDS else 1


# "auto" asks for six checks before it lengthens a step: too many where all of them are thirty.
IMAGE_CONTROLLERS = ("algorithm1", "settling-discord")
# Algorithm 1 begins in the other ways, too.
OTHER_STARTS = [{"controller": "algorithm1", "start": s} for s in STARTS if s != USUAL_START]


def image_runs(study: str, profile: str = "laptop") -> tuple[Run, ...]:
    """The runs of a study of images at a profile, such as those of mnist-euler or mnist-adaption.

    ValueError for an unknown profile.
    """
    seeds = IMAGE_SEEDS[check_profile(profile)]
    dataset, solver = study.split("-")
    if solver == "adaption":
        solver, trainings = "euler", [{"controller": name} for name in IMAGE_CONTROLLERS]
        trainings += OTHER_STARTS
    else:
        trainings = [{"n_steps": k} for k in IMAGE_GRIDS[study].get(profile, (1, 2))]
    groups = together(dataset, profile, seeds)
    return tuple(
        Run(dataset, solver, **how, seeds=group, profile=profile)
        for how in trainings
        for group in groups
    )


def calmer_controller(dataset: str) -> str:
    """The name of the controller that stands beside Algorithm 1 on a data set."""
    return IMAGE_CONTROLLERS[-1] if dataset in IMAGES else controller_name("auto")


IMAGE_STUDIES = (*IMAGE_GRIDS, *(f"{dataset}-adaption" for dataset in IMAGES))

IMAGE_PROFILES = {"mnist": ("paper", "laptop"), "cifar10": ("laptop",)}  # that evidence is of
SMALLER = {  # the same of spheres, which have less of a grid there, and a single seed
    "spheres900-euler": (1, 4, 16),
    "spheres900-rk4": (1,),
}
# Where five seeds leave it open which step is critical: more of them, from where it may lie on.
MORE_GRID_SEEDS = tuple(range(5, 20))
MORE_GRIDS = {
    "spheres2-euler": _powers(256)[3:],
    "spheres2-rk4": _powers(32),
    "landscape-euler": _powers(256)[3:],
    "landscape-rk4": _powers(32),
}


def _grid_runs(name, grid):
    dataset, solver = name.split("-")
    groups = together(dataset, "paper", SEEDS)
    return (
        *(Run(dataset, solver, n_steps=k, seeds=group) for k in grid for group in groups),
        *(Run(dataset, solver, n_steps=k, seeds=MORE_GRID_SEEDS) for k in MORE_GRIDS.get(name, ())),
        *(
            Run(dataset, solver, n_steps=k, seeds=(0,), profile="laptop")
            for k in SMALLER.get(name, ())
        ),
    )


# Step adaption: every controller, Algorithm 1 from either start, and more seeds where the paper's
# are few to see the spread.
MORE_SEEDS = {"landscape": tuple(range(5, 15))}
SEEN_MORE = ("algorithm1", "confirmed-increase", "auto")


def _adaption_runs(dataset):
    few = [Run(dataset, "euler", controller=name) for name in EVERY]
    few += [Run(dataset, "euler", **how) for how in OTHER_STARTS]
    more = MORE_SEEDS.get(dataset)
    return (*few, *(Run(dataset, "euler", controller=n, seeds=more) for n in SEEN_MORE if more))


GROWING_T = (1, 2, 4, 8, 16)
GROWING_T_STEP = 1 / 8  # far too long for a training at T = 1


def growing_runs(dataset: str, profile: str = "paper", seeds: tuple = SEEDS) -> tuple[Run, ...]:
    """Euler at one step size over longer and longer times; T = 1 is a run of `<dataset>-euler`."""
    steps = [(float(T), round(T / GROWING_T_STEP)) for T in GROWING_T]
    return tuple(Run(dataset, "euler", k, seeds=seeds, profile=profile, T=T) for T, k in steps)


def _tolerance_runs(dataset, solver):
    return tuple(Run(dataset, solver, rtol=r) for r in TOLERANCES)


# An error norm for each sample: around the tolerances that are critical under one for the batch.
PER_SAMPLE = {"fehlberg21": (1e-2, 1e-3, 1e-4), "dopri5": (1e-1, 1e-2, 1e-3)}


def per_sample_runs(dataset: str, profile: str = "laptop", seeds: tuple = SEEDS) -> tuple[Run, ...]:
    """Trainings with one norm for the batch, and the same with one for each sample. At a reduced
    scale: a batch whose samples have steps of their own takes as many as its hardest sample."""
    how = {"seeds": seeds, "profile": profile}
    batch = [Run(dataset, s, rtol=r, **how) for s, rtols in PER_SAMPLE.items() for r in rtols]
    return (*batch, *(replace(run, per_sample=True) for run in batch))


STUDIES = {
    "spheres2-growing-T": growing_runs("spheres2"),
    "spheres2-per-sample": per_sample_runs("spheres2"),
    **{name: _grid_runs(name, grid) for name, grid in GRIDS.items()},
    **{
        f"{dataset}-{solver}": _tolerance_runs(dataset, solver)
        for dataset in ("spheres2", "landscape")
        for solver in ("fehlberg21", "dopri5")
    },
    "spheres2-tolerance": tuple(
        Run("spheres2", solver, controller=name, first_rtol=first)
        for first in FIRST_RTOLS
        for solver in ("fehlberg21", "dopri5")
        for name in ("algorithm1", "settling-discord", "remembering-discord")
    ),
    **{f"{dataset}-adaption": _adaption_runs(dataset) for dataset in ("spheres2", "landscape")},
    **{
        name: tuple(r for p in IMAGE_PROFILES[name.split("-")[0]] for r in image_runs(name, p))
        for name in IMAGE_STUDIES
    },
}


def get_study(name: str, profile: str | None = None) -> tuple[Run, ...]:
    """The runs of a study, each at the profiles that its evidence is of, or all at `profile`.

    Images have a grid and seeds of their own at each profile, other studies at one that is not
    theirs the runs of the first seeds. ValueError lists the names of either.
    """
    if name not in STUDIES:
        raise ValueError(f"study = {name!r} is unknown; choose one of {', '.join(STUDIES)}")
    if profile is None:
        return STUDIES[name]
    if name in IMAGE_STUDIES:
        return image_runs(name, profile)
    own = tuple(run for run in STUDIES[name] if run.profile == profile)
    smallest = STUDIES[name][-1].profile
    fewest = (r for r in STUDIES[name] if r.profile == smallest and not turn(r))
    return own or tuple(replace(run, profile=check_profile(profile)) for run in fewest)


# --- a run and its evidence -----------------------------------------------------------------------


class Evidence:
    """A finished run: its records, and its model rebuilt from the stored weights when asked for."""

    def __init__(self, run: Run, stored: "store.StoredRun | store.JoinedRuns"):
        self.run, self.stored = run, stored

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row for each seed and test setting, columns as in store.COLUMNS."""
        return self.stored.frame()

    @property
    def history(self) -> pd.DataFrame | None:
        """What was followed over the iterations, where a controller was at work."""
        return self.stored.history

    @property
    def path(self) -> str:
        """Its JSON file or files, as paths in the project where they lie there."""
        return ", ".join(map(store.shown, self.stored.paths))

    @property
    def flipped(self) -> tuple[Tensor, Tensor]:
        """Of a run on images: images (n, channels, height, width) uint8 that the first seed gets
        right as trained and wrong under the test solver, and their classes (n, 2) under either."""
        weights = self.stored.weights()
        return weights["flipped.images"], weights["flipped.classes"]

    def _rebuilt(self, mark=""):
        vector_field, head = make_model(self.run.protocol, self.run.seeds)
        weights = self.stored.weights()
        for part, module in (("field", vector_field), ("head", head)):
            prefix = f"{mark}{part}."
            mine = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            module.load_state_dict(mine)
            module.requires_grad_(False)
        return vector_field, head

    @cached_property
    def _model(self):
        return self._rebuilt()

    def marked(self, mark: str) -> tuple[nn.Module, nn.Module]:
        """Vector field and classifier as they were at a moment, each member's own: the last one
        that the history gives this mark. A member without one has weights of zero."""
        return self._rebuilt(f"{mark}.")

    @property
    def field(self) -> nn.Module:
        """The trained vector field, all members, on the CPU."""
        return self._model[0]

    @property
    def head(self) -> nn.Module:
        """The trained classifier, all members, on the CPU."""
        return self._model[1]


def find(run: Run, root: Path | None = None) -> Evidence | None:
    """The evidence of a run in `root`, or in the committed and then the scratch store; else None.

    Evidence of another protocol, or other constants of a controller, than today's does not count.
    Raises store.RecordError for a damaged file.
    """
    roots = [store.COMMITTED, store.scratch_root()] if root is None else [root]
    for candidate in roots:
        path = run.path(candidate)
        if path.exists():
            stored = store.load_run(path)
            if stored.header["protocol_hash"] == run.digest:
                return Evidence(run, stored)
    return None


def find_done(run: Run, root: Path | None = None) -> Evidence | None:
    """The same, but None where its tests were stopped: then its checkpoint still lies beside it."""
    found = find(run, root)
    if found is None or checkpoint_path(found.stored.path).exists():
        return None
    return found


def checkpoint_path(path: Path) -> Path:
    """Where the training of the run at `path` keeps its state."""
    return store.hidden(path, "checkpoint")


def obtain(
    run: Run,
    *,
    device: str = "auto",
    backend: str = "auto",
    precision: str = "float32",
    root: Path | None = None,
    progress: Progress = True,
    wait: bool = True,
    deadline: Deadline | None = None,
) -> Evidence | None:
    """The evidence of a run: found, or trained now and written to `root` (the scratch store).

    A training that was stopped goes on from its last checkpoint, at most a minute before. Where
    another process is at it, waits for that one, or gives None where `wait` is False. Tests of
    image models are dear: what the foremost ones say is written before the others. With a deadline,
    raises TimeUp when it has come, and leaves a checkpoint. Raises store.StoreError where nothing
    can be written.
    """
    found = find_done(run, root)
    if found is not None:
        return found
    path = run.path(root or store.scratch_root())
    with store.reserve(path, wait=wait) as reserved:
        if not reserved:
            return None
        found = find_done(run, root)  # by now another process may have written it
        if found is not None:
            return found
        checkpoint = Checkpoint(checkpoint_path(path), deadline=deadline)
        how = {"device": device, "backend": backend, "precision": precision, "progress": progress}
        how |= {"check": deadline.check} if deadline is not None else {}
        how |= {"write_first": partial(keep, run, root=root)} if run.dataset in IMAGES else {}
        result = train_run(run, checkpoint=checkpoint, **how)
        evidence = keep(run, result, root)
        checkpoint.remove()
        return evidence


def precision_of(run: Run, precision: str) -> str:
    """That of its training: the one asked for where it is on images, else float32."""
    return precision if run.dataset in IMAGES else "float32"


@dataclass(frozen=True)
class Result:
    """What a training leaves, as plain data; see store.save_run."""

    header: dict
    records: list[dict]
    weights: dict[str, Tensor]
    history: list[dict]


def train_run(
    run: Run,
    *,
    device: str = "auto",
    write_first: Callable[[Result], object] | None = None,
    check: Callable[[], None] = lambda: None,
    **options,
) -> Result:
    """Train a run and test it, on this machine; writes to no store. `options`: those of train.

    On a CPU with one thread, the tests too: records are then the same wherever a run is trained.
    write_first: called with what is there after the foremost tests. check: called again and again
    in the tests; may raise, to stop.
    """
    with single_threaded(get_device(device)):
        trained = train(
            run.protocol,
            run.train_solver,
            run.seeds,
            n_steps=run.n_steps,
            rtol=run.rtol,
            per_sample=run.per_sample,
            controller=run.controller,
            first_rtol=run.first_rtol,
            start=run.start,
            device=device,
            **options,
        )
        weights = {f"field.{k}": v for k, v in trained.field.state_dict().items()}
        weights |= {f"head.{k}": v for k, v in trained.head.state_dict().items()}
        for mark, kept in trained.marks.items():
            weights |= {f"{mark}.{k}": v for k, v in kept.items()}
        weights |= _flipped(run, trained) if run.dataset in IMAGES else {}
        weights = {name: value.cpu() for name, value in weights.items()}
        known = {}
        if write_first is not None:
            records = evaluate_run(run, trained, known, check, foremost_only=True)
            write_first(Result(_header(run, trained), records, weights, trained.history))
        records = evaluate_run(run, trained, known, check)
        return Result(_header(run, trained), records, weights, trained.history)


def keep(run: Run, result: Result, root: Path | None = None) -> Evidence:
    """Write what was trained to `root` (the scratch store)."""
    path = run.path(root or store.scratch_root())
    stored = store.save_run(path, result.header, result.records, result.weights, result.history)
    return Evidence(run, stored)


def test_settings(run: Run, n_steps: int | None = None) -> list[TestSetting]:
    """What a run is tested under; `n_steps` are those of its training, or of its last iteration.

    Tests of image models are dear: those of a grid go without the grid's other numbers of steps
    and, under midpoint and rk4, without a factor that the paper has not; those of an adapted step
    without other steps. At the paper's scale, on all test images, a run of MNIST with 32 steps is
    then tested with 1,500 evaluations, those of all of a seed's runs up to there with 4,500.
    """
    if run.rtol is not None or run.adapts_tolerance:
        others = {"fehlberg21", "dopri5", run.train_solver}
        settings = [recorded_setting(run, s, rtol=r) for s in sorted(others) for r in TOLERANCES]
        return [*settings, EXACT]
    if run.dataset not in IMAGES:
        grid = GRIDS.get(run.study, ())
        return [*cross_solver_settings(run.train_solver, n_steps, grid), EXACT]
    if run.controller is not None:
        settings = [TestSetting(s, n_steps) for s in (run.train_solver, *FINER)]
    else:
        settings = cross_solver_settings(run.train_solver, n_steps, finer_factors=PAPER_FACTORS)
    return [*settings, exact_flow(run.dataset)]


test_settings.__test__ = False  # not a test case, whatever pytest makes of the name


def recorded_setting(
    run: Run, solver: str, n_steps: int | None = None, rtol: float | None = None
) -> TestSetting:
    """The test setting of a record of the run: with the error norm of its training, except where it
    stands for the exact flow."""
    setting = TestSetting(solver, n_steps, rtol)
    exact = setting in (EXACT, exact_flow(run.dataset))
    return setting if exact else replace(setting, per_sample=run.per_sample)


def foremost(run: Run, own: TestSetting) -> list[TestSetting]:
    """Of the settings that a run in fixed steps is tested under those that say the most: that of
    its training, the test solver's, and where a controller was at work the exact flow's."""
    settings = [own, check_setting(own.solver, own.n_steps)]
    return settings + ([exact_flow(run.dataset)] if run.controller is not None else [])


def evaluate_run(
    run: Run,
    trained: Trained,
    known: dict | None = None,
    check: Callable[[], None] = lambda: None,
    foremost_only: bool = False,
) -> list[dict]:
    """A record for each seed and test setting, tested on the device of the training.

    known: what was measured already, by members; what is new is added. check: see train_run.
    foremost_only: under the foremost settings.
    """
    training, known = _trained_on(run), {} if known is None else known
    largest_share = float(training.class_shares().max())
    rows = []
    for group, settings, own in groups_of(run, trained):
        model = [take_members(module, group) for module in (trained.field, trained.head)]
        mine = known.setdefault(tuple(group), {})
        if "training" not in mine:
            mine["training"] = _accuracy(model, training, own, run, check)
        train_accuracy = mine["training"]
        settings = foremost(run, own) if foremost_only else settings
        lacking = [setting for setting in settings if setting not in mine]
        mine |= measure(run, model, lacking, own, check)
        tested = {setting: mine[setting] for setting in settings}
        common = [
            {
                **_member_values(trained, member, float(train_accuracy[i]), largest_share),
                **_adaption_values(run, trained, member),
            }
            for i, member in enumerate(group)
        ]
        if run.controller is not None:
            ended, exact = (tested[setting][0] for setting in (own, exact_flow(run.dataset)))
            common[0]["agreement_gap"] = abs(ended["accuracy"] - exact["accuracy"])
        for rows_of_members in tested.values():
            rows += [{**member, **row} for member, row in zip(common, rows_of_members, strict=True)]
    return rows


def measure(
    run: Run,
    model: Sequence[nn.Module],
    settings: Sequence[TestSetting],
    own: TestSetting,
    check: Callable[[], None] = lambda: None,
) -> dict[TestSetting, list[dict]]:
    """Of each setting what a record says of it, for each member of a model (field and head).

    own: the setting of the training, under which all test images are looked at as well. check: see
    train_run.
    """
    test = tested_on(run)
    every = load(run.dataset, None, None)[1] if run.dataset in IMAGES else None
    tested = {}
    for setting in settings:
        values = _accuracy(model, test, setting, run, check)
        common = {
            "test_solver": setting.solver,
            "test_n_steps": setting.n_steps,
            "test_rtol": setting.rtol,
        }
        if every is not None:
            common["test_split"] = f"first {len(test)}"
        tested[setting] = [{**common, "accuracy": value} for value in values.tolist()]
        if every is not None and setting == own:
            same = len(every) == len(test)
            on_all = values if same else _accuracy(model, every, own, run, check)
            for row, value in zip(tested[setting], on_all.tolist(), strict=True):
                row |= {"accuracy_all": value, "test_split_all": _split_of_all(run, every)}
    return tested


def _accuracy(model, split, setting, run, check):
    """Of each member, on the model's device and in float32 whatever it was trained in."""
    device = next(model[0].parameters()).device
    with in_precision("float32", device):
        return accuracy(*model, split.to(device), setting, run.T, check=check).cpu()


FLIPPED_IMAGES, LOOKED_AT = 12, 1000


def _flipped(run, trained):
    """The first of the first test images that the first seed gets right as trained and wrong under
    the test solver: kept with the weights, to be looked at where the data set is not."""
    test = tested_on(run).first(LOOKED_AT)
    (group, _, own), *_ = groups_of(run, trained)
    field, head = (take_members(module, group[:1]) for module in (trained.field, trained.head))
    settings = own, check_setting(own.solver, own.n_steps)
    device = next(field.parameters()).device
    with in_precision("float32", device):
        x = test.x.to(device)
        mine, other = (predict(field, head, x, setting, run.T)[0].cpu() for setting in settings)
    which = ((mine == test.y) & (other != test.y)).nonzero()[:FLIPPED_IMAGES, 0]
    pixels = (255 * test.x[which]).round().to(torch.uint8)
    return {"flipped.images": pixels, "flipped.classes": torch.stack([mine, other], 1)[which]}


TRAINING_IMAGES = 2000  # enough to say whether a seed trained


def tested_on(run: Run) -> Split:
    """The test data of a run's records: of images, exact copies of the released ones only."""
    _, test = run.protocol.load()
    return test.first(exact_test_images(run.dataset)) if run.dataset in IMAGES else test


def _trained_on(run):
    training, _ = run.protocol.load()
    return training.first(TRAINING_IMAGES) if run.dataset in IMAGES else training


def _split_of_all(run, every):
    """What all test images are, in words."""
    lossy = len(every) - exact_test_images(run.dataset)
    return f"all {len(every)}" + (f", {lossy} of them lossy" if lossy > 0 else "")


def _member_values(trained, member, train_accuracy, largest_share):
    diverged = int(trained.diverged_at[member]) >= 0
    return {
        "seed": trained.seeds[member],
        "train_accuracy": train_accuracy,
        "status": f"diverged at {int(trained.diverged_at[member])}" if diverged else "ok",
        "trained": not diverged and has_trained(train_accuracy, largest_share),
        "nfe_per_iteration": float(trained.nfe_per_iteration[member]),
    }


def groups_of(
    run: Run, trained: Trained
) -> Iterator[tuple[Sequence[int], list[TestSetting], TestSetting]]:
    """Members that share test settings, the settings, and the setting of their training."""
    members = range(len(trained.seeds))
    if run.rtol is not None:
        yield members, test_settings(run), recorded_setting(run, run.train_solver, rtol=run.rtol)
    elif run.n_steps is not None:
        own = TestSetting(run.train_solver, run.n_steps)
        yield members, test_settings(run, run.n_steps), own
    else:
        for member in members:
            if run.adapts_tolerance:
                own = TestSetting(run.train_solver, rtol=float(trained.step_size[member]))
                yield [member], [own, *test_settings(run)], own
                continue
            n_steps = _final_n_steps(run, trained, member)
            yield [member], test_settings(run, n_steps), TestSetting(run.train_solver, n_steps)


def last_steps(evidence: Evidence) -> Tensor | None:
    """The step, or tolerance, that each member's last iteration took, (members,) float64; None
    where no controller was at work.

    Where that iteration was a check, the history has it, whatever step the check asked for: none
    was trained with that. Else it is what the records say, the step since the last check.
    """
    run, steps = evidence.run, {}
    if run.controller is None:
        return None
    for record in evidence.stored.records:
        steps[record["seed"]] = (
            record["final_rtol"] if run.adapts_tolerance else run.T / record["final_n_steps"]
        )
    if evidence.history is not None:
        last = evidence.history[evidence.history["iteration"] == run.protocol.iterations]
        steps |= last.dropna(subset="step_size").set_index("seed")["step_size"].to_dict()
    return torch.tensor([steps[seed] for seed in run.seeds], dtype=torch.float64)


def stored_training(evidence: Evidence) -> Trained:
    """The training behind a stored run, to be tested anew: what `evaluate_run` needs of it."""
    header = evidence.stored.header
    by_seed = {record["seed"]: record for record in evidence.stored.records}
    members = [by_seed[seed] for seed in evidence.run.seeds]
    history = [] if evidence.history is None else evidence.history.to_dict("records")
    return Trained(
        evidence.field,
        evidence.head,
        evidence.run.protocol,
        list(evidence.run.seeds),
        nfe_per_iteration=torch.tensor(
            [m["nfe_per_iteration"] for m in members], dtype=torch.float64
        ),
        diverged_at=torch.tensor([_diverged_at(m["status"]) for m in members]),
        seconds=header["seconds"],
        backend=header["backend"],
        device="cpu",
        step_size=last_steps(evidence),
        history=[{k: v for k, v in row.items() if pd.notna(v)} for row in history],
    )


def _diverged_at(status):
    return -1 if status == "ok" else int(status.removeprefix("diverged at "))


def _final_n_steps(run, trained, member):
    return int(count_steps(trained.step_size[member], run.protocol.T))


def _adaption_values(run, trained, member):
    """Where an adapted member ended, and how restless its step was on the way."""
    if run.controller is None:
        return {}
    return {
        **restlessness(trained.history, trained.seeds[member], run.protocol.iterations),
        **_ended_with(run, trained, member),
    }


def _ended_with(run, trained, member):
    if run.adapts_tolerance:
        return {"final_rtol": float(trained.step_size[member])}
    return {"final_n_steps": _final_n_steps(run, trained, member)}


def _header(run, trained):
    return {
        "study": run.study,
        "dataset": run.dataset,
        "profile": run.profile,
        "train_solver": run.train_solver,
        "n_steps": run.n_steps,
        "rtol": run.rtol,
        "per_sample": run.per_sample,
        "controller": run.controller,
        "first_rtol": run.first_rtol,
        "start": run.start,
        "start_constants": run.start_constants,
        "controller_constants": run.controller_constants,
        "seeds": list(run.seeds),
        "protocol": asdict(run.protocol),
        "protocol_hash": run.digest,
        "seconds": round(trained.seconds, 2),
        "backend": trained.backend,
        "kernel": kernel_version(trained.backend),
        "precision": trained.precision,
        "execution": trained.execution,
        "device": device_name(trained.device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **_revision(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def kernel_version(backend: str) -> int | None:
    """Of the fused kernel's arithmetic, where it was at work."""
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


def _revision():
    """The revision for a header, with a word where it is not known."""
    known = revision()
    why = "no git revision: not a checkout, or git is not installed"
    return {"revision": known} | ({} if known else {"revision_unknown": why})


# --- what a study shows ---------------------------------------------------------------------------


def agreement_gaps(frame: pd.DataFrame) -> pd.Series:
    """Gap between the mean accuracies under the training and its test solver, by training n_steps.

    Means over the seeds that trained; NaN where none did. `frame`: records of one study.
    """
    gaps = {}
    for n_steps, rows in frame.groupby("n_steps"):
        rows = rows[rows["trained"].astype(bool)]
        solver = frame["train_solver"].iloc[0]
        check = check_setting(solver, int(n_steps))
        own = _mean_accuracy(rows, solver, n_steps)
        gaps[int(n_steps)] = abs(own - _mean_accuracy(rows, check.solver, check.n_steps))
    return pd.Series(gaps, name="gap", dtype=float).rename_axis("n_steps")


def _mean_accuracy(rows, solver, n_steps):
    return rows[(rows.test_solver == solver) & (rows.test_n_steps == n_steps)]["accuracy"].mean()
