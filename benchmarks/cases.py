"""The problems that every engine solves: a field, an ensemble and a solver, as data."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from benchmarks.strokes import draw_strokes
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.fields import Conv1dField, Conv2dField, MLPField
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.solution import Solution
from nodecore.ode.tableaus import get_tableau


@dataclass(frozen=True)
class Case:
    """What is solved: a field (mlp, conv1d, conv2d), an ensemble, a solver with n_steps or rtol.

    per_sample: each sample has steps of its own, not each member's batch. compiled: torch.compile,
    which takes most of a minute, is among the peers.
    """

    name: str
    field: str
    dim: int  # of a state, or the height and width of an image
    width: int
    solver: str
    n_steps: int | None
    rtol: float | None = None
    per_sample: bool = False
    members: int = 5
    batch: int = 128
    channels: int = 1
    compiled: bool = False

    def make_field(self) -> nn.Module:
        """The field, with biases that are not zero, as after some training.

        Freshly initialised, all kinks of a field of one channel would lie in one place.
        """
        generators = [torch.Generator().manual_seed(m) for m in range(self.members)]
        if self.field == "mlp":
            vector_field = MLPField(self.dim, self.width, generators=generators)
        elif self.field == "conv1d":
            vector_field = Conv1dField(self.dim, self.width, generators=generators)
        else:
            vector_field = Conv2dField(self.channels, self.width, generators=generators)
        with torch.no_grad():
            for _, bias in (vector_field.first, vector_field.second, vector_field.third):
                for row, generator in zip(bias, generators, strict=True):
                    row.normal_(0.0, 0.1, generator=generator)
        return vector_field

    def make_states(self) -> tuple[Tensor, Tensor]:
        """z0 and a cotangent of z(T), (members, batch, ...)."""
        g = torch.Generator().manual_seed(0)
        if self.field != "conv2d":
            return tuple(torch.randn(self.members, self.batch, self.dim, generator=g) for _ in "zc")
        strokes = draw_strokes(self.members * self.batch * self.channels, self.dim, g)
        z0 = strokes.view(self.members, self.batch, self.channels, self.dim, self.dim)
        return z0, torch.randn(z0.shape, generator=g)

    @property
    def instance_axes(self) -> int:
        """The leading axes of a state whose entries step by themselves, where steps adapt."""
        return 2 if self.per_sample else 1

    def solve(self, vector_field: nn.Module, backend: str = "auto") -> Solution:
        """nodecore's solve, through one of its backends."""
        z0, _ = self.make_states()
        if self.rtol is None:
            return solve_fixed(vector_field, z0, self.solver, n_steps=self.n_steps, backend=backend)
        how = {"rtol": self.rtol, "atol": self.rtol, "instance_axes": self.instance_axes}
        return solve_adaptive(vector_field, z0, self.solver, **how, backend=backend)

    def flop(self) -> int:
        """Operations per seed and iteration that the field as written asks for."""
        w, edge = self.width, 3 * self.dim - 2  # taps that exist along one axis
        weights = {
            "mlp": 2 * self.dim * w + w * w,
            "conv1d": 2 * self.dim * w + edge * w * w,
            "conv2d": 2 * self.channels * self.dim**2 * w + edge**2 * w * w,
        }[self.field]
        stages = get_tableau(self.solver).n_solution_stages
        if self.rtol is None:
            forward = backward = self.n_steps * stages
        else:
            solved = self.solve(self.make_field())
            counts = (solved.nfe, solved.n_accepted * stages)
            forward, backward = (count.double().mean() for count in counts)
        return round(float(forward + 2 * backward) * 2 * weights * self.batch)


LANDSCAPE = Case("energy landscape", "mlp", 2, 48, "euler", 16)
SPHERES = Case("spheres", "conv1d", 2, 32, "euler", 16)
IMAGES = Case("MNIST field", "conv2d", 28, 96, "euler", 1, members=1, batch=256)
TWO_SETS = (("energy landscape", LANDSCAPE), ("spheres 2-D", SPHERES))

CASES = [
    replace(LANDSCAPE, name="energy landscape, Euler, K = 4", n_steps=4),
    replace(LANDSCAPE, name="energy landscape, Euler, K = 16", compiled=True),
    replace(LANDSCAPE, name="energy landscape, Euler, K = 64", n_steps=64),
    replace(LANDSCAPE, name="energy landscape, rk4, K = 16", solver="rk4"),
    replace(SPHERES, name="spheres 2-D, Euler, K = 16", compiled=True),
    replace(SPHERES, name="spheres 2-D, rk4, K = 16", solver="rk4"),
    replace(SPHERES, name="spheres 10-D, Euler, K = 16", dim=10),
    # One seed, since five would take a peer ten seconds and more.
    replace(SPHERES, name="spheres 900-D, Euler, K = 16, 1 seed", dim=900, members=1),
    replace(IMAGES, name="MNIST field, Euler, K = 1, batch 256, 1 seed"),
    *(
        replace(case, name=f"{name}, {label}", solver=solver, n_steps=None, rtol=rtol)
        for name, case in TWO_SETS
        for label, solver, rtol in (
            ("Fehlberg 2(1), tolerance 10⁻³", "fehlberg21", 1e-3),
            ("Dopri 5(4), tolerance 10⁻⁴", "dopri5", 1e-4),
        )
    ),
    *(
        replace(
            case,
            name=f"{name}, Dopri 5(4), tolerance 10⁻⁴, per sample",
            **{"solver": "dopri5", "n_steps": None, "rtol": 1e-4, "per_sample": True},
        )
        for name, case in TWO_SETS
    ),
]


def shrink(case: Case) -> Case:
    """The same problem in a size that shows in no time whether everything runs."""
    return replace(
        case,
        name=f"{case.name} (tiny)",
        dim=min(case.dim, 6) if case.field == "conv1d" else case.dim,
        width=8,
        members=min(case.members, 2),
        batch=4,
        n_steps=case.n_steps and min(case.n_steps, 2),
        compiled=False,
    )


def one_of_each(cases: list[Case]) -> list[Case]:
    """The last case in fixed steps of each field, in a batch's own steps, and in a sample's."""
    kinds = {(case.rtol is None and case.field, case.per_sample): case for case in cases}
    return list(kinds.values())
