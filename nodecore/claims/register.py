"""The claims of the paper, and what the evidence says of each.

`book/claims.yml` lists them: what is claimed and where, the paper's number, the function of
`nodecore.claims.rules` that decides it, and the studies it reads. Verdicts are computed from the
evidence whenever they are shown; the file keeps the last ones so that none changes unseen.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache, partial
from itertools import dropwhile, takewhile
from pathlib import Path

import pandas as pd
import torch
import yaml

from nodecore.claims.rules import (
    DECIDED,
    FAILS,
    HOLDS,
    PARTLY,
    UNTESTED,
    VERDICTS,
    Material,
    Part,
    get_decision,
)
from nodecore.data import files
from nodecore.evidence import store
from nodecore.evidence.catalogue import STUDIES
from nodecore.evidence.found import find
from nodecore.evidence.joined import Look, Shown, best, training_of
from nodecore.evidence.names import name_of
from nodecore.ode.checks import check_choice
from nodecore.training.devices import single_threaded

CLAIMS = files.PROJECT / "book" / "claims.yml"


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, in our words. Checked: see `read_claims`.

    where: section, figure or table. chapter: stem of the chapter that looks into it. paper: its
    number as text, if it has one. numbers: those that the decision needs. reason: why it is not
    tested. verdict: the last one that was written down.
    """

    id: str
    group: str
    claim: str
    where: str
    chapter: str
    decided_by: str
    verdict: str | None = None
    paper: str | None = None
    studies: tuple[str, ...] = ()
    numbers: Mapping = field(default_factory=dict)
    reason: str | None = None

    def __post_init__(self):
        get_decision(self.decided_by)
        for name in self.studies:
            check_choice(f"{self.id}: study", name, STUDIES)
        check_choice(f"{self.id}: chapter", self.chapter, chapters())


def chapters() -> list[str]:
    """Stems of the chapters, in order."""
    return sorted(path.stem for path in CLAIMS.parent.glob("0*.py"))


def read_claims(path: Path | None = None) -> list[Claim]:
    """The claims in the file, in order.

    Raises ValueError for a key, function, study or chapter that is unknown, listing the known ones;
    a key that is missing; an id that comes twice; a group that is no list of claims.
    """
    document = yaml.safe_load((path or CLAIMS).read_text())
    if not isinstance(document, dict):
        raise ValueError(f"{path or CLAIMS}: it has no groups; give each a list of claims")
    for group, members in document.items():
        if not isinstance(members, list) or not all(isinstance(row, dict) for row in members):
            raise ValueError(f"group = {group!r} is no list of claims; give each its keys")
    rows = [{"group": g, **row} for g, members in document.items() for row in members]
    claims = [_claim(row) for row in rows]
    ids = [claim.id for claim in claims]
    if twice := sorted({i for i in ids if ids.count(i) > 1}):
        raise ValueError(f"id = {', '.join(twice)}: give each claim an id of its own")
    return claims


def _claim(row):
    known, title = [f.name for f in fields(Claim)], row.get("id", "a claim")
    for key in row:
        check_choice(f"{title}: key", key, known)
    missing = [k for k in ("id", "claim", "where", "chapter", "decided_by") if k not in row]
    if missing:
        raise ValueError(f"{title} has no {', '.join(missing)}: add what is missing")
    return Claim(**{**row, "studies": tuple(row.get("studies", ()))})


# --- evidence -------------------------------------------------------------------------------------


def collect(names: Iterable[str], look: Look, *, at_one_scale: bool = False) -> dict[str, Material]:
    """The evidence of studies by name, those without any left out; see joined.best.

    at_one_scale: studies of one data set are compared, so all of them have one scale. Of a grid of
    step sizes it is the first of its trainings that follow one another.
    """
    beside = {}
    for name in names:
        beside.setdefault(name.split("-")[0] if at_one_scale else name, []).append(name)
    shown = {study.study: study for group in beside.values() for study in best(group, look)}
    found = {name: _material(shown[name]) for name in names}
    return {name: material for name, material in found.items() if material is not None}


def evidence_for(claim: Claim, look: Look) -> dict[str, Material]:
    """The evidence that a claim is decided on, by name of the study."""
    compares = get_decision(claim.decided_by).compares
    return collect(claim.studies, look, at_one_scale=compares)


def _material(shown: Shown) -> Material | None:
    there = {training_of(evidence.run): evidence for evidence in shown.found}
    all_found = [there.get(training) for training in shown.trainings]
    is_grid = shown.trainings[0].steps.n_steps is not None
    from_coarsest = dropwhile(lambda evidence: evidence is None, all_found)
    found = tuple(filter(None, takewhile(bool, from_coarsest) if is_grid else all_found))
    if not found:
        return None
    records = pd.concat([evidence.records for evidence in found], ignore_index=True)
    cut = is_grid and all_found[0] is None
    return Material(shown.study, records, found, cut=cut, lacking=shown.lacking)


