"""A solve and its gradient of all parameters: every engine that serves a case, in turns."""

import statistics

import torch

from benchmarks import ode_libraries, ours, torch_peers
from benchmarks.agreement import Disagreement, check_agreement
from benchmarks.cases import Case
from benchmarks.jax_client import DIFFRAX, SCAN, JaxWorker
from benchmarks.rows import make_row
from benchmarks.timing import Effort, Engine, paired_ratio, take_turns, torch_engine

PEAK = "peak"
LARGE = 100  # positions from which a peer that adds nothing new is left out


def make_peers(case: Case, jax: JaxWorker | None) -> list[Engine]:
    """The peers that serve a case, compiled."""
    fixed, images = case.rtol is None, case.field == "conv2d"
    large = images or case.dim > LARGE
    peers = []
    if fixed and not large:
        peers.append(torch_peers.loop_engine(case))
    if case.compiled:
        peers.append(torch_peers.compiled_engine(case))
    if images:
        peers.append(torch_peers.conv2d_engine(case))
    if jax and fixed:
        peers.append(jax.engine(SCAN, case))
    if jax and not large:
        peers.append(jax.engine(DIFFRAX, case))
    # conv2d is torchdiffeq's one Euler step of images; samples one by one would take it minutes.
    if not images and not case.per_sample:
        peers.append(ode_libraries.torchdiffeq_engine(case))
    if not fixed and ode_libraries.torchode_is_there():
        peers.append(ode_libraries.torchode_engine(case))
    return peers


def measure_case(case: Case, effort: Effort, jax: JaxWorker | None) -> list[dict]:
    """A row for each engine, and one for each peer that was refused."""
    mine, flop = ours.make_engines(case), case.flop()
    reference, engines, rows = mine[0].result(), [], []
    for engine in [*mine[1:], *make_peers(case, jax)]:
        try:
            other = reference if engine.reference is None else engine.reference()
            check_agreement(case, engine.result(), other)
        except Disagreement as error:
            rows.append(make_row(case.name, engine.name, refused=str(error)))
        else:
            engines.append(engine)
    a, b = torch.randn(2, 1024, 1024)
    peak = torch_engine(PEAK, lambda: torch.mm(a, b))
    times = take_turns([peak, mine[0], *engines], effort)
    peak_gflops = 2 * 1024**3 / statistics.median(times[PEAK]) / 1e6
    for engine in [mine[0], *engines]:
        values = [ms / case.members for ms in times[engine.name]]
        gflops = flop / statistics.median(values) / 1e6
        rows.append(
            make_row(
                case.name,
                engine.name,
                ms=statistics.median(values),
                ms_min=min(values),
                ms_max=max(values),
                rounds=len(values),
                nfe=engine.nfe,
                gflops=gflops,
                share_of_peak=gflops / peak_gflops,
                times_ours=paired_ratio(times[engine.name], times[mine[0].name]),
                compile_s=engine.compile_s,
            )
        )
    return rows
