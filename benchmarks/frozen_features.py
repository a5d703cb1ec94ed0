"""The mark that a search has to beat: frozen features, a logistic regression on each, the mean of their probabilities.

    python -m benchmarks.frozen_features --train study.csv --judge judge.csv --weights WEIGHTS --px 64 96

What a practitioner does in minutes. Every backbone at every size gives its pooled features; a standardised logistic
regression is fitted on them, its strength chosen by 5-fold cross-validation (stratified, groups whole); the answer is
the mean of the models' probabilities. Tables have `path`, `label` and `group`; WEIGHTS holds BACKBONE.safetensors.

`seconds` is from the start until all models are fitted, imports and decoding included, and `judge_seconds` what judging
took after that. `cpu_seconds` is what the cores worked for it in `seconds`: where that is far from what they could,
something else ran beside it. All cores are used: one thread each, so many blocks of pictures or fits at once. The
pictures are decoded anew whenever it runs.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results import parse_words, print_result, say

LITES = ("tf_efficientnet_lite0.in1k", "tf_efficientnet_lite1.in1k", "tf_efficientnet_lite2.in1k")
QUICK_PICTURES = 120
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True)
class Clock:
    """A moment."""

    wall: float
    """s, since some fixed moment."""
    cpu: float
    """s that the cores have worked for this process."""

    @classmethod
    def now(cls) -> "Clock":
        """Return this moment."""
        return cls(time.perf_counter(), time.process_time())


def main(words: Sequence[str] | None = None) -> None:
    """Fit the models, judge them and print how they did."""
    began = Clock.now()
    args = parse_words(_parser(), words, quick={"px": [32]}, needed=("train", "judge", "weights"))
    with tempfile.TemporaryDirectory() as name:
        for variable in ONE_THREAD:  # before the imports that read it
            os.environ[variable] = "1"
        os.environ["SPINE_RAY_CACHE"] = f"{name}/cache"
        if args.train is None:
            args = _with_generated_pictures(args, Path(name))
            began = Clock.now()
        print_result(run_mark(args, began))


def run_mark(args: argparse.Namespace, began: Clock) -> dict[str, Any]:
    """Return the result, and write the mean's probabilities where `--out` says.

    Args:
        args: Of the command line.
        began: When it did.
    """
    # Imported here, because the imports are part of its time.
    from concurrent.futures import ThreadPoolExecutor

    import torch

    from benchmarks.frozen_models import decode, fit_models
    from benchmarks.picture_table import read_table
    from benchmarks.predicted_losses import judge_probabilities, rounded, write_probabilities
    from spine_ray.core.pixels import short_side
    from spine_ray.core.weights import weights_from_folder

    torch.set_num_threads(1)
    train, judge, side = read_table(args.train), read_table(args.judge), short_side(max(args.px))
    files = weights_from_folder(args.weights, args.backbones).files
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        models = []
        for model in fit_models(train, decode(train, side), files, args.px, pool):
            say(f"{model.backbone.name} at {model.px} px: C {model.strength}, OOF {model.oof.summary()}")
            models.append(model)
        fitted = Clock.now()
        pixels = decode(judge, side)
        probabilities = [model.predict(pixels, pool) for model in models]
    mean = sum(probabilities[1:], probabilities[0]) / len(probabilities)
    if args.out is not None:
        write_probabilities(args.out, judge, train.classes, mean)
    labels = judge.label_indices(train.classes)
    return {
        "train_rows": len(train.paths),
        "judge_rows": len(judge.paths),
        "classes": len(train.classes),
        "threads": os.cpu_count(),
        "stored_side": side,
        "seconds": rounded(fitted.wall - began.wall),
        "cpu_seconds": rounded(fitted.cpu - began.cpu),
        "judge_seconds": rounded(Clock.now().wall - fitted.wall),
        "models": [
            {
                "backbone": model.backbone.name,
                "px": model.px,
                "strength": model.strength,
                "seconds": rounded(model.seconds),
                "oof": model.oof.summary(),
                "judge": judge_probabilities(probability, labels).summary(),
            }
            for model, probability in zip(models, probabilities, strict=True)
        ],
        "mean": judge_probabilities(mean, labels).summary(),
    }


def _with_generated_pictures(args: argparse.Namespace, folder: Path) -> argparse.Namespace:
    from benchmarks.generated_pictures import BACKBONES, WEIGHTS, write_pictures
    from benchmarks.picture_table import draw_rows, read_table, write_table

    table = read_table(write_pictures(folder / "pictures", QUICK_PICTURES, 0))
    draw = draw_rows(table, study=QUICK_PICTURES // 2, test=0, judge=QUICK_PICTURES // 2, seed=0)
    train, judge = folder / "train.csv", folder / "judge.csv"
    write_table(table.take(draw.study), train)
    write_table(table.take(draw.judge), judge)
    changes = {"train": train, "judge": judge, "weights": WEIGHTS, "backbones": BACKBONES}
    return argparse.Namespace(**{**vars(args), **changes})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, metavar="CSV", help="rows to learn from")
    parser.add_argument("--judge", type=Path, metavar="CSV", help="rows to be judged on")
    parser.add_argument("--weights", type=Path, metavar="DIR", help="folder of BACKBONE.safetensors")
    parser.add_argument("--backbones", nargs="+", default=LITES, metavar="NAME", help="timm models")
    parser.add_argument("--px", nargs="+", type=int, default=[64, 96], help="sides of the square input")
    parser.add_argument("--out", type=Path, metavar="CSV", help="write the mean's probabilities of the judge rows")
    return parser


if __name__ == "__main__":
    main()
