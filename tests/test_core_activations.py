import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spine_ray.core.activations import StoredActivations, open_inputs
from spine_ray.core.cache import GB, SUM_BYTES
from spine_ray.core.inputs import Activations, Pictures, pictures_for
from spine_ray.core.network import CHUNK
from spine_ray.core.pixels import PixelFile
from spine_ray.core.task import Task
from spine_ray.core.trial import TrialRun
from spine_ray.core.views import image_keys
from spine_ray.space.arithmetic import ALL
from tests.support.activation_claims import (
    CHUNKS,
    DEV,
    FOLD_OF,
    FOLDS,
    PLENTY,
    ROWS,
    assert_storage_changes_no_bit,
    files,
    run_all,
    run_trial,
)
from tests.support.backbones import TINY

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("SPINE_RAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPINE_RAY_CACHE_GB", raising=False)
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(ROWS)


@pytest.fixture
def trial(task, make_network):
    """Return a function that runs a trial with so much room: its OOF logits, records and passes of the prefix."""
    return lambda config, room: run_trial(make_network(config, task, activation_bytes=room), config, task)


@pytest.fixture
def opened(task, make_network):
    """Return a function that opens the inputs of a configuration, with room for so many views."""

    def make(config, *, views=1000, rows=DEV, learnt=task, **setup):
        network = make_network(config, learnt)
        shape = network.activations(pictures_for(config.recipe, network, learnt).scoring_view(rows[:1])).shape[1:]
        room = (views + 1) * len(rows) * int(np.prod(shape)) * 2
        network = make_network(config, learnt, activation_bytes=room, **setup)
        return open_inputs(config.recipe, network, learnt, rows)

    return make


def entries(cache):
    return {path.name for path in cache.glob("activations/*") if path.is_dir()}


@pytest.mark.parametrize("freeze", [0.75, 0.99])
@pytest.mark.parametrize("backbone", TINY)
def test_keeping_activations_changes_no_bit_of_the_oof_logits(
    backbone, freeze, task, trial_config, make_network, cache
):
    config = trial_config(backbone, freeze=freeze, epochs=2, batch_size=18, symmetry="mirror")
    assert_storage_changes_no_bit(config, task, make_network, cache)


@pytest.mark.parametrize("arithmetic", ALL, ids=str)
@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_vit"])
def test_nor_does_it_in_any_other_arithmetic(backbone, arithmetic, task, trial_config, make_network):
    config = trial_config(backbone, freeze=0.5, symmetry="mirror")
    logits = []
    for room in (0, PLENTY):
        run = TrialRun(
            config, task, FOLD_OF, make_network(config, task, arithmetic=arithmetic, activation_bytes=room), FOLDS
        )
        run_all(run)
        logits.append(run.oof_logits())
    np.testing.assert_array_equal(*logits)


def test_another_trial_on_the_same_prefix_computes_nothing_of_it_again(trial, trial_config):
    logits, _, calls = trial(trial_config(freeze=0.75), PLENTY)
    assert calls == 1 + CHUNKS * 3
    others = [{"lr": 0.01}, {"batch_size": 8, "label_smoothing": 0.1}, {"epochs": 1}]
    for recipe in others:
        other, _, calls = trial(trial_config(freeze=0.75, **recipe), PLENTY)
        assert calls == 1  # a look at what the activations are like
        assert not np.array_equal(other, logits)
    more, _, calls = trial(trial_config(freeze=0.75, epochs=3), PLENTY)
    assert calls == 1 + CHUNKS
    np.testing.assert_array_equal(more, trial(trial_config(freeze=0.75, epochs=3), 0)[0])


