"""`python -m spine_ray.report`: one self-contained HTML file about a study, from its files, in seconds."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from spine_ray.show.arguments import Parser, print_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Gather, draw, write, return 0; or 2 for bad input."""
    given = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: its threads cost more here than they bring
    from rich.console import Console

    from spine_ray.climb.files import read_files
    from spine_ray.climb.story import page_of
    from spine_ray.show.figures import draw_figures, save_figures
    from spine_ray.show.live import make_console, tell
    from spine_ray.show.page import write_report
    from spine_ray.study.survey import survey

    aside = Console(stderr=True, soft_wrap=True)
    try:
        study = read_files(given.study)
        tell(aside, survey(study.paths).lines)
        page = page_of(study)
        drawings = draw_figures(page)
        files = [given.out or study.paths.report]
        write_report(files[0], page, drawings)
        if given.figures is not None:
            files += save_figures(given.figures, drawings)
    except (ValueError, OSError) as error:
        print_error(error)
        return 2
    console = make_console()
    for file in files:
        size = file.stat().st_size / 1000
        console.print(f"{file}  {size:.0f} kB", markup=False, highlight=False, soft_wrap=True)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m spine_ray.report", description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path)
    parser.add_argument(
        "--out", type=Path, metavar="F.html", help="where to write it; default: report.html in the study"
    )
    parser.add_argument("--figures", type=Path, metavar="DIR", help="write every figure there as well, as SVG and PNG")
    return parser


if __name__ == "__main__":
    sys.exit(main())
