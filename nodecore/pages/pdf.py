"""The built pages -> one PDF: their articles in one document, which a browser prints."""

import shutil
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

from bs4 import BeautifulSoup
from bs4.element import Tag

from nodecore.data.files import PROJECT
from nodecore.pages.build import BookError, pages

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# A reference of the package and its sources would be half of the paper.
LEFT_OUT = ("api",)
FOOTER = (
    '<div style="width: 100%; font: 8pt sans-serif; text-align: center">'
    '<span class="pageNumber"></span></div>'
)
MARGIN = "18mm"


def find_browser() -> str | None:
    """Where a Chromium or Chrome is; None without one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def print_book(html: Path | None = None, target: Path | None = None) -> Path:
    """Print the pages in `html`, those of the last `make book`, to `target`; returns it.

    Raises:
        BookError: there are no pages, no browser, or no playwright to drive it.
    """
    html = html or PROJECT / "_build" / "html"
    target = target or html.parent / "book.pdf"
    if not (html / "book" / "index.html").exists():
        raise BookError(f"{html} holds no pages: build them first (make book)")
    browser_path = find_browser()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise BookError("playwright is missing: pip install '.[test]'") from None
    if browser_path is None:
        raise BookError("no browser found: apt-get install chromium, or install Chrome")
    joined = html / "book" / "printed.html"  # beside the pages, so that their pictures are found
    joined.write_text(join_pages(html, pages(PROJECT / "_toc.yml")))
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(color_scheme="light")
            page.goto(joined.as_uri())
            page.wait_for_function("window.MathJax?.startup?.promise?.then(() => true)")
            page.pdf(
                path=target,
                format="A4",
                margin={"top": MARGIN, "bottom": MARGIN, "left": MARGIN, "right": MARGIN},
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=FOOTER,
                scale=0.75,  # type as large as in a paper
            )
            browser.close()
    finally:
        joined.unlink()
    return target


def join_pages(html: Path, names: list[str]) -> str:
    """One document of the pages `names`, each without what needs a screen, behind their contents.

    Scripts go, so an explorer stays the picture that it begins with.
    """
    names = [name for name in names if Path(name).name not in LEFT_OUT]
    soups = {
        Path(n).name: BeautifulSoup((html / f"{n}.html").read_text(), "html.parser") for n in names
    }
    articles = {name: _article(soup, name, soups) for name, soup in soups.items()}
    contents = "".join(_contents(name, article) for name, article in articles.items())
    first = next(iter(soups.values()))
    head = first.select("link[rel=stylesheet], head style, script[src*=mathjax]")
    head += [script for script in first.select("script") if "window.MathJax" in script.text]
    return (
        f'<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8">{first.title}'
        f'{"".join(map(str, head))}<body class="printed"><main class="bd-content">'
        f"{articles.pop(next(iter(articles)))}<nav><h1>Contents</h1><ul>{contents}</ul></nav>"
        f"{''.join(map(str, articles.values()))}</main></body></html>"
    )


def _article(soup: BeautifulSoup, name: str, known) -> Tag:
    """The text of a page, its anchors told apart from those of other pages."""
    article = soup.article
    assert article is not None
    for tag in article.select("script, .headerlink, .launch-hint, .downloads, details.hide"):
        tag.decompose()
    for tag in article.select("details"):
        tag["open"] = ""
    for tag in article.find_all(id=True):
        tag["id"] = f"{name}-{tag['id']}"
    for link in article.find_all("a", href=True):
        address, anchor = urldefrag(str(link["href"]))
        if urlsplit(address).scheme.startswith("http"):
            continue
        page = name if not address else address.removesuffix(".html")
        if page in known:
            link["href"] = f"#{page}-{anchor}" if anchor else f"#{page}"
        else:  # it leads to a file of this machine
            del link["href"]
    article["id"] = name
    return article


def _contents(name: str, article: Tag) -> str:
    """A page's line in the contents."""
    assert article.h1 is not None
    return f'<li><a href="#{name}">{article.h1.decode_contents()}</a></li>'
