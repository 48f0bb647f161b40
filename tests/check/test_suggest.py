"""The coarsest steps that give the answers of a flow: against all numbers of steps, one by one."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torchdiffeq import odeint

from nodecore import suggest_steps
from nodecore.analysis.evaluate import AGREEMENT
from nodecore.analysis.intervals import paired_difference, share_interval
from nodecore.check.suggest import _coarsest
from nodecore.ode.steps import FixedSteps, Tolerance


def points(n=400, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, 2))).float()


def rotation(angle):
    return lambda t, z: angle * torch.stack([-z[:, 1], z[:, 0]], 1)


def half_planes(z):
    return torch.stack([-z[:, 0], z[:, 0]], 1)


def right_half(x, angle):
    """Whether points (n, 2) lie in the right half-plane after a turn."""
    return math.cos(angle) * x[:, 0] - math.sin(angle) * x[:, 1] > 0


def quiet(*args, **options):
    return suggest_steps(*args, verbose=False, **options)


@pytest.mark.parametrize("angle", [2.0, 9.0])
def test_the_number_of_steps_is_the_one_that_brute_force_finds(angle):
    """Euler's method turns by K atan(angle / K); the labels are those of the exact flow."""
    x = points()
    y = right_half(x, angle)

    def agrees(n_steps):
        lost = int((right_half(x, n_steps * math.atan(angle / n_steps)) != y).sum())
        drop = paired_difference(0, lost, len(x))  # gained under the exact flow
        accurate = share_interval(len(x) - lost, len(x)).low > y.double().mean() + AGREEMENT
        return accurate and drop.within(AGREEMENT)

    found = quiet(rotation(angle), half_planes, x, y, solver="euler")
    expected = min(k for k in range(1, 200) if all(agrees(j) for j in range(k, 200)))
    assert found.setting == FixedSteps("euler", expected) and expected > 1
    assert found.training == FixedSteps("euler", 2 * expected)
    assert [one.verdict == "flow" for one in found.tried] == [
        agrees(one.setting.n_steps) for one in found.tried
    ]
    assert f"euler, {expected} steps: " in str(found) and "to train anew" in str(found)


def test_a_setting_will_do_only_if_the_next_two_finer_ones_do():
    """2 and 4 steps agree by chance, as 8 do not."""
    tried = []

    def will_do(setting):
        tried.append(setting.n_steps)
        return setting.n_steps in (2, 4) or setting.n_steps > 12

    trial: Any = SimpleNamespace(fewest=1, will_do=will_do)
    assert _coarsest(trial, False, "euler", 1024) == FixedSteps("euler", 13)
    assert tried[:7] == [1, 2, 4, 8, 16, 32, 64] and max(tried) == 64


def test_outputs_without_labels_need_finer_steps_for_a_finer_tolerance():
    """Midpoint's method for dz/dt = -z: z(1) = z(0) (1 - h + h^2 / 2)^K."""
    x = points().abs() + 1

    def error(n_steps):
        h = 1 / n_steps
        return (x * ((1 - h + h * h / 2) ** n_steps - math.exp(-1))).norm(dim=1)

    for tolerance in (0.1, 0.01, 1e-3):
        found = quiet(lambda t, z: -z, None, x, solver="midpoint", tolerance=tolerance)
        shares = {k: (error(k) > tolerance).double().mean().item() for k in range(1, 100)}
        within = [
            k for k, share in shares.items() if share_interval(round(share * 400), 400).high <= 0.1
        ]
        assert found.setting == FixedSteps("midpoint", min(within))


def test_steps_end_at_the_output_times_and_are_judged_at_all_of_them():
    """Euler's method in multiples of 5 steps: its radius grows, and is largest at the end."""
    x = points()
    times = [0.0, 0.2, 0.6, 1.0]

    def far(n_steps):
        h, ends = 2.0 / n_steps, []
        for t in times[1:]:
            steps = round(n_steps * t)
            radius, angle = (1 + h * h) ** (steps / 2), steps * math.atan(h) - 2 * t
            ends.append(math.hypot(radius * math.cos(angle) - 1, radius * math.sin(angle)))
        return max(ends) * x.norm(dim=1) > 0.2

    found = quiet(
        rotation(2.0), None, x, solver="euler", output_times=times, tolerance=0.2, bound=0.05
    )
    within = [k for k in range(5, 300, 5) if share_interval(int(far(k).sum()), len(x)).high <= 0.05]
    assert found.setting == FixedSteps("euler", min(within))
    assert all(one.setting.n_steps % 5 == 0 for one in found.tried)
    with pytest.raises(ValueError, match=r"output_times: no number of equal steps up to most = 64"):
        quiet(rotation(2.0), None, x, solver="euler", output_times=[0.0, 0.3141, 1.0], most=64)


def test_a_loss_of_ones_own_decides():
    x = points()
    found = quiet(
        lambda t, z: -z, None, x, x, solver="euler", tolerance=0.02,
        loss=lambda out, target: (out - target).square().mean(1),
    )  # fmt: skip

    def far(n_steps):
        ends = (x * factor for factor in ((1 - 1 / n_steps) ** n_steps, math.exp(-1)))
        own, exact = ((end - x).square().mean(1) for end in ends)
        return int(((own - exact).abs() > 0.02).sum())

    within = [k for k in range(1, 100) if share_interval(far(k), len(x)).high <= AGREEMENT]
    assert found.setting == FixedSteps("euler", min(within))


def test_an_embedded_method_gets_a_tolerance_that_torchdiffeq_can_use():
    x, angle = points(), 20.0
    y = right_half(x, angle)
    found = quiet(rotation(angle), half_planes, x, y, solver="dopri5")
    assert isinstance(found.setting, Tolerance) and found.training.rtol == found.setting.rtol / 10
    rtol = found.setting.rtol
    z = odeint(rotation(angle), x, torch.tensor([0.0, 1.0]), rtol=rtol, atol=rtol)[-1]
    assert ((z[:, 0] > 0) == y).double().mean() > 0.9
    coarser = [one.verdict for one in found.tried if one.setting.rtol > rtol]
    assert "flow" not in coarser[-1:]


def test_where_nothing_can_be_told_it_says_so_at_once():
    x = points()
    mixed = torch.from_numpy(np.random.default_rng(1).integers(0, 2, 400))
    found = quiet(rotation(2.0), half_planes, x, mixed, solver="euler")
    assert found.setting is None and found.tried == () and "largest class" in found.reason
    with pytest.raises(ValueError, match="x has 20 samples: give at least 35"):
        quiet(rotation(2.0), None, x[:20], solver="euler")
    few = quiet(rotation(30.0), None, x, solver="euler", most=4)
    assert few.setting is None and few.training is None and len(few.tried) == 3
    assert "no setting that was tried" in str(few)
