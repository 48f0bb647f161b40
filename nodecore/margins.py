"""How far a state may be moved before the classifier changes its mind: the robustness margin.

If two solvers carry a sample to states that lie closer together than the margin of one of them,
both give it the same class (Ott et al. 2020, section 4).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from nodecore.evaluate import TestSetting, solve_setting
from nodecore.vector_fields import LinearHead


@torch.no_grad()
def class_margins(head: LinearHead, z: Tensor) -> Tensor:
    """Distance (members, n) float64 of states z (members, n, ...) to the nearest other class.

    Exact for a linear classifier: the states that it would rather put into class c than into y are
    a half-space, at the distance of logit_y - logit_c over the norm of the difference of the two
    classes' weights, and the nearest of these counts.
    """
    head = copy.deepcopy(head).double()
    logits = head(z.double())
    weight = head.linear[0]  # (members, features, classes)
    lengths = (weight[:, :, :, None] - weight[:, :, None]).norm(dim=1)
    label = logits.argmax(-1)
    lengths = torch.stack([rows[y] for rows, y in zip(lengths, label, strict=True)])
    distance = (logits.amax(-1, keepdim=True) - logits) / lengths
    # Classes with the same weights, such as y itself, have no boundary between them.
    return distance.masked_fill(lengths == 0, torch.inf).amin(-1)


@dataclass(frozen=True)
class Robustness:
    """The end states of two solvers beside the classifier's margin; each (members, n).

    margin: of the first state. distance: between the two states. flipped: the classifier tells
    them apart.
    """

    margin: Tensor
    distance: Tensor
    flipped: Tensor

    @property
    def inside(self) -> Tensor:
        """Where the margin promises that the class stays: the distance is smaller."""
        return self.distance < self.margin


@torch.no_grad()
def robustness(field, head, x: Tensor, setting: TestSetting, other: TestSetting) -> Robustness:
    """Inputs x (n, ...) carried by all members under two settings. States that are not finite are
    never inside."""
    members = next(field.parameters()).shape[0]
    x = x.expand(members, *x.shape)
    z, moved = (solve_setting(field, x, s).z.double() for s in (setting, other))
    classifier = copy.deepcopy(head).double()
    flipped = classifier(z).argmax(-1) != classifier(moved).argmax(-1)
    distance = (moved - z).flatten(2).norm(dim=-1)
    return Robustness(class_margins(head, z), distance, flipped)
