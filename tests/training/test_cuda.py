"""Training on a GPU against the CPU; needs torch, numpy and pytest alone (pytest --noconftest)."""

import math
from dataclasses import replace

import pytest
import torch
from ensembles import Killed, parameters, poison

from nodecore.analysis.evaluate import accuracy
from nodecore.data.datasets import DATASETS
from nodecore.data.split import Split
from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.training.adapted import Adapted
from nodecore.training.controllers import Algorithm1
from nodecore.training.devices import in_precision
from nodecore.training.ensemble import Ensemble, make_model
from nodecore.training.loop import train
from nodecore.training.protocols import Protocol

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")

CIFAR10 = Protocol("cifar10", "conv2d", 32, 8, "adam", 1e-3, 8, n_train=64, n_test=32)
MNIST = replace(CIFAR10, dataset="mnist", optimiser="sgd", learning_rate=1e-3)
SPHERES = Protocol("spheres2", "conv1d", 8, 32, "adam", 1e-3, 10, n_train=96, n_test=40)
BOTH = pytest.mark.parametrize("protocol", [CIFAR10, MNIST], ids=["cifar10-adam", "mnist-sgd"])
QUIET = {"seeds": [0, 1, 2], "progress": False}


@pytest.fixture(autouse=True)
def random_images(monkeypatch):
    """Noise stands for images: no data is needed."""
    load = Protocol.load

    def draw(self):
        if self.field != "conv2d":
            return load(self)
        shape = DATASETS[self.dataset].shape
        generator = torch.Generator().manual_seed(0)
        return tuple(
            Split(
                torch.rand(n, *shape, generator=generator),
                torch.randint(10, (n,), generator=generator),
                n_classes=10,
            )
            for n in (self.n_train, self.n_test)
        )

    monkeypatch.setattr(Protocol, "load", draw)


@pytest.fixture
def eager(monkeypatch):
    """Trainings without graphs."""
    return lambda: monkeypatch.setattr(
        "nodecore.training.loop.choose_step", lambda ensemble, _: ensemble.step
    )


def on_cpu(protocol, **how):
    return train(protocol, device="cpu", backend="torch", **how, **QUIET)


def on_gpu(protocol, **how):
    return train(protocol, device="cuda", **how, **QUIET)


def on_the_cpu(trained):
    return [p.detach().cpu() for p in parameters(trained)]


def moved_apart(trained, expected, members=slice(None)):
    """How far two trainings ended from each other, as a share of the way from where they began."""
    start = (*make_model(expected.protocol, expected.seeds),)
    begun = [p.detach() for module in start for p in module.parameters()]
    theirs = on_the_cpu(expected)
    apart, way = (
        torch.cat([(a - b)[members].flatten() for a, b in zip(ours, theirs, strict=True)]).norm()
        for ours in (on_the_cpu(trained), begun)
    )
    return float(apart / way)


def gradient(protocol, device, precision, keeps_maps=None):
    """Of the first iteration, all parameters in a vector."""
    device = torch.device(device)
    ensemble = Ensemble(protocol, FixedSteps("rk4", 3), [0, 1, 2], device, "torch")
    ensemble.field.keeps_maps = keeps_maps
    split = protocol.load()[0].to(device)
    index = torch.arange(24, device=device).view(3, 8)
    with in_precision(precision, device):
        ensemble.attempt(split.x[index], split.y[index])
    return ensemble.flat.grad.cpu()


# The largest relative error of a gradient; and below which it would not be that precision.
ERRORS = {"float32": (1e-4, 0.0), "tf32": (1e-2, 0.0), "bf16": (6e-2, 1e-4)}


@pytest.mark.parametrize("precision", ERRORS)
@BOTH
def test_gradients_are_the_cpus(protocol, precision):
    exact = gradient(protocol, "cpu", "float32")
    error = (gradient(protocol, "cuda", precision) - exact).norm() / exact.norm()
    most, least = ERRORS[precision]
    assert least <= float(error) <= most


@BOTH
def test_kept_and_recomputed_maps_give_the_same_gradients(protocol):
    kept, again = (gradient(protocol, "cuda", "float32", keeps) for keeps in (True, False))
    torch.testing.assert_close(kept, again, rtol=1e-4, atol=1e-5)


@BOTH
def test_it_trains_as_the_cpu_does(protocol):
    how = {"steps": FixedSteps("euler", 4)}
    gpu = on_gpu(protocol, **how)
    # Adam makes whole steps of what rounding leaves of a gradient that is 0.
    assert moved_apart(gpu, on_cpu(protocol, **how)) < (0.05 if gpu.protocol == CIFAR10 else 1e-3)
    assert gpu.execution == "graph"


