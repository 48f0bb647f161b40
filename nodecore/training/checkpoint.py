"""The state of a training on disk, so that a kill costs a minute: one file, gone when it is done.

It holds tensors as safetensors, and beside them JSON; nothing read here is executed.
"""

import hashlib
import json
import time
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from nodecore.data.files import write_atomically
from nodecore.training.deadline import Deadline

FORMAT = "nodecore-checkpoint-1"


class Checkpoint:
    """The last state of one training, in a file.

    every: seconds between two states, on the clock; saving one takes milliseconds. deadline: where
    there is one, a state is saved when it has come, and TimeUp raised.
    """

    def __init__(self, path: Path, every: float = 60.0, deadline: Deadline | None = None):
        self.path, self.every, self.deadline = path, every, deadline
        self.saved = time.monotonic()

    def load(self, identity: dict) -> tuple[dict[str, Tensor], dict] | None:
        """The tensors and values last saved for `identity`; None where there are none.

        A state of another training or format, and a file that is damaged, counts as none: the
        training then begins anew, and its next state takes the file's place.
        """
        try:
            with safe_open(self.path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            return None
        text = metadata.get("state", "")
        if metadata.get("sha256") != _digest(tensors, text):
            return None
        try:
            state = json.loads(text)
            known = state["identity"] == _plain({"format": FORMAT, **identity})
            return (tensors, state["values"]) if known else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    def save(self, identity: dict, tensors: dict[str, Tensor], values: dict) -> None:
        """Keep a state in place of the last one, so that a crash leaves one or the other."""
        text = json.dumps({"identity": {"format": FORMAT, **identity}, "values": values})
        tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        metadata = {"state": text, "sha256": _digest(tensors, text)}
        write_atomically(self.path, save(tensors, metadata))
        self.saved = time.monotonic()
        if self.deadline is not None:
            self.deadline.check()

    def is_due(self) -> bool:
        """Tell whether the last state is `every` seconds old, or the deadline has come."""
        over = self.deadline is not None and self.deadline.left() <= 0
        return over or time.monotonic() - self.saved >= self.every

    def iterations_done(self) -> int:
        """Return the iterations of the state that lies there, of any training; 0 without one."""
        try:
            with safe_open(self.path, "pt") as file:
                state = json.loads((file.metadata() or {}).get("state", "{}"))
            return int(state["values"]["iteration"])
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, ArithmeticError):
            return 0

    def remove(self) -> None:
        """Leave nothing behind; for when the training's result is safe."""
        self.path.unlink(missing_ok=True)


def _plain(values):
    """Return values as JSON gives them back: tuples are lists."""
    return json.loads(json.dumps(values))


def _digest(tensors, text):
    """Return a digest of everything a state holds, whatever order its file has it in."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        digest.update(save({name: tensors[name]}))
    return digest.hexdigest()
