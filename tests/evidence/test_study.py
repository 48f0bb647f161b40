"""Runs: trained once and found again, their records recomputed by hand."""

import json
import math
import shutil
import subprocess
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from test_sweep import forge

from nodecore.analysis.evaluate import EXACT, cross_solver_settings
from nodecore.data.files import PROJECT
from nodecore.evidence import provenance, store
from nodecore.evidence.catalogue import GRIDS, STUDIES, get_study
from nodecore.evidence.found import find
from nodecore.evidence.measure import evaluate_run
from nodecore.evidence.obtain import obtain
from nodecore.evidence.provenance import recorded_revision
from nodecore.evidence.retest import stored_training
from nodecore.evidence.runs import Run
from nodecore.evidence.tables import agreement_gaps, as_trained
from nodecore.evidence.verify import status, verify
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.training import controllers, protocols
from nodecore.training.adapted import Adapted
from nodecore.training.adaption import Adaption
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.controllers import Algorithm1
from nodecore.training.ensemble import make_model
from nodecore.training.loop import Trained, train

RUN = Run("spheres2", FixedSteps("euler", 2), seeds=(0, 3), profile="smoke")
QUIET = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A store with one run in it."""
    root = tmp_path_factory.mktemp("store")
    obtain(RUN, root=root, **QUIET)
    return root


@pytest.fixture
def evidence(root):
    return find(RUN, root)


def no_training(*arguments, **options):
    raise AssertionError("trained although the run is in the store")


# --- found, or trained ----------------------------------------------------------------------------


def test_a_run_is_trained_once_and_then_found(monkeypatch, root):
    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    again = obtain(RUN, root=root, **QUIET)
    assert again.stored.path == RUN.path(root)
    assert len(again.records) > 0


def test_records_do_not_depend_on_the_threads_of_the_caller(tmp_path, evidence):
    torch.set_num_threads(2)
    found = obtain(RUN, root=tmp_path, **QUIET)
    assert torch.get_num_threads() == 2
    assert found.stored.records == evidence.stored.records
    assert found.stored.header["device"] == evidence.stored.header["device"]
    assert found.stored.header["device"].endswith(", 1 threads)")
    ours, its = found.stored.weights(), evidence.stored.weights()
    assert all(torch.equal(ours[name], its[name]) for name in its)


def test_tests_of_a_run_use_one_thread_too(tmp_path, monkeypatch):
    torch.set_num_threads(2)
    seen, evaluate = [], evaluate_run
    look = lambda *run: seen.append(torch.get_num_threads()) or evaluate(*run)  # noqa: E731
    monkeypatch.setattr("nodecore.evidence.obtain.evaluate_run", look)
    obtain(RUN, root=tmp_path, **QUIET)
    assert seen == [1]


def test_another_protocol_does_not_count(monkeypatch, root):
    changed = protocols.PROFILES["smoke"] | {"spheres2": {"iterations": 61}}
    monkeypatch.setitem(protocols.PROFILES, "smoke", changed)
    assert find(RUN, root) is None
    monkeypatch.setattr("nodecore.evidence.obtain.train", no_training)
    with pytest.raises(AssertionError, match="trained although"):
        obtain(RUN, root=root, **QUIET)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": FixedSteps("euler", 4)},
        {"steps": FixedSteps("rk4", 2)},
        {"seeds": (0,)},
        {"profile": "laptop"},
    ],
)
def test_another_run_is_not_found(root, change):
    assert find(replace(RUN, **change), root) is None


def put_in_its_place(run, other, root, **header):
    """Lay a run's files under the name of another one, the header changed and signed."""
    source, target = run.path(root), other.path(root)
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".json", ".safetensors"):
        shutil.copy(source.with_suffix(suffix), target.with_suffix(suffix))
    forge(target, lambda document: document["header"].update(header))


