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
# (chapter-crossing)=
# # Trajectory crossing
#
# **Question.** A Neural ODE is trained through a solver that takes steps. Is the trained model
# still an ODE, or has it become something that works with those steps only?
#
# **Claim.** Trained with a small step, a model has smooth trajectories that keep apart, and other
# solvers give the same accuracy. Trained with a large step, its trajectories run across each other,
# and its accuracy is lost as soon as the solver becomes *more exact* ({cite:t}`ott2020`, Fig. 1 and
# section 4). The paper adds that the learned vector field lacks the sinks of the true one (section
# 3.2, Fig. 22).
#
# **Answer.** With a coarse step it is no ODE any more: {glue:text}`coarse-crossing:.0f` % of the pairs
# of trajectories cross, and the accuracy falls from {glue:text}`coarse-own:.0f` % as trained to
# {glue:text}`coarse-least:.0f` % under a more exact solver. With a fine step
# {glue:text}`fine-crossing:.1f` % of the pairs cross, and the accuracy moves from
# {glue:text}`fine-own:.0f` % to {glue:text}`fine-least:.0f` % at the most. So accuracy tells the two
# apart, while a few crossings are found in most models that lose nothing.

# %% tags=["parameters"] example="n_steps_coarse 4"
profile = "paper"  # size of every run: paper, laptop or smoke
device = "auto"  # where a missing model is trained: cpu, cuda, or auto, cuda where there is one
n_steps_fine = 256  # Euler steps of the fine model
n_steps_coarse = 8  # Euler steps of the coarse model
test_solvers = ["euler", "midpoint", "rk4"]  # solvers that both models are tested under
seeds = [0, 1, 2, 3, 4]  # initialisations and batch orders; both models are trained with each
shown_seed = 0  # the seed whose trajectories and vector fields are drawn
n_starts = 100  # starts, spread out over the test set, whose trajectories may cross
n_drawn = 40  # how many of these trajectories are drawn

# %%
from nodecore.data.datasets import DATASETS
from nodecore.evidence.catalogue import get_study
from nodecore.evidence.found import find
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import SEEDS, Run
from nodecore.ode.steps import FixedSteps
from nodecore.pages.parameters import check_parameters

check_parameters()

# %% tags=["hide-input"]
import copy
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from myst_nb import glue

from nodecore.analysis.crossings import find_crossings, separated_starts
from nodecore.analysis.evaluate import AGREEMENT, cross_solver_grid, predict
from nodecore.analysis.fixed_points import find_fixed_points, value_and_jacobian, winding_number
from nodecore.data.synthetic import landscape_field
from nodecore.ode.fixed import solve_fixed
from nodecore.pages import plots
from nodecore.pages.explorers import TrajectoryExplorer

plots.use_style()
if shown_seed not in seeds:
    raise ValueError(f"shown_seed = {shown_seed}: choose one of seeds = {seeds}")
if n_starts < 2:
    raise ValueError(f"n_starts = {n_starts}: choose at least 2, a pair")

# %% [markdown]
# ## What must not happen
#
# Through every point of phase space runs one solution curve of an ODE $\dot z = f(z)$; two curves
# that share a point are one curve ({ref}`chapter-datasets`). The states of a solver need not obey
# this. Let $z_{n,k}$ be the state of trajectory $n$ after $k$ steps and $\Psi_{\tau h}$ a step cut
# to the fraction $\tau$ of its length. Trajectories cross where two such sub-steps meet,
#
# $$
# \Psi_{\tau h}(z_{n,k}) = \Psi_{\tau' h}(z_{n',k'}),
# \qquad z_{n,k} \neq z_{n',k'}, \quad z_{n,k+1} \neq z_{n',k'+1}, \quad 0 < \tau, \tau' < 1.
# $$ (eq-crossing)
#
# A sub-step of Euler's method, $\Psi_{\tau h}(z) = z + \tau h f(z)$, is a piece of a straight line.
# So a trajectory is a polygon, and {py:func}`nodecore.analysis.crossings.find_crossings` decides for any two
# of its segments, in exact arithmetic, whether they cross. It counts the points where two
# trajectories change sides; contact alone does not count, nor do two starts on one orbit that
# follow each other.

# %% [markdown]
# ## One network, two step sizes
#
# Both models learn the energy landscape of {ref}`chapter-datasets`, with the same network, the
# same seeds and the same training. One goes from $t = 0$ to $T = 1$ in many Euler steps, the other
# in few.

