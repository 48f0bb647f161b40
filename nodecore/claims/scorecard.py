"""The scorecard: how many claims have which verdict, Table 1 beside ours, the README's table."""

import math
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import pandas as pd

from nodecore.claims import published
from nodecore.claims.paper import TABLE1, percent, scale_note
from nodecore.claims.register import Judgement, collect, judge_all, scale_of, write_verdicts
from nodecore.claims.rules import SYMBOLS, VERDICTS, Material
from nodecore.claims.rules.base import search_of
from nodecore.data import files
from nodecore.evidence import store
from nodecore.evidence.catalogue import calmer_controller
from nodecore.evidence.found import find
from nodecore.evidence.means import summary, tell_mean
from nodecore.evidence.names import name_of
from nodecore.evidence.tables import as_trained, under_exact_flow
from nodecore.training.adapted import STARTS, USUAL_START

README = files.PROJECT / "README.md"
MARKS = ("<!-- from the records: make scorecard -->\n", "<!-- end -->\n")
SETTINGS = "settings"  # the group of claims that are no findings


def count_verdicts(judgements: Iterable[Judgement]) -> str:
    """Count the verdicts, as in "42 claims and numbers: 13 ✓ holds, ...", settings apart."""
    judgements = list(judgements)
    settings = [j.verdict for j in judgements if j.claim.group == SETTINGS]
    findings = [j.verdict for j in judgements if j.claim.group != SETTINGS]
    text = f"{len(findings)} claims and numbers: {_counted(findings)}."
    if settings:
        text += f" Apart from these, {len(settings)} settings and definitions: "
        text += f"{_counted(settings)}."
    return text


def _counted(verdicts):
    counts = Counter(verdicts)
    return ", ".join(f"{counts[v]} {SYMBOLS[v]} {v}" for v in VERDICTS if counts[v])


# --- Table 1 --------------------------------------------------------------------------------------


COLUMNS = ["dataset", "training", "source", "scale", "nfe", "low", "middle", "high"]
COLUMNS += ["accuracy", "std", "flow", "flow_std"]
UNKNOWN = (math.nan, math.nan)


def table1(root: Path = store.COMMITTED) -> pd.DataFrame:
    """The paper's Table 1 and the same from the records, a row for each training and source.

    Columns: dataset, training (grid, Algorithm 1 from either start, the calmer controller), source
    (paper, here), scale, nfe as text, low, middle and high of the NFE (the pair of the grid and
    what lies between; the seeds' smallest, mean and largest), accuracy and std, the same weights'
    under the exact flow and its std (not known of the paper's). Without records there is no row.
    """
    rows, look = [], partial(find, root=root)
    for dataset, paper in TABLE1.items():
        grid, adaption = (collect([f"{dataset}-{kind}"], look) for kind in ("euler", "adaption"))
        low, high = paper["grid NFE"]
        nfe = paper["adaption NFE"]
        rows.append([dataset, "grid", "paper", "", f"{low}–{high}", low, (low + high) / 2, high])
        rows[-1] += [*paper["grid accuracy"], *UNKNOWN]
        rows += _grid_row(dataset, *grid.values())
        rows.append([dataset, "Algorithm 1", "paper", "", f"{nfe:.1f}", nfe, nfe, nfe])
        rows[-1] += [*paper["adaption accuracy"], *UNKNOWN]
        rows += _adaption_rows(dataset, *adaption.values())
    return pd.DataFrame(rows, columns=COLUMNS)


def _grid_row(dataset, material=None):
    if material is None or (search := search_of(material)) is None:
        return []
    low, high = (search.coarser or search.critical) + 1, search.critical + 1
    source = [dataset, "grid", "here", scale_of([material])]
    flow = _flow(material.records.query("n_steps == @search.best"))
    return [[*source, search.nfe, low, (low + high) / 2, high, search.mean, search.std, *flow]]


def _flow(records):
    """Mean accuracy under the exact flow and its standard deviation over the seeds that trained."""
    return summary(under_exact_flow(records)["accuracy"])[:2]


def _adaption_rows(dataset, material=None):
    if material is None:
        return []
    rows = []
    names = {("algorithm1", USUAL_START): "Algorithm 1"}
    names |= {("algorithm1", s): f"Algorithm 1, {name_of(s)}" for s in STARTS if s != USUAL_START}
    calmer = calmer_controller(dataset)
    names[calmer, USUAL_START] = name_of(calmer)
    for (controller, start), training in names.items():
        records = material.records[material.records["start"] == start]
        records = records[records["controller"] == controller]
        own = as_trained(records)
        if own.empty:
            continue
        nfe, accuracy = own["nfe_per_iteration"], own["accuracy"]
        extent = nfe.min(), nfe.mean(), nfe.max()
        source = [dataset, training, "here", scale_of([Material(material.study, own)])]
        rows.append([*source, tell_mean(nfe), *extent, *summary(accuracy)[:2], *_flow(records)])
    return rows


def table1_text(table: pd.DataFrame) -> str:
    """Table 1 in Markdown; what has another scale or other seeds than the paper says so."""
    lines = [
        "| data set | | NFE, paper | NFE, here | accuracy, paper | accuracy, here "
        "| its exact flow |",
        "| :-- | :-- | --: | --: | --: | --: | --: |",
    ]
    shown = set()
    for _, rows in table.groupby(["dataset", "training"], sort=False):
        dataset, training = rows[["dataset", "training"]].iloc[0]
        sides = rows.set_index("source")
        title = "" if dataset in shown else f"{name_of(dataset)} "
        scale = sides["scale"].to_dict().get("here", "")
        note = f", {scale_note(scale)}" if scale_note(scale) else ""
        shown_nfe = sides["nfe"].to_dict()
        nfe = [shown_nfe.get(side, "–") for side in ("paper", "here")]
        accuracies = [
            percent(*sides.loc[side, ["accuracy", "std"]]) if side in sides.index else "–"
            for side in ("paper", "here")
        ]
        if "here" in sides.index:
            accuracies.append(percent(*sides.loc["here", ["flow", "flow_std"]]).replace("-", "–"))
        else:
            nfe[1] = accuracies[1] = "not measured yet"
            accuracies.append("–")
        lines.append(f"| {title}| {training}{note} | {' | '.join([*nfe, *accuracies])} |")
        shown.add(dataset)
    return "\n".join(lines)


# --- what is written down -------------------------------------------------------------------------


def readme_part(judgements: Iterable[Judgement], table: pd.DataFrame) -> str:
    """Return the text that stands between the marks of the README."""
    return f"\n{table1_text(table)}\n\n{count_verdicts(judgements)}\n\n"


def readme_with(text: str, part: str) -> str:
    """A README with another part between its marks. Raises ValueError if a mark is not there."""
    before, first, rest = text.partition(MARKS[0])
    _, second, after = rest.partition(MARKS[1])
    if not first or not second:
        raise ValueError(f"the README has lost a mark; it needs both of {MARKS}")
    return before + first + part + second + after


def refresh() -> None:
    """Judge all claims; write the verdicts into book/claims.yml, the README's part, and what
    machines read beside the results."""
    judgements, table = judge_all(), table1()
    write_verdicts(judgements)
    text = readme_with(README.read_text(), readme_part(judgements, table))
    files.write_atomically(README, text.encode())
    published.write(table)
    print(count_verdicts(judgements))
