"""What a chapter and its appendix both show: each run once, where they look for it."""

import pytest

from nodecore.evidence.gather import (
    adaption_run,
    gather_adaptions,
    gather_grids,
    gather_models,
    gather_tolerances,
)

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


def test_models_have_the_names_of_their_steps(grids):
    models = gather_models("spheres2", {"coarse": 1, "fine": 2}, **SMOKE)
    assert {name: m.run.steps.n_steps for name, m in models.items()} == {"coarse": 1, "fine": 2}
    assert models["coarse"].path == grids["spheres2", "euler"][0].path, "trained once"


def test_grids_are_kept_by_data_set_and_solver(grids):
    assert list(grids) == [("spheres2", "euler"), ("spheres2", "rk4")]
    for (dataset, solver), found in grids.items():
        assert {(e.run.dataset, e.run.steps.solver) for e in found} == {(dataset, solver)}


def test_adaptions_are_kept_by_data_set_and_controller():
    [(key, evidence)] = gather_adaptions(["spheres2"], ["algorithm1"], **SMOKE).items()
    assert key == ("spheres2", "algorithm1")
    assert evidence.run == adaption_run("spheres2", "algorithm1", [0], "smoke")


def test_other_sets_of_tolerances_are_shown_and_never_trained():
    found = gather_tolerances("spheres2", ["landscape"], ["dopri5"], [1.0], **SMOKE)
    assert list(found) == [("spheres2", "dopri5", 1.0)]
