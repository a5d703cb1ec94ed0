import json
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from spine_ray.ensemble import select
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.metrics import accuracy, log_loss
from spine_ray.ensemble.pool import floored, log_pool
from spine_ray.ensemble.quick import MOST_ROWS, OPTIMISTIC, RULES, QuickAnswer, QuickEnsemble


def answers(logits: np.ndarray, labels: np.ndarray) -> list[QuickAnswer]:
    """The answer after every trial."""
    found, quick = [], QuickEnsemble(labels, logits.shape[2])
    for block in logits:
        quick.add(block)
        found.append(quick.answer())
    return found


def last_answer(logits: np.ndarray, labels: np.ndarray) -> QuickAnswer:
    """The answer after all trials, when nobody asked before."""
    quick = QuickEnsemble(labels, logits.shape[2])
    for block in logits:
        quick.add(block)
    return quick.answer()


def two_experts() -> tuple[np.ndarray, np.ndarray]:
    """Each knows half of the rows: there it says 0.9 and is right in 9 of 10; it calls the other half even."""
    labels = np.tile(np.repeat([0, 1], 20), 2)
    is_right = np.tile(np.arange(20) % 10 > 0, 4)
    says = np.where(is_right, labels, 1 - labels)
    sure = np.log(9.0) * np.eye(2)[says]
    knows = np.repeat([True, False], 40)
    return np.stack([sure * knows[:, None], sure * ~knows[:, None]]).astype(np.float32), labels


def drawn(seed: int, trials: int = 8, rows: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, rows)
    skill = rng.uniform(0.3, 1.5, (trials, 1, 1))
    logits = skill * np.eye(classes)[labels] + rng.normal(size=(trials, rows, classes))
    return (logits * rng.uniform(0.5, 4.0, (trials, 1, 1))).astype(np.float32), labels


def test_two_experts_by_hand() -> None:
    # Alone each is calibrated as it is: (H(0.9) + log 2) / 2 nats. Half of each says log-odds of log(9) / 2, which
    # a temperature of a half makes log(9) on every row: H(0.9) nats, and 9 of 10 right.
    first, both = answers(*two_experts())
    entropy = -0.9 * np.log(0.9) - 0.1 * np.log(0.1)
    assert (first.members, first.mix.weights, first.mix.final_temperature) == ((0,), (1.0,), 1.0)
    assert first.mix.temperatures == pytest.approx((1.0,), abs=1e-3)
    assert first.score == first.first
    assert first.score.log_loss == pytest.approx((entropy + np.log(2)) / 2, abs=1e-6)
    assert first.score.accuracy == pytest.approx(0.5 * 0.9 + 0.5 * 0.5)  # of two even classes the first is said
    assert (both.members, both.mix.weights) == ((0, 1), (0.5, 0.5))
    assert both.mix.final_temperature == pytest.approx(0.5, abs=1e-3)
    assert both.score.log_loss == pytest.approx(entropy, abs=1e-5)
    assert both.score.accuracy == pytest.approx(0.9)
    assert both.first == first.first
    assert (both.rows, both.note) == (80, OPTIMISTIC)


@pytest.mark.parametrize("seed", range(6))
def test_a_trial_more_never_makes_the_answer_worse(seed: int) -> None:
    losses = [answer.score.log_loss for answer in answers(*drawn(seed))]
    assert losses == sorted(losses, reverse=True)


def test_a_trial_that_knows_nothing_changes_nothing() -> None:
    logits, labels = two_experts()
    noise = np.random.default_rng(0).normal(size=(1, *logits.shape[1:])).astype(np.float32)
    *_, both, after = answers(np.concatenate([logits, noise]), labels)
    assert after is both


@pytest.mark.parametrize("seed", range(4))
def test_the_choice_is_that_of_the_plain_loop(seed: int) -> None:
    logits, labels = drawn(seed)
    found = last_answer(logits, labels)
    values = np.stack([floored(log_probs(block, fit_temperature(block, labels))) for block in logits])
    picks = _naive(values, labels)
    counts = Counter(picks)
    assert found.members == tuple(counts)
    assert found.mix.weights == pytest.approx([count / len(picks) for count in counts.values()])


