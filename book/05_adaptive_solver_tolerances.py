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
# (chapter-tolerances)=
# # Tolerances of adaptive solvers
#
# **Question.** An adaptive solver chooses its steps itself. Does that protect a Neural ODE from
# becoming a discrete map?
#
# **Claim.** No, say {cite:t}`ott2020` (Fig. 20 and 21): with an adaptive solver the tolerance
# takes the part of the step size. Trained at a large tolerance, the model needs the very solver
# settings of its training. Trained at a small one, any tolerance at least as small gives the same
# accuracy.

# %% tags=["parameters"] example="dataset landscape"
profile = "laptop"  # size of every run: paper, laptop or smoke
device = "auto"  # where missing models are trained: cpu, cuda, or auto, cuda where there is one
dataset = "spheres2"  # data set of all runs
solvers = ["fehlberg21", "dopri5"]  # embedded methods to train with, a panel each
rtols = [1e-1, 1e-4]  # tolerances of the training, relative and absolute alike, coarse to fine
seeds = [0, 1, 2, 3, 4]  # initialisations and batch orders; every model is trained with each

# %%
from nodecore.parameters import check_parameters

check_parameters()

# %%
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown

from nodecore import plots, study
from nodecore.evaluate import AGREEMENT, EXACT, TestSetting, solve_setting
from nodecore.explorers import ToleranceExplorer
from nodecore.paper import percent
from nodecore.summary import tolerances
from nodecore.tableaus import get_tableau

plots.use_style()
name_of = plots.name_of

# %% [markdown]
# ## Two embedded methods
#
# An embedded method computes two solutions of different order from the same stages. Their
# difference estimates the error of a step, $e$. A step is accepted if
#
# $$
# \lVert e \rVert = \sqrt{\frac{1}{n} \sum_{i=1}^{n} \left(
# \frac{e_i}{\mathrm{atol} + \mathrm{rtol}\,\max(|z_i|, |z_i^{\mathrm{new}}|)} \right)^2} \le 1 ,
# $$ (eq-error-norm)
#
# and the next step is $0.9\, \lVert e \rVert^{-1/(q+1)}$ times as long, within limits, where $q$
# is the lower of the two orders ({cite:t}`hairer1993`, p. 168). Here $\mathrm{rtol} =
# \mathrm{atol}$, the sum runs over all components of the whole batch, and each seed takes steps
# of its own. So the batch has a part in the steps: the same tolerance on other samples need not
# give the same steps.
#
# We use the methods of {cite:t}`fehlberg1969` and of {cite:t}`dormand1980`.

# %%
methods = {name_of(s): get_tableau(s) for s in solvers}
pd.DataFrame(
    {
        name: {"order": t.order, "embedded order": t.embedded_order, "stages": len(t.b)}
        for name, t in methods.items()
    }
).T

# %%
runs = {(s, r): study.Run(dataset, s, rtol=r, seeds=seeds, profile=profile)
        for s in solvers for r in rtols}  # fmt: skip
found = {key: study.obtain(run, device=device) for key, run in runs.items()}
frames = {s: pd.concat([found[s, r].records for r in rtols], ignore_index=True) for s in solvers}

# %% [markdown]
# Move the tolerance of the test and see the steps. Each trajectory takes steps of its own here; the
# accuracy belongs to the whole test set with one step for all samples, as in the records.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Trajectories of one seed under an embedded method at the tolerance that you choose: a dot where a step was accepted, a cross where one that was rejected would have ended. Below the slider: recorded accuracies of this seed against the tolerance of the test, ringed at the tolerance of the training. Computed in the page from the weights behind the records; scale: the profile among the parameters (as published: laptop). Records: `book/results/<data set>-<solver>/<profile>/`.", "name": "fig-tolerance-explorer"}}
stored = [
    study.find(study.Run(dataset, solver, rtol=rtol, seeds=seeds, profile=profile))
    for solver in solvers
    for rtol in rtols
]
ToleranceExplorer([*filter(None, stored)])

