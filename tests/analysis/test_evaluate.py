"""Accuracies counted exactly, the settings of the grid, and the critical step size."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from members import generators
from scipy.integrate import solve_ivp

from nodecore.analysis import evaluate
from nodecore.analysis.evaluate import (
    EXACT,
    FLOAT32_RTOL,
    accuracy,
    better_setting,
    critical_n_steps,
    cross_solver_grid,
    cross_solver_settings,
    has_trained,
    predict,
    scaled_steps,
    solve_setting,
)
from nodecore.data.split import Split
from nodecore.ode.fields import LinearHead, MLPField
from nodecore.ode.steps import FixedSteps, Tolerance


def resting_model(members=2):
    """A field of zero and a head that passes two coordinates on: x is its own logits."""
    field, head = (
        MLPField(2, 4, generators=generators(members)),
        LinearHead(2, 2, generators=generators(members)),
    )
    with torch.no_grad():
        for p in field.parameters():
            p.zero_()
        head.linear[0].copy_(torch.eye(2).expand(members, 2, 2))
    return field, head


def separated(n):
    y = torch.from_numpy(np.random.default_rng(0).integers(0, 2, n))
    return Split(torch.nn.functional.one_hot(y, 2).float(), y, 2)


EULER2 = FixedSteps("euler", 2)


def test_a_perfect_classifier_scores_exactly_one_on_ragged_batches():
    split = separated(2001)
    field, head = resting_model()
    assert accuracy(field, head, split, EULER2).tolist() == [1.0, 1.0]
    flipped = split.y.clone()
    flipped[-1] = 1 - flipped[-1]  # the lone row of the last batch
    wrong = Split(split.x, flipped, 2)
    assert accuracy(field, head, wrong, EULER2).tolist() == [2000 / 2001] * 2


@pytest.mark.parametrize("rows", [1, 7, 32, 100, 103, 1000])
def test_classes_are_predicted_in_batches_of_any_size(rows, monkeypatch):
    monkeypatch.setattr(evaluate, "AT_ONCE", rows)
    split, checked = separated(103), []
    classes = predict(*resting_model(), split.x, EULER2, check=lambda: checked.append(1))
    assert len(checked) == math.ceil(103 / rows)
    assert torch.equal(classes, split.y.expand(2, -1))


def test_each_member_has_its_own_accuracy():
    field, head = resting_model(3)
    with torch.no_grad():
        head.linear[0][1] *= -1  # always wrong
        head.linear[1][2] = torch.tensor([9.0, 0.0])  # always class 0
    split = separated(50)
    share = float((split.y == 0).sum()) / 50
    assert accuracy(field, head, split, EULER2).tolist() == [1.0, 0.0, share]


@pytest.mark.parametrize(
    ("setting", "atol"),
    [
        (Tolerance("dopri5", 1e-9), 2e-6),
        (Tolerance("bosh3", 1e-8), 2e-5),
        (EXACT, 2e-4),
        (Tolerance("bosh3", FLOAT32_RTOL), 1e-3),
    ],
    ids=str,
)
def test_adaptive_settings_reach_the_flow_that_scipy_finds(setting, atol):
    field = MLPField(2, 16, generators=generators(2))
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 3, 2))).float()
    z = solve_setting(field, x, setting, T=0.7).z
    assert z.dtype == torch.float32
    assert next(field.parameters()).dtype == torch.float32  # the model itself stays as it was
    weights = [[p.detach().double().numpy() for p in layer] for layer in field.children()]
    (w1, b1), (w2, b2), (w3, b3) = weights
    for m in range(2):
        for start, end in zip(x[m].double().numpy(), z[m].numpy(), strict=True):

            def f(t, y, m=m):
                hidden = np.maximum(y @ w1[m] + b1[m], 0)
                return np.maximum(hidden @ w2[m] + b2[m], 0) @ w3[m] + b3[m]

            exact = solve_ivp(f, (0, 0.7), start, "DOP853", rtol=1e-10, atol=1e-10).y[:, -1]
            np.testing.assert_allclose(end, exact, rtol=2e-6, atol=atol)


@pytest.mark.parametrize(
    ("rtol", "dtype"), [(FLOAT32_RTOL, torch.float32), (0.99 * FLOAT32_RTOL, torch.float64)]
)
def test_only_fine_tolerances_are_solved_in_float64(rtol, dtype):
    seen = set()

    class Watched(MLPField):
        def forward(self, t, z):
            seen.add(z.dtype)
            return super().forward(t, z)

    field = Watched(2, 4, "tanh", generators=generators(1))
    solve_setting(field, torch.ones(1, 3, 2), Tolerance("dopri5", rtol))
    assert seen == {dtype}


def test_each_sample_may_have_steps_of_its_own():
    field = MLPField(2, 16, generators=generators(2))
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 5, 2))).float()
    setting = Tolerance("bosh3", 1e-3)
    each = replace(setting, per_sample=True)
    together = solve_setting(field, x, each)
    assert together.nfe.shape == (2, 5)
    for i in range(5):
        alone = solve_setting(field, x[:, i : i + 1], setting)
        assert torch.equal(together.nfe[:, i], alone.nfe)
        torch.testing.assert_close(together.z[:, i], alone.z[:, 0], rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        field.third[0][1] = math.nan  # a member that cannot be carried to the end
    failed = solve_setting(field, x, each).z.isnan()
    assert failed[1].all() and not failed[0].any()


def test_fixed_settings_take_their_number_of_steps():
    field = MLPField(2, 16, generators=generators(2))
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 3, 2))).float()
    z = x
    for _ in range(5):
        z = z + 0.2 * field(0.0, z + 0.1 * field(0.0, z))
    solution = solve_setting(field, x, FixedSteps("midpoint", 5))
    torch.testing.assert_close(solution.z, z.detach(), rtol=1e-4, atol=1e-5)
    assert (solution.n_accepted, solution.nfe) == (5, 10)


@pytest.mark.parametrize("setting", [EULER2, EXACT], ids=["fixed", "adaptive"])
def test_a_member_that_cannot_be_solved_leaves_the_others_their_accuracy(setting):
    field, head = resting_model(3)
    with torch.no_grad():
        field.third[0][1] = math.nan
    split = separated(20)
    values = accuracy(field, head, split, setting)
    assert values[[0, 2]].tolist() == [1.0, 1.0]
    assert values[1] < 1.0


def test_the_grid_pairs_each_setting_with_its_accuracies():
    field, head = resting_model()
    settings = [EULER2, FixedSteps("rk4", 1), EXACT]
    grid = cross_solver_grid(field, head, separated(10), settings)
    assert [setting for setting, _ in grid] == settings
    assert all(values.tolist() == [1.0, 1.0] for _, values in grid)


# --- which settings -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n_steps", "expected"),
    [
        (1, [1, 2, 4]),
        (2, [1, 2, 3, 4, 8]),
        (4, [2, 3, 4, 5, 8, 16]),
        (3, [2, 3, 4, 6, 12]),
        (256, [128, 171, 256, 341, 512, 1024]),
    ],
)
def test_scaled_steps_are_whole_ascending_and_without_duplicates(n_steps, expected):
    assert scaled_steps(n_steps) == expected


def test_scaled_steps_with_factors_of_ones_own():
    assert scaled_steps(3, (0.1, 1, 5)) == [1, 3, 15]
    with pytest.raises(ValueError, match="n_steps = 0: give a whole number of steps >= 1"):
        scaled_steps(0)


def test_euler_models_meet_three_solvers_and_the_exact_flow():
    settings = cross_solver_settings("euler", 2, grid=(1, 2, 4, 16))
    euler = [FixedSteps("euler", k) for k in (1, 2, 3, 4, 8, 16)]
    finer = [FixedSteps(s, k) for s in ("midpoint", "rk4") for k in (1, 2, 3, 4, 8)]
    assert settings == [*euler, *finer]
    assert len(set(settings)) == len(settings)
    few = cross_solver_settings("euler", 2, finer_factors=(1, 2))
    assert few[5:] == [FixedSteps(s, k) for s in ("midpoint", "rk4") for k in (2, 4)]


def test_other_models_meet_their_own_solver_and_the_exact_flow():
    settings = cross_solver_settings("rk4", 2)
    assert settings == [FixedSteps("rk4", k) for k in (1, 2, 3, 4, 8)]
    assert Tolerance("dopri5", 1e-6) == EXACT


def test_the_test_solver_of_the_critical_step_is_among_the_settings():
    assert better_setting("euler", 8) == FixedSteps("midpoint", 8)
    assert better_setting("rk4", 8) == FixedSteps("rk4", 16)
    for solver in ("euler", "rk4"):
        for n_steps in (1, 2, 4, 256):
            assert better_setting(solver, n_steps) in cross_solver_settings(solver, n_steps)


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ({1: 0.5, 2: 0.3, 4: 0.1, 8: 0.02}, 4),  # the threshold itself agrees
        ({8: 0.02, 1: 0.5, 4: 0.05, 2: 0.3}, 4),  # in any order
        ({1: 0.0, 2: 0.3, 4: 0.05, 8: 0.02}, 4),  # a coarse one that agrees by chance
        ({1: 0.0, 2: 0.05, 4: 0.05}, 1),
        ({1: 0.0, 2: 0.05, 4: 0.2}, None),
        ({1: 0.0, 2: math.nan, 4: 0.05}, 4),
        ({1: 0.0, 2: 0.01, 4: math.nan}, None),
        ({}, None),
    ],
)
def test_the_critical_step_is_the_coarsest_from_which_on_all_agree(gaps, expected):
    assert critical_n_steps(gaps) == expected


@pytest.mark.parametrize(
    ("train_accuracy", "trained"), [(0.61, True), (0.6, False), (1.0, True), (math.nan, False)]
)
def test_a_seed_trained_if_it_beats_the_largest_class(train_accuracy, trained):
    assert has_trained(train_accuracy, largest_share=0.5) is trained
