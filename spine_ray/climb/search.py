"""One search from words to answer."""

import contextlib
import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from spine_ray.climb.afar import Afar, held_afar
from spine_ray.climb.changes import keep_change
from spine_ray.climb.desk import Desk, arithmetic_of, open_events, work_order
from spine_ray.climb.files import read_files
from spine_ray.climb.history import look_at_change, look_back
from spine_ray.climb.plan import check_shape, keep_outcome, keep_prediction, predict
from spine_ray.climb.preflight import Rows, begin_study, decode_pictures, look_at_data, report_audit
from spine_ray.climb.prepare import Prepared, prepare
from spine_ray.climb.request import SearchRequest
from spine_ray.climb.rows import write_comparison
from spine_ray.climb.runner import StudyRunner
from spine_ray.climb.ship import ship
from spine_ray.climb.story import page_of
from spine_ray.climb.tiers import Climb
from spine_ray.climb.update import bring_up_to_date
from spine_ray.core.cache import cache_budget
from spine_ray.core.memory import device_here
from spine_ray.data.places import Place
from spine_ray.data.rows import Source
from spine_ray.ladder.budget import Budget
from spine_ray.ladder.prediction import Prediction
from spine_ray.show.live import Progress
from spine_ray.show.report import ReportPage
from spine_ray.space.cost_matrix import cost_table
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import StudyRecord, write_record
from spine_ray.study.survey import opened_to_change
from spine_ray.study.tables import read_costs
from spine_ray.study.tracking import keep_tracking
from spine_ray.track.mlflow_log import Tracker, public_uri, sqlite_uri
from spine_ray.tune.cluster import Workers, running_ray, share
from spine_ray.tune.node import base_here
from spine_ray.tune.node_check import check_nodes
from spine_ray.tune.order import WorkOrder

_BREAK_S = 2.0
"""How long MLflow is waited for when the search is interrupted, s."""


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
        if request.update:
            desk.paths.plan.unlink(missing_ok=True)  # it is of another search
            bring_up_to_date(desk, request.update, budget)
        else:
            prediction = _predict(desk, budget)
            for space in desk.prepared.spaces:
                Climb(desk, StudyRunner(desk), space, budget).run()
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
            for freeze in tier.freezes
        ]
        desk.measure(freezes)
        return predict(desk, budget, request.on)


def _write_report(desk: Desk, page: ReportPage) -> None:
    from spine_ray.show.page import write_report  # only here: it loads what draws the figures

    desk.progress.say("drawing the report")
    write_report(desk.paths.report, page)


def _predict(desk: Desk, budget: Budget) -> Prediction:
    """Measure the start recipes of all tiers, in a budget those that it could hold; keep and tell what to expect."""
    starts = [each for space in desk.prepared.spaces for tier in space.tiers for each in desk.starts(tier)]
    ends = budget.training_ends
    for _ in range(2):  # the first of them tells which others are worth it
        desk.measure(desk.worth_measuring(starts, None if ends is None else ends - time.time()))
    prediction = predict(desk, budget)
    keep_prediction(desk, prediction)
    return prediction


@contextlib.contextmanager
def _open_study(request: SearchRequest, source: Source, progress: Progress) -> Iterator[tuple[Desk, Budget]]:
    """Look at the data, open or begin the study, decode the pictures, start the workers."""
    budget = Budget(began=request.began, seconds=request.budget_s)
    if request.address is None:  # refused before anything is written
        share([{"CPU": float(os.cpu_count() or 1), "GPU": torch.cuda.device_count()}], request.workers)
    cache_budget()  # likewise
    paths = StudyPaths(request.study)
    with held_afar(request.uri, request.study, progress.say) as afar, opened_to_change(paths) as opened:
        for line in opened.lines:
            progress.say(line)
        if request.resume and not paths.record.exists():
            where = request.uri or request.study
            raise ValueError(f"--resume: there is no study at {where}; leave --resume away to begin one")
        rows = look_at_data(request, source)
        prepared = prepare(request, len(rows.samples.classes), source.is_sample, progress)
        request = replace(request, spaces=prepared.spaces)
        for space in prepared.spaces:
            cost_table(space.cost_matrix, rows.samples.classes)  # refused before anything is written
        record = begin_study(request, rows, prepared.record(), device_here())
        report_audit(request, rows, progress)
        # Sent and tracked around ray, so that the last of it is taken while ray shuts down.
        with (
            _sending(afar),
            _tracking(request) as tracker,
            running_ray(request.address, request.workers, progress.say) as workers,
        ):
            record = _trained_on(record, workers, paths, progress)
            # The workers import what they need in the meantime.
            pictures, pixels = decode_pictures(rows, prepared.largest_resolution, progress)
            holder = opened.hold.token if afar is None else afar.token
            order = work_order(request, prepared, record.weights.hashes, pixels.folder, workers.device, holder=holder)
            order = replace(
                order,
                threads=workers.cpus,
                arithmetic=arithmetic_of(record),
                activation_bytes=record.choices.activation_bytes,
                base=None if request.address is None else base_here(pictures),
            )
            if request.address is not None:
                _check_cluster(order, None if source.is_sample else request.data, progress)
            desk = _desk(request, rows, prepared, record, order, workers, progress, tracker)
            desk.afar = afar
            yield desk, budget


def _trained_on(record: StudyRecord, workers: Workers, paths: StudyPaths, progress: Progress) -> StudyRecord:
    """Return what holds for the study, with where it trains: the driver's own machine may have no GPU."""
    if record.device == workers.device:
        return record
    if paths.costs.exists():
        kinds = {"cpu": "CPUs", "cuda": "a GPU"}
        progress.say(
            f"WARNING: this study's costs were measured on {kinds[record.device]}, and it trains on "
            f"{kinds[workers.device]} now: predictions and prices mix both"
        )
        return record
    record = replace(record, device=workers.device)
    write_record(paths, record)
    return record


def _check_cluster(order: WorkOrder, data: str | None, progress: Progress) -> None:
    """Look at every node before anything trains, a line each.

    Raises:
        ValueError: If one is not ready.
    """
    reports = check_nodes(order, None if data is None else Place.of(data).uri)
    for report in reports:
        progress.say(report.line)
    broken = [report for report in reports if report.problems]
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(reports)} nodes are not ready, first {broken[0].name}: {broken[0].problems[0]}"
        )


def _sending(afar: Afar | None) -> AbstractContextManager[None]:
    return contextlib.nullcontext() if afar is None else afar.sending()


def _desk(
    request: SearchRequest,
    rows: Rows,
    prepared: Prepared,
    record: StudyRecord,
    order: WorkOrder,
    workers: Workers,
    progress: Progress,
    tracker: Tracker,
) -> Desk:
    paths = StudyPaths(request.study)
    return Desk(
        request=request,
        paths=paths,
        samples=rows.samples,
        prepared=prepared,
        order=order,
        workers=workers,
        whole=workers,
        progress=progress,
        tracker=tracker,
        events=open_events(paths),
        study=record,
        costs=read_costs(paths),
    )


@contextlib.contextmanager
def _tracking(request: SearchRequest) -> Iterator[Tracker]:
    paths = StudyPaths(request.study)
    tracking = keep_tracking(paths, public_uri(request.tracking) if request.tracking else None)
    tracker = Tracker(request.tracking or sqlite_uri(paths.tracking), tracking, paths, open_events(paths))
    patience = None
    try:
        yield tracker
    except KeyboardInterrupt:
        patience = _BREAK_S
        raise
    finally:
        tracker.close(patience)
