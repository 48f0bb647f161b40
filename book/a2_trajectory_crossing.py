# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# (appendix-crossing)=
# # Appendix: crossings and sinks in full
#
# **Question.** How far are the two models of {ref}`chapter-crossing` from a flow, in numbers? And does a trained
# field have the sinks of the true one?
#
# **Answer.** Under rk4 with a much smaller step, {glue:text}`flipped-coarse:.0f` % of the test samples change class
# for the models trained with the long step, and {glue:text}`flipped-fine:.1f` % for those trained with the short one.
# The true field's sinks are not learned with either step: {glue:text}`with-sink:.0f` of the
# {glue:text}`fine-seeds:.0f` finely trained fields have a sink, but none of these sinks separates the classes.

# %% tags=["parameters", "hide-input"] example="n_steps_coarse 4"
profile = "paper"  # size of every run: paper, laptop or smoke
device = "auto"  # where a missing model is trained: cpu, cuda, or auto, cuda where there is one
n_steps_fine = 256  # Euler steps of the fine model
n_steps_coarse = 8  # Euler steps of the coarse model
seeds = [0, 1, 2, 3, 4]  # initialisations and batch orders; both models are trained with each
shown_seed = 0  # the seed whose trajectories and vector fields are drawn
n_starts = 100  # starts, spread out over the test set, whose trajectories may cross

# %% tags=["hide-input"]
from nodecore.pages.parameters import check_parameters

check_parameters()

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from myst_nb import glue

from nodecore.analysis.crossings import euler_path, find_crossings
from nodecore.analysis.evaluate import accuracy, predict
from nodecore.analysis.fixed_points import find_visited, value_and_jacobian
from nodecore.data.synthetic import landscape_field
from nodecore.evidence.gather import gather_pair
from nodecore.ode.fixed import solve_fixed
from nodecore.ode.steps import FixedSteps
from nodecore.pages import plots

plots.use_style()
if shown_seed not in seeds:
    raise ValueError(f"shown_seed = {shown_seed}: choose one of seeds = {seeds}")

# %% tags=["hide-input"]
models = gather_pair("landscape", n_steps_fine, n_steps_coarse, seeds, n_starts, profile, device)
names = {name: f"trained with $h = 1/{model.n_steps}$" for name, model in models.items()}
paths = {name: model.path() for name, model in models.items()}
test = models["fine"].test

# %% [markdown]
# ## The two models in numbers
#
# A more exact solver must not change the predictions of an ODE, so we count the test samples that rk4 with the
# smallest step puts into another class. A single Euler step should keep the orientation of the plane, as a flow
# does, so we count the visited states where it turns the plane over, $\det(I + h\,\partial f) < 0$ (compare
# {eq}`eq-fold`).

# %% tags=["hide-input"]
finest = FixedSteps("rk4", 2 * n_steps_fine)


def accuracy_of(model, solver, n_steps):
    found, setting = model.evidence, FixedSteps(solver, n_steps)
    return accuracy(found.field, found.head, test, setting)[model.rows].numpy()


def flipped(model):
    """Share of the test set that the finest solver puts into another class, for each seed."""
    found, settings = model.evidence, (model.evidence.run.steps, finest)
    before, after = (predict(found.field, found.head, test.x, s) for s in settings)
    return (before != after)[model.rows].double().mean(1).numpy()


def folded(model, path):
    """Share of the visited states at which an Euler step reverses orientation, for each seed."""
    states = path[:-1].permute(1, 0, 2, 3).flatten(1, 2)[:, ::5]
    _, jacobian = value_and_jacobian(model.double, states)
    determinant = torch.linalg.det(torch.eye(2) + jacobian / model.n_steps)
    return (determinant < 0)[model.rows].double().mean(1).numpy()


# %% tags=["hide-input"]
def percent(values, digits=1):
    """Mean ± standard deviation over the seeds, in per cent."""
    values = 100 * np.asarray(values)
    spread = f"\u00a0±\u00a0{values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def crossing(path):
    """The share of the pairs that cross, for each seed, and the median angle over all crossings."""
    found = [find_crossings(member) for member in path.unbind(1)]
    angles = np.concatenate([each.angles for each in found])
    angle = f"{np.median(angles):.1f}°" if len(angles) else "no crossing"
    return np.array([each.share_of_pairs for each in found]), angle


measures = {}
for name, model in models.items():
    k = model.n_steps
    changed = flipped(model)
    glue(f"flipped-{name}", 100 * float(changed.mean()), display=False)
    (own, angle), (half, _) = (crossing(model.path(n)[:, model.rows]) for n in (k, 2 * k))
    measures[f"$h = 1/{k}$"] = {
        "accuracy: Euler, training step": percent(accuracy_of(model, "euler", k)),
        "accuracy: Euler, half the step": percent(accuracy_of(model, "euler", 2 * k)),
        "accuracy: midpoint, training step": percent(accuracy_of(model, "midpoint", k)),
        f"accuracy: rk4, $h = 1/{finest.n_steps}$": percent(
            accuracy_of(model, "rk4", finest.n_steps)
        ),
        f"samples that change class under rk4, $h = 1/{finest.n_steps}$": percent(changed),
        "pairs that cross: Euler, training step": percent(own, 2),
        "pairs that cross: Euler, half the step": percent(half, 2),
        "seeds without crossing: training step": f"{(own == 0).sum()} of {len(own)}",
        "seeds without crossing: half the step": f"{(half == 0).sum()} of {len(half)}",
        "median angle of crossing: Euler, training step": angle,
        "states where an Euler step folds the plane": percent(folded(model, paths[name]), 2),
    }
