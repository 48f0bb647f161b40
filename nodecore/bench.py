"""How fast is it? A solve and its gradient, against peers on the same machine, in one table.

Engines take turns (A B C A B C ...), so that what else the machine does falls on all of them alike.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from nodecore import kernels
from nodecore.kernels import fused
from nodecore.protocols import get_protocol
from nodecore.solve import Solution, prepare_fused, solve_adaptive, solve_fixed
from nodecore.tableaus import get_tableau
from nodecore.train import train
from nodecore.vector_fields import Conv1dField, Conv2dField, MLPField

Step = Callable[[], object]  # one solve and its gradient with respect to all parameters

REPEATS = 7
LEAST_MS = 20.0  # a measurement repeats what is shorter
DIFFRAX = "diffrax jit + vmap"
TORCHDIFFEQ = "torchdiffeq, seed by seed"
FUSED, AUTOGRAD, TORCH = "nodecore fused", "nodecore fused, autograd", "nodecore torch"
NOTE = """\
ms: milliseconds per seed and iteration (a solve and the gradient of all parameters), median of the
repeats. GFLOP/s counts useful arithmetic only: two operations per weight and output it reaches,
taps beyond the edge left out; forward once, backward twice; nothing that is computed again.
nodecore fused: as in `train`, set up once; with autograd: as in `solve_fixed`, each call by itself.
All engines solve the same problems; NFE: evaluations of an adaptive solve, mean over the seeds.
torchdiffeq's dopri5 estimates 2/3 of the error: it is given 2/3 of the tolerance, for equal steps;
its fehlberg2 takes the last stage of a step for the first of the next, one evaluation less a step.
Peak: torch.mm of 1024 x 1024 float32 matrices on one core, times the threads of the row."""


@dataclass(frozen=True)
class Case:
    """What is solved: a field (mlp, conv1d, conv2d), an ensemble, a solver with n_steps or rtol."""

    name: str
    field: str
    dim: int
    width: int
    solver: str
    n_steps: int | None
    rtol: float | None = None
    members: int = 5
    batch: int = 128
    channels: int = 1

    def flop(self) -> int:
        """Useful operations per seed and iteration."""
        w, edge = self.width, 3 * self.dim - 2  # taps that exist along one axis
        weights = {
            "mlp": 2 * self.dim * w + w * w,
            "conv1d": 2 * self.dim * w + edge * w * w,
            "conv2d": 2 * self.channels * self.dim**2 * w + edge**2 * w * w,
        }[self.field]
        stages = get_tableau(self.solver).n_solution_stages
        if self.rtol is None:
            forward = backward = self.n_steps * stages
        else:
            solved = self.solve(self.make_field())
            forward, backward = (
                n.double().mean() for n in (solved.nfe, solved.n_accepted * stages)
            )
        return round(float(forward + 2 * backward) * 2 * weights * self.batch)

    def make_field(self) -> nn.Module:
        generators = [torch.Generator().manual_seed(m) for m in range(self.members)]
        if self.field == "mlp":
            return MLPField(self.dim, self.width, generators=generators)
        if self.field == "conv1d":
            return Conv1dField(self.dim, self.width, generators=generators)
        return Conv2dField(self.channels, self.width, generators=generators)

    def solve(self, vector_field: nn.Module, backend: str = "auto") -> Solution:
        z0, _ = self.make_states()
        if self.rtol is None:
            return solve_fixed(vector_field, z0, self.solver, n_steps=self.n_steps, backend=backend)
        tolerances = {"rtol": self.rtol, "atol": self.rtol}
        return solve_adaptive(
            vector_field, z0, self.solver, **tolerances, instance_axes=1, backend=backend
        )

    def make_states(self) -> tuple[Tensor, Tensor]:
        """z0 and a cotangent of z(T), (members, batch, ...)."""
        image = (self.channels, self.dim, self.dim)
        shape = image if self.field == "conv2d" else (self.dim,)
        g = torch.Generator().manual_seed(0)
        return tuple(torch.randn(self.members, self.batch, *shape, generator=g) for _ in range(2))


LANDSCAPE = Case("landscape", "mlp", 2, 48, "euler", 16)
SPHERES = Case("spheres", "conv1d", 2, 32, "euler", 16)
IMAGES = Case("MNIST field", "conv2d", 28, 96, "euler", 1, members=1, batch=256)
CASES = [
    *(
        replace(LANDSCAPE, name=f"landscape, {solver}, K = {k}", solver=solver, n_steps=k)
        for solver in ("euler", "rk4")
        for k in (4, 16, 64)
    ),
    replace(SPHERES, name="spheres 2-D, euler, K = 16"),
    replace(SPHERES, name="spheres 2-D, rk4, K = 16", solver="rk4"),
    replace(SPHERES, name="spheres 10-D, euler, K = 16", dim=10),
    replace(SPHERES, name="spheres 900-D, euler, K = 1, 1 seed", dim=900, n_steps=1, members=1),
    replace(IMAGES, name="MNIST field, euler, K = 1, batch 256, 1 seed"),
    *(
        replace(
            case, name=f"{name}, {solver}, rtol {rtol:g}", solver=solver, n_steps=None, rtol=rtol
        )
        for name, case in (("landscape", LANDSCAPE), ("spheres 2-D", SPHERES))
        for solver in ("fehlberg21", "dopri5")
        for rtol in (1e-2, 1e-4)
    ),
]
GROWTH = {
    "K 16 -> 32": replace(LANDSCAPE, n_steps=32),
    "5 -> 10 members": replace(LANDSCAPE, members=10),
    "5 -> 20 members": replace(LANDSCAPE, members=20),
    "batch 128 -> 256": replace(LANDSCAPE, batch=256),
}


# --- engines --------------------------------------------------------------------------------------


def nodecore_step(case: Case, backend: str) -> Step:
    vector_field, (_, cotangent) = case.make_field(), case.make_states()
    parameters = list(vector_field.parameters())

    def step():
        return torch.autograd.grad(case.solve(vector_field, backend).z, parameters, cotangent)

    return step


def prepared_step(case: Case) -> Step:
    """The fused kernel as `train` calls it: set up once, no autograd around it."""
    vector_field, (z0, cotangent) = case.make_field(), case.make_states()
    layers = vector_field.block_layers()
    tensors = [z0, *(t.detach() for layer in layers for t in (layer.weight, layer.bias))]
    solve = prepare_fused(vector_field, z0, case.solver, n_steps=case.n_steps, rtol=case.rtol)
    tape = solve.tape()

    def step():
        solve.forward(tensors, tape)
        return solve.backward(tensors, tape, cotangent)

    return step


def eager_step(case: Case) -> Step:
    """What one writes by hand: the solver as a loop, members side by side in torch.baddbmm."""
    vector_field, (z0, cotangent) = case.make_field(), case.make_states()
    parameters, h = list(vector_field.parameters()), 1 / case.n_steps

    def f(z):
        return vector_field(None, z)

    def step():
        z = z0
        for _ in range(case.n_steps):
            k1 = f(z)
            if case.solver == "euler":
                z = z + h * k1
                continue
            k2 = f(z + h / 2 * k1)
            k3 = f(z + h / 2 * k2)
            k4 = f(z + h * k3)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return torch.autograd.grad(z, parameters, cotangent)

    return step


class OneSeed(nn.Module):
    """The field of one member as one would write it for torchdiffeq."""

    def __init__(self, case: Case, weights: list[Tensor]):
        super().__init__()
        w1, b1, w2, b2, w3, b3 = weights
        w, n, c = case.width, case.dim, case.channels
        self.column = case.field == "conv1d"
        if case.field == "mlp":
            layers = [nn.Linear(n, w), nn.Linear(w, w), nn.Linear(w, n)]
            w1, w2, w3 = w1.T, w2.T, w3.T
        else:
            conv = nn.Conv1d if self.column else nn.Conv2d
            layers = [conv(c, w, 1), conv(w, w, 3, padding=1), conv(w, c, 1)]
        if self.column:  # rows by tap, then channel
            w1, w2, w3 = w1.T[:, :, None], w2.view(3, w, w).permute(2, 1, 0), w3.T[:, :, None]
        self.layers = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])
        with torch.no_grad():
            values = (w1, b1, w2, b2, w3, b3)
            for parameter, value in zip(self.layers.parameters(), values, strict=True):
                parameter.copy_(value)
        self.nfe = 0

    def forward(self, t, z):
        self.nfe += 1
        return self.layers(z[:, None])[:, 0] if self.column else self.layers(z)


def torchdiffeq_solves(case: Case) -> list[tuple[OneSeed, Callable[[], Tensor]]]:
    """Each member's field and its solve."""
    from torchdiffeq import odeint

    span, (z0, _) = torch.tensor([0.0, 1.0]), case.make_states()
    if case.rtol is None:
        how = {"method": case.solver, "options": {"step_size": 1 / case.n_steps}}
    else:
        method, share = {"dopri5": ("dopri5", 1.5), "fehlberg21": ("fehlberg2", 1.0)}[case.solver]
        how = {"method": method, "rtol": case.rtol / share, "atol": case.rtol / share}
    members = zip(*case.make_field().parameters(), strict=True)
    fields = [OneSeed(case, list(weights)) for weights in members]
    return [
        (f, lambda f=f, start=start: odeint(f, start, span, **how)[-1])
        for f, start in zip(fields, z0, strict=True)
    ]


