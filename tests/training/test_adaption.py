"""What controllers are shown during a training, what it costs, and what is kept of it."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from ensembles import parameters

from nodecore.data.seeding import make_generator
from nodecore.evidence.catalogue import STUDIES
from nodecore.evidence.found import find
from nodecore.training import adaption
from nodecore.training.adapted import RTOL_BOUNDS, Adapted
from nodecore.training.adaption import flips, step_bounds
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.controllers import (
    RETIRED,
    Algorithm1,
    ConfirmedIncrease,
    Observation,
    Remembering,
    StepState,
    get_controller,
)
from nodecore.training.ensemble import Ensemble, make_model
from nodecore.training.loop import batches, train
from nodecore.training.protocols import Protocol

TINY = Protocol("spheres2", "mlp", 8, 32, "adam", 1e-2, 20, n_train=96, n_test=40)
QUIET = {"device": "cpu", "progress": False}


# --- signals --------------------------------------------------------------------------------------


def test_flips_do_not_cancel():
    ours = torch.tensor([[[1.0, 0], [0, 1], [1, 0], [1, 0]]])
    theirs = torch.tensor([[[0.0, 1], [1, 0], [1, 0], [2, 0]]])
    assert flips(ours, theirs).tolist() == [0.5]


# --- where it begins, and what it ends with -------------------------------------------------------


def textbook_start(f, y0, rtol, atol):
    """Hairer, Norsett, Wanner, p. 169, steps a to f, with order 1; y0: a list."""

    def norm(v):
        return math.sqrt(sum((e / s) ** 2 for e, s in zip(v, scale, strict=True)) / len(v))

    scale = [atol + abs(y) * rtol for y in y0]
    f0 = f(y0)
    d0, d1 = norm(y0), norm(f0)
    h0 = 0.01 * d0 / d1
    f1 = f([y + h0 * k for y, k in zip(y0, f0, strict=True)])
    d2 = norm([b - a for a, b in zip(f0, f1, strict=True)]) / h0
    return min(100 * h0, (0.01 / max(d1, d2)) ** (1 / (1 + 1)))


@pytest.mark.parametrize("dataset", ["spheres2", "cifar10"])
def test_the_textbooks_start_takes_the_whole_batch_over_its_tolerances(dataset, few_images):
    images = {"field": "conv2d", "batch_size": 8, "n_train": 20, "n_test": 10}
    protocol = replace(TINY, dataset=dataset, **(images if dataset == "cifar10" else {}))
    protocol = replace(protocol, iterations=1)
    rule, seeds = Algorithm1(every=1), [0, 1, 2]
    trained = train(protocol, Adapted("euler", rule, start="hairer"), seeds, **QUIET)
    split, (field, _) = protocol.load()[0], make_model(protocol, seeds)
    generators = [make_generator(seed, "batches") for seed in seeds]
    index = next(batches(len(split), protocol.batch_size, generators, 1))
    batch = split.x[index].double()
    field = field.double().requires_grad_(False)
    tested = [row["step_size"] for row in trained.history]
    for m in range(3):

        def f(values, m=m):
            z = batch.clone()
            z[m] = torch.tensor(values).view(batch[m].shape)
            return field(0.0, z)[m].flatten().tolist()

        h = textbook_start(f, batch[m].flatten().tolist(), 1e-3, 1e-3)
        assert tested[m] == pytest.approx(h, rel=1e-4)
        k = math.ceil(1 / h)
        assert float(trained.nfe_per_iteration[m]) == 2 + k + 2 * k  # with Euler's and midpoint's


def test_a_start_is_euclidean_where_none_is_named():
    rule = Algorithm1(every=5)
    unnamed, euclidean, hairer = (
        train(TINY, Adapted("euler", rule, start=start), [0, 1], **QUIET)
        for start in (None, "euclidean", "hairer")
    )
    assert unnamed.history == euclidean.history != hairer.history
    for ours, its in zip(parameters(unnamed), parameters(euclidean), strict=True):
        assert torch.equal(ours, its)


def test_a_checkpoint_of_another_start_does_not_count(tmp_path):
    def whole(checkpoint=None, start=None):
        steps = Adapted("euler", Algorithm1(every=5), start)
        return train(TINY, steps, [0, 1], checkpoint=checkpoint, **QUIET)

    whole(Checkpoint(tmp_path / "state"))
    assert whole(Checkpoint(tmp_path / "state"), "hairer").history == whole(None, "hairer").history


@pytest.mark.parametrize("rule", [Algorithm1, ConfirmedIncrease, Remembering])
@pytest.mark.parametrize(("solver", "first"), [("euler", None), ("fehlberg21", 1e-2)])
@pytest.mark.parametrize("iterations", [20, 23])
def test_what_a_controller_ends_with_is_what_its_last_iteration_took(
    monkeypatch, rule, solver, first, iterations
):
    """Whether that iteration was a check, which asks for another step, or not."""
    taken, forward = [], Ensemble.forward

    def spy(ensemble, x):
        taken.append(ensemble.sizes.clone())
        return forward(ensemble, x)

    monkeypatch.setattr(Ensemble, "forward", spy)
    protocol = replace(TINY, iterations=iterations)
    steps = Adapted(solver, rule(every=5), first_rtol=first)
    trained = train(protocol, steps, [0, 1], backend="torch", **QUIET)
    assert len(taken) == iterations
    assert torch.equal(trained.step_size, taken[-1])
    if rule is Algorithm1:
        assert not torch.equal(taken[-1], taken[-6]), "it was changed before"


def test_no_training_begins_with_a_step_below_the_shortest(monkeypatch):
    usual = train(TINY, Adapted("euler", Algorithm1(every=5)), [0, 1], **QUIET).history
    assert max(row["n_steps"] for row in usual[:2]) > 1
    monkeypatch.setattr(adaption, "MOST_STEPS", 1)
    bound = train(TINY, Adapted("euler", Algorithm1(every=5)), [0, 1], **QUIET).history
    assert [row["step_size"] for row in bound[:2]] == [1.0, 1.0]


# --- evaluations ----------------------------------------------------------------------------------


def test_the_outside_check_is_the_same_for_every_controller_and_costs_nothing(monkeypatch):
    monkeypatch.setattr(adaption, "OUTSIDE_EVERY", 5)
    rare = train(TINY, Adapted("euler", Algorithm1(every=1000)), [0, 1], **QUIET)
    rows = [row for row in rare.history if "outside_gap" in row]
    assert [row["iteration"] for row in rows] == [5, 5, 10, 10, 15, 15, 20, 20]
    for m, row in enumerate(rows[:2]):
        assert float(rare.nfe_per_iteration[m]) == pytest.approx(row["n_steps"] + 2 / 20)
    checked = train(TINY, Adapted("euler", Algorithm1(every=5)), [0, 1], **QUIET)
    first = [row for row in checked.history if row["iteration"] == 5]
    for row, own in zip(rows[:2], first, strict=True):
        assert own["outside_gap"] == row["outside_gap"]
        assert own["outside_gap"] == own["train_accuracy"] - own["test_accuracy"]


def test_a_tried_increase_is_paid_for():
    protocol = replace(TINY, learning_rate=0.0, iterations=6)
    rule = ConfirmedIncrease(every=3, threshold=0.999)  # every check agrees
    trained = train(protocol, Adapted("euler", rule), [0, 1], **QUIET)
    for m, seed in enumerate((0, 1)):
        first, second = (row["step_size"] for row in trained.history if row["seed"] == seed)
        assert second == pytest.approx(min(1.1 * first, 1.0))
        nfe = 2
        for h in (first, second):
            nfe += 3 * math.ceil(1 / h - 1e-9)  # three iterations
            nfe += 2 * math.ceil(1 / rule.test_step(h) - 1e-9)  # midpoint
            nfe += math.ceil(1 / (1.1 * h) - 1e-9) if h < 1 else 0  # Euler, a longer step
        assert float(trained.nfe_per_iteration[m]) == pytest.approx(nfe / 6)


def test_a_member_pays_for_its_own_finer_tests_alone():
    """One member's test is refined for longer than another's, and goes on without it."""
    protocol, seeds = replace(TINY, iterations=4, learning_rate=1e-6), list(range(8))
    steps = Adapted("fehlberg21", Algorithm1(every=2), first_rtol=1e-2)
    together = train(protocol, steps, seeds, backend="torch", **QUIET)
    alone = [train(protocol, steps, [s], backend="torch", **QUIET) for s in seeds]
    assert together.nfe_per_iteration.tolist() == [float(t.nfe_per_iteration) for t in alone]


def test_the_next_better_solver_tests_where_none_is_named():
    """Midpoint with rk4, rk4 with dopri5: two, four and six evaluations a step."""
    for solver, train_stages, test_stages in (("midpoint", 2, 4), ("rk4", 4, 6)):
        protocol = replace(TINY, iterations=2)
        rule = Algorithm1(every=2)
        trained = train(protocol, Adapted(solver, rule), [0], **QUIET)
        k = trained.history[0]["n_steps"]
        nfe = 2 + 2 * train_stages * k + test_stages * k
        assert float(trained.nfe_per_iteration[0]) == pytest.approx(nfe / 2)


@pytest.mark.parametrize("test_solver", ["euler", "midpoint", "heun"])
def test_a_test_solver_that_is_not_finer_is_refused(test_solver):
    with pytest.raises(ValueError, match="is not better than the training solver 'midpoint'"):
        train(TINY, Adapted("midpoint", Algorithm1(test_solver=test_solver)), [0], **QUIET)


def test_a_step_at_its_shortest_is_recorded(monkeypatch):
    monkeypatch.setattr(adaption, "MOST_STEPS", 6)
    rule = Algorithm1(every=2, decrease=0.1, threshold=1e-9)
    trained = train(replace(TINY, iterations=40), Adapted("euler", rule), [0, 1], **QUIET)
    rows = [row for row in trained.history if "at_shortest" in row]
    assert {row["at_shortest"] for row in rows} == {False, True}
    assert max(row["n_steps"] for row in rows) == 6


# --- what is kept ---------------------------------------------------------------------------------


def marked(trained, mark, seed):
    rows = [r for r in trained.history if r.get("mark") == mark and r["seed"] == seed]
    return rows[-1] if rows else None


def test_weights_are_kept_as_they_were_at_the_marked_moments(monkeypatch, tmp_path):
    """The same training, ended right before, has the weights that were kept."""
    monkeypatch.setattr(adaption, "OUTSIDE_EVERY", 2)
    monkeypatch.setattr(adaption, "OUTSIDE_GAP", 0.02)
    protocol, rule = replace(TINY, iterations=60, learning_rate=3e-2), Remembering(every=6)
    how = {"steps": Adapted("euler", rule), "seeds": [0, 1, 2], **QUIET}
    trained = train(protocol, checkpoint=Checkpoint(tmp_path / "state", every=0.0), **how)
    checked = 0
    for m, seed in enumerate([0, 1, 2]):
        for mark in ("violation", "recovery"):
            row = marked(trained, mark, seed)
            if row is None:
                continue
            before = train(replace(protocol, iterations=row["iteration"] - 1), **how)
            names = [*before.field.state_dict(), *before.head.state_dict()]
            for name, weights in zip(names, parameters(before), strict=True):
                [kept] = [v for k, v in trained.marks[mark].items() if k.endswith(f".{name}")]
                assert torch.equal(kept[m], weights[m])
                checked += 1
            gap = abs(row["outside_gap"])
            assert row["iteration"] > 30 and (gap > 0.02) == (mark == "violation")
    assert checked > 8


def test_marks_are_those_of_a_walk_through_the_gaps(monkeypatch):
    """With a bound of one sample in 32, which a gap may be exactly."""
    bound = 1 / 32
    monkeypatch.setattr(adaption, "OUTSIDE_EVERY", 1)
    monkeypatch.setattr(adaption, "OUTSIDE_GAP", bound)
    protocol = replace(TINY, iterations=120, learning_rate=3e-2)
    trained = train(protocol, Adapted("euler", Remembering(every=6)), [0, 1, 2], **QUIET)
    seen = set()
    for seed in (0, 1, 2):
        worst, failed = bound, False
        for row in trained.history:
            if row["seed"] != seed or "outside_gap" not in row:
                continue
            gap, expected = abs(row["outside_gap"]), None
            if row["iteration"] > 60 and gap > worst:
                worst, failed, expected = gap, True, "violation"
            elif failed and gap <= bound:
                failed, expected = False, "recovery"
            assert row.get("mark") == expected
            seen.add((expected, gap == bound, row["iteration"] > 60 and bound < gap <= worst))
    assert {("violation", False, True), ("recovery", True, False), (None, False, True)} <= seen


def test_no_member_without_a_violation_has_a_mark(monkeypatch):
    monkeypatch.setattr(adaption, "OUTSIDE_GAP", 1.0)
    trained = train(TINY, Adapted("euler", Algorithm1(every=5)), [0, 1], **QUIET)
    assert trained.marks == {}
    assert not any("mark" in row for row in trained.history)


def test_the_model_is_that_of_the_seeds():
    """A mark holds every parameter of field and head, by name and shape."""
    field, head = make_model(TINY, [0, 1])
    names = [f"field.{n}" for n, _ in field.named_parameters()]
    names += [f"head.{n}" for n, _ in head.named_parameters()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adaption, "OUTSIDE_EVERY", 1)
        patch.setattr(adaption, "OUTSIDE_GAP", 0.0)
        trained = train(replace(TINY, iterations=60), Adapted("euler", "auto"), [0, 1], **QUIET)
    assert list(trained.marks["violation"]) == names


# --- what lies in the store -----------------------------------------------------------------------


def adapted_runs():
    runs = [run for runs in STUDIES.values() for run in runs if run.steps.controller]
    found = [evidence for evidence in map(find, runs) if evidence]
    return [e for e in found if e.run.steps.controller not in RETIRED]


@pytest.mark.parametrize("evidence", adapted_runs(), ids=lambda e: e.path)
def test_committed_histories_are_their_controllers_work(evidence):
    """Every step follows from what was seen before it; the later rule may also keep the old one."""
    rule = get_controller(evidence.run.steps.controller)
    tolerance = evidence.run.steps.first_rtol is not None
    bounds = RTOL_BOUNDS if tolerance else step_bounds(evidence.run.T)
    history = evidence.history[evidence.history["train_accuracy"].notna()]
    for _, rows in history.groupby("seed"):
        rows = rows.to_dict("records")
        state = StepState(rows[0]["step_size"])
        assert not tolerance or state.step_size == evidence.run.steps.first_rtol
        for row, after in pairwise(rows):
            accuracies = row["train_accuracy"], row["test_accuracy"]
            read = {name: row[name] for name in rule.reads}
            new = rule.update(state, Observation(*accuracies, **read), bounds)
            kept = rule.tries_increases and after["step_size"] == row["step_size"]
            state = state if kept else new
            assert after["step_size"] == pytest.approx(state.step_size, rel=1e-9)
