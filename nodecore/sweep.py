"""Whole studies: training what is missing, here or on a cluster; what is there, and is it so."""

import heapq
import math
import random
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from nodecore import kernels, store
from nodecore.cluster import train_with
from nodecore.datasets import DATASETS, IMAGES
from nodecore.evaluate import TestSetting, accuracy
from nodecore.processes import Workers, usable_cores
from nodecore.solve import resolve_backend
from nodecore.study import (
    STUDIES,
    Evidence,
    Run,
    device_name,
    find,
    find_done,
    get_study,
    keep,
    kernel_version,
    obtain,
    precision_of,
    recorded_setting,
    tested_on,
    turn,
)
from nodecore.tableaus import get_tableau
from nodecore.train import get_device, make_model, single_threaded

USUAL_N_STEPS = 32  # of an adaptive or adapting run, for want of knowledge
USUAL_TEST = 100  # evaluations of an adaptive test, likewise
POLL = 2.0  # seconds between two looks at the runs that another process trains


class SweepError(RuntimeError):
    """Runs that were not trained, while the others were; the message says why."""


# --- which runs -----------------------------------------------------------------------------------


def select(
    names: Sequence[str] = (), only: str | None = None, profile: str | None = None
) -> list[Run]:
    """The runs of the named studies (all, where none is named), at `profile` or each at its own.

    only: a pattern for names of runs such as `euler-K8-*`, or of study and run, `spheres*/*-K8-*`.
    Raises ValueError for an unknown study, and one that lists the runs where `only` fits none.
    """
    every = (run for name in names or STUDIES for run in get_study(name, profile))
    runs = list(dict.fromkeys(every))  # some belong to two studies
    if only is None:
        return runs
    chosen = [run for run in runs if any(fnmatchcase(n, only) for n in (run.name, _title(run)))]
    if not chosen:
        known = ", ".join(_title(run) for run in runs)
        raise ValueError(f"only = {only!r} fits none of the runs: {known}")
    return chosen


def _title(run):
    return f"{run.study}/{run.name}"


def cost(run: Run) -> int:
    """Multiplications in a training, about, or look-ups: how long it takes beside others.

    An adaptive or adapting run counts as one of USUAL_N_STEPS.
    """
    samples = len(run.seeds) * run.protocol.batch_size * run.protocol.iterations
    return samples * evaluations(run) * _multiplications(run.protocol)


def evaluations(run: Run) -> int:
    """Of the field in an iteration, one member's; those of checks left out."""
    return (run.n_steps or USUAL_N_STEPS) * get_tableau(run.train_solver).n_solution_stages


@cache
def _multiplications(protocol):
    """Of the field, for one sample: those of its middle layer, which has by far the most. Where
    there is one channel, a look-up in the kernel's tables stands for those of all inputs."""
    field = make_model(protocol, [0])[0]
    channels = field.third[1].numel()
    positions = math.prod(DATASETS[protocol.dataset].shape) // channels
    return field.second[0].numel() * positions // (protocol.width if channels == 1 else 1)


# --- training -------------------------------------------------------------------------------------


def run_studies(
    names: Sequence[str] = (),
    *,
    only: str | None = None,
    profile: str | None = None,
    root: Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    jobs: int | None = None,
    client=None,
) -> None:
    """Train what is missing of the studies (all, where none is named): what a study waits for
    before more seeds (see study.turn), and the longest runs first.

    Each run is written as it ends, and one that is stopped leaves a checkpoint. Other processes on
    the same store meanwhile train other runs. jobs: how many are trained at a time, see count_jobs;
    more than one each in a process of its own, which imports the program's main module anew. With
    a `client` of dask.distributed its workers train, and this process writes. names, only, profile:
    see select. root: the store (the scratch store). precision: see train; of runs on images.

    Before any work, raises ValueError for bad input, store.StoreError where nothing can be written,
    images.DataError where data is missing. Raises SweepError, after all others, for runs that
    failed beside others.
    """
    if client is not None and jobs is not None:
        raise ValueError(f"jobs = {jobs!r}: a cluster has as many as it has workers; leave it out")
    jobs = count_jobs(jobs, device) if client is None else None
    missing = find_missing(names, only, profile, root)
    if not missing:
        print("nothing to train: all runs are there", file=sys.stderr)
        return
    if client is None:
        for protocol in {run.protocol for run in missing if run.dataset in IMAGES}:
            protocol.load()
    missing.sort(key=lambda run: (turn(run), -cost(run)))
    jobs = jobs and min(jobs, len(missing))
    with _Bar(missing, jobs) as bar:
        if jobs is not None and jobs > 1:
            _train_side_by_side(missing, root, device, precision, jobs, bar)
            return
        while missing:
            if client is None:
                left = _train_here(missing, root, device, precision, bar)
            else:
                left = _train_there(missing, root, device, precision, client, bar)
            if len(left) == len(missing):
                bar.show("waiting for another process")
                time.sleep(POLL)
            missing = left


