"""Train timm's tiny test models on generated pictures: initial weights that are small, free, and worth freezing.

Run as `python -m benchmarks.small_weights`. It writes `search_spaces/small_weights/<model>.safetensors`, the backbone
without its classifier, under timm's own parameter names. Pictures, order and initialisation follow from one seed. It
knows nothing of the package, so that no change there changes the weights.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
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
from benchmarks.textures import drawings, picture


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """How one model is trained."""

    steps: int
    """Optimizer steps of `BATCH_SIZE` pictures."""
    peak_lr: float


SCHEDULES = {
    "test_vit2": Schedule(steps=8000, peak_lr=2e-3),
    "test_vit": Schedule(steps=8000, peak_lr=1e-3),
    "test_convnext": Schedule(steps=4000, peak_lr=4e-3),
    "test_resnet": Schedule(steps=3000, peak_lr=2e-3),
    "test_efficientnet": Schedule(steps=3000, peak_lr=6e-3),
    "test_byobnet": Schedule(steps=3000, peak_lr=2e-3),
}
"""Longest first, so that two workers end at about the same time; transformers need the most pictures."""
FOLDER = Path(__file__).parents[1] / "search_spaces" / "small_weights"
SEED = 0
SIDE = 64
"""Side of the generated pictures, px: twice the resolution, so that crops are scaled down."""
CROP_SIDE_MIN, RESOLUTION = 50, 32
TRAINED_A_CLASS, HELD_OUT_A_CLASS = 240, 20
BATCH_SIZE = 64
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


def generate(per_class: int, part: str) -> Pictures:
    """Make `per_class` pictures of every class; `part` names them, so that no two parts share a picture."""
    pictures, labels = [], []
    for index, (name, draw) in enumerate(drawings().items()):
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
    for images, labels in _batches(pictures, name, schedule.steps):
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
    options: dict[str, Any] = {"img_size": RESOLUTION} if "vit" in name else {}
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


def _batches(pictures: Pictures, name: str, steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield `steps` batches of cropped pictures, uint8 (images, 3, RESOLUTION, RESOLUTION), with their labels."""
    rng = _random("batches", name)
    order = np.empty(0, np.int64)
    for _ in range(steps):
        if len(order) < BATCH_SIZE:
            order = rng.permutation(len(pictures.labels))
        rows, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
        side = int(rng.integers(CROP_SIDE_MIN, SIDE + 1))
        corners = rng.integers(0, SIDE - side + 1, (BATCH_SIZE, 2))
        crops = np.stack(
            [
                pictures.pixels[row, top : top + side, left : left + side]
                for row, (top, left) in zip(rows, corners, strict=True)
            ]
        )
        yield _scaled(crops), torch.from_numpy(pictures.labels[rows])


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
    parser = argparse.ArgumentParser(description="Train timm's tiny test models on generated pictures.")
    parser.add_argument(
        "--models", nargs="+", default=list(SCHEDULES), choices=list(SCHEDULES), help="default: all six"
    )
    parser.add_argument("--out", type=Path, help="default: search_spaces/small_weights; with --quick, nowhere")
    parser.add_argument("--steps", type=int, help="default: each model's own")
    parser.add_argument("--trained", type=int, default=TRAINED_A_CLASS, help="pictures of a class")
    parser.add_argument("--held-out", type=int, default=HELD_OUT_A_CLASS, help="pictures of a class")
    given = parse_words(parser, quick={"models": ["test_resnet"], "steps": 4, "trained": 2, "held_out": 1})
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        out = given.out or (folder if given.quick else FOLDER)
        out.mkdir(parents=True, exist_ok=True)
        for part, per_class in (("train", given.trained), ("held_out", given.held_out)):
            save_pictures(generate(per_class, part), folder, part)
        say(f"pictures of {len(drawings())} classes after {time.perf_counter() - began:.0f} s")
        models = []
        with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
            jobs = [pool.submit(train, model, folder, schedule_of(model, given.steps), out) for model in given.models]
            for done in (job.result() for job in jobs):
                models.append(asdict(done))
                say(f"{done.model}: held-out accuracy {done.accuracy:.3f} after {done.seconds:.0f} s")
    print_result({"classes": len(drawings()), "models": models, "seconds": time.perf_counter() - began})


def schedule_of(model: str, steps: int | None) -> Schedule:
    """Return a model's schedule, with other steps than its own if so many are given."""
    return SCHEDULES[model] if steps is None else replace(SCHEDULES[model], steps=steps)


if __name__ == "__main__":
    main()
