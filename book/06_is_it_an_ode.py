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
# # Is your Neural ODE an ODE?
#
# **Question.** You have trained a model of your own. Does its vector field describe it, or does
# it need the solver that it was trained with?
#
# **Claim.** {cite:t}`ott2020` call a model an ODE if a solver of smaller error gives the same
# answers. `nodecore.check_flow` makes that a test for any model, with a verdict only where the
# numbers allow one. Here it meets three models of the kinds that people train, and then a fourth,
# which was trained with the step adaption of {ref}`chapter-adaption`, in the same loop and two lines.
#
# Nothing is read from records in this chapter: its models are trained on the page.

# %% tags=["parameters"] example="euler_steps 64"
profile = "laptop"  # length of the trainings: paper, laptop or smoke
device = "auto"  # where the models are trained: cpu, cuda, or auto, cuda where there is one
euler_steps = 4  # steps of the model that is trained with Euler's method
blocks = 6  # of the residual net
controller = "settling-discord"  # of the cure, one of CONTROLLERS that reads accuracies or flips
seed = 1  # of initialisation and batches

# %%
from nodecore.pages.parameters import check_parameters

check_parameters()

# %%
import matplotlib.pyplot as plt
import pandas as pd
import torch
from IPython.display import Markdown
from torch import nn
from torch.nn import functional as F
from torchdiffeq import odeint

from nodecore import check_flow, flow_cost, monitor, suggest_steps
from nodecore.pages import plots
from nodecore.pages.downloads import download_links
from nodecore.training.devices import get_device
from nodecore.training.protocols import get_protocol

plots.use_style()
torch.set_num_threads(1)  # small models gain nothing from more, and lose on a busy machine
iterations = {"paper": 6000, "laptop": 1500, "smoke": 40}[profile]
training, test = (
    split.to(get_device(device)) for split in get_protocol("landscape", profile).load()
)
x, y = test.x, test.y

# %% [markdown]
# ## Three models
#
# The task is the energy landscape of {ref}`chapter-datasets`: where in the plane a particle
# starts decides in which of three valleys it ends. Each model has a linear classifier behind it
# and is trained with Adam on batches of 128. First two neural ODEs in the usual way of
# torchdiffeq {cite:p}`torchdiffeq`: one with its adaptive solver at a tolerance of $10^{-3}$, one
# with Euler's method in few steps, which trains faster.


# %%
class Slope(nn.Module):
    """The right-hand side as torchdiffeq calls it."""

    def __init__(self, width=48):
        super().__init__()
        hidden = [nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, 2))

    def forward(self, t, z):
        return self.layers(z)


def new_model():
    torch.manual_seed(seed)
    return Slope().to(x.device), nn.Linear(2, 3).to(x.device)


def train(logits, *modules):
    weights = [w for module in modules for w in module.parameters()]
    optimiser = torch.optim.Adam(weights, lr=2e-3)
    for iteration in range(1, iterations + 1):
        batch = torch.randint(len(training), (128,)).to(x.device)
        out = logits(training.x[batch], training.y[batch], iteration)
        optimiser.zero_grad(), F.cross_entropy(out, training.y[batch]).backward(), optimiser.step()


# %%
adaptive, adaptive_head = new_model()
ends = torch.tensor([0.0, 1.0], device=x.device)


def adaptive_logits(x, y, iteration):
    return adaptive_head(odeint(adaptive, x, ends, method="dopri5", rtol=1e-3, atol=1e-3)[-1])


train(adaptive_logits, adaptive, adaptive_head)

# %%
coarse, coarse_head = new_model()


def euler_logits(x, y, iteration):
    options = {"step_size": 1 / euler_steps}
    return coarse_head(odeint(coarse, x, ends, method="euler", options=options)[-1])


train(euler_logits, coarse, coarse_head)

# %% [markdown]
# Then a plain residual net. Block $k$ adds $f_k(z)$ to the state. That is a step of Euler's
# method with $h = 1$ for a field that changes from block to block, $f(t, z) = f_k(z)$ for
# $k \le t < k + 1$, so the same check applies, on the time from 0 to the number of blocks.

