"""The forms of an explorer: a widget in JupyterLab, self-contained HTML in a page, a picture."""

import base64
import json
from collections.abc import Collection, Iterable, Sequence
from html import escape
from io import BytesIO
from math import isnan

import anywidget
import ipywidgets
import matplotlib.pyplot as plt
import traitlets
from matplotlib.figure import Figure
from PIL import Image

from nodecore.pages.explorers.bundle import bundle

LAB_ONLY = {"_anywidget_id", "_esm", *ipywidgets.DOMWidget.class_traits(sync=True)}


def check_choice(
    name: str, value: object, choices: Collection[object], known: str | None = None
) -> None:
    """Raise TraitError, which lists the choices or says `known`, unless value is one of them."""
    if value not in choices:
        known = known or ", ".join(map(str, choices))
        raise traitlets.TraitError(f"{name} = {value!r}: choose one of {known}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Raise TraitError unless low <= value <= high."""
    if not low <= value <= high:
        raise traitlets.TraitError(f"{name} = {value!r}: give {low:g} to {high:g}")


def check_evidence(evidence: Sequence) -> None:
    """Raise ValueError where there is no run to explore."""
    if not evidence:
        raise ValueError("evidence is empty: give at least one run")


def counted(n: int, unit: str) -> str:
    """A number of things, as `js/ui/dom.js` tells it: "1 step", "1,000 steps"."""
    return f"{n:,} {unit}{'' if n == 1 else 's'}"


def none_for_nan(values: Iterable[float]) -> list[float | None]:
    """Return the numbers with None for NaN, which JSON cannot hold."""
    return [None if isnan(value) else float(value) for value in values]


class Explorer(anywidget.AnyWidget):
    """Base of the explorers; a subclass names its module as `_esm`, has traits and draws itself."""

    _esm: str
    data = traitlets.Dict().tag(sync=True)  # what the browser computes with

    def __repr__(self):
        return f"{type(self).__name__}({self.describe()})"

    def describe(self) -> str:
        """The present state in a sentence: the alternative text of the picture."""
        raise NotImplementedError

    def draw(self) -> Figure:
        """The present state as a figure."""
        raise NotImplementedError

    def title(self) -> str:
        """The description above the picture, its parts on lines of their own."""
        return "\n".join(self.describe().split(": "))

    def state(self) -> dict:
        """The traits that the explorer itself has, as JSON can hold them."""
        return {name: getattr(self, name) for name in self.keys if name not in LAB_ONLY}

    def _repr_mimebundle_(self, **options):
        shown = super()._repr_mimebundle_(**options)
        if shown is None:  # a widget without a view
            return None
        data, metadata = shown
        picture = self._picture()
        data["image/png"] = picture
        data["text/html"] = self._page(picture)
        return data, metadata

    def _picture(self):
        """Return a PNG in base64, of few colours, which makes lines and dots a quarter as large."""
        figure, full, file = self.draw(), BytesIO(), BytesIO()
        figure.savefig(full, format="png", dpi=100)
        plt.close(figure)
        Image.open(full).convert("RGB").quantize(128).save(file, "PNG", optimize=True)
        return base64.b64encode(file.getvalue()).decode()

    def _page(self, picture):
        """HTML with everything inside: the picture, which gives way to the explorer as it starts.

        "<" is written so that nothing in the data can end the script around it.
        """
        content = json.dumps({"esm": self._esm, "state": self.state()}).replace("<", r"\u003c")
        return (
            f'<div class="nodecore-explorer">\n<img alt="{escape(self.describe())}" '
            f'src="data:image/png;base64,{picture}">\n'
            f'<script type="application/json">{content}</script>\n'
            f"<script>{bundle('page.js')}</script>\n</div>"
        )
