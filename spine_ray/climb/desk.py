"""The open study while a search runs: events go in, tables come out."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from spine_ray.climb.afar import Afar
from spine_ray.climb.answer_so_far import AnswerSoFar
from spine_ray.climb.known import Known
from spine_ray.climb.prepare import Prepared
from spine_ray.climb.request import SearchRequest
from spine_ray.climb.tracking import EventTracker
from spine_ray.ladder.gates import GateDecision
from spine_ray.ladder.view_check import ViewCheck
from spine_ray.sampling.queue import Refusal
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.show.live import Progress
from spine_ray.space.arithmetic import Arithmetic, Device, parse_arithmetic
from spine_ray.space.config import TrialConfig
from spine_ray.study.checkpoint import sweep_checkpoints
from spine_ray.study.events import Event, TrialEnded
from spine_ray.study.ledger import append_event, read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.record import StudyRecord, write_record
from spine_ray.study.tables import Cost, cost_key, write_costs, write_trials
from spine_ray.study.trials import trials_from_events
from spine_ray.workers.failures import WorkFailure
from spine_ray.workers.layout import PoolLayout
from spine_ray.workers.pool import WorkerPool
from spine_ray.workers.spec import WorkerSpec
from spine_ray.workers.tasks import choose_arithmetic, measure_costs


@dataclass(kw_only=True, slots=True)
class Desk(Known):
    """Everything the steps of a search share."""

    paths: StudyPaths
    spec: WorkerSpec
    pool: WorkerPool
    whole: PoolLayout
    """As the machine or cluster was divided at first; with GPUs, one worker on each."""
    progress: Progress
    tracker: EventTracker
    study: StudyRecord
    afar: Afar | None = None
    """The way to the study's URI, if it has one."""
    decisions: list[GateDecision] = field(default_factory=list)
    """Of the gates, in order."""
    views: ViewCheck | None = None
    """What augmentation does to the classes, once that was looked at."""
    _answer: AnswerSoFar | None = field(default=None, init=False)
    """From the first trial that completes."""
    _trouble: ValueError | None = field(default=None, init=False)
    """Why an event could not be written, or what it names not be had."""

    def run(self, plan: TierPlan) -> tuple[Refusal, ...]:
        """Train a tier's trials on the pool and return what was not admitted.

        Raises:
            CannotWriteError: If the disk is full: what happens is no longer written down, so nothing goes on.
            ValueError: If the study's URI does not answer.
        """
        try:
            refusals = self.pool.run_tier(plan, self.spec, self._record)
        except Exception:
            if self._trouble is not None:  # of what its callbacks raise, ray leaves only the text
                raise self._trouble from None
            raise
        if self.afar is not None and plan.control is not None:
            self.afar.bring_if_there(self.paths.control)
        return refusals

    def _record(self, event: Event) -> None:
        """Write an event to the ledger, then show and track it."""
        try:
            append_event(self.paths.ledger, event)
            if self.afar is not None and isinstance(event, TrialEnded) and event.status == "completed":
                self.afar.bring(self.paths.oof(event.trial_id))
        except ValueError as error:
            self._trouble = error
            raise
        self.events.append(event)
        self.progress.event(event)
        self.tracker.put(event)
        if isinstance(event, TrialEnded) and event.status == "completed":
            self._say_answer()

    def _say_answer(self) -> None:
        if self._answer is None:
            self._answer = AnswerSoFar(self.paths, self.samples)
        if line := self._answer.after(trial for trial in self.present.values() if trial.is_completed):
            self.progress.say(f"  {line}")

    def resize_pool(self, layout: PoolLayout) -> None:
        """Have workers of a layout from now on, where it is not the one that is there."""
        if layout.count != self.pool.layout.count:
            self.pool.resize(layout)
            self.spec = replace(self.spec, threads=layout.cpus)

    def measure(self, configs: Sequence[TrialConfig]) -> None:
        """Measure what was not measured before, on workers that have their GPUs for themselves, and keep it."""
        configs = [config for config in configs if not config.is_probe]  # those measure themselves
        if all(cost_key(config) in self.costs or self._is_broken(config) for config in configs):
            return
        self.resize_pool(self.whole)
        self._choose_arithmetic(configs)
        unknown = [config for config in configs if cost_key(config) not in self.costs and not self._is_broken(config)]
        wanted = {cost_key(config): config for config in unknown}
        speeds = measure_costs(list(wanted.values()), self.spec, self.pool)
        for (key, config), speed in zip(wanted.items(), speeds, strict=True):
            if isinstance(speed, WorkFailure):
                self._leave(config, speed)
                continue
            self.costs[key] = Cost(
                backbone=config.backbone,
                resolution=config.resolution,
                freeze=config.freeze,
                device=self.spec.device,
                arithmetic=str(self.spec.arithmetic_of(config)),
                macs=self.prepared.facts[config.backbone, config.resolution].macs,
                **asdict(speed),
            )
        write_costs(self.paths, self.costs.values())

    def _choose_arithmetic(self, configs: Sequence[TrialConfig]) -> None:
        """Measure on the workers what serves each new backbone best, and fix it for the study."""
        chosen = self.study.choices.arithmetic
        unknown = [config for config in configs if config.backbone not in chosen and not self._is_broken(config)]
        fresh = {config.backbone: config for config in reversed(unknown)}
        if fresh:
            found = dict(zip(fresh, choose_arithmetic(list(fresh.values()), self.spec, self.pool), strict=True))
            for backbone, each in found.items():
                if isinstance(each, WorkFailure):
                    self._leave(fresh[backbone], each)
            fit = {backbone: str(each) for backbone, each in found.items() if not isinstance(each, WorkFailure)}
            self.study = self.study.with_arithmetic(fit)
            write_record(self.paths, self.study)
            self.spec = replace(self.spec, arithmetic=arithmetic_of(self.study))

    def _is_broken(self, config: TrialConfig) -> bool:
        """Whether a backbone could not be measured, or failed when it was trained: it is not asked again and again."""
        tried = [
            trial
            for trial in self.present.values()
            if trial.config.backbone == config.backbone and not trial.config.is_probe
        ]
        has_failed = bool(tried) and all(trial.status == "failed" for trial in tried)
        return has_failed or config.backbone in self.unmeasurable

    def _leave(self, config: TrialConfig, failure: WorkFailure) -> None:
        """Say that a backbone cannot be measured; its trial will be tried all the same, and tells why it fails."""
        self.unmeasurable.add(config.backbone)
        self.progress.say(f"{config.backbone} cannot be measured: {failure.reason}")

    def write_tables(self) -> None:
        """Rebuild the table of trials from the ledger, and keep what the probes among them tell of costs."""
        write_trials(self.paths, self.trials.values(), self.costs)
        if self.costs:
            write_costs(self.paths, self.costs.values())


