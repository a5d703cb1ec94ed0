import numpy as np
import pytest
import torch

from spine_ray.core.inputs import Activations, Pictures, pictures_for, probe_activations
from spine_ray.core.network import CHUNK, Network
from spine_ray.core.views import Augmentation, render, scoring_boxes, training_boxes
from spine_ray.space.arithmetic import ALL, Arithmetic

ROWS = 48
ORDERS = {
    "one": [7],
    "ascending": list(range(12)),
    "shuffled": [5, 31, 0, 47, 12],
    "more than a chunk": np.random.default_rng(0).permutation(ROWS).tolist(),
    "twice the same": [3, 9, 3],
}
VIEWS = 3
LIMIT = 16384.0
"""Activations of the first chunk up to here are kept in half precision."""
every_order = pytest.mark.parametrize("rows", ORDERS.values(), ids=ORDERS)


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(ROWS)


@pytest.fixture(scope="module")
def pictures(task, trial_config, make_setup):
    """Return a function that makes a partly frozen network's pictures."""

    def make(backbone="test_efficientnet", freeze=0.75, **setup):
        config = trial_config(backbone, freeze=freeze, epochs=VIEWS, crop_area_min=0.3, symmetry="mirror")
        return pictures_for(config.recipe, Network(config, 10, 0, make_setup(**setup)), task)

    return make


def naive_pictures(task, rows, view):
    """Each picture on its own, as test_efficientnet wants it; view None is the scoring view."""
    augmentation = Augmentation(crop_area_min=0.3, symmetry="mirror")
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    seen = []
    for row in rows:
        alone = np.array([row])
        boxes = scoring_boxes(1) if view is None else training_boxes(task.keys[alone], view, augmentation)
        picture = render(task.pixels, alone, boxes, 32)[0].numpy().transpose(1, 2, 0)
        seen.append(((picture / 255.0 - mean) / std).transpose(2, 0, 1))
    return np.array(seen)


def naive_activations(pictures, rows, view):
    """Each picture on its own, as many times as a chunk has rows, rounded by numpy."""
    network, seen = pictures.network, []
    for row in rows:
        given = torch.from_numpy(naive_pictures(pictures.task, [row], view).astype(np.float32)).repeat(CHUNK, 1, 1, 1)
        with torch.no_grad():
            seen.append(network.split.prefix(given.contiguous(memory_format=torch.channels_last))[0].numpy())
    return np.array(seen)


def test_there_is_a_view_for_every_epoch_and_they_are_cut_as_the_recipe_says(pictures):
    made = pictures()
    assert made.views == VIEWS
    assert made.augmentation == Augmentation(crop_area_min=0.3, symmetry="mirror")
    assert made.note == ""


@every_order
def test_pictures_are_the_normalised_views_of_the_rows_in_their_order(rows, task, pictures):
    given = pictures()
    for epoch in range(2 * VIEWS):
        batch = given.training(np.array(rows), epoch)
        assert batch.dtype == torch.float32
        np.testing.assert_allclose(batch.numpy(), naive_pictures(task, rows, epoch % VIEWS), atol=1e-5)
    np.testing.assert_allclose(given.scoring(np.array(rows)).numpy(), naive_pictures(task, rows, None), atol=1e-5)


@pytest.mark.parametrize("arithmetic", ALL, ids=str)
def test_batches_of_pictures_and_of_maps_lie_as_the_arithmetic_says(arithmetic, pictures):
    given = pictures(arithmetic=arithmetic)
    rows = np.arange(5)
    computed = Activations(pictures=given, is_half=True, note="")
    is_last = arithmetic.memory_format == "channels_last"
    for batch in (given.training(rows, 0), given.scoring(rows), computed.training(rows, 0), computed.scoring(rows)):
        assert batch.dtype == torch.float32
        assert batch.is_contiguous(memory_format=torch.channels_last) == is_last
        assert batch.is_contiguous() != is_last


@every_order
@pytest.mark.parametrize("is_half", [True, False])
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
def test_activations_are_those_of_each_picture_alone_rounded_once(backbone, is_half, rows, pictures):
    given = pictures(backbone)
    computed = Activations(pictures=given, is_half=is_half, note="")
    assert computed.views == VIEWS
    for view in (1, None):
        found = computed.scoring(np.array(rows)) if view is None else computed.training(np.array(rows), VIEWS + view)
        assert found.dtype == torch.float32
        if backbone == "test_efficientnet":
            exact = naive_activations(given, rows, view)
        else:  # which is normalised in another way
            cut = given.scoring_view if view is None else lambda rows: given.training_view(rows, 1)
            each = [given.network.activations(cut(np.array([row]))) for row in rows]
            exact = torch.cat(each).numpy()
        expected = exact.astype(np.float16).astype(np.float32) if is_half else exact
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3 if is_half else 1e-4, atol=1e-4)
        assert np.array_equal(found.numpy(), found.numpy().astype(np.float16)) == is_half


def test_a_network_that_runs_whole_has_pictures_and_its_reason(task, trial_config, make_setup):
    config = trial_config()
    network = Network(config, 10, 0, make_setup())
    network.whole_because = "it cannot be traced (TraceError)"
    assert pictures_for(config.recipe, network, task).note == network.whole_because
    assert isinstance(pictures_for(config.recipe, network, task), Pictures)


def scaled_to(pictures, largest):
    """Scale the prefix's last layer so that the first chunk's largest activation is about this."""
    network = pictures.network
    first = network.activations(pictures.scoring_view(np.arange(CHUNK)))
    layer = network.model.patch_embed.proj
    with torch.no_grad():
        layer.weight.mul_(largest / float(first.abs().max()))
        layer.bias.mul_(largest / float(first.abs().max()))
    return pictures


@pytest.mark.parametrize(("largest", "is_half"), [(1.0, True), (0.9 * LIMIT, True), (1.1 * LIMIT, False), (1e9, False)])
def test_half_precision_is_for_activations_with_room_to_spare(largest, is_half, pictures):
    given = pictures("test_vit", 0.12)  # of 7 groups one is frozen: the embedding
    shape, found = probe_activations(scaled_to(given, largest), np.arange(ROWS))
    assert found == is_half
    assert shape == tuple(given.network.activations(given.scoring_view(np.array([0]))).shape[1:])


def test_activations_that_are_no_numbers_are_not_rounded(pictures):
    given = pictures()
    with torch.no_grad():
        given.network.model.conv_stem.weight.fill_(torch.nan)
    assert probe_activations(given, np.arange(ROWS))[1] is False


def test_a_probe_looks_at_few_rows(pictures):
    given, seen = pictures(arithmetic=Arithmetic("float32", "contiguous")), []
    given.network.split.prefix.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    assert probe_activations(given, np.array([1, 2]))[0] == probe_activations(given, np.arange(ROWS))[0]
    assert seen == [CHUNK, CHUNK]