# %%
torch.manual_seed(seed)
net = nn.ModuleList(
    nn.Sequential(nn.Linear(2, 48), nn.ReLU(), nn.Linear(48, 2)) for _ in range(blocks)
).to(x.device)
net_head = nn.Linear(2, 3).to(x.device)


def residual_logits(z, y, iteration):
    for block in net:
        z = z + block(z)
    return net_head(z)


def residual_field(t, z):
    return net[min(int(t), blocks - 1)](z)


train(residual_logits, net, net_head)

# %% [markdown]
# ## The verdicts
#
# `check_flow` gets the vector field, the layers behind it, a test set, and the solver of the
# training. What it will cost, it says before it begins:

# %%
euler = {"solver": "euler", "n_steps": euler_steps}
print(flow_cost(coarse, coarse_head, x, y, **euler))

# %% [markdown]
# **Trained with dopri5 at $10^{-3}$:**

# %%
reports = {}
reports["dopri5"] = check_flow(adaptive, adaptive_head, x, y, solver="dopri5", rtol=1e-3)
reports["dopri5"]

# %% [markdown]
# **Trained with Euler's method in few steps:**

# %%
reports["Euler"] = check_flow(coarse, coarse_head, x, y, **euler)
reports["Euler"]

# %% [markdown]
# **The residual net:**

# %%
time = {"n_steps": blocks, "t": (0, blocks)}
reports["residual net"] = check_flow(residual_field, net_head, x, y, solver="euler", **time)
reports["residual net"]

# %% [markdown]
# The verdict rests on the exact flow, here dopri5 at a far finer tolerance, and on all test
# points. The exact flow has to prove itself first: its steps are never longer than the training's,
# and a tenth of its tolerance and another method must give the same answer; a point where they do
# not counts for either verdict. *Drop* is the accuracy that is lost there; the rest is evidence
# besides. One line of it needs no labels: *order* tells for how many points the error falls with
# the step size as it does for the training solver on a smooth field {cite:p}`krishnapriyan2023`. A
# residual net need be no ODE, of course. The check tells whether its depth may be read as time.

# %% [markdown]
# ## The cure
#
# The step adaption goes around a loop that exists already. `nodecore.monitor` looks at the model
# every 50 iterations: it solves one batch under the training solver and by the exact flow, and
# notes how many classes differ, the observed order, the evaluations and $hL$. With a controller it
# also gives the next step. By itself it takes at most 5 % of the time (`share`), and puts off a
# check that would take more; here every check is wanted, so that the page comes out the same on
# any machine. A training as short as this one has few checks, so it takes a controller that moves
# at each of them; the one that {ref}`chapter-adaption` calls calm would hardly have begun.

# %%
cured, cured_head = new_model()
how = {"solver": "euler", "step_size": 1 / euler_steps, "controller": controller}
watch = monitor(cured, cured_head, **how, share=None, verbose=False)


def adapted_logits(x, y, iteration):
    watch(x, y)  # at any place in the loop
    options = {"step_size": watch.step_size}
    return cured_head(odeint(cured, x, ends, method="euler", options=options)[-1])


train(adapted_logits, cured, cured_head)

