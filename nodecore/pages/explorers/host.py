"""Where an explorer lives: a widget in JupyterLab, HTML that needs nothing in a page, a picture."""

import base64
import json
from html import escape
from io import BytesIO

import anywidget
import ipywidgets
import matplotlib.pyplot as plt
import traitlets
from matplotlib.figure import Figure

from nodecore.pages.explorers.bundle import bundle

LAB_ONLY = {"_anywidget_id", "_esm", *ipywidgets.DOMWidget.class_traits(sync=True)}


def check_choice(name: str, value, choices) -> None:
    """TraitError that lists the choices unless value is one of them."""
    if value not in choices:
        known = ", ".join(map(str, choices))
        raise traitlets.TraitError(f"{name} = {value!r}: choose one of {known}")


class Explorer(anywidget.AnyWidget):
    """Base of the explorers. A subclass has its module as `_esm`, traits, and draws a picture."""

    def __repr__(self):
        return f"{type(self).__name__}({self.describe()})"

    def describe(self) -> str:
        """The present state in a sentence: the alternative text of the picture."""
        raise NotImplementedError

    def draw(self) -> Figure:
        """The present state as a figure."""
        raise NotImplementedError

    def state(self) -> dict:
        """The traits that the explorer itself has, as JSON can hold them."""
        return {name: getattr(self, name) for name in self.keys if name not in LAB_ONLY}

    def _repr_mimebundle_(self, **options):
        data, metadata = super()._repr_mimebundle_(**options)
        picture = self._picture()
        data["image/png"] = picture
        data["text/html"] = self._page(picture)
        return data, metadata

    def _picture(self):
        """A PNG in base64."""
        figure, file = self.draw(), BytesIO()
        figure.savefig(file, format="png", dpi=100)
        plt.close(figure)
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
