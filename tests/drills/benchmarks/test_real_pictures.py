import csv
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from benchmarks.budgets import Budget
from benchmarks.draw_report import DrawRuns, summary
from benchmarks.frozen_models import FOLDS, STRENGTHS, choose_strength, deal_folds, decode, load_backbone
from benchmarks.generated_pictures import WEIGHTS, write_pictures
from benchmarks.picture_table import Draw, PictureTable, draw_rows, read_table, write_table
from benchmarks.predicted_losses import Judged, Paired, judge_file, judge_probabilities, write_probabilities
from benchmarks.real_pictures import find_table
from benchmarks.search_runs import Files, MarkRun, SearchRun, Setting
from spine_ray.core.views import scoring_view
from spine_ray.data.sources import open_source
from spine_ray.space.load import load_space


def table(groups, classes="ab"):
    """A table with the classes in turn by group, `groups` being the group of each row."""
    names = list(dict.fromkeys(groups))
    labels = tuple(classes[names.index(group) % len(classes)] for group in groups)
    return PictureTable(tuple(Path(f"/p/{row}.png") for row in range(len(groups))), labels, tuple(map(str, groups)))


def setting(**changes):
    values = {
        "pictures": Path("/p"),
        "weights": WEIGHTS,
        "backbones": ("test_resnet", "test_efficientnet"),
        "sizes": (32, 48),
        "freezes": (0.0, 1.0),
        "folds": 3,
        "test_share": None,
        "search_words": "",
    }
    return Setting(**{**values, **changes})


def search_run(judged, budget="60", **changes):
    values = {"budget": budget, "budget_s": 60.0, "seconds": 30.0, "exit_code": 0, "last_words": "", "completed": 2}
    return SearchRun(**{**values, **changes}, judged=judged)


def judged_of(losses):
    return Judged(np.array(losses, np.float64), np.array(losses) < 0.5)


@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_in_two_sets_of_a_draw(seed):
    rng = np.random.default_rng(seed)
    pictures = table(sorted(rng.integers(0, 60, 200).tolist()))
    draw = draw_rows(pictures, study=50, test=20, judge=60, seed=seed)
    sets = [{pictures.groups[row] for row in rows} for rows in (draw.study, draw.test, draw.judge)]
    assert not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])
    everyone = Counter(pictures.groups)
    for rows in (draw.study, draw.test, draw.judge):
        assert all(everyone[group] == count for group, count in Counter(pictures.groups[row] for row in rows).items())


