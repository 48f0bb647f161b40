"""Cures: what a training in fixed steps may do so that its model becomes a flow, as values.

A model learns what the steps of its training do. Each cure lets it see more than one way of
stepping, or charges it for the difference. A cure's name tells all its constants: it names files,
is part of a run's digest, and gives the cure back (`get_cures`). `cured` carries them out.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from torch.nn import functional as F

from nodecore.data.datasets import DATASETS
from nodecore.ode.checks import check_choice
from nodecore.ode.steps import FixedSteps, check_n_steps
from nodecore.ode.tableaus import TABLEAUS, get_tableau
from nodecore.training.adapted import Adapted, AnySteps
from nodecore.training.protocols import Protocol


@dataclass(frozen=True)
class Cure:
    """One change of a training. Raises ValueError for constants that cannot work.

    decides: the part of an iteration that it changes; a training's cures must change different
    parts.
    """

    key: ClassVar[str]
    decides: ClassVar[str]

    @property
    def name(self) -> str:
        """Key and constants, such as `loguniform-4`."""
        constants = (str(getattr(self, field.name)) for field in fields(self))
        return "-".join([self.key, *(text.removesuffix(".0") for text in constants)])

    def describe(self, n_steps: int) -> str:
        """Return what it does in a training that is meant for n_steps, as text and figures say."""
        raise NotImplementedError


# --- the number of steps --------------------------------------------------------------------------


@dataclass(frozen=True)
class ChosenSteps(Cure):
    """A number of steps for each batch, of each member, in place of the training's K."""

    decides: ClassVar[str] = "the number of steps"

    def counts(self, n_steps: int | Tensor, draws: Tensor, share: Tensor) -> Tensor:
        """Return numbers of steps, int64, in the shape of `draws`, which are uniform on [0, 1).

        n_steps: K, or an int64 one for each. share: how much of the training lies before an
        iteration. Both of shapes that broadcast with draws.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class DrawnSteps(ChosenSteps):
    """Numbers of steps from K / factor to K times factor, rounded, drawn at random.

    Random steps of a solver stand for its error in Abdulle, Garegnani 2020 (arXiv:1801.01340);
    here they keep a model from fitting one step size.
    """

    law: ClassVar[str]

    factor: float

    def __post_init__(self):
        _as_number(self, "factor", 1.0, "a factor > 1, such as 2")

    def ends(self, n_steps: int) -> tuple[int, int]:
        """Return the least and the largest number of steps that may be drawn."""
        return max(1, round(n_steps / self.factor)), round(n_steps * self.factor)

    def counts(self, n_steps: int | Tensor, draws: Tensor, share: Tensor) -> Tensor:
        return self.between(*self._ends(n_steps), draws).long()

    def between(self, least: Any, most: Any, draws: Tensor) -> Tensor:
        """Return whole numbers from least to most, float64, by the law."""
        raise NotImplementedError

    def describe(self, n_steps: int) -> str:
        least, most = self.ends(n_steps)
        return f"K {self.law} on {least} to {most}"

    def describe_around(self) -> str:
        """Return what it does where a controller has the K."""
        return f"K drawn, factor {self.factor:g}"

    def _ends(self, n_steps: int | Tensor) -> tuple[Any, Any]:
        """Return the same of one K, or of each of several, as float64."""
        if not isinstance(n_steps, Tensor):
            return self.ends(n_steps)
        least = (n_steps.double() / self.factor).round().clamp(min=1)
        return least, (n_steps.double() * self.factor).round()


@dataclass(frozen=True)
class UniformSteps(DrawnSteps):
    """Every number of steps from K / factor to K times factor is equally likely."""

    key: ClassVar[str] = "uniform"
    law: ClassVar[str] = "uniform"

    def between(self, least: Any, most: Any, draws: Tensor) -> Tensor:
        return least + (draws * (most - least + 1)).floor()


@dataclass(frozen=True)
class LogUniformSteps(DrawnSteps):
    """The logarithm is uniform: as many batches have fewer than K steps as have more."""

    key: ClassVar[str] = "loguniform"
    law: ClassVar[str] = "log-uniform"

    def between(self, least: Any, most: Any, draws: Tensor) -> Tensor:
        return (least * (most / least) ** draws).round()


@dataclass(frozen=True)
class RefinedSteps(ChosenSteps):
    """Coarse to fine: `first` steps to begin with, doubled up to K, each for the same time.

    Queiruga, Erichson, Taylor, Mahoney 2020 (arXiv:2008.02389) refine a trained model likewise.
    """

    key: ClassVar[str] = "refined"

    first: int

    def __post_init__(self):
        check_n_steps(self.first, "first")

    def counts(self, n_steps: int | Tensor, draws: Tensor, share: Tensor) -> Tensor:
        assert isinstance(n_steps, int)  # check_cures has seen to it
        doublings = math.ceil(math.log2(n_steps / self.first))
        at = (share * (doublings + 1)).long()
        return (self.first * 2**at).clamp(max=n_steps).expand(draws.shape)

    def describe(self, n_steps: int) -> str:
        return f"K doubled from {self.first} to {n_steps}"


# --- the solver and the end -----------------------------------------------------------------------


@dataclass(frozen=True)
class DrawnSolver(Cure):
    """The training's solver or `other`, with even odds for each batch of each member.

    Gusak, Katrutsa, Daulbaev, Cichocki, Oseledets 2021 (arXiv:2103.08561) draw a solver for each
    batch from a family of one order.
    """

    key: ClassVar[str] = "solver"
    decides: ClassVar[str] = "the solver"

    other: str = "midpoint"

    def __post_init__(self):
        get_tableau(self.other, "other")

    def chosen(self, draws: Tensor) -> Tensor:
        """Tell where the other solver takes a batch, bool, of draws uniform on [0, 1)."""
        return draws >= 0.5

    def describe(self, n_steps: int) -> str:
        return f"or {TABLEAUS[self.other].label}, drawn"


@dataclass(frozen=True)
class DrawnEnd(Cure):
    """An end drawn uniformly from T (1 - width) to T (1 + width), in as many steps as ever.

    STEER: Ghosh, Behl, Dupont, Torr, Namboodiri 2020 (arXiv:2006.10711).
    """

    key: ClassVar[str] = "end"
    decides: ClassVar[str] = "the end"

    width: float

    def __post_init__(self):
        _as_number(self, "width", 0.0, "a share of T between 0 and 1, such as 0.5", 1.0)

    def stretch(self, draws: Tensor) -> Tensor:
        """Return the ends over T, of draws uniform on [0, 1)."""
        return 1 + self.width * (2 * draws - 1)

    def describe(self, n_steps: int) -> str:
        return f"end drawn, T ± {100 * self.width:g} %"


# --- the loss, and the weights --------------------------------------------------------------------

COARSER = "coarser"


@dataclass(frozen=True)
class Consistency(Cure):
    """The loss grows with the distance of the logits of two solves, both differentiated.

    weight: of the distance in the loss. against: the other solve, a solver at the same steps or
    "coarser", the training's solver with half the steps, rounded up. A loss on the difference of
    two predictions of one sample is that of Laine, Aila 2017 (arXiv:1610.02242).
    """

    decides: ClassVar[str] = "the loss"

    weight: float
    against: str = "midpoint"

    def __post_init__(self):
        _as_number(self, "weight", 0.0, "a weight > 0, such as 0.1")
        check_choice("against", self.against, (COARSER, *TABLEAUS))

    def distance(self, logits: Tensor, others: Tensor) -> Tensor:
        """Return the mean over the batch, (members,), of logits (members, batch, classes)."""
        raise NotImplementedError

    @property
    def _other(self):
        return "K/2" if self.against == COARSER else TABLEAUS[self.against].label


@dataclass(frozen=True)
class SquaredDifference(Consistency):
    """The distance is the square of the Euclidean one of the logits."""

    key: ClassVar[str] = "squared"

    def distance(self, logits: Tensor, others: Tensor) -> Tensor:
        return (logits - others).square().sum(-1).mean(1)

    def describe(self, n_steps: int) -> str:
        return f"like {self._other}, weight {self.weight:g}"


@dataclass(frozen=True)
class Divergence(Consistency):
    """The distance is the Kullback-Leibler divergence from the classes' probabilities.

    Liang et al. 2021 (arXiv:2106.14448) take it between two passes with other dropout.
    """

    key: ClassVar[str] = "kl"

    def distance(self, logits: Tensor, others: Tensor) -> Tensor:
        both = logits.log_softmax(-1), others.log_softmax(-1)
        return F.kl_div(both[1], both[0], reduction="none", log_target=True).sum(-1).mean(1)

    def describe(self, n_steps: int) -> str:
        return f"like {self._other} (KL), weight {self.weight:g}"


@dataclass(frozen=True)
class LocalError(Cure):
    """The loss grows with the square of the local error of Euler's method in one step of a solve.

    One batch is charged for its first step, the next one for its second, and so on. weight: of the
    square of K times that error, as if all K steps had it. Pal, Edelman, Rackauckas 2023 (PMLR
    202:26809) charge a random step for an embedded estimate.
    """

    key: ClassVar[str] = "local"
    decides: ClassVar[str] = "the loss"

    weight: float

    def __post_init__(self):
        _as_number(self, "weight", 0.0, "a weight > 0, such as 0.1")

    def describe(self, n_steps: int) -> str:
        return f"local error, weight {self.weight:g}"


@dataclass(frozen=True)
class Bounded(Cure):
    """After each update the layers are shrunk until h times the bound on L is at most `most`.

    h is the step that is meant, and the bound on the Lipschitz constant L the product of the
    layers' spectral norms; with h L < 1 each Euler step is one-to-one (Behrmann et al. 2019,
    arXiv:1811.00995). A projection after each update is that of Gouk et al. 2021
    (arXiv:1804.04368); here all layers of a field shrink by one factor.
    """

    key: ClassVar[str] = "bound"
    decides: ClassVar[str] = "the bound"

    most: float

    def __post_init__(self):
        _as_number(self, "most", 0.0, "a bound > 0 on h L, such as 1")

    def describe(self, n_steps: int) -> str:
        return f"h L at most {self.most:g}"


@dataclass(frozen=True)
class StableStart(Cure):
    """The training begins with a field in whose mean linearisation the solver is stable.

    See `training.stable`, and Westny, Mohammadi, Jung, Frisk 2024 (arXiv:2311.15890).
    """

    key: ClassVar[str] = "stable"
    decides: ClassVar[str] = "the first weights"

    def describe(self, n_steps: int) -> str:
        return "stable at the start"


@dataclass(frozen=True)
class Decay(Cure):
    """Weights decay towards zero, beside the gradient: a smoother field is less stiff.

    Loshchilov, Hutter 2019 (arXiv:1711.05101); `weight` is theirs, times the learning rate.
    """

    key: ClassVar[str] = "decay"
    decides: ClassVar[str] = "the optimiser"

    weight: float

    def __post_init__(self):
        _as_number(self, "weight", 0.0, "a weight > 0, such as 0.01")

    def describe(self, n_steps: int) -> str:
        return f"weight decay {self.weight:g}"


Cures = tuple[Cure, ...]
KINDS = (UniformSteps, LogUniformSteps, RefinedSteps, DrawnSolver, DrawnEnd)
KINDS += (SquaredDifference, Divergence, LocalError, Bounded, StableStart, Decay)
_BY_KEY = {kind.key: kind for kind in KINDS}


Kind = TypeVar("Kind", bound=Cure)


def find_cure(cures: Iterable[Cure], kind: type[Kind]) -> Kind | None:
    """Return the cure of a kind, or None; no two cures of a training decide the same."""
    return next((cure for cure in cures if isinstance(cure, kind)), None)


# --- by name --------------------------------------------------------------------------------------


def name_cures(cures: Iterable[Cure]) -> str:
    """Return the names of cures as one, such as `loguniform-4,squared-0.1-coarser`."""
    return ",".join(cure.name for cure in cures)


def get_cures(name: str) -> Cures:
    """Return the cures that a name of `name_cures` describes; none for an empty one.

    Raises:
        ValueError: A cure is unknown or its constants cannot be read; the message lists the
            known cures or the constants.
    """
    return tuple(map(_get_cure, name.split(","))) if name else ()


def _get_cure(name):
    key, *constants = re.split(r"(?<!\de)-", name)  # not within a number such as 1e-05
    kind = _BY_KEY.get(key)
    if kind is None:
        raise ValueError(f"cure = {name!r} is unknown; choose one of {', '.join(_BY_KEY)}")
    try:
        kinds = [field.type for field in fields(kind)]
        values = [_KINDS_OF[k](text) for k, text in zip(kinds, constants, strict=True)]
    except ValueError as error:
        wanted = "-".join([key, *(field.name for field in fields(kind))])
        raise ValueError(f"cure = {name!r}: give its constants as in {wanted}") from error
    return kind(*values)


_KINDS_OF = {float: float, int: int, str: str}


def check_cures(cures: Sequence[Cure], steps: AnySteps, protocol: Protocol) -> Cures:
    """Return cures as a tuple; raise ValueError unless such a training in these steps can have
    them."""
    cures = tuple(cures)
    for cure in cures:
        if not isinstance(cure, Cure):
            raise ValueError(
                f"cures = {cures!r}: {cure!r} is not a cure; give cures such as Decay(0.01)"
            )
    decided = [cure.decides for cure in cures]
    for part in decided:
        if decided.count(part) > 1:
            named = [cure.name for cure in cures if cure.decides == part]
            raise ValueError(f"cures = {', '.join(named)}: each decides {part}; give one of them")
    if not cures:
        return cures
    _check_field(cures, protocol)
    adapted = isinstance(steps, Adapted) and steps.first_rtol is None
    if adapted and all(isinstance(cure, DrawnSteps) for cure in cures):
        return cures
    if not isinstance(steps, FixedSteps):
        raise ValueError(
            f"cures = {name_cures(cures)}: they are for fixed steps, drawn numbers of steps for "
            f"adapted ones, too; got {steps!r}"
        )
    if any(isinstance(cure, LocalError) for cure in cures):
        _check_local_error(cures, steps)
    for cure in cures:
        if isinstance(cure, RefinedSteps) and cure.first >= steps.n_steps:
            raise ValueError(
                f"first = {cure.first}: give fewer steps than the last ones, {steps.n_steps}"
            )
        solver = getattr(cure, "other", None) or getattr(cure, "against", None)
        if solver == steps.solver:
            raise ValueError(
                f"cure = {cure.name!r}: {solver!r} is the training's solver; name another one"
            )
    return cures


def _check_field(cures, protocol):
    """Raise ValueError for a cure that needs an autonomous field, spectral norms of the layers, or
    states in the plane, where the protocol has none."""
    for cure in cures:
        layered = isinstance(cure, Bounded | StableStart)
        if layered and protocol.field == "conv2d":
            raise ValueError(
                f"cure = {cure.name!r}: it is for dense fields and 1-D convolutions; leave it out"
            )
        if protocol.pieces > 1 and (layered or isinstance(cure, DrawnEnd | LocalError)):
            raise ValueError(
                f"cure = {cure.name!r}: it needs a field that is the same at all times; leave it "
                f"out, or pieces = {protocol.pieces}"
            )
        if isinstance(cure, StableStart) and DATASETS[protocol.dataset].shape != (2,):
            raise ValueError(
                f"cure = {cure.name!r}: it is for data sets in the plane; leave it out, or "
                f"dataset = {protocol.dataset!r}"
            )


def _check_local_error(cures, steps):
    if steps.solver != "euler":
        raise ValueError(
            f"cures = {name_cures(cures)}: the local error is that of Euler's method; got {steps!r}"
        )
    others = [cure.name for cure in cures if isinstance(cure, ChosenSteps | DrawnSolver | DrawnEnd)]
    if others:
        raise ValueError(
            f"cures = {name_cures(cures)}: local takes the training's own steps; leave out "
            f"{', '.join(others)}"
        )


def _as_number(cure, name, above, wanted, below=math.inf):
    """Make a constant a float; raise ValueError unless it is a number between two bounds."""
    value = getattr(cure, name)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not (number and above < value < below):
        raise ValueError(f"{name} = {value!r}: give {wanted}")
    object.__setattr__(cure, name, float(value))
