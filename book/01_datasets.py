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
# (chapter-datasets)=
# # Two data sets that an ODE could have made
#
# **Question.** Which classification tasks are fair to a neural ODE, and what would it mean to
# solve them *as an ODE*?
#
# **Answer.** The energy landscape of {cite:t}`ott2020` is fair: its labels come from a known ODE, and no class has
# more than {glue:text}`largest-landscape:.0f` % of the samples. Concentric spheres in the plane (rings) are not: no
# flow makes them separable by a straight line. To solve a task as an ODE means that the exact flow gives the answer,
# so that any accurate solver gives it, too. In the plane, two consequences are visible. No trajectories cross, and
# no area is turned over: over a time of {glue:text}`h:g`, the true flow of the landscape multiplies every area by
# {glue:text}`flow-factor:.2f`, but one Euler step of that length multiplies some areas by a factor as low as
# {glue:text}`euler-factor`. A negative factor means that the step folds the plane.

# %% tags=["parameters", "hide-input"] example="step_size 0.5"
profile = "paper"  # size of the data sets: paper, laptop or smoke
device = "auto"  # cpu, cuda, or auto: cuda where there is one
resolution = 100  # points on each side of the map of basins
n_particles = 3  # particles of each class to follow until they rest
step_size = 1.0  # size of the Euler step that is checked for folds

# %% tags=["hide-input"]
from nodecore.data.datasets import DATASETS
from nodecore.pages.parameters import check_parameters

check_parameters()

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from myst_nb import glue
from torch.func import jacrev, vmap

from nodecore.data.synthetic import (
    FRICTION,
    POSITIONS,
    POTENTIAL,
    SHELLS,
    VELOCITIES,
    landscape_extrema,
    landscape_field,
    potential,
    resting_place,
)
from nodecore.evidence.names import name_of
from nodecore.ode.fixed import solve_fixed
from nodecore.pages import plots
from nodecore.training.devices import get_device
from nodecore.training.protocols import PROTOCOLS, get_protocol

torch.set_default_dtype(torch.float64)
plots.use_style()

# %% tags=["hide-input"]
training, test = get_protocol("landscape", profile).load()
minima, maxima = landscape_extrema()
names = [f"minimum at {x:.2f}".replace("-", "−") for x in minima]
x, v = torch.linspace(*POSITIONS, resolution), torch.linspace(*VELOCITIES, resolution)
grid = torch.stack(torch.meshgrid(x, v, indexing="xy"), dim=-1)
places = resting_place(grid.to(get_device(device))).cpu()

# The edges of the basins: backwards from the maxima, along their stable directions.
stable = -FRICTION / 2 - np.sqrt(FRICTION**2 / 4 - POTENTIAL.deriv(2)(maxima))
sides = 1e-4 * np.array([[1], [-1]])
onto_maxima = np.stack([maxima + sides, sides * stable], axis=-1).reshape(-1, 2)
backwards = solve_fixed(
    lambda t, z: -landscape_field(t, z),
    torch.from_numpy(onto_maxima),
    "rk4",
    step_size=0.02,
    t=(0.0, 25.0),
    path=True,
)
edges = backwards.path.transpose(0, 1).numpy()

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The energy landscape. Left: the potential of {eq}`eq-potential`; each minimum is a class. Right: where a particle started at $(x, v)$ comes to rest; lines: edges of the basins; symbols: the training set, 2,000 starts at paper scale. One data seed for the whole book. After {cite:t}`ott2020`, Fig. 2.", "name": "fig-landscape"}, "image": {"alt": "A potential with three minima, and the plane of starts cut by spiralling edges into bands of three classes."}}
fig, axes = plt.subplots(1, 2, figsize=(8, 3.9), width_ratios=[2, 3])
xs = torch.linspace(-1.15, 2.15, 300)
extreme_points = [np.stack([e, POTENTIAL(e)], axis=-1) for e in (minima, maxima)]
plots.potential_landscape(axes[0], xs, potential(xs), *extreme_points, names)
axes[0].legend(loc="upper center")
plots.basins(axes[1], x, v, places, edges)
plots.labelled_points(axes[1], training.x, training.y, size=5)
axes[1].set(xlabel="start position $x$", ylabel="start velocity $v$")
plots.stamp_profile(fig, profile)

