"""The comparison as a user sees it: a real study, a real MLflow server, a real browser."""

import json
import os
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from spine_ray.compare import main
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.study.trials import Trial, trials_from_events
from spine_ray.track.mlflow_log import sqlite_uri
from spine_ray.track.view import METRICS, PARAMS
from tests.support.chromium import Page, find_chromium, open_page
from tests.support.patience import PATIENCE_S
from tests.support.tiny_search import WORDS, run_here
from tests.support.tracked import differences

pytestmark = pytest.mark.long
NO_ACCOUNTS = "/ajax-api/2.0/mlflow/users/current"
"""MLflow's page asks who is logged in; a server without accounts answers 404."""
RECORD_LINES = """
window.lines = new Set();
const drawing = CanvasRenderingContext2D.prototype;
for (const name of ["beginPath", "moveTo", "lineTo", "bezierCurveTo", "stroke", "clearRect"]) {
  const draw = drawing[name];
  drawing[name] = function (...where) {
    if (this.canvas.className === "foreground") {
      if (name === "beginPath") this.path = [];
      else if (name === "stroke") window.lines.add(JSON.stringify(this.path));
      else if (name === "clearRect") window.lines.clear();
      else (this.path ||= []).push(where);
    }
    return draw.apply(this, where);
  };
}
"""
AXES = "[...document.querySelectorAll('.parcoords .dimension .label')].map(each => each.textContent)"
POINTS = "[...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data[0].customdata.map(each => each[1]))"


@pytest.fixture(scope="module")
def study(tiny_search: Path) -> Path:
    done = run_here(tiny_search, *WORDS, "--study", "study", "--workers", "0")
    assert done.returncode == 0, done.stderr
    return tiny_search / "study"


@pytest.fixture(scope="module")
def completed(study: Path) -> dict[str, Trial]:
    trials = trials_from_events(read_ledger(StudyPaths(study).ledger))
    return {name: trial for name, trial in trials.items() if trial.is_completed}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def address(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `compare` says that the comparison is, while it runs."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "spine_ray.compare", str(study), "--port", str(free_port())]
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    process = subprocess.Popen(command, cwd=elsewhere, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("compare at http://127.0.0.1:"), line
        yield line.split()[-1]
    finally:
        process.terminate()  # and not by Ctrl-C's signal, which is ignored in the background of some shells
        ended = process.wait(PATIENCE_S)
        process.stdout.close()
    assert ended == 0
    assert list(elsewhere.iterdir()) == [], "it leaves files where it was started"
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", urllib.parse.urlsplit(line.split()[-1]).port)) != 0, "the server lives on"


def test_mlflow_says_what_the_ledger_says(study: Path, address: str) -> None:
    assert differences(sqlite_uri(StudyPaths(study).tracking), StudyPaths(study)) == []


def test_each_run_carries_its_files(study: Path, address: str, completed: dict[str, Trial]) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(sqlite_uri(StudyPaths(study).tracking))
    for child in client.search_runs(["1"], "tags.`spine.kind` = 'trial'"):
        files = {file.path for file in client.list_artifacts(child.info.run_id)}
        has_oof = child.data.tags["spine.trial_id"] in completed
        assert files == {"config.json", *(("confusion_matrix.csv", "confusion_matrix.html") if has_oof else ())}
        assert Path(child.data.tags["spine.oof"]).exists() == has_oof
        assert not has_oof or {"log_loss", "accuracy", *METRICS} <= child.data.metrics.keys()
    ensemble = client.search_runs(["1"], "tags.`spine.kind` = 'ensemble'")[0]
    stored = json.loads(StudyPaths(study).ensemble.read_text())
    assert ensemble.data.params["members"] == ", ".join(member["trial_id"] for member in stored["members"])


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here")
def test_the_page_compares_every_completed_trial_at_once(
    address: str, completed: dict[str, Trial], tmp_path: Path
) -> None:
    with open_page(tmp_path) as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=RECORD_LINES)
        page.open(address)
        page.wait_for(f"{AXES}.length && window.lines.size && document.querySelectorAll('.js-plotly-plot').length")
        assert page.evaluate(AXES) == [*PARAMS, *METRICS]
        page.wait_for(f"window.lines.size === {len(completed)}")
        assert settled(page, "window.lines.size") == len(completed)
        page.wait_for(f"{POINTS}[0].length >= {len(completed) + 1}")
        assert set(page.evaluate(POINTS)[0]) == {*completed, "ensemble"}
        assert [error for error in page.errors if NO_ACCOUNTS not in error] == []
        hosts = {urllib.parse.urlsplit(each).hostname for each in page.requests if each.startswith(("http", "ws"))}
        assert hosts == {"127.0.0.1"}


def settled(page: Page, expression: str) -> object:
    """Return a value once it has stayed while the page drew 60 frames: on a busy machine these take longer too."""
    return page.evaluate(f"""(async () => {{
  let value = {expression};
  for (let frames = 0; frames < 60; frames++) {{
    await new Promise(requestAnimationFrame);
    if ({expression} !== value) [value, frames] = [{expression}, 0];
  }}
  return value;
}})()""")


BAD_INPUT = {
    "no study": (["nowhere"], "there is no study at nowhere"),
    "port": (["study", "--port", "0"], "65535"),
    "tracking": (["study", "--tracking", "mlruns"], "--tracking"),
    "server away": (["study", "--tracking", "http://127.0.0.1:9"], "MLflow at http://127.0.0.1:9"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_clear_line(
    case: str, study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words, told = BAD_INPUT[case]
    monkeypatch.chdir(study.parent)
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert told in lines[0]
