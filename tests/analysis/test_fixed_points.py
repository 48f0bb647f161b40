"""Zeros of vector fields whose zeros are known."""

import numpy as np
import pytest
import torch

from nodecore.analysis.crossings import euler_path
from nodecore.analysis.fixed_points import (
    find_fixed_points,
    find_visited,
    value_and_jacobian,
    winding_number,
)
from nodecore.data.synthetic import landscape_extrema, landscape_field
from nodecore.evidence.catalogue import MORE_GRID_SEEDS
from nodecore.evidence.found import find
from nodecore.evidence.runs import Run
from nodecore.evidence.trajectories import follow
from nodecore.ode.steps import FixedSteps

BOX = ([-2.0, -3.0], [3.0, 3.0])


def test_the_landscape_has_a_sink_in_each_minimum_and_a_saddle_between():
    found = find_fixed_points(landscape_field, *BOX)
    # Zeros of V'(x), from the coefficients of V(x) = 0.2 (x-2)(x-0.5)(x+1)(x+0.6)(x-1.6) x.
    potential = np.polynomial.Polynomial.fromroots([2, 0.5, -1, -0.6, 1.6, 0]) * 0.2
    rest = np.sort(potential.deriv().roots())
    np.testing.assert_allclose(found.points[:, 0], rest, atol=1e-9)
    np.testing.assert_allclose(found.points[:, 1], 0.0, atol=1e-9)
    assert found.kinds == ["sink", "saddle", "sink", "saddle", "sink"]
    # Friction alone contracts: the trace of the Jacobian is -0.2 everywhere.
    np.testing.assert_allclose(found.eigenvalues.sum(1).real, -0.2, atol=1e-9)


def test_the_index_of_the_zeros_is_the_winding_number_of_the_box():
    assert winding_number(landscape_field, *BOX) == find_fixed_points(landscape_field, *BOX).index
    around_a_saddle = ([-0.7, -1.0], [0.0, 1.0])
    assert winding_number(landscape_field, *around_a_saddle) == -1
    assert find_fixed_points(landscape_field, *around_a_saddle).index == -1


def test_a_field_of_relu_layers_is_searched_piece_by_piece():
    def f(t, z):  # |x| + |y| - 1 = 0 and y = x / 2
        return torch.stack([z.abs().sum(1) - 1, z[:, 1] - z[:, 0] / 2], dim=1)

    found = find_fixed_points(f, [-2.0, -2.0], [2.0, 2.0])
    np.testing.assert_allclose(found.points, [[-2 / 3, -1 / 3], [2 / 3, 1 / 3]], atol=1e-12)
    assert found.index == winding_number(f, [-2.0, -2.0], [2.0, 2.0]) == 0


def test_zeros_are_searched_where_trajectories_go():
    minima, maxima = landscape_extrema()
    position = torch.linspace(0, 1.9, 40, dtype=torch.float64)
    starts = torch.stack([position, -0.2 * torch.ones_like(position)], dim=1)
    path = euler_path(landscape_field, starts, 64)[:, 0]
    found, holds = find_visited(landscape_field, path)
    inside = [x for x in sorted([*minima, *maxima]) if path[..., 0].min() < x < path[..., 0].max()]
    np.testing.assert_allclose(found.points[:, 0], inside, atol=1e-9)
    assert holds and found.kinds == ["sink", "saddle", "sink"]


def test_no_zero_of_a_stored_field_is_missed():
    """A quarter of the starts missed one of seed 6."""
    run = Run("landscape", FixedSteps("euler", 256), seeds=MORE_GRID_SEEDS)
    model = follow(find(run), 100)
    member = run.seeds.index(6)
    _, holds = find_visited(model.member(member), model.path()[:, member])
    assert holds


def test_a_zero_that_newtons_method_leaves_is_known_to_be_missed():
    def f(t, z):  # the slope of |z| ** 0.1 is so steep at 0 that each step goes beyond it
        return (z - 0.1234) * (z - 0.1234).norm(dim=1, keepdim=True) ** -0.9

    corners = torch.tensor([[[-1.0, -1.0], [1.0, 1.0]]], dtype=torch.float64)
    found, holds = find_visited(f, corners)
    assert found.kinds == [] and not holds


def test_a_field_without_zeros():
    found = find_fixed_points(lambda t, z: torch.ones_like(z) + z**2, [-1.0, -1.0], [1.0, 1.0])
    assert found.points.shape == (0, 2)
    assert found.kinds == []
    assert found.index == 0


def test_the_jacobian_is_that_of_each_sample():
    z = torch.tensor([[1.0, 2.0], [3.0, -1.0]], dtype=torch.float64)
    value, jacobian = value_and_jacobian(
        lambda t, z: torch.stack([z[:, 0] * z[:, 1], z[:, 1]], 1), z
    )
    assert value.tolist() == [[2.0, 2.0], [-3.0, -1.0]]
    assert jacobian.tolist() == [[[2.0, 1.0], [0.0, 1.0]], [[-1.0, 3.0], [0.0, 1.0]]]


def test_an_empty_box_is_refused():
    with pytest.raises(ValueError, match=r"low = \[1.0\], high = \[0.0\]: give opposite corners"):
        find_fixed_points(landscape_field, [1.0], [0.0])
