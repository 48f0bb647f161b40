"""Drawn images in place of MNIST's, which have to be fetched: thin strokes on an empty ground."""

import torch
from torch import Tensor

POINTS = 24  # along a stroke


def draw_strokes(n: int, size: int, generator: torch.Generator, strokes: int = 2) -> Tensor:
    """n images (n, size, size) in [0, 1], most pixels exactly 0, as in MNIST.

    A stroke is a quadratic Bezier curve, about two pixels of 28 wide, with a soft edge.
    """
    corners = 0.15 + 0.7 * torch.rand(n, strokes, 3, 2, generator=generator)
    s = torch.linspace(0, 1, POINTS)[:, None]
    # B(s) = (1-s)^2 P0 + 2 s (1-s) P1 + s^2 P2
    curve = torch.cat([(1 - s) ** 2, 2 * s * (1 - s), s**2], dim=1)
    points = (curve @ corners).flatten(1, 2)
    centres = (torch.arange(size) + 0.5) / size
    grid = torch.cartesian_prod(centres, centres)
    distance = torch.stack([torch.cdist(grid, image).amin(1) for image in points])
    return (1.5 - 28 * distance).clamp(0, 1).view(n, size, size)
