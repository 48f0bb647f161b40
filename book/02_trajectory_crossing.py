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
# **Question.** A neural ODE is trained through a solver that takes steps. Is the trained model
# still an ODE, or has it become something that works with those steps only?
#
# **Answer.** Trained with {glue:text}`n-steps-coarse:.0f` coarse steps of Euler's method, it is no longer an ODE:
# its accuracy falls from {glue:text}`coarse-own:.0f` % as trained to {glue:text}`coarse-least:.0f` % under a more
# exact solver, and {glue:text}`coarse-crossing:.0f` % of the pairs of trajectories cross at the training step.
# With {glue:text}`n-steps-fine:.0f` fine steps, the accuracy of {glue:text}`fine-own:.0f` % falls to
# {glue:text}`fine-least:.0f` % at worst, and {glue:text}`fine-crossing:.1f` % of the pairs cross. These are means
# over the five seeds of this page; over all {glue:text}`all-seeds:.0f` seeds, {glue:text}`all-coarse` and
# {glue:text}`all-fine` % of the pairs cross.

# %% tags=["parameters", "hide-input"] example="n_steps_coarse 4"
profile = "paper"  # size of every run: paper, laptop or smoke
device = "auto"  # where a missing model is trained: cpu, cuda, or auto, cuda where there is one
n_steps_fine = 256  # Euler steps of the fine model
n_steps_coarse = 8  # Euler steps of the coarse model
test_solvers = ["euler", "midpoint", "rk4"]  # solvers that both models are tested under
seeds = [0, 1, 2, 3, 4]  # initialisations and batch orders; both models are trained with each
shown_seed = 0  # the seed whose trajectories and vector fields are drawn
n_starts = 100  # starts, spread out over the test set, whose trajectories may cross
n_drawn = 40  # how many of these trajectories are drawn

# %% tags=["hide-input"]
from nodecore.pages.parameters import check_parameters

check_parameters()

from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from myst_nb import glue

from nodecore.analysis.crossings import euler_path, find_crossings
from nodecore.analysis.evaluate import cross_solver_grid
from nodecore.data.datasets import DATASETS
from nodecore.data.synthetic import landscape_field
from nodecore.evidence.catalogue import get_study
from nodecore.evidence.found import find
from nodecore.evidence.gather import gather_pair
from nodecore.evidence.joined import best
from nodecore.evidence.means import tell_mean
from nodecore.evidence.runs import SEEDS
from nodecore.evidence.trajectories import follow
from nodecore.ode.steps import FixedSteps
from nodecore.pages import plots
from nodecore.pages.explorers import PairExplorer, TrajectoryExplorer

plots.use_style()
seeds = sorted(seeds)  # as the members of an ensemble lie
if shown_seed not in seeds:
    raise ValueError(f"shown_seed = {shown_seed}: choose one of seeds = {seeds}")

# %% tags=["hide-input"]
models = gather_pair("landscape", n_steps_fine, n_steps_coarse, seeds, n_starts, profile, device)
runs = {name: model.evidence.run for name, model in models.items()}
paths = {name: model.path() for name, model in models.items()}
test, starts = models["fine"].test, models["fine"].starts
true_path = euler_path(landscape_field, test.x[starts], n_steps_fine)
n_pairs = n_starts * (n_starts - 1) // 2

# %% tags=["hide-input"]
own_steps = {factor * run.steps.n_steps for run in runs.values() for factor in (1, 2)}
test_steps = sorted({2**i for i in range(max(own_steps).bit_length())} | own_steps)
settings = [FixedSteps(solver, k) for solver in test_solvers for k in test_steps]
accuracies = {}
for name, model in models.items():
    grid = cross_solver_grid(model.evidence.field, model.evidence.head, test, settings)
    accuracies[name] = pd.DataFrame(
        {"test_solver": s.solver, "test_n_steps": s.n_steps, "seed": seed, "accuracy": value}
        for s, values in grid
        for seed, value in zip(seeds, values.tolist(), strict=True)
        if seed in model.used
    )

