"""Ask stem, field and head, at random points, what cannot be read off them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from nodecore.check.convention import ONE_STATE
from nodecore.check.inputs import Samples, Tree, map_tensors, tensors_of
from nodecore.check.model import Field, FlowModel

SEED = 20
WHOLE_NUMBERS = 2**18  # entries of the states that a probe asks about at once
ALIKE = 1e-3  # of the largest value: rows that differ by less are the same
SCANNED = 512  # times at which a field is asked whether it depends on time
SCAN_SAMPLES, SCAN_NUMBERS = 4, 512  # states that it is asked at, at least, and their entries
LARGE, FEWER = 4096, 128  # entries of a state from which on fewer times are asked
JUMPS = 64  # of a field in time that are located
SHARP = 20.0  # times the median change between two times: a jump, or as good as one


def random_index(n: int, wanted: int) -> Tensor:
    """Draw indices of samples with a seed, ascending; all of n where no fewer are wanted."""
    generator = torch.Generator().manual_seed(SEED)
    return torch.randperm(n, generator=generator)[:wanted].sort().values


def random_states(z: Tensor) -> Tensor:
    """Draw states like z (n, ...), around them with the spread of each component: where no sample
    begins. Integers stay, as not every one of them need be a word."""
    if not z.is_floating_point():
        return z
    generator = torch.Generator().manual_seed(SEED + 1)
    noise = torch.randn(z.shape, generator=generator, dtype=z.dtype).to(z.device)
    whole = z.std() if z.numel() > 1 else z.abs().max()
    size = torch.where(whole > 0, whole, torch.ones_like(whole))
    spread = z.std(0, correction=0)  # 0 of one sample, and of a component that all samples share
    return z.flip(0) + torch.where(spread > 0, spread, size) * noise


def states_beyond(function: Callable[[Tree], object], z: Tree, sizes: tuple[int, ...] = ()) -> Tree:
    """Return states like z (n, ...) at which a function works, where no sample begins if it can.

    They are random ones; where it fails there, such as at a class that a state carries, parts of
    the samples in new pairs; or else the samples.

    Args:
        function: Takes states; what it returns is no matter.
        z: States at which it works, a tensor or several.
        sizes: Numbers of the parts of a state that is a tuple and packed.
    """
    for draw in (lambda: map_tensors(random_states, z), lambda: _in_new_pairs(z, sizes)):
        states = draw()
        try:
            function(states)
        except Exception:  # it knows states such as the samples only
            continue
        return states
    return z


def _in_new_pairs(z: Tree, sizes: tuple[int, ...]) -> Tree:
    """Return states whose parts belong to different samples; where there is one part, z."""
    if isinstance(z, Tensor):
        parts = z.split(list(sizes), dim=-1) if sizes else [z]
        return torch.cat([part.roll(k, 0) for k, part in enumerate(parts)], dim=-1)
    shifts = iter(range(len(tensors_of(z))))
    return map_tensors(lambda part: part.roll(next(shifts), 0), z)


def differ(a: Tensor, b: Tensor, share: float) -> bool:
    """Tell whether a differs from b by more than a share of b's largest value."""
    if a.shape != b.shape:
        return True
    return bool(((a - b).abs().max() > share * b.abs().max()).any())


# --- random, mixing, by position ------------------------------------------------------------------

ONE_BY_ONE = (
    "call .eval() on modules with batch norm; if a .squeeze() drops the axis of the samples, name "
    "the one to drop, as in .squeeze(-1); each sample must be treated by itself: a single system "
    "whose rows act on one another, such as a graph, cannot be checked"
)


