"""Searches as a user runs them, on a few small pictures: as a process of its own, or in this one."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from sklearn.datasets import load_digits

from spine_ray.search import main
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import StudyPaths
from spine_ray.study.tables import read_samples

ROOT = Path(__file__).parents[2]
CLASSES = ("one", "seven", "zero")
WORDS = ("--space", "tiny.yaml", "--data", "pictures")
TINY = """
question: Are two runs one?
folds: 2
resolution: 32
weights: random
trials: 3
backbone: [test_efficientnet, test_resnet]
recipe: {epochs: 2, batch_size: 16, lr: {around_start: 3}}
"""


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "spine_ray.search", *words]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=800, check=False
    )


def run_here(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command in this process, which has imported everything: for claims that are not about the process."""
    told, complained = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(told), contextlib.redirect_stderr(complained):
        code = exit_code(list(words))
    return subprocess.CompletedProcess(words, code, told.getvalue(), complained.getvalue())


def exit_code(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as left:  # the argument parser leaves by itself
        return int(left.code or 0)


def write_pictures(folder: Path, per_class: int = 30) -> None:
    scans = load_digits()
    for name, digit in zip(CLASSES, (1, 7, 0), strict=True):
        (folder / name).mkdir(parents=True)
        for number, image in enumerate(scans.images[scans.target == digit][:per_class]):
            pixels = np.rint(image * 255 / 16).astype(np.uint8)
            Image.fromarray(pixels).resize((24, 24), Image.Resampling.BICUBIC).save(folder / name / f"{number}.png")


def write_parquet(folder: Path, file: Path) -> None:
    pictures = sorted(folder.rglob("*.png"), key=lambda path: path.name)  # another order than the folders'
    rows = {
        "image": [{"bytes": path.read_bytes(), "path": path.name} for path in pictures],
        "label": [path.parent.name for path in pictures],
    }
    pq.write_table(pa.table(rows), file)


def take_costs(study: Path, of: Path) -> None:
    """Give a study that was planned the measured costs of another: they order what is tried, and are noisy."""
    shutil.copy(StudyPaths(of).costs, StudyPaths(study).costs)


def oof_bytes(study: Path) -> dict[str, bytes]:
    samples = read_samples(StudyPaths(study).samples)
    names = sorted(path.stem for path in (study / "oof").glob("*.parquet"))
    return {name: read_oof(StudyPaths(study), name, samples).tobytes() for name in names}
