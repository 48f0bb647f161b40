"""The built book as a reader meets it: from the disk, in a real browser, without a network."""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import jupytext
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from browsing import listen
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page

from nodecore.claims.register import read_claims
from nodecore.data.files import PROJECT
from nodecore.evidence import store
from nodecore.pages.build import pages

PAGES = pages(PROJECT / "_toc.yml")
CHAPTERS = [page for page in PAGES if (PROJECT / f"{page}.py").exists()]  # and their appendices


@pytest.fixture(scope="session")
def html(built_book: Path) -> Path:
    return built_book / "html"


@pytest.fixture
def visit(browser: Browser, html: Path) -> Iterator:
    """Open a page of the book and wait until it has settled; complaints are in `.complaints`."""
    contexts = []

    def open_page(name: str, **options) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.complaints = listen(page)
        file, _, query = name.partition("?")
        page.goto(f"{(html / file).as_uri()}?{query}", wait_until="load")
        page.wait_for_function(
            "!window.MathJax?.startup || MathJax.startup.promise.then(() => true)"
        )
        page.wait_for_function("!document.querySelector('.nodecore-explorer:not([data-ready])')")
        return page

    yield open_page
    for context in contexts:
        context.close()


# --- in the browser --------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAGES)
def test_page_is_whole(visit, name: str):
    page = visit(f"{name}.html")
    broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
    assert broken == []
    assert page.complaints == []