# %% tags=["hide-input"] mystnb={"figure": {"caption": "(a), (b): trajectories of one network trained with a fine and a coarse step, one seed, 40 of 100 starts; rings: crossings. (c), (d): accuracy under three solvers, mean and range over the seeds. In this book: paper scale, 5 seeds, `book/results/landscape-euler`. After {cite:t}`ott2020`, Fig. 1.", "name": "fig-crossing"}, "image": {"alt": "Top: the trajectories of the fine and of the coarse model, with a ring at every crossing. Bottom: the accuracy of both under three solvers against the number of test steps, with the training step marked."}}
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
# Both models learn the energy landscape of {ref}`chapter-datasets`, with the same network, the same
# seeds and the same training. One goes from $t = 0$ to $T = 1$ in many Euler steps, the other in few.
# {cite:t}`ott2020` claim what {numref}`fig-crossing` shows (Fig. 1 and section 4): trained with a large step,
# trajectories cross, and the accuracy is lost as soon as the solver becomes *more exact*.
#
# ## Move the step yourself
#
# The ring marks the accuracy of the model when it is solved as it was trained. With other steps or solvers, a
# coarsely trained model is less accurate, and its trajectories cross in other places. Click in the plane to start a
# trajectory of your own.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Trajectories of one seed under your solver and number of steps, with a ring at every crossing; tint: the class that the model gives to a start there. Below: accuracy on the test set, ringed at the training step. Computed in the page from the weights behind the records (in this book: paper scale).", "name": "fig-trajectory-explorer"}}
stored = [
    find(replace(run, profile=profile))
    for name in ("landscape-euler", "spheres2-euler")
    for run in get_study(name)
    if run.seeds == SEEDS
]
explorer = TrajectoryExplorer.from_evidence(
    [models["coarse"].evidence, models["fine"].evidence, *filter(None, stored)],
    seed=shown_seed,
)
explorer

# %% [markdown]
# ## What must not happen
#
# Exactly one solution curve of an ODE $\dot z = f(z)$ passes through each point of phase space; two
# curves that share a point are one curve ({ref}`chapter-datasets`). The states of a solver need not obey
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
# trajectories change sides; contact alone does not count, nor do two trajectories that follow
# the same orbit one behind the other.

# %% [markdown]
# ## Do the crossings vanish when the step is halved?
#
# A crossing depends on the vector field *and* the solver. The learned field is Lipschitz, so it has a {term}`flow`,
# whose curves never cross; with ever smaller steps, the crossings must vanish. What matters is at which step they
# do. If a model behaves like an ODE, few or no trajectories cross at the training step, and a smaller step hardly
# changes its answers. If they vanish only at steps with which the model was never trained, the model is not the
# flow of its field. Trajectories are compared from starts that lie far apart, in double precision.


# %% tags=["hide-input"]
def crossing_shares(path):
    """The share of the pairs that cross, for each member."""
    return [find_crossings(p).share_of_pairs for p in path.unbind(1)]


true_paths = {k: euler_path(landscape_field, test.x[starts], k) for k in test_steps}
true_shares = pd.Series({k: crossing_shares(path)[0] for k, path in true_paths.items()})
shares = {
    name: pd.DataFrame({k: crossing_shares(m.path(k)) for k in test_steps}, index=seeds)
    for name, m in models.items()
}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Share of the pairs of trajectories that cross against the number of Euler steps, under the true vector field and under the two learned ones (mean over the seeds). Rings: the steps of the training. Logarithmic down to a single pair, linear below. In this book: paper scale, 5 seeds.", "name": "fig-crossing-share"}, "image": {"alt": "Three lines, the share of crossing pairs against the number of steps, for the true field, the fine and the coarse model; rings mark the training steps."}}
names = {name: f"trained with $h = 1/{run.steps.n_steps}$" for name, run in runs.items()}
means = {label: shares[name].loc[models[name].used].mean() for name, label in names.items()}
fig, ax = plt.subplots(figsize=(8, 3.6))
trained_at = {names[name]: run.steps.n_steps for name, run in runs.items()}
plots.crossing_shares(
    ax, pd.DataFrame({"true vector field": true_shares, **means}), trained_at, n_pairs
)
ax.legend(loc="lower left")
plots.stamp_profile(fig, profile)


# %% tags=["remove-cell"]
for name, run in runs.items():
    k, table = run.steps.n_steps, accuracies[name]
    own = table.loc[(table["test_solver"] == "euler") & (table["test_n_steps"] == k), "accuracy"]
    finer = table[table["test_n_steps"] >= k].groupby(["test_solver", "test_n_steps"])["accuracy"]
    cross = shares[name].loc[models[name].used, k]
    rows = paths[name][:, models[name].rows].unbind(1)
    angles = np.concatenate([find_crossings(path).angles for path in rows])
    glue(f"n-steps-{name}", float(k), display=False)
    glue(f"{name}-crossing", 100 * float(cross.mean()), display=False)
    glue(f"{name}-crossing-seeds", float((cross > 0).sum()), display=False)
    glue(f"{name}-angle", float(np.median(angles)) if len(angles) else np.nan, display=False)
    glue(f"{name}-own", 100 * float(own.mean()), display=False)
    glue(f"{name}-least", 100 * float(finer.mean().min()), display=False)
    glue(f"{name}-change", 100 * float((finer.mean() - own.mean()).abs().max()), display=False)
    at_fine = (table["test_solver"] == "euler") & (table["test_n_steps"] == n_steps_fine)
    glue(f"{name}-fine", 100 * float(table.loc[at_fine, "accuracy"].mean()), display=False)
