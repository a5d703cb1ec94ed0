"""Every benchmark command runs at its tiny size and prints a result. Commands are found, so none can be forgotten."""

import ast
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
SLOWNESS = 4.5
"""A machine may be so much slower, by itself or because others use it, than one on which a command has a minute."""
LIMIT_S = 60.0 * SLOWNESS


def has_main(module: Path) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in ast.parse(module.read_text()).body)


COMMANDS = [path.stem for path in sorted((ROOT / "benchmarks").glob("*.py")) if has_main(path)]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_quick_run_ends_with_finite_numbers(name: str, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    out = run([sys.executable, "-m", f"benchmarks.{name}", "--quick"], tmp_path / "here", tmp_path / "cache")
    found = json.loads(out.splitlines()[-1])
    assert isinstance(found, dict)
    numbers = list(numbers_in(found))
    assert numbers
    assert all(map(math.isfinite, numbers)), found
    assert not list((tmp_path / "here").iterdir())


def run(command: list[str], cwd: Path, cache: Path) -> str:
    """Return what a command prints, and leave none of its processes behind where it takes too long."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPINE_RAY_CACHE": str(cache)}
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as running:
        try:
            out, told = running.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            raise
    assert running.returncode == 0, told[-4000:]
    return out


def numbers_in(value: Any) -> Iterator[float]:
    """Yield every number of a JSON value, however deep."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers_in(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)
