"""A field that is learned from where a known flow takes points."""

import torch
from scipy.linalg import expm

from nodecore.ode.steps import FixedSteps
from nodecore.training.regression import learn_field

A = torch.tensor([[-0.5, 1.0], [-1.0, -0.5]])


def test_a_learned_field_is_that_of_the_steps_and_not_the_flows():
    """For z' = A z, two Euler steps that end where the flow does have 2 (exp(A / 2) - 1) for A."""
    x = 4 * torch.rand(1000, 2, generator=torch.Generator().manual_seed(1)) - 2
    end = x @ torch.as_tensor(expm(A.numpy())).T
    field = learn_field(x, end, FixedSteps("euler", 2), [0, 1])
    of_steps = torch.as_tensor(2 * (expm(A.numpy() / 2) - torch.eye(2).numpy()))
    z = 3 * torch.rand(200, 2, generator=torch.Generator().manual_seed(2)) - 1.5
    for member in field(0.0, z.expand(2, -1, -1)):
        from_steps = (member - z @ of_steps.T).norm(dim=-1).mean()
        from_flow = (member - z @ A.T).norm(dim=-1).mean()
        assert from_steps < 0.06 < 0.2 < from_flow
