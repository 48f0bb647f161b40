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
# (chapter-check-flow)=
# # Is your neural ODE an ODE?
#
# **Question.** You have trained a model of your own. Does its vector field describe it, or does
# it need the solver that it was trained with?
#
# **Answer.** Hand it to `nodecore.check_flow`. On three models trained on this page, it gives these verdicts.
# Trained with {glue:text}`n-steps:.0f` steps of Euler's method: "{glue:text}`Euler-verdict`",
# {glue:text}`Euler-own:.0f` % accurate as trained and {glue:text}`Euler-exact:.0f` % under its exact flow. Trained
# with Dopri 5(4) (`dopri5` in code): "{glue:text}`dopri5-verdict`" ({glue:text}`dopri5-own:.0f` and
# {glue:text}`dopri5-exact:.0f` %). A residual net: "{glue:text}`residual-verdict`" ({glue:text}`residual-own:.0f`
# and {glue:text}`residual-exact:.0f` %).

# %% tags=["parameters", "hide-input"] example="euler_steps 64"
profile = "laptop"  # length of the trainings: paper, laptop or smoke
device = "auto"  # where the models are trained: cpu, cuda, or auto, cuda where there is one
euler_steps = 4  # steps of the model that is trained with Euler's method
blocks = 6  # number of blocks of the residual net
controller = "settling-discord"  # rule of the cure: one of CONTROLLERS except "confirmed-increase"
seed = 1  # seed of the initial weights and of the batches

# %% tags=["hide-input"]
from nodecore.pages.parameters import check_parameters

check_parameters()

import copy
from functools import reduce

import matplotlib.pyplot as plt
import pandas as pd
import torch
from myst_nb import glue
from torch import nn
from torch.nn import functional as F
from torchdiffeq import odeint

from nodecore import check_flow, monitor, suggest_steps
from nodecore.pages import plots
from nodecore.pages.downloads import download_links
from nodecore.training.devices import get_device
from nodecore.training.protocols import get_protocol

plots.use_style()
torch.set_num_threads(1)  # small models gain nothing from more, and lose on a busy machine

# %% tags=["hide-input"]
iterations = {"paper": 6000, "laptop": 1500, "smoke": 40}[profile]
training, test = (
    split.to(get_device(device)) for split in get_protocol("landscape", profile).load()
)
x, y = test.x, test.y
ends = torch.tensor([0.0, 1.0], device=x.device)


class Slope(nn.Sequential):
    """The right-hand side as torchdiffeq calls it."""

    def forward(self, t, z):
        return super().forward(z)


def train(classify, *modules):
    """Train with Adam on batches of 128; classify(x, y) gives the logits."""
    draw = torch.Generator().manual_seed(seed)
    weights = [w for module in modules for w in module.parameters()]
    optimiser = torch.optim.Adam(weights, lr=2e-3)
    for _ in range(iterations):
        batch = torch.randint(len(training), (128,), generator=draw).to(x.device)
        loss = F.cross_entropy(classify(training.x[batch], training.y[batch]), training.y[batch])
        optimiser.zero_grad(), loss.backward(), optimiser.step()


# %% tags=["hide-input"]
torch.manual_seed(seed)
hidden = [nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU()]
start = nn.ModuleList([Slope(*hidden, nn.Linear(48, 2)), nn.Linear(2, 3)]).to(x.device)

coarse, coarse_head = copy.deepcopy(start)
how = {"method": "euler", "options": {"step_size": 1 / euler_steps}}
train(lambda x, y: coarse_head(odeint(coarse, x, ends, **how)[-1]), coarse, coarse_head)
euler = {"solver": "euler", "n_steps": euler_steps}
reports = {"Euler": check_flow(coarse, coarse_head, x, y, **euler, verbose=False)}

