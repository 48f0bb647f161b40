"""Images: read as they were released, refused where they were not; a run on a few real ones."""

import shutil
from urllib.error import URLError

import pytest
import torch
from torch.nn import functional as F
from typer.testing import CliRunner

from nodecore.__main__ import app
from nodecore.analysis.evaluate import accuracy, predict
from nodecore.data import images
from nodecore.data.datasets import DATASETS, _all_images, cifar10, load, mnist
from nodecore.data.images import CIFAR10, MNIST, DataError, data_root, exact_test_images
from nodecore.evidence import estimate as estimates
from nodecore.evidence.catalogue import IMAGE_STUDIES, get_study
from nodecore.evidence.estimate import estimate
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import Run
from nodecore.evidence.sweep import run_studies
from nodecore.evidence.tables import under_exact_flow
from nodecore.evidence.verify import verify
from nodecore.ode.adaptive import solve_adaptive
from nodecore.ode.steps import FixedSteps
from nodecore.training.adapted import Adapted
from nodecore.training.loop import train
from nodecore.training.protocols import PROFILES, get_protocol

READERS = {"mnist": mnist, "cifar10": cifar10}
# The labels that both releases begin with, training and test.
FIRST_LABELS = {
    "mnist": ([5, 0, 4, 1, 9], [7, 2, 1, 0, 4]),
    "cifar10": ([6, 9, 9, 4], [3, 8, 8, 0, 6]),
}


@pytest.fixture
def copied(few_images, tmp_path):
    """The few images in a folder where they may be spoilt."""
    return shutil.copytree(few_images, tmp_path / "data")


@pytest.fixture
def offline(monkeypatch):
    def refuse(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    monkeypatch.setattr("nodecore.data.download.WAIT", 0.0)


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
def test_images_are_those_released(few_images, name):
    shape = {"mnist": (1, 28, 28), "cifar10": (3, 32, 32)}[name]
    for split, labels in zip(READERS[name](), FIRST_LABELS[name], strict=True):
        assert split.x.shape == (len(split), *shape)
        assert (split.x.dtype, split.n_classes) == (torch.float32, 10)
        assert split.x.min() == 0.0
        assert 0.9 < split.x.max() <= 1.0
        assert split.y[: len(labels)].tolist() == labels
    assert (DATASETS[name].shape, DATASETS[name].n_classes) == (shape, 10)


def test_pixels_lie_where_they_belong(few_images):
    frog, seven = cifar10()[0].x[0], mnist()[1].x[0, 0]
    assert (255 * frog[:, 0, 0]).round().tolist() == [59, 62, 63]  # red, green, blue
    assert (255 * frog[:, 0, 1]).round().tolist() == [43, 46, 45]
    # A seven: ink in the bar at its top, none to the left below it.
    assert seven[8, 8:20].mean() > 0.5
    assert seven[12:26, :9].max() == 0.0


def test_where_images_lie(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NODECORE_DATA", raising=False)
    assert data_root() == tmp_path / "nodecore"
    monkeypatch.setenv("NODECORE_DATA", str(tmp_path / "there"))
    assert data_root() == tmp_path / "there"
    assert data_root(tmp_path / "here") == tmp_path / "here"


def test_the_first_images_are_loaded(few_images):
    training, test = load("mnist", 7, 3)
    assert (len(training), len(test)) == (7, 3)
    everything, _ = load("mnist", None, None)
    assert len(everything) == 24
    assert torch.equal(everything.x[:7], training.x)
    with pytest.raises(ValueError, match="n_train = 25: there are 24 images; give no more"):
        load("mnist", 25, 3)
    with pytest.raises(ValueError, match="n_test = 0: give a whole number >= 1"):
        load("mnist", 7, 0)


# --- what is absent or spoilt ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("mnist", f"{MNIST}/train-images-idx3-ubyte"),
        ("mnist", f"{MNIST}/t10k-labels-idx1-ubyte"),
        ("cifar10", f"{CIFAR10}/data_batch_3.bin"),
        ("cifar10", f"{CIFAR10}/test_batch.bin"),
    ],
)
@pytest.mark.parametrize("spoil", ["truncated", "altered"])
def test_a_spoilt_file_is_refused_by_name(copied, name, file, spoil):
    path = copied / file
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data if spoil == "altered" else data[:-5])
    with pytest.raises(DataError, match=rf"{path.name} is not the file that was released.*delete"):
        READERS[name](copied)


