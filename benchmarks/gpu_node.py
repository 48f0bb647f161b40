"""One visit to a GPU that is there for a limited time: what it can do, then trainings.

    python -m benchmarks.gpu_node plan PLAN
    python -m benchmarks.gpu_node visit OUT --budget SECONDS [--plan PLAN] [--device cuda]

`visit` runs the tests of CUDA, measures the speed of an evaluation by precision, layout and
recomputation, trains with the precision that passed and is fastest what fits into the time, in the
order of its value, and packs what is finished: OUT then has report.json and records/*.tar. It needs
a GPU with torch 2.11 or newer and numpy, and no network. On the CPU, with `--profile smoke`, it
shows that all of it runs.

Before, at home: `plan` writes the runs that are not in book/results. The tree travels without
book/results (its revision is then told by the variable NODECORE_REVISION), and beside it, where
they are missing there, the wheels of pandas with python-dateutil and six, filelock, safetensors,
tqdm, and pytest with pluggy, iniconfig, packaging and pygments; for `python -m nodecore` also typer
with its dependencies, and pyyaml. The data is larger than what such a machine may take at once, so
it travels in parts: benchmarks.packed_images makes them. NODECORE_DATA says where they were
unpacked.

Afterwards, at home: `python -m nodecore study take OUT/records/*.tar` checks and files the runs,
and `python -m nodecore study test --committed` tests them under the settings for which there was no
time.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

from nodecore.data.datasets import DATASETS
from nodecore.data.files import PROJECT
from nodecore.evidence import store
from nodecore.evidence.archives import pack
from nodecore.evidence.budget import train_within
from nodecore.evidence.catalogue import together
from nodecore.evidence.found import find
from nodecore.evidence.provenance import device_name
from nodecore.evidence.runs import SEEDS, Run, run_of
from nodecore.ode import fields
from nodecore.ode.steps import FixedSteps
from nodecore.training.adapted import Adapted, columns_of
from nodecore.training.deadline import Deadline
from nodecore.training.devices import PRECISIONS, get_device, in_precision, tuned_convolutions
from nodecore.training.ensemble import make_model
from nodecore.training.protocols import get_protocol

TESTS = "tests/training/test_cuda.py"
TESTS_SECONDS = 90.0
FIRST_SEEDS = (0, 1, 2)
# Trainings in the order of their value.
CIFAR10 = [
    *(("euler", k) for k in (8, 4, 16, 2, 1)),
    *(("rk4", 1), ("rk4", 2), ("euler", "algorithm1"), ("euler", 32)),
]
MNIST = [
    *(("euler", k) for k in (8, 16, 4, 2, 1)),
    *(("euler", "algorithm1"), ("euler", "settling-discord")),
    *(("rk4", 1), ("rk4", 2), ("rk4", 4), ("euler", 32), ("rk4", 8), ("euler", 64), ("rk4", 16)),
]


# --- which runs -----------------------------------------------------------------------------------


def in_order(profile: str = "paper") -> list[Run]:
    """CIFAR-10, a seed after the other; then MNIST: its first seeds through the whole list, then
    more."""
    groups = together("cifar10", profile, FIRST_SEEDS)
    runs = [_run("cifar10", *what, group, profile) for group in groups for what in CIFAR10]
    for seeds in (FIRST_SEEDS, SEEDS[len(FIRST_SEEDS) :]):
        groups = together("mnist", profile, seeds)
        runs += [_run("mnist", *what, group, profile) for what in MNIST for group in groups]
    return runs


def _run(dataset, solver, what, seeds, profile):
    steps = Adapted(solver, what) if isinstance(what, str) else FixedSteps(solver, what)
    return Run(dataset, steps, seeds=seeds, profile=profile)


def write_plan(path: Path, profile: str = "paper") -> int:
    """Write the runs that are not committed, in their order; how many."""
    missing = [run for run in in_order(profile) if find(run, store.COMMITTED) is None]
    path.write_text(json.dumps([as_row(run) for run in missing], indent=1) + "\n")
    return len(missing)


def read_plan(path: Path) -> list[Run]:
    """The runs in a plan. ValueError or TypeError for what is none."""
    return [run_of(row) for row in json.loads(path.read_text())]


def as_row(run):
    """A run as the header of a record describes one."""
    where = {"dataset": run.dataset, "profile": run.profile, "protocol": {"T": run.T}}
    return {**where, "seeds": list(run.seeds), **columns_of(run.steps)}


# --- what the GPU can do --------------------------------------------------------------------------


def run_tests(limit: float = TESTS_SECONDS) -> tuple[dict[str, str], str]:
    """The outcome of each test of CUDA that ended in time, by name; the end of what was said."""
    options = ["--noconftest", "-v", "-p", "no:cacheprovider", "--tb=short", TESTS]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=limit,
            check=False,
        )
        said = done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode(errors="replace") + f"\nended after {limit:.0f} s"
    outcomes = re.findall(r"^\S+::(\S+) (PASSED|FAILED|ERROR|SKIPPED)", said, re.MULTILINE)
    return dict(outcomes), said[-6000:]


def passes(precision: str, outcomes: dict[str, str]) -> bool:
    """Whether there were tests of a precision, and all of them passed."""
    mine = [o for test, o in outcomes.items() if precision in re.split(r"[\[\]-]", test)]
    return bool(mine) and all(outcome == "PASSED" for outcome in mine)


def speeds(device: torch.device, profile: str = "paper") -> list[dict]:
    """Seconds of an evaluation of one member and its gradient, a row for each way to compute it."""
    return [
        {
            "dataset": dataset,
            "precision": precision,
            "layout": layout,
            "recompute": recompute,
            "seconds": evaluation_seconds(dataset, profile, device, precision, layout, recompute),
        }
        for dataset in ("cifar10", "mnist")
        for precision in PRECISIONS
        if not (precision == "tf32" and device.type != "cuda")
        for layout in ("channels last", "contiguous")
        for recompute in (False, True)
    ]


def evaluation_seconds(dataset, profile, device, precision, layout, recompute) -> float:
    """Of a batch of the protocol; the median of three after two that warm up."""
    protocol = get_protocol(dataset, profile)
    field = make_model(protocol, [0])[0].to(device)
    field.keeps_maps = not recompute
    generator = torch.Generator().manual_seed(0)
    z = torch.rand(1, protocol.batch_size, *DATASETS[dataset].shape, generator=generator)
    z, times = z.to(device).requires_grad_(), []
    own = fields._channels_last
    try:
        if layout == "contiguous":
            fields._channels_last = lambda tensor: tensor.contiguous()
        with in_precision(precision, device), tuned_convolutions():
            for _ in range(5):
                _wait_for(device)
                start = time.perf_counter()
                field.for_solve(z)(0.0, z).sum().backward()
                _wait_for(device)
                times.append(time.perf_counter() - start)
    finally:
        fields._channels_last = own
    return median(times[2:])


def _wait_for(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def fastest(outcomes: dict[str, str], table: Sequence[dict]) -> str:
    """The precision that passed its tests and has the fastest evaluation of CIFAR-10; float32 where
    none of the others passed."""
    there = [
        row for row in table if row["dataset"] == "cifar10" and passes(row["precision"], outcomes)
    ]
    return min(there, key=lambda row: row["seconds"])["precision"] if there else "float32"


# --- the visit ------------------------------------------------------------------------------------


class Report:
    """What happened, kept in a file from the first moment on."""

    def __init__(self, path: Path):
        self.path, self.values = path, {"said": []}

    def add(self, **values):
        self.values |= values
        self.path.write_text(json.dumps(self.values, indent=1) + "\n")

    def say(self, line):
        print(line, flush=True)
        self.add(said=[*self.values["said"], line])


def visit(
    out: Path,
    budget: float,
    *,
    plan: Path | None = None,
    device: str = "cuda",
    profile: str = "paper",
    precision: str | None = None,
) -> bool:
    """Tests, table, trainings and archives; whether all tests passed and nothing failed.

    precision: of the trainings, by default the fastest that passed its tests.
    """
    deadline, device = Deadline(budget), get_device(device)
    runs = in_order(profile) if plan is None else read_plan(plan)
    out.mkdir(parents=True, exist_ok=True)
    report = Report(out / "report.json")
    report.add(
        device=device_name(str(device)), torch=torch.__version__, python=platform.python_version()
    )
    outcomes, said = run_tests(min(TESTS_SECONDS, deadline.left()))
    bad = [test for test, outcome in outcomes.items() if outcome in ("FAILED", "ERROR")]
    report.add(tests=outcomes, tests_said=said)
    report.say(f"tests of CUDA: {len(outcomes)} ended, failed: {', '.join(bad) or 'none'}")
    table = speeds(device, profile)
    report.add(speeds=table)
    for row in table:
        report.say(
            "{dataset} {precision} {layout}, recompute {recompute}: {seconds:.2e} s".format(**row)
        )
    precision = precision or fastest(outcomes, table)
    report.say(f"trainings in {precision}, {deadline.left():.0f} s are left")
    how = {"device": str(device), "precision": precision, "tell": report.say}
    left, failed = train_within(runs, deadline, **how)
    report.add(precision=precision, left=[run.title for run in left])
    report.add(failed=[run.title for run in failed])
    packed, unpacked = pack(out / "records")
    done = f"{len(runs) - len(left) - len(failed)} of {len(runs)} runs are done"
    report.say(f"{done}, in {len(packed)} archives")
    for why in unpacked:
        report.say(f"left out: {why}")
    return not bad and not unpacked and not failed


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    planning = commands.add_parser("plan", help="write the runs that are not committed")
    planning.add_argument("plan", type=Path)
    visiting = commands.add_parser("visit", help="test, measure, train, pack")
    visiting.add_argument("out", type=Path, help="a new folder")
    visiting.add_argument("--budget", type=float, required=True, help="seconds for all of it")
    visiting.add_argument("--plan", type=Path, help="default: all runs in their order")
    visiting.add_argument("--device", default="cuda")
    visiting.add_argument(
        "--precision", choices=PRECISIONS, help="default: the fastest that passes"
    )
    for command in (planning, visiting):
        command.add_argument("--profile", default="paper")
    given = vars(parser.parse_args(arguments))
    try:
        if given.pop("command") == "plan":
            print(f"{write_plan(given['plan'], given['profile'])} runs are missing")
        elif not visit(**given):
            sys.exit(1)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
