"""The pipe to the process that runs JAX (jax_side/), which has an environment of its own."""

import json
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.cases import Case
from benchmarks.timing import Engine, Result

PYTHON = Path(".venv-bench", "bin", "python")
SCAN, DIFFRAX = "jax.lax.scan, jit", "diffrax, jit"
PEERS = {SCAN: "scan", DIFFRAX: "diffrax"}


class JaxError(Exception):
    """The worker ended; its own message stands on the terminal."""


class JaxWorker:
    """A running worker; close it, or use it as a context."""

    def __init__(self):
        # A folder's own path: nothing of this package, nor torch, is imported there.
        script = Path(__file__).with_name("jax_side")
        self.process = subprocess.Popen(
            [PYTHON, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.folder = tempfile.TemporaryDirectory()
        self.file = Path(self.folder.name, "arrays.npz")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.wait()
        self.folder.cleanup()

    def ask(self, **request) -> dict:
        """The worker's answer to a request. Raises JaxError where it ended instead."""
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise JaxError("the JAX worker has ended; its message stands above") from None
        answer = self.process.stdout.readline()
        if not answer:
            raise JaxError("the JAX worker ended; its message stands above")
        return json.loads(answer)

    def engine(self, name: str, case: Case) -> Engine:
        """Compile a case for SCAN or DIFFRAX, on the case's own weights and states."""
        peer = PEERS[name]
        self._write(*case.make_field().parameters(), *case.make_states())
        answer = self.ask(prepare=peer, case=asdict(case), arrays=str(self.file))

        def result() -> Result:
            self.ask(result=str(self.file), peer=peer)
            z, *gradients = self._read()
            return z, gradients

        return Engine(
            name,
            lambda calls: self.ask(calls=calls, peer=peer)["ms"],
            result,
            nfe=answer.get("nfe"),
            compile_s=answer["compile_s"],
        )

    def train(
        self, case: Case, learning_rate: float, parameters: list[Tensor], x, y, order: Tensor
    ) -> tuple[list[Tensor], float, float]:
        """Trained parameters, seconds to compile and to train; see jax_side/training.py."""
        self._write(x, y.int(), order.int(), *parameters)
        request = {"train": asdict(case), "learning_rate": learning_rate}
        answer = self.ask(**request, arrays=str(self.file))
        return self._read(), answer["compile_s"], answer["train_s"]

    def _write(self, *tensors):
        np.savez(self.file, *(t.detach().numpy() for t in tensors))

    def _read(self):
        with np.load(self.file) as stored:
            return [torch.from_numpy(stored[name]) for name in stored.files]