# %%
runs = {
    "fine": Run("landscape", FixedSteps("euler", n_steps_fine), seeds=seeds, profile=profile),
    "coarse": Run("landscape", FixedSteps("euler", n_steps_coarse), seeds=seeds, profile=profile),
}
models = {name: obtain(run, device=device) for name, run in runs.items()}
_, test = runs["fine"].protocol.load()

# %% [markdown]
# A seed that did not train is left out of all means (the rule: its training accuracy exceeds the
# share of the largest class by more than 0.1; should no seed have trained, all are used).

# %% tags=["hide-input"]
used = {}
for name, model in models.items():
    trained = model.records.groupby("seed")["trained"].all()
    used[name] = [seed for seed in seeds if trained[seed]] or seeds


def describe(name):
    bold = ", ".join(f"**{seed}**" if seed == shown_seed else f"{seed}" for seed in seeds)
    steps, iterations = runs[name].steps.n_steps, runs[name].protocol.iterations
    return (
        f"| {name} | 1/{steps} | `{profile}`: {iterations:,} iterations | {bold} | "
        f"{', '.join(map(str, used[name]))} | `{models[name].path}` |"
    )


Markdown(
    "| model | $h$ | scale | seeds (drawn) | in the means | records |\n"
    "| :-- | :-- | :-- | :-- | :-- | :-- |\n" + "\n".join(describe(name) for name in models)
)

# %% [markdown]
# Trajectories are compared from starts that lie far apart: two starts on almost the same orbit
# touch by discretisation alone, under the true field too. The trajectories are solved anew in
# double precision.

# %%
fields = {name: copy.deepcopy(model.field).double() for name, model in models.items()}
starts = separated_starts(test.x, n_starts)
n_pairs = n_starts * (n_starts - 1) // 2


def euler_path(f, n_steps, members):
    """Trajectories from the chosen starts, (n_steps + 1, members, n_starts, 2)."""
    z0 = test.x[starts].double().expand(members, -1, -1)
    return solve_fixed(f, z0, "euler", n_steps=n_steps, path=True).path


paths = {
    name: euler_path(fields[name], run.steps.n_steps, len(seeds)) for name, run in runs.items()
}
true_path = euler_path(landscape_field, n_steps_fine, 1)

# %% [markdown]
# Accuracy is measured under Euler's method, the midpoint method and rk4, from a single step up to
# twice as many as the fine model was trained with.

# %%
own_steps = {factor * run.steps.n_steps for run in runs.values() for factor in (1, 2)}
test_steps = sorted({2**i for i in range(max(own_steps).bit_length())} | own_steps)
settings = [FixedSteps(solver, k) for solver in test_solvers for k in test_steps]
accuracies = {}
for name, model in models.items():
    grid = cross_solver_grid(model.field, model.head, test, settings)
    accuracies[name] = pd.DataFrame(
        {"test_solver": s.solver, "test_n_steps": s.n_steps, "seed": seed, "accuracy": value}
        for s, values in grid
        for seed, value in zip(seeds, values.tolist(), strict=True)
        if seed in used[name]
    )

# %% tags=["hide-input"] mystnb={"figure": {"caption": "(a), (b): trajectories of the same network trained with the fine and with the coarse step, from starts that lie far apart, coloured by class. A ring marks each point where two of them cross; one seed; each panel holds all starts and the central 90 % of the states along each axis. (c), (d): test accuracy of the models under three solvers against the number of test steps, mean (line) and range (band) over the seeds. Energy landscape; scale, seeds and records: table above (as published: paper scale, 5 seeds, `book/results/landscape-euler`). After {cite:t}`ott2020`, Fig. 1.", "name": "fig-crossing"}, "image": {"alt": "Top: the trajectories of the fine and of the coarse model, with a ring at every crossing. Bottom: the accuracy of both under three solvers against the number of test steps, with the training step marked."}}
fig, axes = plt.subplots(2, 2, figsize=(8, 7), height_ratios=[1.5, 1])
member, labels = seeds.index(shown_seed), test.y[starts[:n_drawn]]
for column, (name, run) in enumerate(runs.items()):
    above, below = axes[:, column]
    path = paths[name][:, member, :n_drawn]
    crossings = find_crossings(path)
    plots.trajectories(above, path, labels, crossings.points, mark_steps=run.steps.n_steps <= 16)
    plots.zoom(above, path)
    count = (
        f"{crossings.n_between} crossings, {len(crossings.pairs)}" if len(crossings.pairs) else "0"
    )
    above.set_title(
        f"({'ab'[column]}) trained with $h = 1/{run.steps.n_steps}$:\n"
        f"{count} of {len(labels) * (len(labels) - 1) // 2} pairs cross"
    )
    plots.accuracy_by_steps(below, accuracies[name], run.steps.n_steps)
    below.set_title(f"({'cd'[column]}) trained with $h = 1/{run.steps.n_steps}$")
