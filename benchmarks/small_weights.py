"""Train small timm models on generated pictures: initial weights that are small, free, and worth freezing.

Run as `python -m benchmarks.small_weights`. It writes `search_spaces/small_weights/<model>.safetensors`, the backbone
without its classifier, under timm's own parameter names. Pictures, order and initialisation follow from one seed. It
knows nothing of the package, so that no change there changes the weights.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate
from torch.optim.lr_scheduler import OneCycleLR

from benchmarks.results import parse_words, print_result, say
from benchmarks.textures import drawings, glyph, picture


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingSet:
    """Which pictures a model is trained on, and how it sees them."""

    more_glyphs: int
    """Classes beside those of `drawings`."""
    trained_a_class: int
    held_out_a_class: int
    scanned_share: float
    """Of every batch such a share is seen as a scan of fewer pixels would show it."""


TRAINING_SETS = {
    "shapes": TrainingSet(more_glyphs=0, trained_a_class=240, held_out_a_class=20, scanned_share=0.0),
    "glyphs": TrainingSet(more_glyphs=256, trained_a_class=80, held_out_a_class=5, scanned_share=0.4),
}
"""The second serves scans of writing better: as many pictures of it made 0.067 nats of the 0.093 of `test_mambaout`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How one model is trained."""

    training_set: str
    """One of `TRAINING_SETS`."""
    steps: int
    """Optimizer steps of a batch each."""
    batch_size: int
    peak_lr: float


SCHEDULES = {
    "test_vit2": Schedule(training_set="shapes", steps=8000, batch_size=64, peak_lr=2e-3),
    "test_vit": Schedule(training_set="shapes", steps=8000, batch_size=64, peak_lr=1e-3),
    "edgenext_xx_small": Schedule(training_set="glyphs", steps=1500, batch_size=128, peak_lr=3e-3),
    "test_convnext": Schedule(training_set="glyphs", steps=2000, batch_size=128, peak_lr=4e-3),
    "test_resnet": Schedule(training_set="glyphs", steps=1500, batch_size=128, peak_lr=3e-3),
    "test_efficientnet": Schedule(training_set="shapes", steps=3000, batch_size=64, peak_lr=6e-3),
    "test_byobnet": Schedule(training_set="shapes", steps=3000, batch_size=64, peak_lr=2e-3),
    "test_mambaout": Schedule(training_set="glyphs", steps=800, batch_size=128, peak_lr=4e-3),
}
"""Longest first, so that two workers end at about the same time; transformers need the most pictures."""
FOLDER = Path(__file__).parents[1] / "search_spaces" / "small_weights"
SEED = 0
SIDE = 64
"""Side of the generated pictures, px: twice the resolution, so that crops are scaled down."""
CROP_SIDE_MIN, RESOLUTION = 50, 32
FIRST_MORE_GLYPH = 64
"""Numbers of glyphs from here on are classes of a training set; those before it are new to these weights elsewhere."""
SCANNED_SIDES = (8, 20)
"""Of a scan, px; the second is excluded."""
WARMUP_SHARE, WEIGHT_DECAY, LABEL_SMOOTHING = 0.05, 0.05, 0.1
LAYER_SCALE = 0.1
"""Start of the factors of residual branches, where a model has them: 1e-6 or 1e-5 would take longer to grow."""
WORKERS = 2

Pixels = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Pictures:
    """Generated pictures with their classes."""

    pixels: Pixels
    """(pictures, SIDE, SIDE, 3)."""
    labels: Labels
    """(pictures,) class indices."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """What became of one model."""

    model: str
    accuracy: float
    """On held-out generated pictures; higher is better."""
    seconds: float


def classes(training_set: TrainingSet) -> dict[str, Callable[[np.random.Generator, int], npt.NDArray[np.float64]]]:
    """Return what draws each class of a training set, by its name."""
    more = range(FIRST_MORE_GLYPH, FIRST_MORE_GLYPH + training_set.more_glyphs)
    return drawings() | {f"glyph {number}": glyph(number) for number in more}


def generate(training_set: TrainingSet, part: str) -> Pictures:
    """Make the pictures of a training set; `part` is `train` or `held_out`, which share none."""
    per_class = training_set.trained_a_class if part == "train" else training_set.held_out_a_class
    pictures, labels = [], []
    for index, (name, draw) in enumerate(classes(training_set).items()):
        rng = _random("pictures", part, name)
        pictures += [picture(draw, rng, SIDE) for _ in range(per_class)]
        labels += [index] * per_class
    return Pictures(np.stack(pictures), np.array(labels, np.int64))


def train(name: str, folder: Path, schedule: Schedule, out: Path) -> Trained:
    """Train one model on one thread and write its backbone.

    Args:
        name: timm model name.
        folder: Holds the pictures, as `save_pictures` wrote them.
        schedule: How long and how fast it learns.
        out: Folder of the written file.
    """
    torch.set_num_threads(1)
    torch.manual_seed(int(_random("initialise", name).integers(2**62)))
    began = time.perf_counter()
    pictures = _open(folder, "train")
    model = _model(name, int(pictures.labels.max()) + 1)
    optimizer = _optimizer(model)
    rates = OneCycleLR(optimizer, schedule.peak_lr, schedule.steps, pct_start=WARMUP_SHARE, cycle_momentum=False)
    model.train()
    for images, labels in _batches(pictures, name, schedule):
        optimizer.zero_grad(set_to_none=True)
        loss = cross_entropy(model(_input(images, model)), labels, label_smoothing=LABEL_SMOOTHING)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rates.step()
    held_out = _open(folder, "held_out")
    accuracy = _accuracy(model, held_out)
    save_backbone(model, out / f"{name}.safetensors")
    return Trained(model=name, accuracy=accuracy, seconds=time.perf_counter() - began)


def save_backbone(model: nn.Module, path: Path) -> None:
    """Take the classifier off and write the rest, under timm's names."""
    model.reset_classifier(0)  # type: ignore[operator]
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, path, metadata={"licence": "Apache-2.0", "made_by": "benchmarks/small_weights.py"})


