"""What real fine-tunes looked like, small enough to keep: losses and seconds of every epoch, and what was measured.

    python -m spine_ray.search --space smoke --study studies/smoke
    python -m benchmarks.curves studies/smoke --out benchmarks/curves.json

Only completed ones are kept, because one that was stopped does not say how it would have gone on. `benchmarks.scale`
draws its trials from them.
"""

import argparse
import json
import math
import random
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.results import parse_words, print_result
from benchmarks.stored_study import write_study
from spine_ray.core.seeds import derive_seed
from spine_ray.space.config import TrialConfig
from spine_ray.study.events import EpochDone
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tables import Cost, read_costs
from spine_ray.study.trials import Trial, trials_from_events

KEPT = Path(__file__).with_name("curves.json")
TURNS = ("step", "fold", "epoch", "log_loss", "accuracy", "seconds")
"""What is kept of an epoch."""
LUCK, UNEVEN = 0.05, 0.1
"""Spread of drawn losses around the real ones, nats, and of drawn seconds, as a share of them."""


@dataclass(frozen=True)
class Curve:
    """A completed fine-tune, epoch by epoch."""

    config: TrialConfig
    turns: tuple[tuple[float, ...], ...]
    """(epochs, `TURNS`)."""

    @property
    def mean_seconds(self) -> float:
        """Wall time of an epoch on average, s."""
        return sum(turn[TURNS.index("seconds")] for turn in self.turns) / len(self.turns)


@dataclass(frozen=True)
class Curves:
    """Real trials, from which told ones are drawn."""

    curves: tuple[Curve, ...]
    costs: tuple[Cost, ...]

    def draw(self, config: TrialConfig, seed: int, epoch_s: float) -> list[EpochDone]:
        """Return the epochs of a configuration that nobody trained: one of the curves that are nearest, shaken.

        The further its learning rate is from that of the real trial, the worse it is, so there is something to find.

        Args:
            config: Any that the curves' backbones have.
            seed: Decides, with the configuration, which curve and how it is shaken.
            epoch_s: What an epoch takes on average, s; how epochs differ is the real trial's.
        """
        luck = random.Random(derive_seed(seed, "curve", config.trial_id))
        distances = [((each.config.freeze > 0) != (config.freeze > 0), each.config.backbone != config.backbone)
                     for each in self.curves]  # fmt: skip
        curve = luck.choice([each for each, far in zip(self.curves, distances, strict=True) if far == min(distances)])
        off = 0.1 * math.log(config.training.lr / curve.config.training.lr) ** 2 + luck.gauss(0.0, LUCK)
        slower = epoch_s / curve.mean_seconds
        return [_told(config, dict(zip(TURNS, turn, strict=True)), off, slower * luck.lognormvariate(0.0, UNEVEN))
                for turn in curve.turns]  # fmt: skip


def _told(config: TrialConfig, turn: dict[str, float], off: float, slower: float) -> EpochDone:
    loss = max(1e-4, turn["log_loss"] + off)
    return EpochDone(
        trial_id=config.trial_id, step=int(turn["step"]), fold=int(turn["fold"]), epoch=int(turn["epoch"]),
        train_loss=loss, log_loss=loss, accuracy=turn["accuracy"], seconds=turn["seconds"] * slower,
        train_images=1000, train_images_s=1.0, score_images_s=1.0, peak_mb=1.0, views=config.training.epochs,
        micro_batch=config.training.batch_size, note="",
    )  # fmt: skip


def read_curves(file: Path = KEPT) -> Curves:
    """Return the curves that were kept."""
    kept = json.loads(file.read_text())
    curves = [Curve(TrialConfig.from_dict(each["config"]), tuple(map(tuple, each["turns"]))) for each in kept["curves"]]
    return Curves(tuple(curves), tuple(Cost(**each) for each in kept["costs"]))


def gather(studies: Sequence[Path]) -> Curves:
    """Return the curves of the completed fine-tunes of some studies of one device, and what fine-tunes cost there."""
    trials: dict[str, Trial] = {}
    costs: dict[tuple[str, int, float], Cost] = {}
    for study in studies:
        paths = StudyPaths(study)
        trials |= trials_from_events(read_ledger(paths.ledger))
        costs |= read_costs(paths)
    curves = [
        Curve(trial.config, tuple(tuple(_short(getattr(epoch, name)) for name in TURNS) for epoch in trial.epochs))
        for trial in trials.values()
        if trial.is_completed and not trial.config.is_probe
    ]
    return Curves(tuple(curves), tuple(cost for cost in costs.values() if cost.freeze < 1.0))


def keep(curves: Curves, file: Path) -> None:
    """Write curves, one a line."""
    lines = [json.dumps({"config": each.config.to_dict(), "turns": each.turns}) for each in curves.curves]
    costs = [json.dumps(asdict(cost)) for cost in curves.costs]
    file.write_text('{"curves": [\n' + ",\n".join(lines) + '\n],\n"costs": [\n' + ",\n".join(costs) + "\n]}\n")


def _short(value: float) -> float:
    return round(value, 4)


def main() -> None:
    """Keep the curves of studies."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curves", description=__doc__.split("\n")[0])
    parser.add_argument("studies", nargs="*", type=Path, help="finished on one device; with --quick, one is made up")
    parser.add_argument("--out", type=Path, help=f"default: {KEPT.name} beside this module")
    given = parse_words(parser, quick={}, needed=["studies"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.quick:
            write_study(StudyPaths(folder), trials=6, dev_rows=100)
        out = given.out or (folder / KEPT.name if given.quick else KEPT)
        keep(gather(given.studies or [folder]), out)
        kept = read_curves(out)
    epochs = sum(len(curve.turns) for curve in kept.curves)
    print_result(
        {"completed_fine_tunes": len(kept.curves), "epochs": epochs, "costs": len(kept.costs), "file": str(out)}
    )


if __name__ == "__main__":
    main()
