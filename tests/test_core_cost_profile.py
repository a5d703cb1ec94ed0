import math
from dataclasses import fields

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spine_ray.core.arithmetic import candidates
from spine_ray.core.backbone import facts
from spine_ray.core.cost_profile import Speed, fastest_arithmetic, measure_speed
from spine_ray.core.network import Network
from spine_ray.space.arithmetic import FLOAT32

CPU = torch.device("cpu")
PREFIX_ONLY = ("prefix_images_s", "activation_mb", "prefix_macs", "prefix_params")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """A machine on which nothing was measured yet."""
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path))


@pytest.mark.parametrize("freeze", [0.0, 0.5, 0.99])
def test_what_is_measured_is_a_number_and_fits_together(freeze, trial_config, make_setup):
    speed = measure_speed(trial_config(freeze=freeze, symmetry="mirror"), 10, make_setup())
    for field in fields(Speed):
        value = getattr(speed, field.name)
        if freeze == 0.0 and field.name in PREFIX_ONLY:
            assert not value
        else:
            assert math.isfinite(value)
            assert value > 0
    if freeze == 0.0:
        assert speed.infer_images_s == speed.score_images_s
        assert (speed.prefix_images_s, speed.activation_mb) == (None, None)
        assert (speed.prefix_macs, speed.prefix_params) == (0, 0)
    else:
        seconds = 1 / speed.score_images_s + 1 / speed.prefix_images_s
        assert speed.infer_images_s == pytest.approx(1 / seconds, rel=1e-9)
    assert 50 < speed.peak_mb < 50_000


def test_training_the_head_alone_is_faster_than_training_everything(trial_config, make_setup):
    # Of large pictures: a step of the whole takes far longer than other processes may hold up one of the head.
    configs = [trial_config(resolution=96, freeze=freeze) for freeze in (0.0, 0.99)]
    whole, head = (measure_speed(config, 10, make_setup()) for config in configs)
    assert head.train_images_s > 2 * whole.train_images_s
    assert head.score_images_s > 2 * whole.score_images_s


@pytest.mark.parametrize(
    ("backbone", "freeze", "numbers"),
    [
        ("test_resnet", 0.75, 192 * 2 * 2),
        ("test_resnet", 0.99, 96),
        ("test_vit", 0.75, 5 * 64),  # the class token and 2 x 2 patches of 16 px
        ("test_vit", 0.99, 64),
    ],
)
def test_an_activation_takes_two_bytes_a_number(backbone, freeze, numbers, trial_config, make_setup):
    speed = measure_speed(trial_config(backbone, freeze=freeze), 10, make_setup())
    assert speed.activation_mb == pytest.approx(numbers * 2 / 1e6, rel=1e-12)