@pytest.mark.parametrize(
    ("backbone", "arithmetic", "axes"),
    [
        ("test_resnet", "channels_last", (0, 2, 3, 1)),
        ("test_resnet", "contiguous", (0, 1, 2, 3)),
        ("test_vit", "channels_last", (0, 1, 2)),
    ],
)
def test_a_file_is_one_view_of_all_rows_in_half_precision_as_it_lies_in_memory(
    backbone, arithmetic, axes, task, trial_config, make_network, cache
):
    config = trial_config(backbone, freeze=0.5, symmetry="mirror")
    chosen = next(each for each in ALL if each.precision == "float32" and each.memory_format == arithmetic)
    network = make_network(config, task, activation_bytes=PLENTY, arithmetic=chosen)
    inputs = open_inputs(config.recipe, network, task, DEV)
    inputs.training(DEV[:1], 1)
    inputs.scoring(DEV[:1])
    pictures = pictures_for(config.recipe, network, task)
    for name, view in (("view-001.npy", pictures.training_view(DEV, 1)), ("scoring.npy", pictures.scoring_view(DEV))):
        expected = network.activations(view).numpy().astype(np.float16).transpose(axes)
        stored = np.load(files(cache)[name])
        assert stored.dtype == np.float16
        np.testing.assert_array_equal(stored, expected)
        assert files(cache)[name].stat().st_size == expected.nbytes + 128 + SUM_BYTES


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit"])
def test_stored_activations_are_those_that_are_computed_in_the_order_of_the_rows(backbone, opened, trial_config):
    inputs = opened(trial_config(backbone, freeze=0.5, symmetry="mirror"))
    assert isinstance(inputs, StoredActivations)
    computed = inputs._computed
    for rows in (DEV[:1], DEV[::-1], np.random.default_rng(1).permutation(DEV), DEV[[3, 3, 1]]):
        for epoch in (0, 1, 3):
            stored = inputs.training(rows, epoch)
            assert torch.equal(stored, computed.training(rows, epoch))
            assert stored.stride() == computed.training(rows, epoch).stride()
        assert torch.equal(inputs.scoring(rows), computed.scoring(rows))


def embedding(config, task, make_network, *, scale):
    """A network whose frozen part is one convolution, scaled."""
    network = make_network(config, task, activation_bytes=PLENTY)
    with torch.no_grad():
        network.model.patch_embed.proj.weight.mul_(scale)
        network.model.patch_embed.proj.bias.zero_()
    return network


def test_activations_beyond_half_precision_are_kept_whole(task, trial_config, make_network, cache):
    config = trial_config("test_vit", freeze=0.12)
    network = embedding(config, task, make_network, scale=1e6)
    inputs = open_inputs(config.recipe, network, task, DEV)
    expected = network.activations(pictures_for(config.recipe, network, task).training_view(DEV, 0))
    assert expected.abs().max() > 65504
    assert torch.equal(inputs.training(DEV, 0), expected)
    assert np.load(files(cache)["view-000.npy"]).dtype == np.float32
    logits = []
    for room in (0, PLENTY):
        network.setup = replace(network.setup, activation_bytes=room)
        run = TrialRun(config, task, FOLD_OF, network, FOLDS)
        run_all(run)
        logits.append(run.oof_logits())
    np.testing.assert_array_equal(*logits)


def test_what_the_first_chunk_did_not_announce_is_held_at_the_end_of_the_range(trial_config, make_network, cache):
    # Grey pictures are close to 0, a white one is 255 times as far from it.
    colour = np.full(CHUNK + 1, 127, np.uint8)
    colour[-1] = 255
    rows, size = np.arange(CHUNK + 1), np.full(CHUNK + 1, 32)
    pixels = PixelFile(Path(), rows * 3072, size, size, np.repeat(colour, 3072))
    task = Task(pixels=pixels, keys=rows.astype(np.uint64), labels=rows % 10, classes=10, seed=0)
    config = trial_config("test_vit", freeze=0.12)
    network = embedding(config, task, make_network, scale=1.0)
    pictures = pictures_for(config.recipe, network, task)
    largest = float(network.activations(pictures.scoring_view(rows[-1:])).abs().max())
    network = embedding(config, task, make_network, scale=200_000 / largest)
    exact = network.activations(pictures_for(config.recipe, network, task).scoring_view(rows))
    assert exact[-1].abs().max() > 65504
    assert exact[:-1].abs().max() < 16384
    inputs = open_inputs(config.recipe, network, task, rows)
    stored = inputs.scoring(rows)
    assert np.load(files(cache)["scoring.npy"]).dtype == np.float16
    assert torch.equal(stored, exact.clamp(-65504, 65504).half().float())
    assert stored.abs().max() == 65504
    assert torch.equal(stored, inputs._computed.scoring(rows))


