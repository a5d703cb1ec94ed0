"""`python -m spine_ray.search`: climb the ladder on a data set and answer with evidence."""

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from spine_ray.show.arguments import Parser, print_error
from spine_ray.show.live import make_console, make_progress


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run, print; return the exit code: 0 done, 2 bad input, 3 stopped by a gate, 130 interrupted."""
    began, words = time.time(), list(sys.argv[1:] if arguments is None else arguments)
    given = _parser().parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: workers are what uses the other cores
    console = make_console()
    from spine_ray.climb.interruption import INTERRUPTED, interruptible

    def tell_interrupted() -> None:
        console.print(
            "interrupted; the same command again goes on from here, with --finish it answers from what is there",
            markup=False,
        )

    try:
        with interruptible(tell_interrupted):
            return _run(given, words, console, began)
    except KeyboardInterrupt:
        tell_interrupted()
        return INTERRUPTED


def _run(given: argparse.Namespace, words: Sequence[str], console: Console, began: float) -> int:
    """Run what was asked for and print it; return the exit code."""
    # Imported here, so that --help and wrong words are answered without waiting for torch.
    from spine_ray.climb.fetch import fetch_weights
    from spine_ray.climb.request import StoppedByGate
    from spine_ray.climb.search import plan_search, run_search
    from spine_ray.climb.words import search_request
    from spine_ray.data.sources import open_source
    from spine_ray.show.fetched import tell_fetched
    from spine_ray.show.plan_table import print_plan
    from spine_ray.show.terminal import print_page
    from spine_ray.show.words import one_line

    progress = make_progress(console)
    try:
        if given.fetch is not None:
            files = fetch_weights(given.space, given.set, given.fetch, progress.say)
            tell_fetched(progress, files, given.space, given.fetch)
            return 0
        source = open_source(given.data, given.data_root)
        request = search_request(given, source, f"python -m spine_ray.search {shlex.join(words)}", began)
        if request.plan:
            print_plan(console, plan_search(request, source, progress))
            return 0
        page = run_search(request, source, progress)
    except ValueError as error:
        progress.close()
        print_error(error)
        return 2
    except StoppedByGate as stop:
        progress.close()
        console.print(f"stopped: {one_line(str(stop))}", markup=False, highlight=False)
        return 3
    except KeyboardInterrupt:
        progress.close()
        raise
    print_page(console, page)
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m spine_ray.search", description=__doc__, allow_abbrev=False)
    parser.add_argument("--space", action="append", required=True, metavar="NAME_OR_FILE", help="repeat for a queue")
    parser.add_argument("--data", help="folder of class folders, CSV or Parquet; default: the built-in sample digits")
    parser.add_argument(
        "--data-root", type=Path, metavar="DIR", help="pictures may lie anywhere in DIR; default: the data's own folder"
    )
    parser.add_argument("--study", help="folder of the study, or s3://, gs://; default: studies/SPACE-DATA")
    parser.add_argument("--budget", help="wall time, such as 30m")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override the space")
    parser.add_argument("--weights", help="auto, pretrained, random, or a folder of safetensors")
    parser.add_argument(
        "--fetch", type=Path, metavar="DIR", help="gather the weights files of the spaces in DIR, and train nothing"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers",
        metavar="SHAPE",
        help="trials at once, or such as 4xGPU or 16xCPU; 0: in this process, without Ray; default: what there is",
    )
    parser.add_argument("--address", help="a running Ray cluster")
    parser.add_argument("--tracking", help="MLflow tracking URI; default: a database in the study")
    parser.add_argument("--open-test", action="store_true", help="look at the test split again")
    parser.add_argument("--plan", action="store_true", help="say what it will take and train nothing")
    parser.add_argument("--on", metavar="SHAPE", help="with --plan: for another machine, such as 8xGPU or 16xCPU")
    parser.add_argument("--resume", action="store_true", help="refuse to begin a new study")
    parser.add_argument(
        "--finish", action="store_true", help="train no further trial and make the answer from what is there"
    )
    parser.add_argument("--force", action="store_true", help="go on although preflight found an error")
    parser.add_argument(
        "--update",
        action="append",
        default=[],
        metavar="TRIAL",
        help="train this trial again on data that has changed since, and nothing else; repeat for more",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
