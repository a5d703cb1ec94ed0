import math

import numpy as np
import pytest

from spine_ray.ladder.rungs import Contender, Rungs


def contender(trial_id: str, family: str | None = None, is_start: bool = False) -> Contender:
    """A trial that is, unless said otherwise, of the big family `f` and no start recipe."""
    return Contender(trial_id, family or "f", is_start)


def goes_on(rungs: Rungs, trial_id: str, step: int, loss: float) -> bool:
    return rungs.judge(contender(trial_id), step, loss) is None


@pytest.mark.parametrize(
    ("epochs", "milestones"),
    [
        (6, (2, 6)),
        (10, (3, 10)),
        (5, (2, 5)),
        (4, (1, 4)),
        (3, (1, 3)),
        (2, (1, 2)),
        (1, (1,)),
        (30, (10, 30)),
    ],
)
def test_milestones_are_a_third_of_fold_0_and_its_end_and_one_where_these_are_the_same(
    epochs: int, milestones: tuple[int, ...]
) -> None:
    assert Rungs(epochs, 3).milestones == milestones


def test_halving_by_hand() -> None:
    # Every third goes on: the cut is the 1/3 quantile of what others said before at the same milestone.
    rungs = Rungs(epochs=6, reduction=3)
    assert goes_on(rungs, "a", 2, 0.90)  # the first has nobody to lose to
    assert not goes_on(rungs, "b", 2, 0.95)  # against 0.90
    assert goes_on(rungs, "c", 2, 0.80)  # 0.90, 0.95: cut 0.9167
    assert goes_on(rungs, "d", 2, 0.86)  # 0.80, 0.90, 0.95: cut 0.80 + 2/3 * 0.10 = 0.8667
    assert not goes_on(rungs, "e", 2, 0.87)  # 0.80, 0.86, 0.90, 0.95: cut 0.86
    assert goes_on(rungs, "a", 6, 0.70)  # at its own milestone the first again
    assert not goes_on(rungs, "c", 6, 0.71)
    assert sorted(rungs.recorded) == [2, 6]
    assert rungs.recorded[2] == {
        "a": ("f", 0.90),
        "b": ("f", 0.95),
        "c": ("f", 0.80),
        "d": ("f", 0.86),
        "e": ("f", 0.87),
    }


def test_the_reason_tells_the_numbers() -> None:
    rungs = Rungs(epochs=6, reduction=3)
    rungs.judge(contender("a"), 2, 0.9)
    assert rungs.judge(contender("b"), 2, 0.95) == "log-loss 0.9500 at epoch 2 is above the cut of 0.9000"


def test_a_loss_equal_to_the_cut_goes_on() -> None:
    rungs = Rungs(epochs=6, reduction=3)
    assert goes_on(rungs, "a", 2, 0.9)
    assert goes_on(rungs, "b", 2, 0.9)


def test_start_recipes_are_protected_until_the_end_of_fold_0() -> None:
    rungs = Rungs(epochs=6, reduction=3)
    for step in (2, 6):
        rungs.judge(contender("best"), step, 0.1)
    start = contender("start", is_start=True)
    assert rungs.judge(start, 2, 5.0) is None
    assert rungs.recorded[2]["start"] == ("f", 5.0)  # protected, but counted
    assert rungs.judge(start, 6, 5.0) == "log-loss 5.0000 at epoch 6 is above the cut of 0.1000"


def test_a_start_recipe_of_one_epoch_is_judged_after_it() -> None:
    rungs = Rungs(epochs=1, reduction=3)
    assert goes_on(rungs, "best", 1, 0.1)
    assert rungs.judge(contender("start", is_start=True), 1, 5.0) is not None


def test_a_start_recipe_that_is_its_familys_best_goes_on() -> None:
    rungs = Rungs(epochs=6, reduction=3)
    assert goes_on(rungs, "best", 6, 0.1)
    assert rungs.judge(contender("start", "vit", is_start=True), 6, 5.0) is None


