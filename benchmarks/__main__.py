"""`python -m benchmarks`: measure everything, print it, and write it as JSON."""

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer
from tqdm import tqdm

from benchmarks.jax_client import PYTHON, JaxWorker
from benchmarks.jobs import list_jobs
from benchmarks.machine import describe
from benchmarks.ode_libraries import torchode_is_there
from benchmarks.table import HEADER, NOTE, format_line, format_markdown
from benchmarks.timing import FULL, QUICK, use_one_core
from nodecore.ode import kernels

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    out: Annotated[Path, typer.Option(help="Where the rows go as JSON.")] = Path(
        "_build/bench.json"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="Tiny problems, few rounds: does everything run?")
    ] = False,
    only: Annotated[
        str, typer.Option(help="Measure only what has this in its name, such as 'MNIST'.")
    ] = "",
) -> None:
    """Measure solving and training against peers on one core; prints tables."""
    use_one_core()
    _say_what_is_missing()
    with JaxWorker() if PYTHON.exists() else nullcontext() as jax:
        jobs = list_jobs(QUICK if quick else FULL, jax, tiny=quick)
        jobs = {name: job for name, job in jobs.items() if only in name}
        if not jobs:
            typer.echo(f"error: only = {only!r}: nothing that is measured has it in its name")
            raise typer.Exit(1)
        before, rows = describe(jax), []
        print(HEADER)
        for job in tqdm(jobs.values(), "bench", leave=False, disable=None):
            new = job()
            rows += new
            tqdm.write("\n".join(map(format_line, new)))
    facts = before | {"load_after": describe(None)["load"]}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
    print(NOTE, *(f"{name}: {value}" for name, value in facts.items()), sep="\n")
    print(f"Written: {out}", "", format_markdown(rows), sep="\n")
    if any(row["refused"] for row in rows):
        raise typer.Exit(1)


def _say_what_is_missing():
    if not PYTHON.exists():
        print(f"No JAX peers: {PYTHON} is missing; `make bench` sets it up.")
    if not torchode_is_there():
        print("No torchode; `make bench` sets it up.")
    if not kernels.status().available:
        print(kernels.status().reason)


if __name__ == "__main__":
    app()
