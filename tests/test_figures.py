"""Figures taken out of executed notebooks."""

import base64

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from nodecore.figures import export_figure


@pytest.fixture
def notebook(tmp_path):
    picture = new_output("display_data", {"image/png": base64.b64encode(b"a picture").decode()})
    cell = new_code_cell("draw()", outputs=[picture])
    cell.metadata["mystnb"] = {"figure": {"name": "fig-one"}}
    path = tmp_path / "chapter.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1"), cell]), path)
    return path


def test_a_figure_is_found_by_its_name(notebook, tmp_path):
    export_figure(notebook, "fig-one", tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes() == b"a picture"


def test_an_unknown_name_lists_the_pictures(notebook, tmp_path):
    with pytest.raises(ValueError, match=r"name = 'fig-two': .* \(it has: fig-one\)"):
        export_figure(notebook, "fig-two", tmp_path / "two.png")
    assert not (tmp_path / "two.png").exists()