# --- verdicts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Judgement:
    """Verdict on a claim, with the evidence behind it.

    parts: one for each data set or number. scale: profile and seeds of the models behind it.
    missing: data sets or studies without evidence. materials: the evidence that was read.
    """

    claim: Claim
    parts: tuple[Part, ...]
    scale: str
    missing: tuple[str, ...]
    materials: tuple[Material, ...]

    @property
    def records(self) -> list[Path]:
        """The files behind it."""
        return [path for m in self.materials for e in m.found for path in e.stored.paths]

    @property
    def lacking(self) -> str:
        """Runs that a larger scale lacks, in words."""
        told = {m.dataset: m.lacking for m in self.materials if m.lacking}
        return "; ".join(f"{name_of(dataset)}, {text}" for dataset, text in told.items())

    @property
    def verdict(self) -> str:
        """Verdict of all parts together; a claim not decided everywhere holds at most in part."""
        seen = {part.verdict for part in self.parts}
        decided = seen & DECIDED
        if not decided:  # the first reason in the order of VERDICTS
            return min(seen, key=VERDICTS.index, default=UNTESTED)
        if decided == {HOLDS}:
            return PARTLY if self.missing or seen - DECIDED else HOLDS
        return FAILS if decided == {FAILS} else PARTLY

    @property
    def reason(self) -> str:
        """Parts that speak for the verdict, and those that were not tested, with the reason."""
        told = {}
        for part in self.parts:
            told.setdefault(part.verdict, []).append(part.where)
        reasons = [f"{verdict}: {', '.join(where)}" for verdict, where in told.items()]
        if self.missing:
            reasons.append(f"{UNTESTED}: {'; '.join(self.missing)} (no evidence is committed)")
        if self.claim.reason:
            reasons.append(self.claim.reason)
        return "; ".join(reasons) or "the runs that it needs are missing"


def judge(claim: Claim, evidence: Mapping[str, Material]) -> Judgement:
    """Decide a claim from the evidence of studies, by name."""
    used = {name: evidence[name] for name in claim.studies if name in evidence}
    parts = get_decision(claim.decided_by)(used, claim.numbers) if used or not claim.studies else []
    return Judgement(
        claim,
        tuple(parts),
        scale_of(used.values()),
        _absent(claim.studies, used),
        tuple(used.values()),
    )


def _absent(names, used):
    """List what has no evidence: a data set, or its studies where another of them has some."""
    there = {name.split("-")[0] for name in used}
    shown = []
    for name in (n for n in names if n not in used):
        dataset, kind = name.split("-", 1)
        shown.append(
            f"{name_of(dataset)}, {name_of(kind)}" if dataset in there else name_of(dataset)
        )
    return tuple(dict.fromkeys(shown))


@single_threaded(torch.device("cpu"))  # its solves are small
def judge_all(
    claims: Iterable[Claim] | None = None, root: Path = store.COMMITTED
) -> list[Judgement]:
    """A Judgement for each claim (of the file, where none are given) from evidence in `root`.

    ValueError where there is no such folder.
    """
    if not root.is_dir():
        raise ValueError(f"root = {str(root)!r} is no folder; give one that holds results")
    look = cache(partial(find, root=root))
    claims = read_claims() if claims is None else claims
    return [judge(claim, evidence_for(claim, look)) for claim in claims]


def scale_of(materials: Iterable[Material]) -> str:
    """Describe profile and seeds, such as "paper scale, 5 seeds"; empty without records."""
    frames = [material.records for material in materials]
    if not frames:
        return ""
    profiles = dict.fromkeys(profile for frame in frames for profile in frame["profile"].unique())
    training = ["train_solver", "n_steps", "rtol", "controller", "start"]
    grouped = (frame.groupby(training, dropna=False)["seed"].nunique() for frame in frames)
    seeds = sorted({count for counts in grouped for count in counts})
    count = " to ".join(str(n) for n in dict.fromkeys((seeds[0], seeds[-1])))
    return f"{' and '.join(profiles)} scale, {count} seed{'s' * (seeds[-1] > 1)}"


def write_verdicts(judgements: Iterable[Judgement], path: Path | None = None) -> None:
    """Put the verdicts into the file, after each claim's `decided_by`; nothing else changes."""
    path, verdicts = path or CLAIMS, {j.claim.id: j.verdict for j in judgements}
    lines, current = [], ""
    for line in path.read_text().splitlines():
        if found := re.match(r"  - id: (\S+)$", line):
            current = found[1]
        if not line.startswith("    verdict: "):
            lines.append(line)
        if line.startswith("    decided_by: "):
            lines.append(f"    verdict: {verdicts[current]}")
    files.write_atomically(path, ("\n".join(lines) + "\n").encode())
