"""Vector fields f(t, z) as modules of whole ensembles, and the linear classifier behind them.

Every parameter has a leading *members* axis: one entry a seed, in one batched product. A member
is drawn from its own generator, so that it does not depend on which others stand beside it.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from nodecore.ode.kernels import BlockLayer
from nodecore.ode.runge_kutta import per_instance

ACTIVATIONS = {"relu": F.relu, "tanh": torch.tanh, "softplus": F.softplus}


def _kaiming(fan_in, weight_shape, bias_shape, generator):
    """Weight normal with std sqrt(2 / fan_in), bias zero: gain sqrt 2 (He et al. 2015), the paper
    authors' released default."""
    std = math.sqrt(2.0 / fan_in)
    return std * torch.randn(weight_shape, generator=generator), torch.zeros(bias_shape)


def _torch_default(fan_in, weight_shape, bias_shape, generator):
    """Both uniform to 1 / sqrt(fan_in) on either side, as nn.Linear and nn.Conv2d begin."""
    bound = 1 / math.sqrt(fan_in)
    drawn = (torch.rand(s, generator=generator) for s in (weight_shape, bias_shape))
    return tuple(bound * (2 * values - 1) for values in drawn)


INITIALISATIONS = {"kaiming": _kaiming, "torch": _torch_default}


def _affine(
    fan_in: int, weight_shape: tuple, bias_shape: tuple, generators, initialisation: str = "kaiming"
) -> nn.ParameterList:
    """Weight (members, *weight_shape) and bias (members, *bias_shape)."""
    draw = INITIALISATIONS[initialisation]
    members = [draw(fan_in, weight_shape, bias_shape, g) for g in generators]
    return nn.ParameterList([torch.stack(parts) for parts in zip(*members, strict=True)])


class MLPField(nn.Module):
    """Dense field dim - width - width - dim on z (members, batch, dim); autonomous.

    activation and initialisation: of ACTIVATIONS and INITIALISATIONS.
    """

    positions = 1

    def __init__(
        self,
        dim: int = 2,
        width: int = 48,
        activation: str = "relu",
        initialisation: str = "kaiming",
        *,
        generators: Sequence[torch.Generator],
    ):
        super().__init__()
        self.activation = activation
        self.first = _affine(dim, (dim, width), (width,), generators, initialisation)
        self.second = _affine(width, (width, width), (width,), generators, initialisation)
        self.third = _affine(width, (width, dim), (dim,), generators, initialisation)

    def forward(self, t: float | Tensor, z: Tensor) -> Tensor:
        activate = ACTIVATIONS[self.activation]
        z = activate(_apply(self.first, z))
        z = activate(_apply(self.second, z))
        return _apply(self.third, z)

    def layers(self) -> tuple[BlockLayer, ...]:
        """Return the affine maps in their order."""
        return tuple(BlockLayer(*layer) for layer in (self.first, self.second, self.third))

    def block_layers(self) -> tuple[BlockLayer, ...] | None:
        """Return the layers as the fused kernel takes them; None for another activation."""
        return self.layers() if self.activation == "relu" else None


