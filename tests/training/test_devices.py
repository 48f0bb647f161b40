"""The way of a training on a GPU, as far as it can be walked without one."""

from dataclasses import replace
from importlib import import_module

import pytest
import torch
from devices import Elsewhere, OtherDevice, StandInGraph, held
from test_checkpoint import Deadly, Killed, assert_same
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode

from nodecore.analysis.evaluate import accuracy
from nodecore.data.datasets import DATASETS
from nodecore.data.seeding import make_generator
from nodecore.ode import fields
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.fields import Conv2dField
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.runge_kutta import rk_step
from nodecore.ode.steps import FixedSteps, Tolerance
from nodecore.ode.tableaus import get_tableau
from nodecore.training.adapted import Adapted
from nodecore.training.adaption import initial_step_size
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.controllers import Algorithm1, ConfirmedIncrease, get_controller
from nodecore.training.devices import PRECISIONS, get_device, in_precision, maps_fit
from nodecore.training.ensemble import Ensemble, make_model
from nodecore.training.iteration import GraphedStep
from nodecore.training.loop import train
from nodecore.training.protocols import Protocol

MLP = Protocol("spheres2", "mlp", 8, 8, "adam", 1e-2, 4, n_train=16, n_test=12)
IMAGES = {
    "adam": Protocol("cifar10", "conv2d", 4, 4, "adam", 1e-3, 7, n_train=12, n_test=10),
    "sgd": Protocol("mnist", "conv2d", 4, 4, "sgd", 1e-2, 7, n_train=12, n_test=10),
}
SEEDS = [0, 3]
QUIET = {"seeds": SEEDS, "backend": "torch", "progress": False}


# --- which device, which precision ----------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)


def test_a_gpu_has_one_name(two_gpus):
    assert str(get_device("cuda")) == str(get_device("auto")) == "cuda:1"
    assert str(get_device("cuda:0")) == "cuda:0"
    with pytest.raises(ValueError, match="device = 'cuda:2': there are cuda:0 to cuda:1; use one"):
        get_device("cuda:2")


def test_a_precision_is_that_of_convolutions_and_is_left_as_it_was():
    conv, product = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = conv.fp32_precision, product.fp32_precision
    seen = {}
    for precision in ("float32", "tf32", "bf16"):
        with in_precision(precision, torch.device("cpu")):
            bf16 = torch.is_autocast_enabled("cpu")
            seen[precision] = conv.fp32_precision, product.fp32_precision, bf16
            with in_precision("float32", torch.device("cpu")):
                inner = conv.fp32_precision, torch.is_autocast_enabled("cpu")
                assert inner == ("ieee", False)
    assert seen == {
        "float32": ("ieee", "ieee", False),
        "tf32": ("tf32", "ieee", False),
        "bf16": ("ieee", "ieee", True),
    }
    assert (conv.fp32_precision, product.fp32_precision) == before


def test_in_bf16_the_classifier_the_first_step_and_the_looks_are_in_float32(few_images):
    protocol = replace(IMAGES["adam"], iterations=1, T=0.1)
    how = {"steps": Adapted("euler", Algorithm1(every=50)), "look_every": 1}
    trained = train(protocol, precision="bf16", device="cpu", **how, **QUIET)
    field, head = trained.field.requires_grad_(False), trained.head.requires_grad_(False)
    split, test = protocol.load()
    first = torch.stack([torch.randperm(12, generator=g)[:4] for g in generators()])
    x, cpu = split.x[first], torch.device("cpu")
    untrained = make_model(protocol, SEEDS)[0]
    h = initial_step_size(untrained, 0.0, x, 1, lambda v: v.flatten(2).norm(dim=-1).mean(1))
    assert trained.step_size.tolist() == h.clamp(max=0.1).tolist()
    every = test.x.expand(2, *test.x.shape)
    z = solve_fixed(field, every, "euler", step_size=trained.step_size, t=(0.0, 0.1)).z
    looks = (head(z).argmax(-1) == test.y).double().mean(1)
    assert [row["accuracy"] for row in trained.history] == looks.tolist()
    with in_precision("bf16", cpu):
        slope, logits = field(0.0, x), head(x)
    assert torch.equal(logits, head(x))
    assert slope.dtype == torch.float32
    assert torch.equal(slope, slope.bfloat16().float()), "its products were in bfloat16"
    assert not torch.equal(slope, field(0.0, x))