@pytest.mark.parametrize(
    "change",
    [
        {"steps": FixedSteps("euler", 4)},
        {"steps": FixedSteps("rk4", 2)},
        {"steps": Tolerance("dopri5", 0.1)},
        {"steps": Tolerance("dopri5", 0.1, per_sample=True)},
        {"steps": Adapted("euler", "algorithm1")},
        {"steps": Adapted("dopri5", "algorithm1", first_rtol=0.1)},
        {"dataset": "spheres3"},
        {"seeds": (0,)},
        {"profile": "laptop"},
        {"T": 2.0},
    ],
    ids=lambda change: str(next(iter(change.values()))),
)
def test_a_run_under_the_name_of_another_is_refused(root, tmp_path, change):
    """Even where the digest of its protocol is said to be the other's."""
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    other = replace(RUN, **change)
    put_in_its_place(RUN, other, tmp_path, protocol_hash=other.digest)
    message = f"{other.name}.json: it holds {RUN.title} .*, not {other.title} .*; delete it and"
    with pytest.raises(store.RecordError, match=message):
        find(other, tmp_path)
    assert find(RUN, tmp_path) is not None


def test_status_and_verify_name_a_run_under_the_name_of_another(monkeypatch, root, tmp_path):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    other = replace(RUN, steps=FixedSteps("euler", 4))
    monkeypatch.setitem(STUDIES, "spheres2-euler", (RUN, other))
    put_in_its_place(RUN, other, tmp_path)
    [row] = status(["spheres2-euler"], root=tmp_path).to_dict("records")
    assert (row["done"], row["damaged"]) == (1, str(other.path(tmp_path)))
    table = verify(["spheres2-euler"], root=tmp_path)
    assert table["agrees"].tolist() == [True, False]
    assert "it holds spheres2-euler/euler-K2-seeds0,3" in table["problem"].iloc[1]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"protocol": {"T": 1.0}}, "its protocol is not that of its protocol_hash"),
        ({"controller_constants": {"decrease": 0.1}}, "its controller_constants is not that"),
        ({"train_solver": "moon"}, "its header describes no run .*'moon' is unknown"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(root, tmp_path, header, message):
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    forge(RUN.path(tmp_path), lambda document: document["header"].update(header))
    with pytest.raises(store.RecordError, match=message):
        find(RUN, tmp_path)


def test_seeds_in_another_order_never_stand_for_each_other(root):
    found = find(replace(RUN, seeds=(3, 0)), root)
    assert found is None or list(found.run.seeds) == found.stored.header["seeds"]


def test_committed_evidence_comes_first_then_the_scratch_store(monkeypatch, root, tmp_path):
    monkeypatch.setattr(store, "COMMITTED", tmp_path / "committed")
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path / "scratch"))
    assert find(RUN) is None
    monkeypatch.setenv("NODECORE_RESULTS", str(root))
    assert find(RUN).stored.path == RUN.path(root)
    monkeypatch.setattr(store, "COMMITTED", root)
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path / "scratch"))
    assert find(RUN).stored.path == RUN.path(root)


def test_what_is_trained_goes_to_the_scratch_store(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "COMMITTED", tmp_path / "committed")
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path / "scratch"))
    run = replace(RUN, steps=FixedSteps("euler", 1), seeds=(0,))
    assert obtain(run, **QUIET).stored.path == run.path(tmp_path / "scratch")
    assert not (tmp_path / "committed").exists()


def test_a_damaged_run_is_refused_and_can_be_made_again(tmp_path):
    run = replace(RUN, steps=FixedSteps("euler", 1), seeds=(0,))
    first = obtain(run, root=tmp_path, **QUIET)
    path = run.path(tmp_path)
    path.write_text(path.read_text().replace('"accuracy": 0', '"accuracy": 1', 1))
    with pytest.raises(store.RecordError, match="it was edited; delete it and its companions"):
        obtain(run, root=tmp_path, **QUIET)
    path.unlink()
    again = obtain(run, root=tmp_path, **QUIET)
    assert again.stored.records == first.stored.records
    aside = {"date", "seconds", "revision"}
    for key in first.stored.header.keys() - aside:  # the weights' digest among them
        assert again.stored.header[key] == first.stored.header[key], key