def count_jobs(jobs: int | None = None, device: str = "auto") -> int:
    """How many runs are trained at a time on this machine: `jobs`, by default one a usable core,
    since a training uses one thread; but one on a GPU. ValueError for what cannot be.
    """
    if jobs is not None and (not isinstance(jobs, int) or jobs < 1):
        raise ValueError(
            f"jobs = {jobs!r}: give a whole number >= 1, or none for one a usable core"
        )
    if get_device(device).type == "cpu":
        return jobs or usable_cores()
    if jobs not in (None, 1):
        raise ValueError(f"jobs = {jobs}: a GPU trains one run at a time; leave it out")
    return 1


def find_missing(
    names: Sequence[str] = (),
    only: str | None = None,
    profile: str | None = None,
    root: Path | None = None,
) -> list[Run]:
    """The runs that are in no store, or not in `root`, or not tested to the end; see select."""
    return [run for run in select(names, only, profile) if find_done(run, root) is None]


def _train_here(runs, root, device, precision, bar):
    """Those that another process trains."""
    left = []
    for run in runs:
        how = {"device": device, "precision": precision_of(run, precision)}
        if obtain(run, root=root, progress=bar.follow(run), wait=False, **how) is None:
            left.append(run)
        else:
            bar.end(run, here=run in bar.followed)
    return left


def _train_side_by_side(runs, root, device, precision, jobs, bar):
    """All of them, or until another process has; each in a process, `jobs` at a time."""
    how = {"root": root, "device": str(get_device(device)), "precision": precision}
    kernels.status()  # compiled here once, where it is not, and not by all of them
    waiting, failed = list(runs), {}
    with Workers(partial(_train_in_process, **how), jobs) as workers:
        while waiting or workers.n_busy:
            for run in list(waiting):
                if not workers.have_room:
                    break
                if find_done(run, root) is not None:
                    waiting.remove(run)
                    bar.end(run, here=False)
                elif _is_free(run, root):
                    waiting.remove(run)
                    workers.start(run)
            n = workers.n_busy
            bar.show(f"{n} in training" if n else "waiting for another process")
            for event in workers.wait(POLL):
                run = event.item
                if event.kind == "told":
                    bar.reach(run, event.value)
                elif event.kind == "failed":
                    failed[run] = event.value
                    bar.drop(run, f"{_title(run)} failed, the others go on: {event.value}")
                elif event.value:
                    bar.end(run)
                else:  # by now another process is at it
                    waiting.append(run)
    if failed:
        reasons = "".join(f"\n{_title(run)}: {why}" for run, why in failed.items())
        raise SweepError(
            f"{len(failed)} of {len(runs)} runs failed; the same command tries them again, from "
            f"their checkpoints:{reasons}"
        )


def _is_free(run, root):
    """Whether no process trains it now."""
    with store.reserve(run.path(root or store.scratch_root()), wait=False) as reserved:
        return reserved


def _train_in_process(run, tell, *, root, device, precision):
    """Whether it is there now; not so where another process is at it."""
    how = {"device": device, "precision": precision_of(run, precision)}
    return obtain(run, root=root, progress=tell, wait=False, **how) is not None


def _train_there(runs, root, device, precision, client, bar):
    """Those that another process trains. All others stay reserved until the last one is done."""
    mine, left = [], []
    with ExitStack() as reserved:
        for run in runs:
            path = run.path(root or store.scratch_root())
            if not reserved.enter_context(store.reserve(path, wait=False)):
                left.append(run)
            elif find(run, root) is None:
                mine.append(run)
            else:
                bar.end(run, here=False)
        bar.show(f"on {len(client.scheduler_info(n_workers=-1)['workers'])} workers")
        for run, result in train_with(client, mine, device, precision):
            keep(run, result, root)
            bar.end(run)
    return left


