"""Begin with a field in whose mean linearisation the solver's steps are stable.

Westny, Mohammadi, Jung, Frisk 2024 (arXiv:2311.15890) linearise the network and place the
eigenvalues of the product of its layers; here it is the mean Jacobian over the training samples
that has the eigenvalues, and the last layer alone gives way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from nodecore.data.seeding import make_generator
from nodecore.ode.fields import Conv1dField, MLPField
from nodecore.ode.runge_kutta import rk_step
from nodecore.ode.tableaus import ButcherTableau

REAL, IMAGINARY = (-3.0, 0.5), (0.0, 3.0)  # a box around the regions of the solvers up to order 4


def amplification(w: Tensor, tableau: ButcherTableau) -> Tensor:
    """Compute ``|R(w)|``, by which a step of size h multiplies a solution of z' = lambda z, with
    w = h lambda, complex; the region of stability is where it is below 1."""
    return rk_step(lambda t, z: w * z, 0.0, torch.ones_like(w), 1.0, tableau).abs()


def place_eigenvalues(
    field: MLPField | Conv1dField,
    x: Tensor,
    tableau: ButcherTableau,
    step_size: float,
    seeds: Sequence[int],
) -> None:
    """Give the mean Jacobian over x (n, 2) eigenvalues at which a solver's steps are stable.

    They are drawn for each seed by rejection, real or a conjugate pair with even odds, and the
    last layer's weights change as little as they can. Raises ValueError for states that are not
    in the plane.
    """
    if x.shape[1:] != (2,):
        raise ValueError(f"x = {tuple(x.shape)}: eigenvalues are placed for states (n, 2) only")
    jacobian, by_weight = _mean_jacobian(field, x.expand(len(seeds), -1, -1))
    generators = [make_generator(seed, "start") for seed in seeds]
    wanted = torch.stack([_draw(tableau, g) / step_size for g in generators]).to(jacobian)
    missing = (wanted - jacobian).flatten(1)[..., None]
    weight = field.third[0]
    with torch.no_grad():
        weight += (torch.linalg.pinv(by_weight) @ missing).view_as(weight).to(weight)


def _mean_jacobian(field, x):
    """The mean of df/dz over the samples, (members, 2, 2) float64, and its derivative by the last
    layer's weights, (members, 4, weights): it is linear in them."""
    x, weight = x.clone().requires_grad_(True), field.third[0]
    value = field(0.0, x)
    rows = [
        torch.autograd.grad(value[..., i].sum(), x, create_graph=True)[0].mean(1) for i in range(2)
    ]
    jacobian = torch.stack(rows, 1)
    slopes = [
        torch.autograd.grad(entry.sum(), weight, retain_graph=True)[0].flatten(1)
        for entry in jacobian.flatten(1).unbind(1)
    ]
    return jacobian.detach().double(), torch.stack(slopes, 1).double()


def _draw(tableau, generator):
    """Draw h times a Jacobian, (2, 2) float64, whose eigenvalues lie in the region of stability."""
    while True:
        real, imaginary, odds = torch.rand(3, 2, generator=generator, dtype=torch.float64)
        real = REAL[0] + (REAL[1] - REAL[0]) * real
        imaginary = IMAGINARY[0] + (IMAGINARY[1] - IMAGINARY[0]) * imaginary
        if odds[0] < 0.5:
            a, b, c = real.mean(), real.diff()[0] / 2, real.diff()[0] / 2
        else:
            a, b, c = real[0], imaginary[0], -imaginary[0]
        drawn = torch.stack([a, b, c, a]).view(2, 2)
        if bool((amplification(torch.linalg.eigvals(drawn), tableau) < 1).all()):
            return drawn
