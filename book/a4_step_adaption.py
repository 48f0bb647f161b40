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
# (appendix-adaption)=
# # Appendix: step adaption in full
#
# **Question.** How much does Algorithm 1 depend on its start, its constants and the seed, and does another controller
# do better?
#
# **Answer.** It depends on the seed more than on the start: with either norm for the first step, the largest final
# $K$ among the seeds of a data set is {glue:text}`ends-least:.1f` to {glue:text}`ends-most:.1f` times the smallest.
# It is robust to small changes of its constants only in part. Several rules change the step far less often, but on
# neither set in the plane does one of them reach all goals that were set before they were tried.

# %% tags=["parameters", "hide-input"] example="profile laptop"
profile = "paper"  # size of every run: paper, laptop or smoke
device = "auto"  # where missing models are trained: cpu, cuda, or auto, cuda where there is one
datasets = ["spheres2", "landscape"]  # data sets, a row or a column of panels each
images = ["mnist", "cifar10"]  # sets of images, plotted from existing records
calm = "auto"  # the controller that is compared with Algorithm 1
seeds = [0, 1, 2, 3, 4]  # initialisations and batch orders; every model is trained with each

# %% tags=["hide-input"]
from nodecore.pages.parameters import check_parameters

check_parameters()

import math

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown
from myst_nb import glue
from torch import nn
from torch.nn import functional as F

from nodecore.analysis.evaluate import critical_n_steps
from nodecore.claims.paper import TABLE1, percent
from nodecore.claims.rules.adaption import CHECKS_OF_A_HALVING
from nodecore.evidence.catalogue import GRIDS, IMAGE_CONTROLLERS, MORE_SEEDS, grid_runs
from nodecore.evidence.found import find
from nodecore.evidence.gather import adaption_run, gather_adaptions
from nodecore.evidence.joined import best
from nodecore.evidence.names import name_of
from nodecore.evidence.runs import Run
from nodecore.evidence.tables import (
    AGREES_AT_END,
    adaption_ends,
    calmness,
    compare_controllers,
    exact_gaps,
    first_and_last,
    grid_search,
    records_if_whole,
    seed_gaps,
)
from nodecore.evidence.violations import seen
from nodecore.ode.fixed import solve_fixed
from nodecore.pages import plots
from nodecore.pages.downloads import download_links
from nodecore.training.adapted import STARTS, USUAL_START, Adapted
from nodecore.training.controllers import (
    ALL_CONTROLLERS,
    CONTROLLERS,
    RETIRED,
    VARIATIONS,
    Observation,
    StepState,
    controller_name,
    get_controller,
)

plots.use_style()
SHARED = {"sharex": "row", "squeeze": False}
calm = controller_name(calm)


# %% tags=["hide-input"]
found = gather_adaptions(datasets, ("algorithm1", calm), seeds, profile, device)
# The other controllers, and more seeds, are shown where their records are.
others = [c for c in ALL_CONTROLLERS if c not in ("algorithm1", calm)]
RULES = [*CONTROLLERS, *RETIRED]
stored = {(d, c): find(adaption_run(d, c, seeds, profile)) for d in datasets for c in others}
found |= {key: evidence for key, evidence in stored.items() if evidence is not None}

# %% [markdown]
# ## Accuracy and number of steps over the training
#
# The two factors of Algorithm 1 alone force a rhythm: after each halving it takes several agreeing
# checks to get back to the step that failed.

# %%
checks, iterations = CHECKS_OF_A_HALVING, CHECKS_OF_A_HALVING * get_controller("algorithm1").every
print(f"a halving is undone after {checks:.1f} checks, {iterations:.0f} iterations")


# %% tags=["remove-cell"]
def draw_training(controller):
    size = (8, 2.8 * len(datasets) + 0.6)
    fig, axes = plt.subplots(len(datasets), 2, figsize=size, **SHARED)
    for (left, right), dataset in zip(axes, datasets, strict=True):
        plots.over_iterations(left, seen(found[dataset, controller], "accuracy"), "accuracy", seeds)
        plots.over_iterations(right, seen(found[dataset, controller], "n_steps"), "n_steps", seeds)
        left.set(ylabel=f"{name_of(dataset)}\ntest accuracy", ylim=(0, 1.05))
        right.set_ylabel("number of steps $K$")
    handles, labels = axes[0, 1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(seeds))
    plots.stamp_profile(fig, profile)
    return fig


