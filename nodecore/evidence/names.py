"""What text calls data sets, solvers and controllers."""

from __future__ import annotations

# --- accuracy under other solvers -----------------------------------------------------------------

NAMES = {
    "euler": "Euler",
    "fehlberg21": "Fehlberg 2(1)",
    "dopri5": "Dopri 5(4)",
    "landscape": "energy landscape",
    "spheres2": "spheres, 2-D",
    "spheres3": "spheres, 3-D",
    "spheres10": "spheres, 10-D",
    "spheres900": "spheres, 900-D",
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "algorithm1": "Algorithm 1",
    "confirmed-increase": "confirmed increase",
    "settling-gap": "settling by gap",
    "settling-discord": "settling by discord",
    "settling-closeness": "settling by closeness",
    "settling-bend": "settling by bend",
    "remembering-gap": "remembering gap",
    "remembering-discord": "remembering discord",
    "euclidean": "Euclidean norms",
    "hairer": "scaled norms",
}
CLASSES = {  # of the data sets in the plane, by label
    "spheres2": ["inner and outer shell", "middle shell"],
    "landscape": ["left minimum", "middle minimum", "right minimum"],
}
IMAGE_CLASSES = {
    "mnist": [str(digit) for digit in range(10)],
    "cifar10": ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
}


def name_of(name: str) -> str:
    """A data set, solver, controller or start as text calls it."""
    return NAMES.get(name, name)
