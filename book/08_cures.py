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
# (chapter-cures)=
# # What makes a model a flow? Cures compared
#
# **Question.** A shorter step makes a model a flow, and costs evaluations. Later work proposes other
# cures. Which of them gives the most accurate exact flow for the same number of evaluations in training?
#
# **Answer.** That depends on the data. On the spheres, a better solver suffices: trained with six steps of rk4 (24
# evaluations) and nothing else, the models have an exact flow that is {glue:text}`six-spheres2:.1f` % accurate. On
# the landscape, it pays to draw the solver or its number of steps at random for each batch, so that the model cannot
# adapt to one of them: with at most 24 evaluations, the exact flows of two such cures are more accurate than those
# of six rk4 steps, by {glue:text}`both-ahead-landscape` and {glue:text}`mixed-ahead-landscape` points (95 %
# intervals of the differences seed by seed).
#
# All numbers here are accuracies of the {term}`exact flow`, on seeds that had no part in any choice; a gap is the
# distance to the accuracy as trained. On the landscape, drawing the number of Euler steps and adding a loss term
# that asks two solves to agree gives {glue:text}`both-landscape:.1f` % (one seed of 15 has a gap of
# {glue:text}`both-gap-landscape:.1f` points). Drawing either Euler's method or midpoint gives
# {glue:text}`mixed-landscape:.1f` % (gaps of at most {glue:text}`mixed-gap-landscape:.1f` points), and six steps of
# rk4 give {glue:text}`six-landscape:.1f` % (gaps of up to {glue:text}`six-gap-landscape:.0f`). On the spheres, the
# gaps with six steps of rk4 are at most {glue:text}`six-gap-spheres2:.1f` points; drawing the number of rk4 steps
# ({glue:text}`drawn-spheres2:.1f` %, gaps of at most {glue:text}`drawn-gap-spheres2:.1f`) makes no clear difference.
# Nor can any of these be told apart from 128 Euler steps, which reach {glue:text}`fine-spheres2:.1f` % on the
# spheres and {glue:text}`fine-landscape:.1f` % on the landscape for five times the evaluations.

# %% tags=["parameters", "hide-input"] example="profile laptop"
profile = "paper"  # size of every run: paper, laptop or smoke
device = "auto"  # where missing models are trained: cpu, cuda, or auto, cuda where there is one
planar = ["spheres2", "landscape"]  # data sets in the plane, a panel each
seeds = [0, 1, 2, 3, 4]  # initialisations and batch orders, on which finalists are chosen
training = "rk4-K5-uniform-2"  # trained here if missing, on the first data set
plain = ["euler", "rk4"]  # solvers whose plain steps stand beside the cures
controllers = ["algorithm1", "auto"]  # of adapted steps, likewise

# %% tags=["hide-input"]
from nodecore.pages.parameters import check_parameters

check_parameters()

import math

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown, display
from myst_nb import glue

from nodecore.analysis.intervals import Interval
from nodecore.evidence.catalogue import (
    CURES,
    FINALISTS,
    FRESH,
    IN_THE_GRID,
    MORE_GRID_SEEDS,
    MORE_SEEDS,
    SAME_COST,
    STEERED,
    cure_run,
    steered_run,
)
from nodecore.evidence.frontier import (
    difference,
    frontier,
    is_plain,
    judge_at_least,
)
from nodecore.evidence.gather import find_all, find_trainings
from nodecore.evidence.names import describe_run, name_of
from nodecore.evidence.obtain import obtain
from nodecore.evidence.runs import SEEDS, Run
from nodecore.evidence.tables import AGREES_AT_END, accuracies, agrees_at_end
from nodecore.pages import plots
from nodecore.pages.downloads import download_links
from nodecore.pages.explorers import PairExplorer
from nodecore.training.adapted import Adapted

plots.use_style()

