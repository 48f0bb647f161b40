"""Arrays -> matplotlib axes: one function per family of figures.

Every function draws on axes that it is given and never solves or trains. Classes and solvers are
told apart twice, by colour and by marker, and the colours differ in lightness, so that a figure
survives greyscale print and colour blindness.
"""

from nodecore.pages.plots.adaption import checks, moments, over_iterations, steps_at_checks
from nodecore.pages.plots.beside import numbers_beside, numbers_beside_handles
from nodecore.pages.plots.data import (
    basins,
    labelled_images,
    labelled_points,
    positions_over_time,
    potential_landscape,
    radii,
)
from nodecore.pages.plots.frontier import frontier, intervals, seed_gaps_of
from nodecore.pages.plots.grids import (
    accuracy_of_seeds,
    agreement,
    agreement_handles,
    as_trained_and_exact,
    bounds_over_steps,
    cross_solver,
    cross_solver_handles,
    seeds_over_steps,
    stacked_shares,
    train_test_map,
)
from nodecore.pages.plots.plane import (
    accuracy_by_steps,
    crossing_shares,
    deformed_mesh,
    field_lines,
    one_step,
    trajectories,
    trajectory_handles,
    zoom,
)
from nodecore.pages.plots.style import (
    CLASS_COLOURS,
    CROSSING_COLOUR,
    class_legend,
    solver_style,
    stamp_panel,
    stamp_profile,
    step_colours,
    threshold_line,
    use_style,
)
from nodecore.pages.plots.tolerances import (
    accuracy_by_tolerance,
    accuracy_over_time,
    gap_by_tolerance,
    nfe_by_tolerance,
    tolerance_handles,
    tolerance_over_iterations,
)

__all__ = [
    "CLASS_COLOURS",
    "CROSSING_COLOUR",
    "accuracy_by_steps",
    "accuracy_by_tolerance",
    "accuracy_of_seeds",
    "accuracy_over_time",
    "agreement",
    "agreement_handles",
    "as_trained_and_exact",
    "basins",
    "bounds_over_steps",
    "checks",
    "class_legend",
    "cross_solver",
    "cross_solver_handles",
    "crossing_shares",
    "deformed_mesh",
    "field_lines",
    "frontier",
    "gap_by_tolerance",
    "intervals",
    "labelled_images",
    "labelled_points",
    "moments",
    "nfe_by_tolerance",
    "numbers_beside",
    "numbers_beside_handles",
    "one_step",
    "over_iterations",
    "positions_over_time",
    "potential_landscape",
    "radii",
    "seed_gaps_of",
    "seeds_over_steps",
    "solver_style",
    "stacked_shares",
    "stamp_panel",
    "stamp_profile",
    "step_colours",
    "steps_at_checks",
    "threshold_line",
    "tolerance_handles",
    "tolerance_over_iterations",
    "train_test_map",
    "trajectories",
    "trajectory_handles",
    "use_style",
    "zoom",
]
