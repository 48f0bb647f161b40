"""How far a state may be moved before the classifier changes its mind: the robustness margin.

If two solvers carry a sample to states that lie closer together than the margin of one of them,
both give it the same class (Ott et al. 2020, section 4).
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nodecore.analysis.evaluate import for_members, solve_setting
from nodecore.ode.fields import LinearHead
from nodecore.ode.steps import Setting


@torch.no_grad()
def class_margins(head: LinearHead, z: Tensor) -> Tensor:
    """Compute distances (members, n) float64 of states (members, n, ...) to the nearest other
    class; see LinearHead.margins."""
    head = copy.deepcopy(head).double()
    return head.margins(head(z.double()))


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
        """True where the margin promises that the class stays: the distance is smaller."""
        return self.distance < self.margin


@torch.no_grad()
def robustness(
    field: nn.Module, head: LinearHead, x: Tensor, setting: Setting, other: Setting
) -> Robustness:
    """Carry inputs (n, ...) under two settings; compare the end states with the margin of those
    under the first one. States that are not finite are never inside."""
    x = for_members(field, x)
    z, moved = (solve_setting(field, x, s).z.double() for s in (setting, other))
    classifier = copy.deepcopy(head).double()
    logits = classifier(z)
    flipped = logits.argmax(-1) != classifier(moved).argmax(-1)
    distance = (moved - z).flatten(2).norm(dim=-1)
    return Robustness(classifier.margins(logits), distance, flipped)
