"""Every module of the benchmarks imports. That they run, too, is a drill: tests/drills/benchmarks."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "benchmarks").glob("*.py"))


@pytest.mark.timeout(180)
def test_every_module_imports() -> None:
    # In a process of its own: they set variables and load a ray that other tests do without.
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    names = [f"benchmarks.{path.stem}" for path in MODULES]
    done = subprocess.run([sys.executable, "-c", code, *names], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_run_has_a_main_by_which_the_drill_finds_it() -> None:
    for module in MODULES:
        tree = ast.parse(module.read_text())
        is_run = any(isinstance(node, ast.If) and "__main__" in ast.dump(node.test) for node in tree.body)
        has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        assert is_run == has_main, module