# %% tags=["hide-input"] mystnb={"figure": {"caption": "What `report.plot()` draws of that model. Left: test accuracy with its 95 % interval, from the training solver (top) to the exact flow; dashed: the 0.1 by which it may change. Middle: how far end states move between the two, and the margin. Right: wrong answers by step size. One seed; no records.", "name": "fig-verdict"}, "image": {"alt": "The model trained with few Euler steps: its accuracy falls under every better solver, most end states move farther than the margin, and the fewest answers are wrong at the training's own step."}}
fig, axes = plt.subplots(1, 3, figsize=(9, 3))
reports["Euler"].plot(axes)
plots.stamp_profile(fig, profile)

# %% tags=["remove-input"]
shown = [
    {"setting": str(row.setting), "accuracy": row.accuracy.value, "low": row.accuracy.low,
     "high": row.accuracy.high, "changed": row.changed.value} for row in reports["Euler"].tested
]  # fmt: skip
download_links(fig, "fig-verdict", pd.DataFrame(shown))

# %% [markdown]
# {cite:t}`ott2020` call a model an ODE if a solver of smaller error gives the same answers.
# `check_flow` makes that a test for any model, with a verdict only where the numbers allow one.
# The task here is the energy landscape of {ref}`chapter-datasets`; all models have a linear classifier
# behind them and are trained on this page, with Adam.
#
# ## A model of your own, in ten lines
#
# This is a neural ODE in the usual style of torchdiffeq {cite:p}`torchdiffeq`, with its adaptive solver. The check
# gets the vector field, the layers behind it, a test set, and the training solver. It states its cost before it
# begins; `nodecore.flow_cost` returns the cost without running the check.

# %%
field, head = copy.deepcopy(start)  # yours: field(t, z), and the layers behind it
train(lambda x, y: head(odeint(field, x, ends, rtol=1e-3, atol=1e-3)[-1]), field, head)

report = check_flow(field, head, x, y, solver="dopri5", rtol=1e-3)
report

# %% [markdown]
# The verdict rests on the exact flow, here Dopri 5(4) at a far finer tolerance, and on all test points. The exact
# flow is tested first: its steps are never longer than the training's, and both a tenth of its tolerance and
# another method must give the same answer. A test point on which they differ is left undecided, and the verdict
# must hold whichever way it is counted. *Drop* is the accuracy that is lost under the exact flow; the rest is
# additional evidence. Reports on fixed steps also give the *order*, which needs no labels: the share of test points
# whose error shrinks with the step size at the training solver's rate on a smooth field
# {cite:p}`krishnapriyan2023`. *Cannot tell* is an answer, too, and the report gives the reason. Most often
# the interval is too wide, and more test samples shorten it, or the model has not learned its task, so it has no
# accuracy to lose.
#
# `pip install .` in the project's folder installs `nodecore` for another project; it needs only torch and numpy.
#
# - `field(t, z)` may be any callable on a batch of states, images too; `stem` holds the layers
#   before it. Call `.eval()` on modules with dropout or batch norm.
# - Give the training solver with `n_steps`, with `step_size`, with the times of its steps as `grid`, or with `rtol`
#   and `atol`. With a tolerance, the check solves as torchdiffeq does: the last step goes past the end, and the end
#   state is interpolated. Give `atol` as well: its default is `rtol` here, but 1e-9 in torchdiffeq. The method that
#   torchdiffeq calls `rk4` is the 3/8 rule, `solver="rk4_38"` here. If your solver is not in `nodecore.ode.tableaus`,
#   or is an adaptive one whose last step lands on the end, pass your own solve:
#   `solve=lambda f, z0, t: odeint(f, z0, t, method="dopri8")[-1]`.
# - Pass data of each sample that the field needs as `args`; the field is then called as `field(t, z, args)`. A
#   state may be a tuple of tensors, and time may run backwards.
# - Without labels, the check compares outputs or end states, for instance with `tolerance=0.05`. A `loss` of your
#   own may take their place, and `output_times` extends the check to the whole trajectory.
#
# ## While you train
#
# `nodecore.monitor` watches an existing training loop. Every 50 iterations, it solves one batch under the training
# solver and by the exact flow, and notes how many classes differ. With a controller, it also gives the next step,
# which is the cure of {ref}`chapter-adaption`. By default it takes at most 5 % of the time (`share`); here we want
# every check, so that the page is the same on any machine. Such a short training has few checks, so we use a
# controller that may change the step at each of them.

