"""What a search will take, before anything trains: it is rehearsed for every way the gates can decide."""

import random
import time
from collections.abc import Sequence
from dataclasses import replace

from spine_ray.climb.desk import Desk
from spine_ray.climb.known import ANSWER_SECONDS, Known
from spine_ray.climb.rehearsal import Rehearsal
from spine_ray.climb.request import StoppedByGate
from spine_ray.climb.tiers import Climb
from spine_ray.core.seeds import derive_seed
from spine_ray.ladder.budget import Budget
from spine_ray.ladder.gates import Verdict
from spine_ray.ladder.outcomes import outcomes_of
from spine_ray.ladder.prediction import Effort, EffortSpan, Outcome, Prediction, told_against
from spine_ray.sampling.simulation import VirtualClock
from spine_ray.space.schema import Space
from spine_ray.study.control import read_control
from spine_ray.study.paths import replace_json
from spine_ray.study.tables import Cost
from spine_ray.workers.request import WorkerRequest

REHEARSALS = 16
"""Of each outcome."""
_OF_ANSWER = (0.15, 1.0)
"""Of the time that is kept for the answer, what passes until the search compares itself with what was predicted."""
GPU_TERA_MACS = (4.0, 25.0)
"""Training arithmetic that a GPU sustains, tera-multiply-accumulates/s, where none was measured: a wide assumption.

ResNet-50 (12 GMAC a training image) is published at about 400 to 2,500 images/s from a V100 in float32 to an H100 in
bfloat16.
"""


Table = dict[tuple[str, int, float], Cost]
"""By `cost_key`."""
Rehearsed = tuple[dict[str, Effort], Effort]
"""What each tier took, by name, and the whole."""


def check_shape(shape: WorkerRequest, device: str) -> None:
    """Refuse a machine of which nothing can be said here.

    Raises:
        ValueError: If it is one of CPUs, and costs are measured on a GPU.
    """
    if shape.device == "cpu" and device != "cpu":
        raise ValueError("--on: costs are measured on a GPU and say nothing of CPUs; ask on a machine without a GPU")


