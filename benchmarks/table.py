"""Rows as lines on the terminal while they come, and as the README's table at the end."""

from benchmarks import ode_libraries, ours, torch_peers
from benchmarks.jax_client import DIFFRAX, SCAN
from benchmarks.training import BUILD, JAX, OURS

NOTE = """\
ms: milliseconds per seed and iteration (a solve and the gradient of all parameters) that a process
spends on its one core, median of the rounds; engines take turns. x ours: how many times as long as
nodecore's first row of the case took, median of the ratios within a round. Every peer's end state
and gradients were compared with ours before.
GFLOP/s counts the operations of the field as written, taps beyond the edge left out, forward once,
backward twice, nothing that is computed again: tables need far fewer, and pass the peak.
nodecore, bare: as in `train`, set up once; autograd: as in `solve_fixed`, each call by itself.
JAX: side by side or one after the other, whichever is faster; its 1-D and 2-D convolutions are
written as products. NFE: evaluations of an adaptive solve, mean over the seeds or samples; torchode
counts those of all for as long as one of them steps.
torchdiffeq and torchode estimate 2/3 of dopri5's error and are given 2/3 of the tolerance;
torchdiffeq's rk4 is the 3/8 rule, compared with ours; its fehlberg2 takes the last stage of a step
for the first of the next, one evaluation less a step.
Peak: torch.mm of 1024 x 1024 float32 matrices. MNIST: drawn strokes in place of digits."""

HEADER = (
    f"{'case':66} {'engine':30} {'ms (min - max)':>26} {'x ours':>7} {'NFE':>5} {'GFLOP/s':>8} "
    f"{'of peak':>7} {'compile':>8}"
)


def format_line(row: dict) -> str:
    """A row as one line under HEADER."""
    line = f"{row['case']:66} {row['engine']:30} "
    for why in ("left_out", "refused"):
        if row[why] is not None:
            return line + f"{why.replace('_', ' ')}: {row[why]}"
    if row["seconds"] is not None:
        inside = "" if row["compile_s"] is None else f", {row['compile_s']:.2f} s of it to compile"
        return line + f"{row['seconds']:.2f} s{inside}"
    spread = f"{row['ms']:.3f}"
    if row["ms_min"] is not None:
        spread += f" ({row['ms_min']:.3f} - {row['ms_max']:.3f})"
    line += f"{spread:>26} "
    if row["ratio"] is not None:
        of = "the solve alone" if row["case"].startswith("training") else "before"
        return line + f"{row['ratio']:.2f} times {of}"
    if row["peak_memory_mb"] is not None:
        return line + f"{row['peak_memory_mb']:.0f} MB"
    seconds = "-" if row["compile_s"] is None else f"{row['compile_s']:.1f} s"
    nfe = "-" if row["nfe"] is None else f"{row['nfe']:.1f}"
    return (
        line
        + f"{row['times_ours']:7.2f} {nfe:>5} {row['gflops']:8.0f} {row['share_of_peak']:7.0%} "
        + f"{seconds:>8}"
    )


# --- the README's table ---------------------------------------------------------------------------

# Where two engines stand in one column, a case has one of them, or the first counts.
COLUMNS = {
    "nodecore": (ours.BARE, ours.TORCH),
    "`lax.scan`": (SCAN,),
    "diffrax": (DIFFRAX,),
    "torch": (torch_peers.CONV2D, torch_peers.LOOP),
    "torchdiffeq": (ode_libraries.TORCHDIFFEQ,),
    "torchode": (ode_libraries.TORCHODE,),
}


def format_markdown(rows: list[dict]) -> str:
    """Milliseconds of the cases, then seconds of the whole training, as two tables."""
    return "\n\n".join(filter(None, (_solves(rows), _trainings(rows))))


def _solves(rows):
    times = {(row["case"], row["engine"]): row["ms"] for row in rows if row["times_ours"]}
    if not times:
        return ""
    lines = [f"| | {' | '.join(COLUMNS)} |", f"| :-- |{' --: |' * len(COLUMNS)}"]
    for case in dict.fromkeys(case for case, _ in times):
        cells = []
        for engines in COLUMNS.values():
            found = [times[case, engine] for engine in engines if (case, engine) in times]
            cells.append(_three_digits(found[0]) if found else "–")
        lines.append(f"| {case} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _trainings(rows):
    seconds = {(row["case"], row["engine"]): row["seconds"] for row in rows if row["seconds"]}
    compiles = {row["engine"]: row["compile_s"] for row in rows if row["seconds"]}
    whole = [case for case, engine in seconds if engine == OURS]
    if not whole:
        return ""
    build = {case.split(", ")[1]: s for (case, engine), s in seconds.items() if engine == BUILD}
    ours_s = seconds[whole[0], OURS]
    lines = [
        f"| {whole[0]} | compiling, s | training, s | together, s |",
        "| :-- | --: | --: | --: |",
    ]
    parts = [(f"nodecore, {when}", s, ours_s) for when, s in build.items()]
    if (theirs := seconds.get((whole[0], JAX))) is not None:
        parts.append((f"{JAX}, every process", compiles[JAX], theirs - compiles[JAX]))
    for label, before, inside in parts:
        values = " | ".join(_three_digits(v) for v in (before, inside, before + inside))
        lines.append(f"| {label} | {values} |")
    return "\n".join(lines)


def _three_digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:#.3g}"