# %% [markdown]
# A neural ODE carries a sample $z(0) = x$ along a learned vector field $f$ to $z(T)$ and
# classifies the end state by a linear layer {cite:p}`chen2018`. In this book $T = 1$ unless stated.
#
# ## A particle in an energy landscape
#
# A particle of unit mass slides through a potential $V$ in one dimension, with friction. Position
# $x$ and velocity $v$ obey
#
# $$
# \frac{dx}{dt} = v, \qquad \frac{dv}{dt} = -V'(x) - \gamma v, \qquad \gamma = 0.2,
# $$ (eq-particle)
#
# $$
# V(x) = 0.2\,(x - 2)(x - 0.5)(x + 1)(x + 0.6)(x - 1.6)\,x .
# $$ (eq-potential)
#
# The sample is the start $(x, v)$, and the label is the minimum in which the particle comes to rest. Because of
# friction, it does come to rest: the energy $E = V(x) + v^2 / 2$ changes by $dE/dt = -\gamma v^2 \le 0$, and $V$
# grows without bound on either side, so the particle slows down until both $v$ and $V'(x)$ are zero.
#
# Only a particle that comes to rest exactly on top of a maximum would stay there; the starts of such particles are
# the edges of the basins. Near a maximum $x^*$ they lie along the stable direction of {eq}`eq-particle`,
# $(1, \lambda)$ with $\lambda = -\gamma/2 - \sqrt{\gamma^2/4 - V''(x^*)}$, and following them backwards in time
# gives the whole edge. The basins wind around each other: a small change in a fast particle's start decides which
# minimum catches it. That is hard for a model that has one unit of time.

# %% tags=["hide-input"]
chosen = torch.cat([torch.nonzero(test.y == c).flatten()[:n_particles] for c in range(3)])
rest = solve_fixed(
    landscape_field, test.x[chosen].double(), "rk4", step_size=0.02, t=(0.0, 60.0), path=True
)
distance = rest.z[:, 0] - torch.from_numpy(minima)[test.y[chosen]]

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Particles of the test set coming to rest under the true vector field, {eq}`eq-particle`, in phase space (left, with the edges of the basins) and over time (right); colour and symbol name the minimum that is reached. Solved with rk4 in steps of 0.02; no records.", "name": "fig-rest"}, "image": {"alt": "Trajectories spiral into three minima of phase space; over time each position settles at one of three values."}}
fig, axes = plt.subplots(1, 2, figsize=(8, 3.9))
for edge in edges:
    axes[0].plot(*edge.T, color="black", linewidth=0.5, marker="")
plots.trajectories(axes[0], rest.path, test.y[chosen])
axes[0].set(xlim=(-1.3, 2.3), ylim=(-2.1, 2.1), xlabel="position $x$", ylabel="velocity $v$")
plots.positions_over_time(axes[1], rest.ts, rest.path, test.y[chosen], minima)
plots.class_legend(fig, names, loc="outside lower center", ncols=3)
plots.stamp_profile(fig, profile)

# %% [markdown]
# In phase space, on the left, no trajectory crosses an edge, and none crosses another; on the right, curves meet at
# one position with different velocities. At $t = 60$, no speed of these particles exceeds
# {glue:text}`rest-speed:.4f`, and no particle is farther than {glue:text}`rest-distance:.4f` from the minimum of its
# class.
#
# ## Concentric spheres
#
# Points lie on three shells around the origin. The inner and the outer shell are one class, the
# shell between them is the other. Directions are uniform; only the radius tells the classes
# apart, in any number of dimensions {cite:p}`dupont2019`.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Concentric spheres: the training set in 2 dimensions, the first two coordinates of the training set in 10 dimensions, and the radii of the latter. The projection hides what the radius shows. 2,000 points at paper scale, one data seed for the whole book. After {cite:t}`ott2020`, Fig. 2.", "name": "fig-spheres"}, "image": {"alt": "Three rings of points in the plane, an overlapping cloud for ten dimensions, and a histogram of radii in three separate bars."}}
spheres2 = get_protocol("spheres2", profile).load()[0]
spheres10 = get_protocol("spheres10", profile).load()[0]

