"""Every figure of a report, by name: for its page, and as files."""

from pathlib import Path

from spine_ray.show.figure import Drawing
from spine_ray.show.figure_curves import draw_curves, draw_settings
from spine_ray.show.figure_ensemble import draw_calibration, draw_disagreements, draw_sizes
from spine_ray.show.figure_ladder import draw_ladder
from spine_ray.show.report import ReportPage

Drawings = dict[str, Drawing]
"""By name; what there is nothing to draw of is not there."""


def draw_figures(page: ReportPage) -> Drawings:
    """Draw what the report holds."""
    members = {member.trial_id for member in page.ensemble.members} if page.ensemble else set()
    tiers = page.tiers
    drawn = (
        draw_ladder(page.points, members, page.ensemble, tiers),
        draw_sizes(page.sizes, len(members)),
        draw_disagreements(page.disagreements),
        draw_curves(page.curves, members, tiers),
        draw_settings(page.points, tiers),
        draw_calibration(page.calibration),
    )
    return {drawing.name: drawing for drawing in drawn if drawing is not None}


def save_figures(folder: Path, drawings: Drawings) -> tuple[Path, ...]:
    """Write every figure to a folder as SVG and as PNG; return the files.

    Raises:
        OSError: If the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(file for drawing in drawings.values() for file in drawing.save(folder))
