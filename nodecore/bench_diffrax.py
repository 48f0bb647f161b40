"""The diffrax side of `nodecore.bench`: a process of its own, with JAX and without torch.

Reads one JSON object a line: a case to compile, answered by {}, then {"calls": n}, answered by
{"ms": milliseconds per call} of a jitted gradient, one member vmapped beside the other.
"""

import json
import os
import sys
import time

# One core: XLA's thread pool takes its size from the cores that the process may use.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import diffrax
import jax
import jax.numpy as jnp
import numpy as np


class RK4(diffrax.AbstractERK):
    """The classical method, which diffrax leaves to its users."""

    tableau = diffrax.ButcherTableau(
        c=np.array([0.5, 0.5, 1.0]),
        b_sol=np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6]),
        b_error=np.zeros(4),
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
    )
    interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms):
        return 4


SOLVERS = {"euler": diffrax.Euler, "rk4": RK4}


def mlp(t, z, p):
    w1, b1, w2, b2, w3, b3 = p
    return jax.nn.relu(jax.nn.relu(z @ w1 + b1) @ w2 + b2) @ w3 + b3


def conv1d(t, z, p):
    """The same as products: faster here than a convolution under vmap over members."""
    w1, b1, w2, b2, w3, b3 = p
    dim = z.shape[1]
    hidden = jnp.pad(jax.nn.relu(z[:, :, None] @ w1 + b1), ((0, 0), (1, 1), (0, 0)))
    hidden = jnp.concatenate([hidden[:, tap : tap + dim] for tap in range(3)], axis=-1)
    return (jax.nn.relu(hidden @ w2 + b2) @ w3 + b3)[:, :, 0]


FIELDS = {"mlp": mlp, "conv1d": conv1d}


def random_arrays(case):
    """Parameters, z0 and a cotangent of z(T), members first."""
    rng = np.random.default_rng(0)
    members, dim, width = case["members"], case["dim"], case["width"]
    n, taps = (1, 3) if case["field"] == "conv1d" else (dim, 1)
    shapes = [(n, width), (width,), (taps * width, width), (width,), (width, n), (n,)]
    parameters = [
        np.zeros((members, *s)) if len(s) == 1 else rng.normal(0, s[0] ** -0.5, (members, *s))
        for s in shapes
    ]
    states = [rng.normal(size=(members, case["batch"], dim)) for _ in range(2)]
    return [jnp.asarray(a, jnp.float32) for a in parameters], *map(jnp.float32, states)


def make_step(case, adjoint):
    """A jitted call: the gradient of <z(T), cotangent> for all members."""
    term, n_steps = diffrax.ODETerm(FIELDS[case["field"]]), case["n_steps"]

    def final_state(parameters, z0):
        return diffrax.diffeqsolve(
            term,
            SOLVERS[case["solver"]](),
            0.0,
            1.0,
            1.0 / n_steps,
            z0,
            parameters,
            adjoint=adjoint,
            max_steps=n_steps,
        ).ys[0]

    parameters, z0, cotangent = random_arrays(case)

    def loss(parameters):
        return (jax.vmap(final_state)(parameters, z0) * cotangent).sum()

    gradient = jax.jit(jax.grad(loss))
    return lambda: jax.block_until_ready(gradient(parameters))


def time_calls(step, calls):
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls * 1e3


def faster_step(case):
    """diffrax offers two adjoints that differentiate the steps themselves: the faster one here."""
    adjoints = diffrax.RecursiveCheckpointAdjoint(case["n_steps"]), diffrax.DirectAdjoint()
    steps = [make_step(case, adjoint) for adjoint in adjoints]
    for step in steps:
        step()
    return min(steps, key=lambda step: min(time_calls(step, 1) for _ in range(3)))


def main():
    step = None
    for line in sys.stdin:
        request = json.loads(line)
        answer = {}
        if "calls" in request:
            answer["ms"] = time_calls(step, request["calls"])
        else:
            step = faster_step(request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
