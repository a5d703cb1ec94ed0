"""`python -m spine_ray.predict`: what the ensemble of a study or a bundle says of new pictures, one row an image."""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from spine_ray.show.arguments import Parser
from spine_ray.show.plain import RowsBar, fail, say

if TYPE_CHECKING:
    from spine_ray.ship.artefact import Artefact, Tensors
    from spine_ray.ship.run import Go


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict, print, return 0; or 2 for bad input, 130 when interrupted."""
    given = _parser().parse_args(arguments)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy; torch is told how many threads it has
    bar = RowsBar()
    try:
        # Imported here, so that --help and wrong words are answered without waiting for torch.
        from spine_ray.ship.run import PredictRequest, Run, go_here
        from spine_ray.show.predicted import cascade_line, outcome_lines, refitted_line, scorecard_lines

        request = PredictRequest(
            images=given.images,
            out=given.out,
            labels=given.labels,
            is_cheap_first=given.cascade,
            refit_out=given.refit_temperature,
        )
        run = Run(request, *_opened(given.source, plans_cascade=given.cascade or bool(given.refit_temperature)))
        if given.cascade:
            say(cascade_line(run.artefact.cascade))
        outcome = run.predict(bar.show, go_here if given.address is None else _on_cluster(given.address))
        bar.close()
        for line in outcome_lines(outcome.pictures, outcome.problems, outcome.seconds, given.out):
            say(line)
        for line in scorecard_lines(run.scores(), outcome.pictures, outcome.seen, outcome.cost):
            say(line)
        if given.refit_temperature:
            say(refitted_line(run.refit(), given.refit_temperature))
    except (ValueError, OSError) as error:
        bar.close()
        fail(error)
        return 2
    except KeyboardInterrupt:
        bar.close()
        say("interrupted; no table was written")
        return 130
    return 0


def _opened(root: Path, *, plans_cascade: bool) -> "tuple[Artefact, Tensors]":
    """Open a bundle, or a study; only a study needs what reads its tables."""
    from spine_ray.ship.bundle import is_bundle, open_bundle

    if is_bundle(root):
        return open_bundle(root)
    from spine_ray.climb.artefact import study_artefact, with_cascade
    from spine_ray.climb.pick import open_stored

    study = open_stored(root)
    artefact, tensors = study_artefact(study)
    return (with_cascade(study, artefact) if plans_cascade else artefact), tensors


def _on_cluster(address: str) -> "Go":
    """Return what predicts on a cluster; only that needs ray.

    Raises:
        ValueError: If Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise ValueError(f"--address {address}: Ray is not installed; pip install 'ray[tune]'")
    # Else ray's core warns of how Ray Data's own actors are given what they need.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    from spine_ray.tune.predicting import predicting_on

    return predicting_on(address)


def _parser() -> Parser:
    parser = Parser(prog="python -m spine_ray.predict", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, metavar="STUDY_OR_BUNDLE")
    parser.add_argument(
        "--images", required=True, metavar="D", help="folder of pictures, CSV, Parquet or one picture, also at a URI"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="F", help="table to write, .parquet or .csv")
    parser.add_argument(
        "--labels", type=Path, metavar="F.csv", help="CSV with path, label and maybe group: score the predictions"
    )
    parser.add_argument(
        "--cascade", action="store_true", help="cheap members first, the others only where those are not sure"
    )
    parser.add_argument("--address", help="a running Ray cluster, all of whose machines see the pictures")
    parser.add_argument(
        "--refit-temperature",
        type=Path,
        metavar="DIR",
        help="with --labels: write a bundle whose final temperature is fitted on them",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
