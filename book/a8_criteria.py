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
# (appendix-criteria)=
# # Appendix: which test recognises a flow, without labels?
#
# **Question.** Several numbers are proposed as signs that a model is a flow: that finer steps converge
# with the solver's order, that $hL$ is below 1, that end states stay within the classifier's margin. Which
# of them tells the models that are flows from those that are not?
#
# **Answer.** Solve once more with midpoint and count the classes that change. Of two models that were
# trained with the same step, only one of which is a flow, this picks the right one in
# {glue:text}`flips-spheres2:.0f` % of all pairs on the spheres and in {glue:text}`flips-landscape:.0f` % on
# the landscape, without a label. The observed order, with {glue:text}`order-spheres2:.0f` % and
# {glue:text}`order-landscape:.0f` %, and $hL$ along trajectories, with {glue:text}`slope-spheres2:.0f` % and
# {glue:text}`slope-landscape:.0f` %, score lower. But on the landscape the intervals overlap, and on the spheres
# every pair contains one of the same {glue:text}`deciding-spheres2:.0f` models. Order and $hL$ show which *step* is
# fine enough, and say less about the model that was trained with it.

# %% tags=["parameters", "hide-input"] example="profile laptop"
profile = "paper"  # size of every run: paper, laptop or smoke
device = "auto"  # where missing models are trained: cpu, cuda, or auto, cuda where there is one
datasets = ["spheres2", "landscape"]  # data sets, a panel each
n_steps = [32, 64, 128]  # steps of Euler's method in training
seeds = [0, 1, 2, 3, 4]  # initialisations and batch orders; 5 to 19 are read where they are there
n_samples = 300  # test samples that criteria are computed on, drawn at random

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
import pandas as pd
from myst_nb import glue

from nodecore.evidence.catalogue import MORE_GRID_SEEDS, grid_runs
from nodecore.evidence.criteria import CRITERIA, discrimination, rank_share, scores
from nodecore.evidence.gather import find_all, gather
from nodecore.evidence.measure import tested_on
from nodecore.evidence.names import name_of
from nodecore.pages import plots
from nodecore.pages.downloads import download_links
from nodecore.pages.parameters import check_parameters

check_parameters()
plots.use_style()

# %% tags=["hide-input"]
tables = {}
for dataset in datasets:
    found = gather(grid_runs(dataset, "euler", n_steps, seeds, profile), device)
    found += find_all(grid_runs(dataset, "euler", n_steps, MORE_GRID_SEEDS, profile))
    test = tested_on(found[0].run).sample(n_samples)
    tables[dataset] = pd.concat([scores(evidence, test) for evidence in found], ignore_index=True)
areas = {d: {name: discrimination(tables[d], name) for name in CRITERIA} for d in datasets}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "How often a criterion scores a model that is no flow above one that is, of all pairs of models trained with the same step, with 95 % intervals by bootstrap over 20 seeds. Dashed: chance. Paper scale unless stated. Records: `book/results/<data set>-euler/<profile>/`.", "name": "fig-criteria"}, "image": {"alt": "Rows of points with intervals: the accuracy lost and the classes changed under midpoint lie near 1, the order and h L on the landscape lie between one half and three quarters, h L on the spheres and the bound from spectral norms below."}}
fig, axes = plt.subplots(1, len(datasets), figsize=(8.6, 3.6), sharey=True, squeeze=False)
for ax, dataset in zip(axes[0], datasets, strict=True):
    plots.intervals(ax, areas[dataset])
    ax.axvline(0.5, color="0.5", linestyle="--", linewidth=1)
    ax.set(title=name_of(dataset), xlabel="share of pairs", xlim=(-0.02, 1.02))
plots.stamp_profile(fig, profile)

# %% tags=["remove-input"]
download_links(fig, "fig-criteria", pd.concat(tables, names=["dataset"]).reset_index(level=0))

# %% [markdown]
# ## How it was judged
#
# A model counts as a flow if its accuracy under the exact flow is within 5 points of its accuracy as
# trained, on the whole test set. Each criterion turns a model into one number that should be larger for
# models that are no flows. Models are compared only with others of the same step. Across steps, the step itself
# would separate flows from the rest, and so would any criterion that merely shrinks with the step. Where all models
# of a step are flows, or none is, there are no pairs.

# %% tags=["hide-input"]
pd.concat(
    {name_of(d): t.groupby("n_steps")["flow"].agg(["sum", "size"]) for d, t in tables.items()}
).rename(columns={"sum": "flows", "size": "models that trained"}).rename_axis(
    ["data set", "steps in training"]
)

# %% [markdown]
# ## What each criterion costs
#
# The table counts the evaluations of the vector field for one sample, in addition to the solve that training does
# anyway; $K$ is the number of steps of that solve. The columns of the data sets give the share of pairs that the
# criterion puts in the right order, with its interval.

# %% tags=["hide-input"]
rows = {
    name: {"labels": "needed" if labels else "none",
           "evaluations": "-" if cost is None else f"{cost} K",
           **{name_of(d): "{:.2f} ({:.2f} to {:.2f})".format(*areas[d][name]) for d in datasets}}
    for name, (labels, cost) in CRITERIA.items()
}  # fmt: skip
pd.DataFrame(rows).T.rename_axis("criterion")

# %% [markdown]
# ## What to make of it
#
# The order test ({cite:t}`krishnapriyan2023`) answers another question: whether the step is fine enough for the
# field. Its median falls with the step, as the accuracy gap does. So if pairs across steps are included, it puts a
# share of {glue:text}`order-across-least:.2f` to {glue:text}`order-across-most:.2f` of them in the right order (the
# accuracy lost under midpoint: {glue:text}`lost-across-least:.2f` or more). Among models of the same step, it cannot
# see where the classifier's boundary lies: an end state that moves a little may cross it, and one that moves far may
# not. A bound on $hL$ from the layers' norms even points the wrong way on the landscape. With labels, the accuracy
# lost under midpoint is the best criterion of all, but it measures the very quantity that decides here.
# {ref}`chapter-check-flow` decides by changed classes or lost accuracy, with the exact flow in the place of
# midpoint, and shows the order and $hL$ beside the verdict. {ref}`section-how-sure` shows how the critical step
# depends on the bound for the accuracy.

# %% tags=["remove-cell"]
words = {
    "flips": "classes changed under midpoint",
    "order": "observed order is not 1",
    "slope": "h L along trajectories",
}


def across_steps(table, name):
    """How often a model that is no flow has the higher score, of all pairs whatever their steps."""
    return rank_share([table[name]], [table["flow"]])[0]


shares = [across_steps(tables[d], words["order"]) for d in datasets]
glue("order-across-least", float(min(shares)), display=False)
glue("order-across-most", float(max(shares)), display=False)
lost = min(across_steps(tables[d], "accuracy lost under midpoint") for d in datasets)
glue("lost-across-least", float(lost), display=False)
for word, name in words.items():
    for dataset in datasets:
        glue(f"{word}-{dataset}", 100 * areas[dataset][name].value, display=False)
for dataset in datasets:  # a pair is of a flow and of a model that is none, at one step
    flows = tables[dataset].groupby("n_steps")["flow"].agg(["sum", "size"]).astype(float)
    rarer = pd.concat([flows["sum"], flows["size"] - flows["sum"]], axis=1).min(axis=1)
    glue(f"deciding-{dataset}", float(rarer.sum()), display=False)
