"""The report: one HTML file that holds everything it shows and asks nothing of the network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spine_ray.ladder.gates import GateDecision
from spine_ray.show.board import (
    BEST_ARE_STARTS,
    FRONT_TITLE,
    ROLE_TITLE,
    Answer,
    BoardRow,
    EnsembleBoard,
    FailureRow,
    FinalBoard,
    FrontRow,
    MemberRow,
    behind_text,
    best_are_starts,
    ensemble_lines,
    loss_order,
    opened_line,
    share_interval,
)
from spine_ray.show.figure import cost_figure, html_text, legend, loss_range, tier_class, tiers_of, whisker
from spine_ray.show.page_style import STYLE
from spine_ray.show.words import (
    change_text,
    count_text,
    freeze_text,
    interval_text,
    loss_text,
    minutes_text,
    name_text,
    number_text,
    rate_text,
    share_text,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportPage:
    """All that a report shows."""

    study: str
    made: str
    """When, as it is to be read."""
    answer: Answer
    board: tuple[BoardRow, ...]
    gates: tuple[GateDecision, ...] = ()
    ensemble: EnsembleBoard | None = None
    final: FinalBoard | None = None
    changed: tuple[str, ...] = ()
    """What the last search changed, a sentence each."""
    failures: tuple[FailureRow, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    """What a reader must know of the study by name: rows, classes, folds, weights, seed, versions."""
    reproduce: tuple[str, ...] = ()
    """Commands that made the study."""


def write_report(path: Path, page: ReportPage) -> None:
    """Write the page to a file; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(page_html(page), encoding="utf-8")
    temporary.replace(path)


def page_html(page: ReportPage) -> str:
    """Return the whole page."""
    sections = [
        _header(page),
        f'<section class="answer"><p>{html_text(" ".join(page.answer.sentences))}</p></section>',
        _figure(page),
        _board(page.board),
        _ensemble(page.ensemble),
        _final(page.final),
        _gates(page.gates),
        _changed(page.changed),
        _failures(page.failures),
        _commands("Next", page.answer.commands),
        _commands("How to reproduce", page.reproduce),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html_text(page.study)}: report</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _header(page: ReportPage) -> str:
    facts = "".join(f"<li><b>{html_text(name)}</b>{html_text(value)}</li>" for name, value in page.facts.items())
    listed = f'<ul class="facts">{facts}</ul>' if facts else ""
    return f'<header><h1>{html_text(page.study)}</h1><p class="made">{html_text(page.made)}</p>{listed}</header>'


def _figure(page: ReportPage) -> str:
    members = {member.trial_id for member in page.ensemble.members} if page.ensemble else set()
    drawn = cost_figure(page.board, members)
    if not drawn:
        return ""
    inside = f"<figure style='margin:0'>{drawn}<figcaption>{legend(page.board)}</figcaption></figure>"
    return f"<section><h2>Quality against cost</h2>{inside}</section>"


def _board(rows: Sequence[BoardRow]) -> str:
    if not rows:
        return "<section><h2>Board</h2><p>No trial has completed.</p></section>"
    tiers, scale = tiers_of(rows), loss_range(rows)
    parts = []
    for role, title in ROLE_TITLE.items():
        chosen = sorted((row for row in rows if row.role == role), key=loss_order)
        if role == "best" and best_are_starts(rows):
            parts.append(f"<p>{BEST_ARE_STARTS}</p>")
        elif chosen:
            drawn = [_board_row(row, tier_class(row.tier, tiers), scale) for row in chosen]
            drawn[0] = drawn[0].replace("<tr>", '<tr class="first">', 1)
            parts.append(f"<h3>{title}</h3>{_table(_BOARD_HEADS, drawn)}")
    hint = (
        "OOF log-loss, lower is better; levels are somewhat optimistic, as trials were chosen on them. "
        "± holds for all pairs of a table at once, over rows, not seeds."
    )
    return f'<section><h2>Board</h2>{"".join(parts)}<p class="hint">{hint}</p></section>'


_BOARD_HEADS = (
    "tier",
    "backbone",
    "#px",
    "#freeze",
    "#log-loss",
    "interval",
    "#behind the best",
    "#accuracy",
    "#min",
    "#images/s",
    "#MACs",
    "",
)


