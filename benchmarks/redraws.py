"""`python -m benchmarks.redraws`: how long the explorers of the built book redraw under a drag."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from playwright.sync_api import Locator, Page, sync_playwright

from nodecore.data.files import PROJECT
from nodecore.pages.pdf import find_browser

MOVES = 120  # of the mouse, forth and back
CONTROLS = ".nodecore-explorer :is(input[type=range], [role=grid]):visible"
FRAME = 33  # milliseconds that a redraw may take
# What a page does within its frames, in milliseconds; `nextFrame` itself is not counted.
WATCH = """
    window.nextFrame = requestAnimationFrame.bind(window);
    window.redraws = [];
    window.requestAnimationFrame = (run) => window.nextFrame((now) => {
        const begun = performance.now();
        run(now);
        window.redraws.push(performance.now() - begun);
    });
"""


def main(
    html: Annotated[Path, typer.Option(help="The folder of the pages.")] = PROJECT / "_build/html",
) -> None:
    """Drag over every slider and map of every explorer; print median and 95th percentile in ms."""
    print("| page | control | median, ms | 95 %, ms | redraws |\n| :-- | :-- | --: | --: | --: |")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=["--no-sandbox"])
        for file in sorted((html / "book").glob("*.html")):
            if 'class="nodecore-explorer"' not in file.read_text():
                continue
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            page.add_init_script(WATCH)
            page.goto(file.as_uri())
            page.wait_for_function(
                "!document.querySelector('.nodecore-explorer:not([data-ready])')"
            )
            for control in page.locator(CONTROLS).all():
                label = control.get_attribute("aria-label")
                times = drag(page, control)
                middle, most = np.percentile(times, [50, 95])
                late = " (late)" if most > FRAME else ""
                print(f"| {file.stem} | {label} | {middle:.1f} | {most:.1f}{late} | {len(times)} |")
            page.close()
        browser.close()


def drag(page: Page, control: Locator) -> list[float]:
    """Move over the control from its lower left to its upper right and back, a move in each frame;
    the milliseconds of each redraw."""
    control.scroll_into_view_if_needed()
    page.wait_for_timeout(500)
    box = control.bounding_box()
    assert box is not None, "it is visible"
    # The middle of a thumb at either end is 8 pixels inside.
    x, y, width, height = box["x"] + 8, box["y"] + 8, box["width"] - 16, box["height"] - 16
    page.mouse.move(x, y + height)
    page.mouse.down()
    page.evaluate("redraws.length = 0")
    for share in 1 - np.abs(np.linspace(-1, 1, MOVES)):
        page.mouse.move(x + share * width, y + (1 - share) * height)
        page.evaluate("() => new Promise((done) => nextFrame(() => nextFrame(done)))")
    times = page.evaluate("redraws.slice()")
    page.mouse.up()
    return times


if __name__ == "__main__":
    typer.run(main)