@pytest.mark.parametrize("when", ["train", "evaluate_run"])
def test_a_run_that_was_stopped_goes_on_from_its_checkpoint(monkeypatch, root, tmp_path, when):
    """In the middle of its training, or in the tests that follow."""
    if when == "train":
        monkeypatch.setattr(Checkpoint, "is_due", lambda self: True)
    save, saves = Checkpoint.save, []

    def save_then_die(self, *state):
        save(self, *state)
        saves.append(state)
        if when == "evaluate_run" or len(saves) == 25:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", save_then_die)
        with pytest.raises(KeyboardInterrupt):
            obtain(RUN, root=tmp_path, **QUIET)
    assert find(RUN, tmp_path) is None
    monkeypatch.setattr("nodecore.training.ensemble.make_model", make_other_model)
    again = obtain(RUN, root=tmp_path, **QUIET)
    assert again.stored.records == find(RUN, root).stored.records
    assert not list(RUN.path(tmp_path).parent.glob(".*.checkpoint"))


def make_other_model(protocol, seeds):
    """What a training that does not go on, but begins anew, would begin with."""
    return make_model(protocol, [seed + 7 for seed in seeds])


# --- what is recorded -----------------------------------------------------------------------------


def test_every_seed_has_a_row_for_every_setting(evidence):
    frame = evidence.records
    assert list(frame.columns) == store.COLUMNS
    settings = [*cross_solver_settings("euler", 2, GRIDS["spheres2-euler"]), EXACT]
    expected = {(seed, s.solver, s.n_steps, s.rtol) for seed in (0, 3) for s in settings}
    rows = frame[["seed", "test_solver", "test_n_steps", "test_rtol"]].astype(object)
    rows = rows.where(rows.notna(), None)
    assert len(frame) == len(expected)
    assert set(rows.itertuples(index=False, name=None)) == expected
    always = "study dataset profile train_solver n_steps seed test_solver accuracy train_accuracy"
    always += " trained status nfe_per_iteration seconds backend device protocol_hash"
    assert frame[always.split()].notna().all().all()
    assert frame["nfe_per_iteration"].unique().tolist() == [2.0]
    assert frame["status"].unique().tolist() == ["ok"]


def test_the_header_says_where_the_numbers_come_from(evidence):
    header = evidence.stored.header
    assert header["seeds"] == [0, 3]
    assert header["protocol"]["iterations"] == 60
    assert header["protocol_hash"] == RUN.protocol.digest
    assert header["torch"] == torch.__version__
    assert {"device", "backend", "python", "revision", "date", "seconds"} <= header.keys()


def independent_states(weights, m, x, solver, n_steps):
    """Fixed steps of the 1-D convolutional field of member m, in float64 and in plain torch."""
    w1, b1, w2, b2, w3, b3 = (
        weights[f"field.{layer}.{i}"][m].double()
        for layer in ("first", "second", "third")
        for i in (0, 1)
    )
    kernel = w2.reshape(3, 32, 32).permute(2, 1, 0)

    def f(z):
        hidden = torch.relu(z[:, None, :] * w1.T[:, :, None][:, 0] + b1[:, None])
        hidden = torch.relu(torch.conv1d(hidden, kernel, b2, padding=1))
        return torch.einsum("ncp,c->np", hidden, w3[:, 0]) + b3

    h, z = 1 / n_steps, x.double()
    for _ in range(n_steps):
        k1 = f(z)
        if solver == "euler":
            z = z + h * k1
        elif solver == "midpoint":
            z = z + h * f(z + h / 2 * k1)
        else:
            k2 = f(z + h / 2 * k1)
            k3 = f(z + h / 2 * k2)
            z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + f(z + h * k3))
    return z


def test_accuracies_are_those_of_an_independent_solve(root, evidence):
    weights = load_file(RUN.path(root).with_suffix(".safetensors"))
    train_split, test_split = RUN.protocol.load()

    def accuracy(m, split, solver, n_steps):
        z = independent_states(weights, m, split.x, solver, n_steps)
        logits = z @ weights["head.linear.0"][m].double() + weights["head.linear.1"][m].double()
        return int((logits.argmax(1) == split.y).sum()) / len(split.y)

    checked = 0
    for row in evidence.records.itertuples():
        m = (0, 3).index(row.seed)
        # dopri5 at 1e-6 must classify as the flow does, which 64 steps of rk4 are as good as
        exact = row.test_solver == "dopri5"
        how = ("rk4", 64) if exact else (row.test_solver, int(row.test_n_steps))
        if how[1] <= 64:
            assert row.accuracy == accuracy(m, test_split, *how), row
            checked += 1
    assert checked > 2 * 15
    for m, seed in enumerate((0, 3)):
        rows = evidence.records[evidence.records.seed == seed]
        assert rows["train_accuracy"].unique().tolist() == [accuracy(m, train_split, "euler", 2)]


