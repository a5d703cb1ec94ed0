from pathlib import Path

import numpy as np

from spine_ray.ensemble.cascade import OofRows, plan_cascade
from spine_ray.ensemble.mix import Mix
from spine_ray.ensemble.scorecard import Refitted, Score, Scorecard
from spine_ray.show.predicted import cascade_line, exported_lines, outcome_lines, refitted_line, scorecard_lines

CARD = Scorecard(
    rows=90, log_loss=Score(0.25, 0.2, 0.3), accuracy=Score(0.9, 0.85, 0.95),
    balanced_accuracy=Score(0.8, 0.7, 0.9), calibration_error=Score(0.01, 0.005, 0.02),
)  # fmt: skip


def test_counts_and_problems_are_told() -> None:
    assert outcome_lines(1, [], 0.52, Path("x.csv")) == ["1 picture in 0.5 s: x.csv"]
    assert outcome_lines(1200, ["a: damaged"], 2.0, Path("x.csv"))[1] == "  no prediction: a: damaged"


def test_every_score_has_its_interval_and_its_rows() -> None:
    lines = scorecard_lines(CARD, 100, 3.0, None)
    assert lines[0].startswith("90 of 100 pictures have a label")
    assert lines[1].split() == ["log-loss", "0.2500", "(0.2000", "to", "0.3000)"]
    assert "90.0 %" in lines[2]
    assert len(lines) == 5


def test_a_cascade_says_how_many_members_looked() -> None:
    assert scorecard_lines(None, 100, 1.5, 3.21) == ["a picture was seen by 1.50 members in the mean, at 3.21 ms"]
    assert scorecard_lines(None, 100, 3.0, None) == []


def test_a_cascade_that_does_not_pay_says_so() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 60, 3)).astype(np.float32)
    oof = OofRows(logits=logits, labels=rng.integers(0, 3, 60), folds=np.arange(60) % 3)
    mix = Mix(weights=(0.5, 0.5), temperatures=(1.0, 1.0), pool="log", final_temperature=1.0)
    assert cascade_line(plan_cascade(mix, oof, [1.0, 2.0])).startswith("The cascade does not pay: on OOF rows it costs")
    assert cascade_line(None) == "no cascade was planned"


def test_a_temperature_that_helps_nobody_says_so() -> None:
    assert "no better" in refitted_line(Refitted(1.1, 0.2, 0.21), Path("new"))
    assert "no better" not in refitted_line(Refitted(1.1, 0.2, 0.19), Path("new"))


def test_what_was_exported_comes_with_the_next_commands() -> None:
    files = [("a", True, "as torch says"), ("b", False, "no such operator")]
    lines = exported_lines(Path("out"), 1, 12.34, files, has_model=True)
    assert lines[0] == "out: 1 member, 12.3 MB; SHA256SUMS has the hashes of bundle.json and weights/"
    assert "mlflow models serve --model-uri out/mlflow" in lines[2]
    assert lines[3:] == ["  onnx: a: as torch says", "  no onnx: b: no such operator"]
    assert exported_lines(Path("out"), 1, 12.34, [], has_model=False)[2:] == [
        "  no MLflow model: MLflow is not installed"
    ]
