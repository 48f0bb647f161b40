"""Explorers: figures to take hold of, in the page without a kernel and in JupyterLab bound to it.

One ES module each (`js/`), which computes everything it shows from the trained weights. JupyterLab
shows it as a widget with two-way traits; a built page holds the same module beside its state; where
neither runs, a picture remains.
"""

from nodecore.pages.explorers.adaption import AdaptionExplorer
from nodecore.pages.explorers.grid import GridExplorer
from nodecore.pages.explorers.packing import Model
from nodecore.pages.explorers.tolerance import ToleranceExplorer
from nodecore.pages.explorers.trajectory import TrajectoryExplorer

__all__ = [
    "AdaptionExplorer",
    "GridExplorer",
    "Model",
    "ToleranceExplorer",
    "TrajectoryExplorer",
]
