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
# (chapter-adaption)=
# # Step adaption during training
#
# **Question.** Can training find the critical step size by itself, without a grid of runs?
#
# **Claim.** {cite:t}`ott2020` let training check itself: every 50 iterations a better solver sees
# the same batch, and the step is halved where it disagrees, lengthened a little where it agrees.
# With Euler's method and the midpoint method as its better solver the result costs about as many
# evaluations as the critical step of the grid, and is about as accurate. The number of steps
# never settles; to calm it is left to future work.

# %% tags=["parameters"] example="profile laptop"
profile = "paper"  # size of every run: paper, laptop or smoke
device = "auto"  # where missing models are trained: cpu, cuda, or auto, cuda where there is one
datasets = ["spheres2", "landscape"]  # data sets, a row of panels each
controller = "algorithm1"  # the rule that adapts the step
seeds = [0, 1, 2, 3, 4]  # initialisations and batch orders; every model is trained with each
shown_seed = 0  # the seed whose failed check is looked at
window = 1000  # iterations to show around that check

# %%
from nodecore.parameters import check_parameters

check_parameters()

# %%
import math

import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown

from nodecore import plots, study
from nodecore.adapt import get_controller
from nodecore.explorers import AdaptionExplorer
from nodecore.paper import TABLE1, percent
from nodecore.solve import count_steps
from nodecore.summary import adaption_ends, grid_search

plots.use_style()
SHARED = {"sharex": "row", "squeeze": False}
name_of = plots.name_of

# %% [markdown]
# ## The algorithm
#
# ```text
# h = Hairer's first step size for the first batch, at most T
# in iteration i = 1, 2, ...:
#     a = accuracy of the batch under Euler's method, step h
#     if i is a multiple of 50:
#         b = accuracy of the batch under midpoint, step h
#         if |a - b| > 0.1:  h = 0.5 h
#         else:              h = 1.1 h, at most T
#     update the weights
# ```
#
# The first step size ({cite:t}`hairer1993`, p. 169) is taken with order 1 on Euclidean norms,
# averaged over the batch. Both accuracies belong to the same weights. If $h$ does not divide $T$,
# the last step is shortened, so the number of steps is $K = \lceil T / h \rceil$. Each seed has a
# step size of its own. The check itself costs $2K$ evaluations of the vector field; they count,
# as do the two of the first step size.
#
# The two factors alone force a rhythm: after each halving it takes several agreeing checks to get
# back to the step that failed.

# %%
rule = get_controller(controller)
checks = math.log(1 / rule.decrease) / math.log(rule.increase)
print(f"a halving is made up for after {checks:.1f} checks, {checks * rule.every:.0f} iterations")

# %%
runs = {d: study.Run(d, "euler", controller=controller, seeds=seeds, profile=profile)
        for d in datasets}  # fmt: skip
found = {d: study.obtain(run, device=device) for d, run in runs.items()}
histories = {}
for d, evidence in found.items():
    history = evidence.history.reindex(columns=["iteration", "seed", "step_size", "train_accuracy",
                                                "test_accuracy", "failed", "accuracy"])  # fmt: skip
    sizes = history["step_size"].dropna()
    n_steps = pd.Series(count_steps(torch.tensor(sizes.to_numpy()), 1.0), sizes.index)
    histories[d] = history.assign(n_steps=n_steps)

# %% [markdown]
# ## Accuracy and number of steps over the training

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Training with step adaption, every seed: accuracy on the test set under the training solver, every 500 iterations (left), and the number of steps $K$ that is in use (right). Cf. {cite:t}`ott2020`, Fig. 5, which shows other data sets. Paper scale and 5 seeds unless stated in the figure. Records: `book/results/<data set>-adaption/<profile>/`.", "name": "fig-adaption"}, "image": {"alt": "Accuracies that rise and level off, and numbers of steps that rise at first and then go up and down without settling."}}
size = (8, 2.8 * len(datasets) + 0.6)
fig, axes = plt.subplots(len(datasets), 2, figsize=size, **SHARED)
for (left, right), (dataset, history) in zip(axes, histories.items(), strict=True):
    plots.over_iterations(left, history, "accuracy", seeds)
    plots.over_iterations(right, history, "n_steps", seeds)
    left.set(ylabel=f"{name_of(dataset)}\ntest accuracy", ylim=(0, 1.05))
    right.set_ylabel("number of steps $K$")
handles, labels = axes[0, 1].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=len(seeds))
plots.stamp_profile(fig, profile)

# %% [markdown]
# Go through the training below. The constants of the rule can be changed, too. Up to the first
# check that decides otherwise, the training would have been the same; what it would have become
# after that, the record cannot tell.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The recorded training of one seed: number of steps $K$ in use (failed checks marked), and the accuracy of the batch at each check under the training and the test solver. Dashed: the rule with the constants that you choose, on the recorded accuracies, from where the training would have gone another way; it is no result. Paper scale and 5 seeds (as published). Records: `book/results/<data set>-adaption/<profile>/`.", "name": "fig-adaption-explorer"}}
AdaptionExplorer(list(found.values()))

