"""The command line: `python -m nodecore --help`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from threading import Timer
from typing import Annotated, NoReturn


def _lacks(error: ModuleNotFoundError, extra: str) -> str:
    """The message for a package that is not installed."""
    package = (error.name or "a package").partition(".")[0]
    with_it = f"install the project with the packages for this: pip install '.[{extra}]'"
    return f"error: {package} is not installed; {with_it}"


try:
    import typer
except ModuleNotFoundError as error:
    sys.exit(_lacks(error, "cluster"))
except KeyboardInterrupt:
    sys.exit(130)

app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)


studies = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",  # lines of a paragraph flow together
    help="Train sweeps of runs, and test and move their evidence.",
)
app.add_typer(studies, name="study")

Names = Annotated[list[str] | None, typer.Argument(help="Names of studies; default: all.")]
Only = Annotated[
    str | None,
    typer.Option(metavar="PATTERN", help="Select runs by name: `euler-K8-*`, `spheres*/*-K8-*`."),
]
Committed = Annotated[
    bool, typer.Option("--committed", help="Use book/results instead of _build/results.")
]
Profile = Annotated[
    str | None,
    typer.Option(help="Set the size of runs: paper, laptop or smoke; default: each study's own."),
]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"nodecore {version('nodecore')}")
        raise typer.Exit


@contextmanager
def _imports(extra: str = "cluster") -> Iterator[None]:
    """Around the imports of a command, which take seconds, and more on a cold disk: Ctrl-C ends
    them without a traceback, and where a package is missing the message names its extra."""
    slow = Timer(3.0, typer.echo, ["loading torch and what else is needed"], {"err": True})
    slow.daemon = True
    slow.start()
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:  # what runs in the background stays deaf to it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    except ModuleNotFoundError as error:
        _end(_lacks(error, extra))
    finally:
        slow.cancel()
        signal.signal(signal.SIGINT, before)


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Train and test neural ODEs under every solver; build the book and fill its evidence."""


@app.command()
def book(
    profile: Annotated[
        str | None, typer.Option(help="Set the size of every run: paper, laptop or smoke.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Train on cpu, cuda, or auto (cuda where there is one).")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=VALUE",
            help="Set a chapter parameter; may be repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Build into _build/html of this folder.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Execute this many chapters at a time; default: one per core."),
    ] = None,
) -> None:
    """Execute all chapters and build the HTML book.

    Parameters that are not given keep the values in the chapters.
    """
    with _imports("book"):
        from nodecore.pages.build import BookError, build_book
        from nodecore.pages.parameters import parse_parameter

    given = {"profile": profile, "device": device}
    parameters = {name: value for name, value in given.items() if value is not None}
    kept = "stopped; models that were trained are kept, and the same command begins anew with these"
    with _stoppable(kept), _refusing(BookError):
        parameters |= dict(map(parse_parameter, parameter or []))
        page = build_book(output=output, parameters=parameters, workers=workers)
    typer.echo(f"\nThe book is built. Open {page.resolve().as_uri()}")


@studies.command()
def run(
    names: Names = None,
    only: Only = None,
    profile: Profile = None,
    device: Annotated[
        str, typer.Option(help="Train on cpu, cuda, or auto (cuda where there is one).")
    ] = "auto",
    precision: Annotated[
        str, typer.Option(help="Train image runs in float32, tf32 (GPU) or bf16.")
    ] = "float32",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train N runs at a time; default: one per core."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Train on the workers of this dask scheduler."),
    ] = None,
    committed: Committed = False,
    budget: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Start only runs that fit; stop 20 s before the end."),
    ] = None,
) -> None:
    """Train the runs that are in no store; stop at any moment, and run again to go on.

    With --committed, train those that are not in book/results. The time and memory of image runs
    are estimated beforehand. With --budget, runs are trained one after another, the longest first,
    and a few iterations predict the time of each.
    """
    if budget is not None:
        if scheduler:
            _end("error: budget: the time of a cluster's workers is its own; leave one of them out")
        if jobs is not None:
            _end("error: budget: its runs are trained one after the other; leave jobs out")
        _run_within(budget, names, only, profile, device, precision, committed)
        return
    with _imports():
        from nodecore.evidence import cluster
        from nodecore.evidence.estimate import estimate
        from nodecore.evidence.sweep import SweepError, find_missing, run_studies

    chosen = {"only": only, "profile": profile, "root": _root(committed)}
    how = {"device": device, "precision": precision, "jobs": jobs}
    client = cluster.connect(scheduler) if scheduler else nullcontext()
    with _stoppable(), _refusing(SweepError, cluster.ClusterError):
        if not scheduler:
            expected = estimate(find_missing(names or (), **chosen), **how)
            if expected:
                typer.echo(expected)
        with client as connected:
            run_studies(names or (), **chosen, **how, client=connected)


def _run_within(budget, names, only, profile, device, precision, committed):
    with _imports():
        from nodecore.evidence.budget import train_within
        from nodecore.evidence.selection import cost
        from nodecore.evidence.sweep import find_missing
        from nodecore.training.deadline import Deadline

    root = _root(committed)
    with _stoppable(), _refusing():
        deadline = Deadline(budget)
        runs = find_missing(names or (), only, profile, root)
        runs.sort(key=cost, reverse=True)
        how = {"root": root, "device": device, "precision": precision}
        left, failed = train_within(runs, deadline, **how, tell=typer.echo)
    done = f"{len(runs) - len(left) - len(failed)} of {len(runs)} runs are done"
    typer.echo(done if runs else "nothing to train: all runs that can be trained are there")
    if failed:
        _end(f"error: {len(failed)} of {len(runs)} runs failed; the same command tries them again")


def _root(committed):
    """Return the store of a command; None for the one that new results go to."""
    from nodecore.evidence import store

    with _refusing():
        return store.committed_root() if committed else None


