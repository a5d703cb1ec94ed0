import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from spine_ray.core.activations import open_inputs
from spine_ray.core.backbone import make_model
from spine_ray.core.fit import Fit
from spine_ray.core.linear_head import LinearHead
from spine_ray.core.network import CHUNK, Network, as_half
from spine_ray.core.trial import TrialRun
from spine_ray.space.arithmetic import ALL, FLOAT32, Arithmetic

ROWS = np.arange(40)
PARTLY = {"test_resnet": 0.5, "test_efficientnet": 0.75, "test_vit": 0.5}


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(40)


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, model):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def trained(network, config, task):
    """Train the network's learner for an epoch and return it."""
    learner = network.learner(config.recipe.batch_size)
    inputs = open_inputs(config.recipe, network, task, ROWS)
    Fit(config.recipe, task, ROWS, 0, learner, inputs).train_epoch(0)
    return learner


@pytest.mark.parametrize("freeze", ["none", "part", "all"])
@pytest.mark.parametrize("backbone", PARTLY)
def test_a_network_returns_to_its_initial_weights(backbone, freeze, task, trial_config, make_setup):
    config = trial_config(backbone, freeze={"none": 0.0, "part": PARTLY[backbone], "all": 0.99}[freeze], lr=0.01)
    network = Network(config, 10, 0, make_setup())
    before = state_of(network.model)
    trained(network, config, task)
    moved = changed(before, network.model)
    assert {name.rpartition(".")[2] for name in moved} >= {"weight", "bias"}
    has_batch_norm = freeze != "all" and backbone != "test_vit"
    assert any(name.endswith("running_mean") for name in moved) == has_batch_norm
    assert any(name.endswith("num_batches_tracked") for name in moved) == has_batch_norm
    network.learner(16)
    assert changed(before, network.model) == set()


def test_every_fold_begins_with_the_same_weights_whatever_was_trained_before(task, trial_config, make_setup):
    config = trial_config(freeze=0.5, lr=0.01)
    network = Network(config, 10, 0, make_setup())
    first = state_of(trained(network, config, task).model)
    assert changed(first, trained(network, config, task).model) == set()


@pytest.mark.parametrize("backbone", PARTLY)
def test_what_is_frozen_stays_in_eval_mode_and_as_it_was_while_the_rest_is_trained(
    backbone, task, trial_config, make_setup
):
    config = trial_config(backbone, freeze=PARTLY[backbone], lr=0.01)
    network = Network(config, 10, 0, make_setup())
    before, modes = state_of(network.model), {}
    for name, module in network.model.named_modules():
        module.register_forward_hook(lambda module, *_, name=name: modes.setdefault(name, set()).add(module.training))
    trained(network, config, task)
    frozen = {name for name, each in network.model.named_parameters() if not each.requires_grad}
    assert frozen
    for name, module in network.model.named_modules():
        own = {f"{name}.{each}" for each, _ in module.named_parameters()}
        if own and own <= frozen:
            assert not module.training
            assert modes.get(name, {False}) == {False}
    norms = (nn.BatchNorm2d, nn.LayerNorm)
    assert any(True in modes.get(name, ()) for name, each in network.model.named_modules() if isinstance(each, norms))
    prefix = set(network.split.prefix.state_dict())
    assert prefix
    assert not changed(before, network.model) & prefix


def test_a_whole_model_has_no_prefix(trial_config, make_setup):
    network = Network(trial_config(), 10, 0, make_setup())
    assert network.split is None
    assert network.whole_because == ""
    assert network.trained_part is network.model
    assert network.prefix_hash() == ""
    with pytest.raises(ValueError, match="test_resnet has no frozen prefix: nothing is frozen"):
        network.activations(pictures(1))


def pictures(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (rows, 3, 32, 32), generator=generator).to(torch.uint8)


@pytest.mark.parametrize("arithmetic", ALL, ids=str)
def test_a_network_lies_as_its_arithmetic_says(arithmetic, trial_config, make_setup):
    network = Network(trial_config(freeze=0.5), 10, 0, make_setup(arithmetic=arithmetic))
    kernel = network.model.conv1[0].weight
    is_last = arithmetic.memory_format == "channels_last"
    assert kernel.is_contiguous(memory_format=torch.channels_last) == is_last
    images = network.images(pictures(2))
    assert images.is_contiguous(memory_format=torch.channels_last) == is_last
    # test_resnet wants a mean and a deviation of a half.
    np.testing.assert_allclose(images.numpy(), (pictures(2).numpy() / 255 - 0.5) / 0.5, atol=1e-6)
    assert network.activations(pictures(2)).dtype == torch.float32
    assert {each.dtype for each in network.model.parameters()} == {torch.float32}