def test_with_a_reduction_of_one_all_go_on_and_are_recorded_but_what_is_no_number() -> None:
    rungs = Rungs(epochs=6, reduction=1)
    for name, loss in (("a", 0.1), ("b", 0.9), ("c", 0.5)):
        assert goes_on(rungs, name, 2, loss)
    assert sorted(rungs.recorded[2]) == ["a", "b", "c"]
    assert not goes_on(rungs, "a", 3, math.nan)


def test_the_best_of_a_family_is_never_stopped() -> None:
    rungs = Rungs(epochs=6, reduction=3)
    for name in ("a", "b", "c"):
        rungs.judge(contender(name), 2, 0.1)
    assert rungs.judge(contender("vit-1", "vit"), 2, 3.0) is None
    assert rungs.judge(contender("vit-2", "vit"), 2, 2.0) is None  # the better of the family now
    assert rungs.judge(contender("vit-3", "vit"), 2, 2.5) is not None
    assert rungs.judge(contender("vit-2", "vit"), 6, 2.0) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("step", [1, 2, 5, 18])
def test_a_loss_that_is_no_number_stops_anywhere_and_anyone(loss: float, step: int) -> None:
    rungs = Rungs(epochs=6, reduction=3)
    reason = rungs.judge(contender("a", is_start=True), step, loss)
    assert reason == f"the loss is {loss} at epoch {step}"
    assert rungs.recorded == {}


def test_between_milestones_and_after_fold_0_nobody_is_judged() -> None:
    rungs = Rungs(epochs=6, reduction=3)
    for step in (2, 6):
        rungs.judge(contender("best"), step, 0.1)
    for step in (1, 3, 4, 5, 7, 8, 12, 18):
        assert goes_on(rungs, "worst", step, 9.0)
    assert all(set(rung) == {"best"} for rung in rungs.recorded.values())


def test_a_trial_is_never_recorded_at_a_milestone_that_it_passed_unseen() -> None:
    # Ray's own scheduler would record a trial first seen at epoch 3 at rung 2.
    rungs = Rungs(epochs=6, reduction=3)
    for step in range(3, 13):
        rungs.judge(contender("late"), step, 0.1)
    assert set(rungs.recorded) == {6}
    assert goes_on(rungs, "light", 2, 0.6)


def test_a_trial_that_reports_again_is_not_compared_with_itself() -> None:
    rungs = Rungs(epochs=6, reduction=3)
    assert goes_on(rungs, "a", 2, 0.5)
    assert goes_on(rungs, "a", 2, 0.9)  # it was interrupted and started over
    assert rungs.recorded[2] == {"a": ("f", 0.9)}


def test_random_sequences_agree_with_a_naive_reference() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        epochs, folds, reduction = int(rng.integers(1, 8)), int(rng.integers(2, 5)), int(rng.integers(2, 5))
        rungs = Rungs(epochs, reduction)
        history: list[tuple[str, str, int, float]] = []
        for number in range(25):
            who = contender(f"t{number}", str(rng.choice(["x", "y", "z"])), bool(rng.random() < 0.2))
            for step in range(1, epochs * folds + 1):
                loss = float(np.nan if rng.random() < 0.005 else rng.normal(1.0, 0.3))
                expected = _stops(history, who, step, loss, (epochs, reduction))
                assert (rungs.judge(who, step, loss) is not None) == expected
                if expected:
                    break


def _stops(
    history: list[tuple[str, str, int, float]], who: Contender, step: int, loss: float, shape: tuple[int, int]
) -> bool:
    """The rule as it is told, over the whole history: (trial, family, step, loss) of every finite result."""
    epochs, reduction = shape
    if math.isnan(loss):
        return True
    history.append((who.trial_id, who.family, step, loss))
    third = max(1, (2 * epochs + 3) // 6)  # the nearest whole number: two thirds of an epoch are one
    if step not in (third, epochs) or (who.is_start and step < epochs):
        return False
    others = sorted(value for name, _, at, value in history if at == step and name != who.trial_id)
    kin = [value for name, family, at, value in history if at == step and family == who.family and name != who.trial_id]
    if not others or all(loss <= value for value in kin):
        return False
    place = (len(others) - 1) / reduction
    low = others[math.floor(place)]
    high = others[math.ceil(place)]
    return loss > low + (high - low) * (place - math.floor(place))
