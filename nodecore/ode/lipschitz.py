"""Bound how fast a vector field can change: its Lipschitz constant L in the Euclidean norm.

An Euler step z + h f(z) with h L < 1 is one-to-one, as the flow is; with h L > 1 it may fold space.
"""

import torch
from torch import Tensor

from nodecore.ode.checks import check_count
from nodecore.ode.fields import Conv1dField, MLPField
from nodecore.ode.kernels import BlockLayer
from nodecore.ode.runge_kutta import per_instance
from nodecore.ode.solution import VectorField

MAX_OPERATOR = 4096  # rows of a layer's operator, beyond which its singular values take too long


@torch.no_grad()
def lipschitz_bound(field: MLPField | Conv1dField) -> Tensor:
    """Compute upper bounds on L, (members,) float64: the product of the layers' spectral norms.

    No activation of fields lengthens a difference, so L is at most the product of the norms of what
    lies between. Raises ValueError for a convolution along too many positions.
    """
    norms = [spectral_norm(layer, field.positions) for layer in field.layers()]
    return torch.stack(norms).prod(0)


def spectral_norm(layer: BlockLayer, positions: int) -> Tensor:
    """Compute the largest singular value of a layer's map on all positions, (members,) float64.

    Its weights are (members, taps x channels in, channels out). Raises ValueError for a windowed
    layer whose map has more than MAX_OPERATOR rows.
    """
    return torch.linalg.matrix_norm(_operator(layer, positions), ord=2)


def _operator(layer, positions):
    """Return the map as matrices (members, rows, columns).

    A map that has no window is alike at every position: one of them stands for all.
    """
    weight = layer.weight.double()
    if layer.taps == 1:
        return weight
    members, rows, channels_out = weight.shape
    channels_in = rows // layer.taps
    if positions * channels_in > MAX_OPERATOR:
        raise ValueError(
            f"positions = {positions}: the layer's operator would have {positions * channels_in} "
            f"rows; lipschitz_bound takes at most {MAX_OPERATOR}, use jacobian_norms there"
        )
    taps = weight.view(members, layer.taps, channels_in, channels_out)
    operator = weight.new_zeros(members, positions, channels_in, positions, channels_out)
    for position in range(positions):
        for tap in range(layer.taps):
            neighbour = position + tap - layer.taps // 2
            if 0 <= neighbour < positions:  # outside is zero padding
                operator[:, neighbour, :, position] = taps[:, tap]
    return operator.view(members, positions * channels_in, positions * channels_out)


def jacobian_norms(
    f: VectorField, z: Tensor, *, t: float = 0.0, instance_axes: int = 1, n_iterations: int = 20
) -> Tensor:
    """Compute the spectral norm of df/dz at each state, from below.

    The largest is a lower bound on L. Power iteration with products by the Jacobian and its
    transpose, from one evaluation of f; the Jacobian itself is never built.

    Args:
        f: Vector field, twice differentiable by autograd (ReLU is).
        z: States with `instance_axes` leading axes of instances that f treats one by one.
        t: Time at which f is evaluated.
        instance_axes: Number of these axes.
        n_iterations: Number of iterations.

    Returns:
        Norms in the shape of the instance axes.
    """
    if not 1 <= instance_axes < z.dim():
        raise ValueError(
            f"instance_axes = {instance_axes}: z has {z.dim()} axes, and its last one belongs to "
            "the state; give 1 or more of those before it"
        )
    check_count("n_iterations", n_iterations)
    z = z.detach().requires_grad_(True)
    with torch.enable_grad():
        value = f(z.new_tensor(t), z)
        # The product u -> J^T u is linear in u, so its own derivative along v is J v.
        u = torch.zeros_like(value, requires_grad=True)
        (transposed,) = torch.autograd.grad(value, z, u, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z)
    for _ in range(n_iterations):
        v = _unit(v, instance_axes)
        (image,) = torch.autograd.grad(transposed, u, v, retain_graph=True)
        (v,) = torch.autograd.grad(value, z, image, retain_graph=True)
    return image.flatten(instance_axes).norm(dim=-1)


def _unit(v, instance_axes):
    norm = v.flatten(instance_axes).norm(dim=-1).clamp(min=torch.finfo(v.dtype).tiny)
    return v / per_instance(norm, v)
