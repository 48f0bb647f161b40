"""The data: shells counted and measured, landscape labels found once more by SciPy."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from nodecore.data import datasets
from nodecore.data.datasets import SYNTHETIC, load
from nodecore.data.seeding import make_generator
from nodecore.data.split import Split
from nodecore.data.synthetic import (
    concentric_spheres,
    energy_landscape,
    landscape_extrema,
    landscape_field,
    landscape_minima,
    potential,
    resting_place,
)

SHELLS = [(0.1, 0.15, 0), (0.25, 0.3, 1), (0.4, 0.45, 0)]
MINIMA = [-0.850, 0.269, 1.839]


def generator(seed=0):
    return make_generator(seed, "data")


# --- concentric spheres ---------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 2, 3, 10, 900])
def test_points_lie_on_the_shells_of_their_class(dim):
    split = concentric_spheres(2000, dim, generator())
    assert split.x.shape == (2000, dim)
    assert (split.x.dtype, split.y.dtype, split.n_classes) == (torch.float32, torch.int64, 2)
    radii, rounding = split.x.double().norm(dim=1), 1e-6
    counts = []
    for low, high, label in SHELLS:
        here = (radii >= low - rounding) & (radii <= high + rounding)
        assert bool((split.y[here] == label).all())
        counts.append(int(here.sum()))
    assert counts == [500, 1000, 500]


@pytest.mark.parametrize("dim", [1, 2, 10])
def test_radii_and_directions_have_the_stated_distributions(dim):
    x = concentric_spheres(40_000, dim, generator()).x.double()
    radii = x.norm(dim=1)
    directions = x / radii[:, None]
    for low, high, _ in SHELLS:
        r = radii[(radii > low - 0.02) & (radii < high + 0.02)]
        # u = ((r - r_min) / (r_max - r_min))^dim is uniform.
        u = ((r - low) / (high - low)).clamp(0, 1) ** dim
        assert u.mean().item() == pytest.approx(1 / 2, abs=0.02)
        assert u.square().mean().item() == pytest.approx(1 / 3, abs=0.02)
    assert directions.mean(0).abs().max() < 0.03
    covariance = directions.T @ directions / len(x)
    torch.testing.assert_close(
        covariance, torch.eye(dim, dtype=torch.float64) / dim, rtol=0, atol=0.02
    )


@pytest.mark.parametrize("n", [4, 5, 6, 7, 101])
def test_every_sample_is_there_where_four_does_not_divide_n(n):
    split = concentric_spheres(n, 2, generator())
    assert len(split) == len(split.x) == n
    assert int(split.y.sum()) == n // 2


# --- landscape ------------------------------------------------------------------------------------


def test_potential_and_minima_are_the_papers():
    x = torch.linspace(-1.5, 2.5, 41, dtype=torch.float64)
    expected = 0.2 * (x - 2) * (x - 0.5) * (x + 1) * (x + 0.6) * (x - 1.6) * x
    torch.testing.assert_close(potential(x), expected, rtol=1e-12, atol=1e-13)
    assert landscape_minima() == pytest.approx(MINIMA, abs=5e-4)
    minima, maxima = landscape_extrema()
    assert np.all(minima[:2] < maxima)
    assert np.all(maxima < minima[1:])


def test_the_field_is_newtons_law_with_friction():
    z = torch.from_numpy(np.random.default_rng(0).uniform(-2, 2, size=(30, 4, 2)))
    x, v = z[..., 0].clone().requires_grad_(), z[..., 1]
    (slope,) = torch.autograd.grad(potential(x).sum(), x)
    expected = torch.stack([v, -slope - 0.2 * v], dim=-1)
    torch.testing.assert_close(landscape_field(0.0, z), expected, rtol=1e-12, atol=1e-12)


@pytest.fixture(scope="module")
def landscape():
    return energy_landscape(400, generator(5))


def test_labels_are_where_scipy_sees_the_particle_come_to_rest(landscape):
    slope = np.polyder(0.2 * np.poly([2, 0.5, -1, -0.6, 1.6, 0]))

    def newton(t, z):
        return [z[1], -np.polyval(slope, z[0]) - 0.2 * z[1]]

    assert set(landscape.y[:12].tolist()) == {0, 1, 2}
    for start, label in zip(landscape.x[:12].double().numpy(), landscape.y[:12], strict=True):
        end = solve_ivp(newton, (0, 120), start, "LSODA", rtol=1e-9, atol=1e-11).y[:, -1]
        assert end == pytest.approx([MINIMA[label], 0.0], abs=5e-3)


def test_starts_fill_the_box_of_the_paper(landscape):
    x = landscape.x
    assert x.dtype == torch.float32
    low, high = torch.tensor([-1.0, -2.0]), torch.tensor([2.0, 2.0])
    assert bool(((x >= low) & (x <= high)).all())
    torch.testing.assert_close(x.mean(0), (low + high) / 2, rtol=0, atol=0.2)
    torch.testing.assert_close(x.std(0), (high - low) / 12**0.5, rtol=0.07, atol=0)


def test_a_particle_that_no_well_catches_is_reported(monkeypatch):
    monkeypatch.setattr("nodecore.data.synthetic.REST_SPAN", 0.1)
    with pytest.raises(RuntimeError, match="1 particles are caught in no well within t = 2"):
        resting_place(torch.tensor([[0.269, 0.0], [2.0, 2.0]]))


def test_a_particle_on_a_maximum_is_in_no_well(monkeypatch):
    monkeypatch.setattr("nodecore.data.synthetic.REST_SPAN", 0.5)
    top = float(landscape_extrema()[1][0])
    with pytest.raises(RuntimeError, match="edge of two basins"):
        resting_place(torch.tensor([[top, 0.0]], dtype=torch.float64))


# --- by name, and seeds ---------------------------------------------------------------------------


def test_all_synthetic_sets_load_by_name():
    assert {"spheres2", "spheres3", "spheres10", "spheres900", "landscape"} <= set(SYNTHETIC)
    for name, data in SYNTHETIC.items():
        training, test = load(name, 20, 12)
        assert (len(training), len(test)) == (20, 12)
        assert training.n_classes == data.n_classes and training.x.shape[1:] == data.shape
        assert not torch.equal(training.x[:12], test.x)


def test_a_seed_fixes_the_data_and_leaves_the_global_generators_alone(landscape):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    a, b, c = (concentric_spheres(8, 2, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(a.x, b.x)
    assert not torch.equal(a.x, c.x)
    again = energy_landscape(400, generator(5))
    assert torch.equal(again.x, landscape.x)
    assert torch.equal(again.y, landscape.y)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("name", ["spheres2", "spheres10", "landscape"])
def test_a_probe_holds_the_classes_in_their_shares(name):
    """A test set may lie in the order of its classes, so its first samples are no probe of it."""
    _, test = load(name, 200, 1000, 0)
    probe = test.sample(128)
    assert len(probe) == 128 and torch.equal(probe.x, test.sample(128).x)
    assert not torch.equal(probe.x, test.sample(128, seed=1).x)
    assert float((probe.class_shares() - test.class_shares()).abs().max()) < 0.1
    assert len(test.sample(5000)) == len(test)
    if name.startswith("spheres"):
        assert test.first(128).class_shares().tolist() == [1.0, 0.0]


def test_no_chapter_and_no_module_takes_the_first_samples_of_a_set():
    """Except the splits that records were scored on, which `Split.first` names."""
    root = Path(datasets.__file__).parents[2]
    sources = [*(root / "book").glob("*.py"), *(root / "nodecore").rglob("*.py")]
    taken = re.compile(r"\[1\]\.[xy]\[:|\btest\.[xy]\[:|\b[xy]\[: *\w*(batch|sample|probe)")
    assert taken.search("batch = protocol.load()[1].x[:batch_size]")
    for file in sources:
        assert not taken.search(file.read_text()), file


def test_class_shares():
    y = torch.tensor([0, 2, 2, 0, 2])
    assert Split(torch.zeros(5, 2), y, 4).class_shares().tolist() == [0.4, 0.0, 0.6, 0.0]


# --- bad input ----------------------------------------------------------------------------------

X, Y = torch.zeros(3, 2), torch.tensor([0, 1, 0])
BAD_SPLITS = [
    ((X[:0], Y[:0], 2), "x has 0 samples.* y 0: give as many of each, at least one"),
    ((X, Y[:2], 2), "x has 3 samples.* y 2: give as many of each"),
    ((X, Y, 1), r"y has labels 0 to 1: give labels in 0 \.\. 0, or raise n_classes = 1"),
    ((X, Y - 1, 2), "y has labels -1 to 0: give labels in 0"),
    ((X, Y.float(), 2), "y is torch.float32: give labels as int64"),
    ((X.masked_fill(Y[:, None] == 1, torch.nan), Y, 2), "x has 1 samples that are NaN or infinite"),
    ((X + torch.inf, Y, 2), "x has 3 samples that are NaN or infinite: remove or mend them"),
    ((torch.tensor([0.0, torch.nan, 1.0]), Y, 2), "x has 1 samples that are NaN"),
    ((X.long(), Y, 2), "floating"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_SPLITS, ids=[m for _, m in BAD_SPLITS])
def test_bad_samples_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Split(*arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: concentric_spheres(3, 2, generator()), "n = 3: give a whole number >= 4"),
        (lambda: concentric_spheres(8, 0, generator()), "dim = 0: give a whole number >= 1"),
        (lambda: energy_landscape(0, generator()), "n = 0: give a whole number >= 1"),
        (lambda: energy_landscape(2.0, generator()), "n = 2.0: give a whole number >= 1"),
        (
            lambda: load("spheres"),
            "dataset = 'spheres' is unknown; choose one of spheres2, .*landsc",
        ),
        (lambda: load("spheres2", 8, 0), "n = 0: give a whole number"),
        (lambda: load("spheres2", 8, 8, seed=-1), "seed = -1: give a whole number >= 0"),
    ],
)
def test_bad_sizes_and_names_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
