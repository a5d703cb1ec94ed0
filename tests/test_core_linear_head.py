import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from spine_ray.core.inner_folds import FOLDS, deal_inner_folds
from spine_ray.core.linear_head import (
    STRENGTHS,
    TOLERANCE,
    USUAL_STRENGTH,
    LinearHead,
    fit_linear_head,
    likely_strength,
)

CLASSES = 4


def blobs(rows: int, width: int, classes: int = CLASSES, signal: float = 1.0, seed: int = 0):
    """Return features around the centres of their classes, and the classes in turn."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, width)) * signal / np.sqrt(width)
    spread = np.random.default_rng(98).uniform(0.2, 2.0, width)
    labels = np.arange(rows, dtype=np.int64) % classes
    return np.asarray(2.0 + spread * (3.0 * centres[labels] + rng.normal(size=(rows, width))), np.float32), labels


def fit(features: np.ndarray, labels: np.ndarray, classes: int = CLASSES, seed: int = 0) -> LinearHead:
    """Return the head where every row is a group of its own."""
    return fit_linear_head(features, labels, classes, np.arange(len(labels)), seed=seed)


def scaling(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and scale of features of which none is constant, in float64."""
    raw = features.astype(np.float64)
    mean, deviation = raw.mean(axis=0), raw.std(axis=0)
    scale = np.sqrt(deviation**2 + deviation.mean() ** 2)
    return mean, scale * np.sqrt(((deviation / scale) ** 2).mean())


def naive_gradient(head: LinearHead, features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the gradient at a head for the scaled features, row by row, (classes, features + 1)."""
    mean, scale = scaling(features)
    weight = head.weight.astype(np.float64) * scale
    bias = head.bias + head.weight.astype(np.float64) @ mean
    gradient = np.zeros((len(weight), len(mean) + 1))
    for row, label in zip((features - mean) / scale, labels, strict=True):
        logits = weight @ row + bias
        probabilities = np.exp(logits - logits.max())
        residual = probabilities / probabilities.sum() - np.eye(len(weight))[label]
        gradient += np.outer(residual, np.append(row, 1.0)) / len(labels)
    gradient[:, :-1] += head.strength * weight
    return gradient


def loss(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


def reference(features: np.ndarray, labels: np.ndarray, strength: float):
    """Return what scikit-learn's solution says of rows, a function of raw features."""
    mean, scale = scaling(features)
    solver = LogisticRegression(C=1.0 / (len(labels) * strength), max_iter=10_000, tol=1e-8)
    solver.fit((features - mean) / scale, labels)
    return lambda raw: solver.decision_function((raw - mean) / scale)


SIZES = pytest.mark.parametrize(("rows", "width"), [(200, 12), (150, 100), (60, 300)], ids=["many", "some", "few rows"])


@SIZES
def test_the_gradient_vanishes_at_the_solution(rows: int, width: int) -> None:
    features, labels = blobs(rows, width)
    head = fit(features, labels)
    assert head.gradient_norm <= TOLERANCE
    assert np.abs(naive_gradient(head, features, labels)).max() <= 2.0 * TOLERANCE


@SIZES
def test_it_says_what_scikit_learn_says(rows: int, width: int) -> None:
    features, labels = blobs(rows, width)
    others, other_labels = blobs(500, width, seed=1)
    head = fit(features, labels)
    theirs = reference(features, labels, head.strength)
    assert head.logits(others).dtype == np.float32
    for raw, truth in ((features, labels), (others, other_labels)):
        assert loss(head.logits(raw), truth) == pytest.approx(loss(theirs(raw), truth), abs=1e-4)
    np.testing.assert_allclose(log_softmax(head.logits(others), 1), log_softmax(theirs(others), 1), atol=0.02)


def test_two_classes_are_the_logistic_regression_of_one_logit() -> None:
    features, labels = blobs(120, 10, classes=2)
    head = fit(features, labels, classes=2)
    # The two rows of weights share the penalty evenly: w and -w cost as much as 2 w at half the strength.
    one_logit = reference(features, labels, head.strength / 2.0)(features)
    logits = head.logits(features)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], one_logit, atol=0.01)
    np.testing.assert_allclose(head.weight.sum(axis=0), np.zeros(10), atol=1e-4)


