"""From the words of a command line to a request: defaults, the sample's own size, durations."""

import argparse
from pathlib import Path

from spine_ray.climb.request import SearchRequest
from spine_ray.data.rows import Source
from spine_ray.space.duration import parse_duration
from spine_ray.space.load import load_space

SAMPLE_SIZE: dict[str, object] = {
    "resolution": 32,
    "folds": 3,
    "budget": "13m",
    "recipe.epochs": 6,
    "recipe.flip": False,
}
"""What the built-in sample brings: its scans are 8 x 8 px, so a ladder made for photographs is cut to its size."""


def search_request(given: argparse.Namespace, source: Source, command: str) -> SearchRequest:
    """Resolve the words of `search`.

    Raises:
        ValueError: If a word means nothing.
    """
    sample = SAMPLE_SIZE if source.is_sample else None
    spaces = tuple(load_space(name, sets=given.set, sample=sample) for name in given.space)
    budget = given.budget or spaces[0].budget
    weights = given.weights or spaces[0].weights or "auto"
    names = "-".join(space.name for space in spaces)
    data = "digits" if source.is_sample else Path(str(given.data).rstrip("/")).stem
    return SearchRequest(
        spaces=spaces,
        sets=tuple(given.set),
        data=given.data,
        study=given.study or Path("studies") / f"{names}-{data}",
        budget_s=parse_duration(budget) if budget is not None else None,
        weights=weights,
        seed=given.seed,
        workers=given.workers,
        address=given.address,
        tracking=given.tracking,
        open_test=given.open_test,
        resume=given.resume,
        command=command,
    )
