import numpy as np
import pytest
import torch

from spine_ray.core.inputs import pictures_for
from spine_ray.core.score import logits_of
from spine_ray.core.views import render, scoring_boxes
from spine_ray.space.arithmetic import ALL, Arithmetic

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {
    "float32": torch.float32, "tf32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16
}  # fmt: skip


@pytest.fixture
def score(digits_task, trial_config, make_network):
    """A network and a function that scores rows with it."""
    config, task = trial_config("test_efficientnet"), digits_task(140)

    def make(**setup):
        network = make_network(config, task, **setup)
        inputs = pictures_for(config.recipe, network, task)
        return network, lambda rows: logits_of(network.model.eval(), inputs, rows, network.setup)

    return make


@pytest.mark.parametrize("rows", [1, 127, 130])  # batches of 128
def test_logits_are_those_of_the_central_squares_one_by_one(rows, score, digits_task):
    task, (network, logits_of_rows) = digits_task(140), score()
    asked = np.random.default_rng(0).permutation(140)[:rows]
    logits = logits_of_rows(asked)
    assert logits.shape == (rows, 10)
    assert logits.dtype == np.float32
    for place in {0, rows // 2, rows - 1}:
        pixels = render(task.pixels, asked[[place]], scoring_boxes(1), 32).float() / 255
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        with torch.inference_mode():
            alone = network.model((pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1))
        np.testing.assert_allclose(logits[place], alone[0].numpy(), rtol=1e-4, atol=1e-5)


def test_scoring_changes_nothing_in_the_model(score):
    network, logits_of_rows = score()
    before = {name: tensor.clone() for name, tensor in network.model.state_dict().items()}
    one, again = (logits_of_rows(np.arange(20)) for _ in "ab")
    np.testing.assert_array_equal(one, again)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.model.state_dict().items())


@pytest.mark.parametrize("arithmetic", ALL, ids=str)
def test_a_batch_is_laid_out_and_computed_as_the_arithmetic_says(arithmetic, score):
    network, logits_of_rows = score(arithmetic=arithmetic)
    given, computed = [], []
    network.model.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    network.model.conv_stem.register_forward_hook(lambda *parts: computed.append(parts[2]))
    logits = logits_of_rows(np.arange(20))
    assert [batch.dtype for batch in given] == [torch.float32]
    assert given[0].is_contiguous(memory_format=FORMATS[arithmetic.memory_format])
    assert [batch.dtype for batch in computed] == [PRECISIONS[arithmetic.precision]]
    assert computed[0].is_contiguous(memory_format=FORMATS[arithmetic.memory_format])
    assert logits.dtype == np.float32


def test_arithmetic_is_a_matter_of_rounding(score):
    rows = np.arange(20)
    exact = score(arithmetic=Arithmetic("float32", "contiguous"))[1](rows)
    for arithmetic in ALL:
        # bfloat16 keeps 8 bits, float16 11; TF32 is float32 on a CPU.
        tolerance = {"float32": 1e-5, "tf32": 1e-5, "bfloat16": 0.03, "float16": 0.004}[arithmetic.precision]
        np.testing.assert_allclose(score(arithmetic=arithmetic)[1](rows), exact, atol=tolerance * np.abs(exact).max())


def test_rows_for_which_memory_is_short_are_scored_in_halves_from_then_on(score):
    network, logits_of_rows = score()
    expected, sizes = logits_of_rows(np.arange(140)), []

    def refuse(_, inputs):
        sizes.append(len(inputs[0]))
        if sizes[-1] > 50:
            raise torch.OutOfMemoryError

    network.model.register_forward_pre_hook(refuse)
    logits = logits_of_rows(np.arange(140))
    assert sizes == [128, 64, *(32 for _ in range(4)), 12]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
