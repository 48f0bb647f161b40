"""The catalogue of studies: which runs each of them has."""

import re
from collections.abc import Sequence
from dataclasses import replace

from nodecore.data.datasets import IMAGES
from nodecore.evidence.runs import SEEDS, Run
from nodecore.ode.checks import check_choice
from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.training.adapted import FIRST_RTOL, STARTS, USUAL_START, Adapted
from nodecore.training.changes import get_changes
from nodecore.training.controllers import ALL_CONTROLLERS, RETIRED, controller_name
from nodecore.training.cures import get_cures
from nodecore.training.protocols import check_profile

TOLERANCES = (1e1, 1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
FIRST_RTOLS = (1e-2, FIRST_RTOL)  # adapted tolerances begin coarse, or at the finest one


def _powers(last: int) -> tuple[int, ...]:
    return tuple(2**i for i in range(last.bit_length()))


GRIDS = {  # training n_steps of the fixed-step studies
    "spheres2-euler": _powers(256),
    "spheres2-rk4": _powers(128),
    "spheres3-euler": _powers(256),
    "spheres3-rk4": _powers(32),
    "spheres10-euler": _powers(128),
    "spheres10-rk4": _powers(32),
    "spheres900-euler": _powers(64),
    "spheres900-rk4": _powers(8),
    "landscape-euler": _powers(256),
    "landscape-rk4": _powers(64),
}
IMAGE_GRIDS = {
    "mnist-euler": {"paper": _powers(64), "laptop": _powers(16)},
    "mnist-rk4": {"paper": _powers(16), "laptop": _powers(4)},
    "cifar10-euler": {"paper": _powers(64), "laptop": _powers(16)},
    "cifar10-rk4": {"paper": _powers(16), "laptop": _powers(4)},
}
IMAGE_SEEDS = {"paper": SEEDS, "laptop": (0, 1, 2), "smoke": (0, 1)}
# Where all seeds together would train for a day, each of them is a run.
ALONE = {("mnist", "paper"), ("cifar10", "paper"), ("spheres900", "paper")}
# Of images nobody waits for more steps than these at the paper's scale: they train for hours.
AWAITED_STEPS = {"euler": 16, "rk4": 4}


def together(dataset: str, profile: str, seeds: Sequence[int]) -> list[tuple[int, ...]]:
    """Group the seeds by run: all share one or, where that is too long, each has its own."""
    return [(seed,) for seed in seeds] if (dataset, profile) in ALONE else [tuple(seeds)]


def grid_runs(
    dataset: str, solver: str, n_steps: Sequence[int], seeds: Sequence[int], profile: str
) -> list[Run]:
    """The runs of a fixed-step study with these n_steps, up to the end of its grid; at profile
    smoke, three of them. ValueError where none is left.

    Where a run holds a single seed (see together), there is one for each of the seeds.
    """
    last = GRIDS[f"{dataset}-{solver}"][-1]
    grid = [k for k in n_steps if k <= last]
    if not grid:
        raise ValueError(
            f"n_steps = {list(n_steps)}: the grid of {dataset}-{solver} ends at {last}; give some "
            "that are no greater"
        )
    grid = grid[:7:3] if profile == "smoke" else grid
    return [
        Run(dataset, FixedSteps(solver, k), seeds=group, profile=profile)
        for k in grid
        for group in together(dataset, profile, seeds)
    ]


def tolerance_runs(
    dataset: str,
    solvers: Sequence[str],
    rtols: Sequence[float],
    seeds: Sequence[int] = SEEDS,
    profile: str = "paper",
) -> list[Run]:
    """The runs of the studies of tolerances with these methods and training tolerances."""
    every = [Tolerance(solver, rtol) for solver in solvers for rtol in rtols]
    return [Run(dataset, steps, seeds=tuple(seeds), profile=profile) for steps in every]


def turn(run: Run) -> int:
    """Rank a run in the order of training.

    0: a study waits for it; 1: more seeds; 2: steps that are finer than need be.
    """
    awaited = AWAITED_STEPS.get(run.steps.solver) if run.dataset in IMAGES else None
    if run.profile == "paper" and awaited and (run.steps.n_steps or 0) > awaited:
        return 2
    return 0 if run.seeds[0] == SEEDS[0] else 1


# "auto" asks for six checks before it lengthens a step: too many where all of them are thirty.
IMAGE_CONTROLLERS = ("algorithm1", "settling-discord")
# Algorithm 1 begins in the other ways, too.
OTHER_STARTS = tuple(Adapted("euler", "algorithm1", s) for s in STARTS if s != USUAL_START)


def image_runs(study: str, profile: str = "laptop") -> tuple[Run, ...]:
    """The runs of a study of images at a profile, such as those of mnist-euler or mnist-adaption.

    ValueError for an unknown profile.
    """
    seeds = IMAGE_SEEDS[check_profile(profile)]
    dataset, solver = study.split("-")
    if solver == "adaption":
        trainings = [*(Adapted("euler", name) for name in IMAGE_CONTROLLERS), *OTHER_STARTS]
    else:
        trainings = [FixedSteps(solver, k) for k in IMAGE_GRIDS[study].get(profile, (1, 2))]
    groups = together(dataset, profile, seeds)
    return tuple(
        Run(dataset, steps, seeds=group, profile=profile) for steps in trainings for group in groups
    )


def calmer_controller(dataset: str) -> str:
    """The name of the controller that stands beside Algorithm 1 on a data set."""
    return IMAGE_CONTROLLERS[-1] if dataset in IMAGES else controller_name("auto")


IMAGE_STUDIES = (*IMAGE_GRIDS, *(f"{dataset}-adaption" for dataset in IMAGES))

IMAGE_PROFILES = ("paper", "laptop")  # that evidence is of
SMALLER = {  # the same of spheres, which have less of a grid there, and a single seed
    "spheres900-euler": (1, 4, 16),
    "spheres900-rk4": (1,),
}
# Where five seeds leave it open which step is critical: more of them, from where it may lie on.
MORE_GRID_SEEDS = tuple(range(5, 20))
MORE_GRIDS = {
    "spheres2-euler": _powers(256)[3:],
    "spheres2-rk4": _powers(32),
    "landscape-euler": _powers(256)[3:],
    "landscape-rk4": _powers(32),
}


def _grid_study(name, grid):
    dataset, solver = name.split("-")
    every = [(k, group, "paper") for k in grid for group in together(dataset, "paper", SEEDS)]
    every += [(k, MORE_GRID_SEEDS, "paper") for k in MORE_GRIDS.get(name, ())]
    every += [(k, (0,), "laptop") for k in SMALLER.get(name, ())]
    return tuple(Run(dataset, FixedSteps(solver, k), seeds, p) for k, seeds, p in every)


# Step adaption: every controller, Algorithm 1 from either start, and more seeds where the paper's
# are few to see the spread.
MORE_SEEDS = {"landscape": tuple(range(5, 15))}
SEEN_MORE = ("algorithm1", "confirmed-increase", "auto")


# A controller chooses the K around which steps are drawn. Its constants were guessed, not searched
# for. "pi-finer" came after "pi" had been judged on the finalists' fresh seeds, and is judged on
# those of the grid.
FRESH = tuple(range(20, 35))
STEERED = {"pi": FRESH, "pi-finer": MORE_GRID_SEEDS}


def _adaption_study(dataset):
    few = [Run(dataset, Adapted("euler", name)) for name in ALL_CONTROLLERS if name not in STEERED]
    few += [Run(dataset, steps) for steps in OTHER_STARTS]
    more = MORE_SEEDS.get(dataset)
    return (*few, *(Run(dataset, Adapted("euler", n), seeds=more) for n in SEEN_MORE if more))


GROWING_T = (1, 2, 4, 8, 16)
GROWING_T_STEP = 1 / 8  # far too long for a training at T = 1


def growing_runs(dataset: str, profile: str = "paper", seeds: tuple = SEEDS) -> tuple[Run, ...]:
    """Euler at one step size over longer and longer times; T = 1 is a run of `<dataset>-euler`."""
    steps = [(float(T), round(T / GROWING_T_STEP)) for T in GROWING_T]
    return tuple(
        Run(dataset, FixedSteps("euler", k), seeds=seeds, profile=profile, T=T) for T, k in steps
    )


# An error norm for each sample: around the tolerances that are critical under one for the batch.
PER_SAMPLE = {"fehlberg21": (1e-2, 1e-3, 1e-4), "dopri5": (1e-1, 1e-2, 1e-3)}


def per_sample_runs(dataset: str, profile: str = "laptop", seeds: tuple = SEEDS) -> tuple[Run, ...]:
    """Trainings with one norm for the batch, and the same with one for each sample. At a reduced
    scale: a batch whose samples have steps of their own takes as many as its hardest sample."""
    how = {"seeds": seeds, "profile": profile}
    norms = [
        Tolerance(solver, rtol, per_sample)
        for per_sample in (False, True)
        for solver, rtols in PER_SAMPLE.items()
        for rtol in rtols
    ]
    return tuple(Run(dataset, steps, **how) for steps in norms)


# Trainings with cures, named as their runs without the seeds, most of at most 24 evaluations an
# iteration. Finalists were chosen on the first seeds, and are judged on FRESH ones that had no part
# in any choice. Plain steps of rk4 at the same cost are, too; those of Euler's method have as many
# seeds in the grid that nothing was chosen on.
CURES = (
    *("euler-K16-loguniform-4", "euler-K16-squared-0.1-coarser", "rk4-K5-uniform-2"),
    *("euler-K8-squared-0.1-midpoint", "rk4-K4-squared-0.1-coarser", "euler-K16-uniform-2"),
    *("euler-K10-loguniform-4,squared-0.1-coarser", "euler-K16-solver-midpoint"),
    *("euler-K24-end-0.5", "euler-K64-refined-2", "euler-K24-decay-0.1"),
    *("euler-K16-squared-1-coarser", "euler-K8-kl-1-midpoint", "euler-K8-loguniform-4"),
    *("euler-K16-squared-0.1-midpoint", "euler-K23-local-0.01", "euler-K23-local-0.1"),
    *("euler-K24-bound-1", "euler-K24-bound-4", "euler-K24-stable"),
)
SAME_COST = ("euler-K24", "rk4-K6")
IN_THE_GRID = ("euler-K32", "euler-K128")
# Chosen in the plane, and tried on the spheres in ten dimensions, where nothing was chosen.
CARRIED_OVER = ("rk4-K5-uniform-2", "rk4-K4-squared-0.1-coarser", "rk4-K6")
CARRIED_OVER += ("euler-K16-solver-midpoint",)
FINALISTS: dict[str, tuple[str, ...]] = {
    "landscape": ("euler-K10-loguniform-4,squared-0.1-coarser", "euler-K16-solver-midpoint"),
    "spheres2": ("rk4-K4-squared-0.1-coarser", "rk4-K5-uniform-2"),
}


def cure_run(
    dataset: str, training: str, seeds: Sequence[int] = SEEDS, profile: str = "paper"
) -> Run:
    """The run of a training such as "rk4-K6" or "euler-K16-loguniform-4". Raises ValueError."""
    named = re.fullmatch(r"(\w+)-K(\d+)(?:-(.+))?", training)
    if named is None:
        raise ValueError(f"training = {training!r}: give one such as {CURES[0]}")
    solver, n_steps, cures = named.groups()
    steps = FixedSteps(solver, int(n_steps))
    return Run(dataset, steps, tuple(seeds), profile, cures=get_cures(cures or ""))


def steered_run(
    dataset: str, controller: str, seeds: Sequence[int] = SEEDS, profile: str = "paper"
) -> Run:
    """The run of a training whose K a controller chooses, with steps drawn around it."""
    steps, cures = Adapted("euler", controller), get_cures("loguniform-4")
    return Run(dataset, steps, tuple(seeds), profile, cures=cures)


def _cure_study(dataset):
    """Those without cures lie beside the grids of their solvers. They are no part of these, whose
    seeds are joined."""
    return (
        *(steered_run(dataset, c, seeds) for c in STEERED for seeds in (SEEDS, STEERED[c])),
        *(cure_run(dataset, training) for training in (*CURES, *SAME_COST)),
        *(cure_run(dataset, training, FRESH) for training in (*FINALISTS[dataset], SAME_COST[-1])),
    )


# Is it the field or the optimiser? Trainings of Euler's method with a coarse step and with the
# critical one, in which one thing is another: about a third or three times the learning rate, and
# so on; with "pieces" a residual network, whose layers have weights of their own.
ABLATED_STEPS = {"landscape": (8, 32), "spheres2": (8, 64)}
ABLATIONS: dict[str, tuple[str, ...]] = {
    dataset: (
        *("width-16", "width-128", "initialisation-torch"),
        *(f"learning_rate-{rate:g}" for rate in rates),
        f"learning_rate-{sgd:g},optimiser-sgd",
        *("activation-tanh", "activation-softplus", "gradient-adjoint"),
    )
    for dataset, rates, sgd in (
        ("landscape", (1.7e-4, 1.5e-3), 0.03),
        ("spheres2", (3.3e-5, 3e-4), 0.01),
    )
}
DEPTHS = (4, 8, 16, 32)


def ablation_run(
    dataset: str,
    n_steps: int,
    changes: str,
    seeds: Sequence[int] = SEEDS,
    profile: str = "paper",
) -> Run:
    """The run of a training with these changes of the protocol, such as "width-16"."""
    changed = get_changes(changes, dataset)
    return Run(dataset, FixedSteps("euler", n_steps), tuple(seeds), profile, changes=changed)


def residual_run(
    dataset: str, depth: int, seeds: Sequence[int] = SEEDS, profile: str = "paper"
) -> Run:
    """The run of a residual network of so many layers, each with weights of its own."""
    return ablation_run(dataset, depth, f"pieces-{depth}", seeds, profile)


def _ablation_study(dataset):
    return (
        *(ablation_run(dataset, k, c) for c in ABLATIONS[dataset] for k in ABLATED_STEPS[dataset]),
        *(residual_run(dataset, depth) for depth in DEPTHS),
    )


STUDIES = {
    "spheres2-growing-T": growing_runs("spheres2"),
    "spheres2-per-sample": per_sample_runs("spheres2"),
    **{name: _grid_study(name, grid) for name, grid in GRIDS.items()},
    **{
        f"{dataset}-{solver}": tuple(tolerance_runs(dataset, [solver], TOLERANCES))
        for dataset in ("spheres2", "landscape")
        for solver in ("fehlberg21", "dopri5")
    },
    "spheres2-tolerance": tuple(
        Run("spheres2", Adapted(solver, name, first_rtol=first))
        for first in FIRST_RTOLS
        for solver in ("fehlberg21", "dopri5")
        for name in ("algorithm1", "settling-discord", "remembering-discord")
    ),
    **{f"{dataset}-adaption": _adaption_study(dataset) for dataset in ("spheres2", "landscape")},
    **{f"{dataset}-cures": _cure_study(dataset) for dataset in FINALISTS},
    "spheres10-cures": tuple(cure_run("spheres10", training) for training in CARRIED_OVER),
    **{f"{dataset}-ablations": _ablation_study(dataset) for dataset in ABLATIONS},
    **{
        name: tuple(r for p in IMAGE_PROFILES for r in image_runs(name, p))
        for name in IMAGE_STUDIES
    },
}


def is_retired(run: Run) -> bool:
    """Tell whether the stored records of a run are all that there will be."""
    return isinstance(run.steps, Adapted) and run.steps.controller in RETIRED


def get_study(name: str, profile: str | None = None) -> tuple[Run, ...]:
    """Return the runs of a study: each at its own profiles, or all at `profile`.

    Studies of images define a grid and seeds for each profile. At a profile that another study does
    not define, it has the runs of its first seeds, without retired controllers. ValueError lists
    the known names.
    """
    check_choice("study", name, STUDIES)
    if profile is None:
        return STUDIES[name]
    if name in IMAGE_STUDIES:
        return image_runs(name, profile)
    own = tuple(run for run in STUDIES[name] if run.profile == profile)
    smallest = STUDIES[name][-1].profile
    fewest = (r for r in STUDIES[name] if r.profile == smallest and not (turn(r) or is_retired(r)))
    return own or tuple(replace(run, profile=check_profile(profile)) for run in fewest)
