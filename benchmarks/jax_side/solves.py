"""Solves of one member in JAX, solve(p, z0) -> z(T): a bare lax.scan, and diffrax."""

import diffrax
import jax
import numpy as np
from fields import FIELDS

# --- a scan over the steps ------------------------------------------------------------------------


def scan_solve(case):
    """Fixed steps of Euler's or the classical method."""
    f, h = FIELDS[case["field"]], 1.0 / case["n_steps"]

    def euler(p, z):
        return z + h * f(p, z)

    def rk4(p, z):
        k1 = f(p, z)
        k2 = f(p, z + h / 2 * k1)
        k3 = f(p, z + h / 2 * k2)
        k4 = f(p, z + h * k3)
        return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    step = {"euler": euler, "rk4": rk4}[case["solver"]]

    def solve(p, z0):
        return jax.lax.scan(lambda z, _: (step(p, z), None), z0, None, case["n_steps"])[0]

    return solve


# --- diffrax --------------------------------------------------------------------------------------


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
MAX_STEPS = 4096


def diffrax_solution(case, max_steps):
    """A member's solve as a function of its parameters and z0, returning all that diffrax tells.

    The steps themselves are differentiated. DirectAdjoint does that too, 1.3 to 10 times slower.
    """
    f, solver = FIELDS[case["field"]], SOLVERS[case["solver"]]()
    if case["rtol"] is None:
        first_step, controller = 1.0 / case["n_steps"], diffrax.ConstantStepSize()
    else:
        first_step, controller = None, diffrax.PIDController(case["rtol"], case["rtol"])

    def solve(p, z0):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, z, p: f(p, z)),
            solver,
            0.0,
            1.0,
            first_step,
            z0,
            p,
            stepsize_controller=controller,
            adjoint=diffrax.RecursiveCheckpointAdjoint(max_steps),
            max_steps=max_steps,
        )

    def solve_samples(p, z0):
        return jax.vmap(lambda sample: solve_sample(p, sample))(z0)

    def solve_sample(p, z0):
        solution = solve(p, z0[None])
        return solution.ys[0, 0], solution.stats

    def solve_batch(p, z0):
        solution = solve(p, z0)
        return solution.ys[0], solution.stats

    return solve_samples if case["per_sample"] else solve_batch


def diffrax_solve(case, max_steps):
    """The same, returning z(T) alone."""
    solution = diffrax_solution(case, max_steps)
    return lambda p, z0: solution(p, z0)[0]


def count_steps(case, parameters, z0):
    """Steps that the slowest tries, and evaluations, mean over the members or samples."""
    solution = diffrax_solution(case, MAX_STEPS)
    stats = jax.jit(jax.vmap(lambda p, z: solution(p, z)[1]))(parameters, z0)
    # The first step size costs two. Dopri5 takes its last stage on into the next step, after one
    # for the first; diffrax lets Fehlberg's method compute all three stages whenever it tries.
    tried = stats["num_steps"]
    more = 1 + 6 * tried if case["solver"] == "dopri5" else 3 * tried
    return int(tried.max()), float((2 + more).mean())
