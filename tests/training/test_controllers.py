"""Controllers as pure functions of what the checks of one member saw."""

import math
from dataclasses import replace

import jupytext
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nodecore.data.files import PROJECT
from nodecore.evidence.catalogue import get_study
from nodecore.ode.fixed import solve_fixed
from nodecore.pages.schema import ALLOWED
from nodecore.training.adapted import Adapted
from nodecore.training.controllers import (
    CONTROLLERS,
    RETIRED,
    VARIATIONS,
    Algorithm1,
    ConfirmedIncrease,
    Observation,
    ProportionalIntegral,
    Remembering,
    Settling,
    StepState,
    controller_name,
    get_controller,
)
from nodecore.training.loop import train
from nodecore.training.protocols import get_protocol

AGREE, DISAGREE = Observation(0.80, 0.75), Observation(0.80, 0.60)


def walk(rule, state, seen):
    """The steps after each of the observations."""
    steps = []
    for observation in seen:
        state = rule.update(state, observation)
        steps.append(state.step_size)
    return steps


# --- Algorithm 1, and its later version -----------------------------------------------------------


def test_agreement_lengthens_and_disagreement_halves():
    rule = Algorithm1()
    assert rule.update(StepState(0.2), AGREE) == StepState(pytest.approx(0.22), failed=False)
    assert rule.update(StepState(0.2), DISAGREE) == StepState(pytest.approx(0.1), failed=True)
    # Either sign of the difference is a disagreement.
    assert rule.update(StepState(0.2), Observation(0.60, 0.80)).failed


@pytest.mark.parametrize(
    ("test_accuracy", "failed"), [(0.5, False), (0.375, False), (0.374, True), (0.626, True)]
)
def test_a_difference_of_exactly_the_threshold_agrees(test_accuracy, failed):
    rule = Algorithm1(threshold=0.125)  # a power of two: the difference has no rounding
    assert rule.update(StepState(0.2), Observation(0.5, test_accuracy)).failed is failed


def test_a_long_walk_follows_the_paper():
    rule, state = Algorithm1(), StepState(0.3)
    h = 0.3
    for iteration in range(40):
        seen = DISAGREE if iteration % 7 == 3 else AGREE
        state = rule.update(state, seen)
        h = 0.5 * h if iteration % 7 == 3 else min(1.1 * h, 1.0)
        assert state.step_size == pytest.approx(h, rel=1e-14)


def test_the_papers_constants_are_the_defaults():
    rule = get_controller("algorithm1")
    assert rule == Algorithm1(every=50, threshold=0.1, decrease=0.5, increase=1.1)
    assert rule.test_step(0.3) == 0.3


def test_the_later_rule_tests_finer_and_takes_back_an_increase_that_disagrees():
    rule = ConfirmedIncrease()
    assert rule.test_step(0.5) == pytest.approx(0.1)
    assert rule.test_step(0.02) == pytest.approx(0.02)
    assert rule.test_step(0.01) == 0.01
    before = StepState(0.2)
    longer = rule.update(before, AGREE)
    assert longer.step_size == pytest.approx(0.22)
    assert rule.confirm(before, longer, Observation(0.70, 0.75)) == longer
    assert rule.confirm(before, longer, Observation(0.90, 0.75)) == before
    assert rule.update(before, DISAGREE).step_size == pytest.approx(0.1)


# --- what every controller does -------------------------------------------------------------------


@pytest.mark.parametrize("rule", CONTROLLERS.values(), ids=CONTROLLERS)
def test_time_may_be_longer_than_one(rule):
    read = {name: 0.0 for name in rule.reads}
    agree = Observation(0.8, 0.8, **read)
    assert rule.update(StepState(2.5), agree, (0.0, 5.0)).step_size >= 2.5
    with pytest.raises(ValueError, match=r"step_size = 2.5 is longer.*give bounds=\(0, T\)"):
        rule.update(StepState(2.5), agree)


@pytest.mark.parametrize("rule", CONTROLLERS.values(), ids=CONTROLLERS)
def test_a_check_that_saw_nothing_does_not_lengthen_the_step(rule):
    fine = {name: 0.0 for name in rule.reads}
    unseen = [Observation(math.nan, 0.8, **fine), Observation(0.8, math.nan, **fine)]
    unseen += [Observation(0.8, 0.8, **(fine | {name: math.nan})) for name in rule.reads]
    for seen in unseen:
        state = StepState(0.1, checks=20)
        for _ in range(30):
            state = rule.update(state, seen)
        assert state == replace(StepState(0.1, checks=20), failed=True)


# --- controllers of our own -----------------------------------------------------------------------


def gaps(*values):
    return [Observation(0.8, 0.8 - value) for value in values]