table = pd.DataFrame(measures)
Markdown(
    f"| in per cent, mean ± standard deviation over the seeds | {' | '.join(table)} |\n"
    + f"| :-- |{' --: |' * len(table.columns)}\n"
    + "\n".join(f"| {name} | {' | '.join(row)} |" for name, row in table.T.items())
)

# %% [markdown]
# ## Does the learned field have the true field's sinks?
#
# The paper says that they are absent (section 3.2, Fig. 22). A sink is a zero of the field where all eigenvalues of
# the Jacobian have negative real parts. The true field has one in each minimum, and a saddle on each barrier
# between two. For the learned fields, Newton's method searches the whole box that the trajectories visit. The
# search is checked independently: if it missed no zero, the signs of $\det \partial f$ at the zeros add up to the
# number of turns that $f$ makes along the edge of the box.

# %% tags=["hide-input"]
true_path = euler_path(landscape_field, test.x[models["fine"].starts], n_steps_fine)
seeds = sorted(seeds)  # as the members of an ensemble lie
singles = {(name, seed): m.member(i) for name, m in models.items() for i, seed in enumerate(seeds)}
found = {("true", None): find_visited(landscape_field, true_path[:, 0])}
for (name, seed), f in singles.items():
    found[name, seed] = find_visited(f, paths[name][:, seeds.index(seed)])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Field lines around the data (stronger where faster) and the zeros there: the true vector field, and those that the fine and the coarse model learned with one seed (in this book: seed 0). Energy landscape; in this book: paper scale, 5 seeds, `book/results/landscape-euler`.", "name": "fig-sinks"}, "image": {"alt": "Field lines in three planes. The true field has three sinks in a row with two saddles between them; the learned fields have other zeros in other places."}}
fig, axes = plt.subplots(1, 3, figsize=(8, 3.6), sharey=True)
x, v = np.linspace(-2, 3, 60), np.linspace(-3, 3, 60)
grid = torch.from_numpy(np.stack(np.meshgrid(x, v), axis=-1)).reshape(-1, 2)
drawn = {("true", None): landscape_field}
drawn |= {(name, shown_seed): singles[name, shown_seed] for name in models}
for ax, ((name, seed), f) in zip(axes, drawn.items(), strict=True):
    points, _ = found[name, seed]
    plots.field_lines(ax, x, v, f(0.0, grid).reshape(60, 60, 2), points.points, points.kinds)
    ax.set_title(names.get(name, "true vector field"))
    ax.label_outer()
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plots.stamp_profile(fig, profile)

# %% [markdown]
# A sink matters only if samples end there. The true field brings every particle to rest, and the sink determines
# its class. So we continue the learned flows far beyond $T = 1$ and count the test samples that end at a sink. We
# also count how many would be right if the place where they end determined the class: the samples of each sink, and
# those that reach none, are assigned to the most frequent class among them.

# %% tags=["hide-input"]
LONG = 20.0


def resting_sink(name, seed, z):
    """Number of the sink within 0.05 of each state z (N, 2), -1 for none."""
    points, _ = found[name, seed]
    sinks = points.points[[kind == "sink" for kind in points.kinds]]
    if not len(sinks):
        return torch.full((len(z),), -1)
    distance, sink = torch.cdist(z.double().nan_to_num(1e30), sinks).min(1)
    return sink.where(distance < 0.05, -1)


def share_right(sink):
    """Share of the test set right by the most frequent class of each resting place."""
    return pd.crosstab(sink.numpy(), test.y.numpy()).max(axis=1).sum() / len(test)


z0 = test.x.expand(len(seeds), -1, -1).contiguous()
resting = {("true", None): test.y}  # this is how the labels were made
for name, model in models.items():
    field = model.evidence.field
    z = solve_fixed(field, z0, "euler", step_size=1 / n_steps_fine, t=(0.0, LONG)).z
    resting |= {(name, seed): resting_sink(name, seed, z[i]) for i, seed in enumerate(seeds)}


# %% tags=["hide-input"]
def zeros_row(name, seed):
    points, holds = found[name, seed]
    sinks = [
        z for z, kind in zip(points.points.tolist(), points.kinds, strict=True) if kind == "sink"
    ]
    counts = ", ".join(str(points.kinds.count(kind)) for kind in ("sink", "saddle", "source"))
    cells = [names.get(name, "true field") + ("" if seed is None else f", seed {seed}"), counts]
    at = (f"({round(a, 2) + 0.0:.2f}, {round(b, 2) + 0.0:.2f})" for a, b in sinks)
    cells += [", ".join(at).replace("-", "−") or "none"]
    sink = resting[name, seed]
    cells += [f"{100 * (sink >= 0).double().mean():.1f}", f"{100 * share_right(sink):.1f}"]
    return [*cells, "holds" if holds else "fails"]


header = ["field", "sinks, saddles, sources", "sinks at"]
header += ["samples at a sink (%)", "right by sink (%)", "check"]
lines = [header, [":--"] * len(header), *(zeros_row(*key) for key in found)]
Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))

# %% tags=["remove-cell"]
fine = [("fine", seed) for seed in seeds]
with_sink = sum("sink" in found[key][0].kinds for key in fine)
right = [float(share_right(resting[key])) for key in fine]
largest = float(test.class_shares().max())
glue("with-sink", float(with_sink), display=False)
glue("fine-seeds", float(len(fine)), display=False)
glue("right-most", 100 * max(right), display=False)
glue("largest", 100 * largest, display=False)

# %% [markdown]
# If the sinks of a finely trained field decided the class, at most {glue:text}`right-most:.1f` % of the samples
# would be right. The largest class alone has {glue:text}`largest:.1f` % of them.
