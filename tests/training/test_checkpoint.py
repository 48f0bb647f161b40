"""A training stopped anywhere goes on to the same bits; a state of another is left alone."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from ensembles import Deadly, Killed, parameters, poison
from marks import needs_kernel
from safetensors import safe_open

from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.training import checkpoint
from nodecore.training.adapted import Adapted
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.controllers import Algorithm1
from nodecore.training.ensemble import Ensemble
from nodecore.training.loop import train
from nodecore.training.protocols import Protocol

TINY = Protocol("spheres2", "conv1d", 8, 32, "adam", 1e-2, 14, n_train=96, n_test=40)
IMAGES = Protocol("cifar10", "conv2d", 4, 8, "adam", 1e-3, 6, n_train=20, n_test=10)
QUIET = {"device": "cpu", "progress": False}
WAYS = {
    "torch": {"steps": FixedSteps("euler", 3), "backend": "torch"},
    "fused": {"steps": FixedSteps("rk4", 2)},
    "adapted": {"steps": Adapted("euler", Algorithm1(every=2)), "look_every": 3},
    "tolerance": {"steps": Tolerance("dopri5", 1e-3)},
}


def assert_same(trained, expected):
    for ours, its in zip(parameters(trained), parameters(expected), strict=True):
        assert torch.equal(ours, its)
    assert trained.history == expected.history
    assert trained.backend == expected.backend
    for name in ("nfe_per_iteration", "diverged_at", "step_size"):
        ours, its = getattr(trained, name), getattr(expected, name)
        assert (ours is None and its is None) or torch.equal(ours, its), name


def interrupted(path, after, protocol=TINY, seeds=(0, 1), **how):
    with pytest.raises(Killed):
        train(protocol, seeds=seeds, checkpoint=Deadly(path, after), **how, **QUIET)


# --- to the same bits -----------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
@pytest.mark.parametrize("way", WAYS)
def test_a_training_killed_anywhere_ends_at_the_same_bits(tmp_path, way, optimiser):
    """Within the first epoch, at its end, before and after a check of the controller."""
    protocol, how = replace(TINY, optimiser=optimiser), WAYS[way]
    whole = train(protocol, seeds=[0, 1], **how, **QUIET)
    for kills in ([1], [2, 1, 4], [3], [13], [14]):
        path = tmp_path / f"state-{kills}"
        for after in kills:
            interrupted(path, after, protocol, **how)
        resumed = train(protocol, seeds=[0, 1], checkpoint=Checkpoint(path), **how, **QUIET)
        assert_same(resumed, whole)


@pytest.mark.parametrize("way", ["torch", "adapted"])
def test_a_training_on_images_killed_anywhere_ends_at_the_same_bits(tmp_path, few_images, way):
    whole = train(IMAGES, seeds=[0, 1], **WAYS[way], **QUIET)
    for kills in ([1], [2, 2], [5]):
        path = tmp_path / f"state-{kills}"
        for after in kills:
            interrupted(path, after, IMAGES, **WAYS[way])
        resumed = train(IMAGES, seeds=[0, 1], checkpoint=Checkpoint(path), **WAYS[way], **QUIET)
        assert_same(resumed, whole)


def test_it_goes_on_where_it_stopped(monkeypatch, tmp_path):
    interrupted(tmp_path / "state", 10, **WAYS["torch"])
    steps, step = [], Ensemble.step
    monkeypatch.setattr(
        Ensemble, "step", lambda self, *batch: steps.append(1) or step(self, *batch)
    )
    train(TINY, seeds=[0, 1], checkpoint=Checkpoint(tmp_path / "state"), **WAYS["torch"], **QUIET)
    assert len(steps) == TINY.iterations - 10


@pytest.mark.parametrize("way", WAYS)
def test_a_member_that_diverged_stays_so(monkeypatch, tmp_path, way):
    poison(monkeypatch)
    whole = train(TINY, seeds=[0, 1, 2], **WAYS[way], **QUIET)
    interrupted(tmp_path / "state", 5, seeds=(0, 1, 2), **WAYS[way])
    monkeypatch.undo()  # the state alone must tell of it
    resumed = train(
        TINY, seeds=[0, 1, 2], checkpoint=Checkpoint(tmp_path / "state"), **WAYS[way], **QUIET
    )
    assert resumed.diverged_at.tolist() == whole.diverged_at.tolist() == [-1, 1, -1]
    for ours, its in zip(parameters(resumed), parameters(whole), strict=True):
        assert torch.equal(ours[[0, 2]], its[[0, 2]])


@pytest.mark.parametrize("after", [2, 4, 5])
@pytest.mark.parametrize("way", WAYS)
def test_one_whose_members_have_all_diverged_comes_to_the_same_end(
    monkeypatch, tmp_path, way, after
):
    monkeypatch.setattr(Ensemble, "LOST_EVERY", 5)
    poison(monkeypatch, member=slice(None))
    whole, path = train(TINY, seeds=[0, 1], **WAYS[way], **QUIET), tmp_path / "state"
    interrupted(path, after, **WAYS[way])
    resumed = train(TINY, seeds=[0, 1], checkpoint=Checkpoint(path), **WAYS[way], **QUIET)
    assert resumed.diverged_at.tolist() == whole.diverged_at.tolist() == [1, 1]
    assert torch.equal(resumed.nfe_per_iteration, whole.nfe_per_iteration)
    assert resumed.history == whole.history


def test_seconds_before_the_stop_are_added(monkeypatch, tmp_path):
    path = tmp_path / "state"
    interrupted(path, 3, **WAYS["torch"])
    load = Checkpoint.load

    def load_from_an_hour_ago(self, identity):
        tensors, values = load(self, identity)
        return tensors, values | {"seconds": 3600.0}

    monkeypatch.setattr(Checkpoint, "load", load_from_an_hour_ago)
    resumed = train(TINY, seeds=[0, 1], checkpoint=Checkpoint(path), **WAYS["torch"], **QUIET)
    assert 3600.0 < resumed.seconds < 3700.0


SCRIPT = """
from nodecore.ode.steps import FixedSteps
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.protocols import Protocol
from nodecore.ode.steps import FixedSteps
from nodecore.training.loop import train
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGTERM, signal.default_int_handler)
protocol = Protocol("spheres2", "conv1d", 8, 32, "adam", 1e-2, 100_000_000, n_train=96)
path = Path(sys.argv[1])
print("ready", flush=True)
checkpoint = Checkpoint(path, every=0.05)
train(protocol, FixedSteps("euler", 2), [0], progress=False, checkpoint=checkpoint)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_a_state_and_stops(tmp_path, number):
    path = tmp_path / "state"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, path], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.01)
    before = path.stat().st_mtime_ns
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert b"KeyboardInterrupt" in errors
    assert path.stat().st_mtime_ns > before
    assert os.listdir(tmp_path) == ["state"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("last", [3, TINY.iterations])
def test_ctrl_c_while_progress_is_told_leaves_the_state_of_where_it_stops(tmp_path, last):
    told, checkpoint = [], Checkpoint(tmp_path / "state")

    def interrupt(iteration):
        told.append(iteration)
        if iteration == last:
            os.kill(os.getpid(), signal.SIGINT)

    saved = []
    checkpoint.save = lambda identity, tensors, values: saved.append(values["iteration"])
    with pytest.raises(KeyboardInterrupt):
        train(
            TINY,
            FixedSteps("euler", 1),
            [0],
            device="cpu",
            progress=interrupt,
            checkpoint=checkpoint,
        )
    assert saved == told[-1:] == [min(last + 1, TINY.iterations)]


# --- what is not loaded ---------------------------------------------------------------------------

IDENTITY = {"seeds": (0, 1), "n_steps": 4, "rtol": None}
TENSORS = {"flat": torch.arange(6.0).reshape(2, 3) / 7, "optimiser.step": torch.tensor(3.0)}
VALUES = {"iteration": 3, "history": [{"step_size": 0.1 + 0.2, "failed": False}]}


@pytest.fixture
def saved(tmp_path):
    saved = Checkpoint(tmp_path / "state")
    saved.save(IDENTITY, TENSORS, VALUES)
    return saved


def test_a_state_comes_back_as_it_was_saved(saved):
    tensors, values = saved.load(IDENTITY)
    assert values == VALUES
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    saved.remove()
    assert saved.load(IDENTITY) is None
    saved.remove()


@pytest.mark.parametrize(
    "change", [{"seeds": (0,)}, {"n_steps": 8}, {"rtol": 0.1}, {"backend": "torch"}]
)
def test_the_state_of_another_training_is_not_loaded(saved, change):
    assert saved.load(IDENTITY | change) is None


@pytest.mark.parametrize("damage", ["cut", "empty", "foreign"])
def test_a_damaged_state_is_not_loaded(saved, damage):
    data = saved.path.read_bytes()
    saved.path.write_bytes({"cut": data[:-3], "empty": b"", "foreign": b"\x80\x04pickle"}[damage])
    assert saved.load(IDENTITY) is None


def test_no_changed_bit_is_trusted(saved):
    data = saved.path.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        saved.path.write_bytes(changed)
        assert saved.load(IDENTITY) is None, at


def test_a_state_of_another_format_is_not_loaded(monkeypatch, saved):
    monkeypatch.setattr(checkpoint, "FORMAT", "nodecore-checkpoint-2")
    assert saved.load(IDENTITY) is None


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": replace(TINY, learning_rate=1e-3)},
        {"seeds": [0, 2]},
        {"steps": FixedSteps("euler", 4)},
        {"steps": FixedSteps("midpoint", 3)},
        pytest.param({"backend": "fused"}, marks=needs_kernel),
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_training_begins_anew_and_takes_the_place(tmp_path, change):
    path = tmp_path / "state"
    interrupted(path, 5, **WAYS["torch"])
    how = {"protocol": TINY, "seeds": [0, 1], **WAYS["torch"]} | change
    assert_same(
        train(**how, checkpoint=Checkpoint(path), **QUIET),
        train(**how, **QUIET),
    )


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WAYS["tolerance"], {"steps": Tolerance("dopri5", 1e-3, per_sample=True)}),
        (WAYS["tolerance"], {"steps": Tolerance("dopri5", 1e-2)}),
        (WAYS["adapted"], WAYS["adapted"] | {"look_every": 2}),
        (WAYS["adapted"], WAYS["adapted"] | {"steps": Adapted("euler", Algorithm1(every=3))}),
        tuple(
            {"steps": Adapted("fehlberg21", Algorithm1(every=2), first_rtol=rtol)}
            for rtol in (1e-1, 1e-3)
        ),
    ],
    ids=["per sample", "rtol", "look", "controller", "first rtol"],
)
def test_steps_that_are_chosen_otherwise_begin_anew(tmp_path, before, after):
    path = tmp_path / "state"
    interrupted(path, 5, **before)
    how = {"protocol": TINY, "seeds": [0, 1], **after}
    assert_same(train(**how, checkpoint=Checkpoint(path), **QUIET), train(**how, **QUIET))