class _Bar:
    """One bar over many runs by their cost, in their order, of which `jobs` are trained at a time;
    with the time left at the pace of one process so far. Where nobody knows how many and how far
    they are, as on a cluster, jobs is None and the pace is that of all together."""

    FORMAT = "{percentage:3.0f}% |{bar:20}| {desc}[{elapsed} so far{postfix} left]"

    def __init__(self, runs, jobs=None):
        self.runs, self.jobs, self.n_ended, self.followed = len(runs), jobs, 0, set()
        self.left = {run: cost(run) for run in runs}  # to be done, of those that have not ended
        self.done, self.spent, self.now = 0.0, 0.0, time.monotonic()  # spent: in all processes
        total = sum(self.left.values())
        self.bar = tqdm(total=total, bar_format=self.FORMAT, postfix="?", mininterval=1.0)
        self.show("")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.bar.close()

    def show(self, what):
        self.what = what
        text = f"{self.n_ended} of {self.runs} runs done, {what} "
        if text != self.bar.desc:
            self.bar.set_description_str(text)

    def follow(self, run):
        """What train() calls with the iterations done, those before a stop first."""

        def tell(iteration):
            if run not in self.followed:
                self.show(_title(run))
            self.reach(run, iteration)

        return tell

    def reach(self, run, iteration):
        """Note the iterations of a run that are done, those before a stop first."""
        first = run not in self.followed
        left = cost(run) * (1 - iteration / run.protocol.iterations)
        self._advance(run, left, here=not first)  # what was done before took no time of this sweep
        self.followed.add(run)

    def end(self, run, here=True):
        """Note that a run is there; `here`: it was trained for this sweep."""
        self.n_ended += 1
        self._advance(run, 0.0, here)
        del self.left[run]
        self.show(self.what)

    def drop(self, run, why):
        """Note that a run is given up, and say why."""
        self.bar.total -= self.left.pop(run)
        self.bar.write(why, file=sys.stderr)

    def _advance(self, run, left, here):
        now = time.monotonic()
        at_work = 1 if self.jobs is None else len(self.followed & self.left.keys())
        self.spent += (now - self.now) * at_work
        self.now = now
        step, self.left[run] = self.left[run] - left, left
        self.done += step if here else 0.0
        if self.done:
            seconds = makespan(self.left.values(), self.jobs or 1) * self.spent / self.done
            self.bar.set_postfix_str(self.bar.format_interval(seconds), refresh=False)
        self.bar.update(step)


def makespan(costs: Iterable[float], jobs: int) -> float:
    """When all are done if each of `jobs` takes the next one, in this order, when it has none."""
    ends = [0.0] * jobs
    for each in costs:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


# --- what there is, and whether it holds ----------------------------------------------------------

ROUNDING = 2  # test samples that another machine may place on the other side of a boundary


def status(
    names: Sequence[str] = (), profile: str | None = None, root: Path | None = None
) -> pd.DataFrame:
    """One row for each study and profile: its seeds, runs, and how many of these are in a store;
    damaged files by name.

    ValueError for an unknown study or profile.
    """
    rows = []
    for name in names or STUDIES:
        runs = select([name], profile=profile)
        for each in dict.fromkeys(run.profile for run in runs):
            mine = [run for run in runs if run.profile == each]
            found = [_find_or_error(run, root) for run in mine]
            damaged = [store.shown(f.path) for f in found if isinstance(f, store.RecordError)]
            rows.append(
                {
                    **{"study": name, "profile": each},
                    "seeds": len({seed for run in mine for seed in run.seeds}),
                    "runs": len(mine),
                    "done": sum(isinstance(f, Evidence) for f in found),
                    "damaged": ", ".join(damaged),
                }
            )
    return pd.DataFrame(rows)


def _find_or_error(run, root):
    try:
        return find(run, root)
    except store.RecordError as error:
        return error


