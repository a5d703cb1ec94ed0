"""The hour-one checks as a user runs them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from spine_ray.check import main
from tests.support.tiny_search import write_pictures


@pytest.mark.timeout(120)
def test_sound_pictures_pass_and_leave_an_audit_and_a_contact_sheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    assert main(["--data", "pictures", "--space", "smoke"]) == 0
    told = capsys.readouterr().out
    kinds = {each["kind"] for each in json.loads((tmp_path / "checks/pictures/audit.json").read_text())["findings"]}
    assert {"counts", "balance", "resolution", "augmentation", "one_batch", "probe", "shuffled_control"} <= kinds
    assert all(kind in told for kind in kinds)
    with Image.open(tmp_path / "checks/pictures/contact_sheet.png") as sheet:
        assert min(sheet.size) > 64


@pytest.mark.timeout(120)
def test_data_that_must_be_mended_ends_with_3_and_names_the_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "pictures")
    for number in range(6):
        (tmp_path / "pictures" / "one" / f"broken{number}.png").write_bytes(b"no picture")
    assert main(["--data", "pictures", "--space", "smoke"]) == 3
    told = capsys.readouterr().out
    assert "one/broken0.png" in told
    assert "mend the data" in told


def test_a_study_is_not_written_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.json").write_text("{}")
    assert main(["--space", "smoke", "--out", "study"]) == 2
    assert "is a study" in capsys.readouterr().err
    assert (tmp_path / "study" / "study.json").read_text() == "{}"