fig, axes = plt.subplots(1, 3, figsize=(8, 3.1))
plots.labelled_points(axes[0], spheres2.x, spheres2.y, size=6)
plots.labelled_points(axes[1], spheres10.x[:, :2], spheres10.y, size=6)
plots.radii(axes[2], spheres10.x.norm(dim=1), spheres10.y)
for ax, title in zip(axes[:2], ["2-D", "10-D, projected"], strict=True):
    ax.set(title=title, xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
axes[2].set_title("10-D, radii")
plots.class_legend(fig, DATASETS["spheres2"].classes, loc="outside lower center", ncols=2)
plots.stamp_profile(fig, profile)

# %% [markdown]
# In the plane, no flow can solve this task on the full shells. A flow moves the plane like a rubber sheet: it may
# stretch it but never tears or folds it, so the image of the middle shell still closes around the image of the
# inner one. A straight line that has the whole middle shell on one side has the inner shell on that side as well.
# {cite:t}`dupont2019` make this argument for a disc and a ring around it. If a model is accurate all the same,
# either the sample has gaps through which the sheet can slip, or the solver's steps are so large that it is no
# flow at all. {ref}`chapter-grids` finds out which, by testing with a better solver.
#
# The tables give the shells and the sizes of both data sets. The share of the largest class is the accuracy of a
# model that always gives the same answer. The data has a seed of its own, so all models see the same samples.

# %% tags=["hide-input"]
pd.DataFrame(SHELLS, columns=["smallest radius", "largest radius", "class", "share (parts)"])

# %% tags=["hide-input"]
rows = {}
for dataset in ["spheres2", "landscape"]:
    for part, split in zip(["train", "test"], get_protocol(dataset, profile).load(), strict=True):
        counts = "/".join(map(str, torch.bincount(split.y).tolist()))
        share = f"{split.class_shares().max():.3f}"
        samples = f"{len(split):,}"
        rows[name_of(dataset), part] = {
            "samples": samples,
            "of each class": counts,
            "largest": share,
        }
pd.DataFrame(rows).T

# %% [markdown]
# ## Why two solution curves cannot cross
#
# The right-hand side of {eq}`eq-particle` depends on the state alone and is smooth. So a state
# decides its own future *and* its own past: there is exactly one solution through it. If two solution curves shared
# a point of phase space, they would be one curve, perhaps passed at different times. So different curves cannot
# cross, and no curve crosses itself, unless it closes and repeats. Fields learned here are piecewise smooth (ReLU)
# and Lipschitz continuous, which is enough {cite:p}`chen2018,dupont2019`.
#
# Put differently, the flow over any time $t$ is one-to-one. For {eq}`eq-particle` we even know
# how it changes areas: the divergence of the field is $-\gamma$ everywhere, so every area shrinks
# by the factor $e^{-\gamma t}$. It is never turned over.
#
# A numerical solver need not obey this. One Euler step of size $h$ changes areas near $(x, v)$ by
#
# $$
# \det\bigl(I + h\,\partial f\bigr) = 1 - h\gamma + h^2\, V''(x),
# $$ (eq-fold)
#
# which is negative near a maximum of $V$ if $h$ is large, here beyond {glue:text}`largest-h:.2f`. There the step
# folds the plane, and different starts land on the same spot. The starts that land at $(X, W)$ are given by roots of a
# polynomial: $x + hv = X$ and $(1 - h\gamma)v - hV'(x) = W$ give $(1 - h\gamma)(X - x) - h^2 V'(x) = hW$. Take a
# particle at rest where $V''$ is smallest: {numref}`fig-fold` shows all {glue:text}`same:.0f` starts that one Euler
# step sends to the same point as this one.

# %% tags=["hide-input"]
curvature = POTENTIAL.deriv(2)
candidates = POTENTIAL.deriv(3).roots()
steepest = min(candidates[np.isreal(candidates)].real, key=curvature)
largest_h = max(np.roots([curvature(steepest), -FRICTION, 1]))
X, W = steepest, -step_size * POTENTIAL.deriv()(steepest)
line = np.polynomial.Polynomial([X, -1.0]) * (1 - step_size * FRICTION)
roots = (line - step_size**2 * POTENTIAL.deriv() - step_size * W).roots()
roots = np.sort(roots[abs(roots.imag) < 1e-6].real)
same = torch.from_numpy(np.stack([roots, (X - roots) / step_size], axis=-1))
same = same[(same[:, 0] >= POSITIONS[0]) & (same[:, 0] <= POSITIONS[1])]

# %% tags=["hide-input"]
span = (0.0, step_size)
maps = {
    "true flow": lambda z: solve_fixed(landscape_field, z, "rk4", n_steps=50, t=span).z,
    "one Euler step": lambda z: solve_fixed(landscape_field, z, "euler", n_steps=1, t=span).z,
}
landings = {"start": same} | {name: carry(same) for name, carry in maps.items()}
sides = torch.linspace(0.5, 1.9, 25), torch.linspace(-0.8, 0.8, 25)
mesh = torch.stack(torch.meshgrid(*sides, indexing="xy"), dim=-1)
images = {"start": mesh} | {name: carry(mesh) for name, carry in maps.items()}
factors = {
    name: torch.linalg.det(vmap(jacrev(carry))(mesh.reshape(-1, 2))) for name, carry in maps.items()
}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "A mesh of starts around the right maximum of $V$ (left), carried by the true flow (middle) and by one Euler step of the same length (right). Filled cells are turned over: there the map has folded the plane. Symbols: the starts that one Euler step sends to one spot. True field, no training.", "name": "fig-fold"}, "image": {"alt": "A regular mesh, the same mesh smoothly bent by the flow, and the mesh folded over itself by one large Euler step."}}
fig, axes = plt.subplots(1, 3, figsize=(8, 3.1), sharex=True, sharey=True)
for ax, name in zip(axes, landings, strict=True):
    plots.deformed_mesh(ax, images[name])
    plots.labelled_points(ax, landings[name], range(len(same)), size=[130, 55, 18])
    ax.set(title=name, xlabel="position $x$", ylabel="velocity $v$")
    ax.label_outer()