@pytest.mark.parametrize("signal", [0.0, 1.5])
def test_the_strength_is_what_held_out_folds_ask_for(signal: float) -> None:
    features, labels = blobs(100, 8, signal=signal)
    folds = deal_inner_folds(labels, np.arange(100), 5)
    mean, scale = scaling(features)
    values, losses = (features - mean) / scale, []
    for strength in STRENGTHS:
        logits = np.empty((100, CLASSES))
        for fold in range(FOLDS):
            fitted = folds != fold
            solver = LogisticRegression(C=1.0 / (int(fitted.sum()) * strength), solver="newton-cg", tol=1e-5)
            logits[~fitted] = solver.fit(values[fitted], labels[fitted]).decision_function(values[~fitted])
        losses.append(loss(logits, labels))
    expected = likely_strength(losses, 100)
    assert np.log10(fit(features, labels, seed=5).strength) == pytest.approx(np.log10(expected), abs=0.15)


def test_the_likeliest_strength_is_at_the_vertex_of_the_parabola() -> None:
    losses = [1.5, 1.2, 1.0, 0.95, 1.1]
    decades = np.log10(STRENGTHS[:5])
    square, slope, _ = np.polyfit(decades[2:], 1000 * np.array(losses[2:]) + (decades[2:] + 1.0) ** 2, 2)
    assert np.log10(likely_strength(losses, 1000)) == pytest.approx(-slope / (2.0 * square))


def test_few_rows_hardly_move_the_usual_strength_and_an_end_of_the_path_is_an_end() -> None:
    assert likely_strength([1.0] * len(STRENGTHS), 1) == pytest.approx(USUAL_STRENGTH, rel=0.05)
    assert likely_strength([1.0, 2.0], 500) == STRENGTHS[0]
    assert likely_strength(list(np.linspace(2.0, 1.0, len(STRENGTHS))), 500) == STRENGTHS[-1]


def test_more_noise_is_penalised_more_and_pure_noise_says_little() -> None:
    others, truth = blobs(2000, 50, signal=0.0, seed=1)
    noise, clear = (fit(*blobs(300, 50, signal=signal)) for signal in (0.0, 8.0))
    assert noise.strength > clear.strength
    assert loss(noise.logits(others), truth) == pytest.approx(np.log(CLASSES), abs=0.05)