# %% tags=["hide-input"]
obtain(cure_run(planar[0], training, seeds, profile), device=device)
FEW, MANY = (2, 4, 6, 8, 16, 32, 64), (8, 16, 24, 32, 64, 128, 256)
GRID = [f"{s}-K{k}" for s in plain for k in (FEW if s == "rk4" else MANY)]
first = {d: find_trainings(d, [*GRID, *CURES, training], seeds, profile) for d in planar}
for dataset in planar:
    runs = [Run(dataset, Adapted("euler", c), tuple(seeds), profile) for c in controllers]
    runs += [steered_run(dataset, c, seeds, profile) for c in STEERED]
    first[dataset] += find_all(runs)
tables = {d: frontier(found) for d, found in first.items()}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Accuracy of the exact flow against the evaluations per iteration, means of 5 seeds, 95 % intervals. Lines: plain steps, numbered. Stars: cures of Euler's method unless stated; controllers and finalists (see below) are named. Paper scale. Records: `book/results/<data set>-<solver>` and `-cures`.", "name": "fig-frontier"}, "image": {"alt": "Two panels in which lines of plain steps rise with the evaluations, and stars of cures lie above or below them."}}
unnamed = set(CURES).difference(*FINALISTS.values())
fig, axes = plt.subplots(len(planar), 1, figsize=(8.6, 4 * len(planar)), squeeze=False)
for ax, dataset in zip(axes[:, 0], planar, strict=True):
    starred = [e.run for e in first[dataset] if not is_plain(e.run)]
    labels = ["" if run.training in unnamed else describe_run(run) for run in starred]
    plots.frontier(ax, tables[dataset], labels)
    ax.set_title(name_of(dataset))
handles = axes[0, 0].get_legend_handles_labels()
fig.legend(*handles, loc="outside lower center", ncols=4)
plots.stamp_profile(fig, profile)

# %% tags=["remove-input"]
drawn = pd.concat(tables, names=["dataset"]).reset_index(level=0)
download_links(fig, "fig-frontier", drawn)

# %% tags=["hide-input"]
known = [f"{sum(e.run.training in CURES for e in first[d])} of {len(CURES)} on {name_of(d)}"
         for d in planar]  # fmt: skip
Markdown(f"Cures of the catalogue that have records at this profile: {', '.join(known)}.")

# %% [markdown]
# ## Accuracy and cost
#
# Every model is trained under the paper's protocol, with one change at a time. Two numbers judge it: the accuracy of
# its exact flow (Dopri 5(4) at a tolerance of $10^{-6}$), and the largest gap of a seed between that and the
# accuracy as trained. The cost is the number of evaluations of the vector field in a training iteration, all solves
# together. All seeds count, including those that did not train. *Plain* steps, a fixed number of steps of one solver
# without a cure, are shown beside the cures for two solvers: a better solver is a cure, too. A cure's name says what
# each batch does: *K = 16, or midpoint, drawn* takes 16 steps of Euler's method or of midpoint, with even odds; *K
# log-uniform on 2 to 40* draws the number of steps; *like K/2, weight 0.1* adds to the loss, with that weight, the
# distance to a solve in half the steps. {ref}`appendix-cures` goes through the cures one by one.

# %% [markdown]
# ## Two trainings for the same evaluations
#
# Both models below cost 24 evaluations per iteration. One was trained with 24 plain steps of Euler's method. For the
# other, each batch took 16 steps of either Euler's method or midpoint, drawn at random. Solved nearly exactly, in
# 256 steps, the model with the drawn solver is more accurate. Drag down to 24 steps: there the plain model is more
# accurate, because it has learned to use these steps. Of the five seeds, this is the one whose plain training loses
# most.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Trajectories of one seed on the landscape under two trainings, solved with Euler's method in your number of steps, with a ring at every crossing. Computed in the page from the weights behind `book/results/landscape-cures` (in this book: paper scale).", "name": "fig-cured-pair"}}
pair = find_trainings("landscape", ["euler-K24", "euler-K16-solver-midpoint"], SEEDS, profile)
missing = Markdown("There are no records of these two yet.")
options = {"n_starts": 40, "seed": 3, "n_steps": 256}
PairExplorer.from_evidence(pair, **options) if len(pair) == 2 else missing