def _board_row(row: BoardRow, style: str, scale: tuple[float, float]) -> str:
    low_high = "" if row.low is None else f"<small>{interval_text(row.low, row.high)}</small>"
    cells = [
        f'<td><i class="dot {style}"></i>{html_text(row.tier)}</td>',
        f"<td>{html_text(row.backbone)}<small>{html_text(row.family)}, {html_text(row.trial_id)}</small></td>",
        _number(str(row.resolution)),
        _number(freeze_text(row.freeze)),
        _number(loss_text(row.log_loss)),
        f"<td>{whisker(row, *scale, style)}{low_high}</td>",
        _number(behind_text(row)),
        _number(share_text(row.accuracy)),
        _number(minutes_text(row.minutes)),
        _number(rate_text(row.train_images_s)),
        _number(count_text(row.macs)),
        f'<td class="note">{html_text(row.note)}</td>',
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _ensemble(ensemble: EnsembleBoard | None) -> str:
    if ensemble is None:
        return ""
    measures = ("temperature", "log-loss", "rise without it", "brings", "disagreement", "chosen in folds", "ms/image")
    heads = ("member", "#weight", "", *(f"#{measure}" for measure in measures))
    table = _table(heads, [_member(member) for member in ensemble.members])
    lines = "".join(f"<p>{html_text(line)}</p>" for line in ensemble_lines(ensemble))
    return f"<section><h2>Ensemble</h2>{lines}{table}{_front(ensemble.front)}</section>"


def _front(front: Sequence[FrontRow]) -> str:
    if len(front) < 2:
        return ""
    heads = ("#ms/image", "#log-loss", "members", "best single model for as much", "#log-loss")
    rows = [
        "<tr>"
        + _number(f"{row.cost_ms:.2f}")
        + _number(loss_text(row.log_loss))
        + f"<td>{html_text(', '.join(row.members))}</td><td>{html_text(row.single)}</td>"
        + _number(loss_text(row.single_log_loss))
        + "</tr>"
        for row in front
    ]
    return f"<h3>{FRONT_TITLE}</h3>{_table(heads, rows)}"


def _member(member: MemberRow) -> str:
    cost = "-" if member.cost_ms is None else f"{member.cost_ms:.2f}"
    cells = [
        f"<td>{html_text(member.backbone)}<small>{html_text(member.family)}, {html_text(member.trial_id)}</small></td>",
        _number(f"{member.weight:.3f}"),
        f'<td style="width:110px"><i class="share" style="width:{100 * member.weight:.0f}px"></i></td>',
        _number(f"{member.temperature:.2f}"),
        _number(loss_text(member.log_loss)),
        _number(change_text(member.rise)),
        _number(loss_text(member.brings)),
        _number(loss_text(member.disagreement)),
        _number("-" if member.chosen_in is None else f"{member.chosen_in:.0%}"),
        _number(cost),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _final(final: FinalBoard | None) -> str:
    if final is None:
        return ""
    rows = [
        f"<tr><td>{html_text(result.artefact)}</td>{_number(str(result.rows))}{_number(loss_text(result.log_loss))}"
        f"{_number(interval_text(result.low, result.high))}{_number(share_text(result.accuracy))}"
        f"{_number(share_interval(result))}</tr>"
        for result in final.results
    ]
    heads = ("artefact", "#rows", "#log-loss", "#interval", "#accuracy", "#interval")
    table = _table(heads, rows) if rows else ""
    return f"<section><h2>Test split</h2>{table}<p class='hint'>{html_text(opened_line(final.opened))}</p></section>"


def _gates(decisions: Sequence[GateDecision]) -> str:
    if not decisions:
        return ""
    return f"<section><h2>Gates</h2>{''.join(map(_gate, decisions))}</section>"


def _gate(decision: GateDecision) -> str:
    evidence = [
        f"<li><b>{html_text(name_text(name))}</b>{html_text(number_text(value))}</li>"
        for name, value in decision.numbers.items()
    ]
    verdict = f'<span class="verdict {decision.verdict}">{html_text(name_text(decision.verdict))}</span>'
    head = f"<p><b>{html_text(decision.gate)}</b> after {html_text(decision.after)}{verdict}</p>"
    listed = f'<ul class="facts">{"".join(evidence)}</ul>' if evidence else ""
    return f'<div class="gate">{head}<p>{html_text(decision.reason)}</p>{listed}</div>'


def _changed(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    return (
        f"<section><h2>What this search changed</h2>{''.join(f'<p>{html_text(line)}</p>' for line in lines)}</section>"
    )


def _failures(failures: Sequence[FailureRow]) -> str:
    if not failures:
        return ""
    rows = [
        f"<tr><td>{html_text(row.trial_id)}</td><td>{html_text(row.tier)}</td>"
        f'<td class="failed">{html_text(row.reason)}</td></tr>'
        for row in failures
    ]
    return f"<section><h2>Failures</h2>{_table(('trial', 'tier', 'reason'), rows)}</section>"


def _commands(title: str, commands: Sequence[str]) -> str:
    if not commands:
        return ""
    return f"<section><h2>{title}</h2><pre>{chr(10).join(map(html_text, commands))}</pre></section>"


def _table(heads: Sequence[str], rows: Sequence[str]) -> str:
    """Build a table; a head that begins with # stands over numbers."""
    cells = (f'<th class="n">{head[1:]}</th>' if head.startswith("#") else f"<th>{head}</th>" for head in heads)
    inside = f"<thead><tr>{''.join(cells)}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table>{inside}</table></div>'


def _number(text: str) -> str:
    return f'<td class="n">{html_text(text)}</td>'