def test_the_model_is_rebuilt_from_the_stored_weights(root, evidence):
    weights = load_file(RUN.path(root).with_suffix(".safetensors"))
    for prefix, module in (("field", evidence.field), ("head", evidence.head)):
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter, weights[f"{prefix}.{name}"])
            assert not parameter.requires_grad


def untrained(run, **changes):
    """A training of no iterations at all."""
    field, head = make_model(run.protocol, run.seeds)
    n = len(run.seeds)
    return Trained(
        field.requires_grad_(False),
        head.requires_grad_(False),
        run.protocol,
        list(run.seeds),
        **{
            "nfe_per_iteration": torch.full((n,), 7.0, dtype=torch.float64),
            "diverged_at": torch.full((n,), -1),
            "seconds": 1.0,
            "backend": "torch",
            "device": "cpu",
        }
        | changes,
    )


def test_a_diverged_member_is_recorded_and_the_others_keep_their_accuracies(monkeypatch, tmp_path):
    healthy = pd.DataFrame(evaluate_run(RUN, untrained(RUN)))
    trained = untrained(RUN, diverged_at=torch.tensor([-1, 12]))
    with torch.no_grad():
        for parameter in trained.field.parameters():
            parameter[1] = math.nan
    monkeypatch.setattr("nodecore.evidence.obtain.train", lambda *arguments, **options: trained)
    frame = obtain(RUN, root=tmp_path).records
    assert frame[frame.seed == 3]["status"].unique().tolist() == ["diverged at 12"]
    assert not frame[frame.seed == 3]["trained"].any()
    ours, theirs = (f[f.seed == 0]["accuracy"].tolist() for f in (frame, healthy))
    assert ours == theirs


def test_a_seed_that_did_not_learn_is_marked():
    trained = untrained(RUN)
    with torch.no_grad():
        trained.head.linear[0].zero_()
        trained.head.linear[1][:, 0] = 1.0  # always class 0
    rows = evaluate_run(RUN, trained)
    assert {row["trained"] for row in rows} == {False}
    assert {row["status"] for row in rows} == {"ok"}


def test_an_adapted_run_records_how_it_walked():
    """Of 60 iterations, those after the 30th count."""
    run = Run("spheres2", Adapted("euler", "algorithm1"), seeds=(0, 1), profile="smoke")
    sizes = {0: [0.1, 0.2, 0.1, 0.05, 0.055, 0.055, 0.0605, 0.03], 1: [1.0] * 8}
    gaps = {0: [0.3, 0.3, 0.3, 0.1, -0.11, 0.2, 0.0, 0.0], 1: [0.0] * 8}
    history = [
        {
            "iteration": 9 + 7 * i,
            "seed": seed,
            "step_size": sizes[seed][i],
            "n_steps": int(np.ceil(1 / sizes[seed][i])),
            "outside_gap": gaps[seed][i],
        }
        for i in range(8)
        for seed in (0, 1)
    ]
    history.insert(3, {"iteration": 55, "seed": 0, "accuracy": 0.7})
    step_size = torch.tensor([0.03, 1.0], dtype=torch.float64)
    frame = pd.DataFrame(evaluate_run(run, untrained(run, history=history, step_size=step_size)))
    first = frame[frame.seed == 0].iloc[0]
    assert first["reversals"] == 1  # not at all, up, down
    assert first["failed_checks"] == 2
    assert first["final_n_steps"] == 34
    assert first["spread"] == pytest.approx(np.std(np.log([19, 19, 17, 34])))
    own = frame[(frame.test_solver == "euler") & (frame.test_n_steps == frame.final_n_steps)]
    exact = frame[frame.test_rtol == 1e-6].set_index("seed")["accuracy"]
    gaps = (own.set_index("seed")["accuracy"] - exact).abs()
    assert own.set_index("seed")["agreement_gap"].to_dict() == pytest.approx(gaps.to_dict())
    assert gaps[1] > 0
    second = frame[frame.seed == 1].iloc[0]
    assert [second[c] for c in ("reversals", "failed_checks", "final_n_steps", "spread")] == [
        0
    ] * 2 + [1, 0]
    for seed, n_steps in ((0, 34), (1, 1)):
        settings = {
            FixedSteps(r.test_solver, int(r.test_n_steps))
            for r in frame[(frame.seed == seed) & frame.test_n_steps.notna()].itertuples()
        }
        assert settings == set(cross_solver_settings("euler", n_steps))


