"""The command on studies made of files, and its page in a real browser: no model is run, nothing is trained."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from spine_ray import open_study
from spine_ray.climb.files import read_files
from spine_ray.climb.story import page_of
from spine_ray.report import main
from spine_ray.show.words import change_text, interval_text, loss_text, share_text
from spine_ray.study.paths import StudyPaths
from spine_ray.study.survey import opened_to_change
from spine_ray.study.tables import read_samples
from tests.support.patience import PATIENCE_S, cpu_seconds
from tests.support.study_files import FIVE, Told, choose, completed, many, write_study

HOSTILE = (
    '<script>alert("x")</script>', "o'quote\" &amp;", "line\nbreak\r\ttab", "\U0001f438\U0001f469\u200d\U0001f52c",
    "x" * 300, "\u202eright to left", "../..", "=1+1", "$x^2$", "</section></main>",
)  # fmt: skip
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PACKAGE = Path(__file__).parents[1] / "spine_ray"
STRONG = tuple(replace(told, shared=0.1) for told in FIVE)
"""Trials that are worth pooling."""


class Tables(HTMLParser):
    """Reads every table of a page as rows of cell texts, by the section it stands in; small print is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self._section, self._inside, self._small = "", False, False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self._section = dict(attrs).get("id") or ""
        elif tag == "tr":
            self.found.setdefault(self._section, []).append([])
        elif tag == "td":
            self.found[self._section][-1].append("")
        self._inside = tag == "td" or (self._inside and tag != "th")
        self._small = tag == "small" or self._small

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "td"
        self._small = self._small and tag != "small"

    def handle_data(self, data: str) -> None:
        if self._inside and not self._small:
            self.found[self._section][-1][-1] += data


def report(paths: StudyPaths, *words: str) -> str:
    assert main([str(paths.root), *words]) == 0
    return paths.report.read_text(encoding="utf-8")


def tables(text: str) -> dict[str, list[list[str]]]:
    reader = Tables()
    reader.feed(text)
    return {name: [row for row in rows if row] for name, rows in reader.found.items()}


def trial_rows(paths: StudyPaths) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = open_study(paths.root).trials().to_pylist()
    return rows


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyPaths:
    """Five trials, of which some are worth pooling."""
    return write_study(tmp_path_factory.mktemp("five"), STRONG, per_class=80)


@pytest.fixture(scope="module")
def page(study: StudyPaths) -> str:
    return report(study)


