"""Trained models and data as an explorer takes them: descriptions, and numbers in base64."""

import base64
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from nodecore.data.datasets import DATASETS
from nodecore.data.split import Split
from nodecore.evidence.found import Evidence
from nodecore.evidence.names import describe_run, name_of
from nodecore.evidence.tables import trained_seeds
from nodecore.ode.fields import Conv1dField, LinearHead, MLPField, take_members
from nodecore.ode.tableaus import ButcherTableau

ACTIVATIONS = {nn.ReLU: "relu", nn.Tanh: "tanh"}
FIELDS = MLPField, Conv1dField  # of nodecore, that an explorer can draw


@dataclass(frozen=True)
class Model:
    """A trained model to explore, with points x (n, 2) and labels y (n,) to test it on.

    field, head: an MLPField or Conv1dField with ReLU or tanh and a LinearHead, or plain torch:
    nn.Linear, or nn.Sequential of nn.Linear, nn.ReLU and nn.Tanh. The field is autonomous. dataset:
    the name of the points; classes: names of the labels. train_n_steps: the number of steps that
    the training took with train_solver, if it was fixed; title: a description of the training, by
    default of its step. seeds, trained: one entry for each member, by default 0, 1, ... and True.
    Raises ValueError for a model that an explorer cannot show.
    """

    field: nn.Module
    head: nn.Module
    x: Tensor
    y: Tensor
    dataset: str = "own data"
    classes: Sequence[str] = ()
    train_n_steps: int | None = None
    seeds: Sequence[int] = ()
    trained: Sequence[bool] = ()
    title: str = ""
    train_solver: str = "euler"

    def __post_init__(self):
        field, head = pack_stack("field", self.field), pack_stack("head", self.head)
        split = Split(self.x, self.y, n_classes=head.outputs)
        if self.x.dim() != 2 or self.x.shape[1] != 2:
            raise ValueError(f"x of shape {tuple(self.x.shape)}: give points in the plane, (n, 2)")
        if not (field.inputs == field.outputs == head.inputs == 2):
            raise ValueError(
                f"field maps {field.inputs} numbers to {field.outputs} and head takes "
                f"{head.inputs}: give 2 everywhere, since an explorer draws the plane"
            )
        if self.train_n_steps and not self.title:
            object.__setattr__(self, "title", f"trained with h = 1/{self.train_n_steps}")
        members = len(field.numbers)
        if len(head.numbers) != members:
            raise ValueError(
                f"field has {members} members, head {len(head.numbers)}: give the same number"
            )
        object.__setattr__(self, "seeds", tuple(self.seeds or range(members)))
        object.__setattr__(self, "trained", tuple(self.trained or [True] * members))
        classes = tuple(self.classes or (f"class {c}" for c in range(head.outputs)))
        object.__setattr__(self, "classes", classes)
        for name, given, wanted in (
            ("seeds", self.seeds, members),
            ("trained", self.trained, members),
            ("classes", classes, split.n_classes),
        ):
            if len(given) != wanted:
                raise ValueError(f"{name} has {len(given)} entries: give {wanted}")

    @classmethod
    def from_evidence(cls, evidence: Evidence) -> "Model":
        """The model of a finished run with the test split that it was tested on."""
        run = evidence.run
        if run.protocol.T != 1.0:
            raise ValueError(f"{evidence.path} goes to T = {run.protocol.T:g}: give runs of T = 1")
        _, test = run.protocol.load()
        trained = trained_seeds(evidence.records)
        return cls(
            evidence.field,
            evidence.head,
            test.x,
            test.y,
            dataset=run.dataset,
            classes=DATASETS[run.dataset].classes,
            train_n_steps=run.steps.n_steps,
            seeds=run.seeds,
            trained=[seed in trained for seed in run.seeds],
            title=f"trained with {describe_run(run)}" if run.cures else "",
            train_solver=run.steps.solver,
        )

    def member(self, seed: int) -> tuple[Callable, nn.Module]:
        """f(t, z) and the head of one seed in float64, on z (1, n, 2)."""
        index = self.seeds.index(seed)
        field, head = _one_member(self.field, index), _one_member(self.head, index)
        return field if isinstance(field, FIELDS) else (lambda t, z: field(z)), head

    def model_data(self, n_seeds: int | None = None) -> dict:
        """What the browser needs of the first seeds, or of all: see `js/compute/models.js`."""
        field, head = pack_stack("field", self.field), pack_stack("head", self.head)
        return {
            "dataset": self.dataset,
            "nSteps": self.train_n_steps,
            "solver": self.train_solver,
            "title": self.title,
            "seeds": list(self.seeds[:n_seeds]),
            "trained": list(self.trained[:n_seeds]),
            "field": field.spec,
            "head": head.spec,
            "weights": encode(
                torch.cat([field.numbers, head.numbers], dim=1)[:n_seeds], np.float32
            ),
        }

    def dataset_data(self, starts: Tensor) -> dict:
        """What the browser needs of the points; trajectories begin at those of index `starts`."""
        return {
            "name": self.dataset,
            "title": name_of(self.dataset),
            "classes": list(self.classes),
            "x": encode(self.x.cpu(), np.float32),
            "y": encode(self.y.cpu(), np.uint8),
            "starts": starts.tolist(),
        }