def test_a_draw_has_as_many_rows_as_asked_for_where_the_groups_allow_it():
    draw = draw_rows(table([row // 2 for row in range(200)]), study=51, test=10, judge=1000, seed=0)
    assert [len(rows) for rows in (draw.study, draw.test, draw.judge)] == [50, 10, 140]


def test_a_smaller_study_lies_inside_a_larger_one_and_is_judged_on_the_same_rows():
    pictures = table([row // 2 for row in range(400)])
    small, large = (draw_rows(pictures, study=study, test=0, judge=100, seed=3) for study in (40, 120))
    assert set(small.study) < set(large.study)
    np.testing.assert_array_equal(small.judge, large.judge)


@pytest.mark.parametrize("seed", range(5))
def test_every_set_of_a_draw_has_the_shares_of_the_classes(seed):
    classes = "a" * 20 + "b" * 60 + "c" * 120
    pictures = PictureTable(
        tuple(Path(f"/p/{row}.png") for row in range(400)),
        tuple(np.repeat(list(classes), 2).tolist()),
        tuple(str(row // 2) for row in range(400)),
    )
    draw = draw_rows(pictures, study=100, test=40, judge=200, seed=seed)
    for rows, share in ((draw.study, 0.25), (draw.test, 0.1), (draw.judge, 0.5)):
        counts = Counter(pictures.labels[row] for row in rows)
        for name, groups in (("a", 20), ("b", 60), ("c", 120)):
            assert abs(counts[name] / 2 - share * groups) <= 2


def test_draws_follow_from_the_seed():
    pictures = table(list(range(100)))
    one, same, other = (draw_rows(pictures, study=30, test=0, judge=30, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.study, same.study)
    assert set(one.study) != set(other.study)


def test_a_draw_that_cannot_be_judged_is_refused():
    with pytest.raises(ValueError, match="none of the class 'b'"):
        draw_rows(
            PictureTable((Path("/p"),) * 9, tuple("aaaaaaaab"), tuple("123456789")), study=1, test=0, judge=9, seed=0
        )
    with pytest.raises(ValueError, match="too few"):
        draw_rows(table(list(range(10))), study=10, test=0, judge=5, seed=0)
    with pytest.raises(ValueError, match="at least 1"):
        draw_rows(table(list(range(10))), study=0, test=0, judge=5, seed=0)


def test_a_table_survives_its_file_and_a_row_without_a_group_is_alone(tmp_path):
    (tmp_path / "table.csv").write_text("path,label,group\nx/1.png,a,one\nx/2.png,b,\n/y/3.png,b,\n")
    pictures = read_table(tmp_path / "table.csv")
    assert pictures.paths == (tmp_path / "x/1.png", tmp_path / "x/2.png", Path("/y/3.png"))
    assert len(set(pictures.groups)) == 3
    write_table(pictures, tmp_path / "again.csv")
    assert read_table(tmp_path / "again.csv") == pictures
    (tmp_path / "bare.csv").write_text("path,label\nx/1.png,a\n")
    with pytest.raises(ValueError, match="no column 'group'"):
        read_table(tmp_path / "bare.csv")


@pytest.mark.parametrize("sets", [(), ("one", "two")])
def test_a_folder_must_hold_one_table(sets, tmp_path):
    for name in sets:
        (tmp_path / name).mkdir()
        (tmp_path / name / "table.csv").touch()
    with pytest.raises(ValueError, match=f"one SET/table.csv, not {len(sets)}"):
        find_table(tmp_path)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1.3m+40", 170.0), ("4m", 400.0), ("600", 600.0), ("0.5m", 50.0), ("2.5", 2.5)]
)
def test_a_budget_counts_in_the_seconds_of_the_mark(text, seconds):
    assert Budget.parse(text).seconds(100.0) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "m", "0", "0m+0", "4m40", "+40", "4m-1", "-3", "1h", "m+4"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ValueError, match="a budget is"):
        Budget.parse(text)


def test_losses_are_those_of_the_true_class_whatever_the_order_of_the_file(tmp_path):
    judge = PictureTable((Path("/p/1"), Path("/p/2"), Path("/p/3")), ("b", "a", "b"), ("1", "2", "3"))
    rows = [["/p/3", 0.0, 1.0], ["/p/1", 0.75, 0.25], ["/p/2", 1.0, 0.0], ["/p/other", 0.5, 0.5]]
    with (tmp_path / "out.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["sample", "p_a", "p_b"], *rows])
    judged = judge_file(tmp_path / "out.csv", judge, ("a", "b"))
    np.testing.assert_allclose(judged.losses, [np.log(4.0), 0.0, 0.0])
    assert judged.hits.tolist() == [False, True, True]
    assert judged.summary() == {"log_loss": 0.4621, "accuracy": 0.6667}


def test_a_sure_mistake_costs_20_7_nats_and_no_more():
    assert judge_probabilities(np.array([[1.0, 0.0]]), np.array([1])).losses[0] == pytest.approx(9 * np.log(10))


def test_predictions_that_are_not_there_are_refused(tmp_path):
    judge = PictureTable((Path("/p/1"),), ("a",), ("1",))
    (tmp_path / "out.csv").write_text("sample,p_a,p_b\n/p/2,0.5,0.5\n")
    with pytest.raises(ValueError, match="no prediction of /p/1"):
        judge_file(tmp_path / "out.csv", judge, ("a", "b"))
    with pytest.raises(ValueError, match="no column 'p_c'"):
        judge_file(tmp_path / "out.csv", judge, ("a", "c"))


def test_probabilities_survive_their_file(tmp_path):
    judge = PictureTable((Path("/p/1"), Path("/p/2")), ("a", "b"), ("1", "2"))
    probabilities = np.array([[0.3, 0.7], [1e-7, 1 - 1e-7]])
    write_probabilities(tmp_path / "out.csv", judge, ("a", "b"), probabilities)
    judged = judge_file(tmp_path / "out.csv", judge, ("a", "b"))
    np.testing.assert_allclose(judged.losses, judge_probabilities(probabilities, np.array([0, 1])).losses, rtol=1e-8)


def naive_interval(differences, groups, draws, seed):
    rng, names = np.random.default_rng(seed), sorted(set(groups))
    means = []
    for _ in range(draws):
        rows = [row for name in rng.choice(names, len(names)) for row, group in enumerate(groups) if group == name]
        means.append(np.mean([differences[row] for row in rows]))
    return np.quantile(means, [0.025, 0.975])


def test_the_interval_is_that_of_a_naive_bootstrap_of_groups():
    rng = np.random.default_rng(0)
    groups = tuple(str(row // 3) for row in range(60))
    shared = np.repeat(rng.normal(0.0, 1.0, 20), 3)
    pair = Paired(shared + rng.normal(0.2, 0.3, 60), groups)
    found = pair.summary()
    low, high = naive_interval(pair.differences, groups, 3000, 1)
    assert found["difference"] == pytest.approx(pair.differences.mean(), abs=1e-4)
    # The ends of 1,000 and 3,000 draws scatter by some hundredths of a width of 0.9; rows alone would give 0.55.
    assert found["interval"] == pytest.approx([low, high], abs=0.08)


def test_a_group_that_is_judged_in_two_draws_stays_one():
    rng = np.random.default_rng(0)
    pair = Paired(rng.normal(size=40), tuple(map(str, range(40))))
    twice = Paired.joined([pair, pair]).summary()
    assert {**twice, "rows": 40} == pair.summary()


def runs_of(searches, draws=2):
    groups = tuple("112233")
    judge = PictureTable(tuple(Path(f"/{row}") for row in range(6)), tuple("ababab"), groups)
    rows = np.arange(6)
    mark = MarkRun(seconds=10.0, found={"models": [], "cpu_seconds": 9.0}, judged=judged_of([1.0] * 6))
    draw = Draw(study=rows, test=rows[:0], judge=rows)
    return [
        DrawRuns(rows=6, seed=seed, draw=draw, judge=judge, mark=mark, searches=searches(seed)) for seed in range(draws)
    ]


def test_a_report_has_no_figures_where_there_is_no_answer():
    runs = runs_of(lambda seed: (search_run(None, exit_code=3), search_run(judged_of([0.5] * 6), "120")))
    found = summary(runs)[0]
    first, second = found["budgets"]
    assert (first["answers"], first["log_loss"], first["minus_mark"]) == (0, None, None)
    assert (second["answers"], second["log_loss"]) == (2, 0.5)
    assert second["minus_mark"] == {"difference": -0.5, "interval": [-0.5, -0.5], "rows": 12, "by_draw": [-0.5, -0.5]}
    assert found["longer_minus_shorter"] == [{"longer": "120", "shorter": "60", "paired": None}]
    assert runs[0].plain()["searches"][0]["exit_code"] == 3
    json.dumps([run.plain() for run in runs], allow_nan=False)


def test_a_report_joins_the_draws_that_have_an_answer():
    losses = {0: [0.4] * 6, 1: [0.6] * 6}
    runs = runs_of(lambda seed: (search_run(judged_of(losses[seed])), search_run(judged_of([0.3] * 6), "120")))
    found = summary(runs)[0]
    assert found["budgets"][0]["minus_mark"]["by_draw"] == [-0.6, -0.4]
    paired = found["longer_minus_shorter"][0]["paired"]
    assert (paired["difference"], paired["by_draw"]) == (-0.2, [-0.1, -0.3])


def test_folds_of_the_mark_keep_groups_whole_and_hold_every_class():
    pictures = table([row // 2 for row in range(200)], "abcd")
    folds = deal_folds(pictures)
    assert sorted(set(folds.tolist())) == list(range(FOLDS))
    for group in set(pictures.groups):
        assert len({folds[row] for row in range(200) if pictures.groups[row] == group}) == 1
    for fold in range(FOLDS):
        assert {pictures.labels[row] for row in np.flatnonzero(folds == fold)} == set("abcd")


def test_the_strength_is_the_one_of_least_oof_loss():
    rng = np.random.default_rng(0)
    labels, folds = np.arange(60) % 3, np.arange(60) // 3 % 4
    features = (rng.normal(size=(60, 8)) + 2.0 * np.eye(3, 8)[labels]).astype(np.float32)
    with ThreadPoolExecutor(2) as pool:
        strength, oof = choose_strength(features, labels, folds, pool)
    by_strength = {}
    for candidate in STRENGTHS:
        losses = np.empty(60)
        for fold in range(4):
            train, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            scaler = StandardScaler().fit(features[train])
            head = LogisticRegression(C=candidate, max_iter=300)
            head.fit(scaler.transform(features[train]), labels[train])
            probabilities = head.predict_proba(scaler.transform(features[held]))
            losses[held] = [-np.log(row[label]) for row, label in zip(probabilities, labels[held], strict=True)]
        by_strength[candidate] = losses
    assert strength == min(by_strength, key=lambda candidate: by_strength[candidate].mean())
    np.testing.assert_allclose(oof.losses, by_strength[strength], rtol=1e-5)


def test_features_are_those_of_the_scoring_view_one_picture_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path / "cache"))
    pixels = decode(read_table(write_pictures(tmp_path / "pictures", 40, 0)), 63)
    backbone = load_backbone("test_resnet", WEIGHTS / "test_resnet.safetensors")
    with ThreadPoolExecutor(2) as pool:
        found = backbone.features(pixels, 48, pool)
    with torch.inference_mode():
        for row in range(40):
            view = scoring_view(pixels.picture(row), 48).float()[None] / 255.0
            alone = backbone.network((view - backbone.mean) / backbone.std)[0]
            np.testing.assert_allclose(found[row], alone.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share", [None, 0.1])
def test_both_sides_learn_from_the_same_rows(share, tmp_path):
    pictures = read_table(write_pictures(tmp_path / "pictures", 60, 0))
    draw = draw_rows(pictures, study=30, test=0 if share else 6, judge=24, seed=0)
    files = Files.write(tmp_path / "draw", pictures, draw, setting(test_share=share))
    source = open_source(str(files.study), tmp_path / "pictures")
    learnt = [row for row in source.rows if row.split != "test"]
    train, judge = read_table(files.train), read_table(files.judge)
    assert [(row.class_name, row.group) for row in learnt] == list(zip(train.labels, train.groups, strict=True))
    assert len(source.rows) - len(learnt) == (0 if share else 6)
    assert not {row.group for row in source.rows} & set(judge.groups)
    space = load_space(str(files.space))
    assert [tier.backbones for tier in space.tiers] == [("test_resnet", "test_efficientnet")]
    assert (space.tiers[0].resolutions, space.tiers[0].freezes, space.folds) == ((32, 48), (0.0, 1.0), 3)
    assert space.test_share == (share or 0.2)
