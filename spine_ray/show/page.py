"""The report: one HTML file that holds everything it shows and asks nothing of the network."""

import re
from collections.abc import Sequence
from pathlib import Path

from spine_ray.show.figures import Drawings, draw_figures
from spine_ray.show.page_board import board_sections, ensemble_parts, failures_section, final_section, gates_section
from spine_ray.show.page_parts import anchor, facts, figure, hint, section, text
from spine_ray.show.page_rows import classes_section, gallery_section, timing_section
from spine_ray.show.page_style import STYLE
from spine_ray.show.report import ReportPage
from spine_ray.show.words import share_text

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may do with the page: no script, no request, no picture but those inside."""


def write_report(path: Path, page: ReportPage, drawings: Drawings | None = None) -> None:
    """Write the page to a file; a reader sees the old file or the new one, never a part.

    Args:
        path: The file.
        page: What it shows.
        drawings: Its figures; None: they are drawn.

    Raises:
        OSError: If it cannot be written there.
    """
    whole = page_html(page, draw_figures(page) if drawings is None else drawings)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(whole, encoding="utf-8")
    temporary.replace(path)


def page_html(page: ReportPage, drawings: Drawings) -> str:
    """Return the whole page."""
    body = "\n".join(part for part in _sections(page, drawings) if part)
    titles = re.findall(r"<h2>(.*?)</h2>", body)
    links = "".join(f'<a href="#{anchor(title)}">{title}</a>' for title in titles)
    sentences = "".join(f"<p>{text(sentence)}</p>" for sentence in page.answer.sentences)
    answer = f'<section class="answer">{sentences}</section>'
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(page.title)}: report</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{_header(page)}\n{answer}\n<nav>{links}</nav>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _sections(page: ReportPage, drawings: Drawings) -> list[str]:
    return [
        _ladder(page, drawings),
        final_section(page.final),
        gates_section(page.gates),
        board_sections(page.board, page.tiers),
        _ensemble(page, drawings),
        section("Learning curves", figure(drawings.get("curves"), _CURVES)),
        _settings(page, drawings),
        _calibration(page, drawings),
        classes_section(page.classes),
        gallery_section(page.gallery),
        failures_section(page.failures),
        timing_section(page.timing),
        section("What the last search changed", "".join(f"<p>{text(line)}</p>" for line in page.changed)),
        section("Next", _commands([each for each in page.answer.commands if not each.startswith("open ")])),
        section("How to reproduce", _commands(page.reproduce), _made_of(page)),
    ]


def _header(page: ReportPage) -> str:
    listed = facts(list(page.facts.items()))
    where = f"{text(page.study)}, {text(page.made)}"
    return f'<header><h1>{text(page.title)}</h1><p class="made">{where}</p>{listed}</header>'


_CURVES = (
    "Every trial, epoch by epoch; log-loss of the held-out rows of the folds so far, after one temperature. It rises "
    "where a fold begins, because its model begins anew; head-only trials train all folds at once. What was stopped "
    "early ends in a cross and was compared with others of its tier at the same epoch."
)


def _ladder(page: ReportPage, drawings: Drawings) -> str:
    count = len(page.points)
    shown = "The one completed trial" if count == 1 else f"All {count} completed trials"
    pooled = page.ensemble is not None and len(page.ensemble.members) > 1
    caption = (
        f"{shown}. Bars are 95&nbsp;% intervals over rows, not seeds, of the trials on the board. "
        + ("The ensemble, and what ensembles of every cost reach, are measured as a set. " if pooled else "")
        + "OOF levels are somewhat optimistic: trials were chosen on them."
    )
    return section("Quality against cost", figure(drawings.get("ladder"), caption))


def _ensemble(page: ReportPage, drawings: Drawings) -> str:
    if page.ensemble is None:
        return ""
    lines, members, front = ensemble_parts(page.ensemble)
    sizes = figure(
        drawings.get("sizes"),
        "Each point is the whole selection done again on other folds with at most so many members, and judged on the "
        "rows it did not see, against a best single model that was chosen again as well; bars are 95&nbsp;% intervals "
        "over rows and how they are dealt. The ring is how many members the answer has.",
    )
    apart = figure(
        drawings.get("disagreement"),
        "Nats that an even log pool of the two gains over the mean of both, whatever the labels: 0 for the same "
        "answers. Members (with a star) and the best trial of each backbone, by family; gaps part the families.",
    )
    parts = [lines, members]
    parts += [f"<h3>What every member more is worth</h3>{sizes}"] if sizes else []
    parts += [f"<h3>How differently they see</h3>{apart}"] if apart else []
    return section("Ensemble", *parts, front)


def _settings(page: ReportPage, drawings: Drawings) -> str:
    if not page.points:
        return ""
    drawn = figure(
        drawings.get("settings"),
        "Every completed trial at its setting; lines join the best found of one backbone. No controlled comparison: "
        "the recipe may differ along a line, and good settings were tried more often.",
    )
    sizes = sorted({point.resolution for point in page.points})
    depths = sorted({point.freeze for point in page.points})
    same = [f"every completed trial saw {sizes[0]} px"] if len(sizes) == 1 else []
    same += [f"every completed trial had freeze depth {depths[0]:.2f}"] if len(depths) == 1 else []
    told = " and ".join(same)
    line = hint(f"{told[:1].upper()}{told[1:]}: nothing to compare there.") if told else ""
    return section("Resolution and freeze depth", drawn, line)


def _calibration(page: ReportPage, drawings: Drawings) -> str:
    if not page.calibration:
        return ""
    first = page.calibration[0]
    before = "" if page.error_before is None else f" ({share_text(page.error_before)} without any temperature)"
    line = f"<p>Expected calibration error of the answer: {share_text(first.error)}{before}.</p>"
    caption = (
        "OOF rows in 15 bins of confidence, after temperatures: on the dotted line a model is as sure as it is right, "
        "below it too sure. Small points are few rows; bars are 95&nbsp;% intervals of each bin alone."
    )
    return section("Calibration", line, figure(drawings.get("calibration"), caption))


def _commands(commands: Sequence[str]) -> str:
    return f"<pre>{chr(10).join(map(text, commands))}</pre>" if commands else ""


def _made_of(page: ReportPage) -> str:
    pairs = "".join(f"<dt>{text(label)}</dt><dd>{text(value)}</dd>" for label, value in page.made_of.items())
    return f'<dl class="found">{pairs}</dl>' if pairs else ""
