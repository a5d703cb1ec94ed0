from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.candidates import Candidates, screened
from spine_ray.ensemble.greedy import Rules, Traits
from spine_ray.ensemble.honest import cross_fit
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ensemble.pool import floored
from spine_ray.ensemble.price import as_cost
from spine_ray.ensemble.shortlist import shortlist


def _candidates(logits: np.ndarray, labels: np.ndarray, **rules: Any) -> Candidates:
    members = len(logits)
    return Candidates(
        logits=logits.astype(np.float32),
        kept=tuple(range(members)),
        rows=None,
        labels=labels,
        groups=np.arange(len(labels)),
        traits=Traits(families=("a",) * members, resolutions=(64,) * members, costs=(as_cost(1.0),) * members),
        rules=Rules(**rules),
        screen=None,
    )


def _noisy(rng: np.random.Generator, members: int, rows: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(0, 3, rows)
    shared = 2.0 * np.eye(3)[labels] + rng.normal(size=(rows, 3))
    return shared + noise * rng.normal(size=(members, rows, 3)), labels


def test_held_out_rows_never_enter_what_scores_them() -> None:
    rng = np.random.default_rng(0)
    logits, labels = _noisy(rng, 6, 300, 1.0)
    folds = np.arange(300) % 3
    before = cross_fit(_candidates(logits, labels), folds, ("log",))
    changed = labels.copy()
    changed[7] = (labels[7] + 1) % 3  # a row of fold 1: the models that score fold 1 must stay as they are
    after = cross_fit(_candidates(logits, changed), folds, ("log",))
    same = (folds == 1) & (np.arange(300) != 7)
    np.testing.assert_array_equal(after.ensemble["log"][same], before.ensemble["log"][same])
    np.testing.assert_array_equal(after.single[same], before.single[same])
    others = folds != 1
    assert (after.ensemble["log"][others] != before.ensemble["log"][others]).any()


def test_single_losses_equal_a_hand_made_cross_fit() -> None:
    logits, labels = _noisy(np.random.default_rng(1), 3, 200, 2.0)
    logits = logits.astype(np.float32)
    folds = np.arange(200) % 2
    expected = np.zeros(200)
    for fold in (0, 1):
        seen = folds != fold
        best = min(
            range(3),
            key=lambda index: row_losses(
                floored(log_probs(logits[index, seen], fit_temperature(logits[index, seen], labels[seen]))),
                labels[seen],
            ).mean(),
        )
        temperature = fit_temperature(logits[best, seen], labels[seen])
        expected[~seen] = row_losses(floored(log_probs(logits[best, ~seen], temperature)), labels[~seen])
    found = cross_fit(_candidates(logits, labels), folds, ("log", "prob"))
    np.testing.assert_allclose(row_losses(found.single, labels), expected, atol=1e-9)


def test_cross_fit_removes_the_optimism_of_choosing_among_models_of_equal_truth() -> None:
    rng = np.random.default_rng(2)
    optimism = {"apparent": [], "honest": []}
    for _ in range(6):
        labels = rng.integers(0, 2, 120)
        logits = 0.7 * rng.normal(size=(25, 120, 2))  # nobody knows anything: the truth is log 2
        found = cross_fit(_candidates(logits, labels), np.arange(120) % 4, ("prob",))
        optimism["honest"].append(np.log(2) - row_losses(found.ensemble["prob"], labels).mean())
        values = [log_probs(each, fit_temperature(each, labels)) for each in logits]
        optimism["apparent"].append(np.log(2) - min(row_losses(value, labels).mean() for value in values))
    assert np.mean(optimism["apparent"]) > 0.005
    assert np.mean(optimism["honest"]) < 0.0


def _many(members: int, pinned: tuple[int, ...] = ()) -> Candidates:
    """Candidates of which the first are the best, all but two of one family and one resolution."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 200)
    signal = np.linspace(3.0, 1.0, members)[:, None, None]
    logits = (signal * np.eye(3)[labels] + rng.normal(size=(members, 200, 3))).astype(np.float32)
    candidates = _candidates(logits, labels, pinned=pinned)
    traits = Traits(
        families=tuple("rare" if index == 95 else "common" for index in range(members)),
        resolutions=tuple(32 if index == 90 else 64 for index in range(members)),
        costs=candidates.traits.costs,
    )
    return screened(replace(candidates, traits=traits))


def test_shortlist_keeps_pins_leaders_and_the_best_of_every_family_and_resolution() -> None:
    found = shortlist(_many(100, pinned=(99,)))
    assert len(found) == 64
    assert {0, 1, 2, 90, 95, 99} <= set(found)
    assert found == sorted(found)


def test_the_screen_is_the_probability_of_the_label_and_whether_it_is_the_likeliest() -> None:
    candidates = _many(100)
    assert candidates.screen is not None
    for member in (0, 57):
        values = log_probs(candidates.block(member))
        np.testing.assert_allclose(
            candidates.screen.truth[member], np.exp(values[np.arange(200), candidates.labels]), rtol=1e-5
        )
        np.testing.assert_array_equal(candidates.screen.hits[member], values.argmax(axis=1) == candidates.labels)


@pytest.mark.parametrize("members", [1, 5, 64])
def test_shortlist_keeps_all_when_they_are_few(members: int) -> None:
    assert shortlist(_many(members)) == list(range(members))
