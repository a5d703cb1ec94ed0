"""One search from words to answer."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

from spine_ray.climb.afar import Afar, held_afar
from spine_ray.climb.changes import keep_change
from spine_ray.climb.desk import Desk, arithmetic_of, open_events, worker_spec
from spine_ray.climb.files import read_files
from spine_ray.climb.history import look_at_change, look_back
from spine_ray.climb.plan import check_shape, keep_outcome, keep_prediction, predict
from spine_ray.climb.pool import check_pool, open_pool
from spine_ray.climb.preflight import Rows, begin_study, decode_pictures, look_at_data, report_audit
from spine_ray.climb.prepare import Prepared, look_up, prepare
from spine_ray.climb.request import SearchRequest
from spine_ray.climb.rows import write_comparison
from spine_ray.climb.runner import StudyRunner
from spine_ray.climb.ship import ship
from spine_ray.climb.story import page_of
from spine_ray.climb.tiers import Climb
from spine_ray.climb.tracking import EventTracker, check_tracking, open_tracker
from spine_ray.climb.update import bring_up_to_date
from spine_ray.core.cache import cache_budget
from spine_ray.core.memory import device_here
from spine_ray.data.rows import Source
from spine_ray.ladder.budget import Budget, least_budget
from spine_ray.ladder.prediction import Prediction
from spine_ray.show.live import Progress
from spine_ray.show.report import ReportPage
from spine_ray.space.cost_matrix import cost_table
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import StudyRecord, write_record
from spine_ray.study.survey import opened_to_change
from spine_ray.study.tables import read_costs
from spine_ray.workers.layout import PoolLayout
from spine_ray.workers.pool import WorkerPool
from spine_ray.workers.spec import WorkerSpec

_LATE = 1.1
"""Times its budget after which an answer is late."""


def run_search(request: SearchRequest, source: Source, progress: Progress) -> ReportPage:
    """Run preflight, the tiers, the selection and the refits, and return what there is to show.

    Raises:
        ValueError: If something asked for cannot be done; nothing was changed.
        StoppedByGate: If preflight or a gate ended the search.
    """
    with _open_study(request, source, progress) as (desk, budget):
        desk.tracker.begin()
        before = look_back(desk)
        prediction = None
        if request.update or request.finish:
            desk.paths.plan.unlink(missing_ok=True)  # it is of another search
        if request.update:
            bring_up_to_date(desk, request.update, budget)
        elif not request.finish:
            prediction = _climb(desk, budget)
        shipped = ship(desk, desk.prepared.spaces[-1], budget)
        keep_change(desk.paths, look_at_change(desk, before, shipped))
        if prediction is not None:
            keep_outcome(desk, prediction, budget)
        # From here on the files speak, so that the page is the one that `report` writes.
        study = read_files(desk.paths.root)
        write_comparison(study, shipped.evidence)
        page = page_of(study)
        desk.tracker.refresh()
        _write_report(desk, page)
    return page


def plan_search(request: SearchRequest, source: Source, progress: Progress) -> Prediction:
    """Run preflight, measure what the start recipes cost, and return what the search will take; nothing trains.

    Raises:
        ValueError: If something asked for cannot be done.
        StoppedByGate: If preflight found that it would not begin.
    """
    if request.on is not None:  # refused before anything is written
        check_shape(request.on, device_here())
    with _open_study(request, source, progress) as (desk, budget):
        freezes = [
            replace(start, freeze=freeze)
            for space in desk.prepared.spaces
            for tier in space.tiers
            for start in desk.starts(tier)
            for freeze in tier.trained_freezes
        ]
        desk.measure(freezes)
        return predict(desk, budget, request.on)


def _write_report(desk: Desk, page: ReportPage) -> None:
    from spine_ray.show.page import write_report  # only here: it loads what draws the figures

    desk.progress.say("drawing the report")
    write_report(desk.paths.report, page)


def _climb(desk: Desk, budget: Budget) -> Prediction | None:
    """Run the probes of all spaces, then their fine-tunes; return what was predicted in between."""
    climbs = [Climb(desk, StudyRunner(desk), space, budget) for space in desk.prepared.spaces]
    for climb in climbs:
        climb.probe()
    _check_budget(desk, budget)
    prediction = _predict(desk, budget)
    for climb in climbs:
        climb.fine_tune()
    return prediction


def _check_budget(desk: Desk, budget: Budget) -> None:
    """Refuse a budget that held the first probe alone, and not even that.

    Raises:
        ValueError: With the least budget that would do.
    """
    if budget.seconds is None or len(desk.present) > 1:
        return
    needed = time.time() - budget.began + desk.reserve(desk.pool.layout.count)
    if desk.present and needed > _LATE * budget.seconds:
        raise ValueError(
            f"--budget {budget.seconds:.0f}s is too short for one probe with its answer: the least that would do is "
            f"{least_budget(needed):.0f}s. What is done is kept: the same command with that budget goes on from it, "
            "and --finish answers from it"
        )


def _predict(desk: Desk, budget: Budget) -> Prediction | None:
    """Keep and tell what to expect, by what the probes cost; None where nothing was measured yet."""
    if not desk.costs:
        starts = [start for space in desk.prepared.spaces for tier in space.tiers for start in desk.starts(tier)]
        ends = budget.training_ends
        for _ in range(2):  # the first of them tells which others are worth it
            desk.measure(desk.worth_measuring(starts, None if ends is None else ends - time.time()))
    if not desk.costs:
        return None
    prediction = predict(desk, budget)
    keep_prediction(desk, prediction)
    return prediction


@contextlib.contextmanager
def _open_study(request: SearchRequest, source: Source, progress: Progress) -> Iterator[tuple[Desk, Budget]]:
    """Look at the data, open or begin the study, decode the pictures, start the workers."""
    budget = Budget(began=request.began, seconds=request.budget_s)
    check_pool(request)
    check_tracking(request)
    cache_budget()  # refused before anything is written, too
    paths = StudyPaths(request.study)
    with held_afar(request.uri, request.study, progress.say) as afar, opened_to_change(paths) as opened:
        for line in opened.lines:
            progress.say(line)
        if (request.resume or request.finish) and not paths.record.exists():
            where, word = request.uri or request.study, "--finish" if request.finish else "--resume"
            raise ValueError(f"{word}: there is no study at {where}; leave {word} away to begin one")
        request = replace(request, spaces=look_up(request.spaces))
        rows = look_at_data(request, source)
        prepared = prepare(request, rows.samples, source.is_sample, progress)
        request = replace(request, spaces=prepared.spaces)
        for space in prepared.spaces:
            cost_table(space.cost_matrix, rows.samples.classes)  # refused before anything is written
        record = begin_study(request, rows, prepared.record(), device_here())
        report_audit(request, rows, progress)
        # Sent and tracked around the pool, so that the last of it is taken while the pool shuts down.
        with (
            _sending(afar),
            open_tracker(request, progress) as tracker,
            open_pool(request, progress.say) as pool,
        ):
            record = _trained_on(record, pool.layout, paths, progress)
            # The workers import what they need in the meantime.
            pictures, pixels = decode_pictures(rows, prepared.largest_resolution, progress)
            holder = opened.hold.token if afar is None else afar.token
            hashes, device = record.weights.hashes, pool.layout.device
            spec = worker_spec(request, prepared, hashes, pixels.folder, device, holder=holder)
            spec = replace(
                spec,
                threads=pool.layout.cpus,
                arithmetic=arithmetic_of(record),
                activation_bytes=record.choices.activation_bytes,
            )
            spec = pool.connect(spec, pictures, None if source.is_sample else request.data)
            desk = _desk(request, rows, prepared, record, spec, pool, progress, tracker)
            desk.afar = afar
            yield desk, budget


def _trained_on(record: StudyRecord, layout: PoolLayout, paths: StudyPaths, progress: Progress) -> StudyRecord:
    """Return what holds for the study, with where it trains: the driver's own machine may have no GPU."""
    if record.device == layout.device:
        return record
    if paths.costs.exists():
        kinds = {"cpu": "CPUs", "cuda": "a GPU"}
        progress.say(
            f"WARNING: this study's costs were measured on {kinds[record.device]}, and it trains on "
            f"{kinds[layout.device]} now: predictions and prices mix both"
        )
        return record
    record = replace(record, device=layout.device)
    write_record(paths, record)
    return record


def _sending(afar: Afar | None) -> AbstractContextManager[None]:
    return contextlib.nullcontext() if afar is None else afar.sending()


def _desk(
    request: SearchRequest,
    rows: Rows,
    prepared: Prepared,
    record: StudyRecord,
    spec: WorkerSpec,
    pool: WorkerPool,
    progress: Progress,
    tracker: EventTracker,
) -> Desk:
    paths = StudyPaths(request.study)
    return Desk(
        request=request,
        paths=paths,
        samples=rows.samples,
        prepared=prepared,
        spec=spec,
        pool=pool,
        whole=pool.layout,
        progress=progress,
        tracker=tracker,
        events=open_events(paths),
        study=record,
        device=spec.device,
        costs=read_costs(paths),
    )
