"""One name for all commands, and what is installed with it."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

import spine_ray
from spine_ray.__main__ import COMMANDS, main
from tests.support.patience import PATIENCE_S

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

HELPS = """
import sys
from spine_ray.__main__ import main
try:
    main(["search", "--help"])
finally:
    print(*sys.modules)
"""


def left_with(*words: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(words)
    return int(left.value.code or 0)


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_every_command_is_listed_with_what_its_module_says_of_it(capsys) -> None:
    assert left_with("--help") == 0
    listed = capsys.readouterr().out.splitlines()
    for command, told in COMMANDS.items():
        documentation = ast.get_docstring(ast.parse((ROOT / "spine_ray" / f"{command}.py").read_text())) or ""
        assert documentation.removesuffix(".") == f"`python -m spine_ray.{command}`: {told}"
        assert f"  {command:<7}  {told}" in listed


def test_every_module_with_a_main_is_a_command() -> None:
    assert set(COMMANDS) == {path.stem for path in (ROOT / "spine_ray").glob("[!_]*.py")}


@pytest.mark.parametrize("command", COMMANDS)
def test_words_and_exit_codes_are_passed_on(command: str, monkeypatch) -> None:
    seen: list[list[str]] = []
    stand_in = SimpleNamespace(main=lambda words: seen.append(words) or 130)
    monkeypatch.setitem(sys.modules, f"spine_ray.{command}", stand_in)
    assert main([command, "--version", "--help", "check"]) == 130
    assert seen == [["--version", "--help", "check"]]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["serch", "--space", "smoke"], "there is no command 'serch'; the commands are "),
        ([], "a command is missing; the commands are "),
        (["Search"], "there is no command 'Search'; the commands are "),
    ],
)
def test_what_is_no_command_is_answered_in_a_line_that_names_them(words: list[str], why: str, capsys) -> None:
    assert left_with(*words) == 2
    told = capsys.readouterr()
    assert told.err == f"error: {why}{', '.join(COMMANDS)} (see spine-ray --help)\n"
    assert told.out == ""


def test_an_unknown_option_is_a_line(capsys) -> None:
    assert left_with("--space") == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --space (see spine-ray --help)\n"


def test_the_version_is_the_projects(capsys) -> None:
    assert left_with("--version") == 0
    assert capsys.readouterr().out == f"spine-ray {PROJECT['project']['version']}\n"
    assert spine_ray.__version__ == PROJECT["project"]["version"]


def test_the_package_runs_as_a_module() -> None:
    done = run("-m", "spine_ray", "serch")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: there is no command 'serch'")


def test_the_help_of_a_command_loads_nothing_heavy() -> None:
    done = run("-c", HELPS)
    assert done.returncode == 0
    assert "--space NAME_OR_FILE" in done.stdout
    assert not {"torch", "timm", "ray", "mlflow"} & set(done.stdout.splitlines()[-1].split())


def test_every_room_and_every_file_of_the_spaces_is_packed() -> None:
    packing = PROJECT["tool"]["setuptools"]
    rooms = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "spine_ray").rglob("__init__.py")}
    assert set(packing["packages"]) == rooms | {"spine_ray.search_spaces"}
    spaces = ROOT / packing["package-dir"]["spine_ray.search_spaces"]
    packed = {file for pattern in packing["package-data"]["spine_ray.search_spaces"] for file in spaces.glob(pattern)}
    assert packed == {file for file in spaces.rglob("*") if file.is_file()}
