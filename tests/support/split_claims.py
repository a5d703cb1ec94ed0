"""What holds of the two parts of any backbone: a module claims it of some, and names them."""

import functools

import pytest
import torch
from torch.nn.functional import cross_entropy

from spine_ray.core.arithmetic import autocast
from spine_ray.core.backbone import make_model
from spine_ray.core.freeze import classifier_names, freeze_backbone, train_mode, trained_tensors
from spine_ray.core.network import CHUNK, Network, Setup
from spine_ray.core.split import check_split, split_model
from spine_ray.space.arithmetic import Arithmetic

CPU = torch.device("cpu")
SIDE, CLASSES = 32, 10
every_freeze = pytest.mark.parametrize("freeze", [0.25, 0.75, 1.0])


@functools.cache
def model_of(backbone):
    """One model a backbone, frozen anew by every test; none changes its weights for good."""
    torch.manual_seed(0)
    return make_model(backbone, SIDE, CLASSES).eval()


def split_at(backbone, freeze):
    model = model_of(backbone)
    frozen = freeze_backbone(model, freeze)
    return model, split_model(model), frozen


def noise(rows, seed=0):
    return torch.randn(rows, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def gradients(model, run):
    """Run a step without optimizer in training mode; return its loss, the gradients and the running statistics."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.zero_grad()
    train_mode(model)
    torch.manual_seed(0)  # timm's Swin drops paths unless it is told not to
    loss = cross_entropy(run(), torch.arange(6) % CLASSES)
    torch.autograd.backward(loss)
    found = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    after = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.load_state_dict(before)
    model.zero_grad()
    return loss.item(), found, after


def pictures(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, 3, SIDE, SIDE), generator=generator).to(torch.uint8)


class SplitClaims:
    """Tests of a split backbone; a subclass is parametrized with the backbones."""

    @pytest.mark.parametrize("precision", ["float32", "bfloat16"])
    @every_freeze
    def test_both_parts_say_what_the_whole_says_bit_for_bit(self, backbone, freeze, precision):
        model, split, _ = split_at(backbone, freeze)
        model.eval()
        with torch.no_grad(), autocast(Arithmetic(precision, "contiguous"), CPU):
            whole = model(noise(5))
            assert torch.equal(split.suffix(split.prefix(noise(5))), whole)
            check_split(model, split, noise(2))
        assert whole.shape == (5, CLASSES)
        assert len(torch.unique(whole, dim=0)) == 5

    @every_freeze
    def test_the_parts_share_the_models_parameters_and_leave_none_out(self, backbone, freeze):
        model, split, frozen = split_at(backbone, freeze)
        own = dict(model.named_parameters())
        prefix, suffix = dict(split.prefix.named_parameters()), dict(split.suffix.named_parameters())
        for name, parameter in (*prefix.items(), *suffix.items()):
            assert parameter is own[name], name
        assert set(prefix) | set(suffix) == set(own)
        assert set(prefix) <= frozen
        assert set(classifier_names(model)) <= set(own) - frozen <= set(suffix)
        buffers = dict(model.named_buffers())
        for part in (split.prefix, split.suffix):
            assert all(buffer is buffers[name] for name, buffer in part.named_buffers())

    @every_freeze
    def test_training_the_suffix_is_training_the_model(self, backbone, freeze):
        model, split, frozen = split_at(backbone, freeze)
        with torch.no_grad():
            model.eval()
            activations = split.prefix(noise(6))
        loss, expected, left = gradients(model, lambda: model(noise(6)))
        suffix_loss, found, suffix_left = gradients(model, lambda: split.suffix(activations))
        assert suffix_loss == pytest.approx(loss, rel=1e-6)
        assert set(found) == set(expected) == {name for name, _ in model.named_parameters()} - frozen
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-6, atol=1e-6)
        for name, tensor in suffix_left.items():
            torch.testing.assert_close(tensor, left[name], rtol=1e-6, atol=1e-6)
        # Running statistics move where a norm is trained and nowhere else, in both ways alike.
        moved = {name for name, tensor in left.items() if not torch.equal(tensor, model.state_dict()[name])}
        assert moved == {name for name, t in suffix_left.items() if not torch.equal(t, model.state_dict()[name])}
        assert moved <= set(trained_tensors(model)) - set(found)
        has_batch_norm = any(name.endswith("running_mean") for name in set(trained_tensors(model)))
        assert bool(moved) == has_batch_norm

    def test_with_everything_frozen_the_suffix_is_the_classifier(self, backbone):
        model, split, _ = split_at(backbone, 1.0)
        assert split.matrix is model.get_classifier()
        with torch.no_grad():
            features = split.prefix(noise(3))
        assert features.shape == (3, split.matrix.in_features)

    @pytest.mark.parametrize("freeze", [0.25, 0.75])
    def test_with_less_frozen_the_suffix_is_more_than_a_matrix(self, backbone, freeze):
        assert split_at(backbone, freeze)[1].matrix is None

    @pytest.mark.parametrize("arithmetic", ["float32 channels_last", "bfloat16 contiguous"])
    def test_activations_do_not_depend_on_place_or_neighbours(self, backbone, arithmetic, trial_config):
        config = trial_config(backbone, freeze=0.75)
        setup = Setup(device=CPU, arithmetic=Arithmetic(*arithmetic.split()), weights=None, activation_bytes=0)
        network = Network(config, CLASSES, 0, setup)
        given = pictures(CHUNK)
        expected = network.activations(given)
        order = torch.randperm(CHUNK, generator=torch.Generator().manual_seed(1))
        assert torch.equal(network.activations(given[order]), expected[order])
        # Alone in a chunk, beside strangers, and on both sides of a chunk's end.
        assert torch.equal(network.activations(given[:1]), expected[:1])
        assert torch.equal(network.activations(torch.cat([pictures(9, seed=2), given]))[9:], expected)
