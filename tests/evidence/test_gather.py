"""What a chapter and its appendix both show: each run once, where they look for it."""

import pytest
import torch

from nodecore.evidence.gather import (
    adaption_run,
    gather_adapted_tolerances,
    gather_adaptions,
    gather_grids,
    gather_pair,
    gather_tolerances,
)
from nodecore.evidence.names import name_of

SMOKE = {"seeds": [0], "profile": "smoke", "device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def results_of_these_tests(tmp_path_factory):
    """Pages of other tests show all that lies in the results."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NODECORE_RESULTS", str(tmp_path_factory.mktemp("gathered")))
        yield


@pytest.fixture(scope="module")
def grids():
    return gather_grids(["spheres2"], ["euler", "rk4"], [1, 2, 4], **SMOKE)


def test_a_pair_is_named_by_its_steps_and_followed_from_the_same_starts(grids):
    models = gather_pair("spheres2", 2, 1, n_starts=5, **SMOKE)
    assert {name: m.n_steps for name, m in models.items()} == {"fine": 2, "coarse": 1}
    assert models["coarse"].evidence.path == grids["spheres2", "euler"][0].path, "trained once"
    assert torch.equal(models["fine"].starts, models["coarse"].starts)
    assert models["fine"].path().shape == (3, 1, 5, 2)
    assert torch.equal(models["fine"].path(4)[0], models["coarse"].path()[0])
    z = models["fine"].path()[1, 0]
    torch.testing.assert_close(
        models["fine"].member(0)(0.0, z), models["fine"].double(0.0, z[None])[0]
    )


def test_a_single_start_makes_no_pair_of_trajectories():
    with pytest.raises(ValueError, match="n_starts = 1: choose at least 2"):
        gather_pair("spheres2", 2, 1, n_starts=1, **SMOKE)


@pytest.mark.parametrize(("fine", "coarse"), [(8, 8), (2, 512)])
def test_a_fine_model_has_more_steps_than_a_coarse_one(fine, coarse):
    with pytest.raises(ValueError, match=f"n_steps_fine = {fine}: .*n_steps_coarse = {coarse}"):
        gather_pair("spheres2", fine, coarse, n_starts=5, **SMOKE)


def test_no_more_starts_are_followed_than_there_are_points(grids):
    models = gather_pair("spheres2", 2, 1, n_starts=1000, **SMOKE)
    assert len(models["fine"].starts) == len(models["fine"].test) < 1000


def test_a_grid_that_would_be_empty_is_refused_before_any_training(monkeypatch):
    def no_training(*arguments, **options):
        raise AssertionError("trained although it was to be refused")

    monkeypatch.setattr("nodecore.evidence.gather.obtain", no_training)
    with pytest.raises(
        ValueError, match=r"n_steps = \[256\]: the grid of spheres2-rk4 ends at 128"
    ):
        gather_grids(["spheres2"], ["euler", "rk4"], [256], **SMOKE)


def test_runs_of_single_seeds_are_found_and_joined(monkeypatch):
    def no_training(*arguments, **options):
        raise AssertionError("trained although it is committed")

    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    how = {"seeds": [0, 1, 2], "profile": "paper", "device": "cpu"}
    [found] = gather_grids(["spheres900"], ["euler"], [1, 16], **how).values()
    assert [(e.run.steps.n_steps, e.run.seeds) for e in found] == [(1, (0, 1, 2)), (16, (0, 1, 2))]


def test_grids_are_kept_by_data_set_and_solver(grids):
    assert list(grids) == [("spheres2", "euler"), ("spheres2", "rk4")]
    for (dataset, solver), found in grids.items():
        assert {(e.run.dataset, e.run.steps.solver) for e in found} == {(dataset, solver)}


def test_adaptions_are_kept_by_data_set_and_controller():
    [(key, evidence)] = gather_adaptions(["spheres2"], ["algorithm1"], **SMOKE).items()
    assert key == ("spheres2", "algorithm1")
    assert evidence.run == adaption_run("spheres2", "algorithm1", [0], "smoke")


def test_other_sets_of_tolerances_are_shown_and_never_trained():
    found, frames = gather_tolerances("spheres2", ["landscape"], ["dopri5"], [1.0], **SMOKE)
    assert list(found) == [("spheres2", "dopri5", 1.0)]
    [(key, frame)] = frames.items()
    assert key == ("spheres2", "dopri5") and set(frame["rtol"]) == {1.0}


def test_adapted_tolerances_are_kept_by_their_start_and_the_title_of_the_rule():
    found = gather_adapted_tolerances("spheres2", ["dopri5"], [0.1], ["algorithm1"], **SMOKE)
    [((solver, first, title), evidence)] = found.items()
    steps = evidence.run.steps
    assert (solver, first) == (steps.solver, steps.first_rtol) == ("dopri5", 0.1)
    assert title == name_of(steps.controller) == "Algorithm 1"
