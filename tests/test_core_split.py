import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from spine_ray.core.arithmetic import autocast
from spine_ray.core.backbone import make_model
from spine_ray.core.freeze import classifier_names, freeze_backbone, train_mode, trained_tensors
from spine_ray.core.network import CHUNK, Network, Setup
from spine_ray.core.split import CannotSplitError, Split, check_split, split_model
from spine_ray.space.arithmetic import Arithmetic

CPU = torch.device("cpu")
SIDE, CLASSES = 32, 10
LADDER = (
    "mobilenetv3_large_100",
    "efficientnet_b0",
    "resnet50",
    "vit_small_patch16_224",
    "deit3_small_patch16_224",
    "swin_tiny_patch4_window7_224",
)
TINY = ("test_efficientnet", "test_byobnet", "test_resnet", "test_convnext", "test_vit", "test_vit2")
every_backbone = pytest.mark.parametrize("backbone", [*LADDER, *TINY])
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


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@every_freeze
@every_backbone
def test_both_parts_say_what_the_whole_says_bit_for_bit(backbone, freeze, precision):
    model, split, _ = split_at(backbone, freeze)
    model.eval()
    with torch.no_grad(), autocast(Arithmetic(precision, "contiguous"), CPU):
        whole = model(noise(5))
        assert torch.equal(split.suffix(split.prefix(noise(5))), whole)
        check_split(model, split, noise(2))
    assert whole.shape == (5, CLASSES)
    assert len(torch.unique(whole, dim=0)) == 5


@every_freeze
@every_backbone
def test_the_parts_share_the_models_parameters_and_leave_none_out(backbone, freeze):
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


@every_freeze
@every_backbone
def test_training_the_suffix_is_training_the_model(backbone, freeze):
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


@every_backbone
def test_with_everything_frozen_the_suffix_is_the_classifier(backbone):
    model, split, _ = split_at(backbone, 1.0)
    assert split.matrix is model.get_classifier()
    with torch.no_grad():
        features = split.prefix(noise(3))
    assert features.shape == (3, split.matrix.in_features)


@pytest.mark.parametrize("freeze", [0.25, 0.75])
@every_backbone
def test_with_less_frozen_the_suffix_is_more_than_a_matrix(backbone, freeze):
    assert split_at(backbone, freeze)[1].matrix is None


@pytest.mark.parametrize("training", [True, False])
def test_splitting_leaves_the_mode_as_it_was(training):
    model = copy.deepcopy(model_of("test_resnet"))
    freeze_backbone(model, 0.75)
    model.train(training)
    split_model(model)
    assert model.training == training
    assert model.layer4.training == training


def test_stochastic_depth_goes_on_in_the_suffix_and_not_in_the_prefix():
    torch.manual_seed(0)
    model = make_model("test_vit", SIDE, CLASSES, drop_path=0.5)
    freeze_backbone(model, 0.5)
    split = split_model(model)
    train_mode(model)
    with torch.no_grad():
        activations = split.prefix(noise(8))
        assert torch.equal(split.prefix(noise(8)), activations)
        assert not torch.equal(split.suffix(activations), split.suffix(activations))


class Tower(nn.Module):
    """Two layers and a classifier; `freeze` says which of the layers are frozen."""

    def __init__(self, freeze=("one",)):
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, CLASSES)
        for name in freeze:
            getattr(self, name).requires_grad_(False)

    def forward(self, images):
        return self.head(self.two(self.one(images)).mean(dim=(2, 3)))

    def get_classifier(self):
        return self.head


class Skipping(Tower):
    """The picture itself goes around the frozen layer, and a picture is no place to cut."""

    def forward(self, images):
        return self.head((self.two(self.one(images)) + images[:, :1]).mean(dim=(2, 3)))


class TwoRoads(Tower):
    """Two frozen values reach the trained layer and what is behind it."""

    def forward(self, images):
        first = self.one(images)
        return self.head((self.two(first.relu()) + first.sigmoid()).mean(dim=(2, 3)))


class TwoRoadsFromOne(Tower):
    """The same frozen value reaches both."""

    def forward(self, images):
        first = self.one(images)
        return self.head((self.two(first) + first).mean(dim=(2, 3)))


class Deciding(Tower):
    """What it computes depends on what it sees."""

    def forward(self, images):
        first = self.one(images)
        if first.mean() > 0:
            first = -first
        return self.head(self.two(first).mean(dim=(2, 3)))


class Counting(Tower):
    """A loop over as many turns as there are pictures."""

    def forward(self, images):
        return torch.stack([self.head(self.two(self.one(each)).mean(dim=(1, 2))) for each in images])


class Fickle(Tower):
    """Traced in eval mode once, it takes another branch from then on."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        return super().forward(images * self.calls)


def test_a_model_is_cut_behind_its_last_frozen_value():
    tower = Tower()
    split = split_model(tower)
    assert split.cut == "one"
    with torch.no_grad():
        assert torch.equal(split.prefix(noise(2)), tower.one(noise(2)))
    assert split.matrix is None


def test_what_is_not_trained_behind_the_last_frozen_layer_is_computed_in_advance_too():
    tower = Tower(freeze=("one", "two"))
    split = split_model(tower)
    with torch.no_grad():
        assert torch.equal(split.prefix(noise(2)), tower.two(tower.one(noise(2))).mean(dim=(2, 3)))
    assert split.matrix is tower.head


def test_a_value_that_goes_two_ways_is_one_value():
    tower = TwoRoadsFromOne()
    split = split_model(tower)
    assert split.cut == "one"
    check_split(tower, split, noise(2))


def test_where_two_frozen_values_part_the_model_is_cut_before_them():
    tower = TwoRoads()
    split = split_model(tower)
    assert split.cut == "one"
    check_split(tower, split, noise(2))


def test_a_model_in_which_two_values_cross_is_refused():
    with pytest.raises(CannotSplitError, match="more than one value passes from its frozen to its trained part"):
        split_model(Skipping())


@pytest.mark.parametrize("kind", [Deciding, Counting])
def test_a_model_whose_forward_depends_on_numbers_cannot_be_traced(kind):
    tower = kind().train()
    assert tower(noise(2)).shape == (2, CLASSES)
    with pytest.raises(CannotSplitError, match=r"it cannot be traced \(TraceError\)"):
        split_model(tower)
    assert tower.training


def test_a_model_that_says_something_else_than_its_parts_is_refused():
    fickle = Fickle()
    split = split_model(fickle)
    with pytest.raises(CannotSplitError, match="its parts say something else than the whole"):
        check_split(fickle, split, noise(2))


def test_a_difference_of_one_bit_is_refused():
    tower = Tower()
    split = split_model(tower)
    check_split(tower, split, noise(2))
    other = Tower()
    with torch.no_grad():
        other.head.bias[0] = torch.nextafter(other.head.bias[0], torch.tensor(torch.inf))
    suffix = split_model(other).suffix
    with pytest.raises(CannotSplitError):
        check_split(tower, Split(split.prefix, suffix, split.cut), noise(2))


def pictures(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, 3, SIDE, SIDE), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("arithmetic", ["float32 channels_last", "bfloat16 contiguous"])
@every_backbone
def test_activations_do_not_depend_on_place_or_neighbours(backbone, arithmetic, trial_config):
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