@studies.command()
def pack(
    folder: Annotated[Path, typer.Argument(help="Create this folder for the archives.")],
) -> None:
    """Pack the trained runs that are not in book/results into archives, to move them elsewhere.

    Writes at most 7 archives of 15 MiB each. Exits with 1 if a run is left out, being damaged, not
    tested to the end or too large, or if there is nothing to pack.
    """
    with _imports():
        from nodecore.evidence import archives, store

    with _refusing():
        packed, left = archives.pack(folder)
    for path in packed:
        typer.echo(path)
    for why in left:
        typer.echo(f"left out: {why}", err=True)
    if not packed and not left:
        _end(f"nothing to pack: {store.scratch_root()} has no runs that are not in book/results")
    if left:
        raise typer.Exit(1)


@studies.command()
def take(
    archive: Annotated[
        list[Path], typer.Argument(help="Paths of archives that `study pack` made.")
    ],
    sample: Annotated[int, typer.Option(min=0, help="Test the weights of so many runs again.")] = 2,
    seed: Annotated[int, typer.Option(help="Draw the runs with this seed.")] = 0,
    seconds: Annotated[float, typer.Option(help="Spend about this long on each image run.")] = 60.0,
) -> None:
    """Check the runs in archives and store them in book/results; all of them or none."""
    with _imports():
        from nodecore.evidence import archives

    with _refusing():
        told = archives.take(archive, sample=sample, seed=seed, seconds=seconds)
    for run, what in told.items():
        typer.echo(f"{run}: {what}")


@studies.command()
def test(
    names: Names = None, only: Only = None, profile: Profile = None, committed: Committed = False
) -> None:
    """Test the stored weights under the settings that their records lack, without training.

    Existing records are kept as they are. Stop at any moment, and run again to go on.
    """
    with _imports():
        from nodecore.evidence import retest

    chosen = {"only": only, "profile": profile, "root": _root(committed)}
    with _stoppable(), _refusing():
        added = retest.complete_studies(names or (), **chosen)
    typer.echo(f"{added} records were added")


@studies.command()
def status(names: Names = None, profile: Profile = None) -> None:
    """Print how many runs of each study are stored."""
    with _imports():
        from nodecore.evidence import verify as of_store

    with _refusing():
        table = of_store.status(names or (), profile)
    typer.echo(table.drop(columns="damaged").to_string(index=False))
    for study, files in zip(table["study"], table["damaged"], strict=True):
        if files:
            typer.echo(f"damaged in {study}: {files}")


@studies.command()
def verify(
    names: Names = None,
    profile: Profile = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Test only N of the runs, drawn by --seed."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draw the runs with this seed.")] = 0,
    seconds: Annotated[
        float, typer.Option(help="With --sample, spend about this long on each image run.")
    ] = 60.0,
) -> None:
    """Test the stored weights again and compare with what is recorded.

    The column change gives the largest change of an accuracy in samples. The column allowed gives
    the largest one that still agrees: none on the machine and with the versions of the training, a
    few elsewhere. The column tests counts the accuracies that were measured again; with --sample,
    those of an image run end when its seconds are over. Values that follow from the weights and the
    history must be right, and no record may be missing. Exits with 1 if a run does not agree.
    """
    with _imports():
        from nodecore.evidence import store
        from nodecore.evidence import verify as of_store

    with _refusing():
        table = of_store.verify(names or (), profile, sample=sample, seed=seed, seconds=seconds)
    if table.empty:
        _end(f"nothing to verify: neither book/results nor {store.scratch_root()} has such a run")
    typer.echo(table.drop(columns="problem").to_string(index=False))
    typer.echo(f"not compared, since weights do not tell: {of_store.NOT_COMPARED}")
    for row in table.loc[~table["agrees"]].to_dict("records"):
        differ = f"{row['run']}: {row['change']} samples differ, {row['allowed']} may"
        why = row["problem"] or differ
        typer.echo(f"error: {why}", err=True)
    if not bool(table["agrees"].all()):
        raise typer.Exit(1)


@app.command()
def data(
    name: Annotated[str, typer.Argument(help="Name of the set: mnist or cifar10.")],
    root: Annotated[
        Path | None, typer.Option(help="Store it here; default: NODECORE_DATA or the user's cache.")
    ] = None,
) -> None:
    """Download a set of images unless it is there, and check it."""
    with _imports():
        from nodecore.data.datasets import IMAGES
        from nodecore.data.images import data_root, exact_test_images
        from nodecore.ode.checks import check_choice

    with _refusing():
        check_choice("name", name, IMAGES)
        training, test = IMAGES[name].make(root)
    typer.echo(f"{len(training)} training and {len(test)} test images lie in {data_root(root)}")
    lossy = len(test) - exact_test_images(name, root)
    if lossy:
        typer.echo(f"{lossy} of the test images are lossy copies: tests are on the others")


@contextmanager
def _refusing(*more: type[Exception]) -> Iterator[None]:
    """End with the message of bad input, or of `more` errors; the system's own lack a remedy."""
    try:
        yield
    except (ValueError, OSError, *more) as error:
        if isinstance(error, OSError) and error.strerror:
            _end(
                f"error: {error.filename}: {error.strerror}; make it accessible, or name another "
                "folder (NODECORE_RESULTS for results, NODECORE_DATA for images)"
            )
        _end(f"error: {error}")


@contextmanager
def _stoppable(
    kept: str = "stopped; what is finished is kept, and the same command goes on from here",
) -> Iterator[None]:
    """Say what Ctrl-C has not lost; whoever ends the program stops it likewise."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        _end(kept, 130)


def _end(message: str, code: int = 1) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code) from None


if __name__ == "__main__":
    app()