def stored(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def test_the_comparison_on_the_page_is_that_of_the_file(study: StudyPaths, page: str) -> None:
    told = {row[1]: row for row in tables(page)["controlled-comparison"] if len(row) > 2}
    rows = stored(study.comparison)["rows"]
    assert len(rows) == len(told) == 4
    for row in rows:
        seen = told[row["backbone"]]
        assert seen[2] == loss_text(row["log_loss"])
        behind = "best" if row["behind"] == 0.0 else f"{row['behind']:+.3f} ±{row['margin']:.3f}"
        assert seen[4] == behind


def test_probes_have_a_table_of_their_own_and_are_no_controlled_comparison(study: StudyPaths, page: str) -> None:
    (row,) = [row for row in tables(page)["probes"] if len(row) > 2]
    assert row[1] == "vit_tiny"
    assert sum(each[1] == "vit_tiny" for each in tables(page)["controlled-comparison"] if len(each) > 2) == 1
    assert "Fine-tuning can change the order" in page


def test_a_study_of_probes_alone_is_a_whole_report(tmp_path: Path) -> None:
    probes = [replace(told, freeze=1.0) for told in STRONG if told.resolution == 64]
    paths = write_study(tmp_path, probes)
    text = report(paths)
    rows = [row for row in tables(text)["probes"] if len(row) > 2]
    assert [row[1] for row in rows] == [
        each["backbone"] for each in sorted(trial_rows(paths), key=lambda each: each["log_loss"])
    ]
    assert rows[0][4] == "best"
    assert "controlled-comparison" not in tables(text)
    assert "The best found of every backbone is among the rows above." in text
    assert all(trial["freeze"] == 1.0 and trial["epochs"] == 1 for trial in trial_rows(paths))


def test_the_best_of_each_backbone_may_be_its_probe(tmp_path: Path) -> None:
    told = [*STRONG[:2], replace(STRONG[0], freeze=1.0, signal=6.0)]
    text = report(write_study(tmp_path, told))
    best = {row[1]: row for row in tables(text)["best-found"] if len(row) > 2}
    probe = next(row for row in tables(text)["probes"] if len(row) > 2)
    assert best["resnet18"][2] == probe[2]


def test_the_ensemble_on_the_page_is_that_of_the_file(study: StudyPaths, page: str) -> None:
    found = stored(study.ensemble)
    members, rep = found["members"], found["report"]
    rows = [row for row in tables(page)["ensemble"] if len(row) == 10]
    assert len(members) == len(rows) >= 2
    for row, member, part in zip(rows, members, rep["members"], strict=True):
        assert row[0] == member["backbone"]
        assert row[1] == f"{member['weight']:.3f}"
        assert row[2] == loss_text(-part["shapley"]["log_loss"])
        assert row[4] == f"{member['temperature']:.2f}"
        assert row[5:8] == [
            loss_text(part["log_loss"]), change_text(part["leave_one_out_rise"]), loss_text(part["disagreement"]),
        ]  # fmt: skip
    assert f"OOF log-loss {loss_text(rep['log_loss'])} ({interval_text(*rep['log_loss_interval'])})" in page
    assert f"accuracy {rep['accuracy']:.1%} on OOF rows" in page
    gain = rep["cross_fit"]
    assert f"{change_text(gain['gain'])} ({change_text(gain['low'])} to {change_text(gain['high'])})" in page


def test_calibration_and_classes_agree_with_the_file(study: StudyPaths, page: str) -> None:
    rep = stored(study.ensemble)["report"]
    before, after = rep["calibration"]["error_before"], rep["calibration"]["error_after"]
    assert f"error of the answer: {share_text(after)} ({share_text(before)} without any temperature)" in page
    gathered = page_of(read_files(study.root))
    assert gathered.calibration[0].error == pytest.approx(rep["calibration_error"], abs=1e-12)
    # All rows are counted once, and the recalls make up the accuracies.
    rows = gathered.classes
    assert sum(row.rows for row in rows) == sum(row.predicted for row in rows) == len(read_samples(study.samples).dev)
    assert sum(row.hits for row in rows) / sum(row.rows for row in rows) == pytest.approx(rep["accuracy"])
    assert sum(row.recall or 0.0 for row in rows) / len(rows) == pytest.approx(rep["balanced_accuracy"])
    told = {row[0]: row for row in tables(page)["classes"]}
    assert all(told[row.name][2] == share_text(row.recall) and told[row.name][1] == str(row.rows) for row in rows)


def test_there_is_a_point_for_each_completed_trial(study: StudyPaths, page: str) -> None:
    assert len(set(re.findall(r'<g id="ladder-find-\d+" class="mark"><title>', page))) == len(completed(study)) == 5
    assert all(name in page for name in completed(study))
    assert "All 5 completed trials" in page


def test_every_picture_is_a_dev_row_that_was_not_changed(study: StudyPaths) -> None:
    gallery = page_of(read_files(study.root)).gallery
    assert gallery is not None and 0 < len(gallery.pictures) <= 24
    samples = read_samples(study.samples)
    dev = {samples.sample_ids[row] for row in samples.dev}
    assert all(picture.sample_id in dev for picture in gallery.pictures)
    assert all(len(picture.jpeg) < 20_000 for picture in gallery.pictures)
    torn = [picture.disagreement for picture in gallery.pictures if picture.kind == "disagree"]
    assert torn == sorted(torn, reverse=True)
    for picture in gallery.pictures:
        if picture.kind == "all err":
            assert all(what != picture.label for _, what, _ in picture.said)


def test_pictures_that_are_gone_or_other_are_said_to_be(tmp_path: Path) -> None:
    paths = write_study(tmp_path, STRONG, per_class=30)
    data = tmp_path / "pictures.parquet"
    aside = tmp_path / "aside"
    aside.mkdir()
    other = write_study(aside, STRONG, classes=("ant", "bee", "dog"), per_class=31)  # as many rows and more, others
    data.write_bytes((aside / "pictures.parquet").read_bytes())
    assert other.root.exists()
    gallery = page_of(read_files(paths.root)).gallery
    assert gallery is not None
    assert len({picture.sample_id for picture in gallery.pictures} - set(read_samples(paths.samples).sample_ids)) == 0
    data.unlink()
    text = report(paths)
    assert "the pictures cannot be read: there is nothing at" in text
    assert "data:image/jpeg" not in text
    assert "<h2>Classes</h2>" in text


def test_a_member_whose_oof_logits_are_lost_is_said_to_be(tmp_path: Path) -> None:
    paths = write_study(tmp_path, STRONG)
    member = json.loads(paths.ensemble.read_text())["members"][0]["trial_id"]
    paths.oof(member).write_bytes(b"")
    with opened_to_change(paths) as opened:
        assert any(member in line for line in opened.lines)
    assert main([str(paths.root)]) == 0
    text = paths.report.read_text()
    assert "its OOF logits are lost" in text
    assert member in text


def test_one_trial_is_a_whole_report(tmp_path: Path) -> None:
    text = report(write_study(tmp_path, FIVE[:1]))
    assert "Use resnet18 alone" in text
    assert "The one completed trial" in text
    assert "Every completed trial saw 64 px and every completed trial had freeze depth 0.00" in text
    assert 'id="sizes-' not in text and 'id="disagreement-' not in text


def test_without_a_gain_the_page_says_that_one_model_answers(tmp_path: Path) -> None:
    told = [replace(each, shared=1.0, signal=2.0) for each in FIVE[:3]]
    paths = write_study(tmp_path, told)
    found = stored(paths.ensemble)
    assert found["report"]["answer"] == "single"
    text = report(paths)
    assert "alone: accuracy" in text
    assert tables(text)["ensemble"][0][1] == "1.000"
    assert "members of" not in text


def test_failures_alone_are_a_report_too(tmp_path: Path) -> None:
    told = [
        Told(backbone="resnet18", status="failed", reason="<b>NaN</b>\nat epoch 2"),
        Told(backbone="vit", tier="heavy", status="failed", reason="out of memory"),
        Told(backbone="swin", status="stopped", reason="behind"),
        Told(backbone="lenet", status=None),
    ]
    paths = write_study(tmp_path, told)
    text = report(paths)
    assert "of 4 trials 0 completed, 1 were stopped early, 2 failed and 1 without an end" in text
    assert [row[2] for row in tables(text)["failures"]] == ["<b>NaN</b>\\nat epoch 2", "out of memory"]
    assert "<h2>Learning curves</h2>" in text
    assert "<h2>Quality against cost</h2>" not in text
    paths.ledger.unlink()
    assert "Nothing was trained on the present rows." in report(paths)


def test_hostile_class_names_are_shown_and_do_nothing(tmp_path: Path) -> None:
    paths = write_study(tmp_path, STRONG, HOSTILE, per_class=12)
    text = report(paths)
    assert len(tables(text)["classes"]) == len(HOSTILE)
    assert "<script" not in text
    assert "\u202e" not in text and "\r" not in text
    assert "x" * 299 in text  # whole, in a hint
    reader = Tables()
    reader.feed(text)
    assert re.findall(r"<(?:section|main|html)\b", text).count("<main") == 1
    assert text.count("<section") == text.count("</section>")


def test_the_report_of_eight_times_the_trials_and_classes_takes_less_than_eight_times_as_long(tmp_path: Path) -> None:
    small = write_study(tmp_path / "small", many(5), [f"class {n}" for n in range(3)], per_class=6)
    large = write_study(tmp_path / "large", many(40), [f"class {n}" for n in range(24)], per_class=6)
    assert cpu_seconds(lambda: report(large)) < 8 * cpu_seconds(lambda: report(small), times=2)  # about 3
    text = large.report.read_text()
    assert len(re.findall(r'<g id="ladder-find-\d+"', text)) == 40
    assert len(tables(text)["classes"]) == 24
    assert len(text) < 8 * len(small.report.read_text())


def test_the_page_and_its_figures_go_where_they_are_wanted(
    study: StudyPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "deep" / "page.html", tmp_path / "figures"
    assert main([str(study.root), "--out", str(out), "--figures", str(figures)]) == 0
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    names = {file.stem for file in figures.iterdir()}
    assert names == {"ladder", "sizes", "disagreement", "curves", "settings", "calibration"}
    assert {file.suffix for file in figures.iterdir()} == {".svg", ".png"}
    told = capsys.readouterr().out
    assert all(str(path) in told for path in (out, *figures.iterdir()))


def test_the_same_study_gives_the_same_page(study: StudyPaths) -> None:
    pages = [re.sub(r"report of .*? UTC", "", report(study)) for _ in range(2)]
    assert pages[0] == pages[1]


def test_reporting_changes_nothing_but_the_page(study: StudyPaths) -> None:
    before = {file: file.read_bytes() for file in study.root.rglob("*") if file.is_file() and file != study.report}
    report(study)
    assert {
        file: file.read_bytes() for file in study.root.rglob("*") if file.is_file() and file != study.report
    } == before


@pytest.mark.parametrize(
    ("file", "damage", "told"),
    [
        ("study.json", None, "there is no study"),
        ("gates.json", '[{"gate": "sound"}]', "gates.json is damaged"),
        ("history.json", "[3]", "history.json is damaged"),
        ("plan.json", '{"predicted": {}}', "plan.json is damaged"),
        ("ensemble.json", "{}", "ensemble.json is damaged"),
        ("samples.parquet", "", "samples.parquet cannot be read"),
    ],
)
def test_bad_input_is_one_line(
    study: StudyPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, damage: str | None, told: str
) -> None:
    copy = tmp_path / "study"
    shutil.copytree(study.root, copy)
    shutil.rmtree(copy / "copies", ignore_errors=True)
    if damage is None:
        (copy / file).unlink()
    else:
        (copy / file).write_text(damage)
    assert main([str(copy)]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1


def test_a_folder_that_cannot_be_written_to_is_one_line(
    study: StudyPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main([str(study.root), "--out", str(tmp_path / "file" / "page.html")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1


def test_the_command_loads_no_torch_and_no_ray() -> None:
    code = "import spine_ray.climb.story, spine_ray.show.page, sys; sys.exit(bool({'torch', 'ray'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=PATIENCE_S).returncode == 0


def test_a_search_loads_what_draws_only_when_it_draws() -> None:
    drawing = re.compile(r"^(?:from|import) (?:matplotlib|spine_ray\.show\.(?:page|figure))", re.MULTILINE)
    rooms = [*(PACKAGE / "climb").glob("*.py"), PACKAGE / "search.py", PACKAGE / "show" / "terminal.py"]
    assert len(rooms) > 20
    assert [file.name for file in rooms if drawing.search(file.read_text())] == []


def test_a_chosen_ensemble_that_the_test_split_never_saw_says_so(tmp_path: Path) -> None:
    paths = write_study(tmp_path, FIVE[:1])
    record = stored(paths.record)
    record["test_openings"] = [{"time": "2026-11-25T00:00:00+00:00", "ensemble_hash": "another"}]
    paths.record.write_text(json.dumps(record))
    choose(paths)
    assert "the test split was opened once, for other ensembles" in report(paths)


def browse(file: Path, profile: Path) -> tuple[str, list[str], list[str]]:
    """Open a page; return its elements, what it said on the console, and what it asked for."""
    assert BROWSER is not None
    log = profile.with_suffix(".json")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", f"--log-net-log={log}",
        "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    params = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # What the browser asks for its own sake has no origin.
    asked = [each["url"] for each in params if each.get("initiator", "not an origin") != "not an origin"]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line], asked


@pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt-get install chromium")
@pytest.mark.timeout(240)
def test_what_a_page_asks_and_says_would_be_noticed(tmp_path: Path) -> None:
    control = tmp_path / "control.html"
    control.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.log("said")</script>')
    _, said, asked = browse(control, tmp_path / "profile")
    assert len(said) == 1
    assert asked == ["http://127.0.0.1:9/x.png"]


@pytest.mark.skipif(BROWSER is None, reason="needs chromium: apt-get install chromium")
@pytest.mark.timeout(240)
@pytest.mark.parametrize("names", [("ant", "bee", "cow"), HOSTILE], ids=["plain", "hostile"])
def test_a_browser_shows_every_trial_without_an_error_and_without_a_request(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    paths = write_study(tmp_path, STRONG, names, per_class=16)
    text = report(paths)
    elements, said, asked = browse(paths.report, tmp_path / "profile")
    assert said == []
    assert asked == []
    assert len(set(re.findall(r'id="ladder-find-\d+"', elements))) == len(completed(paths)) == 5
    assert elements.count("<section") == text.count("<section")
    assert "<script" not in elements
