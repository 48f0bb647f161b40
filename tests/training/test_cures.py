"""Cures: what they draw, what they cost, and what an iteration with one does."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from ensembles import Deadly, Killed, parameters
from marks import needs_kernel
from torch.nn import functional as F

from nodecore.data.seeding import make_generator
from nodecore.evidence.runs import Run, run_of
from nodecore.ode.fields import MLPField
from nodecore.ode.lipschitz import lipschitz_bound
from nodecore.ode.steps import FixedSteps, Tolerance, count_steps
from nodecore.training.adapted import Adapted, columns_of
from nodecore.training.checkpoint import Checkpoint
from nodecore.training.controllers import ProportionalIntegral
from nodecore.training.cured import Stretched
from nodecore.training.cures import (
    Bounded,
    Cure,
    Decay,
    DrawnEnd,
    DrawnSolver,
    LocalError,
    LogUniformSteps,
    RefinedSteps,
    SquaredDifference,
    UniformSteps,
    check_cures,
    get_cures,
    name_cures,
)
from nodecore.training.draws import Draws, count_evaluations
from nodecore.training.ensemble import Ensemble, make_model
from nodecore.training.loop import train
from nodecore.training.protocols import Protocol, get_protocol

TINY = Protocol("spheres2", "mlp", 16, 32, "adam", 1e-2, 8, n_train=96, n_test=40, T=1.5)
QUIET = {"device": "cpu", "progress": False}
BACKENDS = ["torch", pytest.param("fused", marks=needs_kernel)]
NAMES = [
    *("uniform-2", "loguniform-3", "refined-1", "solver-midpoint", "end-0.5", "decay-0.1"),
    *(
        "squared-0.1-midpoint",
        "squared-1-coarser",
        "kl-0.5-rk4",
        "local-0.1",
        "bound-0.5",
        "stable",
    ),
    "loguniform-3,end-0.25,squared-0.1-coarser,decay-0.1",
    "uniform-2,solver-rk4,kl-1e-05-coarser",
]


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_name_gives_its_cures_back(name):
    cures = get_cures(name)
    assert name_cures(cures) == name
    run = Run("landscape", FixedSteps("euler", 6), cures=cures)
    header = {"dataset": "landscape", "profile": "paper", "seeds": [0, 1, 2, 3, 4]}
    header |= {**columns_of(run.steps), "cures": name, "protocol": {"T": 1.0}}
    assert run_of(header) == run
    assert run.title == f"landscape-cures/euler-K6-{name}-seeds0-4"
    assert run.digest != Run("landscape", FixedSteps("euler", 6)).digest


def test_a_run_without_cures_is_what_it_was():
    run = Run("landscape", FixedSteps("euler", 8))
    assert run.title == "landscape-euler/euler-K8-seeds0-4"
    assert run.digest == run.protocol.digest
    assert get_cures("") == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformSteps(1.0), "factor = 1.0: give a factor > 1"),
        (lambda: LogUniformSteps(math.inf), "factor = inf: give a factor > 1"),
        (lambda: RefinedSteps(0), "first = 0: give a whole number of steps >= 1"),
        (lambda: DrawnSolver("euler2"), "other = 'euler2' is unknown; choose one of euler"),
        (lambda: DrawnEnd(1.0), "width = 1.0: give a share of T between 0 and 1"),
        (lambda: SquaredDifference(-1.0), "weight = -1.0: give a weight > 0"),
        (
            lambda: SquaredDifference(1.0, "half"),
            "against = 'half' is unknown; choose one of coarser",
        ),
        (lambda: Bounded(0.0), "most = 0.0: give a bound > 0 on h L"),
        (lambda: LocalError(math.nan), "weight = nan: give a weight > 0"),
        (lambda: Decay(True), "weight = True: give a weight > 0"),
        (
            lambda: get_cures("dropout-0.5"),
            "cure = 'dropout-0.5' is unknown; choose one of uniform",
        ),
        (lambda: get_cures("uniform"), "'uniform': give its constants as in uniform-factor"),
        (lambda: get_cures("uniform-two"), "'uniform-two': give its constants as in"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        ("uniform-2,loguniform-2", FixedSteps("euler", 8), "each decides the number of steps"),
        ("decay-0.1", Tolerance("dopri5", 1e-3), "they are for fixed steps"),
        ("decay-0.1", Adapted("euler", "algorithm1"), "drawn numbers of steps for adapted ones"),
        ("uniform-2", Adapted("dopri5", "algorithm1"), "they are for fixed steps"),
        ("refined-2", Adapted("euler", "algorithm1"), "they are for fixed steps"),
        ("refined-8", FixedSteps("euler", 8), "first = 8: give fewer steps than the last ones, 8"),
        ("solver-midpoint", FixedSteps("midpoint", 8), "'midpoint' is the training's solver"),
        ("squared-1-euler", FixedSteps("euler", 8), "'euler' is the training's solver"),
        ("local-1", FixedSteps("rk4", 8), "the local error is that of Euler's method"),
        ("uniform-2,local-1", FixedSteps("euler", 8), "leave out uniform-2"),
        ("local-1,squared-1-rk4", FixedSteps("euler", 8), "each decides the loss; give one"),
    ],
)
def test_cures_that_do_not_go_together_are_refused(name, steps, message):
    with pytest.raises(ValueError, match=message):
        train(TINY, steps, [0], cures=get_cures(name), **QUIET)
    with pytest.raises(ValueError, match=message):
        Run("landscape", steps, cures=get_cures(name))


def test_what_is_no_cure_is_refused():
    with pytest.raises(ValueError, match="'uniform-2' is not a cure; give cures such as"):
        check_cures(["uniform-2"], FixedSteps("euler", 8), TINY)


def test_a_stable_start_is_refused_where_states_do_not_lie_in_the_plane():
    cures, steps = get_cures("stable"), FixedSteps("euler", 4)
    with pytest.raises(ValueError, match="'stable': it is for data sets in the plane; leave it"):
        Run("spheres3", steps, cures=cures)
    with pytest.raises(ValueError, match="or dataset = 'spheres10'"):
        train(get_protocol("spheres10", "smoke"), steps, [0], cures=cures, **QUIET)


@pytest.mark.parametrize("name", ["local-1", "end-0.5", "bound-1", "stable"])
def test_a_field_that_changes_in_time_is_refused_where_a_cure_takes_it_for_one_that_does_not(name):
    message, steps = "needs a field that is the same at all times", FixedSteps("euler", 4)
    with pytest.raises(ValueError, match=f"'{name}': it {message}"):
        train(replace(TINY, pieces=4), steps, [0], cures=get_cures(name), **QUIET)
    with pytest.raises(ValueError, match=message):
        Run("landscape", steps, cures=get_cures(name), changes=(("pieces", 4),))


@pytest.mark.parametrize("name", ["bound-1", "stable"])
def test_a_field_of_images_is_refused_where_its_layers_norms_are_needed(name):
    with pytest.raises(ValueError, match=f"'{name}': it is for dense fields and 1-D convolutions"):
        Run("mnist", FixedSteps("euler", 4), cures=get_cures(name))


# --- draws ----------------------------------------------------------------------------------------


def drawn(name, n_steps=16, seeds=(3,), iterations=20_000):
    return Draws(get_cures(name), n_steps, seeds, iterations)


def test_uniform_steps_are_uniform_on_their_range():
    counts = drawn("uniform-2").n_steps.flatten().bincount()
    assert counts[:8].sum() == 0 and len(counts) == 33
    assert (counts[8:] / 20_000 - 1 / 25).abs().max() < 0.006  # over four standard deviations


def test_log_uniform_steps_have_a_uniform_logarithm():
    steps = drawn("loguniform-4").n_steps.flatten()
    assert (int(steps.min()), int(steps.max())) == (4, 64)
    for octave in (4, 8, 16, 32):
        inside = ((steps >= octave) & (steps < 2 * octave)).double().mean()
        assert abs(inside - 0.25) < 0.04  # rounding moves a part of an octave to the next one
    assert abs(steps.double().mean() - 60 / math.log(16)) < 0.3  # of the continuous law


def test_refined_steps_double_after_equal_times():
    steps = drawn("refined-3", n_steps=20, seeds=(0, 1), iterations=8).n_steps
    assert steps.T.tolist() == [[3, 3, 6, 6, 12, 12, 20, 20]] * 2


def test_solvers_and_ends():
    draws = drawn("solver-midpoint,end-0.5")
    assert abs(draws.other.double().mean() - 0.5) < 0.02
    assert 0.5 <= draws.stretch.min() < 0.51 and 1.49 < draws.stretch.max() < 1.5
    together = torch.stack([draws.other.double(), draws.stretch]).flatten(1)
    assert torch.corrcoef(together)[0, 1].abs() < 0.03, "one is no function of the other"


def test_a_member_draws_by_its_own_seed():
    alone, together = drawn("loguniform-4", seeds=(3,)), drawn("loguniform-4", seeds=(7, 3))
    assert torch.equal(alone.n_steps[:, 0], together.n_steps[:, 1])
    assert not torch.equal(together.n_steps[:, 0], together.n_steps[:, 1])


@pytest.mark.parametrize("name", ["uniform-2", "loguniform-4"])
def test_draws_around_a_controllers_steps_are_those_around_a_fixed_number(name):
    around = drawn(name, n_steps=None, seeds=(3, 4, 5), iterations=50)
    fixed = {k: drawn(name, n_steps=k, seeds=(3, 4, 5), iterations=50).n_steps for k in (1, 7, 16)}
    for iteration in range(1, 51):
        counts = around.around(torch.tensor([7, 1, 16]), iteration)
        row = [int(fixed[k][iteration - 1, member]) for member, k in enumerate((7, 1, 16))]
        assert counts.tolist() == row


# --- iterations -----------------------------------------------------------------------------------


def plain_field(ps):
    w1, b1, w2, b2, w3, b3 = ps
    return lambda z: torch.relu(torch.relu(z @ w1 + b1) @ w2 + b2) @ w3 + b3


def euler(f, z, n_steps, T):
    for _ in range(n_steps):
        z = z + T / n_steps * f(z)
    return z


def midpoint(f, z, n_steps, T):
    h = T / n_steps
    for _ in range(n_steps):
        z = z + h * f(z + h / 2 * f(z))
    return z


def plain_loss(name, f, head, x, y, i, draws):
    """The loss of one iteration in float64, solves written out, and their evaluations."""
    T, K = TINY.T, 4
    if name == "uniform-2":
        K = int(draws.n_steps[i, 0])
        return F.cross_entropy(head(euler(f, x, K, T)), y), K
    if name == "solver-midpoint":
        z, nfe = (midpoint(f, x, K, T), 8) if draws.other[i, 0] else (euler(f, x, K, T), 4)
        return F.cross_entropy(head(z), y), nfe
    if name == "end-0.5":
        return F.cross_entropy(head(euler(f, x, K, T * float(draws.stretch[i, 0]))), y), K
    if name == "local-0.5":
        states = [x]
        for _ in range(K):
            states.append(states[-1] + T / K * f(states[-1]))
        slopes = [f(z) for z in states]
        error = T / 2 * (slopes[i % K + 1] - slopes[i % K])
        return F.cross_entropy(head(states[-1]), y) + 0.5 * error.square().sum() / len(x), 5
    own = head(euler(f, x, K, T))
    if name == "squared-0.5-midpoint":
        other = head(midpoint(f, x, K, T))
        term, nfe = ((own - other) ** 2).sum() / len(x), 12
    else:
        other = head(euler(f, x, 2, T))
        p, q = own.softmax(1), other.softmax(1)
        term, nfe = (p * (p.log() - q.log())).sum() / len(x), 6
    return F.cross_entropy(own, y) + 0.5 * term, nfe


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name",
    [
        *("uniform-2", "solver-midpoint", "end-0.5"),
        *("squared-0.5-midpoint", "kl-0.5-coarser", "local-0.5"),
    ],
)
def test_a_training_with_a_cure_is_what_a_plain_loop_does(name, backend):
    """One member in float64: torch's own layers, losses and optimiser."""
    protocol, seed = TINY, 5
    trained = train(
        protocol, FixedSteps("euler", 4), [seed], backend=backend, cures=get_cures(name), **QUIET
    )
    split, (field, head) = protocol.load()[0], make_model(protocol, [seed])
    ps = [p.detach()[0].double().requires_grad_() for m in (field, head) for p in m.parameters()]
    *layers, w, b = ps
    optimiser = torch.optim.Adam(ps, lr=protocol.learning_rate)
    generator, evaluations = make_generator(seed, "batches"), 0
    draws = Draws(get_cures(name), 4, [seed], protocol.iterations)
    for i in range(protocol.iterations):
        if i % 3 == 0:  # 96 samples hold three batches of 32
            order = torch.randperm(96, generator=generator)
        index = order[32 * (i % 3) :][:32]
        x, y = split.x[index].double(), split.y[index]
        optimiser.zero_grad()
        loss, nfe = plain_loss(name, plain_field(layers), lambda z: z @ w + b, x, y, i, draws)
        evaluations += nfe
        loss.backward()
        optimiser.step()
    for ours, theirs in zip(parameters(trained), ps, strict=True):
        torch.testing.assert_close(ours[0].double(), theirs, rtol=1e-3, atol=5e-5)
    assert trained.nfe_per_iteration.tolist() == pytest.approx([evaluations / protocol.iterations])
    assert trained.backend == backend