def test_remembering_averages_and_never_returns_to_a_step_that_failed():
    constants = {"patience": 2, "calm": 0.02, "alarm": 0.05, "keep": 0.9}
    rule = Remembering(signal="gap", decrease=0.5, ease=0.8, increase=2.0, **constants)
    # A single large gap acts at once, a small one waits for the second.
    assert walk(rule, StepState(0.1), gaps(0.2)) == [0.05]
    assert walk(rule, StepState(0.1), gaps(0.06, 0.06, 0.06)) == pytest.approx([0.1, 0.08, 0.08])
    assert walk(rule, StepState(0.1), gaps(0.09, 0.0)) == [0.1, 0.1]  # mean 0.045: neither
    assert walk(rule, StepState(0.1), gaps(0.0, 0.0, 0.0, 0.0)) == [0.1, 0.2, 0.2, 0.4]
    # 0.2 failed: from 0.1 it grows to 0.18 once, and no more.
    steps = walk(rule, StepState(0.2), gaps(0.2, *[0.0] * 6))
    assert steps == pytest.approx([0.1, 0.1, 0.18, 0.18, 0.18, 0.18, 0.18])


def test_settling_holds_where_the_signal_is_on_target():
    rule = Settling(signal="gap", target=0.03)
    assert walk(rule, StepState(0.1), gaps(*[0.03] * 50)) == [0.1] * 50


def test_settling_moves_against_the_error_by_a_falling_gain():
    rule = Settling(signal="gap", target=0.04, gain=0.2, settle=2.0, band=1.0001, window=10)
    # errors 0.5, 0.5, 0.5, -0.5: gains 0.2, 0.2, 0.4 / 3, and half of 0.4 / 4
    moves = [0.1, 0.1, 0.2 / 3, -0.025]
    expected = [0.1 * math.exp(-sum(moves[: n + 1])) for n in range(4)]
    assert walk(rule, StepState(0.1), gaps(0.06, 0.06, 0.06, 0.02)) == pytest.approx(expected)


def test_settling_waits_for_its_wish_to_leave_the_band():
    rule = Settling(
        signal="gap", target=0.04, gain=0.1, settle=100.0, band=1.17
    )  # log 1.17 is 0.157
    assert walk(rule, StepState(0.1), gaps(*[0.06] * 3)) == [0.1] * 3  # 0.05 each
    steps = walk(rule, StepState(0.1), gaps(*[0.06] * 4))
    assert steps[-1] == pytest.approx(0.1 * math.exp(-0.2))


def test_settling_starts_anew_where_the_signal_stays_far_off():
    rule = Settling(signal="gap", target=0.03, window=2, restart=2.0)
    state = StepState(0.1)
    for seen in gaps(*[0.03] * 30):
        state = rule.update(state, seen)
    assert state.checks == 30
    for seen in gaps(0.2, 0.2):
        state = rule.update(state, seen)
    assert state.checks == 0


@pytest.mark.parametrize("signal", ["discord", "flips"])
def test_settling_reads_the_signal_it_is_given(signal):
    rule = Settling(signal=signal, target=0.1)
    assert rule.reads == ("flips",) and Settling(signal="gap").reads == ()
    high, low = (Observation(0.8, 0.8, flips=value) for value in (0.9, 0.0))
    assert rule.update(StepState(0.1), high).step_size < 0.1
    assert rule.update(StepState(0.1), low).step_size > 0.1


# --- proportional and integral --------------------------------------------------------------------


def test_pi_follows_its_formula():
    rule = ProportionalIntegral(target=0.1, integral=0.02, proportional=0.05)
    state = rule.update(StepState(0.2), Observation(0.8, 0.8, flips=0.15))  # e = 0.5, none before
    assert state.step_size == pytest.approx(0.2 * math.exp(-0.02 * 0.5))
    after = rule.update(state, Observation(0.8, 0.8, flips=0.05))  # e = -0.5, a change of -1
    assert after.step_size == pytest.approx(state.step_size * math.exp(0.02 * 0.5 + 0.05))
    far = rule.update(StepState(0.2), Observation(0.8, 0.8, flips=1.0))
    assert far.step_size == pytest.approx(0.2 * math.exp(-0.02 * rule.most))


def test_pi_settles_where_the_signal_is_on_target():
    """On a plant whose flips grow with the step, from either side, and without a limit cycle."""
    rule = ProportionalIntegral(target=0.05)
    for first in (1.0, 0.001):
        state = StepState(first)
        for _ in range(600):
            flips = min(1.0, 2 * state.step_size)
            state = rule.update(state, Observation(0.8, 0.8, flips=flips))
        assert state.step_size == pytest.approx(0.025, rel=0.01)


# --- what holds for all of them -------------------------------------------------------------------

shares = st.floats(0, 1)
observations = st.builds(Observation, shares, shares, flips=shares)


@pytest.mark.parametrize("name", CONTROLLERS)
@settings(max_examples=40)
@given(seen=st.lists(observations, min_size=1, max_size=20), first=st.floats(0.01, 2.0))
def test_no_step_leaves_its_bounds_and_no_state_is_changed(name, seen, first):
    rule, state, bounds = get_controller(name), StepState(first), (0.01, 2.0)
    for observation in seen:
        before = replace(state)
        new = rule.update(state, observation, bounds)
        assert state == before
        assert bounds[0] <= new.step_size <= bounds[1]
        assert new.failed == (abs(observation.gap) > rule.threshold)
        assert 0 < rule.test_step(new.step_size) <= new.step_size
        assert rule.update(state, observation, bounds) == new
        state = new


