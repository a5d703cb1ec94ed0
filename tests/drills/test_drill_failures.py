"""Backbones that cannot be trained do not keep the others from an answer."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import trials_from_events
from tests.support.tiny_search import write_pictures

SPACE = """
folds: 2
resolution: 32
weights: random
trials: 3
recipe: {epochs: 3, batch_size: 16}
tiers:
  light: {question: Light first, backbone: [faulty_raising, test_efficientnet, faulty_deadly]}
  mid: {question: Then more, backbone: [faulty_diverging, faulty_greedy, test_resnet], gate: always}
"""
REASONS = {
    "faulty_raising": "RuntimeError: this layer does not train (2 tries without a new epoch)",
    "faulty_deadly": "the worker's process died (4 tries without a new epoch)",
    "faulty_diverging": "the loss is nan at epoch 1",
    "faulty_greedy": "can't allocate memory",
}


@pytest.mark.timeout(900)
def test_the_rest_of_the_ladder_finishes_and_every_faulty_backbone_is_a_row_that_says_why(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures")
    (tmp_path / "faulty.yaml").write_text(SPACE)
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent / 'faulty'}:{root}"}
    command = [sys.executable, "-m", "spine_ray.search", "--space", "faulty.yaml", "--data", "pictures"]
    done = subprocess.run(
        [*command, "--study", "study", "--workers", "2"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    trials = trials_from_events(read_ledger(StudyPaths(tmp_path / "study").ledger))
    status = {trial.config.backbone: trial.status for trial in trials.values()}
    assert status.pop("test_efficientnet") == status.pop("test_resnet") == "completed"
    assert status == dict.fromkeys(REASONS, "failed")
    told = {trial.config.backbone: trial.ended.reason for trial in trials.values() if trial.ended}
    for backbone, reason in REASONS.items():
        assert reason in told[backbone]
    table = done.stdout[done.stdout.index("failed trial") :]
    assert all(backbone in table for backbone in REASONS)