def verify(
    names: Sequence[str] = (),
    profile: str | None = None,
    *,
    sample: int | None = None,
    seed: int = 0,
    seconds: float = 60.0,
    root: Path | None = None,
) -> pd.DataFrame:
    """Test stored weights again: a row for each run that is there, or for `sample` of them.

    change: the largest of an accuracy, in test samples. allowed: 0 on the machine and with the
    versions that it was trained and tested with, else ROUNDING. settings: how many of the tests
    were made again; of a run on images in a sample, the cheapest and others drawn that fit into
    `seconds`. problem: what is wrong with a damaged file. seed: of what is drawn. ValueError for an
    unknown study or profile, or no time.
    """
    if not seconds > 0:
        raise ValueError(f"seconds = {seconds!r}: give a time > 0")
    found = [_find_or_error(run, root) for run in select(names, profile=profile)]
    found = [evidence for evidence in found if evidence is not None]
    draw = random.Random(seed)
    if sample is not None and sample < len(found):
        found = draw.sample(found, sample)
    columns = ["run", "change", "allowed", "agrees", "settings", "problem"]
    limit = seconds if sample is not None else math.inf
    rows = [verified(evidence, limit, draw) for evidence in tqdm(found, "runs", leave=False)]
    table = pd.DataFrame(rows, columns=columns)
    return table.astype({"change": "Int64", "allowed": "Int64", "agrees": bool})


@single_threaded(torch.device("cpu"))  # as in the training
def verified(evidence: Evidence | store.RecordError, seconds: float, draw: random.Random) -> dict:
    """The row of `verify` for one run; on images tested for so many seconds."""
    try:
        if isinstance(evidence, store.RecordError):
            raise evidence
        limit = seconds if evidence.run.dataset in IMAGES else math.inf
        changes, settings = _changes(evidence, limit, draw), len(_by_setting(evidence))
        change, allowed = max(changes), _allowed(evidence.stored.header)
        return {
            **{"run": evidence.path, "change": change, "allowed": allowed},
            **{"agrees": change <= allowed, "settings": f"{len(changes)} of {settings}"},
            "problem": "",
        }
    except store.RecordError as error:
        return {"run": store.shown(error.path), "agrees": False, "problem": str(error)}


def _allowed(header):
    here = {
        **{"torch": torch.__version__, "device": device_name("cpu"), "backend": backend_here()},
        "kernel": kernel_version(backend_here()),
    }
    made = [header, *header.get("tested", [])]  # trained and tested, then tested anew
    first = {"kernel": kernels.FIRST_VERSION if header["backend"] == "fused" else None}
    made = [first | entry for entry in made]
    return 0 if all(was[key] == value for was in made for key, value in here.items()) else ROUNDING


def backend_here() -> str:
    """The backend that solves here where none is named."""
    fused = resolve_backend() != "torch" and kernels.status().available
    return "fused" if fused else "torch"


def _changes(evidence, seconds, draw):
    """Largest change of an accuracy, in samples of the test, for each setting that was tested
    again: the cheapest one, then others as they are drawn where they fit into the seconds."""
    run, test = evidence.run, tested_on(evidence.run)
    tests = [(_setting_of(run, *key), rows) for key, rows in _by_setting(evidence)]
    tests.sort(key=lambda pair: evaluations_under(pair[0]))
    others = tests[1:]
    draw.shuffle(others)
    changes, cost, used = [], 0, 0.0
    for setting, rows in (tests[0], *others):
        more = evaluations_under(setting)
        if changes and used * (cost + more) / cost > seconds:
            continue
        start = time.perf_counter()
        values = accuracy(evidence.field, evidence.head, test, setting, run.T)
        cost, used = cost + more, used + time.perf_counter() - start
        members = [run.seeds.index(seed) for seed in rows["seed"]]
        change = np.abs(values[members].numpy() - rows["accuracy"].to_numpy()).max()
        changes.append(round(change * len(test)))
    return changes


def _by_setting(evidence):
    """The records of each test setting."""
    return evidence.records.groupby(["test_solver", "test_n_steps", "test_rtol"], dropna=False)


def _setting_of(run, solver, n_steps, rtol):
    fixed = pd.notna(n_steps)
    how = {"n_steps": int(n_steps)} if fixed else {"rtol": rtol}
    return recorded_setting(run, solver, **how)


def evaluations_under(setting: TestSetting) -> int:
    """Of the field under a test setting, about."""
    if setting.n_steps is None:
        return USUAL_TEST
    return setting.n_steps * get_tableau(setting.solver).n_solution_stages
