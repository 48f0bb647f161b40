"""Test a trained ensemble: the records of a run from its weights."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from nodecore.analysis.evaluate import (
    EXACT,
    FINER,
    PAPER_FACTORS,
    accuracy,
    better_setting,
    cross_solver_settings,
    exact_flow,
    has_trained,
    predict,
)
from nodecore.data.datasets import IMAGES, load
from nodecore.data.images import exact_test_images
from nodecore.data.split import Split
from nodecore.evidence.catalogue import GRIDS, TOLERANCES
from nodecore.evidence.runs import Run
from nodecore.ode.fields import take_members
from nodecore.ode.steps import FixedSteps, Setting, Tolerance, choose_steps, count_steps
from nodecore.training.adapted import Adapted
from nodecore.training.adaption import restlessness
from nodecore.training.devices import in_precision
from nodecore.training.loop import Trained


def test_settings(run: Run, own: Setting) -> list[Setting]:
    """List the settings that a run is tested under; own: the steps of its training, or of its last
    iteration.

    Testing image models is expensive. Runs of a grid skip the grid's other numbers of steps and,
    under midpoint and rk4, the factor that the paper does not have; runs with an adapted step are
    tested in their last number of steps only. At the paper's scale, on all test images, a run of
    MNIST with 32 steps is then tested with 1,500 evaluations, and all of a seed's runs up to there
    with 4,500.
    """
    solver = run.steps.solver
    if isinstance(own, Tolerance):
        others = sorted({"fehlberg21", "dopri5", solver})
        settings = [recorded_setting(run, s, rtol=r) for s in others for r in TOLERANCES]
        return list(dict.fromkeys([own, *settings, EXACT]))
    if run.dataset not in IMAGES:
        return [*cross_solver_settings(solver, own.n_steps, GRIDS.get(run.study, ())), EXACT]
    if isinstance(run.steps, Adapted):
        settings = [FixedSteps(s, own.n_steps) for s in (solver, *FINER)]
    else:
        settings = cross_solver_settings(solver, own.n_steps, finer_factors=PAPER_FACTORS)
    return [*settings, exact_flow(run.dataset)]


test_settings.__test__ = False  # not a test case, whatever pytest makes of the name


def recorded_setting(
    run: Run, solver: str, n_steps: int | None = None, rtol: float | None = None
) -> Setting:
    """Return the test setting that a record of the run describes.

    It has the error norm of the run's training, except where it stands for the exact flow.
    """
    setting = choose_steps(solver, n_steps, rtol)
    exact = setting in (EXACT, exact_flow(run.dataset))
    return replace(setting, per_sample=True) if run.steps.per_sample and not exact else setting


def foremost(run: Run, own: Setting) -> list[Setting]:
    """List the settings that say the most about a run, two or more; two may be the same.

    They are that of its training; in numbers of steps, the test solver's; and, unless the steps
    are fixed, the exact flow's.
    """
    settings = [own]
    if isinstance(own, FixedSteps):
        settings.append(better_setting(own.solver, own.n_steps))
    return settings + ([] if isinstance(run.steps, FixedSteps) else [exact_flow(run.dataset)])


def evaluate_run(
    run: Run,
    trained: Trained,
    known: dict | None = None,
    check: Callable[[], None] = lambda: None,
    foremost_only: bool = False,
) -> list[dict]:
    """Test a run, on the device of its training; return a record for each seed and test setting.

    known: what was measured already, by members; what is new is added. check: see train_run.
    foremost_only: whether to test under the foremost settings alone.
    """
    training, known = trained_on(run), {} if known is None else known
    largest_share = float(training.class_shares().max())
    rows = []
    for group, settings, own in groups_of(run, trained):
        model = [take_members(module, group) for module in (trained.field, trained.head)]
        mine = known.setdefault(tuple(group), {})
        if "training" not in mine:
            mine["training"] = _accuracy(model, training, own, run, check)
        train_accuracy = mine["training"]
        settings = foremost(run, own) if foremost_only else settings
        lacking = [setting for setting in settings if setting not in mine]
        mine |= measure(run, model, lacking, own, check)
        tested = {setting: mine[setting] for setting in settings}
        common = [
            member_values(run, trained, member, float(train_accuracy[i]), largest_share)
            for i, member in enumerate(group)
        ]
        if isinstance(run.steps, Adapted):
            ended, exact = (tested[setting][0] for setting in (own, exact_flow(run.dataset)))
            common[0]["agreement_gap"] = abs(ended["accuracy"] - exact["accuracy"])
        for rows_of_members in tested.values():
            rows += [{**member, **row} for member, row in zip(common, rows_of_members, strict=True)]
    return rows


def measure(
    run: Run,
    model: Sequence[nn.Module],
    settings: Sequence[Setting],
    own: Setting,
    check: Callable[[], None] = lambda: None,
) -> dict[Setting, list[dict]]:
    """Test a run's model (field and head) under settings and return, for each, a row for each
    member. own: the training's, under which all test images are looked at as well."""
    test = tested_on(run)
    every = load(run.dataset, None, None)[1] if run.dataset in IMAGES else None
    tested = {}
    for setting in settings:
        values = _accuracy(model, test, setting, run, check)
        common = {
            "test_solver": setting.solver,
            "test_n_steps": setting.n_steps,
            "test_rtol": setting.rtol,
        }
        if every is not None:
            common["test_split"] = split_name(test)
        tested[setting] = [{**common, "accuracy": value} for value in values.tolist()]
        if every is not None and setting == own:
            same = len(every) == len(test)
            on_all = values if same else _accuracy(model, every, own, run, check)
            for row, value in zip(tested[setting], on_all.tolist(), strict=True):
                row |= {"accuracy_all": value, "test_split_all": _split_of_all(run, every)}
    return tested