below.legend(loc="lower right", ncols=2)
fig.legend(
    handles=plots.trajectory_handles(DATASETS["landscape"].classes),
    loc="outside lower center",
    ncols=4,
)
plots.stamp_profile(fig, profile)

# %% [markdown]
# ## Move the step yourself
#
# Every model that was trained for this chapter, with its weights. Take the slider: solved as it was
# trained, the accuracy is at the ring; at other steps and under other solvers a coarsely trained
# model loses it, and its trajectories cross in other places. A click in the plane starts a
# trajectory of your own.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Trajectories of one seed under the solver and the number of steps that you choose, coloured by the true class, with a ring at every crossing; the tint shows the class that the model gives to a start there. Below the slider: accuracy over the whole test set against the number of steps, ringed at the training step. Everything is computed in the page from the weights behind the records: energy landscape and, where they are stored, spheres in 2-D; scale, seeds and records: table above (as published: paper scale, 5 seeds, `book/results/landscape-euler` and `spheres2-euler`).", "name": "fig-trajectory-explorer"}}
stored = [
    find(replace(run, profile=profile))
    for name in ("landscape-euler", "spheres2-euler")
    for run in get_study(name)
    if run.seeds == SEEDS
]
explorer = TrajectoryExplorer.from_evidence(
    [models["coarse"], models["fine"], *filter(None, stored)],
    seed=shown_seed,
)
explorer

# %% [markdown]
# ## Do the crossings vanish when the step is halved?
#
# A crossing belongs to the vector field *and* the solver. The learned field is Lipschitz, so it has
# a flow, whose curves never cross; with ever smaller steps the crossings must go. What matters is
# where they go. If a model is an ODE its trajectories are apart at the training step, and a smaller
# step changes nothing. If they need steps with which the model was never trained, the model is not
# the flow of its field.


# %%
def crossing_shares(f, n_steps, members):
    """The share of the pairs that cross, for each member."""
    return [find_crossings(p).share_of_pairs for p in euler_path(f, n_steps, members).unbind(1)]


true_shares = pd.Series({k: crossing_shares(landscape_field, k, 1)[0] for k in test_steps})
shares = {
    name: pd.DataFrame({k: crossing_shares(f, k, len(seeds)) for k in test_steps}, index=seeds)
    for name, f in fields.items()
}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the pairs of trajectories that cross against the number of Euler steps they are solved with: under the true vector field, and under the fields that the two models learned (mean over the seeds). Rings: the steps of the training. Logarithmic down to a single pair, linear below. Energy landscape; scale, seeds and records: table above (as published: paper scale, 5 seeds, `book/results/landscape-euler`).", "name": "fig-crossing-share"}, "image": {"alt": "Three lines, the share of crossing pairs against the number of steps, for the true field, the fine and the coarse model; rings mark the training steps."}}
names = {name: f"trained with $h = 1/{run.steps.n_steps}$" for name, run in runs.items()}
means = {label: shares[name].loc[used[name]].mean() for name, label in names.items()}
fig, ax = plt.subplots(figsize=(8, 3.6))
trained_at = {names[name]: run.steps.n_steps for name, run in runs.items()}
plots.crossing_shares(
    ax, pd.DataFrame({"true vector field": true_shares, **means}), trained_at, n_pairs
)
ax.legend(loc="lower left")
plots.stamp_profile(fig, profile)


# %% tags=["hide-input"]
def shares_at(k):
    fine, coarse = (100 * mean[k] for mean in means.values())
    return (
        f"Solved with $h = 1/{k}$, trajectories cross in {100 * true_shares[k]:.2f} % of the pairs "
        f"under the true field, in {fine:.2f} % under the one trained with $h = 1/{n_steps_fine}$, "
        f"and in {coarse:.2f} % under the one trained with $h = 1/{n_steps_coarse}$."
    )


