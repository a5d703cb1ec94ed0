"""The shape of the code, executed: layers, sizes, the map in the README."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "spine_ray"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = (
    "climb",
    "tune",
    "track",
    "show",
    "workers",
    "sampling",
    "ship",
    "core",
    "ladder",
    "ensemble",
    "study",
    "data",
    "space",
)
"""From the highest to the lowest."""
FUNCTION_LINES, FILE_LINES, ARGUMENTS = 60, 400, 8


@pytest.mark.timeout(120)
def test_the_layer_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_and_no_file_is_too_long(module: Path) -> None:
    text = module.read_text()
    assert len(text.splitlines()) <= FILE_LINES
    for node in functions(ast.parse(text)):
        assert (node.end_lineno or 0) - node.lineno < FUNCTION_LINES, node.name


def test_only_the_public_selector_takes_many_arguments() -> None:
    many = {
        node.name
        for module in MODULES
        for node in functions(ast.parse(module.read_text()))
        if len(node.args.args) + len(node.args.kwonlyargs) > ARGUMENTS
    }
    assert many == {"select"}


def test_no_test_imports_another_test() -> None:
    """What tests share lies in tests/support, so that a test can be moved or removed alone."""
    for module in sorted((ROOT / "tests").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(module.read_text())))
        imported = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        imported += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        tests = [name for name in imported if name.rpartition(".")[2].startswith("test_")]
        assert tests == [], module


def test_commands_do_not_load_torch_to_parse_their_words() -> None:
    code = "import spine_ray.search, sys; sys.exit('torch' in sys.modules or 'ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=PATIENCE_S)


def test_the_readme_maps_every_module_by_its_first_line() -> None:
    assert readme_map() in (ROOT / "README.md").read_text(), f"the README's map should be:\n{readme_map()}"


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_map_knows_every_room() -> None:
    assert set(ROOMS) == {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def readme_map() -> str:
    lines = ["spine_ray/"]
    for room in [PACKAGE, *(PACKAGE / name for name in ROOMS)]:
        if room != PACKAGE:
            lines.append(f"  {room.name + '/':<20}{first_line(room / '__init__.py')}")
        indent = "  " if room == PACKAGE else "    "
        width = 20 if room == PACKAGE else 18
        lines += [
            f"{indent}{path.name:<{width}}{first_line(path)}"
            for path in sorted(room.glob("*.py"))
            if path.name != "__init__.py"
        ]
    return "\n".join(lines)


def first_line(path: Path) -> str:
    documentation = ast.get_docstring(ast.parse(path.read_text()))
    assert documentation, f"{path} has no docstring"
    return documentation.splitlines()[0].rstrip(".")