def followed(*controllers):
    """The histories behind such figures, for a download."""
    columns = ["iteration", "seed", "step_size", "n_steps", "accuracy"]
    parts = {
        (d, c): found[d, c].history.reindex(columns=columns) for d in datasets for c in controllers
    }
    return pd.concat(parts, names=["dataset", "controller"]).reset_index([0, 1])


# %% tags=["hide-input"] mystnb={"figure": {"caption": "Training with Algorithm 1, every seed: accuracy on the test set under the training solver, every 500 iterations (left), and the number of steps $K$ that is in use (right). Cf. {cite:t}`ott2020`, Fig. 5, which shows other data sets. Paper scale and 5 seeds unless stated in the figure. Records: `book/results/<data set>-adaption/<profile>/`.", "name": "fig-adaption"}, "image": {"alt": "Accuracies that rise and level off, and numbers of steps that rise at first and then go up and down without settling."}}
fig = draw_training("algorithm1")

# %% tags=["remove-input"]
download_links(fig, "fig-adaption", followed("algorithm1"))

# %% [markdown]
# ## Does it end as an ODE?
#
# After the last iteration the model is tested at the step size of that iteration (not at one that a check at the
# very end asks for: nothing was trained with it). The test solvers are Euler's method, the midpoint method and the
# exact flow (Dopri 5(4) at $10^{-6}$). The second table shows how much the step moved in the second half of the
# training. *Reversals*: changes of sign between successive changes of $\log h$ that are not zero. *Failed checks*:
# every 50 iterations, an outside check compares Euler with midpoint at the same step on one batch; it fails if the
# gap is over 0.1. It is the same for every controller, and its evaluations are not counted. *Spread*: the standard
# deviation of $\log K$.

# %% tags=["hide-input"]
ends = {d: adaption_ends(found[d, "algorithm1"].records) for d in datasets}
names = {"final_n_steps": "last K", "nfe_per_iteration": "NFE per iteration",
         "failed_checks": "failed checks"}  # fmt: skip
together = pd.concat({name_of(d): table for d, table in ends.items()}, names=["data set"])
together = together.rename(columns=names)
accuracies = ["as trained", "midpoint", "exact flow"]
shown = together[["last K", "NFE per iteration"]].round(1)
shown.join(together[accuracies].map(lambda share: f"{100 * share:.1f} %"))

# %% tags=["hide-input"]
together[["reversals", "failed checks", "spread"]].round(2)

# %% [markdown]
# ## Two more claims of the paper
#
# **Claim: the first step is not too small** (holds in part, {ref}`chapter-scorecard`). If it were far shorter than
# needed, the first few hundred iterations would be the expensive ones. The table gives the $K$ of Hairer's first
# step, seed by seed, and the mean $K$ of the second half of the training.
#
# **Claim: adaption costs less than the grid that it replaces** (holds in part). A grid search trains at every $K$; its
# cost is the sum of the NFE per iteration of all its runs, $K$ each, times the iterations. The table gives that sum
# up to the critical $K$ of these seeds, where a lucky search stops, and over the whole grid. With all seeds of the
# grid the landscape's critical $K$ is smaller, and the seeds of Algorithm 1 spread too much to call it cheaper
# there.


# %% tags=["hide-input"]
def listed(values):
    return ", ".join(f"{value:.0f}" for value in values)


