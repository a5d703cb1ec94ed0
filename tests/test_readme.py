"""What the README shows from Python runs as it stands."""

import re
from pathlib import Path

import numpy as np

README = (Path(__file__).parents[1] / "README.md").read_text()


def example_with(word: str) -> str:
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if word in code]
    return found


def test_choosing_from_any_logits_runs(capsys) -> None:
    draws = np.random.default_rng(0)
    labels = draws.integers(0, 3, 600)
    logits = draws.normal(size=(3, 600, 3)) + 2.0 * np.eye(3)[labels]
    known = {
        "logits": logits, "labels": labels, "families": ["a", "b", "c"], "resolutions": [32, 32, 64],
        "costs": [1.0, 2.0, 3.0], "folds": np.arange(600) % 3,
    }  # fmt: skip
    exec(compile(example_with("import select"), "README.md", "exec"), known)
    assert "gain" in capsys.readouterr().out


def test_the_example_from_python_runs(shipped_study, capsys) -> None:
    code = (
        example_with("open_study")
        .replace('"STUDY"', repr(str(shipped_study.root)))
        .replace('"FOLDER"', repr(str(shipped_study.pictures)))
    )
    exec(compile(code, "README.md", "exec"), {})
    told = capsys.readouterr().out
    assert "log_loss" in told
    assert "disagreement" in told
