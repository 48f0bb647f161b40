"""Runs that differ only in their seeds: joined to one, and which of them count at which scale."""

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from nodecore.evidence.catalogue import get_study
from nodecore.evidence.found import Evidence
from nodecore.evidence.joined import best, join
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import Run
from nodecore.evidence.store import JoinedRuns, StoredRun
from nodecore.evidence.tables import critical_shares, grid_search, trend
from nodecore.ode.steps import FixedSteps
from nodecore.training.adapted import Adapted

RUN = Run("spheres2", FixedSteps("euler", 2), seeds=(0, 3), profile="smoke")
ADAPTED = replace(RUN, steps=Adapted("euler", "algorithm1"))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


def trained(run, root):
    return obtain(run, root=root, device="cpu", progress=False)


# --- joined to one run ----------------------------------------------------------------------------


@pytest.mark.parametrize("run", [RUN, ADAPTED], ids=["grid", "adaption"])
def test_joined_runs_are_as_one_run_of_all_their_seeds(root, run):
    parts = [trained(replace(run, seeds=seeds), root) for seeds in ((1, 4), (0, 3))]
    [joined] = join(parts)
    assert joined.run == replace(run, seeds=(0, 1, 3, 4))
    for part in parts:
        members = [joined.run.seeds.index(seed) for seed in part.run.seeds]
        for name, weights in part.stored.weights().items():
            assert torch.equal(joined.stored.weights()[name][members], weights)
        for whole, own in ((joined.field, part.field), (joined.head, part.head)):
            for parameter, expected in zip(whole.parameters(), own.parameters(), strict=True):
                assert torch.equal(parameter[members], expected)
        mine = joined.records[joined.records["seed"].isin(part.run.seeds)]
        pd.testing.assert_frame_equal(mine.reset_index(drop=True), part.records)
        if run.steps.controller:
            rows = joined.history[joined.history["seed"].isin(part.run.seeds)]
            pd.testing.assert_frame_equal(rows.reset_index(drop=True), part.history)
    assert len(joined.records) == sum(len(part.records) for part in parts)
    assert joined.stored.paths == [part.stored.path for part in (parts[1], parts[0])]
    assert joined.path == ", ".join(part.path for part in (parts[1], parts[0]))


def test_other_trainings_are_not_joined(root):
    other = [
        trained(run, root)
        for run in (RUN, replace(RUN, steps=FixedSteps("euler", 4), seeds=(1,)), ADAPTED)
    ]
    assert join(other) == other
    with pytest.raises(ValueError, match=r"seeds = \[0, 0, 3\]: give at least one .* each once"):
        join([trained(replace(RUN, seeds=(0,)), root), other[0]])


def test_a_mark_that_no_member_of_a_run_has_and_images_that_are_nobodys(monkeypatch, tmp_path):
    weights = {
        (0, 1): {"field.a": torch.ones(2, 3), "flipped.images": torch.zeros(5, 1)},
        (2,): {"field.a": 2 * torch.ones(1, 3), "violation.field.a": 3 * torch.ones(1, 3)},
    }
    monkeypatch.setattr(StoredRun, "weights", lambda self: weights[tuple(self.header["seeds"])])
    joined = JoinedRuns(tuple(StoredRun({"seeds": list(s)}, [], tmp_path) for s in weights))
    found = joined.weights()
    assert found["field.a"][:, 0].tolist() == [1, 1, 2]
    assert found["violation.field.a"][:, 0].tolist() == [0, 0, 3]
    assert found["flipped.images"].shape == (5, 1)
    assert joined.history is None


# --- which scale, and which seeds -----------------------------------------------------------------


def shown(names, there):
    """What is shown of the studies where `there` is true of a run, by name."""
    stub = SimpleNamespace()
    return {
        s.study: s for s in best(names, lambda run: Evidence(run, stub) if there(run) else None)
    }


def seeds_by_step(study):
    return {e.run.steps.n_steps: e.run.seeds for e in study.found}


def at_laptop(run):
    return run.profile == "laptop"


PAIR = ["mnist-euler", "mnist-rk4"]


def whole(run):
    """All that is waited for of a seed of images at the paper's scale."""
    return run.steps.n_steps <= {"euler": 16, "rk4": 4}[run.steps.solver]


def test_the_papers_scale_is_shown_once_the_first_seed_is_complete_but_for_the_last_steps():
    def enough(run):
        return at_laptop(run) or (run.seeds == (0,) and whole(run))

    for study in shown(PAIR, enough).values():
        assert (study.profile, study.complete, study.lacking) == ("paper", True, "")
        assert set(seeds_by_step(study).values()) == {(0,)}
    one_less = shown(
        PAIR,
        lambda r: enough(r) and (at_laptop(r) or (r.steps.solver, r.steps.n_steps) != ("rk4", 2)),
    )
    for study in one_less.values():  # what stands beside one another has one scale
        assert (study.profile, study.complete) == ("laptop", True)
        assert study.lacking == "paper scale: 7 of 8 runs so far"
        assert set(seeds_by_step(study).values()) == {(0, 1, 2)}
    alone = shown(["mnist-euler"], lambda r: enough(r) and r.steps.solver == "euler")
    assert alone["mnist-euler"].profile == "paper"


