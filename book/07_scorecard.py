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
# (chapter-scorecard)=
# # Scorecard
#
# **Question.** Which claims and numbers of {cite:t}`ott2020` hold here, which do not, and which
# were not tested?
#
# **Answer.** Of {glue:text}`findings:.0f` claims and numbers, {glue:text}`holds:.0f` hold and
# {glue:text}`partly:.0f` hold in part. Of the latter, {glue:text}`broken:.0f` have a part that does not hold; for
# {glue:text}`whole:.0f`, all parts that could be decided hold, and the others lack evidence. The other verdicts are
# *does not hold here* ({glue:text}`fails:.0f`), *cannot tell* with these seeds ({glue:text}`unsure:.0f`), *not
# comparable* ({glue:text}`other:.0f`) and *not tested here* ({glue:text}`untested:.0f`).
# {ref}`What does not hold <does-not-hold>` is listed below.

# %% tags=["parameters", "hide-input"] example="root _build/results"
root = ""  # folder of the results to judge; empty: the committed ones

# %% tags=["hide-input"]
from nodecore.pages.parameters import check_parameters

check_parameters()

from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import HTML
from myst_nb import glue

from nodecore.analysis.evaluate import AGREEMENT
from nodecore.claims.register import judge_all
from nodecore.claims.rules import DECIDED, FAILS, HOLDS, OTHER_SCALE, PARTLY, UNSURE, UNTESTED
from nodecore.claims.scorecard import SETTINGS, count_verdicts, table1
from nodecore.evidence import store
from nodecore.evidence.runs import SEEDS
from nodecore.evidence.tables import AGREES_AT_END
from nodecore.pages import plots
from nodecore.pages.claim_cards import cards, failing_list, records_list
from nodecore.pages.downloads import download_links

plots.use_style()
folder = Path(root) if root else store.COMMITTED
judgements = judge_all(root=folder)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "The numbers of the paper's Table 1 (open diamonds) and ours (filled circles): NFE (for the grid its pair, for the adaption the mean and range of the seeds) and test accuracy with its standard deviation. No circle: no records yet. Paper scale and 5 seeds unless stated at the left.", "name": "fig-numbers"}, "image": {"alt": "Two panels with a row for each data set and training, NFE on the left and accuracy on the right, each with the paper's number above and ours below it."}}
numbers = table1(folder)
n_rows = numbers.groupby(["dataset", "training"]).ngroups
fig, (left, right) = plt.subplots(1, 2, figsize=(8, 0.42 * n_rows + 1.2), sharey=True)
plots.numbers_beside(left, right, numbers)
fig.legend(handles=plots.numbers_beside_handles(), loc="outside lower center", ncols=2)
plt.show()

# %% tags=["remove-input"]
download_links(fig, "fig-numbers", numbers)


# %% tags=["remove-cell"]
findings = [j for j in judgements if j.claim.group != SETTINGS]
verdicts = [j.verdict for j in findings]
words = {"holds": HOLDS, "partly": PARTLY, "fails": FAILS, "unsure": UNSURE}
words |= {"other": OTHER_SCALE, "untested": UNTESTED}
for word, verdict in words.items():
    glue(word, float(verdicts.count(verdict)), display=False)
partly = [j for j in findings if j.verdict == PARTLY]
whole = [j for j in partly if {part.verdict for part in j.parts} & DECIDED == {HOLDS}]
glue("whole", float(len(whole)), display=False)
broken = [j for j in partly if FAILS in {part.verdict for part in j.parts}]
glue("broken", float(len(broken)), display=False)
glue("findings", float(len(findings)), display=False)
glue("counts", count_verdicts(judgements), display=False)
glue("loss", float(AGREEMENT), display=False)
glue("same", float(AGREES_AT_END), display=False)
glue("first-seed", float(SEEDS[0]), display=False)
glue("last-seed", float(SEEDS[-1]), display=False)

