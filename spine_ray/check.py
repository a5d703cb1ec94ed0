"""`python -m spine_ray.check`: the checks of hour one alone: is the data, and what is made of it, fit to train on?"""

import sys
from collections.abc import Sequence
from pathlib import Path

from spine_ray.show.arguments import Parser, print_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Check, print; return 0, 2 for bad input, or 3 where the data must be mended first."""
    given = _parser().parse_args(arguments)

    from spine_ray.climb.check import run_check
    from spine_ray.climb.words import check_request
    from spine_ray.data.sources import open_source
    from spine_ray.show.audit_table import print_audit
    from spine_ray.show.live import make_console, make_progress

    console = make_console()
    progress = make_progress(console)
    try:
        source = open_source(given.data, given.data_root)
        checked = run_check(check_request(given, source), source, progress)
    except ValueError as error:
        progress.close()
        print_error(error)
        return 2
    progress.close()
    print_audit(console, checked.audit, checked.paths, tuple(map(str, checked.files)))
    return 3 if checked.audit.of("error") else 0


def _parser() -> Parser:
    parser = Parser(prog="python -m spine_ray.check", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", help="folder of class folders, CSV or Parquet; default: the built-in sample digits")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="pictures may lie anywhere in DIR; default: the data's own folder"
    )
    parser.add_argument("--space", default="ladder", metavar="NAME_OR_FILE", help="whose first tier and thresholds")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override the space")
    parser.add_argument("--out", type=Path, help="folder for what is found; default: checks/DATA")
    parser.add_argument("--weights", help="auto, pretrained, random, or a folder of safetensors")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
