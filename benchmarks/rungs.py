"""What rungs save and what they lose: the same tiers simulated with the search's rungs and with other ones.

    python -m benchmarks.rungs --seeds 300

Queue, rungs and stopping are the search's own, on a virtual clock; suggestions are blind, so that all rungs see the
same trials in the same order. The best trial is the one whose loss over all folds is the lowest, whether or not it was
stopped. Trials are drawn from the kept curves (`benchmarks/curves.json`: 4 epochs, 3 folds, each fold's own luck as it
was), and from a model of 10 epochs and 5 folds whose spreads are those of the kept curves.
"""

import argparse
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from benchmarks.curves import read_curves
from benchmarks.results import parse_words, print_result, say
from spine_ray.core.seeds import derive_seed
from spine_ray.ladder.rungs import Contender, Rungs
from spine_ray.sampling.queue import SearchDomain
from spine_ray.sampling.sampler import random_suggest
from spine_ray.sampling.simulation import VirtualClock, simulate_tier
from spine_ray.sampling.tier_plan import TierPlan
from spine_ray.space.config import TrialConfig
from spine_ray.space.configs import start_configs
from spine_ray.space.fields import Around
from spine_ray.space.schema import TierSpace
from spine_ray.study.events import EpochDone, Event, TrialStarted
from spine_ray.study.trials import Trial, trials_from_events

SEEDS, TRIALS, REDUCTION = 300, 12, 3
BACKBONES = {
    "kept": ("test_resnet", "test_convnext", "test_vit", "test_vit2"),
    "drawn": ("resnet50", "resnet101", "efficientnet_b3", "efficientnet_b4"),
}
FAR, ALIKE = 0.3, 0.1
"""Standard deviations of the log of a trial's loss between backbones, and as much between a backbone's configurations.

The first is that of the kept curves (0.42 together); the second is that of configurations near a good start.
"""
BETWEEN_FOLDS, INTERACTION = 0.12, 0.11
"""The same of a fold, for all trials alike, and of a trial in a fold: those of the kept curves, 480 rows held out."""
DROP, UNEVEN_DROP = 0.88, 0.18
"""By how much the log of the loss falls from the first quarter of a fold to its end, and its spread between trials."""
BETWEEN_EPOCHS = 0.02

Script = Callable[[TrialConfig], list[EpochDone]]


@dataclass
class EveryFoldRungs(Rungs):
    """The rungs until 2026-11-28: a third of fold 0, and the end of every fold but the last."""

    folds: int = field(kw_only=True)

    @property
    def milestones(self) -> tuple[int, ...]:
        """A third of fold 0, rounded up, and the folds' ends."""
        ends = [fold * self.epochs for fold in range(1, self.folds)]
        return tuple(sorted({math.ceil(self.epochs / 3), *ends}))

    def judge(self, contender: Contender, step: int, loss: float) -> str | None:
        """Protect start recipes at the end of fold 0 too."""
        reason = super().judge(contender, step, loss)
        is_protected = contender.is_start and step <= self.epochs and math.isfinite(loss)
        return None if is_protected else reason


@dataclass(frozen=True, kw_only=True)
class EveryFoldPlan(TierPlan):
    """A tier of which nothing is known, with the earlier rungs."""

    def rungs(self) -> Rungs:
        """Return rungs at which nobody was seen."""
        return EveryFoldRungs(self.starts[0].training.epochs, self.reduction, folds=self.folds)


class StartsKeptRungs(Rungs):
    """The search's rungs, at which no start recipe is stopped for its loss."""

    def judge(self, contender: Contender, step: int, loss: float) -> str | None:
        """Record everybody, and let start recipes go on."""
        reason = super().judge(contender, step, loss)
        return None if contender.is_start and math.isfinite(loss) else reason


@dataclass(frozen=True, kw_only=True)
class StartsKeptPlan(TierPlan):
    """A tier of which nothing is known, whose start recipes are all completed."""

    def rungs(self) -> Rungs:
        """Return rungs at which nobody was seen."""
        return StartsKeptRungs(self.starts[0].training.epochs, self.reduction)