def test_weights_decay_as_in_adamw():
    trained = train(TINY, FixedSteps("euler", 2), [5], cures=(Decay(0.5),), **QUIET)
    plain = train(TINY, FixedSteps("euler", 2), [5], **QUIET)
    lengths = [sum(p.square().sum() for p in parameters(t)) for t in (trained, plain)]
    assert lengths[0] < 0.97 * lengths[1]
    how = {"steps": FixedSteps("euler", 2), "seeds": [5], **QUIET}
    still = replace(TINY, learning_rate=1e-9, iterations=1)
    a, b = (train(still, cures=cures, **how) for cures in ((), (Decay(1e8),)))
    for kept, decayed in zip(parameters(a), parameters(b), strict=True):
        torch.testing.assert_close(decayed, 0.9 * kept, rtol=1e-4, atol=1e-5)  # 1 - rate * weight


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bound_is_kept_by_shrinking_all_layers_alike(backend):
    """The bound is met by NumPy's norms; from the first on, all layers shrink by one factor."""
    protocol, steps = replace(TINY, iterations=1), FixedSteps("euler", 6)
    how = {"backend": backend, **QUIET}
    trained = train(protocol, steps, [5, 1], cures=(Bounded(0.25),), **how)
    h = protocol.T / 6
    norms = [np.linalg.norm(w[0].detach().numpy(), ord=2) for w in parameters(trained)[0:6:2]]
    assert h * math.prod(norms) == pytest.approx(0.25, rel=1e-5)
    loose = train(protocol, steps, [5, 1], cures=(Bounded(1e6),), **how)
    for ours, plain in zip(
        parameters(loose), parameters(train(protocol, steps, [5, 1], **how)), strict=True
    ):
        assert torch.equal(ours, plain)
    held = train(TINY, steps, [5, 1], cures=(Bounded(0.25),), **how)
    assert (h * lipschitz_bound(held.field) <= 0.25 * (1 + 1e-5)).all()
    weights = [*make_model(TINY, [5, 1])[0].parameters()][::2]
    first = Ensemble(TINY, steps, [5, 1], torch.device("cpu"), cures=(Bounded(0.25),))
    for whole, shrunk in zip(weights, [*first.field.parameters()][::2], strict=True):
        factor = (shrunk / whole).detach()
        torch.testing.assert_close(factor, factor[:, :1, :1].expand_as(factor))
        assert (factor < 1).all()


