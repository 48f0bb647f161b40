"""What all tests share: one thread, the same random examples each time, a store of their own."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from browsing import FLAGS, as_html, listen
from filelock import FileLock
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from nodecore.data import images
from nodecore.data.datasets import _all_images, load
from nodecore.data.files import PROJECT
from nodecore.pages.build import build_book
from nodecore.pages.pdf import find_browser

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# A background job of a shell is deaf to Ctrl-C, and so would be the programs that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

BROWSER = find_browser()
EXPLORER_PAGE = (
    "<!doctype html><html data-theme='light'><meta charset='utf-8'>"
    "<meta name='viewport' content='width=device-width'><body>{}"
)
NO_BROWSER = "no browser found, the built pages are NOT checked: apt-get install chromium"


@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and tests share the machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def scratch_results(tmp_path_factory):
    """Nothing that a test trains reaches the project's own results."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("results")
        patch.setenv("NODECORE_RESULTS", str(root))
        yield root


@pytest.fixture
def few_images(monkeypatch) -> Path:
    """A few real images of each set stand for all of it; returns where they lie."""
    root = Path(__file__).parent / "data" / "images"
    monkeypatch.setenv("NODECORE_DATA", str(root))
    for table, folder in (("MNIST_MD5", images.MNIST), ("CIFAR10_MD5", images.CIFAR10)):
        found = {name: images._md5(root / folder / name) for name in getattr(images, table)}
        monkeypatch.setattr(images, table, found)
    caches = load, _all_images
    for cache in caches:
        cache.cache_clear()
    yield root
    for cache in caches:
        cache.cache_clear()


@pytest.fixture(scope="session")
def built_book(testrun_uid: str) -> Path:
    """The book with every chapter executed at the smoke profile; returns its `_build` folder.

    It lies in `_build/test`, beside the `results` that it trained, and stays there to be looked at.
    Of several processes that run the tests, one builds it for all.
    """
    folder = PROJECT / "_build" / "test"
    built_in = folder / "tests.txt"  # which run of the tests built it
    folder.parent.mkdir(exist_ok=True)
    with FileLock(folder.with_suffix(".lock")), pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODECORE_RESULTS", str(folder / "results"))
        if not built_in.exists() or built_in.read_text() != testrun_uid:
            shutil.rmtree(folder, ignore_errors=True)
            build_book(output=folder, parameters={"profile": "smoke", "device": "cpu"})
            built_in.write_text(testrun_uid)
    return folder / "_build"


@pytest.fixture(scope="session")
def browser_path() -> str:
    """Where Chromium is; without one the test is skipped, in CI it fails."""
    if BROWSER is None and os.environ.get("CI"):
        pytest.fail(NO_BROWSER)
    if BROWSER is None:
        pytest.skip(NO_BROWSER)
    return BROWSER


@pytest.fixture(scope="session")
def browser(browser_path: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit_explorers(browser: Browser, tmp_path: Path) -> Iterator:
    """Open a page of explorers (or their HTML) from the disk; what goes wrong in `.complaints`."""
    contexts = []

    def open_page(*shown, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.complaints = listen(page)
        file = tmp_path / f"{len(contexts)}.html"
        file.write_text(EXPLORER_PAGE.format("\n".join(map(as_html, shown))))
        page.goto(file.as_uri())
        page.wait_for_function("!document.querySelector('.nodecore-explorer:not([data-ready])')")
        return page

    yield open_page
    for context in contexts:
        context.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say a missing browser loudly, right above the closing line."""
    if BROWSER is None:
        terminalreporter.section("WARNING", sep="!", red=True, bold=True)
        terminalreporter.line(NO_BROWSER, red=True, bold=True)