# %% [markdown]
# ## Seeds that had no part in the choice
#
# Five seeds cannot tell such cures apart, and picking the best of many on them is misleading. So the rule was
# written down first: for each data set the two cures with the most accurate exact flow on seeds 0 to 4, among those
# of at most 24 evaluations, are the finalists. They and rk4 with 6 plain steps were then trained with *fresh seeds*,
# 20 to 34. For plain steps of Euler's method, the fresh seeds are 5 to 19, from the grid of {ref}`chapter-grids`;
# nothing was chosen on them here.
#
# The goal was: on these seeds, for at most 24 evaluations, an exact flow at least as accurate as that
# of 128 steps of Euler's method, and in every seed a gap of at most 5 points.

# %% tags=["hide-input"]
rivals = {d: [*FINALISTS.get(d, ()), SAME_COST[-1]] for d in planar}
fresh = {
    d: {e.run.training: e for e in [*find_trainings(d, rivals[d], FRESH, profile),
                                    *find_trainings(d, IN_THE_GRID, MORE_GRID_SEEDS, profile)]}
    for d in planar
}  # fmt: skip


def tabulate_fresh(dataset):
    """A row for each finalist and the plain steps beside it, both groups of seeds."""
    before = tables[dataset].set_index("training")["exact"]
    rows = []
    for name, row in frontier(list(fresh[dataset].values())).set_index("training").iterrows():
        exact = Interval(row["exact"], row["low"], row["high"])
        rows.append([describe_run(fresh[dataset][name].run), f"{row['nfe']:.1f}",
                     f"{100 * before[name]:.1f}" if name in before else "-",
                     exact.percent(),
                     f"{100 * row['worst']:.1f} ({row['agreeing']} of {row['seeds']})"])  # fmt: skip
    columns = [name_of(dataset), "NFE", "exact flow, seeds 0–4", "exact flow, other seeds"]
    return pd.DataFrame(rows, columns=[*columns, "worst gap (within 5)"]).set_index(columns[0])


for dataset in planar:
    display(tabulate_fresh(dataset))

# %% [markdown]
# The table shows whether these seeds meet the goal. It gives differences of the exact flow's accuracy, in points.
# The difference from 128 steps of Euler's method has Welch's 95 % interval, over the seeds of both. The difference
# from six plain steps of rk4, which cost the same and have the same seeds, is taken seed by seed and has the 95 %
# interval of its mean. *Cannot tell* means that the first of these intervals contains zero. Several differences are
# judged at once, so an interval that just misses zero is weaker evidence than it looks.


# %% tags=["hide-input"]
def points_of(change):
    """A difference and its interval in points, as text."""
    return change.percent().replace(" %", "").replace("-", "−")


goals = []
for dataset in planar:
    fine, equal = (fresh[dataset].get(name) for name in (IN_THE_GRID[-1], SAME_COST[-1]))
    for name in rivals[dataset] if fine else ():
        if name not in fresh[dataset]:
            continue
        change = difference(fresh[dataset][name], fine)
        near = agrees_at_end(accuracies(fresh[dataset][name])["gap"].max())
        apart = equal if equal is not fresh[dataset][name] else None
        goals.append([name_of(dataset), describe_run(fresh[dataset][name].run), points_of(change),
                      judge_at_least(change), "met" if near else "missed",
                      points_of(difference(fresh[dataset][name], apart)) if apart else "-"])  # fmt: skip
columns = ["data set", "training", "against 128 Euler steps", "as accurate", "every gap"]
columns += ["against six rk4 steps"]
pd.DataFrame(goals, columns=columns).set_index(columns[:2])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The gap between the accuracies as trained and of the exact flow, every seed that had no part in the choice; grey: at most 5 points. Paper scale, 15 seeds. Records: `book/results/<data set>-cures/<profile>/` and `book/results/<data set>-<solver>/<profile>/`.", "name": "fig-fresh-gaps"}, "image": {"alt": "Rows of points, one for each seed: for cures most lie within the grey band, for fixed steps at the same cost many lie beyond it."}}
fig, axes = plt.subplots(len(planar), 1, figsize=(8, 2.2 * len(planar)), squeeze=False)
for ax, dataset in zip(axes[:, 0], planar, strict=True):
    gaps = {describe_run(e.run): accuracies(e)["gap"] for e in fresh[dataset].values()}
    plots.seed_gaps_of(ax, gaps, AGREES_AT_END)
    ax.set_title(name_of(dataset))