@pytest.mark.parametrize("name", CONTROLLERS)
def test_steady_disagreement_shortens_and_steady_agreement_lengthens_the_step(name):
    rule = get_controller(name)
    bad = Observation(0.9, 0.4, flips=0.5)
    good = Observation(0.9, 0.9, flips=0.0)
    assert walk(rule, StepState(0.1), [bad] * 20)[-1] < 0.05
    assert walk(rule, StepState(0.1), [good] * 20)[-1] > 0.11


@pytest.mark.parametrize("name", CONTROLLERS)
@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"every": 0}, "every = 0: give a whole number of iterations >= 1"),
        ({"every": 2.5}, "every = 2.5"),
        ({"test_solver": "rk5"}, "test_solver = 'rk5' is unknown; choose one of euler"),
        ({"threshold": 0.0}, r"threshold = 0.0: give a share in \(0, 1\)"),
        ({"threshold": 1.0}, "threshold = 1.0"),
        ({"threshold": -0.1}, "threshold = -0.1"),
    ],
)
def test_constants_that_cannot_work_are_refused(name, constants, message):
    with pytest.raises(ValueError, match=message):
        replace(get_controller(name), **constants)


@pytest.mark.parametrize(
    ("rule", "constants", "message"),
    [
        (Algorithm1, {"decrease": 1.0}, "give 0 < decrease < 1 < increase"),
        (Algorithm1, {"increase": 0.9}, "give 0 < decrease < 1 < increase"),
        (ConfirmedIncrease, {"increase": 1.0}, "give 0 < decrease < 1 < increase"),
        (ConfirmedIncrease, {"resolution": 0.5}, "resolution = 0.5: give a number of steps >= 1"),
        (Remembering, {"decrease": 1.5}, "give 0 < decrease < 1 < increase"),
        (Remembering, {"patience": 0}, "patience = 0: give a number of checks >= 1"),
        (Remembering, {"calm": 0.2}, "calm = 0.2, alarm = 0.04: give 0 <= calm < alarm"),
        (Remembering, {"ease": 0.0}, r"ease = 0.0: give a share in \(0, 1\]"),
        (Remembering, {"keep": 1.2}, r"keep = 1.2: give a share in \(0, 1\]"),
        (ProportionalIntegral, {"target": 0.0}, "target = 0.0: give a number > 0"),
        (ProportionalIntegral, {"proportional": -1.0}, "proportional = -1.0: give a number >= 0"),
        (Settling, {"signal": "hum"}, "signal = 'hum' is unknown; choose one of gap, discord"),
        (Settling, {"target": 0.0}, "target = 0.0: give a number > 0"),
        (Settling, {"band": 1.0}, "band = 1.0: give a number > 1"),
        (Settling, {"window": 0}, "window = 0: give a number of checks >= 1"),
    ],
)
def test_constants_of_one_controller_that_cannot_work_are_refused(rule, constants, message):
    with pytest.raises(ValueError, match=message):
        rule(**constants)


def test_an_unknown_controller_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'pid' is unknown; choose one of .*algorithm1"):
        get_controller("pid")


def test_variations_change_one_of_the_papers_constants():
    paper = Algorithm1()
    for name, rule in VARIATIONS.items():
        constant, value = name.split("-")[1:]
        assert rule == replace(paper, **{constant: type(getattr(paper, constant))(float(value))})
        assert rule != paper


def test_what_is_retired_is_refused_before_work_and_no_parameter_takes_it():
    for name in RETIRED:
        remedy = f"controller = {name!r} is retired.*choose one of auto, algorithm1"
        with pytest.raises(ValueError, match=remedy):
            get_controller(name)
        with pytest.raises(ValueError, match=remedy):
            train(get_protocol("spheres2", "smoke"), Adapted("euler", name), [0])
        assert not ALLOWED["controller"].admits(name, "auto")
        for study in ("landscape-adaption", "spheres2-adaption", "spheres2-cures"):
            assert name not in {run.steps.controller for run in get_study(study, "smoke")}


def test_auto_is_one_of_them():
    assert get_controller("auto") is CONTROLLERS[controller_name("auto")]


def test_the_chapters_loop_around_a_plain_torch_model():
    """The cells of chapter 4's appendix that a modeller is to copy, run as they stand."""
    chapter = jupytext.read(PROJECT / "book" / "a4_step_adaption.py")
    cells = [cell for cell in chapter.cells if "modeller" in cell.metadata.get("tags", [])]
    names = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional, "solve_fixed": solve_fixed}
    names |= {"get_controller": get_controller, "StepState": StepState, "Observation": Observation}
    for cell in cells:
        exec(cell.source, names)
    assert len(cells) == 2
    assert cells[1].source.count("\n") <= 16
    assert names["state"].step_size != 0.5  # it began with half the span
    assert names["a"] > 0.9  # of the batch
    assert abs(names["a"] - names["b"]) <= names["rule"].threshold
