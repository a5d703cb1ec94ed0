"""The command as a user runs it, on a study and on a bundle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from spine_ray.climb.artefact import study_artefact, with_cascade
from spine_ray.climb.pick import open_stored
from spine_ray.ensemble.metrics import log_loss
from spine_ray.predict import main
from spine_ray.ship.bundle import new_folder, open_bundle, write_bundle
from tests.support.patience import PATIENCE_S

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
ALONE = """
import importlib.metadata, re, sys

def needed(names):
    found = set()
    while names:
        name = re.sub("[-_.]+", "-", names.pop()).lower()
        if name not in found:
            try:
                requires = importlib.metadata.requires(name) or []
            except importlib.metadata.PackageNotFoundError:
                continue  # for another system
            found.add(name)
            names += [re.match("[A-Za-z0-9._-]+", each)[0] for each in requires if "extra ==" not in each]
    return found

kept = needed(["torch", "timm", "numpy", "pillow", "safetensors"])
owners = importlib.metadata.packages_distributions().items()
normal = lambda name: re.sub("[-_.]+", "-", name).lower()
gone = {module for module, names in owners if not kept & {normal(name) for name in names}} - {"spine_ray"}
assert {"ray", "mlflow", "pyarrow", "pandas", "scipy", "sklearn", "rich", "rapidfuzz", "imagehash"} <= gone

