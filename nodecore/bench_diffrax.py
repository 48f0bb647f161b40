"""The diffrax side of `nodecore.bench`: a process of its own, with JAX and without torch.

Reads one JSON object a line: a case to compile with the path of its arrays, answered by {}, or by
{"nfe": evaluations, mean over the members} where it has a tolerance; then {"calls": n}, answered by
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


class Fehlberg21(diffrax.AbstractERK):
    """Fehlberg's method of order 2(1), which diffrax leaves to its users too."""

    tableau = diffrax.ButcherTableau(
        c=np.array([0.5, 1.0]),
        b_sol=np.array([1 / 512, 255 / 256, 1 / 512]),
        b_error=np.array([-1 / 512, 0.0, 1 / 512]),
        a_lower=(np.array([0.5]), np.array([1 / 256, 255 / 256])),
    )
    interpolation_cls = diffrax.ThirdOrderHermitePolynomialInterpolation.from_k

    def order(self, terms):
        return 2


SOLVERS = {
    "euler": diffrax.Euler,
    "rk4": RK4,
    "dopri5": diffrax.Dopri5,
    "fehlberg21": Fehlberg21,
}


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


def load_arrays(case):
    """Parameters, z0 and a cotangent of z(T), members first."""
    with np.load(case["arrays"]) as stored:
        arrays = [jnp.asarray(stored[name]) for name in stored.files]
    return arrays[:-2], *arrays[-2:]


def make_solve(case, adjoint, max_steps):
    """The solve of one member as a function of its parameters and z0."""
    term, solver = diffrax.ODETerm(FIELDS[case["field"]]), SOLVERS[case["solver"]]()
    if case["rtol"] is None:
        first_step, controller = 1.0 / case["n_steps"], diffrax.ConstantStepSize()
    else:
        first_step, controller = None, diffrax.PIDController(case["rtol"], case["rtol"])

    def solve(parameters, z0):
        return diffrax.diffeqsolve(
            term,
            solver,
            0.0,
            1.0,
            first_step,
            z0,
            parameters,
            stepsize_controller=controller,
            adjoint=adjoint,
            max_steps=max_steps,
        )

    return solve


def count(case):
    """Steps tried, most of a member, and evaluations, mean over the members."""
    solve = make_solve(case, diffrax.RecursiveCheckpointAdjoint(), 4096)
    parameters, z0, _ = load_arrays(case)
    stats = jax.jit(jax.vmap(lambda p, z: solve(p, z).stats))(parameters, z0)
    # The first step size costs two. Dopri5 takes its last stage on into the next step, after one
    # for the first; diffrax lets Fehlberg's method compute all three stages whenever it tries.
    tried = stats["num_steps"]
    more = 1 + 6 * tried if case["solver"] == "dopri5" else 3 * tried
    return int(tried.max()), float((2 + more).mean())


def make_step(case, adjoint, max_steps):
    """A jitted call: the gradient of <z(T), cotangent> for all members."""
    solve = make_solve(case, adjoint, max_steps)
    parameters, z0, cotangent = load_arrays(case)

    def loss(parameters):
        return (jax.vmap(lambda p, z: solve(p, z).ys[0])(parameters, z0) * cotangent).sum()

    gradient = jax.jit(jax.grad(loss))
    return lambda: jax.block_until_ready(gradient(parameters))


def time_calls(step, calls):
    start = time.perf_counter()
    for _ in range(calls):
        step()
    return (time.perf_counter() - start) / calls * 1e3


def faster_step(case, n_steps):
    """diffrax offers two adjoints that differentiate the steps themselves: the faster one here."""
    adjoints = diffrax.RecursiveCheckpointAdjoint(n_steps), diffrax.DirectAdjoint()
    steps = [make_step(case, adjoint, n_steps) for adjoint in adjoints]
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
            n_steps = request["n_steps"]
            if request["rtol"] is not None:
                n_steps, answer["nfe"] = count(request)
            step = faster_step(request, n_steps)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