def torchdiffeq_step(case: Case) -> Step:
    solves, (_, cotangent) = torchdiffeq_solves(case), case.make_states()

    def step():
        for (vector_field, solve), gradient in zip(solves, cotangent, strict=True):
            torch.autograd.grad(solve(), list(vector_field.parameters()), gradient)

    return step


def torchdiffeq_nfe(case: Case) -> float:
    solves = torchdiffeq_solves(case)
    for _, solve in solves:
        solve()
    return sum(vector_field.nfe for vector_field, _ in solves) / len(solves)


def bare_convolution_step(case: Case) -> Step:
    """torch.nn.functional.conv2d on the same arithmetic as the field that computes its hidden
    maps again: forward twice, backward once, nothing else. One Euler step of one member."""
    vector_field, (z0, cotangent) = case.make_field(), case.make_states()
    weights = [p.detach()[0].requires_grad_() for p in vector_field.parameters()]
    x = z0[0].contiguous(memory_format=torch.channels_last)
    g = cotangent[0].contiguous(memory_format=torch.channels_last)

    def field(x):
        x = F.relu(F.conv2d(x, weights[0], weights[1]))
        x = F.relu(F.conv2d(x, weights[2], weights[3], padding=1))
        return F.conv2d(x, weights[4], weights[5])

    def step():
        with torch.no_grad():
            field(x)
        return torch.autograd.grad(field(x), weights, g)

    return step


