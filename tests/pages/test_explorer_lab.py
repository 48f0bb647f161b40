"""An explorer in a real JupyterLab: the widget and Python hold the same state."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import nbformat
import pytest
from browsing import LOCAL, listen
from playwright.sync_api import TimeoutError

from nodecore.data.files import PROJECT

CELLS = {
    "show": """
        import torch
        from torch import nn
        from nodecore.pages.explorers import TrajectoryExplorer
        torch.manual_seed(0)
        x = 2 * torch.rand(200, 2) - 1
        field = nn.Sequential(nn.Linear(2, 9), nn.Tanh(), nn.Linear(9, 2))
        explorer = TrajectoryExplorer(field, nn.Linear(2, 2), x, (x[:, 0] > 0).long(), n_steps=8)
        explorer""",
    "set": "explorer.n_steps = 3; print('set', explorer.n_steps)",
    "read": "print('read', explorer.n_steps, explorer.accuracy, explorer.crossings.n_between)",
    "damage": """
        whole = explorer.data
        explorer.data = {**whole, "models": [{**whole["models"][0], "weights": "AAAA"}]}
        print('damage')""",
    "mend": "explorer.data = whole; print('mend')",
}


@pytest.fixture
def lab(tmp_path, browser_path):
    """A JupyterLab of its own with a notebook of CELLS; the notebook's address."""
    cells = [nbformat.v4.new_code_cell(re.sub(r"\n {8}", "\n", c).strip()) for c in CELLS.values()]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "explorer.ipynb")
    folders = {f"JUPYTER_{kind}_DIR": str(tmp_path / kind) for kind in ("CONFIG", "RUNTIME")}
    command = [str(Path(sys.executable).with_name("jupyter-lab")), "--no-browser", "--allow-root"]
    command += ["--ServerApp.port=0", "--ip=127.0.0.1"]  # any free port
    command += ["--IdentityProvider.token=", f"--ServerApp.root_dir={tmp_path}"]
    command += ["--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    environment = {**os.environ, **folders, "PYTHONPATH": str(PROJECT)}
    with open(tmp_path / "lab.log", "w") as log:  # the server has a handle of its own
        server = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        port = wait_for_port(server, tmp_path)
        yield f"http://127.0.0.1:{port}/doc/tree/explorer.ipynb"
    finally:
        server.send_signal(signal.SIGINT)  # twice: no question asked
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=20)


def wait_for_port(server, folder, seconds=90):
    """The port that the server has chosen and listens on."""
    chosen = folder / "RUNTIME" / f"jpserver-{server.pid}.json"
    end = time.monotonic() + seconds
    while time.monotonic() < end and server.poll() is None:
        with suppress(OSError, ValueError):  # not there yet, or not yet whole
            port = json.loads(chosen.read_text())["port"]
            socket.create_connection(("127.0.0.1", port)).close()
            return port
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{(folder / 'lab.log').read_text()}")


def test_the_widget_and_python_hold_the_same_state(lab, browser):
    with browser.new_context(viewport={"width": 1100, "height": 1400}) as context:
        page = context.new_page()
        page.set_default_timeout(60_000)
        address = lab.split("/doc")[0]
        complaints = listen(page, (*LOCAL, address))
        page.goto(lab)
        page.locator(".jp-Cell").nth(len(CELLS) - 1).wait_for()
        page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]").wait_for()

        def run(name):
            page.locator(".jp-Cell .cm-content").nth(list(CELLS).index(name)).click()
            page.keyboard.press("Control+Enter")

        def printed(name):
            run(name)
            cell = page.locator(".jp-Cell").nth(list(CELLS).index(name))
            output = cell.locator(".jp-OutputArea-output")
            output.filter(has_text=re.compile(rf"^{name}")).wait_for()
            return output.text_content().split()[1:]

        def shown(name):
            page.locator("dl[aria-busy=false]").wait_for(state="attached")
            text = page.locator(f"[data-number={name}]").text_content()
            return float(re.sub(r"[,\s%]", "", text))

        # It renders.
        def rendered():
            """Run the cell; a lab on a busy machine may lose the first request."""
            run("show")
            try:
                page.locator("dl[aria-busy=false]").wait_for(state="attached", timeout=20_000)
            except TimeoutError:
                return False
            return True

        assert any(rendered() for _ in range(3))
        assert shown("n_steps") == 8
        slider = page.get_by_label("number of test steps K")

        # A trait set from Python moves the slider.
        assert printed("set") == ["3"]
        page.locator("[data-number=n_steps]", has_text="3").wait_for()
        assert slider.get_attribute("aria-valuetext") == "K = 3, h = 1/3"

        # Dragging changes the trait; arrow keys are the slider's, not the notebook's.
        slider.scroll_into_view_if_needed()
        box = slider.bounding_box()
        y = box["y"] + box["height"] / 2
        grip = slider.evaluate("s => Number(s.value)")
        page.mouse.move(box["x"] + 8 + grip * (box["width"] - 16), y)
        page.mouse.down()
        page.mouse.move(box["x"] + 0.55 * box["width"], y, steps=6)
        page.mouse.up()
        slider.press("ArrowRight")
        read = [float(text) for text in printed("read")]
        n_steps = shown("n_steps")
        assert 25 < n_steps < 40
        assert read[0] == n_steps
        assert round(100 * read[1], 1) == shown("accuracy")
        assert read[2] == shown("crossings")

        # Damaged state is named in the widget; whole again, it works again.
        printed("damage")
        page.locator(".failure").filter(has_text="numbers, not").wait_for()
        printed("mend")
        page.locator(".failure").wait_for(state="hidden")
        assert shown("n_steps") == n_steps
        assert not [text for text in complaints if text.startswith("asks the network")]
