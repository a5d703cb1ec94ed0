"""A search in this process: where Ray and MLflow are not installed, and under a debugger."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import register_model, resnet
from timm.models.resnet import ResNet

from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import trials_from_events
from spine_ray.workers.in_process import InProcessPool, in_process_pool
from spine_ray.workers.layout import PoolLayout
from tests.support.tiny_search import ROOT, WORDS, exit_code, run_here

pytestmark = pytest.mark.long
ALONE = PoolLayout(count=1, cpus=1, gpus=0.0)


@pytest.fixture
def nothing_but_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Ray and MLflow impossible to import, as if they were not installed."""
    for name in [each for each in sys.modules if each.split(".")[0] in ("ray", "mlflow")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "spine_ray.tune.ray_pool", raising=False)
    for name in ("ray", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)


def test_without_ray_and_mlflow_a_search_ends_with_an_answer_and_says_that_it_is_not_tracked(
    tiny_search: Path, nothing_but_this_process: None
) -> None:
    done = run_here(tiny_search, *WORDS, "--study", "alone", "--workers", "0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("tracking is off: MLflow is not installed") == 1
    assert "on the test split" in done.stdout
    assert not StudyPaths(tiny_search / "alone").tracking.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--workers", "1"), "error: Ray is not installed: "),
        (("--workers", "0", "--tracking", "http://127.0.0.1:9"), "error: --tracking http://127.0.0.1:9: MLflow is not"),
    ],
)
def test_what_needs_ray_or_mlflow_is_refused_in_one_line_before_anything_is_written(
    words: tuple[str, ...],
    told: str,
    tiny_search: Path,
    nothing_but_this_process: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tiny_search)
    assert exit_code([*WORDS, "--study", "refused", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(told)
    assert not (tiny_search / "refused").exists()


def test_a_breakpoint_in_a_training_step_stops_there_and_leaving_the_debugger_leaves_a_study_to_go_on_with(
    tiny_search: Path,
) -> None:
    """The first epoch of a trial: `TrialRun` has trained none before it."""
    module = ROOT / "spine_ray" / "core" / "trial.py"
    line = 1 + next(n for n, text in enumerate(module.read_text().splitlines()) if "epoch == 0 or" in text)
    script = [f"b {module}:{line}", "c", "p 'here', self._network.backbone, self._turn", "q"]
    command = [sys.executable, "-m", "pdb", *(word for each in script for word in ("-c", each))]
    done = subprocess.run(
        [*command, "-m", "spine_ray.search", *WORDS, "--study", "debugged", "--workers", "0"],
        cwd=tiny_search, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    # Which start recipe is first hangs on measured costs.
    assert re.search(r"\('here', 'test_(efficientnet|resnet)', 0\)", done.stdout), done.stdout
    assert "interrupted; the same command again goes on from here" in done.stdout
    ledger = (tiny_search / "debugged" / "ledger.jsonl").read_text()
    assert '"event": "ended"' not in ledger, "a debugger that is left is no failure of the trial"
    again = run_here(tiny_search, *WORDS, "--study", "debugged", "--workers", "0", "--resume")
    assert again.returncode == 0, again.stderr


class Unteachable(ResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise RuntimeError("this layer does not train")
        return super().forward(x)


@register_model
def unteachable_resnet(pretrained: bool = False, **args: Any) -> ResNet:
    model = resnet.test_resnet(**args)
    model.__class__ = Unteachable
    return model


def test_a_backbone_that_cannot_be_measured_is_a_failed_row_beside_an_answer(tiny_search: Path) -> None:
    changes = ("backbone=[unteachable_resnet, test_resnet]", "trials=2", "recipe.epochs=1")
    words = [word for change in changes for word in ("--set", change)]
    done = run_here(tiny_search, *WORDS, "--study", "unteachable", "--workers", "0", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unteachable_resnet cannot be measured: RuntimeError: this layer does not train" in done.stdout
    trials = trials_from_events(read_ledger(StudyPaths(tiny_search / "unteachable").ledger)).values()
    status = {trial.config.backbone: trial.status for trial in trials}
    assert status == {"unteachable_resnet": "failed", "test_resnet": "completed"}
    assert "on the test split" in done.stdout


def test_torch_has_its_threads_back_afterwards() -> None:
    before = torch.get_num_threads()
    with in_process_pool(ALONE):
        torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before


def test_this_process_is_one_worker() -> None:
    with pytest.raises(ValueError, match="one worker, not 2"):
        InProcessPool(PoolLayout(count=2, cpus=1, gpus=0.0))