# %%
columns = ["iteration", "setting", "accuracy", "gap", "flips", "order", "nfe", "h_lipschitz"]
pd.DataFrame(watch.rows, columns=columns).iloc[:: max(1, len(watch.rows) // 6)].round(2)

# %%
fine = {"solver": "euler", "n_steps": watch.n_steps}
reports["Euler, adapted"] = check_flow(cured, cured_head, x, y, **fine)
reports["Euler, adapted"]

# %% [markdown]
# Does it need so many steps? The field is what it is now; `suggest_steps` finds the coarsest with
# which it still gives the answers of its exact flow.

# %%
suggest_steps(cured, cured_head, x, y, solver="euler", verbose=False)

# %% tags=["hide-input"] mystnb={"figure": {"caption": "Left: accuracy on the test set with its 95 % interval, from the training solver (top) to the exact flow (bottom); dashed, the training solver's accuracy give or take the 0.1 by which it may change. Middle: share of test points whose end state moves by less than a distance between training solver and exact flow; dashed, the margin of the classifier there. Right: share of wrong answers of the training solver in other steps or tolerances, with its 95 % interval; dashed, those of the training. One seed, trained on this page for the number of iterations of its profile; no records.", "name": "fig-verdicts"}, "image": {"alt": "Four rows of three panels. The model trained with Euler's method in few steps and the residual net lose accuracy under better solvers, and most of their end states move farther than the margin; the other two keep theirs, though end states of the adapted model move, too. The error of the coarse model and of the residual net is least at their own step."}}
fig, axes = plt.subplots(len(reports), 3, figsize=(11, 2.4 * len(reports)))
for row, (name, report) in zip(axes, reports.items(), strict=True):
    report.plot(row)
    row[0].set_title(f"{name}: {report.verdict}")
plots.stamp_profile(fig, profile)

# %% tags=["remove-input"]
shown = [
    {"model": name, "setting": str(row.setting), "accuracy": row.accuracy.value,
     "low": row.accuracy.low, "high": row.accuracy.high, "changed": row.changed.value}
    for name, report in reports.items() for row in report.tested
]  # fmt: skip
download_links(fig, "fig-verdicts", pd.DataFrame(shown))

# %% [markdown]
# ## With a model of your own
#
# `pip install .` in the project's folder brings `nodecore` into another project; torch and numpy
# are all it asks for.
#
# - `field(t, z)` may be any callable on a batch of states, images too; `stem` holds the layers
#   before it. Call `.eval()` on what has dropout or batch norm.
# - The solver is the training's: with `n_steps`, with `step_size` or the times of its steps as
#   `grid`, or with `rtol` and `atol`. torchdiffeq's `rk4` is the 3/8 rule, `solver="rk4_38"`. A
#   solver that is not in `nodecore.ode.tableaus` is given as it is:
#   `solve=lambda f, z0, t: odeint(f, z0, t, method="dopri8")[-1]`.
# - Data of each sample that the field needs go into `args`; it is then called as
#   `field(t, z, args)`, with the rows of the samples in `z`. A state may be a tuple of tensors,
#   and time may run backwards.
# - Without labels the check is on outputs or end states:
#   `check_flow(field, None, x, solver="euler", n_steps=8, tolerance=0.05)`. A `loss` of your own may
#   take their place, and `output_times` makes it a check of the whole trajectory, as for a latent ODE
#   or a time series.
# - Most questions come as a symptom: {ref}`symptoms` has the lines for each.
# - *Cannot tell* is an answer. More test samples make the interval shorter; a model that has not
#   learnt its task has nothing to lose.

# %% [markdown]
# ## What we saw
#
# Numbers in these lines are computed from the reports above.

# %% tags=["hide-input"]
lines = []
for name, report in reports.items():
    own, exact = report.training, report.exact
    coarsest = "none that was tried" if report.coarsest is None else str(report.coarsest)
    lines.append(
        f"- **{name}: {report.verdict}.** Accuracy {100 * own.accuracy.value:.1f} % as trained "
        f"({own.setting}), {100 * exact.accuracy.value:.1f} % under the exact flow; the "
        f"class changes for {100 * exact.changed.value:.1f} % of the points. The training solver "
        f"agrees with the exact flow from {coarsest} on."
    )
Markdown("\n".join(lines))

# %% [markdown]
# - A verdict needs one number with its uncertainty, and a model that could have lost something.
# - The cure costs steps. The controller found how many by itself.
# - A flow need not be a good classifier. How far so short a training gets on this task depends on
#   the initial weights: with `seed = 0` the adapted model is a flow, too, but is right for only
#   half of the points.
