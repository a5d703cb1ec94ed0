"""Mixed batches: what comes out is a mixture of two rows, and its label says in which shares."""

import pytest
import torch

from spine_ray.core.mixing import mixed, weight_of

CLASSES = 8
LABELS = torch.arange(CLASSES)
"""A class for each row."""
PICTURES = torch.rand(CLASSES, 3, 12, 12, generator=torch.Generator().manual_seed(0))
TOKENS = PICTURES.reshape(CLASSES, 36, 12)


def shares_of(targets: torch.Tensor) -> torch.Tensor:
    """Return the share of each row's own class; the rest belongs to one other row."""
    assert torch.allclose(targets.sum(dim=1), torch.ones(CLASSES))
    assert ((targets > 0).sum(dim=1) <= 2).all()
    return targets[LABELS, LABELS]


@pytest.mark.parametrize("inputs", [PICTURES, TOKENS], ids=["pictures", "tokens"])
@pytest.mark.parametrize("seed", range(5))
def test_mixup_gives_inputs_and_labels_in_the_same_shares(inputs, seed, trial_config) -> None:
    torch.manual_seed(seed)
    found, targets = mixed(inputs, LABELS, trial_config(mixup=1.0).recipe, CLASSES)
    expected = torch.einsum("rc,c...->r...", targets, inputs)  # the row of class c is row c
    assert torch.allclose(found, expected, atol=1e-6)
    assert 0.0 <= float(shares_of(targets)[0]) <= 1.0


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_pastes_as_much_of_the_other_as_its_label_says(seed, trial_config) -> None:
    torch.manual_seed(seed)
    found, targets = mixed(PICTURES, LABELS, trial_config(cutmix=1.0).recipe, CLASSES)
    own = (found == PICTURES).all(dim=1).float().mean(dim=(1, 2))
    assert torch.allclose(own, shares_of(targets), atol=1e-6)
    others = (targets - torch.diag(shares_of(targets))).argmax(dim=1)
    assert ((found == PICTURES) | (found == PICTURES[others])).all()


def test_tokens_are_not_cut_and_nothing_is_mixed_unless_it_is_asked_for(trial_config) -> None:
    for inputs, recipe in ((TOKENS, trial_config(cutmix=1.0).recipe), (PICTURES, trial_config().recipe)):
        found, targets = mixed(inputs, LABELS, recipe, CLASSES)
        assert found is inputs
        assert targets is LABELS


def test_with_both_each_batch_has_one_of_them(trial_config) -> None:
    recipe, kinds = trial_config(mixup=1.0, cutmix=1.0).recipe, set()
    for seed in range(20):
        torch.manual_seed(seed)
        found, _ = mixed(PICTURES, LABELS, recipe, CLASSES)
        kinds.add(bool((found == PICTURES).all(dim=1).any()))
    assert kinds == {True, False}


def test_a_mixed_row_weighs_its_classes_in_their_shares() -> None:
    weights = torch.tensor([1.0, 2.0, 4.0])
    assert weight_of(torch.tensor([2, 0]), weights).tolist() == [4.0, 1.0]
    assert weight_of(torch.tensor([[0.25, 0.0, 0.75]]), weights).tolist() == [3.25]