# %% [markdown]
# ## Networks and training settings
#
# Here and in all chapters, the networks and settings are those of {cite:t}`ott2020`. The paper gives none for the
# spheres in 3, 10 and 900 dimensions; these use the settings of the plane. A vector field has three layers with
# ReLU between them and does not depend on time. *Dense* layers act on the whole state. *Convolutions* act on each
# coordinate or pixel, the middle one on its direct neighbours too. A linear layer classifies $z(T)$; field and
# classifier are trained together on the cross entropy. Each seed draws the initial weights and the order of the
# batches anew. The profile `laptop` is for machines without a GPU: it trains for fewer iterations, and on images
# with a narrower field and 1,000 test images.

# %% tags=["hide-input"]
layers = {"mlp": "dense", "conv1d": "convolutions", "conv2d": "convolutions"}
optimisers = {"adam": "Adam", "sgd": "SGD"}
rows = {}
for dataset, of_paper in PROTOCOLS.items():
    laptop = get_protocol(dataset, "laptop")
    batches = [f"{p.iterations:,} of {p.batch_size}" for p in (of_paper, laptop)]
    narrower = f", width {laptop.width}" if laptop.width != of_paper.width else ""
    rows[name_of(dataset)] = {
        "layers, width": f"{layers[of_paper.field]}, {of_paper.width}",
        "optimiser, rate": f"{optimisers[of_paper.optimiser]}, {of_paper.learning_rate:g}",
        "batches": batches[0],
        "batches, laptop": batches[1] + narrower,
    }
pd.DataFrame(rows).T

# %% tags=["remove-cell"]
shares = torch.cat([training.y, test.y]).bincount() / (len(training) + len(test))
glue("largest-landscape", 100 * float(shares.max()), display=False)
glue("h", float(step_size), display=False)
for word, name in (("flow", "true flow"), ("euler", "one Euler step")):
    factor = float(factors[name].min())
    shown = f"{factor:.1f}".replace("-", "−") if word == "euler" else factor
    glue(f"{word}-factor", shown, display=False)
glue("largest-h", float(largest_h), display=False)
glue("same", float(len(same)), display=False)
glue("rest-speed", float(rest.z[:, 1].abs().max()), display=False)
glue("rest-distance", float(distance.abs().max()), display=False)

# %% [markdown]
# ## What to take away
#
# The energy landscape has a known field, and the edges of its basins are curves of that field; a neural
# ODE suits it, and what it learns can be compared with the true field. On the full shells of the
# plane no flow separates the classes by a line, so a high accuracy there is due to gaps in the sample or to a
# solver that is no flow. If curves cross or the plane folds, it was not an ODE that moved the points, even if the
# model is written as one. Whether a solver folds the plane depends on its step size. {ref}`chapter-crossing` counts
# crossings of trained models; {ref}`chapter-grids` asks whether the accuracy survives a better solver.
