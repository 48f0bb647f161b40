"""The scorecard as HTML: a card for each claim, and the records behind them."""

from collections.abc import Iterable
from html import escape

from nodecore.claims.register import Judgement, scale_of
from nodecore.claims.rules import FAILS, SYMBOLS, UNTESTED, get_decision
from nodecore.evidence import store
from nodecore.pages.downloads import file_link


def cards(judgements: Iterable[Judgement]) -> str:
    """Return a line for each claim, its verdict first, that unfolds to the place, the paper's
    number, ours, the models and records, and the rule."""
    return f'<div class="scorecard">{"".join(map(_card, judgements))}</div>'


def _card(judgement):
    claim = judgement.claim
    number = claim.chapter.split("_")[0].lstrip("0")
    rows = {
        "where": f'{escape(claim.where)} · <a href="{claim.chapter}.html">chapter {number}</a>',
        "paper": escape(claim.paper or ""),
        "here": _findings(judgement),
        "not tested": escape(_untested(judgement)),
        "models": _models(judgement),
        "rule": escape(get_decision(claim.decided_by).rule),
    }
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows.items() if text)
    return (
        f'<details class="claim" id="claim-{claim.id}"><summary>{_badge(judgement.verdict)}'
        f'<span class="said">{escape(claim.claim)}</span></summary><dl>{listed}</dl></details>'
    )


def failing_list(judgements: Iterable[Judgement]) -> str:
    """Every claim with a part that does not hold: a link to its card, what such parts found."""
    items = []
    for judgement in judgements:
        failing = [part for part in judgement.parts if part.verdict == FAILS]
        if failing:
            claim, found = judgement.claim, (f"{part.where}: {part.found}" for part in failing)
            listed = "".join(f"<li>{escape(each)}</li>" for each in found)
            link = f'<a href="#claim-{claim.id}">{escape(claim.claim)}</a>'
            items.append(f"<li>{link}<ul>{listed}</ul></li>")
    return f'<ul class="scorecard">{"".join(items)}</ul>' if items else ""


def _badge(verdict):
    symbol = f'<span aria-hidden="true">{SYMBOLS[verdict]}</span>'
    return f'<span class="verdict {verdict.replace(" ", "-")}">{symbol} {verdict}</span>'


def _findings(judgement):
    """List what each part found; a part says its own verdict where they differ."""
    verdicts = {part.verdict for part in judgement.parts}
    items = []
    for part in judgement.parts:
        own = f" <em>({SYMBOLS[part.verdict]} {part.verdict})</em>" if len(verdicts) > 1 else ""
        items.append(f"<li>{escape(part.where)}: {escape(part.found)}{own}</li>")
    return f"<ul>{''.join(items)}</ul>" if items else ""


def _untested(judgement):
    if judgement.claim.reason or not judgement.parts:
        return judgement.reason.removeprefix(f"{UNTESTED}: ")
    return f"{'; '.join(judgement.missing)} (no evidence is committed)" * bool(judgement.missing)


def _models(judgement):
    """Scale, seeds, what a larger scale lacks, and links to the records behind a verdict."""
    if not judgement.materials:
        return ""
    links = ", ".join(
        f'<a href="#records-{m.study}-{m.profile}">{m.study}</a>' for m in judgement.materials
    )
    lacking = f" ({escape(judgement.lacking)})" if judgement.lacking else ""
    return f"{escape(judgement.scale)}{lacking}; records: {links}"


def records_list(judgements: Iterable[Judgement]) -> str:
    """Every study that was read: its folder, scale and runs, and its records as a CSV file."""
    read = {(m.study, m.profile): m for j in judgements for m in j.materials}
    items = []
    for (study, profile), material in read.items():
        csv = material.records.to_csv(index=False, float_format="%.6g").encode()
        paths = [path for evidence in material.found for path in evidence.stored.paths]
        folders = dict.fromkeys(store.shown(path.parent) for path in paths)
        shown = ", ".join(f"<code>{escape(folder)}/</code>" for folder in folders)
        items.append(
            f'<li id="records-{study}-{profile}">{shown}; trainings: {len(material.found)}, '
            f"{scale_of([material])}; {file_link(f'{study}-{profile}.csv', 'text/csv', csv)}</li>"
        )
    return f'<ul class="scorecard records">{"".join(items)}</ul>'