@pytest.mark.parametrize("name", PAGES)
def test_formulas_are_typeset(visit, name: str):
    page = visit(f"{name}.html")
    raw = page.evaluate(
        "[...document.querySelectorAll('.math')].filter(m => !m.querySelector('mjx-container'))"
        ".map(m => m.textContent)"
    )
    assert raw == []
    assert page.locator("mjx-merror").count() == 0
    if name in CHAPTERS:
        assert page.locator("mjx-container").count() > 0


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_needs_no_sideways_scrolling(visit, name: str):
    page = visit(f"{name}.html", viewport={"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def picture_of(image):
    """Pixels of an image that stood still meanwhile: on a busy machine something above may grow."""
    image.scroll_into_view_if_needed()
    for _ in range(20):
        before, png = image.bounding_box(), image.screenshot()
        if image.bounding_box() == before:
            return plt.imread(BytesIO(png), format="png")[..., :3]
    raise AssertionError("the page never stands still")


@pytest.mark.parametrize("name", CHAPTERS)
def test_figures_lie_on_the_page_in_the_dark_and_photographs_on_a_card(visit, name: str):
    """What a reader sees: the corners of a figure have the page's colour, its lines are light."""
    # Chromium's picture of an image that is taller than the window is one of another place.
    tall = {"width": 1280, "height": 2000}
    page = visit(f"{name}.html", color_scheme="dark", viewport=tall)
    ground = rgb(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    for image in page.locator("figure img").all():
        photograph = "true-colours" in (image.get_attribute("class") or "")
        pixels = picture_of(image)
        inside = pixels[20:-20, 20:-20]
        wanted = np.ones(3) if photograph else ground
        np.testing.assert_allclose(pixels[4, 4], wanted, atol=0.03)
        np.testing.assert_allclose(inside[0, 0], wanted, atol=0.03)
        light = inside.min(axis=-1) > 0.6
        assert light.any(), "text can be read"
        assert photograph or light.mean() < 0.5, "no white slab"


@pytest.mark.parametrize("name", CHAPTERS)
def test_no_text_of_an_output_lies_on_a_light_card_in_the_dark(visit, name: str):
    page = visit(f"{name}.html", color_scheme="dark")
    grounds = page.locator(".cell_output .text_html").evaluate_all(
        "outputs => outputs.map(o => getComputedStyle(o).backgroundColor)"
    )
    opaque = [ground for ground in grounds if ground != "rgba(0, 0, 0, 0)"]
    assert all(rgb(ground).max() < 0.5 for ground in opaque), opaque


def rgb(colour: str) -> np.ndarray:
    """A colour of CSS as three numbers from 0 to 1."""
    return np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255


@pytest.mark.parametrize("name", ["book/index", *CHAPTERS[1:5]])  # chapters 2 to 5 have one
def test_an_explorer_is_at_work(visit, html: Path, name: str):
    page = visit(f"{name}.html")
    explorer = page.locator(".nodecore-explorer").first
    explorer.locator(".figures").first.wait_for()
    assert explorer.locator("[data-number]").count() >= 3
    assert explorer.locator(".failure:visible").count() == 0
    assert (html / f"{name}.html").stat().st_size < 2e6  # fewer weights here than as published


def test_dark_mode_switches(visit):
    page = visit("book/index.html", color_scheme="light")
    background = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    for _ in range(3):  # auto, light, dark in turn
        page.locator("button.theme-switch-button:visible").first.click()
        if page.evaluate("document.documentElement.dataset.theme") == "dark":
            break
    page.wait_for_function(f"{background} !== {light!r}")
    assert max(map(int, re.findall(r"\d+", page.evaluate(background))[:3])) < 64 < 192
    assert page.complaints == []


def test_paper_is_light_though_the_screen_is_dark(visit):
    page = visit("book/07_scorecard.html", color_scheme="dark")
    page.emulate_media(media="print")
    colour = "each => each.map(e => getComputedStyle(e).color)"
    words = page.locator("article :is(.verdict, code, p, td)").evaluate_all(colour)
    assert len(words) > 100
    assert max(rgb(word).mean() for word in words) < 0.5


def test_what_unfolds_is_folded_from_the_first_moment(visit):
    """Nothing below it moves once the page's script has run."""
    page = visit("book/01_datasets.html")
    moved = page.evaluate(
        """new Promise((done) => {
            const add = (list) => done(list.getEntries().reduce((sum, e) => sum + e.value, 0));
            new PerformanceObserver(add).observe({ type: "layout-shift", buffered: true });
            setTimeout(() => done(0), 500);
        })"""
    )
    assert moved < 0.1


def test_search_works_offline(visit):
    page = visit("search.html?q=tableau")
    page.locator("#search-results li a").first.wait_for(timeout=20_000)
    assert any("api" in a.get_attribute("href") for a in page.locator("#search-results a").all())
    assert page.complaints == []


def test_the_front_door_leads_to_the_book(visit):
    page = visit("index.html")
    page.wait_for_url("**/book/index.html")
    for name in CHAPTERS:
        assert page.locator(
            f"article a[href='{Path(name).name}.html'], article a[href^='{Path(name).name}.html#']"
        ).count()


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_launch_hint_folds_out(visit, name: str):
    page = visit(f"{name}.html")
    hint = page.locator(".launch-hint")
    line = hint.locator("pre")
    assert not line.is_visible()
    hint.locator(".admonition-title").click()
    line.wait_for(state="visible")
    assert f"{name}.py" in line.text_content() and "papermill - out.ipynb -p" in line.text_content()


def test_a_figure_is_downloaded_with_the_numbers_of_its_records(visit, built_book: Path):
    page = visit("book/a3_cross_solver_grids.html")
    with page.expect_download() as download:
        page.locator("a[download='fig-seeds-1.csv']").click()
    columns = ["dataset", "n_steps", "seed", "test_n_steps", "accuracy"]
    shown = pd.read_csv(download.value.path())[columns].sort_values(columns[:4])
    root = built_book.parent / "results"
    paths = [p for d in ("spheres2", "landscape") for p in root.glob(f"{d}-rk4/*/*.json")]
    wanted = pd.concat([store.load_run(path).frame() for path in paths])
    wanted = wanted[wanted["test_n_steps"].notna()][columns].sort_values(columns[:4])
    pd.testing.assert_frame_equal(
        shown.reset_index(drop=True), wanted.reset_index(drop=True), check_dtype=False
    )
    # Chromium turns the visit to the file into a download, and says that the visit failed.
    assert [told for told in page.complaints if "fig-seeds-1.csv" not in told] == []


# --- in the files ----------------------------------------------------------------------------


def test_every_internal_link_leads_somewhere(html: Path):
    soups = {path: soup(path) for path in html.rglob("*.html") if "_static" not in path.parts}
    ids = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in soups.items()}
    broken = [
        f"{path.relative_to(html)}: {link}"
        for path, page in soups.items()
        for link in links(page)
        if not leads_somewhere(path, link, ids)
    ]
    assert broken == []


def soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(), "html.parser")


def links(page: BeautifulSoup) -> set[str]:
    """All links to this book; those that leave it are not followed."""
    found = {tag["href"] for tag in page.find_all(href=True)}
    found |= {tag["src"] for tag in page.find_all(src=True)}
    return {link for link in found if not urlsplit(link).scheme and not link.startswith("//")}


def leads_somewhere(path: Path, link: str, ids: dict[Path, set[str]]) -> bool:
    address, anchor = urldefrag(link)
    target = path if not address else (path.parent / unquote(urlsplit(address).path)).resolve()
    return target.exists() and (not anchor or target not in ids or unquote(anchor) in ids[target])


def test_chapters_have_numbers_and_appendices_letters(html: Path):
    soup = BeautifulSoup((html / "book/index.html").read_text(), "html.parser")
    links = [link.get_text(strip=True) for link in soup.select("nav.bd-links a")]
    numbers = [text.split(".")[0] for text in links[: len(CHAPTERS)]]
    assert numbers == [*"12345678", *"ABCDEFG"]
    appendix = BeautifulSoup((html / "book/a3_cross_solver_grids.html").read_text(), "html.parser")
    assert appendix.select_one("span.caption-number").get_text(strip=True) == "Fig. B.1"


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_figure_is_there_with_caption_and_alternative_text(html: Path, name: str):
    cells = jupytext.read(PROJECT / f"{name}.py").cells
    wanted = [
        c.metadata.mystnb["figure"]["name"]
        for c in cells
        if "figure" in c.metadata.get("mystnb", {})
    ]
    assert wanted, "a chapter shows something"
    page = soup(html / f"{name}.html")
    for figure in wanted:
        found = page.find("figure", id=figure)
        assert found, figure
        assert len(found.figcaption.get_text().strip()) > 40, figure
        if found.img:
            assert len(found.img.get("alt", "")) > 20, figure


@pytest.mark.parametrize("name", CHAPTERS)
def test_every_picture_is_a_captioned_figure(html: Path, name: str):
    loose = [
        img
        for img in soup(html / f"{name}.html").select("article img")
        if not img.find_parent("figure")
    ]
    assert loose == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_a_table_has_at_most_five_columns_of_values(html: Path, name: str):
    """A row of pandas says by its tag what is its name; elsewhere the first cell is."""
    soup = BeautifulSoup((html / f"{name}.html").read_text(), "html.parser")
    for row in soup.select("article tbody tr"):
        values = len(row.select("td")) - (not row.select("th"))
        assert values <= 5, row.get_text(" ", strip=True)


def test_the_scorecard_shows_every_claim_with_its_verdict(html: Path):
    page = soup(html / "book/07_scorecard.html")
    shown = {card["id"]: card.select_one(".verdict").get_text() for card in page.select(".claim")}
    claims = read_claims()
    assert list(shown) and set(shown) == {f"claim-{claim.id}" for claim in claims}
    for claim in claims:
        assert shown[f"claim-{claim.id}"].split(" ", 1)[1] == claim.verdict


def test_api_page_documents_the_package(html: Path):
    text = (html / "book/api.html").read_text()
    for name in ("ode.fixed.solve_fixed", "ode.tableaus.ButcherTableau", "data.datasets.load"):
        assert f'id="nodecore.{name}"' in text


def test_pages_name_no_place_of_this_machine(html: Path):
    home = str(PROJECT)
    told = [
        str(path.relative_to(html)) for path in html.rglob("*.html") if home in path.read_text()
    ]
    assert told == []