@pytest.mark.parametrize("freeze", [0.5, 0.99])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_a_prefix_has_the_multiplications_of_its_layers(backbone, freeze, trial_config, make_setup):
    config, counts = trial_config(backbone, freeze=freeze), []
    split = Network(config, 10, 0, make_setup()).split
    given = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        for part in (split.prefix, split.suffix):
            with FlopCounterMode(display=False) as counter:
                given = part(given)
            counts.append(counter.get_total_flops() // 2)
    assert measure_speed(config, 10, make_setup()).prefix_macs == counts[0]
    assert sum(counts) == facts(backbone, 32, 10).macs


@pytest.mark.parametrize(
    ("backbone", "features"), [("test_resnet", 96), ("test_efficientnet", 256), ("test_vit", 64), ("test_vit2", 64)]
)
def test_all_multiplications_but_the_classifiers_are_the_prefixs(backbone, features, trial_config, make_setup):
    speed = measure_speed(trial_config(backbone, freeze=0.99), 10, make_setup())
    assert speed.prefix_macs == facts(backbone, 32, 10).macs - 10 * features


class Tiny(nn.Module):
    """One convolution and a classifier, and what the two of them are asked to do."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.stem, self.head = nn.Conv2d(3, 4, 8, stride=8), nn.Linear(4, 10)

    def forward(self, images):
        return self.head(self.stem(images).mean(dim=(2, 3)))

    def get_classifier(self):
        return self.head

    def group_matcher(self, coarse):
        return {"stem": r"^stem"}


class Clock:
    """A clock that only the models below move, but for a millisecond a look: no load of the machine does."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 0.001
        return self.now


class Slow(Tiny):
    """It takes so many seconds a row."""

    def __init__(self, seconds, clock):
        super().__init__()
        self.seconds, self.clock = seconds, clock

    def forward(self, images):
        self.seen.append(len(images))
        self.clock.now += self.seconds * len(images)
        return super().forward(images)


class Waiting(Tiny):
    """It takes some milliseconds, others where autocast is on."""

    def __init__(self, plain, autocast, clock):
        super().__init__()
        self.plain, self.autocast, self.clock = plain, autocast, clock

    def forward(self, images):
        self.clock.now += self.autocast if torch.is_autocast_enabled("cpu") else self.plain
        return super().forward(images)


@pytest.fixture
def clock(monkeypatch):
    """Return the clock by which speeds are measured."""
    found = Clock()
    monkeypatch.setattr("spine_ray.core.cost_profile.time", found)
    return found


@pytest.fixture
def made(monkeypatch):
    """Return a function that says which model every network is made of."""

    def use(make):
        for module in ("network", "cost_profile"):
            monkeypatch.setattr(f"spine_ray.core.{module}.make_model", lambda *_, **__: make())

    return use


def test_multiplications_and_bytes_by_hand(made, trial_config, make_setup):
    made(Tiny)
    speed = measure_speed(trial_config(freeze=0.99), 10, make_setup())
    assert speed.prefix_macs == 4 * 4 * 4 * (3 * 8 * 8)  # 4 x 4 places, 4 channels, 3 x 8 x 8 numbers each
    assert speed.activation_mb == 4 * 2 / 1e6


def test_a_slow_model_is_measured_on_few_rows(made, clock, trial_config, make_setup):
    slow = Slow(0.15, clock)
    made(lambda: slow)
    speed = measure_speed(trial_config(batch_size=64), 10, make_setup())
    assert set(slow.seen) == {4}
    assert len(slow.seen) < 10
    assert speed.train_images_s == pytest.approx(1 / 0.15, rel=0.01)
    assert speed.infer_images_s == pytest.approx(1 / 0.15, rel=0.01)


def test_a_fast_model_is_measured_on_whole_batches(made, clock, trial_config, make_setup):
    quick = Slow(0.0, clock)
    made(lambda: quick)
    measure_speed(trial_config(batch_size=48), 10, make_setup())
    assert quick.seen.count(48) > 10
    assert max(quick.seen) == 48


def test_a_probe_needs_no_class_to_have_a_row(trial_config, make_setup):
    config = trial_config(freeze=0.99, batch_size=8, class_weighting="balanced")
    assert measure_speed(config, 100, make_setup()).train_images_s > 0


def test_the_fastest_arithmetic_is_one_that_there_is(trial_config, make_setup):
    assert fastest_arithmetic(trial_config(freeze=0.5, batch_size=8), 10, make_setup()) in candidates(CPU)


@pytest.fixture
def unknown_processor(monkeypatch, tmp_path):
    """Hide what the processor can do: it may have bfloat16."""
    monkeypatch.setattr("spine_ray.core.arithmetic._CPU_FACTS", tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("plain", "autocast", "precision"), [(0.06, 0.01, "bfloat16"), (0.01, 0.06, "float32"), (0.03, 0.03, "float32")]
)
def test_bfloat16_has_to_be_clearly_faster(
    plain, autocast, precision, made, clock, trial_config, make_setup, unknown_processor
):
    made(lambda: Waiting(plain, autocast, clock))
    found = fastest_arithmetic(trial_config(batch_size=4), 10, make_setup())
    assert found.precision == precision
    assert found.memory_format == FLOAT32.memory_format  # which makes no difference here, so the first one stays