grids = {
    d: records_if_whole(grid_runs(d, "euler", GRIDS[f"{d}-euler"], seeds, profile))
    for d in datasets
}
searches = {d: None if frame is None else grid_search(frame) for d, frame in grids.items()}
rows = []
for d in datasets:
    history = seen(found[d, "algorithm1"], "n_steps").groupby("seed")
    first = history["n_steps"].first()
    late = history["n_steps"].apply(lambda k: k[len(k) // 2 :].mean())
    nfe = ends[d]["nfe_per_iteration"].mean()
    critical = searches[d].critical if searches[d] else None
    grid = GRIDS[f"{d}-euler"]
    cost = [sum(k for k in grid if critical and k <= critical), sum(grid)]
    rows.append([name_of(d), listed(first), listed(late),
                 f"{nfe:.1f}", *(f"{c} ({c / nfe:.1f} times)" if c else "-" for c in cost)])  # fmt: skip
columns = ["data set", "first K", "late K", "NFE, Algorithm 1", "NFE, grid to its critical K",
           "NFE, whole grid"]  # fmt: skip
pd.DataFrame(rows, columns=columns).set_index("data set")

# %% [markdown]
# **With a fixed step** of the grid, how many steps does each seed need to end within 5 points of the exact flow,
# and how many seeds still lose more than 0.1 to midpoint at the critical $K$ of the grid?

# %% tags=["hide-input"]
rows = []
for d in [d for d in datasets if searches[d]]:
    gaps_of, critical = seed_gaps(grids[d], exact_gaps), searches[d].critical
    needed = [critical_n_steps(gaps, AGREES_AT_END) for gaps in gaps_of.to_dict().values()]
    text = ", ".join(f"{k}" if k else f"over {gaps_of.index[-1]}" for k in needed)
    rows.append([name_of(d), text, critical, f"{searches[d].disagreeing} of {len(needed)}"])
columns = ["data set", "K that the seeds need", "critical K", "seeds that lose more than 0.1 there"]
pd.DataFrame(rows, columns=columns).set_index("data set")

# %% [markdown]
# (section-starts)=
# ## Which norms choose the first step?
#
# The textbook's norm is a root mean square with each entry divided by atol + rtol $|z_0|$, so it needs tolerances;
# a method of fixed steps has none, and the paper names none. For this norm we use the tolerances that are usual
# for adaptive solvers, and record them with each run. They matter: with a hundred times the tolerance, the
# training starts with a tenth of the steps. Euclidean norms need no tolerance, but they grow with the number of
# dimensions, so the first step is shorter on images. The table shows Algorithm 1 from either start, where there
# are records: first and last $K$ seed by seed, NFE per iteration and accuracy, reversals and gap to the exact flow
# as above.


# %% tags=["hide-input"]
# Adaption and grid of a set of images, at one scale.
beside = {d: best([f"{d}-adaption", f"{d}-euler"]) for d in images}
on_images = {
    (d, e.run.steps.controller, e.run.steps.start): e for d in images for e in beside[d][0].found
}
found |= {(d, c): e for (d, c, start), e in on_images.items() if start == USUAL_START}
adapted = [d for d in images if (d, "algorithm1") in found]


def scale_of(d):
    """Of a set of images, as a label."""
    run = found[d, "algorithm1"].run
    return f"{run.profile} scale, {len(run.seeds)} seed{'s' * (len(run.seeds) != 1)}"


# %% tags=["hide-input"]
def begun(dataset, start):
    """The evidence of Algorithm 1 from this start, or None."""
    if dataset in images:
        return on_images.get((dataset, "algorithm1", start))
    steps = Adapted("euler", "algorithm1", start)
    return find(Run(dataset, steps, seeds=seeds, profile=profile))


def mean_and_std(mean, std):
    """As text; a single seed has no standard deviation."""
    return f"{mean:.1f}" + f" ± {std:.1f}" * math.isfinite(std)


every_start = {(d, s): begun(d, s) for d in [*datasets, *adapted] for s in STARTS}
walks = {key: first_and_last(evidence) for key, evidence in every_start.items() if evidence}
walks = {key: walk for key, walk in walks.items() if len(walk)}
ends = [walk["final_n_steps"].max() / walk["final_n_steps"].min() for walk in walks.values()]
glue("ends-least", float(min(ends, default=math.nan)), display=False)
glue("ends-most", float(max(ends, default=math.nan)), display=False)

rows = [
    [name_of(d), name_of(s), listed(walk["first_n_steps"]), listed(walk["final_n_steps"]),
     mean_and_std(walk["nfe_per_iteration"].mean(), walk["nfe_per_iteration"].std()),
     percent(walk["accuracy"].mean(), walk["accuracy"].std()), f"{walk['reversals'].mean():.1f}, "
     f"{100 * walk['agreement_gap'].mean():.1f} ({100 * walk['agreement_gap'].max():.1f})"]
    for (d, s), walk in walks.items()
]  # fmt: skip
columns = ["data set", "first step in", "first K", "last K", "NFE", "accuracy"]
pd.DataFrame(rows, columns=[*columns, "reversals, gap (worst)"]).set_index(columns[:2])

# %% tags=["remove-input"]
tolerances = ", ".join(f"{name} = {value:g}" for name, value in STARTS["hairer"].items())
told = [f"The tolerances of the scaled norms are {tolerances}."]
for d in dict.fromkeys(d for d, _ in walks):
    if (d, "hairer") not in walks:
        told.append(f"On {name_of(d)} it has not been trained from the scaled norms yet.")
        continue
    plain, scaled = walks[d, USUAL_START], walks[d, "hairer"]
    told.append(
        f"On {name_of(d)} it begins with {plain['first_n_steps'].mean():.0f} steps on average "
        f"from Euclidean norms, with {scaled['first_n_steps'].mean():.0f} from the scaled ones, "
        f"and takes {plain['nfe_per_iteration'].mean():.1f} and "
        f"{scaled['nfe_per_iteration'].mean():.1f} evaluations per iteration"
        + (f"; the paper has {TABLE1[d]['adaption NFE']:.1f}." if d in TABLE1 else ".")
    )
Markdown(" ".join(told))

# %% [markdown]
# ## Other constants
#
# **Claim: it is robust to small changes of its constants** (holds in part, {ref}`chapter-scorecard`). One of the four
# is changed at a time: checks every 25 or 100 iterations in place of 50, a threshold of 0.05 or 0.2 in place of 0.1,
# a factor of 0.25 or 0.7 in place of 0.5, and of 1.05 or 1.2 in place of 1.1. Columns: NFE per iteration and
# accuracy, mean and standard deviation over the seeds; reversals, spread and failed checks as above, means; *gap*:
# between Euler's accuracy at the end and the exact flow's, in points, mean and worst seed; *agree*: seeds with a gap
# of at most 5 points.


# %% tags=["hide-input"]
def compared_on(dataset):
    frames = [found[dataset, c].records for c in ALL_CONTROLLERS if (dataset, c) in found]
    return compare_controllers(pd.concat(frames))


compared = {d: compared_on(d) for d in datasets}


def shown_row(dataset, name, row, m="mean", s="std"):
    return [
        name_of(dataset), name_of(name.removeprefix("algorithm1-")),
        mean_and_std(row["nfe_per_iteration", m], row["nfe_per_iteration", s]),
        percent(row["accuracy", m], row["accuracy", s]),
        f"{row['reversals', m]:.1f}, {row['spread', m]:.3f}", f"{row['failed_checks', m]:.1f}",
        f"{100 * row['agreement_gap', m]:.1f} ({100 * row['agreement_gap', 'max']:.1f}), "
        f"{int(row['agreeing', ''])} of {int(row['seeds', ''])}",
    ]  # fmt: skip


def shown_table(names, compared=compared):
    """The controllers of these names, all data sets."""
    rows = [
        shown_row(d, name, table.loc[name])
        for d, table in compared.items()
        for name in table.index.intersection(names, sort=False)
    ]
    columns = ["data set", "controller", "NFE", "accuracy", "reversals, spread", "failed",
               "gap (worst), agree"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns).set_index(["data set", "controller"])


shown_table(["algorithm1", *VARIATIONS])

# %% [markdown]
# ## Other controllers
#
# What Algorithm 1 measures is coarse: the accuracy of a batch of 128 moves in steps of 1/128, and two accuracies
# can agree where single predictions do not. The candidates are:
#
# | controller | reads | rule |
# | :-- | :-- | :-- |
# | `algorithm1` | gap: accuracy under Euler minus accuracy under midpoint | h × 0.5 where it is over 0.1, else × 1.1 |
# | `confirmed-increase` | the same, midpoint at min(h, √(h/50)) | the same, but an increase is kept only if Euler at the longer step still agrees: the rule of the paper's later version |
# | `settling-gap` | gap | held at a target |
# | `settling-discord` | gap, or a quarter of the share of samples whose predicted class differs, whichever is larger | held at a target |
# | `settling-closeness` | distance of the two end states over the classifier's margin, at most 1, mean over the batch | held at a target |
# | `settling-bend` | $hL$ along the trajectories: twice the distance of the two end states over the distance travelled | held at a target |
# | `remembering-gap`, `remembering-discord` | as above, averaged since the last change | shorter above one level, longer below another, and never again as long as a step that was too long |
# | `sawtooth` | nothing | h × 1.1 from T / 48 to T / 18, then again: what Algorithm 1's oscillation does without its checks |
# | `pi`, `pi-finer` | share of classes that change in half the step (`pi`) or under midpoint (`pi-finer`) | PI control, with steps drawn around $K$: {ref}`chapter-cures` |
#
# `algorithm1`, `confirmed-increase`, `settling-discord`, `remembering-discord` and `pi-finer` are available for
# training. None of the others is better on both sets, so they are retired: their results are recorded, with the
# constants and the revision of each, but nothing more is trained with them.
#
# All but `pi` and `sawtooth` read the same two solves of a batch, $2K$ evaluations every 50 iterations
# (`confirmed-increase`: $2 \max(K, \sqrt{50 K})$, and Euler's again for each increase).
#
# *Held at a target* means integral control with a falling gain, as in stochastic approximation: a single check is
# noisy, so each one counts less the more checks there have been. The falling gain stops slow drift. The 5 % band in
# the last line below stops small fluctuations.
#
# ```text
# e = signal / target - 1, at most 2
# n = checks since the signal's running mean was last above 2 targets
# log w = log w - 0.2 min(1, 8 / n) e           (half of that where w grows)
# if w has left h by more than 5 %:  h = w
# ```
#
# *Remembering* is a hysteresis: it shortens the step at once after a failed check. Otherwise it waits for at least six
# checks, and changes the step only if their mean signal is large or very small. It never again takes a step that was
# once too long.
#
# ```text
# m = mean of the signal over the n checks since h last changed
# if this check failed:        h = 0.9 h,  and the h before is remembered as too long
# elif n >= 6 and m > 0.04:    h = 0.95 h, likewise
# elif n >= 6 and m < 0.01:    h = 1.1 h, at most 0.9 times the shortest h that was too long
# ```
#
# The goals were set before any trial: at most a fifth of Algorithm 1's reversals and of its spread,
# no more failed checks, an accuracy at least as good, at most 1.1 times its NFE, and every seed
# within 0.05 of the exact flow at the end.
#
# ### Seeds that had no part in the choice
#
# The constants were chosen by a few trials on seeds 0 to 4, so those seeds cannot judge them. On the
# landscape ten more seeds were trained with three of the controllers; no more were trained on the
# spheres. The tables show what these seeds say, where there are records.

# %% tags=["hide-input"]
more = {
    (d, c): find(adaption_run(d, c, MORE_SEEDS[d], profile))
    for d in datasets
    if d in MORE_SEEDS
    for c in ("algorithm1", "confirmed-increase", calm)
}
more = {key: evidence for key, evidence in more.items() if evidence is not None}
compared_more = {
    d: compare_controllers(pd.concat([e.records for (o, _), e in more.items() if o == d]))
    for d in dict.fromkeys(d for d, _ in more)
}
shown_table(RULES, compared_more)

# %% tags=["hide-input"]
SHORT = {"nfe_per_iteration": "NFE", "failed_checks": "failed", "agreement_gap": "gap"}


def goals_of(tables):
    """Which goals each controller reaches against Algorithm 1, and which not, by data set."""
    rows = {}
    for d, table in tables.items():
        tried = table.index.intersection([c for c in RULES if c != "algorithm1"], sort=False)
        for c in tried:
            holds = calmness(table, c)["holds"].rename(SHORT)
            goals = {yes: ", ".join(holds.index[holds == yes]) or "none" for yes in (True, False)}
            rows[name_of(d), name_of(c)] = {"reached": goals[True], "missed": goals[False]}
    return pd.DataFrame(rows).T.rename_axis(["data set", "controller"])


goals_of(compared_more) if compared_more else "No records yet."

# %% [markdown]
# ### Seeds that the constants were chosen on

# %% tags=["hide-input"]
shown_table(RULES)

# %% tags=["hide-input"]
goals_of(compared)

# %% tags=["hide-input"]
goals = {name_of(d): calmness(table, calm) for d, table in compared.items()}
goals = pd.concat(goals, names=["data set", name_of(calm)]).rename(
    index={"failed_checks": "failed checks", "nfe_per_iteration": "NFE per iteration",
           "agreement_gap": "worst seed's gap"}
)  # fmt: skip
told = {column: goals[column].map("{:.3g}".format) for column in ("value", "bound")}
pd.DataFrame(told).assign(goal=goals["holds"].map({True: "reached", False: "missed"}))

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Number of steps $K$ over the training, every seed: Algorithm 1 (left) and the calmer controller (right). The second half, in which reversals and spread are counted, is shaded. Paper scale and 5 seeds unless stated in the figure. Records: `book/results/<data set>-adaption/<profile>/`.", "name": "fig-calm"}, "image": {"alt": "On the left saw-toothed lines that never settle, on the right lines that rise, most of them early, and do not turn back."}}
size = (8, 2.8 * len(datasets) + 0.6)
fig, axes = plt.subplots(len(datasets), 2, figsize=size, sharey="row", **SHARED)
for row, dataset in zip(axes, datasets, strict=True):
    for ax, controller in zip(row, ("algorithm1", calm), strict=True):
        plots.over_iterations(ax, seen(found[dataset, controller], "n_steps"), "n_steps", seeds)
        total = found[dataset, controller].run.protocol.iterations
        ax.axvspan(total / 2, total, color="#f0f0f0", zorder=0)
        ax.set_title(f"{name_of(dataset)}, {name_of(controller)}")
    row[0].set_ylabel("number of steps $K$")
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=len(seeds))
plots.stamp_profile(fig, profile)

# %% tags=["remove-input"]
download_links(fig, "fig-calm", followed("algorithm1", calm))

# %% tags=["remove-cell"]
for d in ("spheres2", "landscape"):
    for name in ("algorithm1", "settling-discord"):
        known = d in compared and name in compared[d].index
        row = compared[d].xs("mean", axis=1, level=1).loc[name] if known else {}
        nfe = float(row.get("nfe_per_iteration", math.nan))
        glue(f"{name}-nfe-{d}", nfe, display=False)
        std = compared[d].loc[name, ("nfe_per_iteration", "std")] if known else math.nan
        glue(f"{name}-nfe-std-{d}", float(std), display=False)
        glue(f"{name}-reversals-{d}", float(row.get("reversals", math.nan)), display=False)

# %% [markdown]
# The rule of the paper's later version, `confirmed-increase`, does not settle either: an increase that agrees at
# first can disagree a little later. On the spheres integral control is calm
# ({glue:text}`settling-discord-reversals-spheres2:.1f` reversals of the step instead of
# {glue:text}`algorithm1-reversals-spheres2:.1f`) and costs about as much as Algorithm 1
# ({glue:text}`settling-discord-nfe-spheres2:.1f` and {glue:text}`algorithm1-nfe-spheres2:.1f` evaluations); on the
# landscape, the standard deviation of its evaluations over seeds is as large as their mean
# ({glue:text}`settling-discord-nfe-landscape:.0f` ± {glue:text}`settling-discord-nfe-std-landscape:.0f` and
# {glue:text}`algorithm1-nfe-landscape:.0f` ± {glue:text}`algorithm1-nfe-std-landscape:.0f`). Its step follows the
# field, which keeps getting sharper until the end. Remembering discord shortens the step again and again, mostly
# early in the training, and never lengthens it in the second half. How much it still shortens the step there depends
# on the seed: on the fresh seeds of the landscape, $K$ grew by anything from a tenth to more than fourfold.
#
# No step may get shorter than $T / 10{,}000$. How often was that limit reached?

# %% tags=["hide-input"]
limits = {key: int(seen(found[key], "at_shortest")["at_shortest"].sum()) for key in found}
print(f"checks after which a step was at that limit: {sum(limits.values())} of "
      f"{sum(len(seen(found[key], 'at_shortest')) for key in found):,}")  # fmt: skip

# %% [markdown]
# ## Images
#
# MNIST and CIFAR-10 (the paper's Fig. 5), at the scale given below ({ref}`section-images`). At the profile `laptop`
# batches hold 32 images, so an accuracy moves in steps of 1/32, and 1,500 iterations are 30 checks.
# `remembering-discord` needs six of them before it lengthens a step at all, so `settling-discord` was chosen for
# images; at the paper's scale (140 checks on MNIST) it was kept.

# %% tags=["remove-input"]
told = [
    f"- **{name_of(d)}.** {scale_of(d).capitalize()}"
    + (f" ({beside[d][0].lacking})." if beside[d][0].lacking else ".")
    for d in adapted
]
Markdown("\n".join(told) or "No records yet.")

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Images: accuracy on the test images under Algorithm 1, every 500 iterations (left); number of steps $K$ under Algorithm 1 (middle) and under settling discord (right), every seed. Cf. {cite:t}`ott2020`, Fig. 5. Scale and seeds: named above, and at the left. Records: `book/results/<data set>-adaption/<profile>/`.", "name": "fig-images-adaption"}, "image": {"alt": "Rows for MNIST and CIFAR-10: slowly rising accuracies; numbers of steps that fall from many to few, with jumps back under Algorithm 1, and level off earlier under settling discord."}}
fig, axes = plt.subplots(
    max(1, len(adapted)), 3, figsize=(8, 2.5 * len(adapted) + 0.6), squeeze=False
)
for row, dataset in zip(axes, adapted, strict=False):
    panels = [("algorithm1", "accuracy"), *((c, "n_steps") for c in IMAGE_CONTROLLERS)]
    for ax, (controller, column) in zip(row, panels, strict=True):
        if (dataset, controller) in found:
            own = found[dataset, controller].run.seeds
            plots.over_iterations(ax, seen(found[dataset, controller], column), column, own)
        else:
            ax.text(0.5, 0.5, "no records yet", transform=ax.transAxes, ha="center")
        ax.set_title(name_of(controller))
    row[0].set(ylabel=f"{name_of(dataset)}\ntest accuracy", ylim=(0, 1.05))
    row[1].set_ylabel("number of steps $K$")
    plots.stamp_panel(row[0], scale_of(dataset))
handles, labels = axes[0, 1].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=len(seeds))
plt.show()

