import io
from dataclasses import replace

import pytest
from rich.console import Console

from spine_ray.ladder.gates import GateDecision
from spine_ray.show.board import (
    Answer,
    BoardRow,
    EnsembleBoard,
    FailureRow,
    FinalBoard,
    FinalResult,
    FrontRow,
    MemberRow,
    board_table,
    ensemble_table,
    failures_table,
    final_table,
    front_table,
    gates_table,
    opened_line,
    print_answer,
)

ROW = BoardRow(
    tier="light",
    backbone="resnet18.a1_in1k",
    family="resnet",
    resolution=224,
    freeze=0.5,
    trial_id="resnet18-224-f050-0a1b2c3d",
    role="start",
    log_loss=0.51239,
    low=0.48,
    high=0.55,
    behind=0.0123,
    margin=0.0083,
    accuracy=0.9012,
    minutes=12.34,
    train_images_s=812.0,
    macs=1_820_000_000,
)
LONG = replace(
    ROW,
    backbone="vit_so400m_patch14_siglip_gap_378.webli_ft_in1k",
    resolution=1024,
    trial_id="vit_so400m_patch14_siglip_gap_378-1024-f100-ffffffff",
    log_loss=11.5,
    low=10.25,
    high=12.75,
    behind=10.5,
    margin=1.25,
    accuracy=1.0,
    minutes=12345.0,
    macs=333_000_000_000,
    note="within noise of resnet18-224-f050-0a1b2c3d",
)
MEMBER = MemberRow(
    trial_id=LONG.trial_id,
    backbone=LONG.backbone,
    family="vision_transformer",
    weight=0.667,
    temperature=1.25,
    log_loss=0.4,
    rise=0.0123,
    disagreement=0.05,
    cost_ms=3.5,
    brings=1.9876,
    chosen_in=0.8,
)
ENSEMBLE = EnsembleBoard(
    pool="log probabilities",
    log_loss=0.35,
    low=0.3,
    high=0.4,
    accuracy=0.93,
    single=ROW.trial_id,
    gain=0.02,
    gain_low=-0.001,
    gain_high=0.041,
    cost_ms=7.0,
    members=(MEMBER, replace(MEMBER, trial_id=ROW.trial_id, weight=0.333, cost_ms=None)),
)
FRONT = (
    FrontRow(cost_ms=2.5, members=("resnet18",), log_loss=0.5, single="resnet18", single_log_loss=0.5),
    FrontRow(cost_ms=6.0, members=("resnet18", LONG.backbone), log_loss=0.35, single="resnet50", single_log_loss=0.45),
)
FINAL = FinalBoard(
    results=(
        FinalResult(
            artefact="ensemble of 2 members [refitted on all dev rows]",
            rows=360,
            log_loss=0.36,
            low=0.3,
            high=0.42,
            accuracy=0.93,
            accuracy_low=0.9,
            accuracy_high=0.95,
        ),
    ),
    opened=2,
)


def shown(renderable):
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_start_recipes_come_first_and_the_lowest_log_loss_leads():
    second = replace(ROW, backbone="resnet34", log_loss=0.6, macs=1)
    unscored = replace(ROW, backbone="unscored", log_loss=None, low=None, high=None, accuracy=None)
    best = replace(ROW, backbone="found", trial_id="found-224-f050-00000000", role="best", log_loss=0.3)
    text = shown(board_table([best, unscored, second, ROW]))
    places = [
        text.index(name) for name in ("start recipe", "resnet18", "resnet34", "unscored", "best found", "found\n")
    ]
    places[-1] = text.rindex("found")
    assert places == sorted(places)


def test_probes_stand_above_the_start_recipes_and_are_said_to_be_no_fine_tunes():
    probe = replace(ROW, role="probe", freeze=1.0, trial_id="resnet18-224-probe-ffffffff", log_loss=0.9)
    text = shown(board_table([ROW, probe]))
    titles = ["Every backbone by its probe: a linear head on frozen features, not a fine-tune", "start recipe"]
    assert [text.index(title) for title in titles] == sorted(text.index(title) for title in titles)
    assert text.index("ffffffff") < text.index("0a1b2c3d")
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize(
    ("best", "is_said"), [(("p1", "p2"), True), (("s1", "s2"), True), (("p1", "s2"), False), (("p1", "x"), False)]
)
def test_the_best_found_has_a_table_unless_one_above_holds_all_of_it(best, is_said):
    above = [("probe", "p1"), ("probe", "p2"), ("start", "s1"), ("start", "s2")]
    rows = [replace(ROW, role=role, trial_id=name) for role, name in (*above, *(("best", name) for name in best))]
    text = shown(board_table(rows))
    assert ("The best found of every backbone is among the rows above." in text) == is_said
    assert text.count("The best found") == 1


