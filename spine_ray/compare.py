"""`python -m spine_ray.compare`: the MLflow UI on localhost, at the runs of a study."""

import contextlib
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from spine_ray.show.arguments import Parser, print_error
from spine_ray.show.live import tell
from spine_ray.study.hold import StudyHeldError
from spine_ray.study.paths import CannotWriteError, StudyPaths
from spine_ray.study.record import read_record
from spine_ray.study.survey import opened_to_change, survey
from spine_ray.study.tracking import Tracking, keep_tracking, read_tracking
from spine_ray.track.mlflow_log import check_uri, deliver, has_mlflow, sqlite_uri
from spine_ray.track.serve import address_at, check_port, is_server, serve


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring MLflow up to date with the study, then serve until interrupted; return 0, or 2 for bad input."""
    parser = Parser(prog="python -m spine_ray.compare", description=__doc__, allow_abbrev=False)
    parser.add_argument("study", type=Path)
    parser.add_argument("--tracking", help="MLflow tracking URI; default: where the study was tracked")
    parser.add_argument("--port", type=int, default=5000)
    given = parser.parse_args(arguments)
    console, paths = Console(soft_wrap=True), StudyPaths(given.study)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server ends with this process
    try:
        read_record(paths.root)  # there has to be one
        if not has_mlflow():
            raise ValueError("the comparison is MLflow's, which is not installed: pip install mlflow")
        uri, tracking = _up_to_date(paths, given.tracking, given.port)
        if is_server(uri):
            console.print(f"compare at {address_at(uri, tracking.study_id)}", markup=False)
            return 0
        with serve(uri, tracking.study_id, given.port) as address:
            console.print(f"compare at {address}\nCtrl-C ends it", markup=False)
            _wait()
    except (ValueError, ConnectionError) as error:
        print_error(error)
        return 2
    return 0


def _up_to_date(paths: StudyPaths, wanted: str | None, port: int) -> tuple[str, Tracking]:
    """Mend the study and bring MLflow up to date with it, where it may be written to; say what there is to say.

    Returns:
        MLflow's tracking URI and how the study is known there.
    """
    aside = Console(stderr=True, soft_wrap=True)
    try:
        with opened_to_change(paths) as opened:
            tell(aside, opened.lines)
            tracking = read_tracking(paths) or keep_tracking(paths, None)
            uri = _uri_of(paths, tracking, wanted, port)
            deliver(uri, paths)
            return uri, tracking
    except StudyHeldError:
        tell(aside, ["a search is writing to this study: what is shown grows with it"])
    except CannotWriteError as error:
        tell(aside, [*survey(paths).lines, f"shown as it was last tracked: {error}"])
    known = read_tracking(paths)
    if known is None:
        raise ValueError(f"{paths.root} was never tracked by MLflow, so there is nothing to show yet")
    return _uri_of(paths, known, wanted, port), known


def _uri_of(paths: StudyPaths, tracking: Tracking, wanted: str | None, port: int) -> str:
    uri = check_uri(wanted or tracking.uri or sqlite_uri(paths.tracking))
    if not is_server(uri):
        check_port(port)
    return uri


def _wait() -> None:
    """Wait for Ctrl-C."""
    with contextlib.suppress(KeyboardInterrupt):
        threading.Event().wait()


if __name__ == "__main__":
    sys.exit(main())
