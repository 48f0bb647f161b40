"""The book as one PDF: what is joined, and what a browser prints of it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from nodecore.data.files import PROJECT
from nodecore.pages.build import BookError, pages
from nodecore.pages.pdf import LEFT_OUT, join_pages, print_book

PRINTED = [Path(page).name for page in pages(PROJECT / "_toc.yml")]
PRINTED = [name for name in PRINTED if name not in LEFT_OUT]
PAGE = """<html><head><title>Book</title><link rel="stylesheet" href="a.css"></head><body>
<article><h1>{title}<a class="headerlink" href="#top">#</a></h1><p id="top">{text}</p>
<div class="nodecore-explorer"><img alt="a picture"><script>start()</script></div>
</article></body></html>"""


@pytest.fixture
def two_pages(tmp_path: Path) -> Path:
    texts = {
        "index": '<a href="two.html#top">there</a> <a href="api.html">left out</a>',
        "two": '<a href="#top">up</a> <a href="index.html">back</a> <a href="http://x.y">out</a>',
    }
    (tmp_path / "book").mkdir()
    for name, text in texts.items():
        (tmp_path / f"book/{name}.html").write_text(PAGE.format(title=f"Page {name}", text=text))
    return tmp_path


def test_pages_are_joined_with_their_links_and_without_scripts(two_pages: Path):
    page = BeautifulSoup(join_pages(two_pages, ["book/index", "book/two"]), "html.parser")
    assert [h1.get_text() for h1 in page.find_all("h1")] == ["Page index", "Contents", "Page two"]
    assert [a.get_text() for a in page.select("nav a")] == ["Page index", "Page two"]
    assert [img["alt"] for img in page.find_all("img")] == ["a picture"] * 2
    assert page.find("script") is None
    ids = {str(tag["id"]) for tag in page.find_all(id=True)}
    targets = {a.get_text(): str(a.get("href", "")) for a in page.select("article a")}
    assert targets["left out"] == "", "no way into the files of the machine that printed it"
    assert targets["out"] == "http://x.y"
    inner = {target for target in targets.values() if target.startswith("#")}
    assert inner == {"#two-top", "#index"} and {t[1:] for t in inner} <= ids


def test_without_pages_there_is_nothing_to_print(tmp_path: Path):
    with pytest.raises(BookError, match="make book"):
        print_book(tmp_path)


def test_the_book_is_printed_whole(built_book: Path, browser_path: str, tmp_path: Path):
    # In a process of its own: the browser of the other tests holds this one's event loop.
    program = "import pathlib, sys; from nodecore.pages.pdf import print_book; "
    program += "print_book(*map(pathlib.Path, sys.argv[1:]))"
    target = tmp_path / "book.pdf"
    subprocess.run([sys.executable, "-c", program, built_book / "html", target], check=True)
    pdf = target.read_bytes()
    assert len(re.findall(rb"/Type /Page\b", pdf)) > 3 * len(PRINTED)
    for name in PRINTED:  # the contents lead to each
        assert f"/{name} ".encode() in pdf
    assert not list((built_book / "html/book").glob("printed.html"))
