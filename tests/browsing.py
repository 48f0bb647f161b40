"""What tests in a real browser share."""

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