def test_an_adapted_run_is_trained_and_keeps_its_history(monkeypatch, tmp_path):
    run = Run("spheres2", Adapted("euler", "algorithm1"), seeds=(0, 1), profile="smoke")
    evidence = obtain(run, root=tmp_path, **QUIET)
    assert evidence.stored.path.parts[-3:-1] == ("spheres2-adaption", "smoke")
    assert evidence.history["iteration"].tolist() == [Algorithm1().every] * 2
    assert evidence.records["controller"].unique().tolist() == ["algorithm1"]
    assert evidence.records[["reversals", "final_n_steps", "agreement_gap"]].notna().all().all()
    assert evidence.stored.header["controller_constants"] == asdict(Algorithm1())
    monkeypatch.setitem(controllers.ALL_CONTROLLERS, "algorithm1", Algorithm1(increase=1.2))
    assert find(run, tmp_path) is None, "with other constants it is another controller"


def test_a_start_that_is_not_the_usual_one_makes_another_run(tmp_path):
    run = Run("spheres2", Adapted("euler", "algorithm1"), seeds=(0, 1), profile="smoke")
    other, same = (
        replace(run, steps=replace(run.steps, start=start)) for start in ("hairer", "euclidean")
    )
    assert run.steps.start == "euclidean" and run == same
    assert run.study == other.study and run.digest != other.digest
    for each, constants in ((run, None), (other, {"rtol": 1e-3, "atol": 1e-3})):
        evidence = obtain(each, root=tmp_path, **QUIET)
        assert evidence.records["start"].unique().tolist() == [each.steps.start]
        header = evidence.stored.header
        assert (header["start"], header["start_constants"]) == (each.steps.start, constants)
    first = [find(each, tmp_path).history["n_steps"].iloc[0] for each in (run, other)]
    assert first[1] > 10 * first[0], "its tolerances ask for far shorter steps"


def test_algorithm_1_begins_in_both_ways_on_every_set_it_runs_on():
    for dataset in ("spheres2", "landscape", "mnist", "cifar10"):
        for profile in (None, "paper", "smoke"):
            runs = get_study(f"{dataset}-adaption", profile)
            of = {
                start: [
                    r for r in runs if (r.steps.controller, r.steps.start) == ("algorithm1", start)
                ]
                for start in ("euclidean", "hairer")
            }
            seeds = {start: {r.seeds for r in found} for start, found in of.items()}
            assert seeds["hairer"] and seeds["hairer"] <= seeds["euclidean"]
            assert {r.steps.start for r in runs if r.steps.controller != "algorithm1"} == {
                "euclidean"
            }


