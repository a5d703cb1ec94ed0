"""Pictures in, predictions out, block by block: decoding runs beside computing, and memory does not grow."""

import contextlib
import itertools
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from spine_ray.core.pixels import decode
from spine_ray.core.views import scoring_view
from spine_ray.data.albums import Picture
from spine_ray.data.pictures import open_picture
from spine_ray.data.problems import NO_BYTES, NOT_OPENED, problem_of
from spine_ray.ensemble.mix import Said
from spine_ray.ship.committee import Committee

Answer = Callable[[Mapping[int, Tensor]], tuple[Said, npt.NDArray[np.int64]]]
"""From views by resolution to what is said, and how many members saw each row."""
_MAX_COMPUTING = 4
"""Blocks that are computed at once on a CPU; more cores than that work inside a block."""
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, slots=True)
class Predictions:
    """What is said of some pictures, in the order in which they came."""

    names: tuple[str, ...]
    """(rows,) what a table can hold: bytes of a file's name that are not UTF-8 are escaped."""
    problems: tuple[str, ...]
    """(rows,) why a picture has no prediction; empty where it has one."""
    log_probs: npt.NDArray[np.float64]
    """(rows, classes); NaN where there is none."""
    disagreement: npt.NDArray[np.float64]
    """(rows,) nats; NaN where there is none."""
    seen: npt.NDArray[np.int64]
    """(rows,) how many members saw it; 0 where there is no prediction."""

    @property
    def is_known(self) -> npt.NDArray[np.bool_]:
        """Which rows have a prediction, (rows,)."""
        return np.array([not problem for problem in self.problems], np.bool_)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How the work is laid out on a machine; of no account for what is said."""

    block: int
    """Pictures that go through the members at once."""
    computing: int
    """Blocks that are computed at once."""
    threads: int
    """CPU threads of one block's arithmetic."""
    decoding: int
    """Pictures that are decoded at once."""

    @classmethod
    def of(cls, device: torch.device, cores: int | None = None) -> "Pace":
        """Return what suits so many cores of this machine; None: all that this process may use."""
        if cores is None:
            cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if device.type == "cuda":
            return cls(block=128, computing=1, threads=1, decoding=cores)
        computing = min(cores, _MAX_COMPUTING)
        return cls(block=32, computing=computing, threads=max(1, cores // computing), decoding=cores)


def default_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def predictions(
    pictures: Iterable[Picture], side: int, committee: Committee, answer: Answer, pace: Pace
) -> Iterator[Predictions]:
    """Go through the pictures and yield what is said of each block, in order.

    Args:
        pictures: Any number; a few blocks of them are held at a time.
        side: Stored side at which they are decoded, px.
        committee: Which views are needed.
        answer: What says something of them.
        pace: How the work is laid out.
    """
    waiting: deque[Future[Predictions]] = deque()
    with (
        _quiet_threads(pace.threads),
        ThreadPoolExecutor(pace.decoding) as decoders,
        ThreadPoolExecutor(pace.computing) as computers,
    ):
        for block in _blocks(pictures, pace.block):
            looked = [decoders.submit(_views, picture, side, committee.resolutions) for picture in block]
            waiting.append(computers.submit(_said, block, looked, answer, committee.num_classes))
            if len(waiting) > 2 * pace.computing:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@contextlib.contextmanager
def _quiet_threads(threads: int) -> Iterator[None]:
    """Set what belongs to the process around all threads: torch's threads, and warnings as in the audit."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    finally:
        torch.set_num_threads(before)


def _blocks(pictures: Iterable[Picture], size: int) -> Iterator[list[Picture]]:
    remaining = iter(pictures)
    while block := list(itertools.islice(remaining, size)):
        yield block


def _views(picture: Picture, side: int, resolutions: tuple[int, ...]) -> dict[int, Tensor] | str:
    """Read and decode one picture, once for all resolutions; or say why that cannot be done."""
    try:
        content = picture.read()
    except (FileNotFoundError, PermissionError):
        return NOT_OPENED
    except Exception as error:  # archives and the clients of stores have kinds of their own
        return f"cannot be read: {' '.join(str(error).split()) or type(error).__name__}"
    if not content:
        return NO_BYTES
    try:
        if content.startswith(_PNG):  # nothing else compares its checksums
            open_picture(content).verify()
        decoded = decode(content, side)
    except Exception as error:
        return problem_of(error)
    return {resolution: scoring_view(decoded, resolution) for resolution in resolutions}


def _said(
    block: list[Picture], looked: list[Future[dict[int, Tensor] | str]], answer: Answer, classes: int
) -> Predictions:
    found = [each.result() for each in looked]
    views = [each for each in found if not isinstance(each, str)]
    known = np.array([not isinstance(each, str) for each in found], np.bool_)
    log_probs = np.full((len(block), classes), np.nan)
    apart, seen = np.full(len(block), np.nan), np.zeros(len(block), np.int64)
    if views:
        said, seen[known] = answer({side: torch.stack([each[side] for each in views]) for side in views[0]})
        log_probs[known], apart[known] = said.log_probs, said.disagreement
    names = tuple(_writable(picture.name) for picture in block)
    problems = tuple(_writable(each) if isinstance(each, str) else "" for each in found)
    return Predictions(names, problems, log_probs, apart, seen)


def _writable(text: str) -> str:
    """Return the text as any table takes it: of a file's name that is not UTF-8, the strange bytes are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()
