"""Waiting for the machines of a cluster that grows when it is asked to."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from spine_ray.workers.layout import Nodes
from spine_ray.workers.request import WorkerRequest

WAIT_S = 1800.0
"""How long machines are waited for; a spot market that has none for half an hour has none tonight."""
_REPORT_EVERY_S = 60.0


def alive_nodes() -> Nodes:
    """Return what each node of the cluster that this process has joined offers."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def await_machines(workers: WorkerRequest, say: Callable[[str], None], wait_s: float = WAIT_S) -> WorkerRequest:
    """Ask the cluster for what is wanted, wait until it is there, and return what is.

    It is asked by a placement group, which goes with this process: after its death no machine is kept for it.

    Args:
        workers: So many GPUs or cores.
        say: Called with a line on what is waited for.
        wait_s: At most, s; then what is there has to do.

    Raises:
        ValueError: If nothing of the kind is there by then.
    """
    kind = "GPU" if workers.device == "cuda" else "CPU"
    with _asked([{"CPU": 1.0, "GPU": 1.0} if kind == "GPU" else {"CPU": 1.0}] * workers.count) as group:
        ends, reported = time.monotonic() + wait_s, -1
        while not group.wait(min(_REPORT_EVERY_S, wait_s)):
            there = _count(kind)
            if time.monotonic() >= ends:
                break
            if there != reported:
                say(f"waiting for machines: {there} of {workers.count} {kind}s are there")
            reported = there
        else:
            return workers
    there = _count(kind)
    if there < 1:
        raise ValueError(f"--workers {workers}: after {wait_s / 60:.0f} min the cluster has no machine with a {kind}")
    say(f"WARNING: after {wait_s / 60:.0f} min {there} of {workers.count} {kind}s are there: going on with those")
    return replace(workers, count=there)


def _count(kind: str) -> int:
    """Return how many GPUs or cores there are on nodes that hold workers."""
    return sum(int(node.get(kind, 0)) for node in alive_nodes() if node.get("CPU", 0) >= 1)


@contextlib.contextmanager
def _asked(bundles: list[dict[str, float]]) -> Iterator[PlacementGroup]:
    group = placement_group(bundles)
    try:
        yield group
    finally:
        remove_placement_group(group)