PLANS: dict[str, type[TierPlan]] = {
    "every fold, until 2026-11-28": EveryFoldPlan,
    "fold 0 alone": TierPlan,
    "fold 0 alone, starts never stopped": StartsKeptPlan,
}


@dataclass(frozen=True, kw_only=True)
class Tier:
    """A tier to simulate over and over."""

    space: TierSpace
    folds: int
    script: Callable[[int], Script]
    """From a seed to the epochs of each trial."""

    @property
    def epochs(self) -> int:
        """Epochs of a fold."""
        return start_configs(self.space, "pretrained")[0].training.epochs


@dataclass(frozen=True, kw_only=True)
class Played:
    """What became of one tier."""

    work: float
    """Epochs trained, as a share of those of all its trials in full."""
    wasted: float
    """Share of the epochs trained that went into trials stopped after two folds or more."""
    completed: float
    """Share of the trials."""
    starts_stopped: float
    """Share of the start recipes."""
    best_stopped: float
    """1.0 if the best trial was stopped, else 0.0."""
    regret: float
    """Loss over all folds of the best completed trial minus the best trial's, nats."""


def play(tier: Tier, kind: type[TierPlan], workers: int, seed: int) -> Played:
    """Simulate a tier once."""
    events: list[Event] = []
    script = tier.script(seed)
    simulate_tier(_plan(tier, kind, seed), workers, VirtualClock(0.0), script, events.append)
    trials = list(trials_from_events(events).values())
    full = tier.epochs * tier.folds
    losses = {trial.trial_id: script(trial.config)[-1].log_loss for trial in trials}
    best = min(losses, key=losses.__getitem__)
    done = [losses[trial.trial_id] for trial in trials if trial.is_completed]
    late = [len(trial.epochs) for trial in trials if trial.status == "stopped"]
    trained = sum(len(trial.epochs) for trial in trials)
    starts = [trial for trial in trials if trial.started.is_start]
    return Played(
        work=trained / (len(trials) * full),
        wasted=sum(epochs for epochs in late if epochs >= 2 * tier.epochs) / trained,
        completed=len(done) / len(trials),
        starts_stopped=_share_stopped(starts),
        best_stopped=_share_stopped([trial for trial in trials if trial.trial_id == best]),
        regret=min(done) - losses[best],
    )


def kept_tier() -> Tier:
    """Return a tier whose trials are drawn from the kept curves."""
    curves = read_curves()
    space = TierSpace(
        name="kept", backbones=BACKBONES["kept"], resolutions=(32,), freezes=(0.0, 0.75), trials=TRIALS,
        recipe={"epochs": 4, "lr": Around(3.0)},
    )  # fmt: skip
    return Tier(space=space, folds=3, script=lambda seed: lambda config: curves.draw(config, seed, 1.0))


def drawn_tier(spread: float, interaction: float) -> Tier:
    """Return a tier whose trials are drawn from the model.

    Args:
        spread: Standard deviation of the log of a trial's loss between backbones, and between their configurations.
        interaction: Standard deviation of the log of a trial's loss in one fold, besides the fold's own.
    """
    space = TierSpace(
        name="drawn", backbones=BACKBONES["drawn"], resolutions=(224,), trials=TRIALS,
        recipe={"epochs": 10, "lr": Around(3.0)},
    )  # fmt: skip
    return Tier(
        space=space, folds=5, script=lambda seed: lambda config: list(_drawn(config, seed, 5, (spread, interaction)))
    )