def test_a_bound_gives_up_a_member_whose_weights_are_no_numbers():
    ensemble = Ensemble(
        TINY, FixedSteps("euler", 6), [5, 1], torch.device("cpu"), cures=(Bounded(1),)
    )
    with torch.no_grad():
        ensemble.field.second[0][1] = math.nan
    ensemble.update()
    assert ensemble.alive.tolist() == [True, False]
    assert all(bool(p.isfinite().all()) for p in ensemble.field.parameters())


def test_a_stretched_field_is_solved_to_its_own_end():
    field = MLPField(2, 8, generators=[make_generator(s, "samples") for s in (0, 1)])
    z = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(0))
    factors = torch.tensor([0.5, 2.0], dtype=torch.float64)
    slopes = Stretched(field, factors)(0.0, z)
    torch.testing.assert_close(slopes, field(0.0, z) * torch.tensor([0.5, 2.0]).view(2, 1, 1))
    *_, third = Stretched(field, factors).block_layers()
    torch.testing.assert_close(third.weight[1], 2 * field.third[0][1])
    torch.testing.assert_close(third.bias[0], 0.5 * field.third[1][0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_evaluations_are_counted_by_hand(name, backend, monkeypatch):
    """Every call of a field that counts, for each member alone, and what `verify` expects."""
    how = {"backend": backend, "cures": get_cures(name), **QUIET}
    trained = train(TINY, FixedSteps("euler", 4), [0, 3], **how)
    expected = count_evaluations(get_cures(name), "euler", 4, [0, 3], TINY.iterations)
    torch.testing.assert_close(trained.nfe_per_iteration, expected, rtol=1e-12, atol=0)
    if backend == "fused" or "solver" in name:  # both solves are computed where one is drawn
        return
    calls, forward = [], MLPField.forward
    monkeypatch.setattr(MLPField, "forward", lambda *a: calls.append(1) or forward(*a))
    alone = train(TINY, FixedSteps("euler", 4), [3], **how)
    before = name == "stable"  # the field is looked at once before the first iteration
    assert alone.nfe_per_iteration.item() * TINY.iterations == pytest.approx(len(calls) - before)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_members_are_the_same_seeds_trained_alone(name, backend):
    how = {"backend": backend, "cures": get_cures(name), **QUIET}
    protocol = replace(TINY, learning_rate=1e-3)
    together = train(protocol, FixedSteps("euler", 4), [2, 0], **how)
    for m, seed in enumerate([2, 0]):
        alone = train(protocol, FixedSteps("euler", 4), [seed], **how)
        for ours, its in zip(parameters(together), parameters(alone), strict=True):
            torch.testing.assert_close(ours[m], its[0], rtol=0, atol=1e-5)
        assert together.nfe_per_iteration[m] == alone.nfe_per_iteration[0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_number_of_steps_that_is_drawn_is_taken(backend):
    """1/25 in float32, for one, is less than in float64: 25 steps of it would leave a sliver."""
    protocol = replace(TINY, width=4, iterations=120, T=1.0)
    how = {"backend": backend, "cures": get_cures("loguniform-4"), **QUIET}
    trained = train(protocol, FixedSteps("euler", 16), [0, 1], **how)
    drawn = Draws(how["cures"], 16, [0, 1], 120).n_steps
    assert {25, 29, 31, 41} < set(drawn.flatten().tolist())
    assert (120 * trained.nfe_per_iteration).round().tolist() == drawn.sum(0).tolist()


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_adapted_training_draws_around_its_steps_and_checks_at_them(backend, monkeypatch):
    taken, solve = [], Ensemble.solve

    def noted(self, x, tableau, sizes=None):
        solution = solve(self, x, tableau, sizes)
        taken.append((self.iteration, len(x[0]), tableau, solution.nfe.tolist()))
        return solution

    monkeypatch.setattr(Ensemble, "solve", noted)
    protocol = replace(TINY, iterations=20, T=1.0)
    rule = ProportionalIntegral(every=5, integral=0.3)
    cures = get_cures("loguniform-4")
    steps = Adapted("euler", rule)
    trained = train(protocol, steps, [0, 1], backend=backend, cures=cures, look_every=7, **QUIET)
    checks = {row["iteration"]: [] for row in trained.history if "train_accuracy" in row}
    for row in trained.history:
        if "train_accuracy" in row:
            checks[row["iteration"]].append(row["n_steps"])
    assert list(checks) == [5, 10, 15, 20]
    assert count_steps(trained.step_size, 1.0).tolist() == checks[20]
    if backend == "torch":
        draws = Draws(cures, None, [0, 1], 20)
        mine = {i: nfe for i, n, _, nfe in taken if n == protocol.batch_size and i % 5}
        for iteration in (6, 8, 11, 19):  # after a check at 5, 10 or 15: K is that of the next one
            meant = torch.tensor(checks[5 * (iteration // 5) + 5])
            assert mine[iteration] == draws.around(meant, iteration).tolist()
        looks = [nfe for i, n, _, nfe in taken if i == 14 and n == protocol.n_test]
        assert looks == [checks[15]]


KILLED = {name: (FixedSteps("euler", 4), name) for name in NAMES}
KILLED["adapted"] = (Adapted("euler", ProportionalIntegral(every=2, integral=0.3)), "uniform-2")


@pytest.mark.parametrize(("steps", "name"), KILLED.values(), ids=KILLED)
def test_a_training_killed_anywhere_ends_at_the_same_bits(steps, name, tmp_path):
    how = {"steps": steps, "seeds": [0, 1], "cures": get_cures(name), **QUIET}
    whole = train(TINY, **how)
    for after in (2, 3):
        with pytest.raises(Killed):
            train(TINY, checkpoint=Deadly(tmp_path / "state", after), **how)
    resumed = train(TINY, checkpoint=Checkpoint(tmp_path / "state"), **how)
    for ours, its in zip(parameters(resumed), parameters(whole), strict=True):
        assert torch.equal(ours, its)
    assert torch.equal(resumed.nfe_per_iteration, whole.nfe_per_iteration)
    if steps.controller is not None:
        assert torch.equal(resumed.step_size, whole.step_size)


def test_a_checkpoint_of_another_cure_does_not_count(tmp_path):
    how = {"steps": FixedSteps("euler", 4), "seeds": [0]}
    with pytest.raises(Killed):
        cures = get_cures("uniform-2")
        train(TINY, checkpoint=Deadly(tmp_path / "state", 3), cures=cures, **how, **QUIET)
    other = {"cures": get_cures("loguniform-2"), **how, **QUIET}
    resumed = train(TINY, checkpoint=Checkpoint(tmp_path / "state"), **other)
    for ours, its in zip(parameters(resumed), parameters(train(TINY, **other)), strict=True):
        assert torch.equal(ours, its)


def test_every_cure_says_what_it_does():
    said = [cure.describe(8) for name in NAMES for cure in get_cures(name)]
    assert all(said) and "K uniform on 4 to 16" in said
    with pytest.raises(NotImplementedError):
        Cure().describe(8)