def generators():
    return [make_generator(seed, "batches") for seed in SEEDS]


# --- tensors of two devices -----------------------------------------------------------------------

WAYS = {
    "fixed": {"steps": FixedSteps("rk4", 2)},
    "algorithm1": {"steps": Adapted("euler", Algorithm1(every=2))},
    "confirmed": {
        "steps": Adapted("euler", replace(get_controller("confirmed-increase"), every=2))
    },
    "discord": {"steps": Adapted("euler", replace(get_controller("settling-discord"), every=2))},
    "tolerance": {"steps": Tolerance("dopri5", 1e-1)},
    "sample": {"steps": Tolerance("bosh3", 1e-1, per_sample=True)},
    "adapted tolerance": {"steps": Adapted("fehlberg21", Algorithm1(every=2), first_rtol=1e-1)},
    "confirmed tolerance": {
        "steps": Adapted("fehlberg21", ConfirmedIncrease(every=2), first_rtol=1e-1)
    },
}


@pytest.fixture
def elsewhere(monkeypatch):
    """The other device, which has fused optimisers as the CPU and GPUs have.

    No user may train on it, so that trainings here do not ask whether it may be used.
    """
    monkeypatch.setattr("nodecore.training.loop.get_device", torch.device)
    optimiser = import_module("torch.optim.optimizer")
    supported = optimiser._get_fused_kernels_supported_devices()
    monkeypatch.setattr(
        optimiser, "_get_fused_kernels_supported_devices", lambda: [*supported, "meta"]
    )
    with OtherDevice() as device:
        yield device


def assert_equal(there, other):
    """A training elsewhere and another one, there or on the CPU."""
    ours, its = ([*t.field.parameters(), *t.head.parameters()] for t in (there, other))
    assert all(isinstance(p, Elsewhere) for p in ours)
    assert all(torch.equal(held(a), held(b)) for a, b in zip(ours, its, strict=True))
    assert there.history == other.history
    for name in ("nfe_per_iteration", "diverged_at"):
        assert torch.equal(getattr(there, name), getattr(other, name))


@pytest.mark.parametrize("way", WAYS)
def test_a_training_elsewhere_mixes_no_devices_and_is_the_same(elsewhere, monkeypatch, way):
    monkeypatch.setattr("nodecore.training.adaption.OUTSIDE_EVERY", 4)
    how = WAYS[way] | QUIET | {"look_every": 3}
    assert_equal(train(MLP, device="meta", **how), train(MLP, device="cpu", **how))


def test_the_other_device_does_refuse_a_mixture(elsewhere):
    with pytest.raises(RuntimeError, match="found meta and cpu"):
        torch.ones(2, device="meta") + torch.ones(2)


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("name", IMAGES)
def test_a_whole_step_on_images_asks_for_no_value(monkeypatch, name, keeps):
    """Meta tensors have none: whatever would wait for a GPU in each iteration raises."""
    plain = {  # the fused ones are of the CPU and of GPUs
        "adam": lambda params, lr, **_: torch.optim.Adam(params, lr, foreach=False),
        "sgd": lambda params, lr, **_: torch.optim.SGD(params, lr, foreach=False),
    }
    monkeypatch.setattr("nodecore.training.ensemble.OPTIMISERS", plain)
    protocol, device = IMAGES[name], torch.device("meta")
    ensemble = Ensemble(protocol, FixedSteps("rk4", 3), SEEDS, device, "torch")
    ensemble.field.keeps_maps = keeps
    shape = DATASETS[protocol.dataset].shape
    x = torch.empty(2, 4, *shape, device=device)
    y = torch.zeros(2, 4, dtype=torch.int64, device=device)
    with in_precision("tf32", device):
        ensemble.step(x, y)
    assert ensemble.flat.grad.device.type == "meta"


