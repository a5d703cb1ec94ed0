"""The sections of the page that the terminal shows too: board, ensemble, test split, gates, failures."""

from collections.abc import Sequence

from spine_ray.ladder.gates import GateDecision
from spine_ray.show.board import (
    BEST_ARE_STARTS,
    FRONT_TITLE,
    BoardRow,
    EnsembleBoard,
    FailureRow,
    FinalBoard,
    FrontRow,
    MemberRow,
    Role,
    behind_text,
    best_are_starts,
    ensemble_lines,
    loss_order,
    opened_line,
    share_interval,
)
from spine_ray.show.page_parts import bar, facts, hint, loss_range, name, number, section, share_bar, table, text
from spine_ray.show.page_style import TIER_COLOURS
from spine_ray.show.words import (
    NOTHING,
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

_COMPARED = (
    "The same rows, folds, views and start recipe for every backbone: differences are those of the backbones, except "
    "where a line in colour says what else is not the same. OOF log-loss, lower is better; ± holds for all pairs of "
    "the table at once, in 95&nbsp;% of samples of rows, not seeds."
)
_PROBED = (
    "A linear head solved on the frozen features of every backbone, on the same rows and folds, at the resolution "
    "where it is best. Fine-tuning can change the order. OOF log-loss, lower is better; ± holds for all pairs of the "
    "table at once, in 95&nbsp;% of samples of rows."
)
_FOUND = (
    "The lowest OOF log-loss found of every backbone, whatever its settings; levels are somewhat optimistic, as "
    "trials were chosen on them. ± as above."
)
_EARLIER = "On the rows as they were; not comparable with the others."
_HEADS = (
    "tier", "backbone", "#log-loss", "interval", "#behind the best", "#accuracy", "#px", "#freeze", "#min",
    "#images/s", "#MACs",
)  # fmt: skip


def board_sections(rows: Sequence[BoardRow], tiers: Sequence[str]) -> str:
    """Return the probes, the controlled comparison, the best found, and the trials on earlier rows."""
    if not rows:
        return section("Board", "<p>No trial has completed.</p>")
    best = f"<p>{BEST_ARE_STARTS}</p>" if best_are_starts(rows) else _role(rows, "best", tiers, _FOUND)
    return (
        section("Probes", _role(rows, "probe", tiers, _PROBED))
        + section("Controlled comparison", _role(rows, "start", tiers, _COMPARED))
        + section("Best found", best)
        + section("Trained before the data changed", _role(rows, "earlier", tiers, _EARLIER))
    )


def ensemble_parts(ensemble: EnsembleBoard) -> tuple[str, str, str]:
    """Return what the ensemble reaches, its members, and what every cost buys."""
    lines = "".join(f"<p>{text(line)}</p>" for line in ensemble_lines(ensemble))
    most = max((member.brings or 0.0 for member in ensemble.members), default=0.0)
    measures = ("temperature", "log-loss", "rise", "disagreement", "folds", "ms/image")
    heads = ("member", "#weight", "#brings", "", *(f"#{measure}" for measure in measures))
    drawn = table(heads, [_member(member, most) for member in ensemble.members])
    told = hint(
        "Nats on OOF rows. Brings: its Shapley part of what the ensemble gains over the class frequencies; more is "
        "better. Log-loss: its own, lower is better. Rise: by how much the ensemble's rises without it. Disagreement: "
        "mean KL from the pool. Folds: in which share of them it was chosen again on the other rows."
    )
    return lines, drawn + told, _front(ensemble.front)


def final_section(final: FinalBoard | None) -> str:
    """Return the results on the test split."""
    if final is None:
        return ""
    rows = [
        f"<tr><td>{text(result.artefact)}</td>{number(str(result.rows))}{number(loss_text(result.log_loss))}"
        f"{number(interval_text(result.low, result.high))}{number(share_text(result.accuracy))}"
        f"{number(share_interval(result))}</tr>"
        for result in final.results
    ]
    heads = ("artefact", "#rows", "#log-loss", "#interval", "#accuracy", "#interval")
    return section("Test split", table(heads, rows) if rows else "", hint(text(opened_line(final.opened))))


def gates_section(decisions: Sequence[GateDecision]) -> str:
    """Return every decision between two tiers with its numbers."""
    return section("Gates", "".join(map(_gate, decisions)))


def failures_section(failures: Sequence[FailureRow]) -> str:
    """Return the trials that failed, and why."""
    rows = [
        f'<tr><td>{name(row.trial_id)}</td><td>{text(row.tier)}</td><td class="failed">{text(row.reason)}</td></tr>'
        for row in failures
    ]
    return section("Failures", table(("trial", "tier", "reason"), rows) if rows else "")


def tier_class(tier: str, tiers: Sequence[str]) -> str:
    """Return the style class of a tier: its place among the tiers gives the colour."""
    return f"t{tiers.index(tier) % TIER_COLOURS}"


def _role(rows: Sequence[BoardRow], role: Role, tiers: Sequence[str], told: str) -> str:
    chosen = sorted((row for row in rows if row.role == role), key=loss_order)
    if not chosen:
        return ""
    scale = loss_range(rows)
    drawn = [_board_row(row, tier_class(row.tier, tiers), scale) for row in chosen]
    if chosen[0].behind == 0.0:
        drawn[0] = drawn[0].replace("<tr>", '<tr class="first">', 1)
    return table(_HEADS, drawn) + hint(told)


def _board_row(row: BoardRow, style: str, scale: tuple[float, float]) -> str:
    low_high = "" if row.low is None else f"<small>{interval_text(row.low, row.high)}</small>"
    whisker = "" if row.log_loss is None else bar(row.low, row.high, row.log_loss, scale, style)
    cells = [
        f'<td class="tier"><i class="dot {style}"></i>{text(row.tier)}</td>',
        f"<td>{text(row.backbone)}<small>{text(row.family)}, {text(row.trial_id)}</small></td>",
        number(loss_text(row.log_loss)),
        f"<td>{whisker}{low_high}</td>",
        number(behind_text(row)),
        number(share_text(row.accuracy)),
        number(str(row.resolution)),
        number(freeze_text(row.freeze)),
        number(minutes_text(row.minutes)),
        number(rate_text(row.train_images_s)),
        number(count_text(row.macs)),
    ]
    noted = f'<tr class="noted"><td></td><td colspan="{len(cells) - 1}">{text(row.note)}</td></tr>' if row.note else ""
    return f"<tr>{''.join(cells)}</tr>{noted}"


def _member(member: MemberRow, most: float) -> str:
    brought = share_bar(member.brings / most) if member.brings is not None and most > 0.0 else ""
    cells = [
        f"<td>{text(member.backbone)}<small>{text(member.family)}, {text(member.trial_id)}</small></td>",
        number(f"{member.weight:.3f}"),
        number(loss_text(member.brings)),
        f"<td>{brought}</td>",
        number(f"{member.temperature:.2f}"),
        number(loss_text(member.log_loss)),
        number(change_text(member.rise)),
        number(loss_text(member.disagreement)),
        number(NOTHING if member.chosen_in is None else f"{member.chosen_in:.0%}"),
        number(NOTHING if member.cost_ms is None else f"{member.cost_ms:.2f}"),
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _front(front: Sequence[FrontRow]) -> str:
    if len(front) < 2:
        return ""
    heads = ("#ms/image", "#log-loss", "members", "best single model for as much", "#log-loss")
    rows = [
        "<tr>"
        + number(f"{row.cost_ms:.2f}")
        + number(loss_text(row.log_loss))
        + f"<td>{text(', '.join(row.members))}</td><td>{text(row.single)}</td>"
        + number(loss_text(row.single_log_loss))
        + "</tr>"
        for row in front
    ]
    return f"<h3>{FRONT_TITLE}</h3>{table(heads, rows)}"


def _gate(decision: GateDecision) -> str:
    verdict = f'<span class="verdict {decision.verdict}">{text(name_text(decision.verdict))}</span>'
    head = f"<p><b>{text(decision.gate)}</b> after {text(decision.after)}{verdict}</p>"
    evidence = facts([(name_text(label), number_text(value)) for label, value in decision.numbers.items()])
    findings = "".join(f'<p class="finding">{text(finding)}</p>' for finding in decision.findings)
    return f'<div class="gate">{head}<p>{text(decision.reason)}</p>{findings}{evidence}</div>'
