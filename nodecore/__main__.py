"""The command line: `python -m nodecore --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

app = typer.Typer(
    help="Neural ODEs under every solver and step size: build the book, fill its evidence.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


studies = typer.Typer(no_args_is_help=True, help="Sweeps of trainings and their evidence.")
app.add_typer(studies, name="study")

Names = Annotated[list[str] | None, typer.Argument(help="Studies; all where none is named.")]
Profile = Annotated[str, typer.Option(help="Size of every run: paper, laptop or smoke.")]


@app.command()
def book(
    profile: Annotated[
        str | None, typer.Option(help="Size of every run: paper, laptop or smoke.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, or auto.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", metavar="NAME=VALUE", help="For chapters that have it."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder whose _build/html receives the book.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Chapters executed at a time; default: one a core.")
    ] = None,
) -> None:
    """Execute all chapters and build the HTML book.

    What is not given here stays as the chapters have it.
    """
    from nodecore.book import BookError, build_book

    given = {"profile": profile, "device": device}
    parameters = {name: value for name, value in given.items() if value is not None}
    try:
        parameters |= dict(map(parse_parameter, parameter or []))
        page = build_book(output=output, parameters=parameters, workers=workers)
    except (BookError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"\nThe book is built. Open {page.resolve().as_uri()}")


@studies.command()
def run(
    names: Names = None,
    profile: Profile = "paper",
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto.")] = "auto",
    committed: Annotated[
        bool, typer.Option("--committed", help="Write to book/results, not _build/results.")
    ] = False,
) -> None:
    """Train the runs that are in no store; stop at any moment, and run again to go on."""
    from nodecore import store, study

    root = store.COMMITTED if committed else None
    _or_exit(study.run_studies, names or (), profile=profile, root=root, device=device)


@studies.command()
def status(names: Names = None, profile: Profile = "paper") -> None:
    """Print how many runs of each study are in a store."""
    from nodecore import study

    typer.echo(_or_exit(study.status, names or (), profile).to_string(index=False))


@studies.command()
def verify(names: Names = None, profile: Profile = "paper") -> None:
    """Test the stored weights again and compare with the stored accuracies."""
    from nodecore import study

    table = _or_exit(study.verify, names or (), profile)
    typer.echo(table.to_string(index=False))
    if not table["agrees"].all():
        raise typer.Exit(1)


@app.command()
def bench(
    out: Annotated[Path, typer.Option(help="Where the rows go as JSON.")] = Path(
        "_build/bench.json"
    ),
) -> None:
    """Measure training and solving against peers; prints one table."""
    from nodecore.bench import main

    main(out)


def _or_exit(call, *arguments, **options):
    """The value of a call; bad input ends the program with its message."""
    try:
        return call(*arguments, **options)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


def parse_parameter(text: str) -> tuple[str, Any]:
    """Split `NAME=VALUE`; the value is read as papermill reads one (`8`, `true`, `[1, 2]`).

    Raises:
        ValueError: there is no name or no `=`.
    """
    name, sign, value = text.partition("=")
    if not name or not sign:
        raise ValueError(f"a parameter is written NAME=VALUE, not {text!r}")
    return name, yaml.safe_load(value)


if __name__ == "__main__":
    app()
