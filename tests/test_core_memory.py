from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spine_ray.core.fit import Fit
from spine_ray.core.inputs import pictures_for
from spine_ray.core.memory import Portion, forget_peak, is_out_of_memory, peak_memory_mb
from spine_ray.core.network import Network

CPU = torch.device("cpu")
LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")


def work_that_fits(most, tried):
    """Return work that notes what it was asked for and finds memory for so many rows."""

    def work(rows):
        tried.append(rows)
        if rows > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return rows

    return work


@pytest.mark.parametrize(
    ("rows", "most", "expected"),
    [
        (16, 16, [16]),
        (16, 5, [16, 8, 4]),
        (16, 1, [16, 8, 4, 2, 1]),
        (25, 4, [25, 13, 7, 4]),
        (3, 2, [3, 2]),
        (1, 1, [1]),
    ],
)
def test_a_portion_is_halved_until_it_fits(rows, most, expected):
    portion, tried = Portion(rows), []
    assert portion.run(work_that_fits(most, tried)) == expected[-1]
    assert tried == expected
    assert portion.run(work_that_fits(most, tried)) == expected[-1]
    assert tried == [*expected, expected[-1]]
    assert portion.rows == expected[-1]


@pytest.mark.parametrize(("rows", "least", "expected"), [(16, 2, [16, 8, 4, 2]), (7, 2, [7, 4, 2]), (9, 6, [9, 6])])
def test_a_portion_is_never_less_than_the_least(rows, least, expected):
    portion, tried = Portion(rows, least), []
    with pytest.raises(torch.OutOfMemoryError):
        portion.run(work_that_fits(0, tried))
    assert tried == expected


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, KeyboardInterrupt, MemoryError])
def test_any_other_error_passes_at_once(kind):
    portion, tried = Portion(8), []

    def work(rows):
        tried.append(rows)
        raise kind("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(kind, match="mat1 and mat2"):
        portion.run(work)
    assert tried == [8]
    assert portion.rows == 8


def test_what_did_not_fit_is_let_go_before_the_next_try():
    alive = []

    class Held:
        def __init__(self):
            alive.append(self)

        def __del__(self):
            gone.append(1)

    gone = []

    def work(rows):
        held = Held()
        alive.clear()
        if rows > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return (len(gone), held is not None)

    assert Portion(8).run(work) == (2, True)


def test_only_a_lack_of_memory_is_a_lack_of_memory():
    told = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"
    assert is_out_of_memory(RuntimeError(told))
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("can't allocate memory"))


class Small(nn.Module):
    """Memory for so many rows at once, and a norm, or none, before the classifier."""

    def __init__(self, most, norm):
        super().__init__()
        torch.manual_seed(0)
        self.most, self.seen = most, []
        self.stem, self.norm, self.head = nn.Conv2d(3, 4, 8, stride=8), norm, nn.Linear(4, 10)

    def forward(self, images):
        self.seen.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.head(self.norm(self.stem(images).mean(dim=(2, 3))))

    def get_classifier(self):
        return self.head

    def group_matcher(self, coarse):
        return {"stem": r"^stem|norm"}


@pytest.fixture(scope="module")
def task(digits_task):
    return digits_task(60)


@pytest.fixture
def fit_in(task, trial_config, make_setup, monkeypatch):
    """Return a function that makes a fit on so many rows of a small model, and the model."""

    def make(most, norm, *, rows=10, learnt=task, **recipe):
        model = Small(most, norm)
        monkeypatch.setattr("spine_ray.core.network.make_model", lambda *_, **__: model)
        config = trial_config(batch_size=rows, lr=0.01, **recipe)
        network = Network(config, learnt.classes, 0, make_setup())
        inputs = pictures_for(config.recipe, network, learnt)
        return Fit(config.recipe, learnt, np.arange(rows), 0, network.learner(rows), inputs), model

    return make


@pytest.mark.parametrize("most", [1, 2, 3, 9])
@pytest.mark.parametrize("weighting", ["none", "balanced"])
def test_accumulated_gradients_are_those_of_the_whole_batch(most, weighting, fit_in, task):
    uneven = replace(task, labels=np.minimum(task.labels, 4))
    settings = {"label_smoothing": 0.1, "class_weighting": weighting, "learnt": uneven}
    expected, whole = fit_in(10, nn.Identity(), **settings)
    found, parts = fit_in(most, nn.Identity(), **settings)
    assert found.train_epoch(0).train_loss == pytest.approx(expected.train_epoch(0).train_loss, rel=1e-6)
    for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)
    assert found.micro_batch <= most
    assert expected.micro_batch == 10


@pytest.mark.parametrize(("rows", "most"), [(10, 3), (10, 2), (25, 4), (50, 7), (5, 4)])
def test_trained_batch_norm_never_sees_a_row_alone(rows, most, fit_in):
    fit, model = fit_in(most, nn.BatchNorm1d(4), rows=rows)
    assert np.isfinite(fit.train_epoch(0).train_loss)
    assert min(model.seen) > 1
    assert "its batch-norm saw fewer rows at once, which is another training" in fit.note


def test_less_than_two_rows_are_not_tried_where_batch_norm_is_trained(fit_in):
    fit, model = fit_in(1, nn.BatchNorm1d(4))
    with pytest.raises(torch.OutOfMemoryError):
        fit.train_epoch(0)
    assert model.seen[-1] == 2


def test_scoring_in_too_little_memory_says_the_same(fit_in):
    rows = np.arange(60)
    expected = fit_in(60, nn.Identity())[0].logits(rows)
    fit, model = fit_in(20, nn.Identity())
    np.testing.assert_allclose(fit.logits(rows), expected, rtol=1e-5, atol=1e-6)
    assert max(model.seen) == 60
    assert model.seen[-1] <= 20
    assert fit.note == ""


def test_peak_memory_is_this_process_in_megabytes():
    # A Python process with torch holds more than 50 MB and less than 50 GB.
    assert 50 < peak_memory_mb(CPU) < 50_000


@LINUX
def test_a_peak_is_seen_and_then_forgotten():
    forget_peak(CPU)
    before = peak_memory_mb(CPU)
    held = torch.ones(75_000_000)  # 300 MB
    assert peak_memory_mb(CPU) - before > 250
    del held
    high = peak_memory_mb(CPU)
    assert high - before > 250
    forget_peak(CPU)
    assert high - peak_memory_mb(CPU) > 200
