"""What `pip install` makes of the checkout: a wheel that searches anywhere, with Ray and MLflow and without."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from spine_ray.data.digits import digits_source
from tests.support.fresh_environment import UV, FreshEnvironment

ROOT = Path(__file__).parents[3]
STUDY = "studies/smoke-pictures"
SMALL = ("--set", "folds=2", "--set", "freeze=1.0")
"""Probes of a few pictures, in seconds."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, by way of the archive of sources, both built from a copy: building leaves files."""
    folder = tmp_path_factory.mktemp("wheel")
    left_out = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "studies", "shared")
    shutil.copytree(ROOT, folder / "checkout", ignore=left_out)
    command = [UV, "build", "-q", "--python", sys.executable, "--out-dir", str(folder / "dist"), "checkout"]
    subprocess.run(command, cwd=folder, check=True, timeout=300)
    (built,) = (folder / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel, tmp_path_factory) -> FreshEnvironment:
    """An environment with the package and what it requires, but Ray, MLflow and what only these require."""
    environment = FreshEnvironment(tmp_path_factory.mktemp("bare"))
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    kept = [each for each in required if not re.match(r"(ray|mlflow)\b", each)]
    assert len(kept) == len(required) - 2
    environment.install(*kept)
    environment.install("--no-deps", str(wheel))
    return environment


@pytest.fixture(scope="module")
def searched(bare, tmp_path_factory) -> Path:
    """A folder far from the checkout in which the installed command has searched, in one process."""
    folder = tmp_path_factory.mktemp("searched")
    write_pictures(folder / "pictures")
    words = ("search", "--space", "smoke", "--data", "pictures", "--workers", "0", *SMALL)
    done = bare.run("spine-ray", *words, cwd=folder)
    (folder / "output").write_text(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def write_pictures(folder: Path) -> None:
    """Some forty pictures each of three digits, as a folder of class folders."""
    source = digits_source()
    for row, picture in enumerate(source.rows[:400]):
        if picture.class_name in "017":
            (folder / picture.class_name).mkdir(parents=True, exist_ok=True)
            (folder / picture.class_name / f"{row}.png").write_bytes(source.reader.read(row, ""))


def files_below(name: str) -> set[str]:
    return {
        str(path.relative_to(ROOT)) for path in (ROOT / name).rglob("*") if path.is_file() and path.suffix != ".pyc"
    }


@pytest.mark.timeout(300)
def test_the_wheel_holds_the_package_and_the_spaces_and_nothing_else(wheel) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        for name in files_below("search_spaces"):
            assert archive.read(f"spine_ray/{name}") == (ROOT / name).read_bytes()
    assert names == files_below("spine_ray") | {f"spine_ray/{name}" for name in files_below("search_spaces")}
    assert wheel.stat().st_size < 16e6


@pytest.mark.timeout(1500)
def test_it_searches_without_ray_and_without_mlflow(bare, searched) -> None:
    check = "import importlib.util as u; print([n for n in ('ray', 'mlflow', 'tests', 'benchmarks') if u.find_spec(n)])"
    assert bare.run("python", "-c", check, cwd=searched).stdout == "[]\n"
    output = (searched / "output").read_text()
    assert "tracking is off: MLflow is not installed\n" in output
    assert re.search(r"^Use .* on\s24\stest\srows", output, re.MULTILINE | re.DOTALL), output
    assert (searched / STUDY / "report.html").exists()


@pytest.mark.timeout(300)
def test_what_is_asked_of_a_study_needs_neither(bare, searched) -> None:
    for words, told in (
        (("select", STUDY, "--show"), "best single"),
        (("report", STUDY, "--out", "page.html"), "page.html"),
        (("export", STUDY, "--out", "bundle"), "  no MLflow model: MLflow is not installed\n"),
        (("predict", "bundle", "--images", "pictures", "--out", "found.csv"), "121 pictures"),
        (("check", "--data", "pictures", "--weights", "random"), "checks/pictures/audit.json"),
    ):
        done = bare.run("spine-ray", *words, cwd=searched)
        assert (done.returncode, done.stderr) == (0, ""), (words, done.stderr)
        assert told in done.stdout
    assert sorted(path.name for path in (searched / "bundle").iterdir()) == ["SHA256SUMS", "bundle.json", "weights"]
    assert len((searched / "found.csv").read_text().splitlines()) == 122


@pytest.mark.timeout(300)
def test_what_needs_ray_or_mlflow_says_so_in_a_line_and_writes_nothing(bare, searched) -> None:
    search = ("search", "--space", "smoke", "--data", "pictures", "--study", "new")
    before = sorted(searched.iterdir())
    for words, told in (
        (
            (*search, "--workers", "1"),
            "error: Ray is not installed: pip install 'ray[tune]', or search in this process ",
        ),
        (
            (*search, "--workers", "0", "--tracking", "http://127.0.0.1:9"),
            "error: --tracking http://127.0.0.1:9: MLflow",
        ),
        (("export", STUDY, "--out", "new", "--register", "digits"), "error: --register: MLflow is not installed"),
        (("compare", STUDY), "error: the comparison is MLflow's, which is not installed"),
        (
            ("predict", STUDY, "--images", "pictures", "--out", "new.csv", "--address", "auto"),
            "error: --address auto: Ray is not installed",
        ),
    ):
        done = bare.run("spine-ray", *words, cwd=searched)
        assert (done.returncode, done.stdout) == (2, ""), (words, done.stdout + done.stderr)
        assert done.stderr.startswith(told)
        assert done.stderr.count("\n") == 1
    assert sorted(searched.iterdir()) == before


@pytest.mark.timeout(1500)
def test_installed_with_all_it_requires_it_plans_the_ladder_on_ray(wheel, tmp_path) -> None:
    environment = FreshEnvironment(tmp_path)
    environment.install(str(wheel))
    (tmp_path / "elsewhere").mkdir()
    words = ("search", "--space", "ladder", "--plan", "--workers", "1", "--weights", "random")
    words += ("--set", "backbone=test_resnet", "--set", "freeze=1.0")
    done = environment.run("spine-ray", *words, cwd=tmp_path / "elsewhere")
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(tier in done.stdout for tier in ("light", "mid", "heavy")), done.stdout
