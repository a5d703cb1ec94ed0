import numpy as np
import pytest
import torch

from spine_ray.core.backbone import make_model, normalisation_of
from spine_ray.core.score import logits_of, model_input, precision
from spine_ray.core.views import render, scoring_boxes

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return make_model("test_efficientnet", 32, 10)


@pytest.mark.parametrize("rows", [1, 127, 130])  # batches of 128
def test_logits_are_those_of_the_central_squares_one_by_one(rows, model, digits_task, trial_config):
    config, task = trial_config("test_efficientnet"), digits_task(140)
    asked = np.random.default_rng(0).permutation(140)[:rows]
    model.train()  # batch-norm must not look at the batch
    logits = logits_of(model, config, task.pixels, asked, CPU)
    assert logits.shape == (rows, 10)
    assert logits.dtype == np.float32
    for place in {0, rows // 2, rows - 1}:
        pixels = render(task.pixels, asked[[place]], scoring_boxes(1), 32).float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        with torch.inference_mode():
            alone = model((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        np.testing.assert_allclose(logits[place], alone[0].numpy(), rtol=1e-4, atol=1e-5)


def test_scoring_changes_nothing_in_the_model(model, digits_task, trial_config):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    task = digits_task(140)
    one, again = (logits_of(model, trial_config("test_efficientnet"), task.pixels, np.arange(20), CPU) for _ in "ab")
    np.testing.assert_array_equal(one, again)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_batch_is_laid_out_channels_last():
    pictures = torch.zeros((2, 3, 8, 8), dtype=torch.uint8)
    batch = model_input(pictures, normalisation_of("test_resnet"), CPU)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.dtype == torch.float32
    assert torch.equal(batch, torch.full_like(batch, -1.0))  # mean and deviation are 1/2


def test_arithmetic_is_float32_on_the_cpu():
    with precision(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
