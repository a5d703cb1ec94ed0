import numpy as np
import pytest

from spine_ray.core.screen import clean_features, few_rows, probe_scores, screen

ROWS, CLASSES = 300, 3
LABELS = np.arange(ROWS) % CLASSES
FOLDS = (np.arange(ROWS) // CLASSES % 3).astype(np.int8)


def features(signal: float, seed: int = 0, width: int = 8) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=(ROWS, width))
    return np.asarray(noise + signal * np.eye(width)[LABELS], np.float32)


def test_features_that_tell_the_classes_apart_screen_well_and_noise_does_not() -> None:
    clear, noise = screen(features(8.0), LABELS, FOLDS, CLASSES), screen(features(0.0), LABELS, FOLDS, CLASSES)
    assert clear.probe_accuracy == clear.knn_accuracy == 1.0
    assert clear.probe_log_loss < 0.05
    assert abs(noise.probe_accuracy - 1 / CLASSES) < 0.1
    assert noise.probe_log_loss == pytest.approx(np.log(CLASSES), abs=0.02)


def test_more_signal_screens_better() -> None:
    losses = [screen(features(signal), LABELS, FOLDS, CLASSES).probe_log_loss for signal in (0.5, 1.0, 2.0, 4.0)]
    assert losses == sorted(losses, reverse=True)


def test_neighbours_are_those_of_a_naive_search_by_cosine() -> None:
    given = features(1.5)
    unit = given / np.linalg.norm(given, axis=1, keepdims=True)
    hits = []
    for row in range(ROWS):
        others = np.flatnonzero(FOLDS[row] != FOLDS)
        distance = 1.0 - unit[others] @ unit[row]
        nearest = np.argsort(distance)[:10]
        votes = np.bincount(LABELS[others[nearest]], weights=1.0 / distance[nearest], minlength=CLASSES)
        hits.append(votes.argmax() == LABELS[row])
    assert screen(given, LABELS, FOLDS, CLASSES).knn_accuracy == pytest.approx(np.mean(hits))


def test_a_class_that_the_probe_never_saw_scores_lowest() -> None:
    seen = LABELS < 2
    scores = probe_scores(features(3.0)[seen], LABELS[seen], features(3.0, seed=1), CLASSES)
    assert scores.shape == (ROWS, CLASSES)
    assert (scores[:, 2] <= scores[:, :2].min(axis=1)).all()
    assert (scores[seen].argmax(axis=1) == LABELS[seen]).mean() > 0.95


def test_few_rows_keep_the_shares_of_the_classes_and_every_small_class() -> None:
    labels = np.repeat([0, 1, 2], [9_000, 990, 10])
    rows = np.arange(len(labels))
    chosen = few_rows(labels, rows, 1_000, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [900, 99, 5]
    assert (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, few_rows(labels, rows, 1_000, seed=0))
    np.testing.assert_array_equal(few_rows(labels, rows[:50], 1_000, seed=0), rows[:50])


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext"])
def test_features_are_what_the_classifier_is_given(backbone, digits_task, trial_config, make_network) -> None:
    import torch

    task = digits_task(40)
    network = make_network(trial_config(backbone, freeze=1.0), task)
    rows = np.arange(40)
    found = clean_features(network, task, rows)
    assert found.shape == (40, network.model.num_features)
    layer = network.split.matrix
    from spine_ray.core.views import render, scoring_boxes

    images = network.images(render(task.pixels, rows, scoring_boxes(40), 32))
    with torch.no_grad():
        expected = network.model(images).numpy()
        given = layer(torch.from_numpy(found)).numpy()
    np.testing.assert_allclose(given, expected, atol=1e-4)


def test_a_model_that_runs_whole_has_the_same_features(digits_task, trial_config, make_network) -> None:
    task = digits_task(40)
    network = make_network(trial_config("test_resnet", freeze=1.0), task)
    split = clean_features(network, task, np.arange(40))
    network.split = None
    np.testing.assert_allclose(clean_features(network, task, np.arange(40)), split, atol=1e-5)
