import json
from typing import Any

import numpy as np
import pytest

from spine_ray.ensemble.calibrate import log_probs
from spine_ray.ladder.gates import (
    GateDecision,
    PlateauOptions,
    ShuffledControl,
    SoundOptions,
    out_of_bag_gain,
    plateau_gate,
    prior_losses,
    sound_gate,
)
from spine_ray.ladder.view_check import ViewCheck

LABELS = np.arange(300) % 3
GOOD = log_probs(1.5 * np.eye(3)[LABELS])


def _control(gain: float, rows: int = 300) -> ShuffledControl:
    prior = np.full(rows, np.log(3))
    return ShuffledControl(losses=prior - gain + 0.1 * np.random.default_rng(0).normal(size=rows), prior_losses=prior)


def _sound(values: np.ndarray, labels: np.ndarray, share: float = 0.5, **evidence: Any) -> GateDecision:
    options = SoundOptions(classes=tuple("abcd"[: values.shape[1]]), max_collapsed_share=share)
    return sound_gate(values, labels, after="light", options=options, **evidence)


def _collapsed(*rows: int) -> tuple[np.ndarray, np.ndarray]:
    """A class of 200 rows that is recognised, and one of each of these sizes, all rows of which are taken for it."""
    labels = np.repeat(np.arange(1 + len(rows)), [200, *rows])
    return log_probs(2.0 * np.eye(1 + len(rows))[np.zeros_like(labels)] + 1.0 * np.eye(1 + len(rows))[labels]), labels


def _options(**changes: object) -> PlateauOptions:
    given = {
        "min_effect": 0.02, "moved_late": False, "may_repeat": True, "can_freeze": True,
        "heavy_fits_budget": True, "costs": (3.0, 1.0), "dev_rows": 2_000, "small_data": 500,
    }  # fmt: skip
    return PlateauOptions(**{**given, **changes})  # type: ignore[arg-type]


def _sides(gain: float, noise: float = 0.3, rows: int = 2_000) -> tuple[np.ndarray, np.ndarray]:
    """Three trials a side; the tier's best is better than the earlier best by `gain`."""
    rng = np.random.default_rng(0)
    earlier = 0.8 + np.array([[0.0], [0.2], [0.3]]) + noise * rng.normal(size=(3, rows))
    tier = 0.8 - gain + np.array([[0.4], [0.0], [0.2]]) + noise * rng.normal(size=(3, rows))
    return tier, earlier


def test_prior_losses_are_those_of_the_class_shares() -> None:
    np.testing.assert_allclose(prior_losses([5, 5, 5, 2]), -np.log([0.75, 0.75, 0.75, 0.25]))


def test_sound_gate_opens_when_the_model_beats_the_prior_and_the_control_does_not() -> None:
    decision = _sound(GOOD, LABELS, control=_control(0.0))
    assert (decision.gate, decision.after, decision.verdict) == ("sound", "light", "climb")
    assert decision.numbers["prior_log_loss"] == pytest.approx(np.log(3))
    assert "rows, not seeds" in decision.reason
    json.dumps(decision.to_dict())


def test_sound_gate_says_so_when_there_was_no_control() -> None:
    decision = _sound(GOOD, LABELS)
    assert decision.verdict == "climb"
    assert "no shuffled-label control was run" in decision.reason


def test_sound_gate_stops_at_chance() -> None:
    values = log_probs(0.3 * np.random.default_rng(0).normal(size=(300, 3)))
    decision = _sound(values, LABELS, control=_control(0.0))
    assert decision.verdict == "stop"
    assert "does not surely beat the class prior" in decision.reason


@pytest.mark.parametrize(("gain", "verdict"), [(-0.1, "climb"), (0.01, "climb"), (0.2, "stop")])
def test_sound_gate_stops_when_shuffled_labels_are_learnt(gain: float, verdict: str) -> None:
    decision = _sound(GOOD, LABELS, control=_control(gain))
    assert decision.verdict == verdict
    assert ("leaks" in decision.reason) == (verdict == "stop")