@dataclass(frozen=True)
class Stack:
    """Layers in turn: how they are shaped, and the weights of each member, (members, n) float32."""

    spec: dict
    numbers: Tensor

    @property
    def inputs(self) -> int:
        """Number of values that go in, at all positions together."""
        return self.spec["positions"] * self.spec["layers"][0]["inputs"]

    @property
    def outputs(self) -> int:
        """Number of values that come out, at all positions together."""
        return self.spec["positions"] * self.spec["layers"][-1]["outputs"]


def pack_stack(name: str, module: nn.Module) -> Stack:
    """Return a module's layers. Raises ValueError, which says `name`, for any that have no form."""
    if isinstance(module, FIELDS):
        if module.activation not in ACTIVATIONS.values():
            raise ValueError(
                f"{name} has the activation {module.activation!r}: give one with "
                f"{' or '.join(ACTIVATIONS.values())}"
            )
        *hidden, last = module.layers()
        found = [*((*layer, module.activation) for layer in hidden), (*last, None)]
    elif isinstance(module, LinearHead):
        found = [(*module.linear, 1, None)]
    else:
        found = _plain_layers(name, module)
    specs, numbers = [], []
    for weight, bias, window, activation in found:
        members, inputs, outputs = weight.shape
        specs.append(
            {"inputs": inputs, "outputs": outputs, "window": window, "activation": activation}
        )
        numbers += [weight.reshape(members, -1), bias.reshape(members, -1)]
    packed = torch.cat([part.detach().cpu().float() for part in numbers], dim=1)
    if not bool(torch.isfinite(packed).all()):
        raise ValueError(f"{name} has weights that are NaN or infinite: give a trained model")
    return Stack({"positions": getattr(module, "positions", 1), "layers": specs}, packed)


def _plain_layers(name, module):
    """(weight (1, in, out), bias (1, out), window, activation) of nn.Linear or nn.Sequential."""
    parts = list(module) if isinstance(module, nn.Sequential) else [module]
    found = []
    for part in parts:
        if isinstance(part, nn.Linear):
            bias = part.weight.new_zeros(part.out_features) if part.bias is None else part.bias
            found.append([part.weight.T[None], bias[None], 1, None])
        elif type(part) in ACTIVATIONS and found and found[-1][3] is None:
            found[-1][3] = ACTIVATIONS[type(part)]
        else:
            raise ValueError(
                f"{name} has a {type(part).__name__} where an explorer takes nn.Linear, followed "
                "by nn.ReLU, nn.Tanh or none: give these in nn.Sequential, or an MLPField or "
                "Conv1dField of nodecore"
            )
    return found


def pack_tableau(tableau: ButcherTableau) -> dict:
    """A method's coefficients; keys as in `js/compute/stages.js`."""
    return {
        "name": tableau.name,
        "title": name_of(tableau.name),
        "a": tableau.a,
        "b": tableau.b,
        "order": tableau.order,
        "bError": tableau.b_error,
        "embeddedOrder": tableau.embedded_order,
        "firstSameAsLast": tableau.first_same_as_last,
    }


def encode(values: Tensor | np.ndarray | pd.Series, dtype: DTypeLike) -> str:
    """Numbers as base64 of their bytes, little end first."""
    array = np.asarray(values).astype(np.dtype(dtype).newbyteorder("<"))
    return base64.b64encode(array.tobytes()).decode()


def encode_exactly(values: pd.Series) -> str:
    """Numbers in base64 without loss: in float32 where that holds them all, else in float64."""
    holds_all = values.astype(np.float32).eq(values).all()
    return encode(values, np.float32 if holds_all else np.float64)


def _one_member(module, index):
    """In float64; a plain module is its only member."""
    has_members = isinstance(module, (*FIELDS, LinearHead))
    alone = take_members(module, [index]) if has_members else copy.deepcopy(module)
    return alone.double().requires_grad_(False)
