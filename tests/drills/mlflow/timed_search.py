"""A search that measures how long its tracker kept it: `python timed_search.py FILE WORDS...`."""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from spine_ray.search import main
from spine_ray.track.mlflow_log import Tracker

kept = {"blocked_s": 0.0, "calls": 0.0, "thread_cpu_s": 0.0}


def timed(name: str) -> None:
    method = getattr(Tracker, name)

    def measured(self: Tracker, *words: Any) -> None:
        begin = time.perf_counter()
        method(self, *words)
        kept["blocked_s"] += time.perf_counter() - begin
        kept["calls"] += 1

    setattr(Tracker, name, measured)


def with_its_cpu_time(run: Any) -> Any:
    def measured(self: Tracker) -> None:
        assert threading.current_thread().name == "tracker"
        run(self)
        kept["thread_cpu_s"] = time.thread_time()

    return measured


if __name__ == "__main__":
    for each in ("begin", "put", "refresh", "close"):
        timed(each)
    Tracker._run = with_its_cpu_time(Tracker._run)  # type: ignore[method-assign]
    began = time.perf_counter()
    code = main(sys.argv[2:])
    kept["search_s"] = time.perf_counter() - began
    Path(sys.argv[1]).write_text(json.dumps(kept))
    sys.exit(code)
