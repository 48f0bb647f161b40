"""Names of data sets, solvers, controllers, starts and trainings as text and figures print them."""

from nodecore.data.datasets import DATASETS
from nodecore.evidence.runs import Run
from nodecore.ode.tableaus import TABLEAUS
from nodecore.training.adapted import Adapted
from nodecore.training.changes import Changes
from nodecore.training.cures import ChosenSteps, DrawnSteps

OF_CONTROLLERS = {  # where it is more than the name without hyphens
    "algorithm1": "Algorithm 1",
    "pi": "PI control by half the step",
    "pi-finer": "PI control by midpoint",
    "settling-gap": "settling by gap",
    "settling-discord": "settling by discord",
    "settling-closeness": "settling by closeness",
    "settling-bend": "settling by bend",
}
OF_CHANGES = {  # of a protocol
    "activation": "{}",
    "gradient": "gradients by the {}",
    "initialisation": "{}'s initialisation",
    "learning_rate": "learning rate {:g}",
    "optimiser": "{}",
    "pieces": "{} layers",
    "width": "width {}",
}
OF_STARTS = {"euclidean": "Euclidean norms", "hairer": "scaled norms"}


def name_of(name: str) -> str:
    """Return a data set, solver, controller or start as text calls it; any other name as it is."""
    if name in DATASETS or name in TABLEAUS:
        return (DATASETS.get(name) or TABLEAUS[name]).label
    return (OF_CONTROLLERS | OF_STARTS).get(name, name.replace("-", " "))


def describe_changes(changes: Changes) -> str:
    """Return changes of a protocol as text and figures print them, such as "width 16"."""
    return ", ".join(OF_CHANGES[name].format(value) for name, value in changes)


def describe_run(run: Run) -> str:
    """Return what a training does, as text and figures print it; Euler's method goes unsaid, and
    beside changes of the protocol the number of steps, too."""
    if isinstance(run.steps, Adapted):
        drawn = [c.describe_around() for c in run.cures if isinstance(c, DrawnSteps)]
        return ", ".join([name_of(str(run.steps.controller)), *drawn])
    if run.changes:
        return describe_changes(run.changes)
    n_steps, solver = run.steps.n_steps or 0, run.steps.solver
    said = [cure.describe(n_steps) for cure in run.cures]
    if not any(isinstance(cure, ChosenSteps) for cure in run.cures):
        said = [f"K = {n_steps}", *said]
    return ", ".join(said if solver == "euler" else [name_of(solver), *said])