@pytest.mark.parametrize("name", READERS)
def test_without_a_network_the_message_says_what_to_put_where(offline, tmp_path, name):
    folder, file = {
        "mnist": (MNIST, "t10k-labels-idx1-ubyte.gz"),
        "cifar10": (CIFAR10, "test_batch.bin"),
    }[name]
    with pytest.raises(DataError) as refused:
        READERS[name](tmp_path)
    for part in (str(tmp_path / folder), "no network", file, "NODECORE_DATA"):
        assert part in str(refused.value)


def test_a_study_of_images_without_data_ends_before_work(offline, tmp_path, monkeypatch):
    monkeypatch.setenv("NODECORE_DATA", str(tmp_path / "none"))
    load.cache_clear(), _all_images.cache_clear()
    monkeypatch.setattr("nodecore.evidence.sweep.obtain", None)
    with pytest.raises(DataError, match="cannot be fetched"):
        run_studies(["mnist-euler"], profile="smoke", root=tmp_path)
    result = CliRunner().invoke(app, ["data", "mnist"])
    assert result.exit_code == 1
    assert "NODECORE_DATA" in result.output


def test_the_copy_with_lossy_images_is_known(copied, monkeypatch):
    assert exact_test_images("cifar10", copied) == 10_000
    path = copied / CIFAR10 / "test_batch.bin"
    monkeypatch.setattr(images, "CIFAR10_COPY_MD5", images._md5(path))
    monkeypatch.setattr(images, "CIFAR10_MD5", images.CIFAR10_MD5 | {path.name: "other"})
    assert exact_test_images("cifar10", copied) == 1000
    assert exact_test_images("mnist", copied) == 10_000
    assert len(cifar10(copied)[1]) == 10


