"""What tests in a real browser share."""

import re

from playwright.sync_api import Page

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
LOCAL = ("file:", "data:", "blob:")


def listen(page: Page, allowed: tuple[str, ...] = LOCAL) -> list[str]:
    """Whatever goes wrong on a page from now on: requests, scripts, console."""
    complaints: list[str] = []

    def on_request(request) -> None:
        if not request.url.startswith(allowed):
            complaints.append(f"asks the network for {request.url}")

    def on_console(message) -> None:
        if message.type == "error":
            complaints.append(f"console: {message.text}")

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
    page.on("requestfailed", lambda request: complaints.append(f"missing: {request.url}"))
    return complaints


def as_html(explorer) -> str:
    """What a page gets of an explorer."""
    return explorer if isinstance(explorer, str) else explorer._repr_mimebundle_()[0]["text/html"]


class ExplorerReader:
    """What a reader does with one explorer of a page, and sees there."""

    def __init__(self, page: Page, number: int = 0):
        self.page, self.root = page, page.locator(".nodecore-explorer").nth(number)

    def choose(self, label: str, text: str) -> None:
        self.root.get_by_label(label, exact=True).select_option(label=text)

    def number(self, name: str) -> float:
        text = self.root.locator(f"[data-number={name}]").text_content()
        return float(re.sub(r"[,\s%]", "", text))

    def settle(self) -> None:
        """Wait until what is shown is computed for what is asked."""
        self.page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")
        self.root.locator("dl:not([aria-busy=true])").wait_for()