def worker_spec(
    request: SearchRequest, prepared: Prepared, hashes: Mapping[str, str], pixels: Path, device: Device, *, holder: str
) -> WorkerSpec:
    """Return what a worker must know, for one thread in plain float32 that keeps no activations.

    Args:
        request: Study and seed.
        prepared: The weights.
        hashes: Of their files, by backbone.
        pixels: Folder of the decoded pictures.
        device: Where to compute.
        holder: Names the hold on the study.
    """
    files = prepared.weights.files.items()
    weights = tuple((backbone, file.resolve(), hashes.get(backbone, "")) for backbone, file in files)
    return WorkerSpec(
        study=request.study.resolve(),
        holder=holder,
        pixels=pixels,
        seed=request.seed,
        weights=weights,
        device=device,
        threads=1,
        uri=request.uri,
    )


def open_events(paths: StudyPaths) -> list[Event]:
    """Return what the ledger holds, starting it if there is none, and clear away what a death may have left."""
    paths.ledger.parent.mkdir(parents=True, exist_ok=True)
    paths.ledger.touch()
    events = read_ledger(paths.ledger)
    unfinished = {name for name, trial in trials_from_events(events).items() if trial.ended is None}
    sweep_checkpoints(paths, unfinished)
    return events


def arithmetic_of(study: StudyRecord) -> tuple[tuple[str, Arithmetic], ...]:
    """Return what each backbone of a study is computed in."""
    return tuple((backbone, parse_arithmetic(text)) for backbone, text in study.choices.arithmetic.items())
