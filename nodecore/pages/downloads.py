"""Figures for use outside the book: downloads with their data, and a picture of a chapter."""

import base64
from io import BytesIO
from pathlib import Path

import pandas as pd
from IPython.display import HTML
from matplotlib import rc_context
from matplotlib.figure import Figure

from nodecore.data.files import write_atomically


def download_links(fig: Figure, name: str, table: pd.DataFrame) -> HTML:
    """A line that offers figure `name` as SVG and the numbers in it, `table`, as CSV.

    It carries both files itself and so works in any notebook. End the cell after the figure's with
    it: a figure has to be the only output of its cell. In the book, `nodecore.pages.build` puts the
    files beside the pages.
    """
    picture = BytesIO()
    fig.set_layout_engine("none")  # it was laid out when it was drawn
    with rc_context({"svg.hashsalt": name}):
        fig.savefig(picture, format="svg", bbox_inches="tight", metadata={"Date": None})
    csv = table.to_csv(index=False, float_format="%.6g").encode()
    data = file_link(f"{name}.csv", "text/csv", csv)
    vectors = file_link(f"{name}.svg", "image/svg+xml", picture.getvalue())
    return HTML(f'<p class="downloads">Download: {data} (data), {vectors} (picture)</p>')


def file_link(file: str, mime: str, content: bytes) -> str:
    """A link that carries its file, HTML."""
    address = f"data:{mime};base64,{base64.b64encode(content).decode()}"
    return f'<a download="{file}" href="{address}">{file}</a>'


def export_figure(notebook: Path | str, name: str, target: Path | str) -> None:
    """Write the PNG that the cell of figure `name` made in an executed notebook to `target`.

    `name` is the figure's name in the cell's metadata. Raises ValueError for a name that no cell
    with a picture has.
    """
    import nbformat  # takes 2 s, for which every chapter would wait

    pictures = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                pictures[figure.get("name")] = output["data"]["image/png"]
    if name not in pictures:
        known = ", ".join(sorted(filter(None, pictures))) or "none"
        raise ValueError(f"name = {name!r}: {notebook} has no such picture (it has: {known})")
    write_atomically(Path(target), base64.b64decode(pictures[name]))