# %% [markdown]
# `book/claims.yml` lists, in our words, the claims that we found in the paper's abstract, sections 3 to 6, captions,
# Table 1 and appendix. They are judged from the committed evidence while this page is built; nothing is trained
# here. {glue:text}`counts` Unfold a line to see where the paper makes the claim, the numbers, the models and records
# behind the verdict, and the rule.
#
# ````{admonition} How a verdict is made
# :class: dropdown
# A claim names the studies that it reads and the function that decides it. The function looks at each data set,
# solver or number by itself and gives it a verdict by a rule with fixed limits, which every claim states under
# *rule*. The limits 0.1 and 0.05 are those of the chapters, set before their results were known; the others, such
# as a factor of two, were set with this page, and some have been made stricter since, with the results in sight.
#
# - ✓ **holds**: for everything that the claim covers.
# - ◐ **holds in part**: for some of it, or for everything that could be decided while some could not.
# - ✗ **does not hold here**: for nothing that could be decided. *Here* means with these runs, seeds and limits.
# - ? **cannot tell**: the seeds spread too widely, or are too few.
# - ≠ **not comparable**: what a claim says of the paper's models was tested only on models of a reduced scale.
# - ○ **not tested here**: there are no records for it, or no test; the claim says which.
#
# A change of accuracy counts as a loss if it exceeds {glue:text}`loss:g`, the threshold of the paper's
# Algorithm 1. Two accuracies count as the same if the 95 % confidence interval of their difference lies
# within {glue:text}`same:g` and has zero in it; where it reaches beyond, the seeds cannot tell. Ours are means
# and standard deviations over the seeds that trained: the paper's five, {glue:text}`first-seed:.0f` to
# {glue:text}`last-seed:.0f`, or as many as a claim says. Where more seeds were trained at some of the step sizes,
# all of them count. A study, which is a data set with a training solver or the step adaption, is judged at the
# paper's scale where it is complete at that scale, on images with one seed or more. Where a claim compares studies
# of a data set, all of them have to be complete. A claim says what is missing. *Redrawn seeds* are bootstrap samples
# ({ref}`section-how-sure`): they show how often the same critical $K$ would result if other seeds had been drawn;
# this is not asked of fewer than five seeds. Each claim states the scale of its models. Accuracies on images are
# those on the test images that every solver was tested on: all of MNIST's at the paper's scale, otherwise the first
# 1,000.
#
# NFE is the number of evaluations of the vector field in one training iteration; for the grid it
# is the pair $K + 1$ around the critical step. Training settings and definitions are not findings; they are counted
# separately. {ref}`chapter-limitations` lists what this reproduction cannot say at all.
# ````


# %% tags=["remove-cell"]
def show(group):
    """The claims of one group."""
    return HTML(cards(j for j in judgements if j.claim.group == group))


# %% [markdown]
# (does-not-hold)=
# ## What does not hold
#
# This section lists each claim with a part that does not hold here, with those parts. The link leads to its card,
# which has the others.

# %% tags=["remove-input"]
HTML(failing_list(findings))

# %% [markdown]
# ## Table 1, number by number

# %% tags=["remove-input"]
show("table1")

# %% [markdown]
# ## The data and what is learned from it

# %% tags=["remove-input"]
show("data")

# %% [markdown]
# ## Small steps, large steps

# %% tags=["remove-input"]
show("flows")

# %% [markdown]
# ## The critical step size

# %% tags=["remove-input"]
show("grids")

# %% [markdown]
# ## The step adaption

# %% tags=["remove-input"]
show("algorithm")

# %% [markdown]
# ## Adaptive solvers

# %% tags=["remove-input"]
show("tolerances")

# %% [markdown]
# ## Settings and definitions
#
# This section has the numbers that the paper gives for its own set-up, compared with ours, and what follows from a
# definition.

# %% tags=["remove-input"]
show("settings")

# %% [markdown]
# ## The records
#
# The studies that the verdicts rest on: the folder of each in the project, and all its records as
# one table, a row for each seed and test setting.

# %% tags=["remove-input"]
HTML(records_list(judgements))

# %% [markdown]
# ## What to take away
#
# {glue:text}`partly:.0f` of {glue:text}`findings:.0f` claims hold only in part. So unfold a line before you quote
# it: it says which part holds, for which models, and by which rule. {ref}`What does not hold <does-not-hold>` says
# by how much.
