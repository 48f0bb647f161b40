"""What Python and the explorers' JavaScript both need, written once and put into each bundle."""

import json

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import to_hex

from nodecore.analysis.evaluate import EXACT
from nodecore.ode import adaptive
from nodecore.ode.tableaus import get_tableau
from nodecore.pages import plots
from nodecore.pages.explorers.packing import pack_tableau
from nodecore.pages.plots.grids import MAP_COLOURS, MAP_DARK, MAP_LOWEST
from nodecore.pages.plots.style import CLASS_MARKERS

# A step of a solver of order 2 or more is a curve. It is drawn as 1 to MOST_CHORDS straight pieces,
# as many as keep the trajectory within CHORDS of them.
CHORDS, MOST_CHORDS = 64, 8
MARKED_STEPS = 16  # up to so many steps, each state gets a dot
SAME_STEP = 1e-5  # relative difference of two steps that rounding explains

CONSTANTS = {
    "CLASS_COLOURS": plots.CLASS_COLOURS,
    "CLASS_MARKERS": CLASS_MARKERS,
    "CROSSING_COLOUR": plots.CROSSING_COLOUR,
    "MAP_SHADES": [to_hex(colour) for colour in plt.get_cmap(MAP_COLOURS)(np.linspace(0, 1, 5))],
    "MAP_LOWEST": MAP_LOWEST,
    "MAP_DARK": MAP_DARK,
    "SAFETY": adaptive.SAFETY,
    "MIN_FACTOR": adaptive.MIN_FACTOR,
    "MAX_FACTOR": adaptive.MAX_FACTOR,
    "MAX_TRIED": adaptive.MAX_STEPS,
    "EXACT_SOLVER": EXACT.solver,
    "EXACT_RTOL": EXACT.rtol,
    "EULER": pack_tableau(get_tableau("euler")),
    "CHORDS": CHORDS,
    "MOST_CHORDS": MOST_CHORDS,
    "MARKED_STEPS": MARKED_STEPS,
    "SAME_STEP": SAME_STEP,
}


def constants_module() -> str:
    """`js/constants.js`, which is nowhere on the disk; its types are in `js/constants.d.ts`."""
    lines = (f"export const {name} = {json.dumps(value)};" for name, value in CONSTANTS.items())
    return "\n".join(lines) + "\n"