@pytest.mark.parametrize("precision", ERRORS)
@BOTH
def test_replays_of_a_graph_are_single_iterations(protocol, precision, eager):
    how = {"steps": FixedSteps("rk4", 2), "precision": precision}
    graphed = on_gpu(protocol, **how)
    eager()
    single = on_gpu(protocol, **how)
    assert (graphed.execution, single.execution) == ("graph", "eager")
    assert moved_apart(graphed, single) < 0.05  # sums may be in another order each time
    assert torch.equal(graphed.nfe_per_iteration, single.nfe_per_iteration)
    assert graphed.nfe_per_iteration.tolist() == [8.0] * 3


class Memory:
    """A checkpoint after every iteration; ends the training after so many."""

    def __init__(self, after):
        self.after, self.kept = after, None

    def load(self, identity):
        if self.kept is not None:
            assert self.kept[0] == identity
        return self.kept and self.kept[1:]

    def save(self, identity, tensors, values):
        self.kept = identity, {k: v.clone().cpu() for k, v in tensors.items()}, values
        self.after -= 1
        if self.after == 0:
            raise Killed

    def is_due(self):
        return True


@pytest.mark.parametrize("after", [2, 6])
@BOTH
def test_a_training_that_was_stopped_goes_on(protocol, after):
    how = {"steps": FixedSteps("euler", 3)}
    memory = Memory(after)
    with pytest.raises(Killed):
        on_gpu(protocol, checkpoint=memory, **how)
    assert memory.kept[2]["iteration"] == after
    resumed, whole = on_gpu(protocol, checkpoint=memory, **how), on_gpu(protocol, **how)
    assert moved_apart(resumed, whole) < 0.05
    assert resumed.nfe_per_iteration.tolist() == whole.nfe_per_iteration.tolist() == [3.0] * 3


def test_evaluations_are_counted_exactly_where_steps_are_adapted():
    protocol = replace(CIFAR10, iterations=7)
    rule = Algorithm1(every=3, threshold=0.02)
    trained = on_gpu(protocol, steps=Adapted("euler", rule), look_every=100)
    for m, seed in enumerate([0, 1, 2]):
        checks = [row for row in trained.history if row["seed"] == seed]
        assert [row["iteration"] for row in checks] == [3, 6]
        first, second = (row["n_steps"] for row in checks)
        last = math.ceil(1.0 / float(trained.step_size[m]) * (1 - 1e-12))
        # two of the start; a check is as many steps of midpoint, of two evaluations each
        nfe = 2 + 3 * first + 2 * first + 3 * second + 2 * second + last
        assert float(trained.nfe_per_iteration[m]) * 7 == pytest.approx(nfe, abs=1e-9)


@BOTH
def test_a_member_that_diverges_leaves_the_others_alone(protocol, monkeypatch):
    how = {"steps": FixedSteps("euler", 2)}
    healthy = on_gpu(protocol, **how)
    poison(monkeypatch)
    trained = on_gpu(protocol, **how)
    assert healthy.diverged_at.tolist() == [-1, -1, -1]
    assert trained.diverged_at.tolist() == [-1, 1, -1]
    assert moved_apart(trained, healthy, members=[0, 2]) < 0.05


def test_a_gpu_without_memory_for_maps_computes_them_again(monkeypatch):
    kept = on_gpu(MNIST, steps=FixedSteps("euler", 2))
    monkeypatch.setattr("nodecore.training.devices.free_memory", lambda device: 0)
    again = on_gpu(MNIST, steps=FixedSteps("euler", 2))
    assert (kept.execution, again.execution) == ("graph", "graph, hidden maps recomputed")
    assert moved_apart(again, kept) < 0.01


@pytest.mark.parametrize(
    "how",
    [
        {"steps": FixedSteps("rk4", 3)},
        {"steps": Tolerance("dopri5", 1e-3)},
        {"steps": Adapted("euler", Algorithm1(every=5))},
        {"steps": Adapted("fehlberg21", Algorithm1(every=5), first_rtol=1e-2)},
    ],
    ids=["fixed", "adaptive", "adapted", "tolerance"],
)
def test_other_fields_train_as_on_the_cpu(how):
    cpu, gpu = on_cpu(SPHERES, **how), on_gpu(SPHERES, **how)
    for ours, its in zip(on_the_cpu(gpu), on_the_cpu(cpu), strict=True):
        torch.testing.assert_close(ours, its, rtol=0, atol=1e-4)
    torch.testing.assert_close(cpu.nfe_per_iteration, gpu.nfe_per_iteration, rtol=0.1, atol=0)


@BOTH
def test_a_model_is_tested_on_the_gpu(protocol):
    trained, test = on_gpu(protocol, steps=FixedSteps("euler", 2)), protocol.load()[1]
    for setting in (FixedSteps("midpoint", 3), Tolerance("dopri5", 1e-6)):
        with in_precision("float32", torch.device("cuda")):
            there = accuracy(trained.field, trained.head, test.to("cuda"), setting)
        field, head = (make_model(protocol, [0, 1, 2])[i] for i in (0, 1))
        field.load_state_dict(trained.field.state_dict())
        head.load_state_dict(trained.head.state_dict())
        here = accuracy(field, head, test, setting)
        torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1.1 / len(test))