@pytest.mark.parametrize(("iterations", "ends"), [(60, False), (50, True)])
@pytest.mark.parametrize("solver", ["euler", "fehlberg21"])
def test_a_stored_run_can_be_tested_anew_at_the_step_of_its_last_iteration(
    monkeypatch, tmp_path, solver, iterations, ends
):
    """Records from before, in which a check at the end had changed the step, come out as of now."""
    smoke = {**protocols.PROFILES["smoke"], "spheres2": {"iterations": iterations, "n_test": 50}}
    monkeypatch.setitem(protocols.PROFILES, "smoke", smoke)
    run = Run("spheres2", Adapted(solver, "algorithm1"), seeds=(0, 1), profile="smoke")
    now = obtain(run, root=tmp_path / "now", **QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(Adaption, "is_last", lambda self: False)
        before = obtain(run, root=tmp_path / "before", **QUIET)
    assert before.stored.weights().keys() == now.stored.weights().keys()
    for name, weight in now.stored.weights().items():
        assert torch.equal(weight, before.stored.weights()[name])
    final = "final_rtol" if run.steps.first_rtol is not None else "final_n_steps"
    ended = [evidence.records.groupby("seed")[final].first() for evidence in (before, now)]
    assert (ended[0] != ended[1]).tolist() == [ends, ends]
    for evidence in (before, now):
        again = evaluate_run(run, stored_training(evidence))
        assert again == now.stored.records


def test_an_adaptive_run_is_tested_over_the_tolerances(tmp_path):
    run = Run("spheres2", Tolerance("fehlberg21", 0.1), seeds=(0,), profile="smoke")
    frame = obtain(run, root=tmp_path, **QUIET).records
    assert set(frame["test_solver"]) == {"fehlberg21", "dopri5"}
    assert sorted(frame["test_rtol"].unique()) == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0]
    assert frame["test_n_steps"].isna().all()
    own = frame[(frame.test_solver == "fehlberg21") & (frame.test_rtol == 0.1)]
    assert len(own) == 1
    assert frame["nfe_per_iteration"].iloc[0] > 2


def test_each_sample_may_have_steps_of_its_own(tmp_path):
    """In the training and in its tests; not in the exact flow."""
    run = Run(
        "spheres2", Tolerance("fehlberg21", 0.01, per_sample=True), seeds=(0,), profile="smoke"
    )
    assert run.path(tmp_path).parts[-3:-1] == ("spheres2-per-sample", "smoke")
    assert (
        run.digest
        != replace(run, steps=replace(run.steps, per_sample=False)).digest
        == run.protocol.digest
    )
    evidence = obtain(run, root=tmp_path, **QUIET)
    frame, test = evidence.records, run.protocol.load()[1]
    assert evidence.stored.header["per_sample"] is True
    assert frame["nfe_per_iteration"].iloc[0] % 1 > 0, "a mean over samples"
    for solver, rtol, axes in (("fehlberg21", 0.01, 2), ("dopri5", 10.0, 2), ("dopri5", 1e-6, 1)):
        how = {"rtol": rtol, "atol": rtol, "instance_axes": axes}
        z = solve_adaptive(evidence.field.double(), test.x[None].double(), solver, **how).z
        expected = float((evidence.head.double()(z)[0].argmax(-1) == test.y).double().mean())
        rows = frame[(frame.test_solver == solver) & (frame.test_rtol == rtol)]
        assert rows["accuracy"].tolist() == [expected]


def test_an_adapted_tolerance_is_where_its_own_test_is(tmp_path):
    how = {"seeds": (0, 1), "profile": "smoke"}
    run = Run("spheres2", Adapted("fehlberg21", "algorithm1", first_rtol=1e-2), **how)
    assert run.study == "spheres2-tolerance"
    usual = Run("spheres2", Adapted("fehlberg21", "algorithm1"), **how)
    assert run.digest != usual.digest, "it begins elsewhere"
    frame = obtain(run, root=tmp_path, **QUIET).records
    assert frame["final_rtol"].unique().tolist() == [1.1 * 1e-2]  # one check, which agreed
    own = as_trained(frame.assign(trained=True))
    assert own["test_rtol"].tolist() == [1.1 * 1e-2] * 2
    assert frame[["reversals", "spread", "failed_checks", "agreement_gap"]].notna().all().all()
    assert frame["final_n_steps"].isna().all()