def alike(k):
    fine, coarse = (mean[k] for mean in means.values())
    return max(fine, coarse) <= 2 * min(fine, coarse)


conclusion = (
    "So at equal steps the two learned fields are alike, within a factor of two: what sets the "
    "models apart is less the field than the step with which it is used."
    if alike(n_steps_coarse) and alike(n_steps_fine)
    else "So the two learned fields differ at equal steps too."
)
Markdown(f"{shares_at(n_steps_coarse)} {shares_at(n_steps_fine)} {conclusion}")

# %% [markdown]
# ## The two models in numbers
#
# Three more measures. An autonomous field has one direction at each point, so the angle at which
# two trajectories cross is an error of the solver; where it is small, the flow has squeezed them
# together until this error exceeds their distance. A more exact solver must leave the predictions
# of an ODE where they are: we count the test samples that rk4 with the smallest step puts into
# another class. And a single Euler step should keep the orientation of the plane, as a flow does:
# we count the visited states where it turns the plane over, $\det(I + h\,\partial f) < 0$ (compare
# {eq}`eq-fold`).

# %% tags=["hide-input"]
finest = FixedSteps("rk4", test_steps[-1])
rows = {name: [seeds.index(seed) for seed in used[name]] for name in models}


def accuracy_of(name, solver, n_steps):
    table = accuracies[name].set_index(["test_solver", "test_n_steps"])
    return table.loc[[(solver, n_steps)], "accuracy"].to_numpy()


def flipped(name):
    """Share of the test set that the finest solver puts into another class, for each seed."""
    model, own = models[name], runs[name].steps
    before, after = (predict(model.field, model.head, test.x, s) for s in (own, finest))
    return (before != after)[rows[name]].double().mean(1).numpy()


def folded(name):
    """Share of the visited states at which an Euler step reverses orientation, for each seed."""
    states = paths[name][:-1].permute(1, 0, 2, 3).flatten(1, 2)[:, ::5]
    _, jacobian = value_and_jacobian(fields[name], states)
    determinant = torch.linalg.det(torch.eye(2) + jacobian / runs[name].steps.n_steps)
    return (determinant < 0)[rows[name]].double().mean(1).numpy()


def percent(values, digits=1):
    """Mean ± standard deviation over the seeds, in per cent."""
    values = 100 * np.asarray(values)
    spread = f"\u00a0±\u00a0{values.std(ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{spread}"


def crossing_angle(name):
    """Median over all crossings of all seeds, at the training step."""
    angles = [find_crossings(paths[name][:, row]).angles for row in rows[name]]
    return f"{np.median(angles):.1f}°" if len(angles := np.concatenate(angles)) else "no crossing"


measures = {}
for name, run in runs.items():
    k, crossing = run.steps.n_steps, shares[name].loc[used[name]]
    none = (crossing == 0).sum()
    measures[f"$h = 1/{k}$"] = {
        "accuracy: Euler, training step": percent(accuracy_of(name, "euler", k)),
        "accuracy: Euler, half the step": percent(accuracy_of(name, "euler", 2 * k)),
        "accuracy: midpoint, training step": percent(accuracy_of(name, "midpoint", k)),
        f"accuracy: rk4, $h = 1/{finest.n_steps}$": percent(
            accuracy_of(name, "rk4", finest.n_steps)
        ),
        f"samples put elsewhere by rk4, $h = 1/{finest.n_steps}$": percent(flipped(name)),
        "pairs that cross: Euler, training step": percent(crossing[k], 2),
        "pairs that cross: Euler, half the step": percent(crossing[2 * k], 2),
        "seeds without crossing: training step": f"{none[k]} of {len(rows[name])}",
        "seeds without crossing: half the step": f"{none[2 * k]} of {len(rows[name])}",
        "median angle of crossing: Euler, training step": crossing_angle(name),
        "states where an Euler step folds the plane": percent(folded(name), 2),
    }
table = pd.DataFrame(measures)
Markdown(
    f"| in per cent, mean ± standard deviation over the seeds | {' | '.join(table)} |\n"
    + f"| :-- |{' --: |' * len(table.columns)}\n"
    + "\n".join(f"| {name} | {' | '.join(row)} |" for name, row in table.T.items())
)

