"""Where torch really gets too little memory, what goes through a model at once is halved, and training is the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE_S

LINUX = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
SHORT_OF_MEMORY = """
import contextlib, json, resource, sys
from pathlib import Path

import numpy as np
import torch

from spine_ray.core.fit import Fit
from spine_ray.core.inputs import pictures_for
from spine_ray.core.memory import Portion
from spine_ray.core.network import Network, Setup
from spine_ray.core.pixels import PixelFile
from spine_ray.core.task import Task
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import Recipe, TrialConfig

ROWS, SIDE, MB = 64, 96, 10**6
torch.set_num_threads(1)
# oneDNN crashes where it gets no memory; without it every tensor is torch's own.
torch.backends.mkldnn.set_flags(False)

def bytes_of(name):
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024

@contextlib.contextmanager
def room_for(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (bytes_of("VmSize") + size, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

def portion():
    tried = []
    def work(rows):
        tried.append(rows)
        return len(torch.zeros(rows, MB))  # 4 MB a row
    halved = Portion(64)
    with room_for(100 * MB):
        results = [halved.run(work), halved.run(work)]
    return {"tried": tried, "results": results}

def make_task():
    rows = np.arange(ROWS)
    size = np.full(ROWS, SIDE)
    noise = np.random.default_rng(0).integers(0, 256, ROWS * SIDE * SIDE * 3, np.uint8)
    pixels = PixelFile(Path(), rows * SIDE * SIDE * 3, size, size, noise)
    return Task(pixels=pixels, keys=rows.astype(np.uint64), labels=rows % 3 % 2, classes=2, seed=0)

def train(config, task):
    setup = Setup(device=torch.device("cpu"), arithmetic=FLOAT32, weights=None, activation_bytes=0)
    network = Network(config, 2, 0, setup)
    inputs = pictures_for(config.training, network, task)
    fit = Fit(config.training, task, np.arange(ROWS), 0, network.learner(ROWS), inputs)
    losses = [fit.train_epoch(epoch).train_loss for epoch in range(2)]
    told = {"micro_batch": fit.micro_batch, "note": fit.note, "losses": losses}
    return told, network.model.state_dict()

def training(backbone, recipe):
    config = TrialConfig(backbone=backbone, resolution=SIDE, freeze=0.0, recipe=Recipe(**recipe))
    task = make_task()
    train(config, task)
    before = bytes_of("VmSize")
    told, expected = train(config, task)
    with room_for(4 * (bytes_of("VmPeak") - before) // 10):
        short, found = train(config, task)
    apart = max(float((found[name].float() - expected[name].float()).abs().max()) for name in found)
    return {"plenty": told, "short": short, "apart": apart}

recipe = json.loads(sys.argv[1])
found = {"portion": portion(), "resnet": training("test_resnet", recipe), "convnext": training("test_convnext", recipe)}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def short_of_memory():
    """What a process found that torch really got too little memory in."""
    recipe = {
        **{"epochs": 2, "batch_size": 64, "lr": 1e-3, "layer_decay": 1.0, "head_lr_factor": 1.0, "weight_decay": 0.05},
        **{"warmup_share": 0.0, "label_smoothing": 0.1, "class_weighting": "balanced", "clip_norm": 1.0},
        **{"augment": "light", "crop_area_min": 0.8, "crop_aspect_max": 4 / 3, "symmetry": "none", "color_jitter": 0.0},
        **{"trivial_augment": False, "mixup": 0.0, "cutmix": 0.0, "drop_path": 0.0, "batch_norm": "trained"},
    }
    # Freed tensors go back to the system at once, so that the peak says what a training needs.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", SHORT_OF_MEMORY, json.dumps(recipe)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE_S)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@LINUX
def test_a_portion_is_halved_when_memory_really_runs_out_and_stays_so(short_of_memory):
    # 256, 128 and 64 MB, of 100 MB that there are.
    assert short_of_memory["portion"] == {"tried": [64, 32, 16, 16], "results": [16, 16]}


@LINUX
def test_training_in_too_little_memory_is_the_same_training(short_of_memory):
    found = short_of_memory["convnext"]
    rows = found["short"]["micro_batch"]
    assert rows in (32, 16, 8, 4)
    assert found["short"]["note"] == f"out of memory: gradients of {rows} rows at a time, accumulated to 64"
    assert found["short"]["losses"] == pytest.approx(found["plenty"]["losses"], rel=1e-5)
    assert found["apart"] < 1e-5
    # It is a training: the loss moved further than that.
    assert abs(found["plenty"]["losses"][1] - found["plenty"]["losses"][0]) > 1e-3


@LINUX
def test_where_batch_norm_saw_fewer_rows_the_note_says_so(short_of_memory):
    short = short_of_memory["resnet"]["short"]
    told = f"out of memory: gradients of {short['micro_batch']} rows at a time, accumulated to 64"
    assert short["micro_batch"] < 64
    assert short["note"] == f"{told}; its batch-norm saw fewer rows at once, which is another training"


@LINUX
def test_enough_memory_is_no_news(short_of_memory):
    for backbone in ("resnet", "convnext"):
        assert short_of_memory[backbone]["plenty"]["micro_batch"] == 64
        assert short_of_memory[backbone]["plenty"]["note"] == ""
