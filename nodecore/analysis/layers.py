"""Compare the layers of a residual network: it is near an ODE only if they change little."""

from itertools import pairwise

import torch
from torch import Tensor

from nodecore.ode.fields import PiecewiseField


@torch.no_grad()
def layer_changes(field: PiecewiseField, z: Tensor) -> Tensor:
    """Measure how much neighbouring layers differ along the states that they see.

    z: (members, batch, dim), inputs. Returns abs(f_(n+1)(z_n) - f_n(z_n)) over the mean length of
    the two, (layers - 1, members, batch). It falls as 1 / layers where the weights are samples of
    smooth functions of depth (Sander, Ablin, Peyre 2022, arXiv:2205.14612, section 2).
    """
    changes = []
    for piece, following in pairwise(field.pieces):
        slope, other = piece(0.0, z), following(0.0, z)
        length = (slope.norm(dim=-1) + other.norm(dim=-1)) / 2
        changes.append((other - slope).norm(dim=-1) / length)
        z = z + field.T / len(field.pieces) * slope
    return torch.stack(changes)