def test_equal_losses_fall_by_macs():
    text = shown(board_table([ROW, replace(ROW, backbone="smaller", macs=1)]))
    assert text.index("smaller") < text.index("resnet18")


def test_the_board_s_numbers_are_written_as_everywhere():
    text = shown(board_table([ROW]))
    for number in ("0.5124", "+0.012 ±0.008", "90.1 %", "12.3", "1.82G", "0.50", "0a1b2c3d"):
        assert number in text


def test_notes_stand_below_and_each_once():
    text = shown(board_table([LONG, replace(LONG, role="best"), replace(ROW, note="recipe overridden")]))
    assert text.count("within noise of") == 1
    assert text.count("recipe overridden") == 1


@pytest.mark.parametrize(
    "renderable",
    [board_table([LONG, ROW]), ensemble_table(ENSEMBLE), final_table(FINAL)],
    ids=["board", "ensemble", "final"],
)
def test_long_names_fit_100_columns_and_no_number_is_cut(renderable):
    text = shown(renderable)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text


def test_the_widest_board_still_has_every_number():
    text = shown(board_table([LONG]))
    for number in ("1024", "11.5000", "+10.500 ±1.250", "100.0 %", "12345", "333G"):
        assert number in text


def test_names_with_brackets_are_shown_as_they_are():
    decision = GateDecision(gate="sound", after="light", verdict="stop", reason="class [red]cat[/red]", numbers={})
    assert "class [red]cat[/red]" in shown(gates_table([decision]))
    assert "[bold]x[/bold]" in shown(failures_table([FailureRow(trial_id="t", tier="light", reason="[bold]x[/bold]")]))
    assert "[tag]" in shown(board_table([replace(ROW, backbone="net[tag]", note="a [note]")]))


def test_a_gate_shows_verdict_reason_and_numbers():
    decision = GateDecision(
        gate="plateau",
        after="mid",
        verdict="climb_frozen_first",
        reason="Undecided.",
        numbers={"gain": 0.01234, "min_effect": 0.01, "moved_late": True},
    )
    text = shown(gates_table([decision]))
    assert "plateau after mid: climb frozen first" in text
    assert "gain 0.01234, min effect 0.01, moved late yes" in text


def test_a_gate_s_findings_stand_between_its_reason_and_its_numbers_whatever_a_class_is_called():
    decision = GateDecision(
        gate="sound", after="light", verdict="climb", reason="It is sound.", numbers={"collapsed_share": 0.25},
        findings=("no row was recognised of [red]cat\x1b[2J (12 rows)",),
    )  # fmt: skip
    text = shown(gates_table([decision]))
    finding = text.index(r"no row was recognised of [red]cat\x1b[2J (12 rows)")
    assert text.index("It is sound.") < finding < text.index("collapsed share 0.25")


def test_each_cost_is_shown_with_what_it_buys_and_the_best_single_model_for_as_much():
    text = shown(front_table(FRONT))
    for part in ("2.50", "the same", "6.00", "0.3500", "resnet50", "0.4500", "optimistic"):
        assert part in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_ensemble_shows_each_member_s_part_and_its_gain():
    text = shown(ensemble_table(ENSEMBLE))
    for part in (
        "0.667",
        "1.9876",
        "80%",
        "+0.0123",
        "0.0500",
        "3.50",
        "+0.0200 (-0.0010 to +0.0410)",
        "7.00 ms an image",
    ):
        assert part in text


def test_test_numbers_say_how_often_the_split_was_opened():
    assert "opened twice" in shown(final_table(FINAL))
    assert "0.3000 to 0.4200" in shown(final_table(FINAL))
    assert opened_line(0) == "The test split has not been opened."
    assert "clean" in opened_line(1)


def test_results_of_a_split_never_opened_are_refused():
    with pytest.raises(ValueError, match="opened 0 times"):
        replace(FINAL, opened=0)


def test_an_ensemble_without_members_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        replace(ENSEMBLE, members=())


@pytest.mark.parametrize("count", [0, 4])
def test_an_answer_has_one_to_three_sentences(count):
    with pytest.raises(ValueError, match="1 to 3"):
        Answer(sentences=("Yes.",) * count, commands=())


def test_commands_are_never_wrapped():
    command = "python -m spine_ray.search --space ladder --data " + "d" * 120
    console = Console(file=io.StringIO(), width=100)
    print_answer(console, Answer(sentences=("One.", "Two."), commands=(command,)))
    text = console.file.getvalue()
    assert "One. Two." in text
    assert command in text


def test_an_empty_study_is_said_in_words():
    assert shown(board_table([])) == "No trial has completed.\n"
    assert shown(gates_table([])) == "No gate was reached.\n"
    assert shown(failures_table([])) == "No trial failed.\n"
