"""Numbers that the paper prints, to be set beside ours: arXiv 2007.15386 v1, Table 1."""

import math

PAPER = {
    "title": "When are Neural ODE Solutions Proper ODEs?",
    "authors": "Katharina Ott, Prateek Katiyar, Philipp Hennig, Michael Tiemann",
    "url": "https://arxiv.org/abs/2007.15386",
}

# By data set: NFE around the critical step and best ODE-like accuracy of the grid search; NFE per
# iteration and accuracy of Algorithm 1. Accuracies are mean and standard deviation over seeds.
TABLE1 = {
    "spheres2": {
        "grid NFE": (65, 129),
        "grid accuracy": (0.992, 0.008),
        "adaption NFE": 100.5,
        "adaption accuracy": (0.989, 0.006),
    },
    "landscape": {
        "grid NFE": (33, 65),
        "grid accuracy": (0.790, 0.026),
        "adaption NFE": 43.3,
        "adaption accuracy": (0.765, 0.016),
    },
    "mnist": {
        "grid NFE": (9, 16),
        "grid accuracy": (0.965, 0.002),
        "adaption NFE": 9.8,
        "adaption accuracy": (0.956, 0.005),
    },
    "cifar10": {
        "grid NFE": (17, 33),
        "grid accuracy": (0.547, 0.003),
        "adaption NFE": 21.9,
        "adaption accuracy": (0.550, 0.008),
    },
}


def percent(mean: float, std: float) -> str:
    """An accuracy as the paper prints it, such as 79.0 ± 2.6 %; a dash where there is none."""
    if math.isnan(mean):
        return "-"
    return f"{100 * mean:.1f} %" if math.isnan(std) else f"{100 * mean:.1f} ± {100 * std:.1f} %"


def scale_note(scale: str) -> str:
    """Return how a scale (see register.scale_of) differs from the paper's, "" where it does not."""
    return "" if scale == "paper scale, 5 seeds" else scale.removeprefix("paper scale, ")