def test_the_command_fetches_and_checks(few_images):
    result = CliRunner().invoke(app, ["data", "cifar10"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith("20 training and 10 test images lie in ")
    assert CliRunner().invoke(app, ["data", "svhn"]).exit_code == 1


# --- a run on images ------------------------------------------------------------------------------


@pytest.fixture
def small(few_images, monkeypatch):
    """The smoke profile, for so few images."""
    tiny = {"n_train": 20, "n_test": 6, "batch_size": 10}
    changes = {name: PROFILES["smoke"][name] | tiny for name in READERS}
    monkeypatch.setitem(PROFILES, "smoke", changes)


def test_records_say_which_images_they_are_about(small, tmp_path, monkeypatch):
    monkeypatch.setattr("nodecore.evidence.measure.exact_test_images", lambda name: 4)
    run = Run("cifar10", FixedSteps("euler", 2), seeds=(0, 3), profile="smoke")
    frame = obtain(run, root=tmp_path, progress=False).records
    assert set(frame["test_split"]) == {"first 4"}
    own = frame[(frame["test_solver"] == "euler") & (frame["test_n_steps"] == 2)]
    assert frame["accuracy_all"].notna().sum() == 2
    assert set(own["test_split_all"]) == {"all 10, 6 of them lossy"}
    evidence = obtain(run, root=tmp_path, progress=False)
    _, every = load("cifar10", None, None)
    for setting, column, n in (("euler", "accuracy_all", 10), ("midpoint", "accuracy", 4)):
        found = predict(evidence.field, evidence.head, every.x[:n], FixedSteps(setting, 2))
        expected = (found == every.y[:n]).double().mean(1)
        rows = frame[(frame["test_solver"] == setting) & (frame["test_n_steps"] == 2)]
        assert rows[column].tolist() == pytest.approx(expected.tolist())


def test_all_test_images_are_tested_once_where_all_are_exact(small, tmp_path, monkeypatch):
    monkeypatch.setitem(PROFILES["smoke"]["mnist"], "n_test", 12)
    run, tests = Run("mnist", FixedSteps("euler", 4), seeds=(0, 1), profile="smoke"), []

    def counted(*args, **more):
        tests.append(args[3])
        return accuracy(*args, **more)

    monkeypatch.setattr("nodecore.evidence.measure.accuracy", counted)
    evidence = obtain(run, root=tmp_path, progress=False)
    frame, own = evidence.records, FixedSteps("euler", 4)
    assert tests.count(own) == 2, "once on training images, once on those of the test"
    rows = frame[(frame["test_solver"] == "euler") & (frame["test_n_steps"] == 4)]
    assert set(rows["test_split"]) == {"first 12"} and set(rows["test_split_all"]) == {"all 12"}
    assert rows["accuracy_all"].tolist() == rows["accuracy"].tolist()
    # The paper's step sizes, one finer under the training solver, and the exact flow: no map.
    steps = {
        s: r["test_n_steps"].dropna().unique().tolist() for s, r in frame.groupby("test_solver")
    }
    few = [2, 3, 4, 5, 8]
    assert steps == {"euler": [*few, 16], "midpoint": few, "rk4": few, "dopri5": []}
    z = solve_adaptive(
        evidence.field, run.protocol.load()[1].x.expand(2, 12, 1, 28, 28), "dopri5",
        rtol=1e-5, atol=1e-5,
    ).z  # fmt: skip
    expected = (evidence.head(z).argmax(-1) == run.protocol.load()[1].y).double().mean(1)
    exact = under_exact_flow(frame.assign(trained=True))
    assert exact["accuracy"].tolist() == expected.tolist()
    assert set(exact["test_rtol"]) == {1e-5}


def test_only_exact_images_are_verified(small, tmp_path, monkeypatch):
    monkeypatch.setattr("nodecore.evidence.measure.exact_test_images", lambda name: 4)
    run = get_study("cifar10-euler", "smoke")[0]
    frame = obtain(run, root=tmp_path, progress=False).records
    assert set(frame["test_split"]) == {"first 4"}
    assert verify(["cifar10-euler"], "smoke", root=tmp_path)["change"].tolist() == [0]


def test_flipped_images_are_kept_with_the_run(small, tmp_path, monkeypatch):
    answers = iter([torch.tensor([[7, 2, 1, 0, 0, 1]]), torch.tensor([[7, 3, 1, 6, 4, 1]])])
    monkeypatch.setattr("nodecore.evidence.measure.predict", lambda *_: next(answers))
    run = Run("mnist", FixedSteps("euler", 1), seeds=(0,), profile="smoke")
    pixels, classes = obtain(run, root=tmp_path, progress=False).flipped
    _, test = mnist()  # 7 2 1 0 4 1: right as trained and wrong then are the second and the fourth
    assert torch.equal(pixels.float() / 255, test.x[[1, 3]])
    assert classes.tolist() == [[2, 3], [0, 6]]


def test_an_adapted_run_on_images_is_verified(small, tmp_path):
    run = Run("mnist", Adapted("euler", "algorithm1"), seeds=(0, 1), profile="smoke")
    evidence = obtain(run, root=tmp_path, progress=False)
    assert evidence.records["agreement_gap"].notna().all()
    table = verify(["mnist-adaption"], "smoke", root=tmp_path)
    assert table["change"].tolist() == [0]
    assert table["agrees"].all()


def test_studies_of_images_have_grids_and_seeds_of_their_profile():
    """At the paper's scale each seed is a run."""
    seeds = {"paper": {(seed,) for seed in range(5)}, "laptop": {(0, 1, 2)}}
    for name in IMAGE_STUDIES:
        for profile, groups in seeds.items():
            runs = get_study(name, profile)
            assert {run.seeds for run in runs} == groups
            assert {run.profile for run in runs} == {profile}
            assert {run.study for run in runs} == {name}
        assert get_study(name) == (*get_study(name, "paper"), *get_study(name, "laptop"))
    for name, grid in (
        ("mnist-euler", (1, 2, 4, 8, 16, 32, 64)),
        ("cifar10-rk4", (1, 2, 4, 8, 16)),
    ):
        trained = [run.steps.n_steps for run in get_study(name, "paper")]
        assert trained == [k for k in grid for _ in range(5)]
    assert [run.steps.n_steps for run in get_study("cifar10-rk4", "laptop")] == [1, 2, 4]


# --- precision, and the estimate ------------------------------------------------------------------


def test_products_in_bfloat16_are_recorded_and_close(small):
    protocol = get_protocol("mnist", "smoke")
    trained = {
        p: train(protocol, FixedSteps("euler", 2), [0], device="cpu", progress=False, precision=p)
        for p in ("float32", "bf16")
    }
    assert {p: t.precision for p, t in trained.items()} == {"float32": "float32", "bf16": "bf16"}
    weights = [
        torch.cat([w.flatten() for w in (*t.field.parameters(), *t.head.parameters())])
        for t in trained.values()
    ]
    assert not torch.equal(*weights)
    assert weights[1].dtype == torch.float32
    assert F.cosine_similarity(*weights, dim=0) > 0.999


@pytest.mark.parametrize(
    ("precision", "dataset", "message"),
    [
        ("half", "mnist", "precision = 'half' is unknown; choose one of float32, tf32, bf16"),
        ("bf16", "landscape", "precision = 'bf16': only fields of images, not landscape"),
        ("tf32", "mnist", "precision = 'tf32': cpu does not support tf32; use float32 or bf16"),
    ],
)
def test_a_precision_that_cannot_be(precision, dataset, message):
    protocol = get_protocol(dataset, "smoke")
    with pytest.raises(ValueError, match=message):
        train(protocol, FixedSteps("euler", 1), [0], device="cpu", precision=precision)


def test_the_kernel_has_one_precision():
    protocol, steps = get_protocol("mnist", "smoke"), FixedSteps("euler", 1)
    with pytest.raises(ValueError, match=r"precision = 'bf16': backend = 'fused' is in float32"):
        train(protocol, steps, [0], precision="bf16", backend="fused", device="cpu")


def test_the_estimate_adds_up(monkeypatch):
    monkeypatch.setattr(estimates, "_evaluation_seconds", lambda *_: 0.5)
    runs = [*get_study("mnist-rk4", "paper")[:10:5], *get_study("landscape-euler")]
    found = estimate(runs, device="cpu", jobs=1)
    assert found.runs == 2
    # 7,020 iterations, a seed each, 4 and 8 evaluations
    assert found.hours == pytest.approx(7020 * (4 + 8) * 0.5 / 3600)
    data, state = 70_000 * 784 * 4, 256 * 784 * 4
    hidden = 6 * 16 * 96 * 784 * 4
    assert found.gigabytes == pytest.approx(1 + (data + 8 * state + hidden) / 1e9)
    assert str(found).startswith("2 runs on images: about 11.7 h of training on cpu and up to 1.")
    assert estimate(runs[2:]) is None


def test_the_estimate_is_of_as_many_runs_at_a_time_as_there_will_be(monkeypatch):
    monkeypatch.setattr(estimates, "_evaluation_seconds", lambda *_: 0.5)
    runs = [Run("mnist", FixedSteps("euler", k)) for k in (1, 2, 4, 8)]  # evaluations an iteration
    alone, two, many = (estimate(runs, device="cpu", jobs=n) for n in (1, 2, 99))
    hour = 7020 * 5 * 0.5 / 3600
    assert alone.hours == pytest.approx(15 * hour)
    assert two.hours == many.hours == pytest.approx(8 * hour)  # beside the longest all others fit
    sizes = [estimates.memory(run, torch.device("cpu")) / 1e9 for run in runs]
    assert alone.gigabytes == pytest.approx(sizes[3])
    assert two.gigabytes == pytest.approx(sizes[2] + sizes[3])
    assert (many.jobs, many.gigabytes) == (4, pytest.approx(sum(sizes)))
    assert " of training on cpu, 2 at a time, and up to " in str(two)
    with pytest.raises(ValueError, match="jobs = 0: give a whole number >= 1"):
        estimate(runs, device="cpu", jobs=0)


def test_the_estimate_comes_before_the_runs(small, tmp_path, monkeypatch):
    monkeypatch.setenv("NODECORE_RESULTS", str(tmp_path))
    only = ["--profile", "smoke", "--only", "euler-K1-*", "--device", "cpu"]
    command = ["study", "run", "mnist-euler", *only, "--precision", "bf16"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert result.output.startswith("1 run on images: about 0.0 h of training on cpu")
    run = get_study("mnist-euler", "smoke")[0]
    assert obtain(run, progress=False).stored.header["precision"] == "bf16"
