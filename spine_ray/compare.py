"""`python -m spine_ray.compare`: the MLflow UI on localhost, at the runs of a study."""

import contextlib
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from spine_ray.show.arguments import Parser, print_error
from spine_ray.show.live import tell
from spine_ray.study.paths import StudyPaths
from spine_ray.study.survey import opened_to_change, survey
from spine_ray.track.database import begin_database
from spine_ray.track.mlflow_log import deliver_spool, sqlite_uri
from spine_ray.track.serve import serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return 0, or 2 for bad input."""
    parser = Parser(prog="python -m spine_ray.compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path)
    parser.add_argument("--tracking", help="MLflow tracking URI; default: the database in the study")
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args(arguments)
    paths, aside = StudyPaths(given.study), Console(stderr=True, soft_wrap=True)
    uri = given.tracking or sqlite_uri(paths.tracking)
    try:
        found = survey(paths)
        if given.tracking is None and found.lacks(paths.tracking):
            with opened_to_change(paths) as opened:
                tell(aside, opened.lines)
                begin_database(paths)
        else:
            tell(aside, found.lines)
        deliver_spool(uri, given.study.resolve().name, paths.spool)
        with serve(uri, given.study.resolve().name, given.port) as address:
            Console(soft_wrap=True).print(f"compare at {address}\nCtrl-C ends it", markup=False)
            _wait()
    except (ValueError, ConnectionError, RuntimeError) as error:
        print_error(error)
        return 2
    return 0


def _wait() -> None:
    """Wait for Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
