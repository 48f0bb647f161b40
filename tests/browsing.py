"""What tests in a real browser share."""

import re

from playwright.sync_api import Locator, Page

FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
LOCAL = ("file:", "data:", "blob:")
PHONE = {"viewport": {"width": 390, "height": 800}, "has_touch": True, "is_mobile": True}
# Before an explorer: while `hold` is true, answers of workers wait in `late` for release().
HELD_WORKERS = """<script>
    var hold = false;
    var late = [];
    var release = () => {
        hold = false;
        for (const answer of late.splice(0)) answer();
    };
    window.Worker = class extends Worker {
        set onmessage(listener) {
            super.onmessage = (event) => {
                if (hold) late.push(() => listener(event));
                else listener(event);
            };
        }
    };
</script>"""


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


def plain(text: str | None) -> str:
    """A text that is shown with the spaces that Python's descriptions have."""
    return (text or "").replace("\u00a0", " ")


class ExplorerReader:
    """What a reader does with one explorer of a page, and sees there."""

    def __init__(self, page: Page, number: int = 0):
        self.page, self.root = page, page.locator(".nodecore-explorer").nth(number)

    def choose(self, label: str, text: str) -> None:
        self.root.get_by_label(label, exact=True).select_option(label=text)

    def number(self, name: str) -> float:
        text = self.root.locator(f"[data-number={name}]").text_content()
        return float(re.sub(r"[,\s%]", "", text))

    def next_frame(self) -> None:
        """Wait until what was asked for before has been drawn."""
        self.page.evaluate("() => new Promise(r => requestAnimationFrame(() => setTimeout(r)))")

    def settle(self) -> None:
        """Wait until what is shown is computed for what is asked."""
        self.next_frame()
        self.root.locator("dl[aria-busy=true]").first.wait_for(state="detached")

    def drag_by_finger(self, slider: Locator, *shares: float) -> list[str]:
        """Take the thumb to shares of its way; what it says at each, and once it is let go."""
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        assert box is not None, "it is visible"
        grip = slider.evaluate("s => Number(s.value)")
        screen = self.page.context.new_cdp_session(self.page)
        said = []
        for kind, at in (("Start", [grip]), *(("Move", [s]) for s in shares), ("End", [])):
            y = box["y"] + box["height"] / 2
            points = [{"x": box["x"] + 8 + share * (box["width"] - 16), "y": y} for share in at]
            screen.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
            self.next_frame()
            said.append(slider.get_attribute("aria-valuetext") or "")
        return said[1:]

    def watch(self, *names: str) -> None:
        """Keep all the texts that these numbers have from now on, for `watched`."""
        chosen = ", ".join(f"[data-number={name}]" for name in names)
        self.root.locator("section").evaluate(
            """(section, chosen) => {
                window.watched = new Set();
                new MutationObserver(() => {
                    const numbers = [...section.querySelectorAll(chosen)];
                    watched.add(numbers.map((number) => number.textContent).join(" | "));
                }).observe(section, { subtree: true, childList: true });
            }""",
            chosen,
        )

    def watched(self) -> list[str]:
        return self.page.evaluate("[...watched]")