# %% [markdown]
# ## The true solutions and the learned ones
#
# The labels come from a known ODE, {eq}`eq-particle`. Did the fine model find it? Here are all its
# seeds beside the true dynamics, from the same starts and over the same time.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Trajectories from the same starts over the time $T = 1$, coloured by class: under the true vector field, and under those that the fine model learned with each seed. Rings mark crossings. Each panel holds all starts and the central 90 % of the states along each axis. Energy landscape; scale, seeds and records: table above (as published: paper scale, 5 seeds, `book/results/landscape-euler`). After {cite:t}`ott2020`, Fig. 22.", "name": "fig-true-and-learned"}, "image": {"alt": "The true trajectories circle around three minima. Every seed of the fine model draws another pattern, which pushes the classes towards different sides."}}
panels = {"true dynamics": true_path[:, 0]}
panels |= dict(zip((f"seed {seed}" for seed in seeds), paths["fine"].unbind(1), strict=True))
n_rows = -(-len(panels) // 3)
fig, axes = plt.subplots(n_rows, 3, figsize=(8, 2.7 * n_rows + 0.4))
for ax, (title, path) in zip(axes.flat, panels.items(), strict=False):
    crossings = find_crossings(path)
    plots.trajectories(ax, path, test.y[starts], crossings.points, size=0.7)
    plots.zoom(ax, path)
    ax.set_title(f"{title}: {len(crossings.pairs)} pairs cross")
for ax in axes.flat[len(panels) :]:
    ax.remove()
fig.legend(
    handles=plots.trajectory_handles(DATASETS["landscape"].classes),
    loc="outside lower center",
    ncols=4,
)
plots.stamp_profile(fig, profile)

# %% [markdown]
# ## Has the learned field the sinks of the true one?
#
# A sink is a zero of the field where all eigenvalues of the Jacobian have negative real parts. The
# true field has one in each minimum, and a saddle on each barrier between two. For the learned
# fields, Newton's method searches the whole box that the trajectories visit. The search is checked
# from outside: where it missed none, the signs of $\det \partial f$ at the zeros add up to the
# number of turns that $f$ makes along the edge of the box.


# %%
def member_field(name, member):
    """The vector field of one seed, on z (N, 2)."""
    alone = copy.deepcopy(fields[name])
    for parameter in alone.parameters():
        parameter.data = parameter.data[member : member + 1]
    return lambda t, z: alone(t, z[None])[0]


def zeros(f, path):
    """Zeros in the box that `path` (n_points, N, 2) visits, and whether the check holds."""
    states = path[:: max(1, len(path) // 8)].flatten(0, 1)
    box = states.amin(0), states.amax(0)
    found = find_fixed_points(f, *box, starts=states, n_steps=40)
    return found, found.index == winding_number(f, *box)


singles = {(name, seed): member_field(name, i) for name in models for i, seed in enumerate(seeds)}
found = {("true", None): zeros(landscape_field, true_path[:, 0])}
for (name, seed), f in singles.items():
    found[name, seed] = zeros(f, paths[name][:, seeds.index(seed)])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Field lines around the data (the darker, the faster) and the zeros there: the true vector field, and those that the fine and the coarse model learned with the seed drawn above. Energy landscape; scale, seeds and records: table above (as published: paper scale, 5 seeds, `book/results/landscape-euler`).", "name": "fig-sinks"}, "image": {"alt": "Field lines in three planes. The true field has three sinks in a row with two saddles between them; the learned fields have other zeros in other places."}}
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
# A sink matters if it collects something. The true field brings every particle to rest, and the
# sink tells its class. So we let the learned flows go on far beyond $T = 1$ and ask which test
# samples end at a sink, and how many would be right if the place where they end told the class: all
# samples of one sink, and those that reach none, are taken for the most frequent class among them.

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
    z = solve_fixed(model.field, z0, "euler", step_size=1 / n_steps_fine, t=(0.0, LONG)).z
    resting |= {(name, seed): resting_sink(name, seed, z[i]) for i, seed in enumerate(seeds)}


# %% tags=["hide-input"]
def zeros_row(name, seed):
    points, holds = found[name, seed]
    sinks = [
        z for z, kind in zip(points.points.tolist(), points.kinds, strict=True) if kind == "sink"
    ]
    cells = [names.get(name, "true field"), "" if seed is None else seed]
    cells += [points.kinds.count(kind) for kind in ("sink", "saddle", "source")]
    cells += [", ".join(f"({a:.2f}, {b:.2f})" for a, b in sinks) or "none"]
    sink = resting[name, seed]
    cells += [f"{100 * (sink >= 0).double().mean():.1f}", f"{100 * share_right(sink):.1f}"]
    return [*map(str, cells), "holds" if holds else "fails"]


header = ["field", "seed", "sinks", "saddles", "sources", "sinks at"]
header += ["samples at a sink (%)", "right by sink (%)", "check"]
lines = [header, [":--"] * len(header), *(zeros_row(*key) for key in found)]
Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines))

# %% [markdown]
# ## What we saw

# %% tags=["hide-input"]
h = {name: f"$h = 1/{run.steps.n_steps}$" for name, run in runs.items()}
crossing = {  # share of pairs of each seed, at the training step and at half of it
    name: [shares[name].loc[used[name], factor * run.steps.n_steps] for factor in (1, 2)]
    for name, run in runs.items()
}


def glue_answer(name):
    """Glue the numbers of the answer at the top of this page."""
    table, k = accuracies[name], runs[name].steps.n_steps
    finer = table[table["test_n_steps"] >= k].groupby(["test_solver", "test_n_steps"])["accuracy"]
    glue(f"{name}-crossing", 100 * float(np.mean(crossing[name][0])), display=False)
    glue(f"{name}-own", 100 * float(accuracy_of(name, "euler", k).mean()), display=False)
    glue(f"{name}-least", 100 * float(finer.mean().min()), display=False)


def crossing_result(name):
    at_step, at_half = crossing[name]
    return (
        f"{percent(at_step, 2)} % of the pairs cross in the model trained with {h[name]} (median "
        f"angle: {crossing_angle(name)}); {sum(at_step == 0)} of {len(at_step)} seeds have no "
        f"crossing at all. Solved with half that step: {percent(at_half, 2)} %, "
        f"{sum(at_half == 0)} of {len(at_half)} seeds without"
    )


def accuracy_result(name):
    table, k = accuracies[name], runs[name].steps.n_steps
    own = accuracy_of(name, "euler", k)
    finer = table[table["test_n_steps"] >= k].groupby(["test_solver", "test_n_steps"])["accuracy"]
    change = (finer.mean() - own.mean()).abs().max()
    verdict = "does not depend" if change <= AGREEMENT else "depends"
    return (
        f"trained with {h[name]}: {percent(own)} %. With this step or a smaller one the solvers "
        f"change the mean by up to {100 * change:.1f} points: the accuracy **{verdict}** on the "
        f"solver (our limit: {100 * AGREEMENT:.0f} points). The most exact of them puts "
        f"{percent(flipped(name))} % of the samples into another class"
    )


def sinks_result(name):
    sinks = [found[name, seed][0].kinds.count("sink") for seed in used[name]]
    right = sorted({f"{100 * share_right(resting[name, seed]):.0f}" for seed in used[name]})
    n_classes = found["true", None][0].kinds.count("sink")
    return (
        f"The true field has {n_classes}, one for each class. The fields learned with {h[name]} "
        f"have {', '.join(map(str, sinks))} in the region that they use (seeds "
        f"{', '.join(map(str, used[name]))}). The paper calls the sinks absent: "
        f"{sum(n == 0 for n in sinks)} of {len(sinks)} fields have none, "
        f"{sum(n >= n_classes for n in sinks)} as many as there are classes. The place of rest "
        f"would tell the class of {', '.join(right)} % of the test samples (the true field: 100 %; "
        f"one answer for all: {100 * test.class_shares().max():.0f} %)"
    )


glue_answer("fine")
glue_answer("coarse")
Markdown(
    f"""
- **Crossing.** {crossing_result("fine")}.
- {crossing_result("coarse")}. Under the true field the step of {h["coarse"]} makes
  {100 * true_shares[n_steps_coarse]:.2f} % of the pairs cross.
- **Folding.** Without comparing trajectories: an Euler step of the training turns the plane over
  at {percent(folded("fine"), 2)} % of the states visited with {h["fine"]}, and at
  {percent(folded("coarse"), 2)} % of those visited with {h["coarse"]}. A flow never does.
- **Accuracy**, {accuracy_result("fine")}.
- **Accuracy**, {accuracy_result("coarse")}.
- **Sinks.** {sinks_result("fine")}. Training asks where the classes are at time $T$; of what comes
  after, and of the field that made the labels, it knows nothing, and many fields serve as well.
"""
)
