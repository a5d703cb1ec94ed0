"""From the words of a command line to a request: defaults, the sample's own size, durations."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from spine_ray.climb.afar import folder_for
from spine_ray.climb.prepare import look_up
from spine_ray.climb.request import SearchRequest
from spine_ray.data.limits import AuditLimits
from spine_ray.data.rows import Source
from spine_ray.space.configs import start_configs
from spine_ray.space.duration import parse_duration
from spine_ray.space.load import load_space
from spine_ray.space.schema import Space
from spine_ray.study.remote import is_remote
from spine_ray.track.mlflow_log import check_uri
from spine_ray.workers.request import WorkerRequest

SAMPLE_EPOCHS = 6
SAMPLE_SIZE: dict[str, object] = {"resolution": 32, "folds": 3, "budget": "6m", "recipe.symmetry": "none"}
"""What the built-in sample brings: its scans are 8 x 8 px, so a ladder made for photographs is cut to its size."""


def search_request(given: argparse.Namespace, source: Source, command: str, began: float) -> SearchRequest:
    """Resolve the words of `search`.

    Args:
        given: The words.
        source: The data.
        command: All of it as it was typed.
        began: When, seconds since 1970.

    Raises:
        ValueError: If a word means nothing.
    """
    if given.on is not None and not given.plan:
        raise ValueError("--on says for which machine --plan reckons; add --plan")
    if given.finish and (given.plan or given.update):
        raise ValueError(f"--finish trains nothing, so it goes without {'--plan' if given.plan else '--update'}")
    spaces = tuple(_space(name, given.set, source.is_sample) for name in given.space)
    budget = given.budget or spaces[0].budget
    weights = given.weights or spaces[0].weights or "auto"
    names = "-".join(space.name for space in spaces)
    data = "digits" if source.is_sample else Path(str(given.data).rstrip("/")).stem
    study = given.study or f"studies/{names}-{data}"
    uri = study.rstrip("/") if is_remote(study) else None
    return SearchRequest(
        spaces=spaces,
        sets=tuple(given.set),
        data=given.data,
        data_root=given.data_root,
        study=Path(study) if uri is None else folder_for(uri),
        uri=uri,
        budget_s=parse_duration(budget) if budget is not None else None,
        weights=weights,
        seed=given.seed,
        workers=None if given.workers is None else _workers(given.workers),
        address=given.address,
        tracking=None if given.tracking is None else check_uri(given.tracking),
        open_test=given.open_test,
        resume=given.resume,
        finish=given.finish,
        force=given.force,
        update=tuple(given.update),
        plan=given.plan,
        on=None if given.on is None else WorkerRequest.parse(given.on, "--on"),
        began=began,
        command=command,
    )


def _workers(text: str) -> WorkerRequest:
    return WorkerRequest(0) if text == "0" else WorkerRequest.parse(text, "--workers")


def check_request(given: argparse.Namespace, source: Source) -> SearchRequest:
    """Resolve the words of `check`: a search that ends before anything trains.

    Raises:
        ValueError: If a word means nothing.
    """
    space = _space(given.space, given.set, source.is_sample)
    data = "digits" if source.is_sample else Path(str(given.data).rstrip("/")).stem
    return SearchRequest(
        spaces=(space,),
        sets=tuple(given.set),
        data=given.data,
        data_root=given.data_root,
        study=given.out or Path("checks") / data,
        budget_s=None,
        weights=given.weights or space.weights or "auto",
        seed=given.seed,
        workers=None,
        address=None,
        tracking=None,
        open_test=False,
        resume=False,
        finish=False,
        force=False,
        update=(),
        plan=False,
        on=None,
        began=time.time(),
        command="python -m spine_ray.check",
    )


def _space(name: str, sets: Sequence[str], is_sample: bool) -> Space:
    """Load a space; for the built-in sample at the sample's size, with at most its few epochs."""
    space = load_space(name, sets=sets)
    try:
        AuditLimits.of(space.audit)
    except ValueError as error:
        raise ValueError(f"{space.file.name}: {error}") from error
    if not is_sample:
        return space
    (looked_up,) = look_up([space])
    starts = [start for tier in looked_up.tiers for start in start_configs(tier, "random")]
    longest = max((start.training.epochs for start in starts), default=0)
    epochs = {"recipe.epochs": SAMPLE_EPOCHS} if longest > SAMPLE_EPOCHS else {}
    return load_space(name, sets=sets, sample={**SAMPLE_SIZE, **epochs})