for end, k in {"coarse": n_steps_coarse, "half": 2 * n_steps_coarse, "fine": n_steps_fine}.items():
    fine, coarse = (100 * float(mean[k]) for mean in means.values())
    glue(f"at-{end}-fine", fine, display=False)
    glue(f"at-{end}-coarse", coarse, display=False)
glue("seeds", float(len(seeds)), display=False)
pair = [models["coarse"].evidence, models["fine"].evidence]
options = {"n_starts": n_drawn, "seed": shown_seed, "n_steps": n_steps_fine}
glue("pair", PairExplorer.from_evidence(pair, **options), display=False)

# %% tags=["remove-cell"]
every = {e.run.steps.n_steps: e for e in best(["landscape-euler"])[0].found}
n_every, n_crossing = 0, 0
for name, k in (("coarse", n_steps_coarse), ("fine", n_steps_fine)):
    cross = pd.Series(dtype=float)
    if k in every and every[k].run.profile == profile:
        cross = pd.Series(crossing_shares(follow(every[k], n_starts).path()))
        n_every, n_crossing = len(cross), int((cross > 0).sum())
    glue(f"all-{name}", tell_mean(100 * cross) if len(cross) else "-", display=False)
glue("all-seeds", float(n_every), display=False)
glue("all-crossing-seeds", float(n_crossing), display=False)

# %% [markdown]
# They do not vanish. Halving the training step only halves the coarse model's share of crossing pairs, from
# {glue:text}`at-coarse-coarse:.1f` to {glue:text}`at-half-coarse:.1f` %, and so does each further halving.
#
# At equal steps, the two learned fields produce about the same number of crossings. Solved with the coarse step,
# trajectories cross in {glue:text}`at-coarse-fine:.1f` % of the pairs under the finely trained field and in
# {glue:text}`at-coarse-coarse:.1f` % under the coarsely trained one; with the fine step in
# {glue:text}`at-fine-fine:.2f` % and {glue:text}`at-fine-coarse:.2f` %. So the share of crossings says more about
# the step than about the field. The fields differ all the same: solved with fine steps, the two models have
# different accuracies.
#
# **Why do trajectories of some fine models cross?** {glue:text}`fine-crossing-seeds:.0f` of {glue:text}`seeds:.0f`
# finely trained seeds ({glue:text}`all-crossing-seeds:.0f` of all {glue:text}`all-seeds:.0f`) have crossings, at a
# median angle of {glue:text}`fine-angle:.1f` degrees ({glue:text}`coarse-angle:.1f` for the coarse ones). An
# autonomous field has one direction at each point, so an angle is an error of the solver; where it is small, the
# flow has squeezed two trajectories together until that error exceeds their distance. The models still keep their
# accuracy.
#
# ## The true solutions and the learned ones
#
# The labels come from a known ODE, {eq}`eq-particle`. Did the fine model find it? Here are all its
# seeds beside the true dynamics, from the same starts and over the same time.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Trajectories from the same starts over the time $T = 1$, coloured by class: under the true vector field, and under those that the fine model learned with each seed. Rings: crossings. In this book: paper scale, `book/results/landscape-euler`. After {cite:t}`ott2020`, Fig. 22.", "name": "fig-true-and-learned"}, "image": {"alt": "The true trajectories circle around three minima. Every seed of the fine model draws another pattern, which pushes the classes towards different sides."}}
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
# It did not. Training asks where the classes are at time $T$. It constrains neither what comes later nor
# the field itself, and many fields fit.
#
# ## What to take away
#
# A model that was trained with a coarse step is a {term}`discrete map`: its trajectories cross, and it fails
# under any better solver. One that was trained with a fine step keeps its accuracy, though with most seeds a few
# of its trajectories cross, at small angles. Accuracy under a better solver tells the two apart; crossings
# alone do not. {ref}`appendix-crossing` compares the two models in more detail and shows that their fields lack the
# sinks of the true field.
