"""The fused kernel against an independent float64 reference, and everything that may go wrong."""

import ctypes
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs_kernel
from safetensors.torch import load_file
from torch.nn import functional

from nodecore.analysis.evaluate import accuracy
from nodecore.ode import kernels
from nodecore.ode.kernels import (
    BlockLayer,
    build,
    fused,
    solve_fused,
    solve_fused_adaptive,
    status,
    structs,
)
from nodecore.ode.kernels.selfcheck import CONTROL
from nodecore.ode.steps import FixedSteps
from nodecore.training.loop import train
from nodecore.training.protocols import get_protocol

TABLEAUS = {
    "euler": ([[0]], [1]),
    "midpoint": ([[0, 0], [1 / 2, 0]], [0, 1]),
    "rk4": (
        [[0, 0, 0, 0], [1 / 2, 0, 0, 0], [0, 1 / 2, 0, 0], [0, 0, 1, 0]],
        np.ones(4) / [6, 3, 3, 6],
    ),
    "rk4_38": (
        [[0, 0, 0, 0], [1 / 3, 0, 0, 0], [-1 / 3, 1, 0, 0], [1, -1, 1, 0]],
        np.array([1, 3, 3, 1]) / 8,
    ),
    "fehlberg21": (
        [[0, 0, 0], [1 / 2, 0, 0], [1 / 256, 255 / 256, 0]],
        [1 / 512, 255 / 256, 1 / 512],
    ),
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
ERROR_WEIGHTS = {  # by the number of stages
    3: [-1 / 512, 0, 1 / 512],
    7: [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40],
}
TABLEAUS = {name: (np.array(a, float), np.array(b, float)) for name, (a, b) in TABLEAUS.items()}


# Only a missing compiler excuses: a kernel that does not build or pass its self-check is a failure.


@needs_kernel
def test_status():
    assert status().available, status().reason


class Problem:
    """A random initial value problem of an ensemble, with one cotangent of z(T)."""

    def __init__(
        self,
        seed=0,
        members=2,
        batch=20,
        sample=(2,),
        widths=(48, 48),
        taps=1,
        n_steps=(4,),
        tableau="rk4",
        tolerance=1e-3,
        steepness=1.0,
        per_sample=False,
    ):
        g = torch.Generator().manual_seed(seed)
        self.taps, self.tableau = taps, TABLEAUS[tableau]
        self.tolerance, self.per_sample = tolerance, per_sample

        def normal(*shape, scale=1.0):
            return scale * torch.randn(shape, generator=g)

        def weight(taps, n_in, n_out):
            scale = (taps * n_in) ** -0.5
            if self.taps == 9:  # as conv2d has them
                size = 3 if taps == 9 else 1
                return normal(members, n_out, n_in, size, size, scale=scale)
            return normal(members, taps * n_in, n_out, scale=scale)

        w1, w2 = widths
        channels = sample[0] if taps == 1 else 1
        self.z0 = normal(members, batch, *sample)
        self.parameters = [
            weight(1, channels, w1),
            normal(members, w1, scale=0.1),
            weight(taps, w1, w2),
            normal(members, w2, scale=0.1),
            steepness * weight(1, w2, channels),
            normal(members, channels, scale=0.1),
        ]
        self.cotangent = normal(*self.z0.shape)
        self.n_steps = torch.tensor([n_steps[m % len(n_steps)] for m in range(members)])
        # steps of many sizes, and none where a member has arrived
        sizes = 0.3 + torch.rand(members, max(self.n_steps), generator=g, dtype=torch.float64)
        sizes[torch.arange(sizes.shape[1]) >= self.n_steps[:, None]] = 0.0
        self.step_sizes = sizes / sizes.sum(1, keepdim=True)

    def inputs(self, dtype=torch.float32):
        return [t.detach().clone().to(dtype).requires_grad_() for t in (self.z0, *self.parameters)]

    def layers(self, *p):
        return BlockLayer(p[0], p[1]), BlockLayer(p[2], p[3], self.taps), BlockLayer(p[4], p[5])

    def fused(self, z0, *p):
        return solve_fused(z0, self.layers(*p), *self.tableau, self.n_steps, self.step_sizes)

    def adaptive(self, z0, *p):
        """In steps of each member's or sample's own, which then are those of the other solves."""
        layers = self.layers(*p)
        a, b = self.tableau
        same_as_last = bool(b[-1] == 0)
        stages = len(b) - same_as_last
        control = CONTROL._replace(
            b_error=ERROR_WEIGHTS[len(b)],
            same_as_last=same_as_last,
            exponent={3: -1 / 2, 7: -1 / 5}[len(b)],
            rtol=self.tolerance,
            atol=self.tolerance,
            first_step=0.7,
            max_steps=200,
            per_sample=self.per_sample,
        )
        a, b = a[:stages, :stages], b[:stages]
        z, self.walk = solve_fused_adaptive(z0, layers, a, b, control)
        self.n_steps = self.walk.n_steps.clamp(min=1)
        most = int(self.n_steps.max())
        self.step_sizes = self.walk.step_sizes[..., :most].clone()
        self.step_sizes[torch.arange(most) >= self.walk.n_steps[..., None]] = 0.0
        return z

    def reference(self, z0, *p, slope_from=0.0):
        """The same solve in plain torch, all members at once; a finished member steps by 0."""
        a, b = self.tableau

        def field(y):
            return torch.stack(
                [self.of_member(x, [q[m] for q in p], slope_from) for m, x in enumerate(y)]
            )

        z = z0
        for step in range(int(self.n_steps.max())):
            h = self.step_sizes[..., step].to(z.dtype)
            h = h.view(*h.shape, *[1] * (z.dim() - h.dim()))
            k = []
            for i in range(len(b)):
                k.append(field(z + h * sum((a[i, j] * k[j] for j in range(i) if a[i, j]), 0 * z)))
            z = z + h * sum(b[i] * k[i] for i in range(len(b)))
        return z

    def of_member(self, y, p, slope_from):
        """One member's field at y, (batch, ...) as the states are."""
        w1, b1, w2, b2, w3, b3 = p
        if self.taps == 1:
            x = relu(relu(y @ w1 + b1, slope_from) @ w2 + b2, slope_from)
            return x @ w3 + b3
        if self.taps == 3:
            w1, w2, w3 = (
                w.view(t, -1, w.shape[1]).permute(2, 1, 0)
                for w, t in zip((w1, w2, w3), (1, 3, 1), strict=True)
            )
            x = relu(functional.conv1d(y[:, None], w1, b1), slope_from)
            x = relu(functional.conv1d(x, w2, b2, padding=1), slope_from)
            return functional.conv1d(x, w3, b3)[:, 0]
        x = relu(functional.conv2d(y, w1, b1), slope_from)
        x = relu(functional.conv2d(x, w2, b2, padding=1), slope_from)
        return functional.conv2d(x, w3, b3)

    def results(self, solve, dtype=torch.float32):
        """z(T) and the gradients with respect to z0, weights and biases."""
        inputs = self.inputs(dtype)
        z = solve(*inputs)
        return [z.detach(), *torch.autograd.grad(z, inputs, self.cotangent.to(dtype))]

    def assert_as_good_as_torch(self, factor=4, solve=None):
        fused = self.results(solve or self.fused)
        exact = self.results(self.reference, torch.float64)
        plain = self.results(self.reference)
        # A unit within rounding of zero may count as on or off: what that choice can change.
        on, off = (
            self.results(lambda *t, tau=tau: self.reference(*t, slope_from=tau), torch.float64)
            for tau in (-KINK, KINK)
        )
        for name, e, f, x, y in zip(NAMES, exact, fused, on, off, strict=True):
            assert (f - e).norm() <= 1e-4 * e.norm() + (x - y).norm() + 1e-6, name
        assert distance(fused[:1], exact[:1]) <= factor * max(
            distance(plain[:1], exact[:1]), ROUNDINGS
        )
        allowed = factor * max(distance(plain[1:], exact[1:]), ROUNDINGS) + distance(
            on[1:], off[1:]
        )
        assert distance(fused[1:], exact[1:]) <= allowed


KINDS = {
    "dense": {"sample": (3,)},
    # Two numbers and many evaluations: through cells.
    "cells": {"n_steps": (70, 30), "widths": (41, 60)},
    "row": {"sample": (5,), "taps": 3},
    "image": {"sample": (1, 3, 4), "taps": 9},
}
NAMES = ["z(T)", "dz0", "dw1", "db1", "dw2", "db2", "dw3", "db3"]
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
@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    members=st.integers(1, 7),
    batch=st.integers(1, 300),
    shape=st.sampled_from(
        [
            *((1, 1), (1, 2), (1, 2), (1, 2), (1, 5)),
            *((3, 1), (3, 2), (3, 3), (3, 10)),
            *((9, 1, 1, 1), (9, 1, 1, 6), (9, 1, 5, 1), (9, 1, 4, 3), (9, 1, 7, 8)),
        ]
    ),
    widths=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    n_steps=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    tableau=st.sampled_from(sorted(TABLEAUS)),
)
def test_random_shapes(seed, members, batch, shape, widths, n_steps, tableau):
    taps, *sample = shape
    # the reference does the same in float64, three times: keep it affordable
    evaluation = members * batch * math.prod(sample) * (taps * widths[0] + 3) * (widths[1] + 3)
    most = max(1, 12_000_000 // (evaluation * len(TABLEAUS[tableau][1])))
    n_steps = [min(n, most) for n in n_steps]
    problem = Problem(seed, members, batch, sample, widths, taps, n_steps, tableau)
    problem.assert_as_good_as_torch()


@needs_kernel
@pytest.mark.parametrize(
    "sizes",
    [
        {"widths": (320, 320), "batch": 70},
        {"widths": (320, 17), "batch": 9, "tableau": "dopri5"},
        {"sample": (9,), "widths": (5, 70)},
        {"sample": (900,), "taps": 3, "widths": (32, 32), "batch": 3},
        {"sample": (3,), "taps": 3, "widths": (200, 30), "batch": 200, "tableau": "euler"},
        {"sample": (1, 28, 28), "taps": 9, "widths": (96, 96), "batch": 2, "tableau": "euler"},
    ],
    ids=["wide", "wide then narrow", "many channels", "900-D", "many intervals", "image"],
)
def test_large_shapes(sizes):
    Problem(n_steps=(2, 3), **sizes).assert_as_good_as_torch()


@needs_kernel
def test_recomputing_the_hidden_map_gives_the_same_bits(monkeypatch):
    problem = Problem()
    kept = problem.results(problem.fused)
    monkeypatch.setattr(fused, "HIDDEN_BYTES", 0)
    assert_identical(kept, problem.results(problem.fused))


@needs_kernel
@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_the_number_of_threads(kind):
    sizes = {"n_steps": (3, 9), "widths": (40, 56)} | KINDS[kind]
    problem = Problem(members=3, batch=300, **sizes)
    runs = []
    for threads in (1, 2, 4, 1):
        torch.set_num_threads(threads)
        runs.append(problem.results(problem.fused))
    for run in runs[1:]:
        assert_identical(runs[0], run)


@needs_kernel
@pytest.mark.parametrize("kind", ["dense", "cells"])
def test_several_python_threads_at_once(kind):
    problem = Problem(members=3, batch=300, **KINDS[kind])
    expected = problem.results(problem.fused)
    torch.set_num_threads(2)
    runs = [None] * 6

    def solve(i):
        runs[i] = problem.results(problem.fused)

    threads = [threading.Thread(target=solve, args=(i,)) for i in range(len(runs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for run in runs:
        assert_identical(expected, run)


@needs_kernel
@pytest.mark.parametrize("kind", KINDS)
def test_no_grad_stores_nothing_and_gives_the_same_bits(monkeypatch, kind):
    problem = Problem(**KINDS[kind])
    inputs = problem.inputs()
    with_graph = problem.fused(*inputs)
    monkeypatch.setattr(fused, "_Tape", None)
    with torch.no_grad():
        z = problem.fused(*inputs)
    assert not z.requires_grad
    assert_identical([with_graph], [z])


@needs_kernel
@pytest.mark.parametrize("kind", ["dense", "cells"])
def test_open_graphs_do_not_share_memory(kind):
    first, second = (Problem(seed, **KINDS[kind]) for seed in (1, 2))
    expected = [first.results(first.fused), second.results(second.fused)]
    inputs = [first.inputs(), second.inputs()]
    z1, z2 = first.fused(*inputs[0]), second.fused(*inputs[1])
    for _ in range(2):  # the graph may be walked twice
        assert_identical(
            expected[1][1:], torch.autograd.grad(z2, inputs[1], second.cotangent, True)
        )
        assert_identical(expected[0][1:], torch.autograd.grad(z1, inputs[0], first.cotangent, True))


@needs_kernel
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", KINDS)
def test_nan_in_nan_out(kind, bad):
    problem = Problem(members=3, batch=50, **KINDS[kind])
    clean = problem.results(problem.fused)
    problem.z0[1, 49] = bad
    z, dz0, *rest = problem.results(problem.fused)
    assert not z[1, 49].isfinite().any()
    if kind in ("dense", "cells"):  # the tables give gradients that are not finite to other units
        other = problem.results(problem.reference)
        for ours, theirs in zip([z, *rest], other[:1] + other[2:], strict=True):
            assert torch.equal(ours.isfinite(), theirs.isfinite())
    assert_identical([clean[0][1, :49], clean[1][1, :49]], [z[1, :49], dz0[1, :49]])
    for before, after in zip(clean[2:], rest, strict=True):
        assert_identical([before[0], before[2]], [after[0], after[2]])


@needs_kernel
@pytest.mark.parametrize("kind", KINDS)
def test_nan_weight(kind):
    problem = Problem(**KINDS[kind])
    problem.parameters[2][0, 5, 7] = float("nan")
    z, *gradients = problem.results(problem.fused)
    assert z[0].isnan().all() and z[1].isfinite().all()
    assert all(g[0].isnan().any() and g[1].isfinite().all() for g in gradients)


@needs_kernel
@pytest.mark.parametrize("kind", KINDS)
def test_slope_of_relu_at_zero_is_zero(kind):
    problem = Problem(**({"n_steps": (1,)} | KINDS[kind]), tableau="euler")
    for p in problem.parameters[:2]:
        p.zero_()  # every first unit is exactly 0
    assert_close = torch.testing.assert_close
    for f, e in zip(
        problem.results(problem.fused), problem.results(problem.reference), strict=True
    ):
        assert_close(f, e, rtol=1e-5, atol=1e-5)


# First layers whose units (7 of them) break where tables could go wrong.
BREAKS = {
    "all at 0": ([1, -1, 2, -2, 0.5, -0.5, 3], [0] * 7),
    "slope 0": ([0, 0, 0, -0.0, 1, -1, 0], [1, -1, 0, 2, 0.1, 0.1, 0]),
    "tiny slopes": ([1e-30, -1e-30, 1e-42, -1e-42, 1e-45, -1e-8, 1e-8], [0.1, 0.1, 1, 1, -1, 0, 0]),
    "equal": ([1, 1, 2, -1, -2, 0.5, 1], [0.25, 0.25, 0.5, -0.25, -0.5, 0.125, 0.25]),
    "far away": ([1e-3, -1e-3, 1e-3, -1e-3, 1, -1, 1], [9e6, 9e6, -9e6, -9e6, 1e4, 1e4, -1e4]),
    "denormal": ([1, -1, 1, -1, 1, 1, -1], [1e-45, -1e-45, -1e-40, 1e-40, 0, -1e-45, 1e-38]),
}
# Numbers of a state, all on which a break of the above lies among them, and others.
STATES = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 0.25, -0.25, 1.0, -3.0, 1e4, -1e4, 9e9, -9e9]


@needs_kernel
@pytest.mark.parametrize("kind", ["cells", "row", "image"])
@pytest.mark.parametrize("breaks", BREAKS)
def test_breaks_where_tables_could_go_wrong(kind, breaks):
    # Only the first step has a size. The others are for cells, which take many evaluations.
    steps, batch = {"cells": (8, 130)}.get(kind, (1, 13))
    sizes = {"widths": (7, 9), "members": 1, "batch": batch, "n_steps": (steps,)}
    problem = Problem(**{**KINDS[kind], **sizes}, tableau="euler")
    problem.step_sizes[:] = torch.eye(1, steps, dtype=torch.float64)
    slopes, intercepts = (torch.tensor(values) for values in BREAKS[breaks])
    w1, b1 = problem.parameters[:2]
    w1[:], b1[:] = slopes.view_as(w1[:, :1] if kind == "cells" else w1), intercepts
    # Each sample is flat: at each position every unit then is as far from its break as torch's.
    problem.z0[:] = torch.tensor(STATES * (batch // 13)).view(1, -1, *[1] * (problem.z0.dim() - 2))
    if kind == "cells":  # or it lies on an axis
        problem.z0[:, ::2, 0], problem.z0[:, 1::2, 1] = 0, -0.0
    scale = problem.z0.abs().clamp(min=1e-3)
    ours, exact = problem.results(problem.fused), problem.results(problem.reference, torch.float64)
    assert ((ours[0] - exact[0]) / scale).abs().max() < 1e-4 * exact[0].div(scale).abs().max()
    plain = problem.results(problem.reference)
    for name, mine, its, theirs in zip(
        ["dz", "w1", "b1", "w2", "b2", "w3", "b3"], ours[1:], exact[1:], plain[1:], strict=True
    ):
        bound = 4 * (theirs - its).abs().max() + 1e-6 * its.abs().max()
        assert (mine - its).abs().max() <= bound, name


@needs_kernel
@pytest.mark.parametrize("kind", ["cells", "row"])
def test_denormals_count_where_they_are_flushed(kind):
    """A unit without bias is inactive at 0 even if the processor takes denormals for 0."""
    problem = Problem(**({"n_steps": (1,)} | KINDS[kind]), tableau="euler")
    problem.parameters[1].zero_()
    problem.z0[:, ::2] = 0.0
    expected = problem.results(problem.fused)
    assert torch.set_flush_denormal(True)
    try:
        assert_identical(expected, problem.results(problem.fused))
    finally:
        torch.set_flush_denormal(False)


# First layers whose lines lie where cells could go wrong: weights and bias of the units in turn.
LINES = {
    "all through 0": [(1, 0.5, 0), (-1, 2, 0), (0.3, -1, 0), (-2, -2, 0)],
    "equal": [(1, -1, 0.2)],
    "equal and opposite": [(1, -1, 0.2), (-1, 1, -0.2)],
    "multiples": [(1, 1, 0.5), (2, 2, 1), (-0.5, -0.5, -0.25)],
    "none": [(0, 0, 0), (0, 0, -1)],
    "dead": [(1, 1, -1e3), (0.1, -0.1, -1e4)],
    "always active": [(1, -2, 30), (0, 0, 1)],
    "tiny": [(1, 1, -1e3), (1e-30, 1e-42, 0), (1e-3, -1, 0.1)],
    "steep": [(100, -100, 1), (100, 100, -10), (1, 2, 0)],
    "along the axes": [(1, 0, 0), (0, 1, 0), (-1, 0, 0.5), (0, -1, 0)],
}


@needs_kernel
@pytest.mark.parametrize("second", ["as it is", "dead", "always 0"])
@pytest.mark.parametrize("lines", LINES)
def test_lines_where_cells_could_go_wrong(lines, second):
    problem = Problem(batch=40, widths=(21, 34), n_steps=(30, 45), tableau="euler")
    w1, b1, w2, b2, *_ = problem.parameters
    rows = torch.tensor(LINES[lines] * 21, dtype=torch.float32)[:21]
    w1[:], b1[:] = rows[:, :2].T, rows[:, 2]
    w2 /= max(1.0, float(w1.abs().max()))
    if second == "dead":
        b2[:, ::2] = -1e4
    if second == "always 0":
        w2[:, :, ::3], b2[:, ::3] = 0, 0
    problem.z0[:, :4] = 0
    problem.assert_as_good_as_torch()


@needs_kernel
@pytest.mark.parametrize("where", [0.0, -0.0])
def test_states_at_rest_where_all_lines_meet(where):
    problem = Problem(**KINDS["cells"])
    problem.z0[:] = where
    for bias in problem.parameters[1::2]:
        bias.zero_()
    results = problem.results(problem.fused), problem.results(problem.reference)
    for ours, its in zip(*results, strict=True):
        torch.testing.assert_close(ours, its, rtol=1e-5, atol=1e-6)


@needs_kernel
@pytest.mark.parametrize(
    "sizes",
    [
        {"widths": (1, 1)},
        {"widths": (1, 64)},
        {"widths": (64, 1), "batch": 129},
        {"widths": (64, 64), "n_steps": (300,), "tableau": "euler", "members": 1},
        {"widths": (64, 7), "batch": 1, "n_steps": (1100,), "tableau": "euler", "members": 1},
        {"batch": 1000, "members": 1, "n_steps": (8,), "tableau": "dopri5"},
    ],
    ids=str,
)
def test_shapes_of_walks_through_cells(sizes):
    sizes = {"batch": 20, "n_steps": (40,), "tableau": "rk4_38"} | sizes
    Problem(**sizes).assert_as_good_as_torch()


@needs_kernel
@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_small_and_large_states_in_cells(scale):
    problem = Problem(**KINDS["cells"], tableau="euler")
    problem.z0 *= scale
    problem.assert_as_good_as_torch()


TRAINED = Path(__file__).parents[2] / "book/results/landscape-euler/paper"


@needs_kernel
@pytest.mark.parametrize("name", ["K4", "K256"])
def test_trained_weights_in_cells(name):
    weights = load_file(TRAINED / f"euler-{name}-seeds0-4.safetensors")
    problem = Problem(members=5, batch=128, n_steps=(40,), tableau="euler")
    problem.parameters = [
        weights[f"field.{layer}.{i}"] for layer in ("first", "second", "third") for i in (0, 1)
    ]
    problem.assert_as_good_as_torch()


def plan_of(problem):
    """The checked solve of a problem, and its tensors."""
    tensors = [problem.z0, *problem.parameters]
    steps = problem.n_steps, problem.step_sizes
    layers = problem.layers(*problem.parameters)
    return fused.FusedSolve(problem.z0, layers, *problem.tableau, *steps), tensors


@needs_kernel
def test_more_regions_than_fit_16_bits():
    """States on a line on which 40 units are 0 but for rounding: each is in a cell of its own."""
    steps, random = 600, torch.Generator().manual_seed(0)
    sizes = {"members": 1, "batch": 128, "widths": (64, 20), "n_steps": (steps,)}
    problem = Problem(tableau="euler", **sizes)
    w1, b1, _, _, w3, b3 = problem.parameters
    # Every state is exactly (1, 1) + time (3, -2), and c (2, 3) at right angles to that.
    c = torch.randint(2**19, 2**20, (40,), generator=random) / 2**20
    w1[0, :, :40], b1[0, :40] = c * torch.tensor([[2.0], [3.0]]), -5 * c
    w3[:], b3[:] = 0, torch.tensor([3.0, -2.0])
    time = torch.randint(-(2**14), 2**14, (steps + 128,), generator=random) / 2**14
    problem.step_sizes = time[:steps].double().diff(prepend=torch.zeros(1))[None]
    problem.z0[0] = 1 + time[steps:, None] * b3
    problem.assert_as_good_as_torch()
    plan, tensors = plan_of(problem)
    tape = plan.tape()
    plan.forward(tensors, tape)
    counts = 3 * 128 * steps  # behind the states and the numbers of their regions
    cells, regions = tape.memory[counts : counts + 4].view(torch.int64).tolist()
    assert 65_535 < cells <= regions


@needs_kernel
def test_what_a_walk_through_cells_keeps():
    """12 bytes for an evaluation of a sample and room for 40; a short walk keeps hidden units."""

    def floats(steps):
        sizes = {"members": 3, "batch": 128, "widths": (48, 48), "tableau": "euler"}
        plan, _ = plan_of(Problem(n_steps=(steps,), **sizes))
        plan.tape()
        return plan.kernel.nodecore_tape_floats(ctypes.byref(plan.problem))

    assert floats(64) == 3 * (64 * 128 * (12 + 40) // 4 + 16)
    assert floats(1) == 3 * 128 * (2 + 48)


@needs_kernel
def test_how_a_member_is_solved_does_not_depend_on_the_others():
    sizes = {"members": 3, "batch": 50, "n_steps": (2, 90, 1)}  # one of them through cells
    together, alone = Problem(**sizes), Problem(**sizes)
    results = together.results(together.fused)
    for m in range(3):
        one = slice(m, m + 1)
        alone.z0, alone.cotangent = together.z0[one], together.cotangent[one]
        alone.parameters = [p[one] for p in together.parameters]
        alone.n_steps = together.n_steps[one]
        alone.step_sizes = together.step_sizes[one, : int(alone.n_steps)].contiguous()
        assert_identical([r[one] for r in results], alone.results(alone.fused))


ADAPTIVE = [
    {"tableau": "fehlberg21", "members": 3, "batch": 150, "steepness": 3},
    {"tableau": "fehlberg21", "sample": (3,), "taps": 3, "widths": (17, 20)},
    {"tableau": "fehlberg21", "sample": (1, 5, 3), "taps": 9, "widths": (11, 20), "steepness": 3},
    {"tableau": "dopri5", "members": 3, "batch": 150, "widths": (40, 56), "steepness": 9},
    {"tableau": "dopri5", "sample": (2,), "taps": 3, "batch": 150, "steepness": 3},
]


@needs_kernel
@pytest.mark.parametrize("sizes", ADAPTIVE, ids=str)
@pytest.mark.parametrize("tolerance", [1e-1, 1e-5])
@pytest.mark.parametrize("per_sample", [False, True])
def test_adaptive_steps_are_as_good_as_torchs_through_the_same_steps(sizes, tolerance, per_sample):
    problem = Problem(tolerance=tolerance, per_sample=per_sample, **sizes)
    problem.assert_as_good_as_torch(solve=problem.adaptive)
    shape = problem.z0.shape[: 2 if per_sample else 1]
    assert problem.walk.state.shape == shape and not problem.walk.state.any()
    torch.testing.assert_close(problem.step_sizes.sum(-1), torch.ones(shape).double())
    rejected = problem.walk.rejected.reshape(len(problem.z0), -1)
    assert tolerance > 1e-5 or bool((rejected > 0).any(1).all())


@needs_kernel
@pytest.mark.parametrize(
    "sizes",
    [*ADAPTIVE[::2], {**ADAPTIVE[3], "per_sample": True}, {**ADAPTIVE[4], "per_sample": True}],
    ids=str,
)
def test_the_bits_of_adaptive_steps_depend_on_nothing_else(monkeypatch, sizes):
    def run():
        problem = Problem(tolerance=1e-5, **sizes)
        results = problem.results(problem.adaptive)
        return [*results, problem.step_sizes, problem.walk.nfe, problem.walk.rejected]

    runs = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        runs.append(run())
    assert runs[0][-3].shape[-1] > 4
    monkeypatch.setattr(fused.FusedAdaptive, "FIRST_STEPS", 1)  # the tape has to grow
    runs.append(run())
    monkeypatch.setattr(fused, "HIDDEN_BYTES", 0)
    runs.append(run())
    for other in runs[1:]:
        assert_identical(runs[0], other)
    problem = Problem(tolerance=1e-5, **sizes)
    with torch.no_grad():
        assert_identical(runs[0][:1], [problem.adaptive(*problem.inputs())])


@needs_kernel
@pytest.mark.parametrize(
    ("bad", "end"), [(float("nan"), "not finite"), (float("inf"), "not finite"), (100.0, "spent")]
)
def test_an_adaptive_member_that_fails_leaves_the_others_alone(bad, end):
    sizes = {"members": 3, "batch": 50, "tableau": "fehlberg21", "tolerance": 1e-4}
    clean, poisoned = Problem(**sizes), Problem(**sizes)
    poisoned.parameters[4][1] *= bad
    results = [p.results(p.adaptive) for p in (clean, poisoned)]
    assert [fused.ENDS[i] for i in poisoned.walk.state] == ["arrived", end, "arrived"]
    for before, after in zip(*results, strict=True):
        assert_identical([before[0], before[2]], [after[0], after[2]])
    for name in ("nfe", "n_steps", "rejected", "time"):
        ours, its = (getattr(p.walk, name)[[0, 2]] for p in (clean, poisoned))
        assert torch.equal(ours, its), name


@needs_kernel
@pytest.mark.parametrize("tableau", ["fehlberg21", "dopri5"])
def test_a_sample_that_fails_leaves_the_others_alone(tableau):
    sizes = {"members": 2, "batch": 50, "tableau": tableau, "per_sample": True}
    clean, poisoned = Problem(**sizes), Problem(**sizes)
    poisoned.z0[1, 7] = float("nan")
    others = torch.ones(2, 50, dtype=bool)
    others[1, 7] = False
    ends = [p.results(p.adaptive) for p in (clean, poisoned)]
    assert fused.ENDS[poisoned.walk.state[1, 7]] == "not finite"
    assert not poisoned.walk.state[others].any()
    assert_identical(*[[z[others], dz0[others]] for z, dz0, *_ in ends])
    assert_identical(*[[g[0] for g in gradients] for _, _, *gradients in ends])
    for name in ("nfe", "n_steps", "rejected", "time"):
        assert_identical(*[[getattr(p.walk, name)[others]] for p in (clean, poisoned)])


@needs_kernel
def test_a_wrong_error_estimate_is_refused(monkeypatch):
    problem = Problem(tableau="dopri5")
    monkeypatch.setitem(ERROR_WEIGHTS, 7, ERROR_WEIGHTS[7][:-1])
    with pytest.raises(ValueError, match=r"b_error has 6 entries for 6 stages; .* same_as_last"):
        problem.adaptive(*problem.inputs())


BAD_INPUT = {
    "dtype of z0": (
        {"z0": lambda z: z.double()},
        r"z0 has dtype torch.float64: .*\.to\(torch.float32",
    ),
    "device of z0": ({"z0": lambda z: z.to("meta")}, "z0 is on meta: move it to the CPU"),
    "rank of z0": ({"z0": lambda z: z[0]}, r"z0 has shape \(20, 2\): give \(members"),
    "strides of z0": (
        {"z0": lambda z: z.mT.contiguous().mT},
        r"z0 is not contiguous .*contiguous\(\)",
    ),
    "empty batch": ({"z0": lambda z: z[:, :0]}, r"z0 has shape \(2, 0, 2\)"),
    "shape of a weight": ({"w2": lambda w: w[:, 1:]}, r"layers\[1\].weight has shape .* expected"),
    "strides of a weight": ({"w2": lambda w: w.mT}, r"layers\[1\].weight is not contiguous"),
    "members of a bias": ({"b3": lambda b: b[:1]}, r"layers\[2\].bias has shape \(1, 2\)"),
    "taps": ({"taps": lambda _: 2}, "the second with 1, 3 or 9 taps"),
    "an image that is none": ({"taps": lambda _: 9}, r"give \(members, batch, 1, height, width"),
    "no steps": ({"n_steps": lambda n: n * 0}, r"n_steps = \[0, 0\]: every member needs"),
    "dtype of n_steps": ({"n_steps": lambda n: n.int()}, "n_steps has dtype torch.int32"),
    "rows of step sizes": (
        {"step_sizes": lambda h: h[:1]},
        r"step_sizes has shape \(1, 4\): expected \(2, 4\)",
    ),
    "too few step sizes": (
        {"step_sizes": lambda h: h[:, 1:]},
        r"step_sizes has shape \(2, 3\): expected \(2, 4\)",
    ),
    "implicit tableau": ({"a": lambda a: a.T}, "not strictly lower triangular"),
    "tableau shapes": ({"b": lambda b: b[:2]}, r"tableau_a has shape \(4, 4\), tableau_b \(2,\)"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_named(case):
    changes, message = BAD_INPUT[case]
    problem = Problem()
    names = ["z0", "w1", "b1", "w2", "b2", "w3", "b3"]
    values = dict(zip(names, [problem.z0, *problem.parameters], strict=True))
    values |= {"a": problem.tableau[0], "b": problem.tableau[1], "taps": 1}
    values |= {name: getattr(problem, name) for name in ("n_steps", "step_sizes")}
    values |= {name: change(values[name]) for name, change in changes.items()}
    v = values
    layers = (
        BlockLayer(v["w1"], v["b1"]),
        BlockLayer(v["w2"], v["b2"], v["taps"]),
        BlockLayer(v["w3"], v["b3"]),
    )
    with pytest.raises(ValueError, match=message):
        solve_fused(v["z0"], layers, v["a"], v["b"], v["n_steps"], v["step_sizes"])


@needs_kernel
def test_a_training_ends_where_the_torch_path_does():
    """1,000 iterations: most members within 1e-4 of their weights' norm, all of them in accuracy.

    Rounding alone parts a member now and then: where it carries a ReLU over its kink, or where Adam
    turns a gradient of nothing but rounding into a whole step.
    """
    protocol = replace(get_protocol("spheres2"), iterations=1000, n_train=512, batch_size=32)
    ours, theirs = (
        train(
            protocol,
            FixedSteps("euler", 2),
            range(6),
            backend=backend,
            progress=False,
            device="cpu",
        )
        for backend in ("fused", "torch")
    )
    assert [ours.backend, theirs.backend] == ["fused", "torch"]
    pairs = [(run.field.state_dict().values(), m) for run in (ours, theirs) for m in range(6)]
    weights = [[p[m] for p in parameters] for parameters, m in pairs]
    distances = [distance(a, b) for a, b in zip(weights[:6], weights[6:], strict=True)]
    assert sorted(distances)[2] < 1e-4, distances
    setting, (training, _) = FixedSteps("euler", 2), protocol.load()
    a, b = (accuracy(run.field, run.head, training, setting) for run in (ours, theirs))
    assert bool(((a - b).abs() <= 0.02).all()), (a, b)


@needs_kernel
def test_ten_iterations_on_images_end_where_the_torch_path_does(few_images):
    """At full width: what ten iterations change is the same to a thousandth, biases included."""
    protocol = replace(get_protocol("mnist", "smoke"), width=96, iterations=10)
    protocol = replace(protocol, n_train=8, n_test=6, batch_size=8)
    how = {"progress": False, "device": "cpu"}
    steps = FixedSteps("euler", 2)
    runs = [train(protocol, steps, [0], backend=b, **how) for b in ("fused", "torch")]
    assert [run.backend for run in runs] == ["fused", "torch"]
    begin = train(replace(protocol, iterations=1, learning_rate=1e-30), steps, [0], **how)
    states = [run.field.state_dict() | run.head.state_dict() for run in (*runs, begin)]
    for name, start in states[2].items():
        ours, theirs = (state[name] - start for state in states[:2])
        assert (ours - theirs).norm() <= 1e-3 * theirs.norm(), name


@needs_kernel
@pytest.mark.parametrize("shape", [(1, 1, 1, 2), (3, 37, 2, 3), (2, 128, 10, 2), (2, 5, 900, 10)])
def test_the_classifier_equals_autograd_in_float64(shape):
    members, batch, dim, classes = shape
    random = torch.Generator().manual_seed(sum(shape))
    z, weight, bias = (
        4 * torch.randn(s, generator=random)
        for s in [(members, batch, dim), (members, dim, classes), (members, classes)]
    )
    y = torch.randint(classes, (members, batch), generator=random)
    exact = [t.double().requires_grad_() for t in (z, weight, bias)]
    logits = exact[0] @ exact[1] + exact[2][:, None]
    losses = functional.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
    losses = losses.view(members, batch).mean(1)
    losses.sum().backward()
    grad_weight, grad_bias = torch.full_like(weight, 7.0), torch.full_like(bias, 7.0)
    ours, grad_z = kernels.classify_fused(z, weight, bias, y, grad_weight, grad_bias)
    gradients = [ours, grad_z, grad_weight, grad_bias]
    for mine, its in zip(gradients, [losses, *(t.grad for t in exact)], strict=True):
        torch.testing.assert_close(mine.double(), its.detach(), rtol=1e-4, atol=1e-5)


@needs_kernel
def test_the_classifier_reports_nan_and_refuses_other_labels():
    z, weight, bias = torch.ones(2, 3, 2), torch.ones(2, 2, 3), torch.zeros(2, 3)
    y = torch.zeros(2, 3, dtype=torch.int64)
    z[1, 2, 0] = torch.nan
    losses, _ = kernels.classify_fused(z, weight, bias, y, weight.clone(), bias.clone())
    assert torch.isfinite(losses).tolist() == [True, False]
    with pytest.raises(ValueError, match="y has dtype"):
        kernels.classify_fused(z, weight, bias, y.int(), weight.clone(), bias.clone())
    for label in (3, -100):
        y[0, 1] = label
        with pytest.raises(ValueError, match=r"y has labels .*: give 0 to 2"):
            kernels.classify_fused(z, weight, bias, y, weight.clone(), bias.clone())


WITHOUT_MEMORY = """
import resource, torch
from nodecore.data.seeding import make_generator
from nodecore.ode import kernels
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.fields import MLPField
torch.set_num_threads(2)
assert kernels.status().available
field = MLPField(2, 8, generators=[make_generator(0, "initialisation")] * 2)
field.requires_grad_(False)
how = {"rtol": 1.0, "atol": 1.0, "instance_axes": 1, "backend": "fused"}
z0 = torch.zeros(2, 1_000_000, 2)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 90 * 2**20,) * 2)
try:
    solve_adaptive(field, z0, "dopri5", **how)
except MemoryError as error:
    print(error)
solve_adaptive(field, z0[:, :100].contiguous(), "dopri5", **how)
print("solved")
"""


@needs_kernel
@pytest.mark.skipif(sys.platform != "linux", reason="it limits the memory as Linux does")
def test_a_solve_that_finds_no_memory_says_so_and_the_next_one_goes_on():
    done = subprocess.run([sys.executable, "-c", WITHOUT_MEMORY], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = "z0 has 2 members of 1000000 samples: there is no memory to solve them"
    assert done.stdout.startswith(said) and done.stdout.endswith("solved\n")


# --- building and loading -------------------------------------------------------------------------

QUICK_FLAGS = ("-O0", *build.FLAGS[1:])


@pytest.fixture
def copies(tmp_path, monkeypatch):
    """A compiler that takes no time: what it makes is a copy of the kernel in use."""
    compiler = tmp_path / "copies"
    compiler.write_text(
        '#!/bin/sh\nwhile [ $# -gt 1 ] && [ "$1" != -o ]; do shift; done\n'
        f'[ $# -gt 1 ] || exec echo copies\ncp "{build.library()._name}" "$2"\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))


def in_new_process(cache, code="", wait=True, **environment):
    """Runs `code` after `status()` in a process of its own, with its own cache folder."""
    script = (
        "import torch, logging\n"
        "from nodecore.ode import kernels\n"
        "from nodecore.ode.kernels import build\n"
        f"build.FLAGS = {QUICK_FLAGS!r}\n"
        "print(kernels.status())\n" + code
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return finish(process) if wait else process


def finish(process):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output, errors


@needs_kernel
def test_two_processes_may_build_at_once_and_a_damaged_library_is_rebuilt(
    copies, tmp_path, monkeypatch
):
    (tmp_path / "nodecore").mkdir()
    (tmp_path / "nodecore").chmod(0o775)  # as images are put there where the umask is 002
    both = [in_new_process(tmp_path, wait=False) for _ in range(2)]
    for process in both:
        assert "available=True" in finish(process)[0]
    folder = tmp_path / "nodecore/kernels"
    assert folder.stat().st_mode & 0o777 == 0o700
    library, digest = sorted(folder.iterdir(), key=lambda path: path.suffix, reverse=True)
    assert (library.suffix, digest.suffix) == (".so", ".sha256")

    whole = library.read_bytes()
    library.write_bytes(whole[: len(whole) // 2])
    with quick_build(monkeypatch, cache=tmp_path):
        assert kernels.status().available
    assert len(library.read_bytes()) == len(whole)

    before = library.stat().st_mtime_ns
    with quick_build(monkeypatch, cache=tmp_path):
        assert kernels.status().available
    assert library.stat().st_mtime_ns == before, "an intact library is taken as it is"


@needs_kernel
@pytest.mark.parametrize("what", ["folder", "library", "digest"])
def test_what_others_may_write_is_not_loaded(copies, tmp_path, monkeypatch, capsys, what):
    with quick_build(monkeypatch, cache=tmp_path):
        assert kernels.status().available
    assert "compiling the kernel (once, about 15 s)\n" in capsys.readouterr().err
    folder = tmp_path / "nodecore/kernels"
    digest, library = sorted(folder.iterdir())
    assert library.stat().st_mode & 0o077 == digest.stat().st_mode & 0o077 == 0
    path = {"folder": folder, "library": library, "digest": digest}[what]
    for mode in (0o720, 0o702):
        path.chmod(mode)
        with quick_build(monkeypatch, cache=tmp_path):
            result = kernels.status()
        assert not result.available
        assert f": {path} can be written by others; delete it, it is made anew" in result.reason
    path.chmod(0o700)
    monkeypatch.setattr(build.os, "getuid", lambda: path.stat().st_uid + 1)
    with quick_build(monkeypatch, cache=tmp_path):
        assert f"{folder} belongs to another user" in kernels.status().reason
    assert "compiling" not in capsys.readouterr().err


@needs_kernel
def test_without_openmp_one_thread_does_the_work(monkeypatch):
    monkeypatch.setattr(build, "THREADS", ("-fno-such-flag",))
    with quick_build(monkeypatch):
        assert kernels.status().available


FALLBACK = """
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.fields import MLPField
field = MLPField(generators=[torch.Generator().manual_seed(0)])
z0 = torch.ones(1, 4, 2)
ours, plain = (solve_fixed(field, z0, "rk4", n_steps=3, backend=b) for b in ("auto", "torch"))
print(ours.backend, torch.equal(ours.z, plain.z))
"""


def test_without_a_compiler_torch_does_the_work(tmp_path):
    output, errors = in_new_process(tmp_path, FALLBACK, PATH="", CXX="")
    assert "available=False" in output and "torch True" in output
    lines = [line for line in errors.splitlines() if "kernel" in line]
    assert lines == [
        "no fused kernel, the torch path is used: "
        "no C++ compiler on the PATH (looked for c++, g++, clang++)"
    ]


@pytest.mark.parametrize("script", ["echo 'fused.cpp:1: error: broken' >&2; exit 1", "exit 0"])
def test_a_failing_compiler_is_reported(tmp_path, monkeypatch, script):
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\n{script}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with quick_build(monkeypatch):
        result = kernels.status()
    assert not result.available
    assert re.search("compiler failed: (fused.cpp:1: error: broken|no message)$", result.reason)


@needs_kernel
@pytest.mark.parametrize(
    ("header", "right", "wrong"),
    [
        ("tables.h", "dw3_[d] += w_.bias2[d] * all[d]", "dw3_[d] += 0"),
        ("cells.h", "region.t[2][c] += g[c]", "region.t[2][c] += 1.001f * g[c]"),
    ],
)
def test_a_kernel_that_computes_something_else_is_not_used(
    tmp_path, monkeypatch, caplog, header, right, wrong
):
    change_source(monkeypatch, tmp_path, header, {right: wrong})
    with quick_build(monkeypatch):
        result = kernels.status()
    assert not result.available and "self-check differs from torch" in result.reason
    assert caplog.messages == [result.reason]


@needs_kernel
def test_a_struct_of_another_size_is_refused(copies, monkeypatch):
    fields = [*structs.Adaptive._fields_, ("more", ctypes.c_int64)]
    other = type("Adaptive", (ctypes.Structure,), {"_fields_": fields})
    monkeypatch.setattr(structs, "Adaptive", other)
    with quick_build(monkeypatch):
        result = kernels.status()
    assert not result.available and "Adaptive has another size in Python than" in result.reason


@needs_kernel
@pytest.mark.parametrize("flag", ["-mno-avx512f", "-march=x86-64"])
def test_narrower_vectors_and_tables_of_few_cells(tmp_path, monkeypatch, flag):
    if not re.match("x86_64|AMD64", os.uname().machine):
        pytest.skip("the flags are those of x86-64")
    sizes = {"CellNames = Names<12>": "CellNames = Names<6>", "Names<13>": "Names<7>"}
    change_source(monkeypatch, tmp_path, "cells.h", sizes)
    with quick_build(monkeypatch, flags=(*QUICK_FLAGS, flag)):
        assert build.library().nodecore_lanes() == {"-mno-avx512f": 8}.get(flag, 4)
        for sizes in KINDS.values():
            sizes = {"widths": (41, 100)} | sizes | {"n_steps": (4, 5)}
            Problem(batch=77, **sizes).assert_as_good_as_torch()


def change_source(monkeypatch, folder, header, changes):
    """Builds from a copy of the source from here on, where each key stands once and is replaced."""
    source = Path(shutil.copytree(build.SOURCE.parent, folder / "cpp"))
    text = (source / header).read_text()
    for before, after in changes.items():
        assert text.count(before) == 1
        text = text.replace(before, after)
    (source / header).write_text(text)
    monkeypatch.setattr(build, "SOURCE", source / "fused.cpp")


@contextmanager
def quick_build(monkeypatch, flags=QUICK_FLAGS, cache=None):
    """A kernel of other flags, in this process, for the length of a `with`."""

    def forget():
        build.library.cache_clear()
        kernels.status.cache_clear()

    with monkeypatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(build, "FLAGS", flags)
        patch.setenv("XDG_CACHE_HOME", str(cache or folder))
        forget()
        yield
    forget()


FORK = """
import os
torch.set_num_threads(2)
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.fields import MLPField
field = MLPField(generators=[torch.Generator().manual_seed(m) for m in range(4)])
z0 = torch.ones(4, 100, 2)
expected = solve_fixed(field, z0, "rk4", n_steps=30, backend="fused").z.detach()
child = os.fork()
if child == 0:
    z = solve_fixed(field, z0, "rk4", n_steps=30, backend="fused").z
    os._exit(not torch.equal(z, expected))
print("exit", os.waitpid(child, 0)[1])
"""


@needs_kernel
def test_a_forked_child_does_not_wait_for_its_parents_threads(copies, tmp_path):
    assert "exit 0" in in_new_process(tmp_path, FORK)[0]


@needs_kernel
def test_sanitizers_find_nothing(tmp_path):
    sanitizers = "address,undefined"
    driver = Path(__file__).with_name("kernel_driver.cpp")
    program = tmp_path / "driver"
    command = [build._compiler()[0], "-O0", build.FLAGS[1], "-std=c++17", "-fopenmp"]
    command += [f"-fsanitize={sanitizers}", "-fno-sanitize-recover=all", str(driver)]
    command += ["-I", str(build.SOURCE.parent), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if "cannot find" in built.stderr:
        pytest.skip(f"the compiler has no {sanitizers} sanitizer")
    assert built.returncode == 0, built.stderr
    waits = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # three threads may have one core
    run = subprocess.run([program], capture_output=True, text=True, timeout=120, env=waits)
    assert run.returncode == 0, run.stderr + run.stdout


def assert_identical(tensors, others):
    for x, y in zip(tensors, others, strict=True):
        assert torch.equal(x, y)