def test_it_is_the_same_every_time_and_the_seed_decides_the_strength_alone() -> None:
    features, labels = blobs(200, 30)
    first, again, other = (fit(features, labels, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.weight, again.weight)
    np.testing.assert_array_equal(first.bias, again.bias)
    assert other.strength != first.strength
    assert other.strength == pytest.approx(first.strength, rel=1.0)


def test_shifts_of_features_and_a_scale_common_to_all_change_nothing() -> None:
    features, labels = blobs(200, 30)
    moved = np.asarray(4.0 * features + np.arange(30), np.float32)
    head = fit(moved, labels)
    np.testing.assert_allclose(head.logits(moved), fit(features, labels).logits(features), atol=0.01)


def test_copies_of_all_rows_change_nothing_at_a_strength() -> None:
    """The penalty is of the mean loss: what is best does not depend on the number of rows."""
    features, labels = blobs(40, 30)
    groups = np.tile(labels % 2, 2)
    once = fit_linear_head(features, labels, CLASSES, groups[:40], seed=0)
    twice = fit_linear_head(np.tile(features, (2, 1)), np.tile(labels, 2), CLASSES, groups, seed=0)
    assert once.strength == twice.strength == USUAL_STRENGTH
    np.testing.assert_allclose(once.logits(features), twice.logits(features), atol=0.01)


def test_rows_of_a_group_never_tell_the_strength_about_each_other() -> None:
    """Rows of a group share a signature that names their label: only whole groups show that it helps nobody."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 4)
    labels = rng.integers(0, CLASSES, 100)[groups]
    features = rng.normal(size=(100, 200))[groups].astype(np.float32)
    assert fit_linear_head(features, labels, CLASSES, groups, seed=0).strength > fit(features, labels).strength


def test_a_class_without_rows_has_the_probability_of_half_a_row() -> None:
    features, labels = blobs(120, 10)
    head = fit(features, np.where(labels == 1, 4, labels), classes=6)
    np.testing.assert_array_equal(head.weight[[1, 5]], np.zeros((2, 10)))
    assert head.bias[1] == head.bias[5]
    alone = np.delete(head.logits(features).astype(np.float64), 5, axis=1)
    probabilities = np.exp(log_softmax(alone, axis=1))
    assert probabilities[:, 1].mean() == pytest.approx(0.5 / 120.5, rel=0.02)
    without = fit(features, labels)
    present = head.logits(features)[:, [0, 2, 3, 4]]
    np.testing.assert_allclose(
        log_softmax(present, 1), log_softmax(without.logits(features)[:, [0, 2, 3, 1]], 1), atol=0.01
    )


def test_a_constant_feature_has_no_weight_and_changes_nothing() -> None:
    features, labels = blobs(120, 10)
    head = fit(np.hstack([features, np.full((120, 1), 3.0, np.float32)]), labels)
    np.testing.assert_array_equal(head.weight[:, 10], np.zeros(CLASSES))
    np.testing.assert_allclose(head.weight[:, :10], fit(features, labels).weight, atol=1e-4)


def test_features_that_are_all_constant_leave_the_classes_shares() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    head = fit(np.full((100, 5), 2.0, np.float32), labels, classes=3)
    np.testing.assert_array_equal(head.weight, np.zeros((3, 5)))
    np.testing.assert_allclose(np.exp(log_softmax(head.bias)), [0.6, 0.3, 0.1], atol=1e-4)


@pytest.mark.parametrize(("rows", "width"), [(400, 2), (60, 500)])
def test_separable_classes_stay_finite(rows: int, width: int) -> None:
    labels = np.arange(rows, dtype=np.int64) % 2
    features = np.zeros((rows, width), np.float32)
    features[:, 0] = 100.0 * labels
    features[:, 1] = np.arange(rows)
    head = fit(features, labels, classes=2)
    assert head.gradient_norm <= TOLERANCE
    assert np.isfinite(head.logits(features)).all()
    assert loss(head.logits(features), labels) < 0.1


@pytest.mark.parametrize("labels", [[0], [0, 1], [0, 1, 2, 3, 0], [2, 2, 2]], ids=str)
def test_a_handful_of_rows_is_fitted_at_the_usual_strength(labels: list[int]) -> None:
    features = np.random.default_rng(0).normal(size=(len(labels), 50)).astype(np.float32)
    head = fit(features, np.array(labels))
    assert head.strength == USUAL_STRENGTH
    assert np.isfinite(head.logits(features)).all()
    assert (head.logits(features).argmax(axis=1) == labels).all()


def test_two_groups_are_fitted_at_the_usual_strength() -> None:
    features, labels = blobs(200, 10)
    head = fit_linear_head(features, labels, CLASSES, np.repeat([0, 1], 100), seed=0)
    assert head.strength == USUAL_STRENGTH
    assert head.gradient_norm <= TOLERANCE


def test_rows_that_are_copies_of_each_other() -> None:
    features, labels = blobs(20, 300)
    features, labels = np.repeat(features, 5, axis=0), np.repeat(labels, 5)
    head = fit_linear_head(features, labels, CLASSES, np.arange(100) // 5, seed=0)
    assert np.abs(naive_gradient(head, features, labels)).max() <= 2.0 * TOLERANCE


def test_the_features_of_the_caller_are_left_alone() -> None:
    features, labels = blobs(100, 10)
    before = features.copy()
    fit(features, labels)
    np.testing.assert_array_equal(features, before)


def test_what_does_not_fit_is_refused() -> None:
    features, labels = blobs(20, 5)
    with pytest.raises(ValueError, match=r"features must be \(rows, features\)"):
        fit(features[0], labels)
    with pytest.raises(ValueError, match=r"none of them empty"):
        fit(features[:0], labels[:0])
    with pytest.raises(ValueError, match=r"not \(20, 5\), \(19,\)"):
        fit(features, labels[:19])
    with pytest.raises(ValueError, match=r"labels must be 0 to 2, not 0 to 3"):
        fit(features, labels, classes=3)
    features[3, 1] = np.nan
    features[7, 0] = np.inf
    with pytest.raises(ValueError, match=r"2 rows are not"):
        fit(features, labels)
