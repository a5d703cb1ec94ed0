"""What a (backbone, resolution, freeze) costs here, and the arithmetic that is fastest: a few real steps."""

import hashlib
import math
import platform
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spine_ray.core.arithmetic import candidates
from spine_ray.core.backbone import make_model
from spine_ray.core.cache import build_file, cache_folder
from spine_ray.core.fit import Fit
from spine_ray.core.freeze import freeze_backbone
from spine_ray.core.inputs import Inputs, pictures_for, probe_activations
from spine_ray.core.memory import forget_peak, peak_memory_mb
from spine_ray.core.network import CHUNK, Network, Setup
from spine_ray.core.pixels import PixelFile, short_side
from spine_ray.core.score import logits_of
from spine_ray.core.split import split_model
from spine_ray.core.task import Rows, Task
from spine_ray.space.arithmetic import Arithmetic, parse_arithmetic
from spine_ray.space.config import TrialConfig

_SECONDS = 0.15
_FEW = 4
"""Rows of a first look at how slow a model is."""
_LOOKS = 2
_CLOSE = 1.3
"""Another load for a moment makes no step slower by more than this in all of its looks."""
_CLEARLY = 1.1
"""Less safe arithmetic has to be faster by this factor: what is close stays float32, so that noise decides nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Measured on one worker's share of the machine."""

    train_images_s: float
    """Of the trained part: forward, backward and optimizer."""
    infer_images_s: float
    """Of the whole model."""
    score_images_s: float
    """Of the trained part alone, on held-out rows."""
    prefix_images_s: float | None
    """Of the frozen prefix; None where there is none."""
    activation_mb: float | None
    """What one picture's activations take on disk; None where there is no prefix."""
    prefix_macs: int
    """Multiply-accumulates of the frozen prefix for one image."""
    prefix_params: int
    """Parameters of the frozen prefix."""
    peak_mb: float


def measure_speed(config: TrialConfig, classes: int, setup: Setup) -> Speed:
    """Train and score for about a second and return images/s, the first step of each left out."""
    forget_peak(setup.device)
    network = Network(config, classes, 0, setup)
    bench = _bench_of(network, config, classes)
    train = _rate(bench.train_steps(_SECONDS), len(bench.rows))
    score = bench.score_images_s(_SECONDS)
    prefix: float | None = None
    activation_mb: float | None = None
    if network.split is not None:
        prefix = bench.prefix_images_s(_SECONDS)
        shape, is_half = probe_activations(bench.pictures, bench.rows)
        activation_mb = int(np.prod(shape)) * (2 if is_half else 4) / 1e6
    return Speed(
        train_images_s=train,
        infer_images_s=score if prefix is None else 1.0 / (1.0 / score + 1.0 / prefix),
        score_images_s=score,
        prefix_images_s=prefix,
        activation_mb=activation_mb,
        prefix_macs=_prefix_macs(config, classes) if network.split else 0,
        prefix_params=sum(each.numel() for each in network.split.prefix.parameters()) if network.split else 0,
        peak_mb=peak_memory_mb(setup.device),
    )


def fastest_arithmetic(config: TrialConfig, classes: int, setup: Setup) -> Arithmetic:
    """Return the arithmetic in which a backbone trains fastest on this machine, all of it trained.

    Close ones fall to the safer. It is measured once and then remembered in the cache, so that two searches on one
    machine, with one seed, give the same bits.
    """
    path = cache_folder() / "arithmetic" / f"{_machine_hash(config, setup)}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    build_file(path, lambda file: file.write(str(_measured_fastest(config, classes, setup)).encode()))
    return parse_arithmetic(path.read_text())


def _measured_fastest(config: TrialConfig, classes: int, setup: Setup) -> Arithmetic:
    """Return the fastest: a look at every candidate, then a second one at those that come close.

    The quickest step says what an arithmetic can do; the others say what else the machine was doing.
    """
    whole, looks = replace(config, freeze=0.0), candidates(setup.device)
    rows: int | None = None
    least: dict[Arithmetic, float] = {}
    for look in range(_LOOKS):
        close = [each for each in looks if look == 0 or least[each] < _CLOSE * min(least.values())]
        for arithmetic in close if len(close) > 1 or look == 0 else ():
            network = Network(whole, classes, 0, replace(setup, arithmetic=arithmetic, weights=None))
            # The same rows for all: only equal steps can be compared.
            bench = _bench_of(network, whole, classes) if rows is None else _Bench(network, whole, classes, rows)
            rows = len(bench.rows)
            least[arithmetic] = min(*bench.train_steps(2 * _SECONDS), least.get(arithmetic, math.inf))
    best = looks[0]
    for arithmetic in looks[1:]:
        if least[arithmetic] * _CLEARLY < least[best]:
            best = arithmetic
    return best


