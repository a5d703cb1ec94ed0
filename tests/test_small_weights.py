import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from benchmarks import small_weights, textures
from spine_ray.core.backbone import make_model
from spine_ray.core.freeze import classifier_names
from spine_ray.space.stand_ins import STAND_INS, stand_ins_folder

FOLDER = stand_ins_folder()
MODELS = tuple(row.backbone for row in STAND_INS)
TRANSFORMERS = ("test_vit", "test_vit2")


def weights_file(model):
    return FOLDER / f"{model}.safetensors"


def test_all_are_made_by_the_command_that_makes_them():
    assert sorted(small_weights.SCHEDULES) == sorted(MODELS)
    assert stand_ins_folder() == small_weights.FOLDER


@pytest.mark.parametrize("model", MODELS)
def test_a_file_holds_the_whole_backbone_as_float32_and_no_classifier(model):
    tensors = load_file(weights_file(model))
    backbone = timm.create_model(model, num_classes=0).state_dict()
    assert set(tensors) == set(backbone)
    assert not set(tensors) & set(classifier_names(timm.create_model(model, num_classes=10)))
    # Batch-norm counts its batches in whole numbers; all else is float32.
    kinds = {tensor.dtype for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert kinds == {torch.float32}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())


@pytest.mark.parametrize("model", MODELS)
def test_a_file_names_its_licence(model):
    with safe_open(weights_file(model), framework="pt") as file:
        assert file.metadata()["licence"] == "Apache-2.0"


@pytest.mark.parametrize("resolution", [32, 64])
@pytest.mark.parametrize("model", MODELS)
def test_every_tensor_of_a_file_arrives_in_the_model(model, resolution):
    tensors = load_file(weights_file(model))
    built = make_model(model, resolution, 10, weights=weights_file(model)).eval()
    arrived = built.state_dict()
    # Position embeddings are resampled to the resolution's grid of patches.
    resampled = {"pos_embed"} if model in TRANSFORMERS and resolution != 32 else set()
    assert {name for name in tensors if not torch.equal(arrived[name], tensors[name])} == resampled
    with torch.inference_mode():
        logits = built(torch.zeros(2, 3, resolution, resolution))
    assert logits.shape == (2, 10)
    assert bool(torch.isfinite(logits).all())


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_position_embeddings_are_resampled_to_the_grid_of_patches(model):
    stored = load_file(weights_file(model))["pos_embed"]
    arrived = make_model(model, 64, 10, weights=weights_file(model)).pos_embed.detach()
    # 32 px are 2 x 2 patches of 16 px, 64 px are 4 x 4; ahead of them, where it exists, the class token's own.
    tokens = stored.shape[1] - 4
    assert arrived.shape == (1, tokens + 16, stored.shape[2])
    assert torch.equal(arrived[:, :tokens], stored[:, :tokens])
    # Corners stay where they were: each lies nearest to the stored embedding of its quarter of the picture.
    quarters, corners = stored[0, tokens:], arrived[0, tokens:][[0, 3, 12, 15]]
    assert torch.cdist(corners, quarters).argmin(dim=1).tolist() == [0, 1, 2, 3]


def test_pictures_follow_from_the_seed():
    draws = textures.drawings()
    assert len(draws) >= 60
    for draw in draws.values():
        first, again, other = (textures.picture(draw, np.random.default_rng(seed), 32) for seed in (1, 1, 2))
        assert first.shape == (32, 32, 3)
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_mean_colour_says_next_to_nothing_about_the_class():
    draws = list(textures.drawings().values())
    rng = np.random.default_rng(0)
    colours = np.array([[textures.picture(draw, rng, 32).mean(axis=(0, 1)) for _ in range(10)] for draw in draws])
    centres, asked = colours[:, :5].mean(axis=1), colours[:, 5:]
    nearest = np.linalg.norm(asked[:, :, None] - centres, axis=-1).argmin(axis=-1)
    accuracy = float((nearest == np.arange(len(draws))[:, None]).mean())
    assert accuracy < 4 / len(draws)
