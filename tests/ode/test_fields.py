"""Vector fields against torch's own layers, one member at a time."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nodecore.data.seeding import STREAMS, make_generator
from nodecore.ode.fields import Conv1dField, Conv2dField, LinearHead, MLPField

SEEDS = (3, 0, 11)


def generators(seeds=SEEDS):
    return [make_generator(seed, "initialisation") for seed in seeds]


def shaken(module):
    """The module with every parameter, the biases too, moved to random values."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in module.parameters():
            p += torch.from_numpy(rng.normal(scale=0.3, size=p.shape)).to(p)
    return module.double()


def normal(*shape):
    return torch.from_numpy(np.random.default_rng(1).normal(size=shape))


FIELDS = {
    "mlp": (lambda g: MLPField(2, 48, generators=g), (2,)),
    "conv1d": (lambda g: Conv1dField(5, 32, generators=g), (5,)),
    "conv1d, one position": (lambda g: Conv1dField(1, 4, generators=g), (1,)),
    "conv2d": (lambda g: Conv2dField(3, 16, generators=g), (3, 6, 4)),
}
each_field = pytest.mark.parametrize(("make", "shape"), FIELDS.values(), ids=FIELDS)


def test_mlp_field_is_three_linear_layers():
    f, z = shaken(MLPField(2, 48, generators=generators())), normal(3, 7, 2)
    for m in range(3):
        x = z[m]
        for i, (weight, bias) in enumerate((f.first, f.second, f.third)):
            x = F.linear(F.relu(x) if i else x, weight[m].T, bias[m])
        torch.testing.assert_close(f(0.0, z)[m], x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 5, 900])  # the last is computed in parts
def test_conv1d_field_is_three_convolutions(dim):
    width = 8
    f, z = shaken(Conv1dField(dim, width, generators=generators())), normal(3, 7, dim)
    for m in range(3):
        # Here rows are by tap, then channel in; torch's layout is (out, in, tap).
        second = f.second[0][m].reshape(3, width, width).permute(2, 1, 0)
        x = F.conv1d(z[m][:, None], f.first[0][m].T[:, :, None], f.first[1][m])
        x = F.conv1d(F.relu(x), second, f.second[1][m], padding=1)
        x = F.conv1d(F.relu(x), f.third[0][m].T[:, :, None], f.third[1][m])
        torch.testing.assert_close(f(0.0, z)[m], x[:, 0], rtol=1e-12, atol=1e-12)


def test_conv2d_field_is_three_convolutions():
    f, z = shaken(Conv2dField(3, 8, generators=generators())), normal(3, 4, 3, 6, 5)
    for m in range(3):
        layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(8, 3, 1),
        ).double()
        ours = [p[m] for p in f.parameters()]
        with torch.no_grad():
            for theirs, value in zip(layers.parameters(), ours, strict=True):
                theirs.copy_(value)
            expected = layers(z[m])
        torch.testing.assert_close(f(0.0, z)[m], expected, rtol=1e-12, atol=1e-12)


def test_the_head_classifies_flattened_states():
    head, z = shaken(LinearHead(24, 5, generators=generators())), normal(3, 7, 2, 3, 4)
    assert head(z).shape == (3, 7, 5)
    weight, bias = head.linear
    for m in range(3):
        expected = F.linear(z[m].reshape(7, 24), weight[m].T, bias[m])
        torch.testing.assert_close(head(z)[m], expected, rtol=1e-12, atol=1e-12)


@each_field
def test_fields_are_autonomous_and_keep_the_shape(make, shape):
    f, z = make(generators()), normal(3, 4, *shape).float()
    assert f(0.0, z).shape == z.shape
    assert torch.equal(f(0.0, z), f(torch.tensor(7.0), z))


@each_field
def test_a_member_does_not_depend_on_the_others(make, shape):
    together = make(generators())
    for m, seed in enumerate(SEEDS):
        alone = make(generators([seed]))
        for ours, its in zip(together.parameters(), alone.parameters(), strict=True):
            assert torch.equal(ours[m], its[0])
    first = next(iter(together.parameters()))
    assert not torch.equal(first[0], first[1])


FAN_IN = {
    "mlp": (MLPField(64, 256, generators=generators([0])), (64, 256, 256)),
    "conv1d": (Conv1dField(2, 256, generators=generators([0])), (1, 768, 256)),
    "conv2d": (Conv2dField(64, 96, generators=generators([0])), (64, 864, 96)),
}


@pytest.mark.parametrize(("module", "fans"), FAN_IN.values(), ids=FAN_IN)
def test_weights_start_with_std_sqrt_two_over_fan_in_and_biases_at_zero(module, fans):
    for (weight, bias), fan_in in zip(
        (module.first, module.second, module.third), fans, strict=True
    ):
        # The standard deviation of n normal numbers is known to 1 / sqrt(2 n); five times that.
        margin = 5 / math.sqrt(2 * weight.numel())
        assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=margin)
        assert abs(weight.mean().item()) < 5 * math.sqrt(2 / fan_in / weight.numel())
        assert not bias.any()


def test_the_head_starts_like_the_field():
    weight, bias = LinearHead(400, 100, generators=generators([0])).linear
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 400), rel=0.02)
    assert not bias.any()


def test_the_papers_sizes_are_the_defaults():
    g = generators([0])
    sizes = [
        sum(p.numel() for p in f.parameters())
        for f in (MLPField(generators=g), Conv1dField(2, generators=g), Conv2dField(generators=g))
    ]
    mlp = (2 * 48 + 48) + (48 * 48 + 48) + (48 * 2 + 2)
    conv1d = (32 + 32) + (3 * 32 * 32 + 32) + (32 + 1)
    conv2d = (96 + 96) + (9 * 96 * 96 + 96) + (96 + 1)
    assert sizes == [mlp, conv1d, conv2d]


# --- generators -----------------------------------------------------------------------------------


def test_each_seed_and_stream_has_numbers_of_its_own():
    draws = {
        (seed, stream): torch.rand(3, generator=make_generator(seed, stream)).tolist()
        for seed in (0, 1, 2**40)
        for stream in STREAMS
    }
    assert len({tuple(v) for v in draws.values()}) == len(draws)
    again = torch.rand(3, generator=make_generator(1, "batches")).tolist()
    assert again == draws[1, "batches"]


@pytest.mark.parametrize(
    ("seed", "stream", "message"),
    [
        (
            0,
            "dropout",
            "stream = 'dropout' is unknown; choose one of data, initialisation, batches",
        ),
        (-1, "data", "seed = -1: give a whole number >= 0"),
        (0.5, "data", "seed = 0.5: give a whole number >= 0"),
    ],
)
def test_unknown_streams_and_seeds_are_refused(seed, stream, message):
    with pytest.raises(ValueError, match=message):
        make_generator(seed, stream)
