"""The robustness margin against brute force, and what it promises about the class."""

import numpy as np
import pytest
import torch
from members import generators

from nodecore.analysis.evaluate import predict
from nodecore.analysis.margins import class_margins, robustness
from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.ode.fields import LinearHead, MLPField
from nodecore.ode.steps import FixedSteps


def shaken_head(features, classes, members=2):
    head = LinearHead(features, classes, generators=generators(members)).double()
    head.linear[1].data = torch.from_numpy(np.random.default_rng(0).normal(size=(members, classes)))
    return head


def normal(*shape, seed=1):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def test_the_margin_is_the_distance_to_the_nearest_point_of_another_class():
    head, z = shaken_head(2, 3), normal(2, 4, 2)
    label = head(z).argmax(-1)
    for m, n in np.ndindex(2, 4):
        # The class along rays from z, found by walking outwards: no formula for boundaries.
        angle = torch.linspace(0, 2 * torch.pi, 361, dtype=torch.float64)[:-1]
        ray = torch.stack([angle.cos(), angle.sin()], 1)
        radius = torch.linspace(0, 12, 2401, dtype=torch.float64)
        points = z[m, n] + radius[:, None, None] * ray
        other = head(points.reshape(1, -1, 2).expand(2, -1, -1))[m].argmax(-1) != label[m, n]
        first = other.view(len(radius), -1).any(1).double().argmax()
        assert float(class_margins(head, z)[m, n]) == pytest.approx(float(radius[first]), abs=6e-3)


def test_a_step_of_the_margin_towards_the_boundary_changes_the_class_and_less_does_not():
    head, z = shaken_head(7, 4), normal(2, 200, 7)
    logits, margin = head(z), class_margins(head, z)
    for m in range(2):
        y = logits[m].argmax(-1)
        normals = head.linear[0][m].T[:, None] - head.linear[0][m].T[y]
        direction = normals / normals.norm(dim=-1, keepdim=True).clamp(min=1e-9)
        for factor, changes in ((1 + 1e-9, True), (1 - 1e-9, False)):
            moved = z[m] + factor * margin[m][:, None] * direction
            flipped = torch.stack([head(p.expand(2, -1, -1))[m].argmax(-1) != y for p in moved])
            assert bool((flipped.any(0) == changes).all())


def test_classes_with_equal_weights_have_no_boundary():
    head = shaken_head(2, 2)
    head.linear[0].data[..., 1] = head.linear[0].data[..., 0]
    assert class_margins(head, normal(2, 5, 2)).isinf().all()


def test_the_dimensions_of_an_image_count_as_features():
    head, z = shaken_head(12, 3), normal(2, 5, 3, 2, 2)
    torch.testing.assert_close(class_margins(head, z), class_margins(head, z.flatten(2)))


def test_inside_the_margin_no_label_flips_and_outside_some_do():
    field = MLPField(2, 16, generators=generators())
    head, x = shaken_head(2, 3).float(), normal(400, 2).float()
    euler, midpoint = FixedSteps("euler", 2), FixedSteps("midpoint", 2)
    found = robustness(field, head, x, euler, midpoint)
    assert found.inside.any() and not (found.inside & found.flipped).any()
    assert found.flipped.any() and not found.inside.all()
    labels = [predict(field, head, x, s) for s in (euler, midpoint)]
    assert torch.equal(found.flipped, labels[0] != labels[1])


def test_states_that_are_not_finite_are_never_inside():
    field = MLPField(2, 4, generators=generators())
    for p in field.parameters():
        p.data[1] = torch.nan
    found = robustness(
        field, shaken_head(2, 3), torch.ones(3, 2), FixedSteps("euler", 1), FixedSteps("euler", 2)
    )
    assert not found.inside[1].any()


def test_the_promise_holds_on_the_evidence():
    evidence = find(Run("landscape", FixedSteps("euler", 16)))
    _, test = evidence.run.protocol.load()
    settings = FixedSteps("euler", 16), FixedSteps("midpoint", 16)
    found = robustness(evidence.field, evidence.head, test.x, *settings)
    assert 0.2 < found.inside.double().mean() < 0.6
    assert found.flipped.any() and not (found.inside & found.flipped).any()
