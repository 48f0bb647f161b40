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


@app.callback()
def main() -> None:
    """Keep `book` a sub-command while it is the only one."""


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
