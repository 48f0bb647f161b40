"""Learn a vector field from where a known flow takes points."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nodecore.data.seeding import make_generator
from nodecore.ode.fields import MLPField
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.steps import FixedSteps
from nodecore.training.devices import single_threaded

WIDTH, BATCH_SIZE, LEARNING_RATE = 64, 256, 2e-3


@single_threaded(torch.device("cpu"))
def learn_field(
    x: Tensor,
    end: Tensor,
    steps: FixedSteps,
    seeds: Sequence[int],
    iterations: int = 2000,
) -> MLPField:
    """Fit a dense field, one member for each seed, whose solve by `steps` takes x to `end`.

    x, end: (n, dim) states at t = 0 and t = 1. By mean squares, Adam and a rate that falls to zero
    as a cosine; every batch is drawn anew.
    """
    generators = [make_generator(seed, "initialisation") for seed in seeds]
    field = MLPField(x.shape[1], WIDTH, generators=generators)
    optimiser = torch.optim.Adam(field.parameters(), LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, iterations)
    draws = [make_generator(seed, "batches") for seed in seeds]
    for _ in range(iterations):
        index = torch.stack([torch.randint(len(x), (BATCH_SIZE,), generator=g) for g in draws])
        z = solve_fixed(field, x[index], steps.solver, n_steps=steps.n_steps).z
        optimiser.zero_grad()
        (len(seeds) * F.mse_loss(z, end[index])).backward()  # each member's own loss
        optimiser.step()
        schedule.step()
    return field.requires_grad_(False)
