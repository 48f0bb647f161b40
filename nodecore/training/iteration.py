"""Ways to carry out one training iteration: the fused kernel, or a captured CUDA graph."""

from collections.abc import Callable
from functools import partial

import torch

from nodecore.ode.adaptive import check_walk
from nodecore.ode.kernels import FusedAdaptive, classify_fused
from nodecore.ode.prepare import prepare_fused
from nodecore.ode.solution import SolveError
from nodecore.ode.steps import FixedSteps
from nodecore.training.adjoint import AdjointStep
from nodecore.training.cured import choose_cured_step
from nodecore.training.ensemble import Ensemble


class FusedStep:
    """A training step through the fused kernel, without autograd.

    The few small operations of classifier, loss and optimiser would take autograd as long as the
    kernel takes for the solve. Equal to `Ensemble.step` up to rounding.
    """

    def __init__(self, ensemble):
        self.ensemble, self.sizes, self.tape = ensemble, None, None
        layers = ensemble.field.block_layers()
        self.parameters = [t for layer in layers for t in (layer.weight, layer.bias)]
        self.gradients = [parameter.grad for parameter in self.parameters]

    @torch.no_grad()
    def __call__(self, x, y, see=None) -> None:
        ensemble, (weight, bias) = self.ensemble, self.ensemble.head.linear
        if self.tape is None or self.sizes is not ensemble.sizes:
            self.tape = self._prepare(x)
        z = self._forward([x, *self.parameters])
        if see is not None:
            see(z)
        losses, slope = classify_fused(z.flatten(2), weight, bias, y, weight.grad, bias.grad)
        gradients = [self.grad_x, *self.gradients]
        self.solve.backward([x, *self.parameters], self.tape, slope, gradients)
        ensemble.account(losses)
        ensemble.update()

    def _forward(self, tensors):
        """z(T); evaluations are counted."""
        ensemble, solve = self.ensemble, self.solve
        z = solve.forward(tensors, self.tape)
        if not isinstance(solve, FusedAdaptive):
            ensemble.count(self.nfe)
            return z
        try:
            check_walk(solve)
        except SolveError as error:
            ensemble.retire(error.members)
            return self._forward(tensors)
        ensemble.count(solve.nfe)
        ensemble.n_accepted = solve.n_steps
        return z

    def _prepare(self, x):
        """Set the solve up for the sizes of now; return its tape."""
        ensemble, span = self.ensemble, (0.0, self.ensemble.protocol.T)
        self.sizes = ensemble.sizes
        how = {"rtol" if ensemble.by_tolerance else "step_size": self.sizes}
        how |= {"per_sample": ensemble.instance_axes == 2}
        self.solve = prepare_fused(ensemble.field, x, ensemble.tableau, t=span, **how)
        self.nfe = self.solve.n_steps * ensemble.tableau.n_solution_stages
        self.grad_x = torch.empty_like(x)
        ensemble.backend_used = "fused"
        self.tape = None  # its memory serves the new one
        return self.solve.tape()


class CudaGraph:
    """Call that a GPU captures once and then replays, its thousands of kernels in one launch.

    The capture itself computes nothing.
    """

    def __init__(self, device):
        self.device, self.stream = device, torch.cuda.Stream(device)
        self.graph = torch.cuda.CUDAGraph()

    def warm_up(self, call: Callable[[], None]) -> None:
        """Run it as it is, on a stream of its own, as torch.cuda.graph asks for."""
        usual = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream):
            call()
        usual.wait_stream(self.stream)

    def capture(self, call: Callable[[], None]) -> None:
        """Capture a call; raise RuntimeError where it cannot be captured."""
        with torch.cuda.graph(self.graph, stream=self.stream):
            call()

    def replay(self) -> None:
        """Compute what was captured, on the tensors of the capture."""
        self.graph.replay()


class GraphedStep:
    """A training step on a GPU: after a few iterations as they are, replays of a graph.

    Where none can be captured, all iterations run as they are, and `execution` says why.
    """

    WARM_UP = 3

    def __init__(self, ensemble, make_graph=CudaGraph):
        self.ensemble, self.make_graph = ensemble, make_graph
        self.graph, self.iterations = make_graph(ensemble.device), 0
        self.captured: bool | None = None  # None until it has been tried

    def __call__(self, x, y) -> None:
        self.iterations += 1
        if self.captured is None and self.iterations > self.WARM_UP:
            self._capture(x, y)
        if self.captured is None:
            self.graph.warm_up(partial(self.ensemble.step, x, y))
        elif self.captured:
            self.x.copy_(x)
            self.y.copy_(y)
            self.graph.replay()
        else:
            self.ensemble.step(x, y)

    def _capture(self, x, y):
        self.x, self.y = x.clone(), y.clone()
        self.captured, why, out_of_memory = self._try_to_capture()
        if out_of_memory and self.ensemble.spare_memory():
            self.graph = self.make_graph(self.ensemble.device)
            self.captured, why, _ = self._try_to_capture()
        if self.captured:
            self.ensemble.execution = "graph"
        else:
            del self.graph  # with the memory that it holds
            self.ensemble.execution = f"eager: no graph could be captured ({why})"

    def _try_to_capture(self):
        """Capture the step; return whether it worked, why not, and whether memory was wanting.

        The error itself is not kept: its frames hold the memory that is to be freed.
        """
        try:
            self.graph.capture(partial(self.ensemble.attempt, self.x, self.y))
        except RuntimeError as error:
            chain: list[BaseException] = [error]  # the end of a spoilt capture raises, too
            while chain[-1].__context__ is not None:
                chain.append(chain[-1].__context__)
            why = (str(chain[-1]).strip() or type(chain[-1]).__name__).splitlines()[0]
            return False, why, any(isinstance(e, torch.OutOfMemoryError) for e in chain)
        return True, "", False


def choose_step(ensemble: Ensemble, backend: str) -> Callable[..., None]:
    """The kernel has a way of its own, and a GPU has one where the steps stay the same; so have
    the adjoint's gradients, and cures that change more than the number of steps."""
    if ensemble.protocol.gradient == "adjoint":
        return AdjointStep(ensemble)
    cured = choose_cured_step(ensemble, backend)
    if cured is not None:
        return cured
    if ensemble.device.type == "cuda":
        stays = isinstance(ensemble.steps, FixedSteps) and not ensemble.cures
        return GraphedStep(ensemble) if stays else ensemble.step
    return FusedStep(ensemble) if backend == "fused" else ensemble.step