plots.stamp_profile(fig, profile)

# %% tags=["remove-input"]
each = {(d, e.run.name): accuracies(e) for d in planar for e in fresh[d].values()}
table = pd.concat(each, names=["dataset", "run"]).reset_index() if each else pd.DataFrame()
download_links(fig, "fig-fresh-gaps", table)


# %% [markdown]
# ## A controller that sets the K around which steps are drawn
#
# The K around which steps are drawn need not be the same for every seed. PI (proportional-integral) control
# {cite:p}`gustafsson1988` steers the step so that a target share of a batch changes class under a better solve. Each
# batch then draws its number of steps around that K, log-uniformly, from a quarter to four times as many. We tried
# two better solves: half the step, which needs no second solver (target 5 %), and then midpoint at the same step
# (2.5 %). We did not search for better constants, and judged both on fresh seeds. Algorithm 1 and the calmer rule of
# {ref}`chapter-adaption` have other seeds (column *seeds*), so the rows are not paired. On the spheres, those are
# only seeds 0 to 4, on which the calmer rule's constants were chosen.

# %% tags=["hide-input"]
steered = {}
for dataset in planar:
    runs = [steered_run(dataset, name, STEERED[name], profile) for name in STEERED]
    others = MORE_SEEDS.get(dataset, seeds)
    runs += [Run(dataset, Adapted("euler", c), tuple(others), profile) for c in controllers]
    steered[dataset] = find_all(runs)


def tabulate_controllers(dataset):
    """A row for each controller, on its other seeds."""
    rows = []
    for evidence, row in zip(
        steered[dataset], frontier(steered[dataset]).to_dict("records"), strict=True
    ):
        exact = Interval(row["exact"], row["low"], row["high"])
        rows.append([describe_run(evidence.run), evidence.run.name.rpartition("seeds")[2].replace("-", "–"),
                     f"{row['nfe']:.1f}", exact.percent(),
                     f"{100 * row['worst']:.1f} ({row['agreeing']} of {row['seeds']})"])  # fmt: skip
    columns = [name_of(dataset), "seeds", "NFE", "exact flow", "worst gap (within 5)"]
    return pd.DataFrame(rows, columns=columns).set_index(columns[0])


for dataset in planar:
    display(tabulate_controllers(dataset))

