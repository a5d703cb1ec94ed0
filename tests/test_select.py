"""The command on a stored study: no model is run, nothing is trained."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spine_ray.climb.choice import price_of
from spine_ray.ensemble.price import PriceList
from spine_ray.select import main
from spine_ray.space.config import TrialConfig
from spine_ray.space.recipes import start_recipe
from spine_ray.study.hold import held
from spine_ray.study.paths import StudyPaths, copy_of
from spine_ray.study.tables import cost_key
from spine_ray.study.trials import Trial
from tests.support.selectable_study import (
    BACKBONES,
    config,
    cost,
    started,
    write_study,
)


@pytest.fixture
def study(tmp_path: Path) -> StudyPaths:
    return write_study(tmp_path / "study")


def select(study: StudyPaths, *words: str) -> dict[str, Any]:
    assert main([str(study.root), *words]) == 0
    found: dict[str, Any] = json.loads(study.ensemble.read_text())
    return found


def names(found: dict[str, Any]) -> set[str]:
    return {member["backbone"] for member in found["members"]}


def test_the_members_are_those_who_know_something(study: StudyPaths, capsys: pytest.CaptureFixture[str]) -> None:
    found = select(study)
    assert names(found) == set(BACKBONES) - {"lenet"}
    assert found["report"]["cross_fit"]["low"] > 0
    told = capsys.readouterr().out
    assert "Cross-fitted gain over the best single" in told
    assert "What each cost buys" in told
    assert "4 members are not fitted on all dev rows yet" in told


def test_a_dropped_member_stays_out_and_the_others_stay_in(study: StudyPaths) -> None:
    select(study)
    found = select(study, "--drop", "vit_tiny")
    assert names(found) == {"resnet18", "resnet34", "swin"}
    assert sum(member["weight"] for member in found["members"]) == pytest.approx(1.0)
    assert found["wishes"]["banned"] == [config("vit_tiny").trial_id]
    assert "vit_tiny" not in names(select(study))  # chosen anew, the wish is kept
    assert "vit_tiny" in names(select(study, "--free", "vit_tiny"))


def test_an_added_trial_stays_in_however_useless(study: StudyPaths) -> None:
    before = names(select(study))
    found = select(study, "--add", "lenet")
    assert names(found) == {*before, "lenet"}
    assert "kept because members are pinned" in found["report"]["reason"] or found["report"]["cross_fit"]["low"] > 0
    assert "lenet" in names(select(study))
    assert names(select(study, "--ban", "lenet")) == before


def test_the_best_single_is_what_an_edited_ensemble_is_compared_with(study: StudyPaths) -> None:
    best = select(study)["best_single"]
    others = [trial_id for trial_id in BACKBONES if trial_id not in best and trial_id != "lenet"]
    found = select(study, *(word for name in others[:2] for word in ("--drop", name)))
    assert found["best_single"] == best


def test_limits_are_kept(study: StudyPaths) -> None:
    assert len(select(study, "--max-members", "2")["members"]) == 2
    families = [member["family"] for member in select(study, "--max-per-family", "1")["members"]]
    assert len(families) == len(set(families))
    # Every model costs 8 ms of prefix and 2 ms of its own; no two share a prefix.
    cheap = select(study, "--max-cost", "20")
    assert len(cheap["members"]) == 2
    assert cheap["report"]["cost"] == pytest.approx(20.0)


def test_trials_of_one_frozen_prefix_pay_it_once() -> None:
    first, second = (
        config("resnet18"),
        TrialConfig(backbone="resnet18", resolution=64, freeze=0.5, recipe=start_recipe("random")),
    )
    costs = {cost_key(first): cost(first)}
    prices = PriceList(tuple(price_of(Trial(started=started(each)), costs) for each in (first, second)))
    assert prices.total([0]).ms == pytest.approx(10.0)
    assert prices.total([0, 1]).ms == pytest.approx(12.0)
    assert prices.total([0, 1]).macs == 1_200_000
    assert prices.total([0, 1]).megabytes == pytest.approx(4 * (5_000 + 4_000) / 1e6)


def test_show_prints_what_is_there_and_changes_nothing(study: StudyPaths, capsys: pytest.CaptureFixture[str]) -> None:
    select(study)
    before, _ = study.ensemble.read_bytes(), capsys.readouterr()
    first = main([str(study.root), "--show"])
    assert first == 0
    assert "Pooled by" in capsys.readouterr().out
    assert study.ensemble.read_bytes() == before


def test_the_same_choice_twice_writes_the_same_file(study: StudyPaths) -> None:
    assert select(study) == select(study)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--show"], "has no ensemble yet"),
        (["--drop", "swin"], "has no ensemble to change"),
        (["--pin", "alexnet"], "no completed trial is called 'alexnet'"),
        (["--pin", "resnet"], "'resnet' names 2 trials"),
        (["--pin", "swin", "--ban", "swin"], "cannot be both in and out"),
        (["--max-cost", "5"], "max_cost 5 is below the cheapest member's cost of 10"),
        (["--max-members", "0"], "max_members must be at least 1"),
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    study: StudyPaths, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main([str(study.root), *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not study.ensemble.exists()


def test_dropping_what_is_no_member_is_refused(study: StudyPaths, capsys: pytest.CaptureFixture[str]) -> None:
    select(study)
    assert main([str(study.root), "--drop", "lenet"]) == 2
    assert "is not a member; the members are" in capsys.readouterr().err


def test_a_folder_that_is_no_study_and_a_study_without_trials_are_refused(
    study: StudyPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "there is no study" in capsys.readouterr().err
    for path in (study.ledger, copy_of(study.ledger)):
        path.unlink()
    assert main([str(study.root)]) == 2
    assert "no trial" in capsys.readouterr().err


def test_a_study_that_another_process_writes_to_is_left_alone(
    study: StudyPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    with held(study):  # a lock is of one opened file: another one in this process is as good as another process
        assert main([str(study.root)]) == 2
        assert main([str(study.root), "--show"]) == 2, "there is nothing to show yet"
    told, shown = capsys.readouterr().err.strip().splitlines()
    assert f"is being written to by process {os.getpid()} on" in told
    assert "has no ensemble yet" in shown


def test_the_command_loads_no_torch_and_no_ray() -> None:
    code = "import spine_ray.select, sys; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_metric_and_the_costs_of_mistakes_stay_with_the_study(
    study: StudyPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    found = select(study)
    found["judge"] = {"metric": "expected_cost", "cost_matrix": [[0, 5, 5], [5, 0, 5], [5, 5, 0]]}
    study.ensemble.write_text(json.dumps(found))
    capsys.readouterr()
    again = select(study)
    assert again["judge"] == found["judge"]
    assert again["report"]["expected_cost"] == pytest.approx(5 * (1 - again["report"]["accuracy"]))
    assert "OOF expected cost" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["[]", '{"wishes": {}}', '{"members": 3}'])
@pytest.mark.parametrize("words", [[], ["--show"], ["--drop", "swin"]])
def test_an_ensemble_of_another_form_is_one_line_and_stays_as_it_is(
    study: StudyPaths, capsys: pytest.CaptureFixture[str], damage: str, words: list[str]
) -> None:
    study.ensemble.write_text(damage)
    assert main([str(study.root), *words]) == 2
    told = capsys.readouterr().err
    assert "ensemble.json is damaged" in told
    assert told.count("\n") == 1
    assert study.ensemble.read_text() == damage


def test_an_ensemble_cut_short_is_set_aside_and_another_is_chosen(
    study: StudyPaths, capsys: pytest.CaptureFixture[str]
) -> None:
    study.ensemble.write_text("{")
    assert main([str(study.root), "--show"]) == 2
    assert study.ensemble.read_text() == "{"
    capsys.readouterr()
    assert names(select(study)) == set(BACKBONES) - {"lenet"}
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "ensemble.json is damaged: wishes and test results are lost with it" in told
    assert (study.damaged / "ensemble.json").read_text() == "{"