@pytest.mark.parametrize("views", [3, 4])
def test_where_room_is_short_there_are_fewer_views_and_they_take_turns(views, task, trial_config, opened, cache):
    inputs = opened(trial_config(freeze=0.75, epochs=6), views=views)
    assert inputs.views == views
    assert inputs.note == ""
    exact = pictures_for(trial_config(epochs=6).recipe, inputs._computed.pictures.network, task)
    for epoch in range(6):
        batch = inputs.training(DEV, epoch)
        view = inputs._computed.pictures.network.activations(exact.training_view(DEV, epoch % views))
        assert torch.equal(batch, view.half().float())
    inputs.scoring(DEV)
    assert list(files(cache)) == ["scoring.npy", *(f"view-{view:03d}.npy" for view in range(views))]
    used = sum(path.stat().st_size - 128 - SUM_BYTES for path in files(cache).values())
    assert used <= inputs._computed.pictures.network.setup.activation_bytes


def test_how_many_views_there_were_is_recorded(task, trial_config, make_network, opened):
    config = trial_config(freeze=0.75, epochs=5, batch_size=18)
    network = opened(config, views=4)._computed.pictures.network
    records = run_all(TrialRun(config, task, FOLD_OF, network, 1))
    assert [record.views for record in records] == [4] * 5
    records = run_all(TrialRun(config, task, FOLD_OF, make_network(config, task), 1))
    assert [record.views for record in records] == [5] * 5


@pytest.mark.parametrize("views", [2, 0, -1])
def test_too_few_views_are_not_kept_but_all_are_computed_and_it_is_said(views, trial_config, opened, cache):
    inputs = opened(trial_config(freeze=0.75, epochs=6), views=views)
    assert isinstance(inputs, Activations)
    assert inputs.views == 6
    room = inputs.pictures.network.setup.activation_bytes
    assert inputs.note.startswith("activations not kept: a view takes ") == (room > 0)
    inputs.training(DEV[:2], 5)
    assert entries(cache) == set()


@pytest.mark.parametrize(("freeze", "epochs", "fewest"), [(0.75, 1, 1), (0.75, 3, 2), (0.75, 6, 3), (0.99, 8, 4)])
def test_half_the_epochs_are_views_enough(freeze, epochs, fewest, trial_config, opened):
    assert isinstance(opened(trial_config(freeze=freeze, epochs=epochs), views=fewest), StoredActivations)
    assert isinstance(opened(trial_config(freeze=freeze, epochs=epochs), views=fewest - 1), Activations)


def test_a_model_that_runs_whole_has_pictures_however_much_room_there_is(trial_config, task, make_network, cache):
    config = trial_config()
    inputs = open_inputs(config.recipe, make_network(config, task, activation_bytes=PLENTY), task, DEV)
    assert isinstance(inputs, Pictures)
    assert entries(cache) == set()


def other_keys(task):
    return replace(task, keys=image_keys([str(row) for row in range(ROWS)], 1))


SAME = {
    "labels": ({}, lambda task: replace(task, labels=task.labels[::-1].copy())),
    "learning rate": ({"lr": 0.5}, lambda task: task),
    "epochs": ({"epochs": 4}, lambda task: task),
}
OTHER = {
    "crops": ({"crop_area_min": 0.5}, lambda task: task),
    "symmetry": ({"symmetry": "mirror"}, lambda task: task),
    "freeze": ({"freeze": 0.99}, lambda task: task),
    "backbone": ({"backbone": "test_vit"}, lambda task: task),
    "seed of the views": ({}, other_keys),
    "seed of the weights": ({}, lambda task: replace(task, seed=1)),
    "pictures": ({}, lambda task: replace(task, pixels=replace(task.pixels, folder=Path("elsewhere")))),
}