# %%
cured, cured_head = copy.deepcopy(start)
how = {"solver": "euler", "step_size": 1 / euler_steps, "controller": controller}
watch = monitor(cured, cured_head, **how, share=None, verbose=False)


def classify(x, y):
    watch(x, y)  # at any place in the loop
    options = {"step_size": watch.step_size}
    return cured_head(odeint(cured, x, ends, method="euler", options=options)[-1])


train(classify, cured, cured_head)
columns = ["iteration", "setting", "accuracy", "flips", "nfe"]
pd.DataFrame(watch.rows, columns=columns).iloc[:: max(1, len(watch.rows) // 5)].round(2)

# %% [markdown]
# Does the trained field need so many steps? `suggest_steps` finds the smallest number with which its accuracy
# differs from its exact flow's by less than the bound of 10 points, over the whole 95 % interval of the difference.

# %%
reports["Euler, adapted"] = check_flow(
    cured, cured_head, x, y, solver="euler", n_steps=watch.n_steps, verbose=False
)
suggest_steps(cured, cured_head, x, y, solver="euler", verbose=False)

# %% [markdown]
# Most questions begin with a symptom, such as a loss that spikes or a number of evaluations that grows:
# {ref}`symptoms` has the code for each.
#
# ## A residual net
#
# Block $k$ adds $f_k(z)$ to the state. That is a step of Euler's method with $h = 1$ for a field that
# changes from block to block, $f(t, z) = f_k(z)$ for $k \le t < k + 1$, so the same check applies, over the time
# from 0 to the number of blocks. Of course, a residual net need not be an ODE. The check tells whether its depth
# may be read as time.

# %%
torch.manual_seed(seed)
net = nn.ModuleList(
    nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 2)) for _ in range(blocks)
).to(x.device)
net_head = nn.Linear(2, 3).to(x.device)
train(lambda x, y: net_head(reduce(lambda z, block: z + block(z), net, x)), net, net_head)

reports["residual net"] = check_flow(
    lambda t, z: net[min(int(t), blocks - 1)](z), net_head, x, y,
    solver="euler", n_steps=blocks, t=(0, blocks), verbose=False,
)  # fmt: skip
print(reports["residual net"].reason)

# %% [markdown]
# ## The four models
#
# Accuracies and shares are in per cent; *changed* is the share of test points with another class under
# the exact flow.

# %% tags=["hide-input"]
reports["dopri5"] = report
rows = [
    [name, str(r.training.setting), r.verdict,
     f"{100 * r.training.accuracy.value:.1f} / {100 * r.exact.accuracy.value:.1f}",
     f"{100 * r.exact.changed.value:.1f}"]
    for name, r in reports.items()
]  # fmt: skip
columns = ["model", "trained with", "verdict", "as trained / exact flow", "changed"]
pd.DataFrame(rows, columns=columns).set_index("model")

# %% tags=["remove-cell"]
for name, r in reports.items():
    word = {"residual net": "residual", "Euler, adapted": "adapted"}.get(name, name)
    glue(f"{word}-own", 100 * r.training.accuracy.value, display=False)
    glue(f"{word}-exact", 100 * r.exact.accuracy.value, display=False)
    glue(f"{word}-verdict", r.verdict, display=False)
glue("n-steps", float(euler_steps), display=False)
glue("adapted-steps", float(watch.n_steps), display=False)

# %% [markdown]
# ## What to take away
#
# A verdict needs one number with its uncertainty, and a model that is accurate enough for a loss to show. The cure
# costs steps: the controller took their number from {glue:text}`n-steps:.0f` to {glue:text}`adapted-steps:.0f`
# by itself. The verdict on the cured model is *{glue:text}`adapted-verdict`*; it is {glue:text}`adapted-exact:.0f`
# % accurate under its exact flow. A flow need not be a good classifier: how far such a short training gets depends
# on the initial weights.
