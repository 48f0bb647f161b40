"""Bounds on the Lipschitz constant against NumPy's SVD, brute force and finite differences."""

import copy

import numpy as np
import pytest
import torch
from members import generators
from torch import nn
from torch.nn import functional as F

from nodecore.ode.fields import Conv1dField, Conv2dField, MLPField
from nodecore.ode.lipschitz import jacobian_norms, lipschitz_bound, spectral_norm


def normal(*shape):
    return torch.from_numpy(np.random.default_rng(1).normal(size=shape))


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_the_norm_of_a_convolution_is_that_of_torchs_as_a_matrix(dim):
    f = Conv1dField(dim, 8, generators=generators()).double()
    taps = f.second[0].view(2, 3, 8, 8)
    for m in range(2):
        basis = torch.eye(8 * dim, dtype=torch.float64).view(-1, 8, dim)
        images = F.conv1d(basis, taps[m].permute(2, 1, 0), padding=1).flatten(1)
        expected = np.linalg.svd(images.detach().numpy(), compute_uv=False)[0]
        norm = spectral_norm(f.block_layers()[1], f.positions)[m]
        assert norm.item() == pytest.approx(expected, rel=1e-12)


def test_the_bound_of_dense_layers_is_the_product_of_their_largest_singular_values():
    f = MLPField(2, 16, generators=generators())
    for m, bound in enumerate(lipschitz_bound(f).tolist()):
        weights = [layer[0][m].detach().double().numpy() for layer in (f.first, f.second, f.third)]
        assert bound == pytest.approx(np.prod([np.linalg.norm(w, 2) for w in weights]), rel=1e-12)


@pytest.mark.parametrize(
    "f",
    [MLPField(2, 16, generators=generators()), Conv1dField(5, 8, generators=generators())],
    ids=["mlp", "conv1d"],
)
def test_no_difference_quotient_beats_the_bound_and_the_norms_are_met_by_some(f):
    f, dim = f.double(), f.first[0].shape[1] if isinstance(f, MLPField) else f.positions
    z = normal(2, 200, dim)
    bound, norms = lipschitz_bound(f), jacobian_norms(f, z, instance_axes=2, n_iterations=300)
    other = torch.from_numpy(np.random.default_rng(2).normal(size=z.shape))
    quotient = (f(0.0, z) - f(0.0, other)).norm(dim=-1) / (z - other).norm(dim=-1)
    assert (quotient <= bound[:, None]).all()
    assert (norms <= bound[:, None] * (1 + 1e-12)).all()
    # Finite differences in many directions: none above the norm, the best close to it.
    step = torch.from_numpy(np.random.default_rng(3).normal(size=(1000, 1, 1, dim)))
    step *= 1e-7 / step.norm(dim=-1, keepdim=True)
    z = z[:, :20]
    moved = f(0.0, (z + step).transpose(0, 1).reshape(2, -1, dim)).view(2, -1, 20, dim)
    stretch = (moved - f(0.0, z)[:, None]).norm(dim=-1).amax(1) / 1e-7
    assert (stretch <= norms[:, :20] * (1 + 1e-4)).all()
    assert (stretch >= norms[:, :20] * (0.98 if dim == 2 else 0.7)).all()


def brute_force(f, z):
    """The largest singular value of the whole Jacobian at each row of z (n, ...)."""
    norms = []
    for row in z:
        matrix = torch.autograd.functional.jacobian(lambda x: f(0.0, x[None])[0], row)
        norms.append(np.linalg.norm(matrix.reshape(row.numel(), row.numel()).numpy(), 2))
    return norms


def test_power_iteration_finds_the_largest_singular_value_of_any_batched_field():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 4)).double()
    z = normal(6, 4)
    norms = jacobian_norms(lambda t, z: layers(z) * (1 + t), z, t=1.0, n_iterations=100)
    assert norms.tolist() == pytest.approx(
        [2 * value for value in brute_force(lambda t, z: layers(z), z)], rel=1e-6
    )
    assert all(p.grad is None for p in layers.parameters())


def test_images_keep_their_axes_and_weights_without_gradients_will_do():
    f = Conv2dField(2, 4, generators=generators(1)).double().requires_grad_(False)
    z = normal(1, 3, 2, 3, 4)
    norms = jacobian_norms(f, z, instance_axes=2, n_iterations=150)
    assert norms.shape == (1, 3)
    expected = brute_force(lambda t, x: f(t, x[None])[0], z[0])
    assert norms[0].tolist() == pytest.approx(expected, rel=1e-5)


def test_more_iterations_only_raise_the_norm():
    f, z = MLPField(2, 16, generators=generators()).double(), normal(2, 50, 2)
    few, more = (jacobian_norms(f, z, instance_axes=2, n_iterations=n) for n in (2, 20))
    assert (few <= more * (1 + 1e-12)).all() and (few < more * 0.999).any()


def test_a_field_that_stands_still_has_norm_zero():
    f = copy.deepcopy(MLPField(2, 4, generators=generators()))
    for p in f.parameters():
        p.data.zero_()
    assert jacobian_norms(f, torch.ones(2, 3, 2), instance_axes=2).tolist() == [[0.0] * 3] * 2
    assert lipschitz_bound(f).tolist() == [0.0, 0.0]


def test_bad_arguments_are_refused():
    f = Conv1dField(900, 32, generators=generators(1))
    with pytest.raises(ValueError, match=r"positions = 900: .* 28800 rows"):
        lipschitz_bound(f)
    z = torch.ones(3, 2)
    with pytest.raises(ValueError, match=r"instance_axes = 2: z has 2 axes, and its last one"):
        jacobian_norms(lambda t, z: z, z, instance_axes=2)
    with pytest.raises(ValueError, match=r"n_iterations = 0"):
        jacobian_norms(lambda t, z: z, z, n_iterations=0)
