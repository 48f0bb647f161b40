"""Algorithm 1 as a pure function of what one check of one member saw."""

import pytest

from nodecore.adapt import Algorithm1, Observation, StepState, get_controller

AGREE, DISAGREE = Observation(0.80, 0.75), Observation(0.80, 0.60)


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


def test_the_step_never_leaves_its_bounds():
    rule = Algorithm1()
    assert rule.update(StepState(0.95), AGREE).step_size == 1.0
    assert rule.update(StepState(1.0), AGREE).step_size == 1.0
    assert rule.update(StepState(1.95), AGREE, (0.0, 2.0)).step_size == 2.0
    assert rule.update(StepState(1.0), DISAGREE).step_size == 0.5
    assert rule.update(StepState(0.15), DISAGREE, (0.1, 1.0)).step_size == 0.1


def test_the_state_before_is_left_as_it_was():
    state = StepState(0.2)
    Algorithm1().update(state, DISAGREE)
    assert state == StepState(0.2, failed=False)


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


@pytest.mark.parametrize(
    ("constants", "message"),
    [
        ({"every": 0}, "every = 0: give a whole number of iterations >= 1"),
        ({"every": 2.5}, "every = 2.5"),
        ({"threshold": 0.0}, r"threshold = 0.0: give a share in \(0, 1\)"),
        ({"threshold": -0.1}, "threshold = -0.1"),
        ({"decrease": 1.0}, "give 0 < decrease < 1 < increase"),
        ({"increase": 0.9}, "give 0 < decrease < 1 < increase"),
    ],
)
def test_constants_that_cannot_work_are_refused(constants, message):
    with pytest.raises(ValueError, match=message):
        Algorithm1(**constants)


def test_an_unknown_controller_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'pid' is unknown; choose one of .*algorithm1"):
        get_controller("pid")