class Conv1dField(nn.Module):
    """Convolution field along the dim entries of z (members, batch, dim); autonomous.

    Conv1d 1-width k1, activation, width-width k3 pad 1, activation, width-1 k1. Weights of the
    middle layer: (members, 3 taps x width in, width out), rows by tap, then channel. activation and
    initialisation: of ACTIVATIONS and INITIALISATIONS.
    """

    POSITIONS_AT_ONCE = 4096  # on a CPU: their hidden maps stay in its cache

    def __init__(
        self,
        dim: int,
        width: int = 32,
        activation: str = "relu",
        initialisation: str = "kaiming",
        *,
        generators: Sequence[torch.Generator],
    ):
        super().__init__()
        self.positions, self.activation = dim, activation
        self.first = _affine(1, (1, width), (width,), generators, initialisation)
        self.second = _affine(3 * width, (3 * width, width), (width,), generators, initialisation)
        self.third = _affine(width, (width, 1), (1,), generators, initialisation)

    def forward(self, t: float | Tensor, z: Tensor) -> Tensor:
        samples = max(1, self.POSITIONS_AT_ONCE // z.shape[-1])
        parts = z.split(samples, dim=1) if z.device.type == "cpu" else [z]
        return torch.cat([self._slopes(part) for part in parts], dim=1)

    def _slopes(self, z):
        (members, batch, dim), activate = z.shape, ACTIVATIONS[self.activation]
        hidden = activate(_apply(self.first, z.reshape(members, batch * dim, 1)))
        # A product with the three neighbours side by side: a grouped conv1d is many times slower.
        padded = F.pad(hidden.view(members, batch, dim, -1), (0, 0, 1, 1))
        taps = torch.cat([padded[:, :, tap : tap + dim] for tap in range(3)], dim=-1)
        hidden = activate(_apply(self.second, taps.view(members, batch * dim, -1)))
        return _apply(self.third, hidden).view(members, batch, dim)

    def layers(self) -> tuple[BlockLayer, ...]:
        """Return the affine maps in their order."""
        return BlockLayer(*self.first), BlockLayer(*self.second, taps=3), BlockLayer(*self.third)

    def block_layers(self) -> tuple[BlockLayer, ...] | None:
        """Return the layers as the fused kernel takes them; None for another activation."""
        return self.layers() if self.activation == "relu" else None


class Conv2dField(nn.Module):
    """Convolution field on images z (members, batch, channels, height, width); autonomous.

    Conv2d channels-width k1, ReLU, width-width k3 pad 1, ReLU, width-channels k1.

    Where the hidden maps of an evaluation take more than SMALL bytes, only z is kept for the
    backward pass, which computes them again: a solve of K steps needs the memory of K states.
    `keeps_maps`, where it is not None, decides instead.
    """

    SMALL = 16 * 2**20  # bytes
    IMAGES_AT_ONCE = 16  # on a CPU: their hidden maps stay in its cache

    def __init__(
        self, channels: int = 1, width: int = 96, *, generators: Sequence[torch.Generator]
    ):
        super().__init__()
        self.first = _affine(channels, (width, channels, 1, 1), (width,), generators)
        self.second = _affine(9 * width, (width, width, 3, 3), (width,), generators)
        self.third = _affine(width, (channels, width, 1, 1), (channels,), generators)
        self.keeps_maps: bool | None = None

    def forward(self, t: float | Tensor, z: Tensor, going: Sequence[bool] | None = None) -> Tensor:
        """Return the slope at z; where `going` is given, 0 for the members that it leaves out."""
        return self._slopes(z, self._weights, going)

    def block_layers(self) -> tuple[BlockLayer, ...] | None:
        """Return the layers as the fused kernel takes them; None for more than one channel."""
        if self.first[0].shape[2] != 1:
            return None
        return BlockLayer(*self.first), BlockLayer(*self.second, taps=9), BlockLayer(*self.third)

    def for_solve(self, z0: Tensor) -> Callable[..., Tensor]:
        """Return the field as a function of (t, z, going) for one solve of states like z0.

        On a GPU the members' weights are taken apart once for all evaluations, and laid out as the
        convolutions want them. On a CPU that would save nothing, and change the order in which the
        gradients of the evaluations are summed.
        """
        if z0.device.type == "cpu":
            return self
        every = [[_channels_last(w) for w in self._weights(m)] for m in range(len(z0))]
        return lambda t, z, going=None: self._slopes(z, every.__getitem__, going)

    def _weights(self, m):
        return [p[m] for p in (*self.first, *self.second, *self.third)]

    def _slopes(self, z, weights_of, going):
        return torch.stack(
            [
                self._member(weights_of(m), images)
                if going is None or going[m]
                else torch.zeros_like(images)
                for m, images in enumerate(z)
            ]
        )

    def _member(self, weights, z):
        parts = z.split(self.IMAGES_AT_ONCE) if z.device.type == "cpu" else [z]
        pixels = z.shape[-1] * z.shape[-2]
        hidden = hidden_bytes(len(z), len(weights[0]), pixels, z.element_size())
        keeps = hidden <= self.SMALL if self.keeps_maps is None else self.keeps_maps
        if torch.is_grad_enabled() and not keeps:
            slopes = [_recomputed(part, weights) for part in parts]
        else:
            slopes = [_convolutions(part, *weights) for part in parts]
        return torch.cat(slopes)


class PiecewiseField(nn.Module):
    """Field that has other weights in each of equal pieces of [0, T].

    Euler's method with a step to a piece is a residual network with weights of its own in every
    layer.
    """

    def __init__(self, pieces: Sequence[MLPField | Conv1dField], T: float = 1.0):
        super().__init__()
        self.pieces, self.T = nn.ModuleList(pieces), T

    def forward(self, t: float | Tensor, z: Tensor) -> Tensor:
        # A step that begins at a border, but for the rounding of t, has the piece behind it.
        eps = torch.finfo(t.dtype).eps if isinstance(t, Tensor) else 0.0
        past = max(1e-6, 4 * eps * len(self.pieces))
        at = torch.as_tensor(t, dtype=torch.float64) * len(self.pieces) / self.T + past
        at = at.long().clamp(0, len(self.pieces) - 1)
        slopes = torch.zeros_like(z)
        for index in at.unique().tolist():
            here = per_instance(at == index, z).to(z.device)
            slopes = torch.where(here, self.pieces[index](t, z), slopes)
        return slopes

    def block_layers(self) -> None:
        """Return None: the fused kernel has one set of weights."""


Field = MLPField | Conv1dField | Conv2dField | PiecewiseField


def hidden_bytes(images: int, width: int, pixels: int, bytes_each: int = 4) -> int:
    """Return the bytes that one member's two hidden maps, of `width` channels, of an evaluation
    take."""
    return 2 * images * width * pixels * bytes_each


def _recomputed(z, weights):
    """The slope at z; the backward pass computes the hidden maps once more."""
    return checkpoint(_convolutions, z, *weights, use_reentrant=False, preserve_rng_state=False)


def _convolutions(z, weight1, bias1, weight2, bias2, weight3, bias3):
    # Channels last: what convolutions on CPU and GPU are fastest on.
    dtype, z = z.dtype, _channels_last(z)
    z = F.relu(F.conv2d(z, weight1, bias1))
    z = F.relu(F.conv2d(z, weight2, bias2, padding=1))
    return F.conv2d(z, weight3, bias3).to(dtype)  # the solver sums in the precision of the states


def _channels_last(z):
    if z.dim() < 4:
        return z
    if z.shape[1] > 1 or z.device.type == "cpu":
        return z.contiguous(memory_format=torch.channels_last)
    # One channel is laid out either way, but convolutions go by the strides, which tell of neither.
    n, _, height, width = z.shape
    return z.reshape(n, height, width, 1).permute(0, 3, 1, 2)


class LinearHead(nn.Module):
    """Linear classifier: flat states (members, batch, ...), logits (members, batch, classes)."""

    def __init__(
        self,
        features: int,
        n_classes: int,
        initialisation: str = "kaiming",
        *,
        generators: Sequence[torch.Generator],
    ):
        super().__init__()
        shapes = (features, n_classes), (n_classes,)
        self.linear = _affine(features, *shapes, generators, initialisation)

    def forward(self, z: Tensor) -> Tensor:
        kind = z.device.type
        # Where products are in bfloat16 otherwise, logits of 8 bits would tie.
        if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
            with torch.autocast(kind, enabled=False):
                return _apply(self.linear, z.flatten(2))
        return _apply(self.linear, z.flatten(2))

    def margins(self, logits: Tensor) -> Tensor:
        """Return distances (members, batch) to the nearest other class from the states' logits."""
        return boundary_distances(logits, self.linear[0].transpose(1, 2))


def boundary_distances(logits: Tensor, weight: Tensor) -> Tensor:
    """Return the distance (members, batch) of states to the nearest other class.

    It is exact: the states that an affine classifier with weights (members, classes, features) puts
    rather into class c than into y are a half-space, at the distance of logit_y - logit_c over the
    norm of the difference of the two classes' weights, and the nearest of these counts. Infinite
    where there is no such boundary. Logits are (members, batch, classes).
    """
    lengths = (weight[:, :, None] - weight[:, None]).norm(dim=-1)
    best, predicted = logits.max(-1)
    lengths = torch.stack([rows[y] for rows, y in zip(lengths, predicted, strict=True)])
    # margin = min over classes c of (logit_y - logit_c) / |w_y - w_c|, y the predicted class
    distances = (best[..., None] - logits) / lengths
    # Classes with the same weights, such as y itself, have no boundary between them.
    return distances.masked_fill(lengths == 0, torch.inf).amin(-1)


Module = TypeVar("Module", bound=nn.Module)


def take_members(module: Module, members: Sequence[int]) -> Module:
    """Return a copy of a vector field or classifier that has these members only."""
    taken = copy.deepcopy(module)
    for parameter in taken.parameters():
        parameter.data = parameter.data[list(members)]
    return taken


def _apply(layer, x):
    """x @ weight + bias for each member: (members, rows, in) -> (members, rows, out)."""
    weight, bias = layer
    return torch.baddbmm(bias[:, None], x, weight)
