"""The evidence of a run that lies in a store, and its model rebuilt from the stored weights."""

from functools import cached_property
from pathlib import Path

import pandas as pd
from torch import Tensor, nn

from nodecore.data.datasets import IMAGES
from nodecore.evidence import store
from nodecore.evidence.runs import Run, run_of
from nodecore.training.adapted import Adapted
from nodecore.training.ensemble import make_model


class Evidence:
    """A finished run: its records, and its model rebuilt from the stored weights when asked for."""

    def __init__(self, run: Run, stored: "store.StoredRun | store.JoinedRuns"):
        self.run, self.stored = run, stored

    @cached_property
    def records(self) -> pd.DataFrame:
        """One row for each seed and test setting, columns as in store.COLUMNS."""
        return self.stored.frame()

    @property
    def history(self) -> pd.DataFrame | None:
        """Rows that were followed over the iterations, where a controller was at work."""
        return self.stored.history

    @property
    def path(self) -> str:
        """Its JSON file or files, as paths in the project where they lie there."""
        return ", ".join(map(store.shown, self.stored.paths))

    @property
    def flipped(self) -> tuple[Tensor, Tensor]:
        """Images of the test set that the solver decides, for a run on images.

        Images (n, channels, height, width) uint8 that the first seed gets right as trained and
        wrong under the test solver, and their classes (n, 2) under either.
        """
        weights = self._weights
        return weights["flipped.images"], weights["flipped.classes"]

    @cached_property
    def _weights(self):
        """The tensors by name, each of the shape that the run's model has there."""
        for part in self.stored.parts:
            _check_tensors(part, self.run)
        return self.stored.weights()

    def _rebuilt(self, mark=""):
        vector_field, head = make_model(self.run.protocol, self.run.seeds)
        weights = self._weights
        for part, module in (("field", vector_field), ("head", head)):
            prefix = f"{mark}{part}."
            mine = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
            module.load_state_dict(mine)
            module.requires_grad_(False)
        return vector_field, head

    @cached_property
    def _model(self):
        return self._rebuilt()

    def marked(self, mark: str) -> tuple[nn.Module, nn.Module]:
        """Vector field and classifier as they were at a moment, each member's own: the last one
        that the history gives this mark. A member without one has weights of zero."""
        return self._rebuilt(f"{mark}.")

    @property
    def field(self) -> nn.Module:
        """The trained vector field, all members, on the CPU."""
        return self._model[0]

    @property
    def head(self) -> nn.Module:
        """The trained classifier, all members, on the CPU."""
        return self._model[1]


def find(run: Run, root: Path | None = None) -> Evidence | None:
    """The evidence of a run in `root`, or in the committed and then the scratch store; else None.

    Evidence of another protocol, or other constants of a controller, than today's does not count.
    Raises store.RecordError for a damaged file, and for one that holds another run.
    """
    roots = [store.COMMITTED, store.scratch_root()] if root is None else [root]
    for candidate in roots:
        path = run.path(candidate)
        if path.exists():
            stored = store.load_run(path)
            _check_run(stored, run)
            if stored.header["protocol_hash"] == run.digest:
                return Evidence(run, stored)
    return None


def _check_run(stored, run):
    """Raise RecordError unless a file holds the run that its name says."""
    header = stored.header
    try:
        held = run_of(header)
    except (ValueError, TypeError, KeyError) as error:
        raise store.RecordError(stored.path, f"its header describes no run ({error})") from error
    if held != run or header["study"] != run.study:
        holds = f"{header['study']}/{held.name} ({held.profile})"
        held_not_run = f"it holds {holds}, not {run.title} ({run.profile})"
        raise store.RecordError(stored.path, held_not_run)
    constants = run.steps.constants if isinstance(run.steps, Adapted) else {}
    mine = {
        "protocol": run.protocol.values,
        "controller_constants": constants.get("controller"),
        "start_constants": constants.get("start"),
    }
    if header["protocol_hash"] == run.digest:
        for key, value in mine.items():
            if header.get(key) not in (None, value):  # headers of old lack constants
                raise store.RecordError(
                    stored.path, f"its {key} is not that of its protocol_hash: {header[key]}"
                )


def _check_tensors(part, run):
    """Raise RecordError unless a file has the model's tensors, each in its shape."""
    path, weights = part.path.with_suffix(".safetensors"), part.weights()
    modules = zip(("field", "head"), make_model(run.protocol, part.header["seeds"]), strict=True)
    model = {f"{key}.{n}": p.shape for key, m in modules for n, p in m.named_parameters()}
    needed = {*model, *(("flipped.images", "flipped.classes") if run.dataset in IMAGES else ())}
    missing = needed - weights.keys()
    if missing:
        raise store.RecordError(path, f"it has no tensor {min(missing)!r}")
    for name, tensor in weights.items():
        mark, _, rest = name.partition(".")
        if mark == "flipped":
            continue
        shape = model.get(name) or model.get(rest)
        if tensor.shape != shape:
            why = f"it is none of this model's, or its shape is not {tuple(shape or ())}"
            raise store.RecordError(path, f"tensor {name!r} of shape {tuple(tensor.shape)}: {why}")


def find_done(run: Run, root: Path | None = None) -> Evidence | None:
    """Find a run like `find`, but return None where its tests were stopped.

    Then its checkpoint still lies beside it.
    """
    found = find(run, root)
    if found is None or checkpoint_path(found.stored.paths[0]).exists():
        return None
    return found


def checkpoint_path(path: Path) -> Path:
    """Return where the training of the run at `path` keeps its state."""
    return store.hidden(path, "checkpoint")
