from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from spine_ray.core.score import logits_of
from spine_ray.core.ship import REFIT, rebuild, refit_arrays, trained_arrays

ROWS = np.arange(60)
# Half of test_resnet's stem and 4 blocks: 2.5 of 5 groups go up to 3.
FROZEN_HALF = ("conv1.", "bn1.", "layer1.", "layer2.")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of models without a classifier, as they are made for 64 px."""
    folder = tmp_path_factory.mktemp("weights")
    files = {}
    for backbone in ("test_resnet", "test_vit"):
        torch.manual_seed(7)
        options = {"img_size": 64} if backbone == "test_vit" else {}
        state = timm.create_model(backbone, num_classes=0, **options).state_dict()
        files[backbone] = folder / f"{backbone}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, files[backbone])
    return files


@pytest.fixture
def fitted(make_network, make_fit):
    """Return a function that fits a configuration and returns the fit and its model."""

    def make(config, task, file=None):
        network = make_network(config, task, weights=file)
        fit = make_fit(config, task, ROWS, REFIT, network=network)
        for epoch in range(config.recipe.epochs):
            fit.train_epoch(epoch)
        return fit, network.model

    return make


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(60)


@pytest.mark.parametrize(
    ("freeze", "left_out"),
    [(0.0, ()), (0.5, FROZEN_HALF), (0.99, ("conv1.", "bn1.", "layer"))],
)
def test_what_ships_is_what_was_trained_with_its_running_statistics(freeze, left_out, task, trial_config, fitted):
    _, model = fitted(trial_config(freeze=freeze), task)
    arrays = trained_arrays(model)
    state = model.state_dict()
    assert set(arrays) == {name for name in state if not left_out or not name.startswith(left_out)}
    assert any(name.endswith("running_mean") for name in arrays) == (freeze < 0.99)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, state[name].numpy())


def test_a_buffer_that_is_not_part_of_the_state_does_not_ship(task, trial_config, fitted):
    _, model = fitted(trial_config("swin_tiny_patch4_window7_224", epochs=1, batch_size=30), task)
    buffers = {name for name, _ in model.named_buffers()}
    assert buffers - set(model.state_dict())
    assert set(trained_arrays(model)) == set(model.state_dict())


@pytest.mark.parametrize("freeze", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
@pytest.mark.parametrize("start", ["file", "random"])
def test_a_rebuilt_model_says_what_the_fitted_one_said(
    backbone, start, freeze, task, weights, trial_config, make_setup, fitted
):
    file = weights[backbone] if start == "file" else None
    own = {"drop_path": 0.1} if backbone == "test_vit" else {"batch_norm": "frozen" if start == "file" else "trained"}
    config = trial_config(backbone, freeze=freeze, **own)
    fit, model = fitted(config, task, file)
    arrays = {name: array.copy() for name, array in trained_arrays(model).items()}
    torch.manual_seed(12345)  # whatever the process drew in between
    setup = make_setup(weights=file)
    rebuilt, pictures = rebuild(config, task, setup, arrays)
    assert not rebuilt.training
    state = rebuilt.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    # The fitted one read its frozen part's activations in float16, which keeps 11 bits.
    tolerance = 1e-6 if freeze == 0 else 2e-3
    np.testing.assert_allclose(logits_of(rebuilt, pictures, ROWS, setup), fit.logits(ROWS), rtol=0, atol=tolerance)


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
def test_a_member_without_frozen_depth_needs_no_file_of_initial_weights(
    batch_norm, task, weights, trial_config, make_setup, fitted
):
    config = trial_config("test_resnet", batch_norm=batch_norm)
    fit, model = fitted(config, task, weights["test_resnet"])
    arrays = {name: array.copy() for name, array in refit_arrays(model, config).items()}
    rebuilt, pictures = rebuild(config, replace(task, seed=task.seed + 1), make_setup(), arrays)
    np.testing.assert_allclose(logits_of(rebuilt, pictures, ROWS, make_setup()), fit.logits(ROWS), rtol=0, atol=1e-6)


def test_a_frozen_part_of_random_weights_is_that_of_the_study_seed(task, trial_config, make_setup, fitted):
    config = trial_config(freeze=0.5)
    _, model = fitted(config, task)
    arrays = trained_arrays(model)
    right, wrong = (
        rebuild(config, replace(task, seed=seed), make_setup(), arrays)[0] for seed in (task.seed, task.seed + 1)
    )
    assert torch.equal(right.layer1[0].conv1.weight, model.layer1[0].conv1.weight)
    assert not torch.equal(wrong.layer1[0].conv1.weight, model.layer1[0].conv1.weight)


def test_tensors_of_another_model_are_refused(task, trial_config, make_setup, fitted):
    arrays = trained_arrays(fitted(trial_config(), task)[1])
    config = replace(trial_config(), backbone="test_vit")
    with pytest.raises(ValueError, match=f"the stored weights of {config.trial_id} do not fit test_vit: "):
        rebuild(config, task, make_setup(), arrays)
