"""The benchmarks compare like with like: peers are checked against ours, turns are fair."""

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from marks import needs_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import jax_client, ode_libraries, ours, solving, torch_peers, training
from benchmarks.agreement import Disagreement, check_agreement, difference
from benchmarks.cases import CASES, IMAGES, LANDSCAPE, SPHERES, one_of_each, shrink
from benchmarks.jobs import list_jobs
from benchmarks.machine import describe
from benchmarks.rows import make_row
from benchmarks.strokes import draw_strokes
from benchmarks.table import format_line, format_markdown
from benchmarks.timing import QUICK, Effort, Engine, paired_ratio, take_turns, torch_engine
from nodecore.data.files import PROJECT

FOLDER = Path(solving.__file__).parent
TINY = list(map(shrink, CASES))
needs_jax = pytest.mark.skipif(
    not jax_client.PYTHON.exists(), reason="no .venv-bench: `make bench` sets it up"
)
needs_torchode = pytest.mark.skipif(
    not ode_libraries.torchode_is_there(), reason="no torchode: `make bench` sets it up"
)


def named(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def in_torch(case):
    return ours.autograd_call(case, "torch")()


def accept(case, engine):
    """The engine computes what nodecore's torch path does."""
    check_agreement(case, engine.result(), (engine.reference or (lambda: in_torch(case)))())


def tighten(case):
    """At this tolerance all solvers are close to the exact flow."""
    return case if case.rtol is None else replace(case, rtol=1e-5, batch=32)


def accept_closely(case, engine):
    """The same to 1e-3, and gradients, which feel kinks, to 0.1 where the steps adapt."""
    (z, gradients), (our_z, our_gradients) = engine.result(), in_torch(case)
    assert difference(z, our_z) < 1e-3
    for gradient, ours_ in zip(gradients, our_gradients, strict=True):
        assert difference(gradient, ours_) < 0.1


# --- peers compute what we do ---------------------------------------------------------------------


@needs_kernel
@named(TINY)
def test_the_kernel_agrees_with_torch(case):
    for engine in ours.make_engines(case)[:-1]:
        accept(case, engine)


@named([case for case in TINY if case.rtol is None and case.field != "conv2d"])
def test_a_loop_by_hand_agrees(case):
    accept(case, torch_peers.loop_engine(case))


@named([case for case in TINY if case.rtol is None])
def test_torchdiffeq_agrees(case):
    accept(case, ode_libraries.torchdiffeq_engine(case))


@named([tighten(case) for case in TINY if case.rtol is not None and not case.per_sample])
def test_torchdiffeq_agrees_where_steps_adapt(case):
    accept_closely(case, ode_libraries.torchdiffeq_engine(case))


def test_torchdiffeqs_rk4_is_another_rule_than_ours():
    case = replace(shrink(LANDSCAPE), solver="rk4", n_steps=1)
    engine = ode_libraries.torchdiffeq_engine(case)
    accept(case, engine)
    with pytest.raises(Disagreement):
        check_agreement(case, engine.result(), in_torch(case))


def test_conv2d_agrees_and_serves_one_step_only():
    case = shrink(IMAGES)
    accept(case, torch_peers.conv2d_engine(case))
    with pytest.raises(ValueError, match="one Euler step"):
        torch_peers.conv2d_engine(replace(case, n_steps=2))


@needs_torchode
@named([tighten(case) for case in TINY if case.rtol is not None])
def test_torchode_agrees(case):
    engine = ode_libraries.torchode_engine(case)
    accept_closely(case, engine)
    assert engine.nfe > 1


@pytest.fixture(scope="module")
def jax():
    with jax_client.JaxWorker() as worker:
        yield worker


@needs_jax
@named([*one_of_each(TINY), shrink(SPHERES), replace(shrink(LANDSCAPE), solver="rk4")])
def test_jax_agrees(case, jax):
    case, fixed = tighten(case), case.rtol is None
    engine = jax.engine(jax_client.SCAN if fixed else jax_client.DIFFRAX, case)
    (accept if fixed else accept_closely)(case, engine)
    assert engine.measure(2) > 0 and engine.compile_s > 0


@needs_jax
def test_diffrax_agrees_in_fixed_steps(jax):
    case = replace(shrink(LANDSCAPE), solver="rk4")
    accept(case, jax.engine(jax_client.DIFFRAX, case))


@needs_jax
def test_jax_trains_as_we_do(jax, monkeypatch):
    case = shrink(LANDSCAPE)
    protocol = training.protocol_of(case)
    training.check_training(case, protocol, jax, iterations=3)
    twice = replace(protocol, learning_rate=2 * protocol.learning_rate)
    true = training.train_in_jax
    monkeypatch.setattr(training, "train_in_jax", lambda c, _, n, j: true(c, twice, n, j))
    with pytest.raises(Disagreement, match="parameter 0"):
        training.check_training(case, protocol, jax, iterations=3)


@needs_jax
def test_a_worker_that_ends_is_told():
    with jax_client.JaxWorker() as worker, pytest.raises(jax_client.JaxError, match="ended"):
        worker.ask(calls=1, peer="nobody")


def test_the_jax_side_needs_neither_torch_nor_us():
    for file in (FOLDER / "jax_side").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")]
            names.append(getattr(node, "module", None) or "")
            assert not {n.split(".")[0] for n in names} & {"torch", "nodecore", "benchmarks"}


# --- one that computes something else is refused --------------------------------------------------


@pytest.mark.parametrize("case", [LANDSCAPE, replace(LANDSCAPE, n_steps=None, rtol=1e-4)])
def test_a_wrong_result_is_told_by_its_name(case):
    z, gradients = torch.randn(2, 4, 2), [torch.randn(2, 3) for _ in range(6)]
    check_agreement(case, (z, gradients), (z, gradients))
    check_agreement(case, (z * (1 + 1e-5), gradients), (z, gradients))
    half = [*gradients[:3], gradients[3] / 2, *gradients[4:]]
    with pytest.raises(Disagreement, match="b2 differs"):
        check_agreement(case, (z, half), (z, gradients))
    with pytest.raises(Disagreement, match="z differs"):
        check_agreement(case, (z * 1.01, gradients), (z, gradients))
    with pytest.raises(Disagreement, match="z differs"):
        check_agreement(case, (z * float("nan"), gradients), (z, gradients))
    with pytest.raises(Disagreement, match="w1 differs"):
        check_agreement(case, (z, [gradients[0][:1], *gradients[1:]]), (z, gradients))


def test_a_refused_peer_is_not_timed(monkeypatch):
    case = shrink(LANDSCAPE)

    def wrong():
        z, gradients = in_torch(case)
        return z, [gradients[0] * 2, *gradients[1:]]

    wrong_engine = torch_engine("wrong", wrong)
    wrong_engine.measure = lambda calls: pytest.fail("a refused peer was timed")
    peers = [wrong_engine, torch_engine("right", lambda: in_torch(case))]
    monkeypatch.setattr(solving, "make_peers", lambda case, jax: peers)
    rows = {row["engine"]: row for row in solving.measure_case(case, QUICK, None)}
    assert rows["wrong"]["refused"].startswith("w1 differs") and rows["wrong"]["ms"] is None
    assert rows["right"]["refused"] is None and rows["right"]["times_ours"] > 0


# --- turns ----------------------------------------------------------------------------------------


def record(name, ms, log):
    def measure(calls):
        log.append((name, calls))
        return ms

    return Engine(name, measure)


def test_engines_take_turns_and_short_ones_repeat():
    log = []
    engines = [record("a", 30.0, log), record("b", 2.0, log)]
    times = take_turns(engines, Effort(most_rounds=3, least_ms=20.0))
    assert log == [*[("a", 1)] * 2, *[("b", 1)] * 2, *[("a", 1), ("b", 10)] * 3]
    assert times == {"a": [30.0] * 3, "b": [2.0] * 3}


def test_rounds_end_when_the_time_is_spent_but_not_before_the_least():
    effort = Effort(most_rounds=9, least_rounds=3, seconds=4.0)
    assert len(take_turns([record("a", 1000.0, [])], effort)["a"]) == 5
    assert len(take_turns([record("a", 9000.0, [])], effort)["a"]) == 3


def test_a_ratio_is_taken_within_rounds():
    # The machine was three times slower in one round: ratios of medians would say 4 / 2.
    assert paired_ratio([3.0, 4.0, 36.0], [1.0, 2.0, 12.0]) == 3.0


# --- cases ----------------------------------------------------------------------------------------


def test_operations_are_counted_as_torch_counts_them():
    case = replace(shrink(LANDSCAPE), members=1, n_steps=1)
    (z0, _), field = case.make_states(), case.make_field()
    with FlopCounterMode(display=False) as counter:
        field(None, z0)
    assert case.flop() == 3 * counter.get_total_flops()


@pytest.mark.parametrize("case", [shrink(SPHERES), shrink(IMAGES)])
def test_taps_beyond_the_edge_are_not_counted(case):
    case, axes = replace(case, dim=5, n_steps=1), 2 if case.field == "conv2d" else 1
    inside = torch.ones((1, 1) + (5,) * axes)
    convolve = torch.nn.functional.conv2d if axes == 2 else torch.nn.functional.conv1d
    taps = int(convolve(inside, torch.ones((1, 1) + (3,) * axes), padding=1).sum())
    w, per_position = case.width, 2 * case.width
    expected = taps * w * w + inside.numel() * per_position
    assert case.flop() == 3 * 2 * expected * case.batch


def test_a_field_has_kinks_in_different_places():
    for case in one_of_each(TINY):
        _, bias = case.make_field().first
        assert len(bias.unique()) == bias.numel()


def test_strokes_lie_on_an_empty_ground():
    images = draw_strokes(20, 28, torch.Generator().manual_seed(0))
    assert images.min() == 0 and images.max() == 1
    drawn = (images > 0).float().mean((1, 2))
    assert drawn.min() > 0.02 and drawn.max() < 0.4
    assert images.equal(draw_strokes(20, 28, torch.Generator().manual_seed(0)))


# --- rows and tables ------------------------------------------------------------------------------

ROWS = [
    *(
        make_row(
            *("landscape", engine),
            **{"ms": ms, "ms_min": ms, "ms_max": ms, "times_ours": ms, "rounds": 7},
            **{"gflops": 5.0, "share_of_peak": 0.5, "compile_s": compile_s},
        )
        for engine, ms, compile_s in (
            (ours.BARE, 0.33333, None),
            (ours.TORCH, 2.0, None),
            (jax_client.SCAN, 123.4, 1.25),
        )
    ),
    make_row("landscape", jax_client.DIFFRAX, refused="w1 differs"),
    make_row("growth, landscape", ours.BARE, ms=1.0, ratio=2.0),
    make_row("memory", "nodecore, torch", ms=1.0, peak_memory_mb=20.0),
    make_row("training iteration, x", ours.BARE, left_out="not served"),
    make_row("kernel ready, first time on a machine", training.BUILD, seconds=20.0),
    make_row("kernel ready, later processes", training.BUILD, seconds=0.1),
    make_row("9 iterations", training.OURS, seconds=7.0, compile_s=0.0),
    make_row("9 iterations", training.JAX, seconds=18.0, compile_s=3.0),
]
MARKDOWN = """\
| | nodecore | `lax.scan` | diffrax | torch | torchdiffeq | torchode |
| :-- | --: | --: | --: | --: | --: | --: |
| landscape | 0.333 | 123 | – | – | – | – |

| 9 iterations | compiling, s | training, s | together, s |
| :-- | --: | --: | --: |
| nodecore, first time on a machine | 20.0 | 7.00 | 27.0 |
| nodecore, later processes | 0.100 | 7.00 | 7.10 |
| jax.lax.scan, optax, every process | 3.00 | 15.0 | 18.0 |"""


def test_rows_become_the_readmes_table():
    assert format_markdown(ROWS) == MARKDOWN
    assert format_markdown([]) == ""


def test_rows_become_lines():
    lines = list(map(format_line, ROWS))
    assert "0.333 (0.333 - 0.333)" in lines[0] and "50%" in lines[0]
    assert lines[2].endswith("1.2 s")
    assert lines[3].endswith("refused: w1 differs")
    assert lines[4].endswith("2.00 times before")
    assert lines[5].endswith("20 MB")
    assert lines[6].endswith("left out: not served")
    assert lines[9].endswith("7.00 s, 0.00 s of it to compile")


def test_a_row_has_no_column_of_its_own():
    with pytest.raises(ValueError, match="'sm'"):
        make_row("case", "engine", sm=1.0)


def test_a_measurement_says_what_it_ran_on():
    told = describe(None)
    assert told["versions"]["torch"] == torch.__version__.split("+")[0]
    assert told["processor"] and told["python"]


# --- all of it ------------------------------------------------------------------------------------


def test_everything_that_is_measured_has_a_name_of_its_own():
    jobs = list_jobs(QUICK, None)
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.name for case in CASES} < set(jobs)
    assert "whole training" in jobs


def run(*arguments):
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)


def test_quick_measures_and_writes(tmp_path):
    done = run("--quick", "--only", "MNIST field, Euler, K = 1,", "--out", str(tmp_path / "b.json"))
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "b.json").read_text())
    engines = {row["engine"]: row for row in written["rows"]}
    assert {ours.TORCH, torch_peers.CONV2D} < set(engines)
    assert all(row["ms"] > 0 for row in engines.values())
    assert written["machine"]["load_after"] is not None
    assert "| MNIST field" in done.stdout


def test_quick_trains_and_says_what_is_not_measured(tmp_path):
    done = run("--only", "nothing has this name", "--out", str(tmp_path / "b.json"))
    assert done.returncode == 1 and "nothing has this name" in done.stdout
    assert not (tmp_path / "b.json").exists()
    done = run("--quick", "--only", "whole", "--out", str(tmp_path / "b.json"))
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "b.json").read_text())["rows"]
    assert [row["seconds"] > 0 for row in rows if row["engine"] == training.OURS] == [True]
