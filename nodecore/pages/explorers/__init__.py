"""Interactive figures: on a built page without a kernel, in JupyterLab linked to Python.

Each is one ES module, put together from those in `js/`: `compute/` solves, `draw/` draws, `ui/`
holds the controls, and each explorer has a folder of its own. Everything shown is computed in the
browser from the trained weights. JupyterLab shows the module as a widget with two-way traits; a
built page holds it beside its state; where neither runs, a picture remains.
"""

from nodecore.pages.explorers.adaption import AdaptionExplorer
from nodecore.pages.explorers.grid import GridExplorer
from nodecore.pages.explorers.packing import Model
from nodecore.pages.explorers.pair import PairExplorer
from nodecore.pages.explorers.tolerance import ToleranceExplorer
from nodecore.pages.explorers.trajectory import TrajectoryExplorer

__all__ = [
    "AdaptionExplorer",
    "GridExplorer",
    "Model",
    "PairExplorer",
    "ToleranceExplorer",
    "TrajectoryExplorer",
]