def _drawn(config: TrialConfig, seed: int, folds: int, spreads: tuple[float, float]) -> Iterator[EpochDone]:
    """Yield the epochs of a trial: its loss falls alike in every fold, and counts over all folds so far."""
    luck = random.Random(derive_seed(seed, "trial", config.trial_id))
    between, interaction = spreads
    quality = random.Random(derive_seed(seed, "backbone", config.backbone)).gauss(0.0, between)
    quality += luck.gauss(0.0, between)
    drop, epochs, before = luck.gauss(DROP, UNEVEN_DROP), config.training.epochs, list[float]()
    for fold in range(folds):
        level = quality + random.Random(derive_seed(seed, "fold", fold)).gauss(0.0, BETWEEN_FOLDS)
        level += luck.gauss(0.0, interaction)
        for epoch in range(1, epochs + 1):
            to_go = (math.exp(-4.0 * epoch / epochs) - math.exp(-4.0)) / (math.exp(-1.0) - math.exp(-4.0))
            loss = 0.4 * math.exp(level + drop * to_go + luck.gauss(0.0, BETWEEN_EPOCHS))
            yield _epoch(config, fold * epochs + epoch, fmean([*before, loss]))
        before.append(loss)


def _epoch(config: TrialConfig, step: int, loss: float) -> EpochDone:
    epochs = config.training.epochs
    return EpochDone(
        trial_id=config.trial_id, step=step, fold=(step - 1) // epochs, epoch=(step - 1) % epochs + 1, train_loss=loss,
        log_loss=loss, accuracy=0.5, seconds=1.0, train_images=1, train_images_s=1.0, score_images_s=1.0, peak_mb=1.0,
        views=epochs, micro_batch=config.training.batch_size, note="",
    )  # fmt: skip


def _plan(tier: Tier, kind: type[TierPlan], seed: int) -> TierPlan:
    space, starts = tier.space, start_configs(tier.space, "pretrained")
    pairs = frozenset((backbone, side) for backbone in space.backbones for side in space.resolutions_of(backbone))

    def describe(config: TrialConfig, is_start: bool) -> TrialStarted:
        return TrialStarted(
            trial_id=config.trial_id, tier=space.name, config=config, family=config.backbone.rstrip("0123456789"),
            is_start=is_start, total_steps=config.training.epochs * tier.folds, params=1, macs=1,
            weights_source="drawn", licence="", data_version="", time=0.0,
        )  # fmt: skip

    return kind(
        domain=SearchDomain(tier=space, weights="pretrained", buildable=pairs, seed=seed),
        starts=starts, first=(), known=(), most_trials=space.trials, folds=tier.folds, reduction=REDUCTION,
        control=None, deadline=None, admit=lambda config, now: None, effort=lambda config: 1.0,
        hang_timeout=lambda config: 60.0, describe=describe, suggest=random_suggest,
    )  # fmt: skip


def _share_stopped(trials: Sequence[Trial]) -> float:
    return fmean(trial.status == "stopped" for trial in trials)


def main() -> None:
    """Print, for each kind of trials and each kind of rungs, what became of the tiers on average."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rungs", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"tiers of each kind; default: {SEEDS}")
    parser.add_argument("--workers", type=int, default=2, help="trials at once; default: 2")
    words = parse_words(parser, quick={"seeds": 2})
    tiers = {
        "kept curves": kept_tier(),
        "drawn": drawn_tier(FAR, INTERACTION),
        "drawn, a quarter of the rows": drawn_tier(FAR, 2 * INTERACTION),
        "drawn, alike": drawn_tier(ALIKE, INTERACTION),
        "drawn, alike, a quarter of the rows": drawn_tier(ALIKE, 2 * INTERACTION),
    }
    lines = []
    for name, tier in tiers.items():
        played: dict[str, list[Played]] = {rungs: [] for rungs in PLANS}
        for seed in range(words.seeds):
            for rungs, kind in PLANS.items():
                played[rungs].append(play(tier, kind, words.workers, seed))
        for rungs, found in played.items():
            means = {each: round(fmean(getattr(one, each) for one in found), 4) for each in Played.__annotations__}
            lines.append({"trials": name, "rungs": rungs, **means})
            say(str(lines[-1]))
    print_result({"seeds": words.seeds, "workers": words.workers, "tiers": lines})


if __name__ == "__main__":
    main()