# %% [markdown]
# ## One check that failed
#
# What happens around a check that fails? We take the one with the largest difference in the
# second half of the training of one seed.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Around the check of the largest disagreement in the second half of the training, one seed: accuracy on the batch of each check under Euler's method and under the midpoint method at the same step (top), and the number of steps (bottom). Vertical lines: failed checks. Cf. {cite:t}`ott2020`, Fig. 6, with the batches of the checks in place of the test set. Paper scale unless stated in the figure. Records: `book/results/<data set>-adaption/<profile>/`.", "name": "fig-failed-check"}, "image": {"alt": "Two accuracies that agree until a check at which the midpoint method's falls far below Euler's; the number of steps doubles there and the two agree again."}}
fig, axes = plt.subplots(2, len(datasets), figsize=(8, 4.6), sharex="col", squeeze=False)
for (top, bottom), (dataset, history) in zip(axes.T, histories.items(), strict=True):
    checked = history[history["step_size"].notna() & (history["seed"] == shown_seed)]
    late = checked[len(checked) // 2 :]
    worst = (late["train_accuracy"] - late["test_accuracy"]).abs().idxmax()
    centre = history["iteration"][worst]
    near = checked[(checked["iteration"] - centre).abs() <= window / 2]
    plots.checks(top, near)
    plots.steps_at_checks(bottom, near)
    top.set_title(f"{name_of(dataset)}, seed {shown_seed}")
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=3)
plots.stamp_profile(fig, profile)

# %% [markdown]
# ## Does it end as an ODE?
#
# After the last iteration the model is tested at the step size it ended with, under Euler's
# method, under the midpoint method, and under the exact flow (Dopri 5(4) at $10^{-6}$). The last
# columns say how restless the training was: turns of the step size from longer to shorter or
# back, checks that failed, and the standard deviation of $\log_2 h$ over the checks of the second
# half.

# %% tags=["hide-input"]
final = {d: adaption_ends(evidence.records) for d, evidence in found.items()}
names = {"final_n_steps": "final K", "nfe_per_iteration": "NFE per iteration",
         "reversals": "turns", "failed_checks": "failed checks"}  # fmt: skip
together = pd.concat({name_of(d): table for d, table in final.items()}, names=["data set"])
together.rename(columns=names).round(3)

# %% [markdown]
# ## Table 1
#
# NFE per iteration and final test accuracy, mean and standard deviation over the seeds that
# trained, beside the paper's and beside our grid ({ref}`chapter-grids`): the $K$ around its
# critical step and the best accuracy among its ODE-like runs. The grid is read from the records;
# a dash stands where its runs are not there.


# %%
def search_grid(dataset):
    grid = study.GRIDS[f"{dataset}-euler"]
    runs = [study.Run(dataset, "euler", n_steps=k, seeds=seeds, profile=profile) for k in grid]
    stored = [study.find(run) for run in runs]
    if None in stored:
        return None
    return grid_search(pd.concat([evidence.records for evidence in stored], ignore_index=True))


# %% tags=["hide-input"]
rows = []
for d, table in final.items():
    paper, search, trained = TABLE1[d], search_grid(d), table[table["trained"].astype(bool)]
    rows.append([name_of(d), "paper", "-".join(map(str, paper["grid NFE"])),
                 percent(*paper["grid accuracy"]), f"{paper['adaption NFE']:.1f}",
                 percent(*paper["adaption accuracy"])])  # fmt: skip
    nfe, accuracy = trained["nfe_per_iteration"].mean(), trained["as trained"]
    rows.append(["", "here", search.nfe if search else "-",
                 percent(search.mean, search.std) if search else "-",
                 f"{nfe:.1f}" if len(trained) else "-",
                 percent(accuracy.mean(), accuracy.std())])  # fmt: skip
columns = ["data set", "", "NFE, grid", "accuracy, grid", "NFE, adaption", "accuracy, adaption"]
pd.DataFrame(rows, columns=columns).set_index("data set")

# %% [markdown]
# ## What we saw
#
# Numbers in these lines are computed from the records above.

# %% tags=["hide-input"]
lines = []
for d, table in final.items():
    gap = (table["as trained"] - table["exact flow"]).abs()
    least, most = table.min(), table.max()
    lines.append(
        f"- **{name_of(d)}.** {table['trained'].sum()} of {len(table)} seeds trained. They took "
        f"{least['nfe_per_iteration']:.1f} to {most['nfe_per_iteration']:.1f} evaluations per "
        f"iteration and ended with {least['final_n_steps']:.0f} to {most['final_n_steps']:.0f} "
        f"steps. The exact flow then differs from the training solver by {100 * gap.min():.1f} to "
        f"{100 * gap.max():.1f} points of accuracy. {least['failed_checks']:.0f} to "
        f"{most['failed_checks']:.0f} checks failed, and the step size turned "
        f"{least['reversals']:.0f} to {most['reversals']:.0f} times."
    )
Markdown("\n".join(lines))

# %% [markdown]
# - The rule cannot settle: it lengthens the step as long as nothing is wrong, so it keeps asking
#   for a failure, and each failure costs a halving. Whether the last iteration ends right before
#   a failure or right after one is chance.
