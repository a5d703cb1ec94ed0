"""`python -m spine_ray.select`: choose or edit the ensemble of a study from its stored OOF logits, in seconds."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from spine_ray.show.arguments import Parser, print_error


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose, print, return 0; or 2 for bad input."""
    given = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: its threads cost more here than they bring
    from rich.console import Console

    from spine_ray.climb.choice import Limits, read_choice
    from spine_ray.climb.members import ensemble_board
    from spine_ray.climb.pick import Edits, open_stored, pick
    from spine_ray.show.live import make_console, tell
    from spine_ray.show.terminal import print_ensemble
    from spine_ray.study.paths import StudyPaths
    from spine_ray.study.record import read_record
    from spine_ray.study.survey import opened_to_change, survey

    console, aside = make_console(), Console(stderr=True, soft_wrap=True)
    paths = StudyPaths(given.study)
    try:
        read_record(paths.root)  # there has to be one
        if given.show:
            tell(aside, survey(paths).lines)
            study = open_stored(paths.root)
            choice = read_choice(paths, study.trials)
        else:
            edits = Edits(add=given.add, drop=given.drop, pin=given.pin, ban=given.ban, free=given.free)
            limits = Limits(max_members=given.max_members, max_cost=given.max_cost, max_per_family=given.max_per_family)
            with opened_to_change(paths) as opened:
                tell(aside, opened.lines)
                study = open_stored(paths.root)
                choice = pick(study, edits, limits)
    except ValueError as error:
        print_error(error)
        return 2
    print_ensemble(console, ensemble_board(choice), choice.wishes.lines, study.not_fitted)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m spine_ray.select", description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path)
    parser.add_argument("--max-members", type=int, default=8, help="most members; default: 8")
    parser.add_argument("--max-cost", type=float, metavar="MS", help="most milliseconds an image of the whole set")
    parser.add_argument("--max-per-family", type=int, metavar="N", help="most members of one family")
    for name, told in (
        ("add", "change the ensemble that is there: put this trial in"),
        ("drop", "change the ensemble that is there: leave this member out"),
        ("pin", "choose anew with this trial in"),
        ("ban", "choose anew without this trial"),
        ("free", "forget what was wished about this trial"),
    ):
        parser.add_argument(f"--{name}", action="append", default=[], metavar="TRIAL", help=f"{told}; repeatable")
    parser.add_argument("--show", action="store_true", help="print the ensemble that is there and change nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