@pytest.mark.parametrize(("changes", "change"), SAME.values(), ids=SAME)
def test_what_does_not_touch_the_activations_shares_their_entry(changes, change, trial_config, opened, task, cache):
    opened(trial_config(freeze=0.75))
    opened(trial_config(**{"freeze": 0.75, **changes}), learnt=change(task))
    assert len(entries(cache)) == 1


@pytest.mark.parametrize(("changes", "change"), OTHER.values(), ids=OTHER)
def test_what_touches_the_activations_has_an_entry_of_its_own(changes, change, trial_config, opened, task, cache):
    held = opened(trial_config(freeze=0.75))
    other = opened(trial_config(**{"freeze": 0.75, **changes}), learnt=change(task))
    assert held is not other
    assert len(entries(cache)) == 2


def test_other_rows_and_other_arithmetic_have_entries_of_their_own(trial_config, opened, cache):
    config = trial_config(freeze=0.75)
    held = [opened(config), opened(config, rows=DEV[1:]), opened(config, rows=np.arange(ROWS))]
    held += [opened(config, arithmetic=arithmetic) for arithmetic in ALL]  # one of which is that of the others
    assert len(entries(cache)) == len(held) - 1


def written(array):
    def write(path):
        with path.open("wb") as file:
            np.save(file, array)

    return write


def cut_to(keep):
    return lambda path: path.write_bytes(path.read_bytes()[:keep])


DAMAGED = {
    "empty": cut_to(0),
    "header only": cut_to(128),
    "half a header": cut_to(60),
    "last byte missing": cut_to(-1),
    "no array": lambda path: path.write_bytes(b"what is this?" * 1000),
    "other rows": lambda path: written(np.load(path)[1:])(path),
    "other numbers": lambda path: written(np.load(path).astype(np.int16))(path),
    "other precision": lambda path: written(np.load(path).astype(np.float64))(path),
}


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [*DAMAGED.values(), flip_a_byte], ids=[*DAMAGED, "one bit"])
def test_a_file_that_is_not_what_it_should_be_is_computed_anew_before_it_is_used(
    damage, trial_config, opened, cache, caplog
):
    expected = opened(trial_config(freeze=0.75)).scoring(DEV)
    path = files(cache)["scoring.npy"]
    whole = path.read_bytes()
    damage(path)
    assert torch.equal(opened(trial_config(freeze=0.75)).scoring(DEV), expected)
    assert path.read_bytes() == whole
    (told,) = caplog.messages
    assert told == f"{path} is damaged; it is computed anew"


@pytest.mark.parametrize("kept", [0, 1, 2])
@pytest.mark.parametrize("freeze", [0.75, 0.99])
def test_when_the_disk_becomes_full_the_rest_is_computed(freeze, kept, trial, trial_config, cache, monkeypatch):
    config = trial_config(freeze=freeze, epochs=2, batch_size=18)
    expected = trial(config, 0)[0]

    def usage(path):
        return Usage(1000 * GB, 0, 1000 * GB if len(files(cache)) < kept else GB)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    logits, records, _ = trial(config, PLENTY)
    assert len(files(cache)) == kept
    np.testing.assert_array_equal(logits, expected)
    assert "1.0 GB are free on the disk of" in records[-1].note
    assert "set SPINE_RAY_CACHE to a folder on another disk" in records[-1].note
    assert list(cache.glob("activations/*/*.part")) == []


def test_a_cache_that_is_too_small_for_old_entries_loses_them_and_not_what_is_used(
    trial_config, opened, cache, monkeypatch
):
    opened(trial_config(freeze=0.75)).scoring(DEV)
    assert len(files(cache)) == 1
    monkeypatch.setenv("SPINE_RAY_CACHE_GB", "1e-6")
    inputs = opened(trial_config(freeze=0.99))
    assert files(cache) == {}
    inputs.scoring(DEV)
    opened(trial_config("test_vit", freeze=0.99)).scoring(DEV)
    held = {inputs._held.folder.name}
    assert held < entries(cache)  # this is in use, and nobody asks whether it fits
    opened(trial_config("test_vit", freeze=0.75))
    assert held < entries(cache)
    assert len(entries(cache)) == 2