# %% [markdown]
# ## Accuracy under other tolerances
#
# Finer tests are to the right, as in {ref}`chapter-grids`. A model that is an ODE stays level to
# the right of its ring. The dashed line tests the same models with the other method.

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Test accuracy against the tolerance of the test, mean over the seeds that trained (thin: every seed; grey: seeds that did not train); colours: tolerance of the training; rings: the training solver at its own tolerance; dashed: the other method. Cf. {cite:t}`ott2020`, Fig. 20 and 21. Paper scale and 5 seeds unless stated in the figure. Records: `book/results/<data set>-<solver>/<profile>/`.", "name": "fig-tolerances"}, "image": {"alt": "Two panels, one for each embedded method: accuracy of coarsely and finely trained models against the tolerance of the test."}}
colours = plots.step_colours([*rtols, None])
fig, axes = plt.subplots(1, len(solvers), figsize=(8, 3.9), sharey=True, squeeze=False)
for ax, (solver, frame) in zip(axes.flat, frames.items(), strict=True):
    for rtol in rtols:
        plots.accuracy_by_tolerance(ax, frame[frame["rtol"] == rtol], colours[rtol])
    ax.set_title(f"{name_of(dataset)}, trained with {name_of(solver)}")
    ax.label_outer()
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=len(rtols))
plots.stamp_profile(fig, profile)

# %% tags=["hide-input"]
tables = {name_of(s): tolerances(frame).rename(index="{:g}".format) for s, frame in frames.items()}
together = pd.concat(tables, names=["method", "trained at"])
shown = pd.DataFrame(
    {
        "seeds that trained": [f"{t:g} of {n}" for t, n in together[["trained", "seeds"]].values],
        "NFE per iteration": together["nfe_per_iteration"].round(1),
        "accuracy as trained": [percent(*row) for row in together[["mean", "std"]].values],
        f"at {EXACT.rtol:g}": [percent(*r) for r in together[["mean exact", "std exact"]].values],
        "gap": together["gap"].round(3),
    },
    index=together.index,
)
shown["ODE-like"] = ["-" if pd.isna(g) else "yes" if g <= AGREEMENT else "no" for g in shown["gap"]]
shown.fillna("-")

# %% [markdown]
# The last column applies the rule of {eq}`eq-critical` with a tolerance of $10^{-6}$ as the
# better solver.
#
# ## What a tolerance costs
#
# The number of evaluations says how much of its freedom a solver uses. We carry one batch of the
# test set through each trained field, at every tolerance.

# %%
batch = found[solvers[0], rtols[0]].run.protocol.load()[1].x[:128]
nfe = {}
for (solver, rtol), evidence in found.items():
    x = batch.expand(len(seeds), *batch.shape)
    for test_rtol in study.TOLERANCES:
        solution = solve_setting(evidence.field, x, TestSetting(solver, rtol=test_rtol))
        nfe[solver, rtol, test_rtol] = solution.nfe.double().mean().item()
nfe = pd.Series(nfe).rename_axis(["solver", "rtol", "test_rtol"])

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Evaluations of the vector field that the training's method needs for a batch of 128 test samples against the tolerance, mean over the seeds; colours: tolerance of the training; rings: as trained. Paper scale and 5 seeds unless stated in the figure. Weights: `book/results/<data set>-<solver>/<profile>/`.", "name": "fig-nfe"}, "image": {"alt": "Evaluations against tolerance for each method on logarithmic axes: flat at coarse tolerances, rising steeply at fine ones, more steeply for the method of lower order."}}
fig, axes = plt.subplots(1, len(solvers), figsize=(8, 3.6), sharey=True, squeeze=False)
for ax, solver in zip(axes.flat, solvers, strict=True):
    for rtol in rtols:
        plots.nfe_by_tolerance(ax, nfe[solver, rtol], rtol, colours[rtol])
    ax.set_title(name_of(solver))
    ax.label_outer()
handles, labels = axes[0, 0].get_legend_handles_labels()
fig.legend(handles, labels, loc="outside lower center", ncols=len(rtols))
plots.stamp_profile(fig, profile)

# %% [markdown]
# Where a curve is flat, the error estimate does not bind: the solver takes the fewest steps it
# can, and the method is in effect one of fixed steps. A model trained there can adapt to its
# solver as it does with fixed steps. Where a curve rises, the steps follow the field.

# %% [markdown]
# ## What we saw
#
# Numbers in these lines are computed from the records above.

# %% tags=["hide-input"]
lines = []
for (method, rtol), row in shown.iterrows():
    lines.append(
        f"- {method}, trained at {rtol}: accuracy {row['accuracy as trained']} as trained, "
        f"{row[f'at {EXACT.rtol:g}']} at {EXACT.rtol:g}; {row['NFE per iteration']:.1f} evaluations "
        f"per iteration; ODE-like by our rule: {row['ODE-like']}."
    )
Markdown("\n".join(lines))

# %% [markdown]
# Where a model is not ODE-like, the steps of its solver are part of what it learned, even though
# the solver chose them by itself: an error estimate bounds the error of a step along the field
# that there is, but nothing in the training asks for a field on which large steps are accurate.
