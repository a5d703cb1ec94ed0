"""Exporting a study: a bundle that runs without it, the MLflow model around it, ONNX files of single members."""

import io
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

import spine_ray
from spine_ray.climb.artefact import PACKAGES, package_versions, study_artefact, with_cascade
from spine_ray.climb.pick import open_stored
from spine_ray.ship.artefact import Artefact
from spine_ray.ship.bundle import check_free, new_folder, write_bundle
from spine_ray.ship.onnx_files import OnnxFile, check_onnx, write_onnx
from spine_ray.ship.served import COLUMN
from spine_ray.study.paths import StudyPaths
from spine_ray.study.survey import opened_to_change
from spine_ray.study.tracking import read_tracking
from spine_ray.track.mlflow_log import has_mlflow, register, sqlite_uri


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written."""

    artefact: Artefact
    megabytes: float
    """Of the bundle alone."""
    has_model: bool
    """Whether there is an MLflow model, too."""
    onnx: tuple[OnnxFile, ...]


def export_study(root: Path, out: Path, *, with_onnx: bool) -> Exported:
    """Write a bundle to a new folder, with the MLflow model in `mlflow/` and ONNX files, if wanted, in `onnx/`.

    Where MLflow is not installed there is no MLflow model: a bundle predicts without it.

    Raises:
        ValueError: If there is nothing to export, something at `out`, or a package is missing that was asked for.
    """
    check_free(out)
    if with_onnx:
        check_onnx()
    study = open_stored(root)
    artefact, tensors = study_artefact(study)
    artefact = with_cascade(study, artefact)
    with new_folder(out) as folder:
        has_model, bundle = (
            has_mlflow(),
            folder / "bundle",
        )  # while MLflow copies it; then its files move up beside MLflow's
        bundle.mkdir()
        write_bundle(artefact, tensors, bundle)
        megabytes = sum(path.stat().st_size for path in bundle.rglob("*")) / 1e6
        if has_model:
            _write_model(artefact, bundle, folder / "mlflow")
        for path in bundle.iterdir():
            path.rename(folder / path.name)
        bundle.rmdir()
        onnx = write_onnx(artefact, tensors, folder / "onnx") if with_onnx else ()
    return Exported(artefact=artefact, megabytes=megabytes, has_model=has_model, onnx=onnx)


def register_model(root: Path, model: Path, name: str) -> str:
    """Register an exported MLflow model where the study is tracked, as its ensemble's; return the model's URI.

    Raises:
        ValueError: If the name is none for MLflow, MLflow is not installed or does not take the model, or the study is
            being written to.
    """
    check_registration(name)
    paths = StudyPaths(root)
    with opened_to_change(paths):
        tracking = read_tracking(paths)
        uri = tracking.uri if tracking is not None else None
        try:
            return register(uri or sqlite_uri(paths.tracking), paths, model, name)
        except ConnectionError as error:
            raise ValueError(f"--register: {error}; the bundle is whole") from error


def check_registration(name: str) -> None:
    """Refuse what MLflow takes for no name of a model, and any name without MLflow.

    Raises:
        ValueError: If it has characters with a meaning in MLflow's URIs or filters, or none at all, or MLflow is not
            installed.
    """
    if not has_mlflow():
        raise ValueError("--register: MLflow is not installed; pip install mlflow")
    if not name.strip() or set(name) & set("/:'\"%"):
        raise ValueError(f"--register takes a name without / : % and quotes, not {name!r}")


def _write_model(artefact: Artefact, bundle: Path, out: Path) -> None:
    from spine_ray.track.served_model import Serving, save_served_model  # only here: MLflow may not be installed

    picture = io.BytesIO()
    Image.new("RGB", (artefact.stored_side, artefact.stored_side), "grey").save(picture, "PNG")
    package = Path(spine_ray.__file__).parent
    with tempfile.TemporaryDirectory() as folder:
        # An installed package holds the spaces with their small weights, which no model needs.
        needless = shutil.ignore_patterns("__pycache__", "search_spaces")
        serving = Serving(
            loader="spine_ray.ship.served",
            code=Path(shutil.copytree(package, Path(folder) / package.name, ignore=needless)),
            column=COLUMN,
            example=picture.getvalue(),
            classes=artefact.classes,
            versions=package_versions((*PACKAGES, "pandas")),
        )
        save_served_model(bundle, serving, out)