def test_a_longer_time_is_trained_and_tested_over(tmp_path):
    run = Run("spheres2", FixedSteps("euler", 4), T=2.0, seeds=(0,), profile="smoke")
    assert run.path(tmp_path).parts[-3:] == (
        *("spheres2-growing-T", "smoke"),
        "euler-K4-T2-seeds0.json",
    )
    assert run.protocol.digest != replace(run, T=1.0).protocol.digest
    evidence = obtain(run, root=tmp_path, **QUIET)
    frame, test = evidence.records, run.protocol.load()[1]
    for solver, n_steps in (("euler", 4), ("midpoint", 2)):
        z = solve_fixed(evidence.field, test.x[None], solver, n_steps=n_steps, t=(0.0, 2.0)).z
        expected = float((evidence.head(z)[0].argmax(-1) == test.y).double().mean())
        rows = frame[(frame.test_solver == solver) & (frame.test_n_steps == n_steps)]
        assert rows["accuracy"].tolist() == [expected]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("run", "path"),
    [
        (RUN, "spheres2-euler/smoke/euler-K2-seeds0,3.json"),
        (Run("landscape", FixedSteps("rk4", 64)), "landscape-rk4/paper/rk4-K64-seeds0-4.json"),
        (
            Run("landscape", Tolerance("dopri5", 1e-3), seeds=(0, 1, 2, 5)),
            "landscape-dopri5/paper/dopri5-tol0.001-seeds0-2,5.json",
        ),
        (
            Run("landscape", Adapted("euler", "algorithm1"), profile="laptop"),
            "landscape-adaption/laptop/euler-algorithm1-seeds0-4.json",
        ),
        (
            Run("landscape", Adapted("euler", "algorithm1", start="euclidean")),
            "landscape-adaption/paper/euler-algorithm1-seeds0-4.json",
        ),
        (
            Run("mnist", Adapted("euler", "algorithm1", start="hairer"), seeds=(3,)),
            "mnist-adaption/paper/euler-algorithm1-hairer-seeds3.json",
        ),
        (
            Run("spheres2", Adapted("dopri5", "algorithm1")),
            "spheres2-tolerance/paper/dopri5-algorithm1-from1e-05-seeds0-4.json",
        ),
        (
            Run("spheres2", Adapted("dopri5", "algorithm1", first_rtol=1)),
            "spheres2-tolerance/paper/dopri5-algorithm1-from1.0-seeds0-4.json",
        ),
    ],
)
def test_where_a_run_lies(tmp_path, run, path):
    assert run.path(tmp_path) == tmp_path / path


def test_committed_evidence_is_still_found():
    """Neither the name nor the digest of a run may change under what was trained long ago."""
    runs = [run for name in STUDIES for run in get_study(name)]
    there = [run for run in runs if run.path(store.COMMITTED).exists()]
    assert len(there) > 100
    for run in there:
        assert find(run, store.COMMITTED) is not None, run.path(store.COMMITTED)


def test_no_two_runs_share_a_file(tmp_path):
    runs = {run for name in STUDIES for run in get_study(name)}  # some belong to two studies
    assert len({run.path(tmp_path) for run in runs}) == len(runs)
    close = [Run("landscape", Tolerance("dopri5", rtol)) for rtol in (0.1, 0.1000001)]
    assert close[0].path(tmp_path) != close[1].path(tmp_path)


def test_the_studies_are_the_papers_grids():
    for name, last in (
        ("spheres2-euler", 256),
        ("spheres2-rk4", 128),
        ("landscape-euler", 256),
        ("landscape-rk4", 64),
    ):
        runs = [run for run in get_study(name) if run.seeds == (0, 1, 2, 3, 4)]
        assert [run.steps.n_steps for run in runs] == [
            2**i for i in range(int(math.log2(last)) + 1)
        ]
        assert {(run.study, run.profile) for run in get_study(name)} == {(name, "paper")}
        assert GRIDS[name] == tuple(run.steps.n_steps for run in runs)


def test_more_seeds_are_runs_of_their_own_where_the_critical_step_may_lie():
    found = {}
    for name in GRIDS:
        for run in get_study(name):
            if run.seeds == tuple(range(5, 20)):
                found.setdefault(name, []).append(run.steps.n_steps)
    assert found == {
        "spheres2-euler": [8, 16, 32, 64, 128, 256],
        "landscape-euler": [8, 16, 32, 64, 128, 256],
        "spheres2-rk4": [1, 2, 4, 8, 16, 32],
        "landscape-rk4": [1, 2, 4, 8, 16, 32],
    }
    assert {run.seeds for run in get_study("landscape-rk4", "laptop")} == {(0, 1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "moons"}, "dataset = 'moons' is unknown; choose one of spheres2"),
        ({"profile": "huge"}, "profile = 'huge' is unknown; choose one of paper"),
        ({"seeds": ()}, r"seeds = \[\]: give at least one whole number >= 0, each once"),
        ({"seeds": (1, 1)}, r"seeds = \[1, 1\]: give at least one"),
        ({"seeds": (-1,)}, "seed = -1: give a whole number >= 0"),
        (
            {"steps": Adapted("euler", Algorithm1(every=5))},
            r"controller = Algorithm1\(.*: give its name, by which records are found",
        ),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(RUN, **changes)


