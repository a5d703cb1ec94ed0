import copy

import pytest
import torch
from torch import nn

from spine_ray.core.backbone import make_model
from spine_ray.core.freeze import freeze_backbone, freeze_batch_norm, train_mode
from spine_ray.core.split import CannotSplitError, Split, check_split, split_model
from tests.support.backbones import TINY
from tests.support.split_claims import CLASSES, SIDE, SplitClaims, model_of, noise


@pytest.mark.parametrize("freeze", [0.25, 0.75])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet", "test_convnext"])
def test_frozen_batch_norms_move_no_cut(backbone, freeze):
    model = make_model(backbone, SIDE, CLASSES).eval()
    freeze_backbone(model, freeze)
    cut = split_model(model).cut
    freeze_batch_norm(model)
    split = split_model(model)
    assert split.cut == cut
    check_split(model, split, noise(2))


@pytest.mark.parametrize("backbone", TINY)
class TestSplitOfTinyBackbones(SplitClaims):
    pass


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