class Fresh:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in gone else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Fresh, sys.meta_path)
from spine_ray.predict import main
sys.exit(main(sys.argv[1:]))
"""
"""Predicts as if only five packages and what they require were installed."""


@pytest.fixture(scope="module")
def bundle(shipped_study, tmp_path_factory):
    study = open_stored(shipped_study.root)
    artefact, tensors = study_artefact(study)
    out = tmp_path_factory.mktemp("bundle") / "out"
    with new_folder(out) as folder:
        write_bundle(with_cascade(study, artefact), tensors, folder)
    return out


def words(source: Path, shipped_study, out: Path, *more: str) -> list[str]:
    labels = ("--labels", str(shipped_study.labels))
    return [str(source), "--images", str(shipped_study.pictures), "--out", str(out), *labels, *more]


def test_the_table_and_the_scores_are_those_the_search_measured(shipped_study, tmp_path, capsys) -> None:
    out = tmp_path / "found.parquet"
    assert main(words(shipped_study.root, shipped_study, out)) == 0
    rows = {row["sample"]: row for row in pq.read_table(out).to_pylist()}
    (test,) = json.loads((shipped_study.root / "ensemble.json").read_text())["test"]
    classes = [name for name in next(iter(rows.values())) if name.startswith("p_")]
    probs = np.array([[rows[name][each] for each in classes] for name in shipped_study.names])
    np.testing.assert_allclose(probs, np.exp(shipped_study.log_probs), atol=1e-5)
    assert log_loss(np.log(probs), shipped_study.truth) == pytest.approx(test["log_loss"], abs=1e-4)
    told = capsys.readouterr().out
    assert f"{test['log_loss']:.4f}" in told
    assert f"{100 * test['accuracy']:.1f} %" in told
    assert "72 of 72 pictures have a label" in told


@pytest.mark.timeout(120)
def test_a_bundle_predicts_with_nothing_but_torch_timm_numpy_pillow_and_safetensors(
    bundle, shipped_study, tmp_path
) -> None:
    out = tmp_path / "found.csv"
    command = [sys.executable, "-c", ALONE, *words(bundle, shipped_study, out, "--cascade")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    assert len(out.read_text().splitlines()) == 73
    assert "The cascade does not pay" in done.stdout


@pytest.mark.timeout(120)
def test_without_pyarrow_a_parquet_of_pictures_is_one_line(bundle, tmp_path) -> None:
    (tmp_path / "new.parquet").write_bytes(b"PAR1")
    words = [str(bundle), "--images", str(tmp_path / "new.parquet"), "--out", str(tmp_path / "x.csv")]
    command = [sys.executable, "-c", ALONE, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.endswith("new.parquet: reading Parquet needs pyarrow, which is not installed\n")


def test_predicting_from_a_study_loads_no_ray_and_no_mlflow(shipped_study, tmp_path) -> None:
    code = (
        "import sys; from spine_ray.predict import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 3 * bool({'ray', 'mlflow'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *words(shipped_study.root, shipped_study, tmp_path / "x.csv")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr


def test_a_temperature_fitted_on_new_labels_makes_a_new_bundle(bundle, shipped_study, tmp_path, capsys) -> None:
    new = tmp_path / "new"
    assert main(words(bundle, shipped_study, tmp_path / "x.csv", "--refit-temperature", str(new))) == 0
    assert "times what it was" in capsys.readouterr().out
    before, after = open_bundle(bundle)[0], open_bundle(new)[0]
    assert after.mix.final_temperature != before.mix.final_temperature
    assert after.members == before.members
    (refit,) = after.about["temperature_refits"]
    assert refit["rows"] == 72
    assert main(words(new, shipped_study, tmp_path / "y.parquet")) == 0
    rows = {row["sample"]: row for row in pq.read_table(tmp_path / "y.parquet").to_pylist()}
    probs = [rows[n][f"p_digit {label}"] for n, label in zip(shipped_study.names, shipped_study.truth, strict=True)]
    assert -np.log(probs).mean() < log_loss(shipped_study.log_probs, shipped_study.truth)


BAD_INPUT = {
    "no study": (["nowhere", "--images", "test", "--out", "x.csv"], "there is no study at nowhere"),
    "no pictures": (["study", "--images", "nowhere", "--out", "x.csv"], "there is nothing at 'nowhere'"),
    "another table": (["study", "--images", "test", "--out", "x.json"], "must end in .parquet or .csv"),
    "no labels": (["study", "--images", "test", "--out", "x.csv", "--labels", "nowhere.csv"], "cannot be read"),
    "refit without": (["study", "--images", "test", "--out", "x.csv", "--refit-temperature", "n"], "needs --labels"),
    "a refit that is there": (
        ["study", "--images", "test", "--out", "x.csv", "--labels", "labels.csv", "--refit-temperature", "test"],
        "test is there already",
    ),
    "a table that cannot be": (["study", "--images", "test", "--out", f"{'x' * 250}.csv"], "cannot be written: [Errno"),
    "a study that cannot be": (["x" * 300, "--images", "test", "--out", "x.csv"], f"{'x' * 300}"),
    "no word": (["study", "--images", "test"], "--out"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_line_and_writes_nothing(case, shipped_study, monkeypatch, capsys) -> None:
    given, told = BAD_INPUT[case]
    monkeypatch.chdir(shipped_study.root.parent)
    before = sorted(path.name for path in shipped_study.root.parent.iterdir())
    try:
        code = main(given)
    except SystemExit as left:  # the argument parser leaves by itself
        code = left.code
    assert code == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in shipped_study.root.parent.iterdir()) == before


def by_name(file: Path, folder: Path) -> Path:
    return file


def by_a_soft_link(file: Path, folder: Path) -> Path:
    (folder / "soft.csv").symlink_to(file)
    return folder / "soft.csv"


def by_a_hard_link(file: Path, folder: Path) -> Path:
    (folder / "hard.csv").hardlink_to(file)
    return folder / "hard.csv"


def by_a_linked_folder(file: Path, folder: Path) -> Path:
    (folder / "linked").symlink_to(folder, target_is_directory=True)
    return folder / "linked" / file.name


@pytest.mark.parametrize("spelled", [by_name, by_a_soft_link, by_a_hard_link, by_a_linked_folder])
@pytest.mark.parametrize("option", ["--images", "--images file://", "--labels"])
def test_a_table_that_would_replace_what_was_given_is_refused(option, spelled, shipped_study, tmp_path, capsys) -> None:
    mine = tmp_path / "mine.csv"
    rows = [f"{shipped_study.pictures / name},digit 0\n" for name in shipped_study.names]
    mine.write_text("".join(["path,label\n", *rows]))
    before = mine.read_bytes()
    out = spelled(mine, tmp_path)
    word, _, scheme = option.partition(" ")
    images = [] if word == "--images" else ["--images", str(shipped_study.pictures)]
    assert main([str(shipped_study.root), *images, word, f"{scheme}{mine}", "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"error: --out {out} would replace the file of {word}: name another file\n"
    assert mine.read_bytes() == before
    assert out.is_symlink() == (spelled is by_a_soft_link)


def test_a_table_of_before_may_be_replaced(shipped_study, tmp_path) -> None:
    out = tmp_path / "found.csv"
    out.write_text("of before")
    assert main(words(shipped_study.root, shipped_study, out)) == 0
    assert out.read_text().startswith("sample,class,")


def test_members_that_were_not_fitted_are_named(shipped_study, tmp_path, capsys) -> None:
    subprocess.run(["cp", "-r", str(shipped_study.root), str(tmp_path / "study")], check=True)
    member = next((tmp_path / "study" / "weights").iterdir())
    (member / "refit.safetensors").unlink()
    assert main(words(tmp_path / "study", shipped_study, tmp_path / "x.csv")) == 2
    assert f"{member.name} not fitted on all dev rows yet" in capsys.readouterr().err


def test_unreadable_pictures_are_told_and_are_rows(shipped_study, tmp_path, capsys) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for row in range(5):
        (folder / f"{row}.png").write_bytes(b"no picture")
    (folder / "fine.png").write_bytes((shipped_study.pictures / shipped_study.names[0]).read_bytes())
    assert main([str(shipped_study.root), "--images", str(folder), "--out", str(tmp_path / "x.parquet")]) == 0
    told = capsys.readouterr().out
    assert "no prediction: 0.png: not a picture of a known kind" in told
    assert "and 2 more, all in the table" in told
    errors = pq.read_table(tmp_path / "x.parquet").column("error").to_pylist()
    assert errors == 5 * ["not a picture of a known kind"] + [None]


@pytest.mark.parametrize("refits", [False, True])
def test_labels_of_other_pictures_are_told_after_what_was_done(refits, shipped_study, tmp_path, capsys) -> None:
    out, labels, new = tmp_path / "x.csv", tmp_path / "labels.csv", tmp_path / "new"
    labels.write_text("path,label\nelsewhere/1.png,digit 1\nelsewhere/2.png,digit 2\n")
    asked = [str(shipped_study.root), "--images", str(shipped_study.pictures), "--out", str(out)]
    more = ["--refit-temperature", str(new)] if refits else []
    assert main([*asked, "--labels", str(labels), *more]) == 2
    told = capsys.readouterr()
    assert told.out.startswith("72 pictures in ")
    assert told.out.endswith(f": {out}\n")
    assert told.err.startswith("error: --labels: 0 of the pictures have a label there; ")
    assert told.err.count("\n") == 1
    assert len(out.read_text().splitlines()) == 73
    assert not new.exists()


def test_labelled_pictures_of_which_none_can_be_read_are_told(shipped_study, tmp_path, capsys) -> None:
    folder, out, labels = tmp_path / "pictures", tmp_path / "x.csv", tmp_path / "labels.csv"
    folder.mkdir()
    for row in range(2):
        (folder / f"{row}.png").write_bytes(b"no picture")
    labels.write_text("path,label\n0.png,digit 0\n1.png,digit 1\n")
    words = ["--images", str(folder), "--out", str(out), "--labels", str(labels)]
    assert main([str(shipped_study.root), *words]) == 2
    told = capsys.readouterr()
    assert "2 pictures in " in told.out
    assert "no prediction: 1.png: not a picture of a known kind" in told.out
    assert "2 of the pictures have a label there, 2 of these no prediction (the column error says why)" in told.err


def test_labels_of_one_group_are_refused_before_anything_is_predicted(shipped_study, tmp_path, capsys) -> None:
    out, labels = tmp_path / "x.csv", tmp_path / "labels.csv"
    first, *rows = shipped_study.labels.read_text().splitlines()
    labels.write_text("\n".join([f"{first},group", *(f"{row},one" for row in rows)]))
    words = ["--images", str(shipped_study.pictures), "--out", str(out), "--labels", str(labels)]
    assert main([str(shipped_study.root), *words]) == 2
    assert f"--labels {labels}: all pictures are of one group; intervals need at least 2" in capsys.readouterr().err
    assert not out.exists()


def test_strange_names_and_lost_links_have_a_row_each(shipped_study, tmp_path, capsys) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    content = (shipped_study.pictures / shipped_study.names[0]).read_bytes()
    (folder / os.fsdecode(b"\xff.png")).write_bytes(content)
    (folder / os.fsdecode(b"\xfe.png")).write_bytes(b"no picture")
    (folder / "lost.png").symlink_to("nowhere")
    assert main([str(shipped_study.root), "--images", str(folder), "--out", str(tmp_path / "x.parquet")]) == 0
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert {row["sample"]: row["error"] for row in rows} == {
        "lost.png": "the file is missing or may not be read",
        r"\udcfe.png": "not a picture of a known kind",
        r"\udcff.png": None,
    }
    assert r"\udcfe.png" in capsys.readouterr().out