@pytest.mark.parametrize("rows", [1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_a_prefix_is_always_given_whole_chunks_and_answers_for_each_row(rows, trial_config, make_setup):
    network = Network(trial_config(freeze=0.5), 10, 0, make_setup())
    seen = []
    network.split.prefix.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    activations = network.activations(pictures(rows))
    assert seen == [CHUNK] * -(-rows // CHUNK)
    assert len(activations) == rows
    assert not activations.requires_grad
    with torch.no_grad():
        alone = network.split.prefix(network.images(pictures(rows)))
    torch.testing.assert_close(activations, alone, rtol=1e-5, atol=1e-5)


def solved(classes, features, seed=0):
    draw = np.random.default_rng(seed)
    weight = draw.normal(size=(classes, features)).astype(np.float32)
    return LinearHead(weight=weight, bias=draw.normal(size=classes).astype(np.float32))


@pytest.mark.parametrize("freeze", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("backbone", PARTLY)
def test_a_head_that_is_put_in_says_on_pictures_what_it_says_on_their_features(
    backbone, freeze, trial_config, make_setup
):
    network = Network(trial_config(backbone, freeze=freeze), 10, 0, make_setup())
    head = solved(10, network.feature_count)
    network.put_head(head)
    with torch.no_grad():
        whole = network.model(network.images(pictures(5))).numpy()
    expected = head.logits(network.features(pictures(5).numpy()))
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-4)


def test_a_head_that_was_put_in_is_gone_when_a_learner_begins_anew(trial_config, make_setup):
    network = Network(trial_config(), 10, 0, make_setup())
    before = state_of(network.model)
    network.put_head(solved(10, network.feature_count))
    assert changed(before, network.model) == {"fc.weight", "fc.bias"}
    network.learner(16)
    assert changed(before, network.model) == set()


@pytest.mark.parametrize(("classes", "features"), [(9, 96), (10, 95)])
def test_a_head_of_another_shape_is_refused(classes, features, trial_config, make_setup):
    network = Network(trial_config(), 10, 0, make_setup())
    with pytest.raises(ValueError, match="test_resnet has no linear classifier of the shape"):
        network.put_head(solved(classes, features))


def test_features_do_not_depend_on_neighbours_or_freeze_depth(trial_config, make_setup):
    whole, frozen = (Network(trial_config(freeze=freeze), 10, 0, make_setup()) for freeze in (0.0, 1.0))
    given = pictures(CHUNK + 3).numpy()
    expected = whole.features(given)
    assert expected.shape == (CHUNK + 3, whole.feature_count)
    np.testing.assert_array_equal(frozen.features(given), expected)
    np.testing.assert_array_equal(whole.features(given[7:8]), expected[7:8])
    assert whole.features_hash() == frozen.features_hash()


class Deciding(nn.Module):
    """What it computes depends on what it sees, so that it cannot be traced."""

    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 4, 8, stride=8), nn.Linear(4, 10)

    def forward(self, images):
        features = self.stem(images).mean(dim=(2, 3))
        return self.head(features if features.mean() > 0 else -features)

    def get_classifier(self):
        return self.head

    def group_matcher(self, coarse):
        return {"stem": r"^stem"}


class Fickle(Deciding):
    """It says something else each time."""

    calls = 0

    def forward(self, images):
        self.calls += 1
        return self.head(self.stem(images * self.calls).mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [(Deciding, "it cannot be traced (TraceError)"), (Fickle, "its parts say something else than the whole")],
)
def test_a_model_that_cannot_be_split_runs_whole_and_says_why(
    kind, reason, task, trial_config, monkeypatch, make_setup
):
    monkeypatch.setattr("spine_ray.core.network.make_model", lambda *_, **__: kind())
    config = trial_config(freeze=0.99, lr=0.01)
    network = Network(config, 10, 0, make_setup(activation_bytes=10**9))
    assert network.whole_because == reason
    assert network.split is None
    assert network.trained_part is network.model
    before = state_of(network.model)
    folds = (ROWS % 2).astype(np.int8)
    run = TrialRun(config, task, folds, network, 2)
    while not run.is_done:
        record = run.next_epoch()
        assert record.note == reason
    assert changed(before, network.model) == {"head.weight", "head.bias"}
    assert np.isfinite(run.oof_logits()).all()
    assert (record.fold, record.views) == (1, 2)


def test_a_classifier_that_is_not_one_linear_layer_cannot_be_probed(trial_config, monkeypatch, make_setup):
    class Normed(Deciding):
        def __init__(self):
            super().__init__()
            self.head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 10))

        def forward(self, images):
            return self.head(self.stem(images).mean(dim=(2, 3)))

    monkeypatch.setattr("spine_ray.core.network.make_model", lambda *_, **__: Normed())
    network = Network(trial_config(freeze=1.0), 10, 0, make_setup())
    assert network.split is not None
    assert not network.can_be_probed
    with pytest.raises(ValueError, match="cannot be probed: its classifier is not one linear layer with a bias"):
        _ = network.feature_count