def _machine_hash(config: TrialConfig, setup: Setup) -> str:
    """Return a name for what decides which arithmetic is fastest: the model and the machine."""
    is_cuda = setup.device.type == "cuda"
    processor = torch.cuda.get_device_name(setup.device) if is_cuda else torch.backends.cpu.get_cpu_capability()
    words = (config.backbone, config.resolution, processor, _cpu_name(), torch.get_num_threads(), torch.__version__)
    return hashlib.blake2b("\n".join(map(str, words)).encode(), digest_size=12).hexdigest()


def _cpu_name() -> str:
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _bench_of(network: Network, config: TrialConfig, classes: int) -> "_Bench":
    """Return a bench with as many rows as half a second trains: of a slow model a whole batch would say no more.

    But on a GPU a whole batch: its memory decides how many trials share it.
    """
    if network.setup.device.type == "cuda":
        return _Bench(network, config, classes, config.training.batch_size)
    few = _Bench(network, config, classes, _FEW)
    rate = _FEW / min(few.train_steps(0.0))
    rows = min(config.training.batch_size, max(_FEW, int(rate / 2)))
    return few if rows == _FEW else _Bench(network, config, classes, rows)


@dataclass(frozen=True, slots=True)
class _InMemory:
    """The same batch for every step."""

    batch: Tensor
    views: int = 1
    note: str = ""

    def training(self, rows: Rows, epoch: int) -> Tensor:
        return self.batch[: len(rows)]

    def scoring(self, rows: Rows) -> Tensor:
        return self.batch[: len(rows)]


class _Bench:
    """Some made-up pictures and a network to try on them."""

    def __init__(self, network: Network, config: TrialConfig, classes: int, batch: int) -> None:
        side, rows = short_side(config.resolution), np.arange(batch, dtype=np.int64)
        size = np.full(batch, side, np.int64)
        grey = np.full(batch * side * side * 3, 127, np.uint8)
        pixels = PixelFile(Path(), rows * side * side * 3, size, size, grey)
        self._task = Task(pixels=pixels, keys=rows.astype(np.uint64), labels=rows % classes, classes=classes, seed=0)
        # Many epochs, so that the learning rate is defined at every step.
        self._recipe = replace(config.training, epochs=100_000, batch_size=batch)
        self.rows, self._network = rows, network
        self.pictures = pictures_for(self._recipe, network, self._task)
        self._inputs: Inputs = self.pictures
        if network.split is not None:
            self._inputs = _InMemory(network.activations(self.pictures.scoring_view(rows)))

    def train_steps(self, seconds: float) -> list[float]:
        """Return the seconds of each of some training steps."""
        fit = Fit(self._recipe, self._task, self.rows, "probe", self._network.learner(len(self.rows)), self._inputs)
        return _times(fit.train_epoch, seconds)

    def score_images_s(self, seconds: float) -> float:
        network = self._network
        network.model.eval()
        part = network.trained_part
        times = _times(lambda _: logits_of(part, self._inputs, self.rows, network.setup), seconds)
        return _rate(times, len(self.rows))

    def prefix_images_s(self, seconds: float) -> float:
        pictures = self.pictures.scoring_view(np.resize(self.rows, CHUNK))
        return _rate(_times(lambda _: self._network.activations(pictures), seconds), CHUNK)


def _times(run: Callable[[int], object], seconds: float) -> list[float]:
    """Call again and again for some seconds, at least twice, and return the seconds of all calls but the first."""
    times: list[float] = []
    run(0)
    _wait()
    while not times or sum(times) < seconds:
        began = time.perf_counter()
        run(len(times) + 1)
        _wait()
        times.append(time.perf_counter() - began)
    return times


def _rate(times: list[float], images: int) -> float:
    return images / float(np.median(times))


def _prefix_macs(config: TrialConfig, classes: int) -> int:
    """Count on the meta device, where attention is counted too."""
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # timm talks of weights it cannot initialise on meta
        model = make_model(config.backbone, config.resolution, classes).eval()
        freeze_backbone(model, config.freeze)
        prefix = split_model(model).prefix
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            prefix(torch.empty(1, 3, config.resolution, config.resolution))
    return int(counter.get_total_flops()) // 2


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