def save_pictures(pictures: Pictures, folder: Path, part: str) -> None:
    """Write pictures where workers can map them into memory."""
    np.save(folder / f"{part}_pixels.npy", pictures.pixels)
    np.save(folder / f"{part}_labels.npy", pictures.labels)


def _random(*names: str) -> np.random.Generator:
    """Return random numbers that depend on the seed and the names, and on nothing else."""
    return np.random.default_rng([SEED, *"/".join(names).encode()])


def _open(folder: Path, part: str) -> Pictures:
    pixels = np.load(folder / f"{part}_pixels.npy", mmap_mode="r")
    return Pictures(pixels, np.load(folder / f"{part}_labels.npy"))


def _model(name: str, classes: int) -> nn.Module:
    options: dict[str, Any] = {"img_size": RESOLUTION} if name.startswith("test_vit") else {}
    model: nn.Module = timm.create_model(name, num_classes=classes, **options)
    for parameter_name, parameter in model.named_parameters():
        if parameter_name.endswith("gamma"):
            nn.init.constant_(parameter, LAYER_SCALE)
    return model.to(memory_format=torch.channels_last)


def _optimizer(model: nn.Module) -> torch.optim.AdamW:
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    plain = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, fused=True)


def _batches(pictures: Pictures, name: str, schedule: Schedule) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of cropped pictures, uint8 (images, 3, RESOLUTION, RESOLUTION), with their labels."""
    rng, size = _random("batches", name), schedule.batch_size
    scanned = int(TRAINING_SETS[schedule.training_set].scanned_share * size)
    order = np.empty(0, np.int64)
    for _ in range(schedule.steps):
        if len(order) < size:
            order = rng.permutation(len(pictures.labels))
        rows, order = order[:size], order[size:]
        side = int(rng.integers(CROP_SIDE_MIN, SIDE + 1))
        corners = rng.integers(0, SIDE - side + 1, (len(rows), 2))
        crops = np.stack(
            [
                pictures.pixels[row, top : top + side, left : left + side]
                for row, (top, left) in zip(rows, corners, strict=True)
            ]
        )
        images = _scaled(crops)
        if scanned:
            images[:scanned] = _scanned(images[:scanned], int(rng.integers(*SCANNED_SIDES)))
        yield images, torch.from_numpy(pictures.labels[rows])


def _scanned(images: Tensor, side: int) -> Tensor:
    """Return pictures as a scan of `side` px a side shows them, at their own size."""
    small = interpolate(images, (side, side), mode="bilinear", antialias=True)
    return interpolate(small, images.shape[-2:], mode="bilinear", antialias=True)


def _scaled(pixels: Pixels) -> Tensor:
    """Return pictures at the resolution, uint8 (images, 3, RESOLUTION, RESOLUTION)."""
    images = torch.from_numpy(np.array(pixels)).permute(0, 3, 1, 2)
    return interpolate(images, (RESOLUTION, RESOLUTION), mode="bilinear", antialias=True)


def _input(images: Tensor, model: nn.Module) -> Tensor:
    """Return uint8 pictures as the floats that timm's configuration of the model asks for."""
    config: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    mean, std = (torch.tensor(config[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    return ((images.float() / 255.0 - mean) / std).contiguous(memory_format=torch.channels_last)


def _accuracy(model: nn.Module, pictures: Pictures) -> float:
    model.eval()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(pictures.labels), 256):
            images = _scaled(pictures.pixels[start : start + 256])
            guesses = model(_input(images, model)).argmax(dim=1).numpy()
            right += int((guesses == pictures.labels[start : start + 256]).sum())
    return right / len(pictures.labels)


def main() -> None:
    """Make the pictures, train the models two at a time, and say how it went."""
    parser = argparse.ArgumentParser(description="Train small timm models on generated pictures.")
    parser.add_argument("--models", nargs="+", default=list(SCHEDULES), choices=list(SCHEDULES), help="default: all")
    parser.add_argument("--out", type=Path, help="default: search_spaces/small_weights; with --quick, nowhere")
    parser.add_argument("--steps", type=int, help="default: each model's own")
    parser.add_argument("--trained", type=int, help="pictures of a class; default: the training set's own")
    parser.add_argument("--held-out", type=int, help="pictures of a class; default: the training set's own")
    args = parse_words(parser, quick={"models": ["test_resnet"], "steps": 4, "trained": 2, "held_out": 1})
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = args.out or (folder if args.quick else FOLDER)
        out.mkdir(parents=True, exist_ok=True)
        for training_set in sorted({SCHEDULES[model].training_set for model in args.models}):
            _save_training_set(training_set, folder / training_set, args.trained, args.held_out)
            say(f"pictures of {training_set} after {time.perf_counter() - began:.0f} s")
        models = []
        with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
            schedules = {model: schedule_of(model, args.steps) for model in args.models}
            jobs = [
                pool.submit(train, model, folder / schedule.training_set, schedule, out)
                for model, schedule in schedules.items()
            ]
            for done in (job.result() for job in jobs):
                models.append(asdict(done))
                say(f"{done.model}: held-out accuracy {done.accuracy:.3f} after {done.seconds:.0f} s")
    print_result({"models": models, "seconds": time.perf_counter() - began})


def schedule_of(model: str, steps: int | None) -> Schedule:
    """Return a model's schedule, with other steps than its own if so many are given."""
    return SCHEDULES[model] if steps is None else replace(SCHEDULES[model], steps=steps)


def _save_training_set(name: str, folder: Path, trained: int | None, held_out: int | None) -> None:
    """Make the pictures of a training set in a folder; other numbers of a class than its own if these are given."""
    own = TRAINING_SETS[name]
    training_set = replace(
        own, trained_a_class=trained or own.trained_a_class, held_out_a_class=held_out or own.held_out_a_class
    )
    folder.mkdir()
    for part in ("train", "held_out"):
        save_pictures(generate(training_set, part), folder, part)


if __name__ == "__main__":
    main()
