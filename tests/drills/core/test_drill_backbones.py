"""What holds of timm's smallest backbones in the suite holds of those that people use."""

import pytest

from tests.support.activation_claims import ROWS, assert_storage_changes_no_bit
from tests.support.backbones import LADDER
from tests.support.split_claims import SplitClaims


@pytest.mark.parametrize("backbone", LADDER)
class TestSplitOfTheLaddersBackbones(SplitClaims):
    pass


@pytest.mark.parametrize("freeze", [0.5, 0.75])
@pytest.mark.parametrize("backbone", LADDER)
def test_keeping_activations_changes_no_bit_of_the_oof_logits(
    backbone, freeze, digits_task, trial_config, make_network, tmp_path, monkeypatch
):
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path))
    config = trial_config(backbone, freeze=freeze, epochs=2, batch_size=18, symmetry="mirror")
    assert_storage_changes_no_bit(config, digits_task(ROWS), make_network, tmp_path)