# --- layout and memory ----------------------------------------------------------------------------


class Convolutions(TorchFunctionMode):
    """Notes the arguments of every convolution, and the type of what comes out."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func is torch.conv2d:
            self.seen.append((*args[:2], out))
        return out


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_on_a_gpu_every_map_is_channels_last(channels, precision):
    field = Conv2dField(channels, 8, generators=generators())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        for parameter in field.parameters():
            parameter.data = mode.from_tensor(parameter.data)
        field = field.to("cuda")
        z = torch.rand(2, 5, channels, 6, 7, device="cuda")
        with in_precision(precision, torch.device("cuda")), Convolutions() as convolutions:
            end = rk_step(field.for_solve(z), 0.0, z, 0.5, get_tableau("rk4"))
    assert (end.shape, end.dtype, end.device.type) == (z.shape, torch.float32, "cuda")
    assert len(convolutions.seen) == 2 * 3 * 4  # members, layers, stages
    for image, weight, out in convolutions.seen:
        _, c, height, width = image.shape
        assert image.stride() == (c * height * width, 1, c * width, c)
        assert out.stride()[1] == 1
        if weight.shape[-1] > 1:
            assert weight.is_contiguous(memory_format=torch.channels_last)


def test_on_a_cpu_one_channel_stays_as_it_is():
    z = torch.rand(3, 1, 5, 4)
    assert fields._channels_last(z).stride() == z.stride()


def test_the_other_layout_holds_the_same_image(elsewhere):
    z = torch.rand(3, 1, 5, 4)
    out = fields._channels_last(z.to("meta"))
    assert torch.equal(out.held, z)
    assert out.held.stride() == (20, 1, 4, 1)


def test_members_weights_are_taken_apart_once_a_solve(elsewhere):
    field = Conv2dField(3, 4, generators=generators()).to("meta")
    taken = []
    field._weights = lambda m: taken.append(m) or Conv2dField._weights(field, m)
    solve_fixed(field, torch.rand(2, 2, 3, 4, 4).to("meta"), "euler", n_steps=5)
    assert taken == [0, 1]


def test_hidden_maps_are_kept_where_they_fit(monkeypatch):
    protocol = replace(IMAGES["adam"], width=128, batch_size=256)
    kept = 4 * 3 * 8 * 2 * 128 * 32 * 32 * 256  # rk4, three members, eight steps, two maps

    def free(share, bytes_each):
        needed = share * kept * bytes_each / 0.8
        monkeypatch.setattr("nodecore.training.devices.free_memory", lambda device: needed)
        precision = "bf16" if bytes_each == 2 else "tf32"
        return maps_fit(protocol, 4 * 3 * 8, precision, torch.device("cuda"))

    assert free(1.01, 4) and free(1.01, 2)
    assert not free(0.99, 4) and not free(0.99, 2)


def test_kept_and_recomputed_maps_give_the_same_gradients():
    field = Conv2dField(3, 4, generators=generators())
    z = torch.rand(2, 2, 3, 4, 4)
    gradients = []
    for field.keeps_maps in (True, False):
        field.zero_grad()
        solve_fixed(field, z, "euler", n_steps=3).z.square().sum().backward()
        gradients.append([p.grad.clone() for p in field.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def out_of_memory_once(monkeypatch, calls_before):
    """Convolutions of hidden maps that are kept run out of memory after so many."""
    convolutions, calls = fields._convolutions, []

    def run_out(*arguments):
        calls.append(1)
        if len(calls) == calls_before:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return convolutions(*arguments)

    monkeypatch.setattr(fields, "_convolutions", run_out)


def keeping(monkeypatch):
    """Trainings that begin with hidden maps kept."""
    initialise = Conv2dField.__init__

    def keep(self, *arguments, **options):
        initialise(self, *arguments, **options)
        self.keeps_maps = True

    monkeypatch.setattr(Conv2dField, "__init__", keep)


def test_out_of_memory_maps_are_given_up_and_nothing_counts_twice(few_images, monkeypatch):
    how = {"steps": FixedSteps("euler", 3), "device": "cpu"} | QUIET
    whole = train(IMAGES["adam"], **how)
    keeping(monkeypatch)
    out_of_memory_once(monkeypatch, 17)  # in the third iteration
    trained = train(IMAGES["adam"], **how)
    assert_same(trained, whole)
    assert trained.execution == "eager, hidden maps recomputed"
    monkeypatch.undo()


def test_out_of_memory_without_maps_to_give_up_is_an_end(few_images, monkeypatch):
    out_of_memory_once(monkeypatch, 17)
    with pytest.raises(torch.OutOfMemoryError):
        train(IMAGES["adam"], FixedSteps("euler", 3), device="cpu", **QUIET)


# --- members that have arrived --------------------------------------------------------------------


def test_members_that_have_arrived_are_not_evaluated():
    field = Conv2dField(3, 4, generators=generators()).requires_grad_(False)
    z, calls = torch.rand(2, 2, 3, 4, 4), []
    member = field._member
    field._member = lambda weights, images: calls.append(1) or member(weights, images)
    sizes = torch.tensor([1 / 7, 1 / 2], dtype=torch.float64)
    solution = solve_fixed(field, z, "midpoint", step_size=sizes)
    assert len(calls) == 2 * (7 + 2)
    assert solution.nfe.tolist() == [14, 4]
    for m, k in enumerate((7, 2)):
        alone = solve_fixed(field, z, "midpoint", n_steps=k).z[m]
        torch.testing.assert_close(solution.z[m], alone, rtol=1e-6, atol=1e-6)
    calls.clear()
    tolerances = torch.tensor([1e-4, 1e-1], dtype=torch.float64)
    adapted = solve_adaptive(field, z, "dopri5", rtol=tolerances, atol=tolerances, instance_axes=1)
    assert len(set(adapted.nfe.tolist())) == 2
    assert len(calls) == int(adapted.nfe.sum())


# --- graphs ---------------------------------------------------------------------------------------

GRAPHED = {
    "adam": (IMAGES["adam"], {"steps": FixedSteps("euler", 2)}),
    "sgd": (IMAGES["sgd"], {"steps": FixedSteps("rk4", 1)}),
    "mlp": (replace(MLP, iterations=7), {"steps": FixedSteps("euler", 2)}),
}


@pytest.fixture
def graphed(monkeypatch, elsewhere):
    """Trainings elsewhere go through graphs; gives the ones that were made. `spoil`: see there."""

    def begin(*spoils):
        spoils, graphs = iter(spoils), []

        def make(_):
            graphs.append(StandInGraph(elsewhere, next(spoils, lambda n: None)))
            return graphs[-1]

        choose = lambda ensemble, _: GraphedStep(ensemble, make)  # noqa: E731
        monkeypatch.setattr("nodecore.training.loop.choose_step", choose)
        return graphs

    return begin


def eager_and_graphed(protocol, how, begin, *spoils):
    eager = train(protocol, device="meta", **how, **QUIET)
    graphs = begin(*spoils)
    replayed = train(protocol, device="meta", **how, **QUIET)
    assert_equal(replayed, eager)
    return replayed, graphs


@pytest.mark.parametrize("name", GRAPHED)
def test_replays_give_the_same_bits_as_single_iterations(few_images, graphed, name):
    replayed, graphs = eager_and_graphed(*GRAPHED[name], graphed)
    assert replayed.execution == "graph"
    assert len(graphs) == 1 and len(graphs[0].operations) > 20


@pytest.mark.parametrize("kills", [[2], [5], [4, 1]], ids=str)
@pytest.mark.parametrize("name", GRAPHED)
def test_a_replayed_training_killed_anywhere_ends_at_the_same_bits(
    few_images, graphed, tmp_path, name, kills
):
    protocol, how = GRAPHED[name]
    eager = train(protocol, device="meta", **how, **QUIET)
    graphed()
    for after in kills:
        with pytest.raises(Killed):
            killer = Deadly(tmp_path / "state", after)
            train(protocol, device="meta", checkpoint=killer, **how, **QUIET)
    resumed = Checkpoint(tmp_path / "state")
    assert_equal(train(protocol, device="meta", checkpoint=resumed, **how, **QUIET), eager)


def test_members_that_diverge_in_a_replay_are_marked(graphed):
    protocol = replace(MLP, iterations=12, optimiser="sgd", learning_rate=10.0)
    eager = train(protocol, device="cpu", **GRAPHED["mlp"][1], **QUIET)
    graphed()
    replayed = train(protocol, device="meta", **GRAPHED["mlp"][1], **QUIET)
    assert replayed.execution == "graph"
    assert replayed.diverged_at.tolist() == eager.diverged_at.tolist()
    assert min(replayed.diverged_at.tolist()) > GraphedStep.WARM_UP + 1


def at_operation(n, error):
    def spoil(count):
        if count == n:
            raise error

    return spoil


@pytest.mark.parametrize("n", [0, 30, 100])
def test_where_no_graph_can_be_captured_the_training_goes_on_without(few_images, graphed, n):
    spoil = at_operation(n, RuntimeError("operation not permitted\nwhen capturing"))
    trained, graphs = eager_and_graphed(*GRAPHED["adam"], graphed, spoil)
    assert len(graphs) == 1
    assert trained.execution == "eager: no graph could be captured (operation not permitted)"


def test_a_capture_without_memory_is_tried_again_without_maps(few_images, graphed, monkeypatch):
    keeping(monkeypatch)
    shortage = at_operation(30, torch.OutOfMemoryError("CUDA out of memory"))
    trained, graphs = eager_and_graphed(*GRAPHED["adam"], graphed, shortage)
    assert len(graphs) == 2
    assert trained.execution == "graph, hidden maps recomputed"


def test_the_stand_in_does_notice_what_a_replay_would_miss(elsewhere):
    """A number that Python takes out of a tensor, and one that it counts by itself."""
    x = torch.ones(3).to("meta")
    for wait in (lambda: x.sum().item(), lambda: x.cpu(), lambda: x.copy_(torch.zeros(3))):
        with pytest.raises(RuntimeError, match="not permitted when stream is capturing"):
            StandInGraph(elsewhere).capture(wait)
    factor, graph = [1.0], StandInGraph(elsewhere)
    graph.capture(lambda: x.mul_(factor[0]).add_(1.0))
    assert x.tolist() == [1.0] * 3, "the capture computes nothing"
    factor[0] = 2.0
    graph.replay(), graph.replay()
    assert x.tolist() == [3.0] * 3


# --- tests after a training -----------------------------------------------------------------------


def test_a_model_elsewhere_is_tested_there(elsewhere):
    trained = train(MLP, FixedSteps("euler", 2), device="cpu", **QUIET)
    test = MLP.load()[1]
    settings = [FixedSteps("rk4", 3), Tolerance("dopri5", 1e-2)]
    here = [accuracy(trained.field, trained.head, test, s).tolist() for s in settings]
    field, head = trained.field.to("meta"), trained.head.to("meta")
    assert [accuracy(field, head, test.to("meta"), s).tolist() for s in settings] == here