@pytest.fixture
def weights(tmp_path):
    """Return a function that writes a weights file, with the first tensor's first number changed by so much."""

    def write(by):
        torch.manual_seed(5)
        model = make_model("test_resnet", 32, 0)
        with torch.no_grad():
            model.conv1[0].weight.view(-1)[0] += by
        path = tmp_path / f"{by}.safetensors"
        save_file(model.state_dict(), path)
        return path

    return write


@pytest.fixture
def hash_of(make_setup):
    return lambda config, seed=0, **setup: Network(config, 10, seed, make_setup(**setup)).prefix_hash()


def test_the_prefix_hash_is_the_same_for_whatever_does_not_touch_the_prefix(hash_of, trial_config):
    config = trial_config("test_vit", freeze=0.5)
    expected = hash_of(config)
    assert expected == hash_of(config)
    for other in (
        {"lr": 0.5},
        {"drop_path": 0.3},
        {"epochs": 7, "batch_size": 4, "label_smoothing": 0.2},
        {"crop_area_min": 0.3, "symmetry": "mirror"},
    ):
        assert hash_of(trial_config("test_vit", freeze=0.5, **other)) == expected
    assert hash_of(config, activation_bytes=10**9) == expected


def test_the_prefix_hash_is_the_same_before_and_after_training(task, trial_config, make_setup):
    config = trial_config(freeze=0.5, lr=0.01)
    network = Network(config, 10, 0, make_setup())
    before = network.prefix_hash()
    trained(network, config, task)
    assert network.prefix_hash() == before


def test_whatever_touches_the_prefix_changes_its_hash(hash_of, trial_config, weights):
    config = trial_config(freeze=0.5)
    hashes = [
        hash_of(config),
        hash_of(config, seed=1),
        hash_of(config, weights=weights(0.0)),
        hash_of(config, weights=weights(1e-3)),
        hash_of(trial_config(freeze=0.75)),
        hash_of(trial_config(freeze=0.99)),
        hash_of(trial_config(resolution=48, freeze=0.5)),
        hash_of(trial_config("test_efficientnet", freeze=0.5)),
        *(hash_of(config, arithmetic=each) for each in ALL if each != FLOAT32),
    ]
    assert len(set(hashes)) == len(hashes)


def test_two_files_of_the_same_weights_are_the_same_prefix(hash_of, trial_config, weights, tmp_path):
    config = trial_config(freeze=0.5)
    one = weights(0.0)
    other = one.rename(tmp_path / "other.safetensors")
    assert hash_of(config, weights=other) == hash_of(config, weights=weights(0.0))


def test_what_the_process_drew_before_is_no_part_of_a_network(trial_config, make_setup):
    one = Network(trial_config(), 10, 0, make_setup())
    torch.manual_seed(99)
    other = Network(trial_config(), 10, 0, make_setup())
    assert changed(state_of(one.model), other.model) == set()
    assert changed(state_of(one.model), Network(trial_config(), 10, 1, make_setup()).model) != set()


def test_half_precision_ends_where_its_range_ends():
    given = torch.tensor([0.0, -1.5, 65504.0, 65519.0, 7e4, 1e30, torch.inf, -7e4, -torch.inf, 1e-9, 1 / 3])
    expected = [0.0, -1.5, 65504.0, 65504.0, 65504.0, 65504.0, 65504.0, -65504.0, -65504.0, 0.0]
    half = as_half(given)
    assert half.dtype == torch.float16
    assert half[:-1].tolist() == expected
    assert half[-1].item() == float(np.float16(np.float32(1 / 3)))


def test_half_precision_rounds_as_numpy_does():
    given = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * 100
    np.testing.assert_array_equal(as_half(given).numpy(), given.numpy().astype(np.float16))


def test_arithmetic_is_a_setup_and_not_a_guess(trial_config, make_setup):
    network = Network(trial_config(freeze=0.5), 10, 0, make_setup(arithmetic=Arithmetic("bfloat16", "contiguous")))
    plain = Network(trial_config(freeze=0.5), 10, 0, make_setup())
    rough, exact = network.activations(pictures(4)), plain.activations(pictures(4))
    assert torch.equal(rough, rough.bfloat16().float())
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05 * float(exact.abs().max()))