def test_another_precision_begins_anew(tmp_path, few_images):
    path, how = tmp_path / "state", {"seeds": [0, 1], **WAYS["torch"]}
    interrupted(path, 3, IMAGES, **WAYS["torch"])
    resumed = train(IMAGES, precision="bf16", checkpoint=Checkpoint(path), **how, **QUIET)
    assert_same(resumed, train(IMAGES, precision="bf16", **how, **QUIET))


@pytest.mark.parametrize("iteration", [10**9, -1, 7, "5", None])
def test_a_state_that_no_training_was_in_begins_anew(tmp_path, iteration):
    """Signed anew with another iteration, it would end as the result of an untrained model."""
    path = tmp_path / "state"
    interrupted(path, 5, **WAYS["torch"])
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    identity = {key: value for key, value in state["identity"].items() if key != "format"}
    Checkpoint(path).save(identity, tensors, {**state["values"], "iteration": iteration})
    how = {"protocol": TINY, "seeds": [0, 1], **WAYS["torch"]}
    assert_same(train(**how, checkpoint=Checkpoint(path), **QUIET), train(**how, **QUIET))


def test_a_training_without_time_to_spare_still_saves_its_end(monkeypatch, tmp_path):
    """What follows it, the tests under every solver, may take long too."""
    path = tmp_path / "state"
    train(TINY, seeds=[0, 1], checkpoint=Checkpoint(path), **WAYS["torch"], **QUIET)
    monkeypatch.setattr(Ensemble, "step", None)
    train(TINY, seeds=[0, 1], checkpoint=Checkpoint(path), **WAYS["torch"], **QUIET)
