"""Names of data sets, solvers, controllers and starts as text and figures print them."""

from nodecore.data.datasets import DATASETS
from nodecore.ode.tableaus import TABLEAUS
from nodecore.training.changes import Changes

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