def test_an_unknown_study_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"study = 'moons' is unknown; choose one of .*-euler, "):
        get_study("moons")


# --- what a study shows ---------------------------------------------------------------------------


def rows(n_steps, own, other, trained=(True, True), solver="euler"):
    check = ("midpoint", n_steps) if solver == "euler" else (solver, 2 * n_steps)
    return [
        {
            "train_solver": solver,
            "n_steps": n_steps,
            "seed": seed,
            "test_solver": test_solver,
            "test_n_steps": test_n_steps,
            "accuracy": value,
            "trained": trained[seed],
        }
        for (test_solver, test_n_steps), values in (((solver, n_steps), own), (check, other))
        for seed, value in enumerate(values)
    ]


def test_gaps_are_differences_of_means_over_the_seeds_that_trained():
    frame = pd.DataFrame(
        rows(1, (0.9, 0.7), (0.5, 0.5))
        + rows(2, (0.9, 0.4), (0.8, 0.0), trained=(True, False))
        + rows(4, (0.3, 0.4), (0.8, 0.0), trained=(False, False)),
        columns=store.COLUMNS,
    )
    gaps = agreement_gaps(frame)
    assert gaps.loc[[1, 2]].tolist() == pytest.approx([0.3, 0.1])
    assert math.isnan(gaps.loc[4])
    rk4 = pd.DataFrame(rows(8, (0.9, 0.8), (0.85, 0.75), solver="rk4"), columns=store.COLUMNS)
    assert agreement_gaps(rk4).to_dict() == {8: pytest.approx(0.05)}


def test_records_hold_no_numpy_or_torch_values(root):
    """What JSON cannot hold would be refused only at the end of a long training."""
    document = json.loads(RUN.path(root).read_text())
    kinds = {type(value) for record in document["records"] for value in record.values()}
    assert kinds <= {int, float, str, bool, type(None)}


# --- the revision ---------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["no git here", "no repository"])
def test_a_run_outside_git_is_recorded_with_a_word_instead(monkeypatch, tmp_path, why):
    if why == "no git here":
        monkeypatch.setenv("PATH", str(tmp_path))
    else:
        monkeypatch.setattr(provenance, "PROJECT", tmp_path)
    header = obtain(RUN, root=tmp_path, **QUIET).stored.header
    assert header["revision"] is None
    assert header["revision_unknown"].startswith("no git revision")
    monkeypatch.setenv("NODECORE_REVISION", "abc123")
    header = obtain(
        replace(RUN, steps=FixedSteps("euler", 1)), root=tmp_path, **QUIET
    ).stored.header
    assert header["revision"] == "abc123" and "revision_unknown" not in header


def test_the_revision_is_that_of_the_code_that_trained(monkeypatch, tmp_path):
    """A checkout may move on meanwhile."""
    monkeypatch.setenv("NODECORE_REVISION", "before")

    def train_slowly(*arguments, **options):
        monkeypatch.setenv("NODECORE_REVISION", "after")
        return train(*arguments, **options)

    monkeypatch.setattr("nodecore.evidence.obtain.train", train_slowly)
    assert obtain(RUN, root=tmp_path, **QUIET).stored.header["revision"] == "before"


def test_a_checkout_of_another_owner_has_its_revision(monkeypatch):
    monkeypatch.delenv("NODECORE_REVISION", raising=False)
    mine = recorded_revision()["revision"]
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own switch for such tests
    bare = subprocess.run(["git", "-C", PROJECT, "log", "-1"], capture_output=True, text=True)
    assert "dubious ownership" in bare.stderr
    assert mine is not None and recorded_revision()["revision"] == mine
