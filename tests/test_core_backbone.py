import re

import pytest
import timm
import torch
from safetensors.torch import save_file

from spine_ray.core.backbone import (
    check_name,
    facts,
    family_of,
    first_line,
    licence_of,
    make_model,
    native_resolution,
    normalisation_of,
    normalise,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a function that saves a freshly drawn model and returns the file and its tensors."""
    folder = tmp_path_factory.mktemp("weights")

    def save(backbone, *, num_classes=0, drop=(), **options):
        torch.manual_seed(1)
        state = timm.create_model(backbone, num_classes=num_classes, **options).state_dict()
        tensors = {name: tensor.contiguous() for name, tensor in state.items() if name not in drop}
        file = folder / f"{backbone}-{num_classes}-{len(tensors)}.safetensors"
        save_file(tensors, file)
        return file, tensors

    return save


@pytest.mark.parametrize(
    ("family", "backbones"),
    [
        ("efficientnet", ["mobilenetv3_large_100.ra_in1k", "efficientnet_b0.ra_in1k", "test_efficientnet"]),
        (
            "vit",
            [
                "vit_small_patch16_224",
                "deit3_small_patch16_224",
                "beit_base_patch16_224",
                "test_vit",
                "test_vit2",
            ],
        ),
        ("vit", ["eva02_tiny_patch14_224", "cait_xxs24_224", "vit_relpos_small_patch16_224"]),
        ("resnet", ["resnet50.a1_in1k", "resnet101", "seresnet50", "resnetv2_50", "test_resnet"]),
        ("swin", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224"]),
        ("convnext", ["convnext_tiny", "test_convnext"]),
        ("byobnet", ["test_byobnet"]),
        ("regnet", ["regnety_002"]),
    ],
)
def test_families_are_lineages(family, backbones):
    assert {backbone: family_of(backbone) for backbone in backbones} == dict.fromkeys(backbones, family)


@pytest.mark.parametrize("backbone", ["resnet50", "resnet50.a1_in1k", "vit_small_patch16_224", "test_vit.r160_in1k"])
def test_names_that_timm_knows_pass(backbone):
    check_name(backbone)


def test_an_unknown_name_is_refused_with_near_names():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet51'.*near: .*\bresnet50\b"):
        check_name("resnet51")


def test_an_unknown_tag_is_refused_with_the_tags_that_there_are():
    with pytest.raises(ValueError, match=r"^unknown weights 'a9_in1k' of resnet50 \(there are: .*\ba1_in1k, .*\)$"):
        check_name("resnet50.a9_in1k")


@pytest.mark.parametrize(
    ("backbone", "mean", "std"),
    [
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", 0.5, 0.5),
        ("deit3_small_patch16_224.fb_in22k_ft_in1k", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("resnet50.a1_in1k", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ],
)
def test_pixels_are_normalised_as_the_backbone_was_trained(backbone, mean, std):
    normalisation = normalisation_of(backbone)
    pixels = torch.arange(2 * 3 * 4 * 5, dtype=torch.uint8).view(2, 3, 4, 5)
    mean, std = torch.as_tensor(mean).expand(3), torch.as_tensor(std).expand(3)
    normalised = normalise(pixels, normalisation)
    for channel in range(3):
        expected = (pixels[:, channel] / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(normalised[:, channel], expected)


def test_licences_are_those_of_the_weights():
    assert licence_of("resnet50.a1_in1k") == "apache-2.0"
    assert licence_of("resnet50.fb_ssl_yfcc100m_ft_in1k") == "cc-by-nc-4.0"


@pytest.mark.parametrize(
    ("backbone", "params", "gmacs"),
    [
        # As published: He et al. 2015, Dosovitskiy et al. 2020 in torchvision's and timm's tables.
        ("resnet50.a1_in1k", 25_557_032, 4.09),
        ("vit_small_patch16_224.augreg_in21k_ft_in1k", 22_050_664, 4.61),
        ("mobilenetv3_large_100.ra_in1k", 5_483_032, 0.217),
    ],
)
def test_facts_are_the_published_ones(backbone, params, gmacs):
    known = facts(backbone, 224, 1000)
    assert known.params == params
    assert known.macs == pytest.approx(gmacs * 1e9, rel=0.01)


def test_convolutions_cost_as_many_times_more_as_there_are_pixels():
    assert facts("resnet50", 448, 2).macs == pytest.approx(4 * facts("resnet50", 224, 2).macs, rel=1e-3)


@pytest.mark.parametrize("backbone", ["cait_xxs24_224", "pit_ti_224"])
def test_models_that_hand_a_parameter_to_a_module_are_counted(backbone):
    assert facts(backbone, 224, 10).macs > 0


@pytest.mark.parametrize(
    ("backbone", "resolution"),
    [
        ("test_vit", 33),
        ("test_vit", 8),
        ("test_convnext", 16),
        ("maxvit_tiny_rw_224", 240),
        ("maxvit_tiny_rw_224", 16),
        ("twins_pcpvt_small", 240),
        ("gmlp_s16_224", 7),
    ],
)
def test_a_resolution_that_does_not_go_is_refused_in_one_line(backbone, resolution):
    with pytest.raises(ValueError, match=f"^{backbone} .*{resolution} px") as refusal:
        facts(backbone, resolution, 10)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_efficientnet"])
def test_a_model_runs_at_the_resolution_it_is_made_for(backbone):
    model = make_model(backbone, 64, 7).eval()
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 7)


def test_stochastic_depth_reaches_its_rate_in_the_deepest_block():
    rates = [
        module.drop_prob
        for module in make_model("test_vit", 32, 2, drop_path=0.3).modules()
        if type(module).__name__ == "DropPath"
    ]
    assert max(rates) == pytest.approx(0.3)
    assert rates == sorted(rates)


@pytest.mark.parametrize("num_classes", [0, 10, 1000], ids=["no classifier", "classifier alike", "classifier of 1000"])
def test_a_file_replaces_all_but_the_classifier(saved, num_classes):
    file, tensors = saved("test_resnet", num_classes=num_classes)
    torch.manual_seed(0)
    fresh = make_model("test_resnet", 32, 10).state_dict()
    torch.manual_seed(0)
    loaded = make_model("test_resnet", 32, 10, weights=file).state_dict()
    assert list(loaded) == list(fresh)
    for name, tensor in loaded.items():
        assert torch.equal(tensor, fresh[name] if name.startswith("fc.") else tensors[name]), name
    assert not torch.equal(loaded["conv1.0.weight"], fresh["conv1.0.weight"])


@pytest.mark.parametrize(
    "backbone",
    [
        "mobilenetv3_small_050.lamb_in1k",
        # Its original weights are a NumPy archive, which timm reads with a loader of its own.
        "vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    ],
)
def test_a_file_of_a_named_tag_is_read(saved, backbone):
    file, tensors = saved(backbone, num_classes=1000)
    loaded = make_model(backbone, 224, 10, weights=file)
    classifier = {id(parameter) for parameter in loaded.get_classifier().parameters()}
    for name, parameter in loaded.named_parameters():
        if id(parameter) not in classifier:
            assert torch.equal(parameter, tensors[name]), name


def test_position_embeddings_of_a_file_fit_another_resolution(saved):
    file, tensors = saved("test_vit", img_size=64)
    loaded = make_model("test_vit", 96, 10, weights=file)
    others = {name: tensor for name, tensor in loaded.state_dict().items() if name in tensors and name != "pos_embed"}
    assert len(others) == len(tensors) - 1
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in others.items())
    # 16 px a patch: a grid of 4 x 4 becomes one of 6 x 6; what stands before the grid stays.
    prefix = tensors["pos_embed"].shape[1] - 4 * 4
    assert loaded.pos_embed.shape[1] == prefix + 6 * 6
    assert torch.equal(loaded.pos_embed[:, :prefix], tensors["pos_embed"][:, :prefix])
    with torch.inference_mode():
        assert loaded.eval()(torch.zeros(1, 3, 96, 96)).isfinite().all()


@pytest.mark.parametrize(
    ("backbone", "stored"),
    [
        ("test_resnet", "test_convnext"),
        ("resnet34", "resnet18"),
        ("resnet18", "resnet34"),
        ("test_vit", "test_vit2"),
    ],
)
def test_a_file_of_another_model_is_refused(saved, backbone, stored):
    file, _ = saved(stored)
    with pytest.raises(ValueError, match=rf"^{backbone} at 32 px cannot be built from {re.escape(str(file))}: \S"):
        make_model(backbone, 32, 10, weights=file)


def test_a_damaged_file_is_refused(saved):
    file, _ = saved("test_resnet")
    cut = file.with_name("cut.safetensors")
    cut.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cannot be built from .*cut\.safetensors: \S"):
        make_model("test_resnet", 32, 10, weights=cut)
    with pytest.raises(ValueError, match=r"cannot be built from .*none\.safetensors: \S"):
        make_model("test_resnet", 32, 10, weights=file.with_name("none.safetensors"))


def test_the_first_line_of_an_error_is_its_kind_where_it_has_no_text():
    assert first_line(ValueError("\none\ntwo")) == "one"
    assert first_line(ZeroDivisionError()) == "ZeroDivisionError"


@pytest.mark.parametrize(
    ("backbone", "side"),
    [
        ("efficientnet_b3.ra2_in1k", 288),
        ("efficientnet_b4.ra2_in1k", 320),
        ("resnet50.a1_in1k", 224),
        ("test_vit", 160),
    ],
)
def test_the_native_resolution_is_that_of_the_weights(backbone, side):
    assert native_resolution(backbone) == side