def test_more_seeds_count_in_their_order_once_they_have_all_their_runs():
    def there(run):
        return run.seeds[0] < 3 or (run.seeds == (3,) and whole(run))

    def but_for_one_of(seed):
        return lambda run: there(run) and (run.steps.n_steps, run.seeds) != (8, (seed,))

    found = shown(["mnist-euler"], there)["mnist-euler"]
    every = {k: (0, 1, 2, 3) for k in (1, 2, 4, 8, 16)}
    assert seeds_by_step(found) == every | {32: (0, 1, 2), 64: (0, 1, 2)}
    one = shown(["mnist-euler"], lambda r: there(r) and (whole(r) or r.seeds == (0,)))
    assert seeds_by_step(one["mnist-euler"]) == every  # its finest steps are no mean beside these
    some = shown(["mnist-euler"], but_for_one_of(3))
    assert set(seeds_by_step(some["mnist-euler"]).values()) == {(0, 1, 2)}
    few = shown(["mnist-euler"], but_for_one_of(1))
    assert set(seeds_by_step(few["mnist-euler"]).values()) == {(0,)}


def test_nobody_waits_for_another_start_of_algorithm_1():
    """Its runs are shown where they are, and hold up no seeds of the usual one."""

    def begun(study):
        return {(e.run.steps.controller, e.run.steps.start): e.run.seeds for e in study.found}

    def there(run):
        return run.steps.start != "hairer" and run.seeds[0] < 4

    [usual] = shown(["mnist-adaption"], there).values()
    names = ("algorithm1", "settling-discord")
    expected = {(name, "euclidean"): (0, 1, 2, 3) for name in names}
    assert (usual.profile, usual.complete, usual.lacking) == ("paper", True, "")
    assert begun(usual) == expected
    [both] = shown(["mnist-adaption"], lambda r: there(r) or r.seeds[0] <= 1).values()
    assert begun(both) == expected | {("algorithm1", "hairer"): (0, 1)}


def test_each_adaption_counts_the_seeds_that_it_has():
    """They are no grid: one controller's missing run leaves no seed out of another's mean."""

    def there(run):
        few = {"algorithm1": (0, 1, 2, 4), "settling-discord": (0, 2)}
        return run.steps.start == "euclidean" and run.seeds[0] in few[run.steps.controller]

    [found] = shown(["mnist-adaption"], there).values()
    seeds = {e.run.steps.controller: e.run.seeds for e in found.found}
    assert seeds == {"algorithm1": (0, 1, 2), "settling-discord": (0,)}  # in order


def test_any_subset_of_the_runs_is_shown_somehow():
    nothing = shown(PAIR, lambda run: False)
    assert all(not s.found and s.profile == "paper" and not s.complete for s in nothing.values())
    some = shown(
        PAIR, lambda run: run.profile == "paper" and run.seeds == (0,) and run.steps.n_steps == 8
    )
    assert {(e.run.steps.n_steps, e.run.seeds) for s in some.values() for e in s.found} == {
        (8, (0,))
    }
    assert {s.profile for s in some.values()} == {"paper"} and not some["mnist-rk4"].complete


def test_studies_of_one_scale_are_shown_at_theirs():
    found = shown(["spheres2-euler", "spheres2-per-sample"], lambda run: True)
    profiles = {name: study.profile for name, study in found.items()}
    assert profiles == {"spheres2-euler": "paper", "spheres2-per-sample": "laptop"}


def test_seeds_of_a_grid_are_joined_and_those_of_controllers_are_not():
    grid, adaption = shown(["landscape-euler", "landscape-adaption"], lambda run: True).values()
    few, all_20 = tuple(range(5)), tuple(range(20))
    assert seeds_by_step(grid) == {k: all_20 if k >= 8 else few for k in (2**i for i in range(9))}
    assert {e.run.seeds for e in adaption.found} == {few}
    assert grid.trainings == tuple(
        replace(run, seeds=few) for run in get_study("landscape-euler") if run.seeds == few
    )


# --- what tables make of seeds that were tried on a part of the grid ------------------------------


def test_a_table_of_steps_with_unequally_many_seeds():
    """Seeds 2 to 7 were tried from K = 2 on; alone seeds 0 and 1 would have K = 4 critical."""
    gap = {1: 0.5, 2: 0.15, 4: 0.0}
    rows = [
        {
            **{"dataset": "spheres2", "train_solver": "euler", "n_steps": k, "seed": seed},
            **{"trained": True, "test_solver": solver, "test_n_steps": k},
            "accuracy": 0.9 - 0.01 * k * (1 + 0.1 * seed) - lost * (seed < 2),
        }
        for k, lost_at in gap.items()
        for seed in (range(8) if k > 1 else range(2))
        for solver, lost in (("euler", 0.0), ("midpoint", lost_at))
    ]
    frame = pd.DataFrame(rows).assign(
        final_n_steps=None, rtol=None, final_rtol=None, test_rtol=None
    )
    assert grid_search(frame[frame["seed"] < 2]).critical == 4
    assert grid_search(frame).critical == 2  # a gap of 0.15 in two of eight seeds
    assert critical_shares(frame).sum() == pytest.approx(1)
    slope = trend(frame)
    alone = trend(frame[frame["seed"] < 2])
    assert (slope.slope, slope.p_any) == (alone.slope, alone.p_any)
