"""Figures taken out of executed notebooks, and figures that carry their data with them."""

import base64
from io import BytesIO
from xml.etree import ElementTree

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_notebook, new_output

from nodecore.pages import plots
from nodecore.pages.build import write_downloads
from nodecore.pages.downloads import download_links, export_figure


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


# --- downloads ------------------------------------------------------------------------------------

TABLE = pd.DataFrame({"n_steps": [1, 2], "accuracy": [0.1, 1 / 3], "solver": ["euler", "rk4"]})


def line():
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    links = download_links(fig, "fig-line", TABLE)
    plt.close(fig)
    return links.data


def files_in(html):
    found = {}
    for link in BeautifulSoup(html, "html.parser").find_all("a"):
        mime, _, content = link["href"].removeprefix("data:").partition(";base64,")
        found[link["download"]] = mime, base64.b64decode(content, validate=True)
    return found


def test_links_carry_the_numbers_and_the_picture():
    files = files_in(line())
    assert list(files) == ["fig-line.csv", "fig-line.svg"]
    mime, content = files["fig-line.csv"]
    assert mime == "text/csv"
    pd.testing.assert_frame_equal(pd.read_csv(BytesIO(content)), TABLE, rtol=1e-6)
    mime, content = files["fig-line.svg"]
    assert mime == "image/svg+xml"
    assert ElementTree.fromstring(content).tag == "{http://www.w3.org/2000/svg}svg"
    assert line() == line(), "the same figure is the same file"


def test_the_book_puts_the_files_beside_the_pages(tmp_path):
    html = line()
    other = '<a href="data:text/plain;base64,eA==">not a download</a>'
    outputs = [new_output("execute_result", {"text/html": html + other}, execution_count=1)]
    outputs += [new_output("stream", text="told")]
    path = tmp_path / "chapter.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("links", outputs=outputs)]), path)
    (tmp_path / "assets").mkdir()
    write_downloads(path)
    written = nbformat.read(path, 4).cells[0].outputs[0].data["text/html"]
    assert other in written
    for name, (_, content) in files_in(html).items():
        assert (tmp_path / "assets/downloads" / name).read_bytes() == content
        assert f'<a download="{name}" href="../_static/downloads/{name}">' in written


# --- the frontier ---------------------------------------------------------------------------------


def test_the_frontier_labels_its_cures_in_the_order_of_their_accuracy():
    """Three of them lie on one another: their labels do not. One has no label."""
    columns = ["solver", "n_steps", "plain", "nfe", "exact", "low", "high"]
    cured = [["euler", 8, False, 20.0, 0.8 + 1e-3 * i, 0.7, 0.9] for i in (2, 0, 1, 3)]
    rows = [["euler", k, True, float(k), k / 100, 0.0, 1.0] for k in (64, 8, 16)]
    fig, ax = plt.subplots()
    plots.frontier(ax, pd.DataFrame([*cured, *rows], columns=columns), ["c", "a", "b", ""])
    beside = [text for text in ax.texts if not text.get_text().isdigit()]
    assert len(beside) == 3
    places = {text.get_text(): text.xyann[1] for text in beside}
    assert places["b"] - places["a"] == pytest.approx(places["c"] - places["b"], abs=1e-3)
    assert places["b"] - places["a"] > 0.05
    bottom, top = ax.get_ylim()
    assert places["b"] == pytest.approx((80.1 - bottom) / (top - bottom), abs=0.01)
    plain = ax.get_lines()[0]
    assert list(plain.get_xdata()) == [8, 16, 64], "in the order of their cost"
    plt.close(fig)


def test_a_frontier_without_records_is_empty():
    columns = ["solver", "n_steps", "plain", "nfe", "exact", "low", "high"]
    fig, ax = plt.subplots()
    plots.frontier(ax, pd.DataFrame(columns=columns), [])
    assert not ax.texts
    plt.close(fig)