class Diffrax:
    """The worker process that runs diffrax; see bench_diffrax.py."""

    PYTHON = Path(".venv-bench", "bin", "python")

    def __init__(self):
        # a file's own path: nothing of this package, nor torch, is imported there
        script = Path(__file__).with_name("bench_diffrax.py")
        self.process = subprocess.Popen(
            [self.PYTHON, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def prepare(self, case: Case) -> dict:
        """Compile a case, on its own weights and states."""
        arrays = [*case.make_field().parameters(), *case.make_states()]
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            np.savez(file, *(a.detach().numpy() for a in arrays))
            file.flush()
            return self.ask(**asdict(case), arrays=file.name)

    def ask(self, **request) -> dict:
        print(json.dumps(request), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError("the diffrax worker ended; its message stands above")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


# --- measuring ------------------------------------------------------------------------------------


@dataclass
class Engine:
    """Something that can be timed: `measure(calls)` gives milliseconds per call.

    nfe: evaluations of an adaptive solve, mean over the members.
    """

    name: str
    threads: int
    measure: Callable[[int], float]
    nfe: float | None = None
    calls: int = 1

    def warm_up(self):
        self.measure(1)
        self.calls = max(1, min(200, int(LEAST_MS / self.measure(1))))


def torch_engine(name: str, threads: int, step: Step, nfe: float | None = None) -> Engine:
    def measure(calls):
        torch.set_num_threads(threads)
        start = time.perf_counter()
        for _ in range(calls):
            step()
        return (time.perf_counter() - start) / calls * 1e3

    return Engine(name, threads, measure, nfe)


def peak_engine() -> Engine:
    a, b = torch.randn(2, 1024, 1024)
    return torch_engine("peak", 1, lambda: torch.mm(a, b))


def make_engines(case: Case, diffrax: Diffrax | None) -> list[Engine]:
    engines, fixed = [peak_engine()], case.rtol is None

    def nfe(backend):
        return None if fixed else case.solve(case.make_field(), backend).nfe.double().mean().item()

    if case.field == "conv2d":
        engines.append(torch_engine("bare conv2d", 1, bare_convolution_step(case)))
    elif kernels.status().available:
        step = prepared_step(case)
        engines += [torch_engine(FUSED, threads, step, nfe("fused")) for threads in (1, 2)]
        engines.append(torch_engine(AUTOGRAD, 1, nodecore_step(case, "fused"), nfe("fused")))
    engines.append(torch_engine(TORCH, 1, nodecore_step(case, "torch"), nfe("torch")))
    if case.field != "conv2d":
        if fixed:
            engines.append(torch_engine("torch eager bmm", 1, eager_step(case)))
        if diffrax:
            answer = diffrax.prepare(case)

            def measure(calls):
                return diffrax.ask(calls=calls)["ms"]

            engines.append(Engine(DIFFRAX, 1, measure, answer.get("nfe")))
    count = None if fixed else torchdiffeq_nfe(case)
    engines.append(torch_engine(TORCHDIFFEQ, 1, torchdiffeq_step(case), count))
    return engines


def take_turns(engines: list[Engine], repeats: int) -> dict[tuple[str, int], list[float]]:
    """Milliseconds per call of each (engine, threads), a list of `repeats`."""
    for engine in engines:
        engine.warm_up()
    times = {(engine.name, engine.threads): [] for engine in engines}
    for _ in range(repeats):
        for engine in engines:
            times[engine.name, engine.threads].append(engine.measure(engine.calls))
    return times


def measure_case(case: Case, repeats: int, diffrax: Diffrax | None) -> list[dict]:
    engines, flop = make_engines(case, diffrax), case.flop()
    times = take_turns(engines, repeats)
    nfe = {(engine.name, engine.threads): engine.nfe for engine in engines}
    peak = 2 * 1024**3 / statistics.median(times.pop(("peak", 1))) / 1e6
    rows = []
    for (engine, threads), values in times.items():
        ms = statistics.median(values) / case.members
        gflops = flop / ms / 1e6
        rows.append(
            row(
                case.name,
                engine,
                threads,
                ms=ms,
                ms_min=min(values) / case.members,
                ms_max=max(values) / case.members,
                gflops=gflops,
                peak_gflops=peak,
                nfe=nfe[engine, threads],
                share_of_peak=gflops / (peak * threads),
                x_torchdiffeq=_paired_ratio(times.get((TORCHDIFFEQ, 1)), values),
                x_diffrax=_paired_ratio(times.get((DIFFRAX, 1)), values),
            )
        )
    return rows


def row(case: str, engine: str, threads: int, **values) -> dict:
    """A row of the JSON file: the same columns always, None where one does not apply."""
    names = "ms ms_min ms_max nfe gflops peak_gflops share_of_peak x_torchdiffeq x_diffrax"
    return {"case": case, "engine": engine, "threads": threads} | {
        **dict.fromkeys([*names.split(), "ratio", "outside_kernel", "peak_memory_mb"]),
        **values,
    }


def _paired_ratio(others: list[float] | None, values: list[float]) -> float | None:
    """How many times as long the others took: the median over the rounds."""
    if others is None:
        return None
    return statistics.median(o / v for o, v in zip(others, values, strict=True))


def measure_growth(repeats: int) -> list[dict]:
    """How much longer a call takes when one thing doubles."""
    rows = []
    for change, case in GROWTH.items():
        pair = [
            torch_engine(name, 1, prepared_step(c))
            for name, c in (("before", LANDSCAPE), ("after", case))
        ]
        times = take_turns(pair, 3 * repeats)
        ratio = _paired_ratio(times["after", 1], times["before", 1])
        ms = statistics.median(times["after", 1]) / case.members
        name = f"growth, landscape, euler, K = 16: {change}"
        rows.append(row(name, FUSED, 1, ms=ms, ratio=ratio))
    return rows


def measure_iterations(iterations: int = 300) -> list[dict]:
    """Share of a training iteration that is not the kernel: batching, classifier, loss, Adam."""
    rows = []
    torch.set_num_threads(1)
    for solver, members in (("euler", 5), ("rk4", 5), ("euler", 20), ("rk4", 20)):
        protocol = replace(get_protocol("landscape"), iterations=iterations)
        with _KernelClock() as clock:
            run = train(protocol, solver, range(members), n_steps=16, device="cpu", progress=False)
        ms = run.seconds / iterations / members * 1e3
        name = f"training iteration, landscape, {solver}, K = 16, {members} members"
        outside = 1 - clock.seconds / run.seconds
        rows.append(row(name, FUSED, 1, ms=ms, outside_kernel=outside))
    return rows


class _KernelClock:
    """Adds up the time spent in the compiled kernel."""

    def __enter__(self):
        self.seconds, self.call = 0.0, fused.FusedSolve._call

        def timed(*args, **kwargs):
            start = time.perf_counter()
            self.call(*args, **kwargs)
            self.seconds += time.perf_counter() - start

        fused.FusedSolve._call = timed
        return self

    def __exit__(self, *error):
        fused.FusedSolve._call = self.call


def measure_image_memory(batch: int = 32) -> list[dict]:
    """Peak memory of a solve and its gradient, each in a new process: O(K * state)."""
    rows = []
    for k in (4, 16, 64):
        code = f"from nodecore import bench; print(*bench.image_memory({k}, {batch}))"
        output = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        ms, megabytes = map(float, output.split())
        name = f"MNIST field, euler, K = {k}, batch {batch}, 1 seed: memory"
        rows.append(row(name, TORCH, 1, ms=ms, peak_memory_mb=megabytes))
    return rows


def image_memory(n_steps: int, batch: int) -> tuple[float, float]:
    """Milliseconds, and megabytes by which the process grows, in one solve and its gradient."""
    torch.set_num_threads(1)
    step = nodecore_step(replace(IMAGES, n_steps=n_steps, batch=batch), "torch")
    # From here on the high-water mark counts anew: importing torch took more than a small solve.
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory_mb("VmRSS")
    start = time.perf_counter()
    step()
    ms = (time.perf_counter() - start) * 1e3
    return ms, _memory_mb("VmHWM") - before


def _memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


# --- the table ------------------------------------------------------------------------------------


def main(out: str | os.PathLike = "_build/bench.json", repeats: int = REPEATS) -> list[dict]:
    """Measure everything, print one table, write its rows to `out` as JSON; returns the rows."""
    diffrax = Diffrax() if Diffrax.PYTHON.exists() else None
    rows, threads = [], torch.get_num_threads()
    jobs = [functools.partial(measure_case, case, repeats, diffrax) for case in CASES]
    if kernels.status().available:
        jobs += [functools.partial(measure_growth, repeats), measure_iterations]
    if Path("/proc/self/clear_refs").exists():
        jobs.append(measure_image_memory)
    print(HEADER)
    try:
        for job in tqdm(jobs, "bench", leave=False):
            new = job()
            rows += new
            tqdm.write("\n".join(map(_line, new)))
    finally:
        torch.set_num_threads(threads)
        if diffrax:
            diffrax.close()
    print(NOTE)
    if not diffrax:
        print(f"No diffrax rows: {Diffrax.PYTHON} is missing (see requirements-bench.txt).")
    if not kernels.status().available:
        print(kernels.status().reason)
    path = Path(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"Written: {path}")
    return rows


HEADER = (
    f"{'case':58} {'engine':26} {'threads':>7} {'ms (min - max)':>24} {'NFE':>6} {'GFLOP/s':>8} "
    f"{'of peak':>7} {'x torchdiffeq':>13} {'x diffrax':>9}"
)


def _line(row: dict) -> str:
    spread = f"{row['ms']:.3f}"
    if row["ms_min"] is not None:
        spread += f" ({row['ms_min']:.3f} - {row['ms_max']:.3f})"
    cells = f"{row['case']:58} {row['engine']:26} {row['threads']:7} {spread:>24} "
    cells += f"{_or_dash(row['nfe']):>6} "
    if row["ratio"] is not None:
        return cells + f"{row['ratio']:.2f} times as long"
    if row["outside_kernel"] is not None:
        return cells + f"{row['outside_kernel']:.0%} outside the kernel"
    if row["peak_memory_mb"] is not None:
        return cells + f"{row['peak_memory_mb']:.0f} MB"
    return (
        cells
        + f"{row['gflops']:8.0f} {row['share_of_peak']:7.0%} "
        + f"{_or_dash(row['x_torchdiffeq']):>13} {_or_dash(row['x_diffrax']):>9}"
    )


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
