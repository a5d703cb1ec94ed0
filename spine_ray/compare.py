"""`python -m spine_ray.compare`: the MLflow UI on localhost, at the runs of a study."""

import contextlib
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from spine_ray.show.arguments import Parser
from spine_ray.study.hold import StudyHeldError, held
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import read_record
from spine_ray.study.tracking import keep_tracking, read_tracking
from spine_ray.track.mlflow_log import check_uri, deliver, sqlite_uri
from spine_ray.track.serve import address_at, check_port, is_server, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring MLflow up to date with the study, then serve until interrupted; return 0, or 2 for bad input."""
    parser = Parser(prog="python -m spine_ray.compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path)
    parser.add_argument("--tracking", help="MLflow tracking URI; default: where the study was tracked")
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args(arguments)
    console = Console(soft_wrap=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server ends with this process
    try:
        read_record(given.study)
        paths = StudyPaths(given.study)
        tracking = read_tracking(paths) or keep_tracking(paths, None)
        uri = check_uri(given.tracking or tracking.uri or sqlite_uri(paths.tracking))
        if not is_server(uri):
            check_port(given.port)
        try:
            with held(paths):
                deliver(uri, paths)
        except StudyHeldError:
            console.print("a search is writing to this study: what is shown grows with it", markup=False)
        if is_server(uri):
            console.print(f"compare at {address_at(uri, tracking.study_id)}", markup=False)
            return 0
        with serve(uri, tracking.study_id, given.port) as address:
            console.print(f"compare at {address}\nCtrl-C ends it", markup=False)
            _wait()
    except (ValueError, ConnectionError) as error:
        Console(stderr=True, soft_wrap=True).print(f"error: {error}", markup=False, highlight=False)
        return 2
    return 0


def _wait() -> None:
    """Wait for Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