def test_a_class_that_collapsed_is_a_finding_by_name_and_does_not_stop() -> None:
    decision = _sound(*_collapsed(40, 9), control=_control(0.0))
    assert decision.verdict == "climb"
    assert "1 of 2 classes with at least 10 independent rows collapsed (b)" in decision.reason
    assert decision.findings == (
        "1 of 2 classes with at least 10 independent rows collapsed: no row was recognised of b (40 rows)",
        "no row was recognised of c (9 rows); with fewer than 10 independent rows that may be chance",
    )
    assert decision.numbers["collapsed_classes"] == ["b"]
    assert (decision.numbers["unrecognised_classes"], decision.numbers["unrecognised_rows"]) == (["b", "c"], [40, 9])


def test_sound_gate_stops_where_most_classes_collapsed_and_names_them_weakest_first() -> None:
    decision = _sound(*_collapsed(12, 40, 9))
    assert decision.verdict == "stop"
    assert decision.reason.startswith(
        "2 of 3 classes with at least 10 independent rows collapsed: no row was recognised of c (40 rows) and "
        "b (12 rows), and max_collapsed_share allows 50%; no shuffled-label control"
    )
    assert decision.numbers["collapsed_share"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(("share", "verdict"), [(0.0, "stop"), (0.49, "stop"), (0.5, "climb"), (1.0, "climb")])
def test_the_share_of_classes_that_may_collapse_is_the_spaces(share: float, verdict: str) -> None:
    decision = _sound(*_collapsed(40), share)
    assert decision.verdict == verdict
    assert decision.numbers["max_collapsed_share"] == share
    assert decision.findings, "a finding hangs on no share"


def test_classes_too_small_to_say_do_not_stop_whatever_the_share() -> None:
    decision = _sound(*_collapsed(9, 9), 0.0)
    assert decision.verdict == "climb"
    assert "no class collapsed" in decision.reason
    assert decision.findings[0].startswith("no row was recognised of b (9 rows) and c (9 rows)")


def test_a_decision_is_read_back_as_it_was_stored_also_from_before_there_were_findings() -> None:
    decision = _sound(*_collapsed(40))
    stored = json.loads(json.dumps(decision.to_dict()))
    assert GateDecision.from_dict(stored).findings == decision.findings
    del stored["findings"]
    assert GateDecision.from_dict(stored).findings == ()


def test_sound_gate_counts_groups_not_rows() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat(np.arange(12) % 2, 50)
    values = log_probs(np.repeat(0.8 * np.eye(2)[np.arange(12) % 2] + rng.normal(size=(12, 2)), 50, axis=0))
    groups = np.repeat(np.arange(12), 50)
    alone = _sound(values, labels).numbers["minus_prior"]
    together = _sound(values, labels, groups=groups).numbers["minus_prior"]
    assert together[1] - together[0] > 3 * (alone[1] - alone[0])


@pytest.mark.parametrize(
    ("gain", "changes", "verdict", "word"),
    [
        (0.2, {"moved_late": True}, "again", "still moving late"),
        (0.2, {"moved_late": True, "may_repeat": False}, "climb", "surely above"),
        (0.2, {}, "climb", "surely above"),
        (-0.1, {}, "climb", "plateau"),
        (-0.1, {"heavy_fits_budget": False}, "stop", "plateau"),
        (0.02, {}, "climb_frozen_first", "undecided"),
        (0.02, {"can_freeze": False}, "climb", "undecided"),
        (0.02, {"dev_rows": 400}, "climb_frozen_only", "400 dev rows are fewer than small_data, 500"),
        (0.2, {"dev_rows": 400}, "climb_frozen_only", "surely above"),
        (0.2, {"dev_rows": 400, "can_freeze": False}, "climb", "nothing of it can be frozen"),
        (0.2, {"dev_rows": 400, "moved_late": True}, "again", "still moving late"),
        (0.2, {"setting": "never"}, "stop", "set by the user"),
        (-0.1, {"setting": "always", "heavy_fits_budget": False}, "climb", "set by the user"),
    ],
)
def test_plateau_gate_reads_the_decision_table(
    gain: float, changes: dict[str, object], verdict: str, word: str
) -> None:
    decision = plateau_gate(*_sides(gain), after="mid", options=_options(**changes))
    assert decision.verdict == verdict
    assert word in decision.reason
    assert "rows, not seeds" in decision.reason
    assert "3 times its compute" in decision.reason
    assert (decision.numbers["tier_best"], decision.numbers["earlier_best"]) == (1, 0)
    json.dumps(decision.to_dict())


def test_out_of_bag_gain_finds_a_known_difference() -> None:
    gain, low, high = out_of_bag_gain(*_sides(0.1), None, seed=0)
    assert gain == pytest.approx(0.1, abs=0.02)
    # two independent means of 2000 rows, widened by the out-of-bag share: sqrt(0.632 / 0.368) = 1.31
    expected = 2 * 1.96 * 0.3 * np.sqrt(2 / 2_000) * 1.31
    assert high - low == pytest.approx(expected, rel=0.15)


def test_out_of_bag_gain_undoes_the_winners_curse() -> None:
    rng = np.random.default_rng(1)
    apparent, honest = [], []
    for seed in range(10):
        tier, earlier = rng.normal(size=(60, 200)), rng.normal(size=(1, 200))  # sixty equals against one
        apparent.append(earlier.mean() - tier.mean(axis=1).min())
        honest.append(out_of_bag_gain(tier, earlier, None, seed=seed)[0])
    assert np.mean(apparent) > 0.1
    assert abs(np.mean(honest)) < 0.06


def test_out_of_bag_gain_is_repeatable_and_keeps_groups_together() -> None:
    tier, earlier = _sides(0.1, rows=100)
    once = out_of_bag_gain(tier, earlier, None, seed=5)
    assert out_of_bag_gain(tier, earlier, None, seed=5) == once
    groups = np.repeat(np.arange(100), 4)
    copied = out_of_bag_gain(np.repeat(tier, 4, axis=1), np.repeat(earlier, 4, axis=1), groups, seed=5)
    np.testing.assert_allclose(copied, once, atol=1e-9)


def test_gates_refuse_what_cannot_be_meant() -> None:
    tier, earlier = _sides(0.1)
    with pytest.raises(ValueError, match="same rows"):
        plateau_gate(tier, earlier[:, :10], after="mid", options=_options())
    with pytest.raises(ValueError, match="need trials"):
        plateau_gate(tier, earlier[:0], after="mid", options=_options())
    with pytest.raises(ValueError, match="at least 5 groups"):
        plateau_gate(tier, earlier, after="mid", options=_options(), groups=np.arange(2_000) % 2)
    with pytest.raises(ValueError, match="auto, always, never"):
        SoundOptions(classes=("a",), max_collapsed_share=0.5, setting="maybe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"max_collapsed_share must lie in 0 to 1, not 1\.5"):
        SoundOptions(classes=("a",), max_collapsed_share=1.5)
    with pytest.raises(ValueError, match="min_effect"):
        _options(min_effect=-1.0)
    with pytest.raises(ValueError, match="costs"):
        _options(costs=(0.0, 1.0))
    with pytest.raises(ValueError, match="one label a row"):
        _sound(GOOD, LABELS[:5])
    with pytest.raises(ValueError, match="two losses a row"):
        ShuffledControl(losses=np.zeros(3), prior_losses=np.zeros(2))
    with pytest.raises(ValueError, match="needs a reason"):
        GateDecision(gate="sound", after="light", verdict="climb", reason=" ", numbers={})


def _views(kept: float, low: float, high: float) -> ViewCheck:
    return ViewCheck(
        clean_accuracy=0.9, augmented_accuracy=0.1 + 0.8 * kept, prior_accuracy=0.1, kept=kept, kept_low=low,
        kept_high=high, rows=500,
    )  # fmt: skip


def test_sound_gate_stops_when_augmentation_destroys_the_classes_and_says_so() -> None:
    values = log_probs(6.0 * np.eye(3)[np.arange(300) % 3])
    destroyed = _sound(values, np.arange(300) % 3, views=_views(0.1, 0.05, 0.15))
    assert destroyed.verdict == "stop"
    assert destroyed.reason.startswith("augmentation destroys the classes: a linear probe")
    assert destroyed.numbers["views"]["kept"] == 0.1
    harmless = _sound(values, np.arange(300) % 3, views=_views(0.9, 0.85, 0.95))
    assert harmless.verdict == "climb"
    assert "augmentation is harmless" in harmless.reason
    unsure = _sound(values, np.arange(300) % 3, views=_views(0.4, 0.2, 0.6))
    assert unsure.verdict == "climb", "only a sure loss stops"
    json.dumps(destroyed.to_dict())