@pytest.mark.parametrize("seed", range(3))
def test_the_scores_are_those_of_the_mix_applied_to_the_logits(seed: int) -> None:
    logits, labels = drawn(seed)
    found = last_answer(logits, labels)
    said = found.mix.say([logits[member] for member in found.members]).log_probs
    assert found.score.log_loss == pytest.approx(log_loss(said, labels), abs=1e-6)
    assert found.score.accuracy == accuracy(said, labels)
    alone = log_probs(logits[0], fit_temperature(logits[0], labels))
    assert found.first.log_loss == pytest.approx(log_loss(alone, labels), abs=1e-9)
    assert found.score.log_loss <= found.first.log_loss


def test_members_are_few() -> None:
    found = last_answer(*drawn(0, trials=30))
    assert 1 < len(found.members) <= RULES.max_members
    assert min(found.mix.weights) >= 1 / RULES.max_steps


def test_of_many_rows_the_same_ones_are_drawn_every_time() -> None:
    logits, labels = drawn(1, trials=3, rows=MOST_ROWS + 500)
    order = np.argsort(labels, kind="stable")  # by class, as folders are read
    found = last_answer(logits[:, order], labels[order])
    assert found == last_answer(logits[:, order], labels[order])
    assert found.rows == MOST_ROWS
    whole = log_loss(found.mix.say([logits[member] for member in found.members]).log_probs, labels)
    assert found.score.log_loss == pytest.approx(whole, abs=0.02)


def test_an_answer_is_plain_values() -> None:
    stored = json.loads(json.dumps(last_answer(*two_experts()).to_dict()))
    assert stored["members"] == [0, 1]
    assert stored["mix"]["weights"] == [0.5, 0.5]
    assert set(stored["score"]) == set(stored["first"]) == {"log_loss", "accuracy"}


def test_ten_times_the_rows_take_no_longer_than_what_is_drawn_of_them() -> None:
    few, many = (drawn(2, trials=10, rows=rows) for rows in (MOST_ROWS, 10 * MOST_ROWS))
    assert _seconds(lambda: last_answer(*many)) < 4.0 * _seconds(lambda: last_answer(*few))


def test_an_answer_takes_a_small_part_of_the_choice_at_the_end() -> None:
    logits, labels = drawn(3, trials=30, rows=1_000, classes=10)
    quick = QuickEnsemble(labels, 10)
    for block in logits:
        quick.add(block)
    kinds = {"families": ["f"] * 30, "resolutions": [64] * 30, "costs": [1.0] * 30, "folds": np.arange(1_000) % 5}
    assert _seconds(quick.answer) < 0.1 * _seconds(lambda: select(logits, labels, **kinds), times=1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 3], "labels must be 0 to 2, not 0 to 3"),
        ([-1, 1, 2], "labels must be 0 to 2, not -1 to 2"),
        ([0.0, 1.0, 2.0], "one whole number a row"),
        ([[0, 1, 2]], "one whole number a row"),
        ([], "one whole number a row"),
    ],
)
def test_labels_that_are_none_are_refused(labels: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QuickEnsemble(labels, 3)


def test_logits_that_do_not_fit_are_refused_and_no_trial_is_no_answer() -> None:
    quick = QuickEnsemble([0, 1, 2], 3)
    with pytest.raises(ValueError, match="no trial"):
        quick.answer()
    with pytest.raises(ValueError, match=r"the logits of trial 0 must be \(3, 3\), not \(3, 2\)"):
        quick.add(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="the logits of trial 0 are not all finite"):
        quick.add(np.full((3, 3), np.nan))
    assert quick.trials == 0


def _naive(values: np.ndarray, labels: np.ndarray) -> list[int]:
    """Every candidate, every step, from scratch; the shortest of the best prefixes."""
    picks: list[int] = []
    path: list[float] = []
    for _ in range(RULES.max_steps):
        scores = {
            index: log_loss(log_pool(values[trial], np.ones(len(trial)) / len(trial)), labels)
            for index in range(len(values))
            if len(set(trial := [*picks, index])) <= RULES.max_members
        }
        picks.append(min(scores, key=lambda index: scores[index]))
        path.append(scores[picks[-1]])
    return picks[: int(np.argmin(np.array(path) > min(path) + 1e-7)) + 1]


def _seconds(run: Callable[[], object], times: int = 5) -> float:
    """The least of some times of this thread: what else the machine does only adds to them."""
    found = []
    for _ in range(times):
        began = time.thread_time()
        run()
        found.append(time.thread_time() - began)
    return min(found)