def probe_layers(
    name: str,
    function: Callable[[Samples], Tensor],
    samples: Samples,
    advice: str,
    alone: str = ONE_BY_ONE,
    sizes: tuple[int, ...] = (),
) -> None:
    """Raise ValueError unless a function treats samples one by one, the same way at every call.

    It is asked twice, about samples in two orders, and about one alone; at random points too, if it
    works there. It must leave alone what it is given, and what it returned.

    Args:
        name: What the message calls it.
        function: Takes samples to values (n, ...).
        samples: Samples to ask about.
        advice: Remedy for an answer that depends on the order.
        alone: Remedy for an answer that depends on there being others.
        sizes: Numbers of the parts of a state that is a tuple.
    """
    size = max(1, sum(part[0].numel() for part in tensors_of(samples.z)))
    asked = samples[random_index(len(samples), max(1, WHOLE_NUMBERS // size))]
    probe_rows(name, function, asked, advice, alone)
    beyond = states_beyond(lambda z: function(Samples(z, asked.args)), asked.z, sizes)
    probe_rows(name, function, Samples(beyond, asked.args), advice, alone)


def probe_rows(
    name: str,
    function: Callable[[Samples], Tensor],
    samples: Samples,
    advice: str,
    alone: str = ONE_BY_ONE,
) -> None:
    """Do what `probe_layers` does, about these samples only."""
    before = map_tensors(torch.clone, samples.z)
    returned = function(samples)
    values = returned.clone()
    if len(values) != len(samples):
        raise ValueError(f"{name} returned {len(values)} rows for {len(samples)} samples")
    if not bool(values.isfinite().all()):
        return  # nothing to compare with; the solves will tell
    if not all(map(torch.equal, tensors_of(samples.z), tensors_of(before))):
        raise ValueError(f"{name} changes the states it is given: let it work on z.clone()")
    generator = torch.Generator().manual_seed(SEED + 2)
    order = torch.randperm(len(samples), generator=generator)
    in_order = function(samples[order]).clone()
    if not torch.equal(returned, values):
        raise ValueError(
            f"{name} returns one tensor that its next call overwrites: let it return a new one"
        )
    if differ(function(samples), values, 1e-5):
        raise ValueError(
            f"{name} gives two answers for the same states: call .eval() on modules with dropout "
            "or spectral norm, and remove its own noise and what it remembers of earlier calls"
        )
    if differ(_alone(name, function, samples[:1], alone), values[:1], ALIKE):
        raise ValueError(f"{name} gives a sample another answer when it is alone: {alone}")
    third = order[: math.ceil(len(order) / 3)]
    for part, found in ((order, in_order), (third, function(samples[third]))):
        if differ(found, values[part.to(values.device)], ALIKE):
            raise ValueError(f"{name} gives samples another answer in another order: {advice}")


def _alone(
    name: str, function: Callable[[Samples], Tensor], sample: Samples, advice: str
) -> Tensor:
    try:
        return function(sample)
    except Exception as error:
        text = str(error)[:120]
        raise ValueError(f"{name} fails on a sample alone ({text}): {advice}") from error


BY_POSITION = (
    "it closes over data of each sample, or mixes samples; pass such data as args=, to a field "
    "called as field(t, z, args), or carry them as a constant part of the state. Pass noise that "
    "is drawn once, such as that of FFJORD's divergence, in args too. States that act on one "
    "another, such as the nodes of a graph, form one state: a sample is then a whole graph"
)


def probe_field(model: FlowModel, samples: Samples) -> None:
    """Raise ValueError unless the field gives slopes of the states' shape, sample by sample."""
    middle = (model.t[0] + model.t[1]) / 2

    def slope(part: Samples) -> Tensor:
        try:
            return model.field(part.args)(middle, part.z)
        except Exception as error:
            raise ValueError(
                f"field works on some samples but not on {len(part)} of them "
                f"({str(error)[:120]}): {BY_POSITION}"
            ) from error

    found = slope(samples[:8])
    if found.shape != samples.z[:8].shape:
        raise ValueError(
            f"field returned {tuple(found.shape)} for states {tuple(samples.z[:8].shape)}: it must "
            "give dz/dt in the shape of z; give a `stem` where inputs have another shape than "
            "states"
        )
    one_axis = model.packing.shapes is not None and not model.packing.is_tuple
    alone = ONE_STATE + ONE_BY_ONE if one_axis else ONE_BY_ONE
    probe_layers("field", slope, samples, BY_POSITION, alone, model.packing.sizes)


def probe_head(model: FlowModel, z: Tensor) -> None:
    """Raise ValueError unless the head gives an output for each state, always the same one."""
    advice = "samples must be treated one by one, whatever stands beside them"

    def outputs(part: Samples) -> Tensor:
        found = model.outputs(part.z)
        if not isinstance(found, Tensor) or found.dim() < 1:
            raise ValueError(
                f"head returned {type(found).__name__}: give a tensor with a row for each state, "
                "such as lambda z: head(z)[0] for a head that returns several"
            )
        if len(found) != len(part):
            raise ValueError(
                f"head returned {len(found)} rows for {len(part)} samples: its first axis must be "
                "the samples; leave out a [-1] that takes the end from odeint's output, or write "
                "z[:, -1] for the end of trajectories"
            )
        if found.dtype == torch.bool:
            raise ValueError("head returned bools: give numbers, .float(), or logits of classes")
        return found

    probe_layers("head", outputs, Samples(z), advice, sizes=model.packing.sizes)


def probe_stem(model: FlowModel, x: Tree) -> None:
    """Raise ValueError unless the stem gives a state for each input, always the same one."""
    advice = "inputs must be treated one by one, whatever stands beside them"
    probe_layers("stem", lambda part: model.start(part.z), Samples(x), advice)


# --- time -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TimeScan:
    """Whether a field depends on time, at how many times it was asked, and where it jumps."""

    depends: bool
    asked: int
    jumps: tuple[float, ...] = ()

    def notes(self, sign: float = 1.0) -> list[str]:
        """Describe what was found or assumed; sign: that takes a time to the user's."""
        if self.jumps:
            places = ", ".join(f"{sign * t + 0.0:.4g}" for t in self.jumps[:4])
            more = " and more" if len(self.jumps) > 4 else ""
            what = f"the field jumps, or changes as fast as in a jump, at t = {places}{more}"
            return [f"{what}: the exact flow restarts there"]
        if self.asked and not self.depends:
            return [f"the field is assumed not to depend on time (tried at {self.asked} times)"]
        return []


def scan_time(model: FlowModel, samples: Samples) -> TimeScan:
    """Ask the field at many times, one drawn from each of equal parts, at a few states.

    A change counts by the largest value of its component, and where it moves states by more than
    their rounding. Jumps, and changes as sharp, are located by bisection to the next number.
    """
    if model.convention.arguments == 1:
        return TimeScan(False, 0)
    f, z = _few(model, samples)
    asked = SCANNED if z[0].numel() <= LARGE else FEWER
    start, end = model.t
    generator = torch.Generator().manual_seed(SEED + 3)
    places = torch.arange(asked) + torch.rand(asked, generator=generator, dtype=torch.float64)
    times = [start, *(start + (end - start) * places / asked).tolist(), end]
    values = [f(time, z).nan_to_num(0.0, 0.0, 0.0) for time in times]
    largest = torch.stack([_largest(value) for value in values]).amax(0)
    rounding = 8 * torch.finfo(z.dtype).eps * _largest(z) / (end - start)  # of the states
    changes = torch.stack([_largest(b - a) for a, b in pairwise(values)])
    changes = torch.where(changes > rounding, changes / largest, 0.0)
    if not float(changes.max()) > 1e-6:
        return TimeScan(False, asked)
    usual = torch.maximum(changes.median(0).values, changes.median())
    sharp = (changes > SHARP * usual) & (changes > 1e-3)
    steepest = changes.masked_fill(~sharp, -1.0).amax(1)
    found = [i for i in steepest.argsort(descending=True)[:JUMPS].tolist() if bool(sharp[i].any())]
    units = torch.where(sharp, largest, math.inf)
    jumps = {_locate(f, z, times[i], times[i + 1], units[i]) for i in found}
    return TimeScan(True, asked, tuple(sorted(t for t in jumps if start < t < end)))


def _few(model: FlowModel, samples: Samples) -> tuple[Field, Tensor]:
    """Return the field and a few states, half of them random if it works there."""
    wanted = max(SCAN_SAMPLES, SCAN_NUMBERS // samples.z[0].numel())
    few = samples[random_index(len(samples), wanted)]
    f, z = model.exact_field(few)
    if len(z) > 1:
        first, others = z.tensor_split([len(z) // 2])
        beyond = states_beyond(
            lambda states: f(model.t[0], torch.cat([first, states])), others, model.packing.sizes
        )
        z = torch.cat([first, beyond])
    return f, z


def _largest(values: Tensor) -> Tensor:
    """Return the largest size of each component of (m, components, ...), (components,) float64."""
    return values.abs().transpose(0, 1).flatten(1).amax(1).double()


def _locate(f: Field, z: Tensor, left: float, right: float, units: Tensor) -> float:
    """Return the first time behind a jump between two times, as numbers of z's type.

    units: Of the components (components,); infinite for those that do not jump.
    """

    def change(a: Tensor, b: Tensor) -> float:
        return float((_largest(b - a) / units).nan_to_num(0.0).max())

    low, high = f(left, z), f(right, z)
    for _ in range(64):
        middle = float(torch.tensor((left + right) / 2, dtype=z.dtype))
        if middle in (left, right):
            break
        value = f(middle, z)
        if change(low, value) > change(value, high):
            right, high = middle, value
        else:
            left, low = middle, value
    return right


# --- heads ----------------------------------------------------------------------------------------


def is_by_time(model: FlowModel, z: Tensor) -> bool:
    """Tell whether a head gives of trajectories outputs (m, times, ...), each of one time alone.

    A number of outputs that equals the number of times does not tell. So the trajectories, random
    ones like z (m, ...) if the head works there, are changed at one time after another: only its
    own output may change.
    """
    still, sizes = model.still(z), model.packing.sizes
    paths = states_beyond(model.outputs, still, sizes)
    outputs, n_times = model.outputs(paths), len(model.output_times)
    if outputs.dim() < 2 or outputs.shape[1] != n_times:
        return False
    others = states_beyond(model.outputs, paths.roll(1, 0), sizes)
    rounding, follows = 1e-6 * outputs.abs().max(), False
    for i in range(n_times):
        changed = paths.clone()
        changed[:, i] = others[:, i]
        differences = (model.outputs(changed) - outputs).reshape(len(z), n_times, -1)
        moved = (differences.abs() > rounding).any(2).any(0)
        follows |= bool(moved[i])
        moved[i] = False
        if bool(moved.any()):
            return False
    return follows


def is_probability(model: FlowModel, z: Tensor) -> bool:
    """Tell whether the outputs are probabilities of classes: rows >= 0 that sum to 1."""
    beyond = states_beyond(model.outputs, z, model.packing.sizes)
    values = torch.cat([model.outputs(z), model.outputs(beyond)])
    rounding = max(1e-4, 4 * torch.finfo(values.dtype).eps)
    values = values[values.isfinite().flatten(1).all(1)].double()
    near = (values.sum(1) - 1).abs() < rounding
    return values.dim() == 2 and len(values) > 0 and bool((values >= 0).all() & near.all())


def affine_weight(model: FlowModel, z: Tensor) -> Tensor | None:
    """Return the weight (classes, features) of a head that is affine, None of another one.

    Its derivative at one state must predict it at all states z (n, ...), at -z and 3 z, and at
    random ones.
    """
    point = z[:1]
    states = torch.cat([z, -z, 3 * z, random_states(z), 10 * random_states(z)])
    try:
        jacobian = torch.autograd.functional.jacobian(lambda p: model.outputs(p)[0], point)
        outputs = model.outputs(states)
    except Exception:  # it cannot be differentiated, or does not work at all states
        return None
    assert isinstance(jacobian, Tensor)
    weight = jacobian.flatten(1)
    expected = (states - point).flatten(1) @ weight.T + model.outputs(point)
    return None if differ(expected, outputs, 1e-4) else weight


def probability_changes(a: Tensor, b: Tensor, already: bool) -> float:
    """Return the mean total variation between classes, of the rows that are finite.

    Args:
        a: Logits (n, classes), or probabilities where they are these `already`.
        b: Others of the same samples.
        already: Whether no softmax is needed.
    """
    kept = (a.isfinite() & b.isfinite()).all(1)
    p, q = (v[kept].double() if already else v[kept].double().softmax(1) for v in (a, b))
    return float((p - q).abs().sum(1).mean() / 2) if len(p) else math.nan
