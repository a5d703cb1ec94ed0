import json
import os
import subprocess
import sys

ONE_OF_TWO = """
import hashlib, json, sys
from pathlib import Path

import numpy as np
import torch

from spine_ray.core.activations import open_inputs
from spine_ray.core.network import Network, Setup
from spine_ray.core.pixels import PixelFile
from spine_ray.core.task import Task
from spine_ray.space.arithmetic import FLOAT32
from spine_ray.space.config import Recipe, TrialConfig

torch.set_num_threads(1)
rows, size = np.arange(100), np.full(100, 32)
noise = np.random.default_rng(0).integers(0, 256, 100 * 3072, np.uint8)
pixels = PixelFile(Path(), rows * 3072, size, size, noise)
task = Task(pixels=pixels, keys=rows.astype(np.uint64), labels=rows % 10, classes=10, seed=0)
config = TrialConfig(backbone="test_resnet", resolution=32, freeze=0.75, recipe=Recipe(**json.loads(sys.argv[1])))
setup = Setup(device=torch.device("cpu"), arithmetic=FLOAT32, weights=None, activation_bytes=10**9)
network, calls = Network(config, 10, 0, setup), []
def count(*_):
    calls.append(1)
    if len(calls) == 2:  # after a look at the first chunk: the first chunk of a file
        print("at work", flush=True)
        sys.stdin.readline()
network.split.prefix.register_forward_hook(count)
inputs = open_inputs(config.recipe, network, task, rows)
seen = [inputs.training(rows, epoch) for epoch in range(config.recipe.epochs)] + [inputs.scoring(rows)]
print(json.dumps([len(calls), [hashlib.sha256(each.numpy().tobytes()).hexdigest() for each in seen]]))
"""


def test_two_processes_that_need_the_same_views_share_the_work(trial_config, tmp_path):
    config = trial_config(epochs=5)
    recipe = json.dumps(config.to_dict()["recipe"])
    command = [sys.executable, "-c", ONE_OF_TWO, recipe]
    pipes = {
        "stdin": subprocess.PIPE,
        "stdout": subprocess.PIPE,
        "text": True,
        "env": {**os.environ, "SPINE_RAY_CACHE": str(tmp_path)},
    }
    with subprocess.Popen(command, **pipes) as one, subprocess.Popen(command, **pipes) as other:
        for process in (one, other):
            assert process.stdout.readline() == "at work\n"  # at the same time: neither goes on before both are
        for process in (one, other):
            process.stdin.write("\n")
            process.stdin.flush()
        (calls, seen), (other_calls, other_seen) = (json.loads(each.communicate()[0]) for each in (one, other))
    assert (one.returncode, other.returncode) == (0, 0)
    assert seen == other_seen
    assert len(set(seen)) == 6
    assert len(list(tmp_path.glob("activations/*/*.npy"))) == 6
    # 4 chunks of each of the 6 files, once, and a look by each at the first chunk.
    assert calls + other_calls == 2 + 6 * 4
    assert min(calls, other_calls) >= 1 + 4
