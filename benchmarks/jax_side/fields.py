"""The vector fields of one member in JAX, as lean as they could be written: f(p, z) -> dz/dt.

p: the weight and bias of each layer, laid out as nodecore stores them. Convolutions are products:
XLA's own are 4 to 40 times slower on a CPU.
"""

import jax
import jax.numpy as jnp

relu = jax.nn.relu
DENSE = 4  # positions up to which a 1-D convolution is quickest as one dense product


def mlp(p, z):
    w1, b1, w2, b2, w3, b3 = p
    return relu(relu(z @ w1 + b1) @ w2 + b2) @ w3 + b3


def conv1d(p, z):
    """z (batch, dim); w2 (3 taps x width, width)."""
    w1, b1, w2, b2, w3, b3 = p
    dim, width = z.shape[1], w2.shape[1]
    hidden = relu(z[:, :, None] * w1[0] + b1)
    taps = w2.reshape(3, width, width)
    product = _toeplitz if dim <= DENSE else _shifted
    return (relu(product(hidden, taps) + b2) @ w3 + b3)[:, :, 0]


def _toeplitz(hidden, taps):
    """The convolution as one matrix of blocks."""
    dim, zero = hidden.shape[1], jnp.zeros_like(taps[0])
    rows = [
        [taps[i - j + 1] if 0 <= i - j + 1 < 3 else zero for j in range(dim)] for i in range(dim)
    ]
    return (hidden.reshape(len(hidden), -1) @ jnp.block(rows)).reshape(hidden.shape)


def _shifted(hidden, taps):
    """The convolution as a sum of three products."""
    dim = hidden.shape[1]
    padded = jnp.pad(hidden, ((0, 0), (1, 1), (0, 0)))
    return sum(padded[:, tap : tap + dim] @ taps[tap] for tap in range(3))


def conv2d(p, z):
    """z (batch, channels, height, width); w2 (out, in, 3, 3)."""
    w1, b1, w2, b2, w3, b3 = p
    height, width = z.shape[2:]
    hidden = relu(jnp.moveaxis(z, 1, -1) @ w1[:, :, 0, 0].T + b1)
    padded = jnp.pad(hidden, ((0, 0), (1, 1), (1, 1), (0, 0)))
    hidden = sum(
        padded[:, i : i + height, j : j + width] @ w2[:, :, i, j].T
        for i in range(3)
        for j in range(3)
    )
    return jnp.moveaxis(relu(hidden + b2) @ w3[:, :, 0, 0].T + b3, -1, 1)


FIELDS = {"mlp": mlp, "conv1d": conv1d, "conv2d": conv2d}