def predict(desk: Desk, budget: Budget, on: WorkerRequest | None = None) -> Prediction:
    """Rehearse the search that the desk is about to begin.

    Args:
        desk: With the costs of every start recipe.
        budget: Of the search.
        on: The machine, if it is not this one.
    """
    here = WorkerRequest(desk.pool.layout.count, desk.spec.device)
    device = desk.spec.device if on is None or on.device is None else on.device
    shape = WorkerRequest(here.count if on is None else on.count, device)
    note, variants = _costs_on(shape, here, {**desk.reckoned(), **desk.costs})
    spent = time.time() - budget.began
    outcomes = []
    ways = outcomes_of(desk.prepared.spaces, len(desk.samples.dev), has_budget=budget.seconds is not None)
    for name, verdicts in ways:
        rehearsed = [
            _rehearse(desk, budget, shape, costs, verdicts, number)
            for costs in variants
            for number in range(REHEARSALS // len(variants))
        ]
        outcomes.append(_outcome(name, verdicts, rehearsed))
    return Prediction(
        spent_seconds=spent,
        pixels_mb=sum(each.stat().st_size for each in desk.spec.pixels.iterdir()) / 1e6,
        workers=shape.count,
        device=device,
        outcomes=tuple(outcomes),
        note=note,
    )


def keep_prediction(desk: Desk, prediction: Prediction) -> None:
    """Keep what is to be expected and tell it in one line."""
    replace_json(desk.paths.plan, {"predicted": prediction.to_dict()})
    wall = prediction.wall_seconds
    desk.progress.say(
        f"this will take about {wall.low / 60:.1f} to {wall.high / 60:.1f} min in all, by what the gates decide; "
        "--plan tells more"
    )


def keep_outcome(desk: Desk, prediction: Prediction, budget: Budget) -> None:
    """Keep what was predicted for the way the gates decided, beside what it took until now."""
    verdicts = [decision.verdict for decision in desk.decisions]
    told = told_against(prediction, verdicts, time.time() - budget.began)
    replace_json(desk.paths.plan, {"predicted": prediction.to_dict(), "told": told})


def _costs_on(shape: WorkerRequest, here: WorkerRequest, costs: Table) -> tuple[str, list[Table]]:
    """Return what is assumed of a machine, and the costs there: measured, or both ends of an assumption."""
    if shape.device == here.device:
        return "", [costs]
    low, high = GPU_TERA_MACS
    note = f"no GPU was measured: assumed to sustain {low:g} to {high:g} tera-multiply-accumulates/s in training"
    return note, [{key: _on_gpu(cost, tera) for key, cost in costs.items()} for tera in GPU_TERA_MACS]


def _on_gpu(cost: Cost, tera_macs: float) -> Cost:
    """Return a cost as it would be on a GPU that sustains so much."""
    suffix = max(1, cost.macs - cost.prefix_macs)
    forward = 1e12 * tera_macs
    return replace(
        cost,
        device="cuda",
        train_images_s=forward / (3.0 * suffix),
        infer_images_s=forward / cost.macs,
        score_images_s=forward / suffix,
        prefix_images_s=None if cost.prefix_images_s is None else forward / max(1, cost.prefix_macs),
    )


def _rehearse(
    desk: Desk,
    budget: Budget,
    shape: WorkerRequest,
    costs: Table,
    verdicts: Sequence[Verdict],
    seed: int,
) -> Rehearsed:
    known = Known(
        request=desk.request,
        samples=desk.samples,
        prepared=desk.prepared,
        device=desk.device,
        events=list(desk.events),
        costs=dict(costs),
        unmeasurable=set(desk.unmeasurable),
    )
    clock = VirtualClock(time.time())
    rehearsal = Rehearsal(
        known, clock, shape.count, iter(verdicts), seed, has_control=read_control(desk.paths) is not None
    )
    try:
        climbs = [Climb(known, rehearsal, space, budget) for space in desk.prepared.spaces]
        for climb in climbs:
            climb.probe()
        for climb in climbs:
            climb.fine_tune()
        _ship(known, clock, shape, desk.prepared.spaces[-1], random.Random(derive_seed(seed, "ship")))
    except StoppedByGate:
        pass  # the outcome that is rehearsed
    parts = list(rehearsal.tiers.values())
    whole = Effort(
        trials=sum(each.trials for each in parts),
        epochs=sum(each.epochs for each in parts),
        images=sum(each.images for each in parts),
        device_seconds=sum(each.device_seconds for each in parts),
        wall_seconds=clock.now - budget.began,
        disk_mb=sum(each.disk_mb for each in parts),
        peak_mb=max((each.peak_mb for each in parts), default=0.0),
    )
    return rehearsal.tiers, whole


def _ship(known: Known, clock: VirtualClock, shape: WorkerRequest, space: Space, luck: random.Random) -> None:
    """Let the time of the selection and of fitting some members once more pass."""
    clock.now += ANSWER_SECONDS * luck.uniform(*_OF_ANSWER)
    completed = [trial.config for trial in known.present.values() if trial.is_completed]
    few = luck.randint(1, max(1, min(space.max_members, len(completed))))
    members = luck.sample(completed, min(few, len(completed)))
    seconds = known.forecast().refit_seconds(members, shape.count)
    clock.now += seconds / known.forecast().stretch


def _outcome(name: str, verdicts: tuple[str, ...], rehearsed: Sequence[Rehearsed]) -> Outcome:
    names = list(dict.fromkeys(tier for tiers, _ in rehearsed for tier in tiers))
    tiers = tuple((tier, EffortSpan.of([each.get(tier, Effort()) for each, _ in rehearsed])) for tier in names)
    return Outcome(name=name, verdicts=verdicts, tiers=tiers, whole=EffortSpan.of([whole for _, whole in rehearsed]))