# %% tags=["hide-input"]
shown_table(RULES, {d: compared_on(d) for d in adapted})

# %% [markdown]
# On CIFAR-10 Hairer's first step
# in Euclidean norms is far shorter than necessary; at the reduced scale, with 30 checks, either controller spends
# most of its evaluations on the way down from there.

# %% [markdown]
# ## A controller in your own training loop
#
# A controller works without the rest of `nodecore`: a training loop shows it what one batch looks like under two
# solvers and asks for the next step. `algorithm1` and `Settling(signal="gap")`, which is `settling-gap`, need only
# two accuracies, or two losses with a minus sign. The model here is plain torch.

# %% tags=["modeller"]
torch.manual_seed(0)
points = 2 * torch.randn(2000, 2)
labels = (points[:, 1] > torch.sin(2 * points[:, 0])).long()
field = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
head = nn.Linear(2, 2)
optimiser = torch.optim.Adam([*field.parameters(), *head.parameters()], lr=1e-2)


def logits(x, solver, step_size):
    return head(solve_fixed(lambda t, z: field(z), x, solver, step_size=step_size).z)


# %% tags=["modeller"]
rule, state = get_controller("auto"), StepState(step_size=0.5)
for iteration in range(1, 401):
    batch = torch.randint(len(points), (128,))
    x, y = points[batch], labels[batch]
    out = logits(x, "euler", state.step_size)
    if iteration % rule.every == 0:
        finer = logits(x, "midpoint", rule.test_step(state.step_size))
        ours, better = out.argmax(1), finer.argmax(1)
        a, b, flips = (float(v.float().mean()) for v in (ours == y, better == y, ours != better))
        state = rule.update(state, Observation(a, b, flips=flips))
    optimiser.zero_grad(), F.cross_entropy(out, y).backward(), optimiser.step()

# %%
print(f"step size {state.step_size:.3f}, accuracy of the last batch under Euler {a:.2f}, "
      f"under midpoint {b:.2f}")  # fmt: skip