# %% [markdown]
# **A check with half the step can be fooled.** On the landscape, the controller with this check does better than
# Algorithm 1, though only {glue:text}`pi-agreeing-landscape:.0f` of {glue:text}`pi-seeds-landscape:.0f` seeds are
# within 5 points: its exact flow is {glue:text}`pi-landscape:.1f` % accurate for {glue:text}`pi-nfe-landscape:.0f`
# evaluations, that of Algorithm 1 {glue:text}`algorithm1-landscape:.1f` % for
# {glue:text}`algorithm1-nfe-landscape:.0f`. On the spheres it fails: {glue:text}`pi-spheres2:.1f` %, with gaps of up
# to {glue:text}`pi-gap-spheres2:.0f` points. Training also draws half the step, so the model probably learns to
# agree there without being a flow, and the controller lengthens the step further.
#
# **A solver that training does not use is harder to fool.** With midpoint, the spheres reach
# {glue:text}`pi-finer-spheres2:.1f` % for {glue:text}`pi-finer-nfe-spheres2:.0f` evaluations, about half of what
# Algorithm 1 spends, with gaps of up to {glue:text}`pi-finer-gap-spheres2:.1f` points. On the landscape every seed
# is within {glue:text}`pi-finer-gap-landscape:.1f` points, but for {glue:text}`pi-finer-nfe-landscape:.0f`
# evaluations: the target is stricter than necessary there. No controller here beats drawing steps around a fixed K
# on both sets, so the package's controller `auto` still means remembering discord.
#
# ## What to do in practice
#
# - **Draw the solver for each batch, or draw the number of steps of rk4.** Each was judged on fresh seeds of one
#   data set only: rk4 with 2 to 10 steps on the spheres, where plain rk4 does as well, and Euler or midpoint on the
#   landscape, where plain rk4 does not. With the drawn solver, every fresh seed of the landscape is within 5 points
#   of its exact flow; of the five seeds that the cure was chosen on, one is not. On spheres in ten dimensions, every
#   seed of both cures is within 5 points. Drawing the number of Euler steps alone is not enough on the spheres
#   ({ref}`appendix-cures`).
# - **Count evaluations, not steps.** Six plain steps of rk4 are a flow on the spheres, for a fraction of what
#   Euler's method needs there; on the landscape {glue:text}`six-missed-landscape:.0f` of
#   {glue:text}`six-seeds-landscape:.0f` seeds are off by more than 5 points: a better solver alone is not enough.
# - **A term in the loss that asks two solves to agree** goes well with a drawn number of steps: on the landscape
#   the two together reach {glue:text}`both-landscape:.1f` %, the most of all finalists, for 19 evaluations, though
#   one seed of 15 has a gap of {glue:text}`both-gap-landscape:.0f` points. Its weight has to be chosen.
# - **Do not rely on weight decay, on a stable start or on a bound on $h L$.** Weight decay, at the one weight tried,
#   is among the three least accurate cures on both sets. A start where the solver is stable is the least accurate. A
#   bound on $h L$ is no substitute for shorter steps: steps can be one-to-one and still not make a flow.
# - **Check with a solver that training does not use.** Agreement with half the step is something a model can
#   learn. {ref}`chapter-check-flow` asks a trained model whether it is a flow; {ref}`appendix-criteria` compares
#   other tests for this. Choose on some seeds and judge on others: with five, the order of the best few is chance.

# %% tags=["remove-cell"]
for dataset in planar:
    judged = frontier(list(fresh[dataset].values())).set_index("training")
    names = {
        "drawn": "rk4-K5-uniform-2",
        "mixed": "euler-K16-solver-midpoint",
        "six": "rk4-K6",
        "both": "euler-K10-loguniform-4,squared-0.1-coarser",
        "fine": "euler-K128",
    }
    for word, name in names.items():
        known = judged.loc[name] if name in judged.index else {}
        glue(f"{word}-{dataset}", 100 * float(known.get("exact", math.nan)), display=False)
        glue(f"{word}-gap-{dataset}", 100 * float(known.get("worst", math.nan)), display=False)
        seen, within = (float(known.get(key, math.nan)) for key in ("seeds", "agreeing"))
        glue(f"{word}-seeds-{dataset}", seen, display=False)
        glue(f"{word}-missed-{dataset}", seen - within, display=False)
        both = [fresh[dataset].get(each) for each in (name, SAME_COST[-1])]
        ahead = points_of(difference(*both)) if all(both) else "-"
        glue(f"{word}-ahead-{dataset}", ahead, display=False)
    names = [e.run.steps.controller for e in steered[dataset]]
    judged = frontier(steered[dataset]).assign(name=names).set_index("name")
    for name in (*STEERED, "algorithm1"):
        known = judged.loc[name] if name in judged.index else {}
        glue(f"{name}-{dataset}", 100 * float(known.get("exact", math.nan)), display=False)
        glue(f"{name}-nfe-{dataset}", float(known.get("nfe", math.nan)), display=False)
        glue(f"{name}-gap-{dataset}", 100 * float(known.get("worst", math.nan)), display=False)
        for word in ("agreeing", "seeds"):
            glue(f"{name}-{word}-{dataset}", float(known.get(word, math.nan)), display=False)