def _accuracy(model, split, setting, run, check):
    """Measure each member on the model's device, in float32 whatever it was trained in."""
    field, head = model
    device = next(field.parameters()).device
    with in_precision("float32", device):
        return accuracy(field, head, split.to(device), setting, run.T, check=check).cpu()


FLIPPED_IMAGES, LOOKED_AT = 12, 1000


def flipped(run: Run, trained: Trained) -> dict[str, Tensor]:
    """Return the first test images that the solver decides, with their classes under either.

    The first seed gets them right as trained and wrong under the test solver. They are kept with
    the weights, to be looked at where the data set is not.
    """
    test = tested_on(run).first(LOOKED_AT)
    (group, _, own), *_ = groups_of(run, trained)
    field, head = (take_members(module, group[:1]) for module in (trained.field, trained.head))
    settings = foremost(run, own)[:2]
    device = next(field.parameters()).device
    with in_precision("float32", device):
        x = test.x.to(device)
        mine, other = (predict(field, head, x, setting, run.T)[0].cpu() for setting in settings)
    which = ((mine == test.y) & (other != test.y)).nonzero()[:FLIPPED_IMAGES, 0]
    pixels = (255 * test.x[which]).round().to(torch.uint8)
    return {"flipped.images": pixels, "flipped.classes": torch.stack([mine, other], 1)[which]}


TRAINING_IMAGES = 2000  # enough to say whether a seed trained


def tested_on(run: Run) -> Split:
    """The test data of a run's records: of images, exact copies of the released ones only."""
    _, test = run.protocol.load()
    return test.first(exact_test_images(run.dataset)) if run.dataset in IMAGES else test


def trained_on(run: Run) -> Split:
    """The training data that tells whether a seed trained."""
    training, _ = run.protocol.load()
    return training.first(TRAINING_IMAGES) if run.dataset in IMAGES else training


def split_name(test: Split) -> str:
    """Describe the test images of records, in words."""
    return f"first {len(test)}"


def _split_of_all(run, every):
    """Describe all test images, in words."""
    lossy = len(every) - exact_test_images(run.dataset)
    return f"all {len(every)}" + (f", {lossy} of them lossy" if lossy > 0 else "")


def member_values(
    run: Run, trained: Trained, member: int, train_accuracy: float, largest_share: float
) -> dict:
    """Return what all records of a member have in common, but for its agreement gap."""
    diverged = int(trained.diverged_at[member]) >= 0
    return {
        "seed": trained.seeds[member],
        "train_accuracy": train_accuracy,
        "status": f"diverged at {int(trained.diverged_at[member])}" if diverged else "ok",
        "trained": not diverged and has_trained(train_accuracy, largest_share),
        "nfe_per_iteration": float(trained.nfe_per_iteration[member]),
        **_adaption_values(run, trained, member),
    }


def groups_of(run: Run, trained: Trained) -> Iterator[tuple[Sequence[int], list[Setting], Setting]]:
    """Members that share test settings, the settings, and the setting of their training."""
    members = range(len(trained.seeds))
    if not isinstance(run.steps, Adapted):
        yield members, test_settings(run, run.steps), run.steps
        return
    for member in members:
        own = last_setting(run, trained, member)
        yield [member], test_settings(run, own), own


def last_setting(run: Run, trained: Trained, member: int) -> Setting:
    """The steps of an adapted member's last iteration. ValueError where none were adapted."""
    if trained.step_size is None:
        raise ValueError(f"{run.title}: no controller chose its steps")
    solver, last = run.steps.solver, trained.step_size[member]
    if run.steps.first_rtol is not None:
        return Tolerance(solver, float(last))
    return FixedSteps(solver, int(count_steps(last, run.T)))


def _adaption_values(run, trained, member):
    """Return where an adapted member ended, and how restless its step was on the way."""
    if not isinstance(run.steps, Adapted):
        return {}
    own = last_setting(run, trained, member)
    ended = {"final_rtol": own.rtol} if own.n_steps is None else {"final_n_steps": own.n_steps}
    return {
        **restlessness(trained.history, trained.seeds[member], run.protocol.iterations),
        **ended,
    }
