"""A figure taken out of an executed chapter, for use outside the book."""

import base64
from pathlib import Path

import nbformat

from nodecore.store import write_atomically


def export_figure(notebook: Path | str, name: str, target: Path | str) -> None:
    """Write the PNG that the cell of figure `name` made in an executed notebook to `target`.

    `name` is the figure's name in the cell's metadata. Raises ValueError for a name that no cell
    with a picture has.
    """
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
