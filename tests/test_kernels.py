"""The fused kernel against an independent float64 reference, and everything that may go wrong."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodecore.kernels import BlockLayer, solve_fused, status

TABLEAUS = {
    "euler": ([[0]], [1]),
    "midpoint": ([[0, 0], [1 / 2, 0]], [0, 1]),
    "rk4": ([[0, 0, 0, 0], [1 / 2, 0, 0, 0], [0, 1 / 2, 0, 0], [0, 0, 1, 0]], np.ones(4) / [6, 3, 3, 6]),
    "rk4_38": (
        [[0, 0, 0, 0], [1 / 3, 0, 0, 0], [-1 / 3, 1, 0, 0], [1, -1, 1, 0]],
        np.array([1, 3, 3, 1]) / 8,
    ),
    "fehlberg21": ([[0, 0, 0], [1 / 2, 0, 0], [1 / 256, 255 / 256, 0]], [1 / 512, 255 / 256, 1 / 512]),
    "dopri5": (
        [
            [0, 0, 0, 0, 0, 0, 0],
            [1 / 5, 0, 0, 0, 0, 0, 0],
            [3 / 40, 9 / 40, 0, 0, 0, 0, 0],
            [44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0],
            [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0],
            [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0],
            [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
        ],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
    ),
}
TABLEAUS = {name: (np.array(a, float), np.array(b, float)) for name, (a, b) in TABLEAUS.items()}

@pytest.fixture(autouse=True)
def one_thread():
    """Small tensors gain nothing from threads, and tests share the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


needs_kernel = pytest.mark.skipif(not status().available, reason=status().reason)


class Problem:
    """A random initial value problem of an ensemble, with one cotangent of z(T)."""

    def __init__(self, seed=0, members=2, batch=20, positions=1, channels=2, widths=(48, 48),
                 window=1, n_steps=(4,), tableau="rk4"):
        g = torch.Generator().manual_seed(seed)
        self.positions, self.window, self.tableau = positions, window, TABLEAUS[tableau]

        def normal(*shape, scale=1.0):
            return scale * torch.randn(shape, generator=g)

        def weight(taps, n_in, n_out):
            return normal(members, taps * n_in, n_out, scale=(taps * n_in) ** -0.5)

        w1, w2 = widths
        self.z0 = normal(members, batch, positions * channels)
        self.parameters = [
            weight(1, channels, w1), normal(members, w1, scale=0.1),
            weight(window, w1, w2), normal(members, w2, scale=0.1),
            weight(1, w2, channels), normal(members, channels, scale=0.1),
        ]
        self.cotangent = normal(*self.z0.shape)
        self.n_steps = torch.tensor([n_steps[m % len(n_steps)] for m in range(members)])
        # the last step is shorter unless the member takes only one
        self.step_size = 1 / (self.n_steps.double() - 0.3)
        self.last_step = 1 - (self.n_steps - 1) * self.step_size

    def inputs(self, dtype=torch.float32):
        return [t.detach().clone().to(dtype).requires_grad_() for t in (self.z0, *self.parameters)]

    def fused(self, z0, *p):
        layers = (BlockLayer(p[0], p[1]), BlockLayer(p[2], p[3], self.window), BlockLayer(p[4], p[5]))
        return solve_fused(z0, layers, *self.tableau, self.n_steps, self.step_size, self.last_step,
                           self.positions)

    def reference(self, z0, *p, slope_from=0.0):
        """The same solve in plain torch, all members at once; a finished member steps by 0."""
        a, b = self.tableau
        w1, b1, w2, b2, w3, b3 = p
        p, radius = self.positions, self.window // 2

        def affine(x, w, bias):
            members, batch, positions, _ = x.shape
            rows = x.reshape(members, batch * positions, -1)
            return (rows @ w + bias[:, None]).reshape(members, batch, positions, -1)

        def field(y):
            x = affine(y.reshape(*y.shape[:2], p, -1), w1, b1)
            x = torch.nn.functional.pad(relu(x, slope_from), (0, 0, radius, radius))
            x = torch.cat([x[:, :, tap : tap + p] for tap in range(self.window)], dim=-1)
            return affine(relu(affine(x, w2, b2), slope_from), w3, b3).reshape(y.shape)

        z = z0
        for step in range(int(self.n_steps.max())):
            h = torch.where(step == self.n_steps - 1, self.last_step, self.step_size)
            h = torch.where(step < self.n_steps, h, 0.0).to(z.dtype)[:, None, None]
            k = []
            for i in range(len(b)):
                k.append(field(z + h * sum((a[i, j] * k[j] for j in range(i) if a[i, j]), 0 * z)))
            z = z + h * sum(b[i] * k[i] for i in range(len(b)))
        return z

    def results(self, solve, dtype=torch.float32):
        """z(T) and the gradients with respect to z0, weights and biases."""
        inputs = self.inputs(dtype)
        z = solve(*inputs)
        return [z.detach(), *torch.autograd.grad(z, inputs, self.cotangent.to(dtype))]

    def assert_as_good_as_torch(self, factor=4):
        exact = self.results(self.reference, torch.float64)
        plain = self.results(self.reference)
        fused = self.results(self.fused)
        # A unit within rounding of zero may count as on or off: what that choice can change.
        on, off = (
            self.results(lambda *t, tau=tau: self.reference(*t, slope_from=tau), torch.float64)
            for tau in (-KINK, KINK)
        )
        names = ["z(T)", "dz0", "dw1", "db1", "dw2", "db2", "dw3", "db3"]
        for name, e, f, x, y in zip(names, exact, fused, on, off, strict=True):
            assert (f - e).norm() <= 1e-4 * e.norm() + (x - y).norm() + 1e-6, name
        assert distance(fused[:1], exact[:1]) <= factor * max(distance(plain[:1], exact[:1]), ROUNDINGS)
        allowed = factor * max(distance(plain[1:], exact[1:]), ROUNDINGS) + distance(on[1:], off[1:])
        assert distance(fused[1:], exact[1:]) <= allowed


KINK = 2e-6
ROUNDINGS = 2.5e-7  # two float32 roundings, where torch is luckier than that


def relu(x, slope_from):
    """relu(x) whose gradient is 1 where x > slope_from."""
    on = x * (x > slope_from)
    return on + (torch.relu(x) - on).detach()


def distance(tensors, others):
    """The norm of all differences together, relative to the others."""
    pairs = list(zip(tensors, others, strict=True))
    difference = sum(float((x - y).norm()) ** 2 for x, y in pairs)
    return (difference / sum(float(y.norm()) ** 2 for _, y in pairs)) ** 0.5


@needs_kernel
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    members=st.integers(1, 7),
    batch=st.integers(1, 300),
    shape=st.sampled_from([(1, 1, 1), (1, 2, 1), (1, 5, 1), (2, 1, 3), (3, 1, 3), (10, 1, 3), (4, 2, 3)]),
    widths=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    n_steps=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    tableau=st.sampled_from(sorted(TABLEAUS)),
)
def test_random_shapes(seed, members, batch, shape, widths, n_steps, tableau):
    positions, channels, window = shape
    # the reference does the same in float64, three times: keep it affordable
    evaluation = members * batch * positions * (window * widths[0] + 3) * (widths[1] + 3)
    most = max(1, 50_000_000 // (evaluation * len(TABLEAUS[tableau][1])))
    n_steps = [min(n, most) for n in n_steps]
    problem = Problem(seed, members, batch, positions, channels, widths, window, n_steps, tableau)
    problem.assert_as_good_as_torch()
