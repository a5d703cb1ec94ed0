"""Exporting a study: a bundle that runs without it, the MLflow model around it, ONNX files of single members."""

import io
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
from spine_ray.track.mlflow_log import register, sqlite_uri
from spine_ray.track.served_model import Serving, save_served_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """What was written."""

    artefact: Artefact
    megabytes: float
    """Of the bundle alone."""
    onnx: tuple[OnnxFile, ...]


def export_study(root: Path, out: Path, *, with_onnx: bool) -> Exported:
    """Write a bundle to a new folder, with the MLflow model in `mlflow/` and ONNX files, if wanted, in `onnx/`.

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
        bundle = folder / "bundle"  # while MLflow copies it; then its files move up beside MLflow's
        bundle.mkdir()
        write_bundle(artefact, tensors, bundle)
        megabytes = sum(path.stat().st_size for path in bundle.rglob("*")) / 1e6
        _write_model(artefact, bundle, folder / "mlflow")
        for path in bundle.iterdir():
            path.rename(folder / path.name)
        bundle.rmdir()
        onnx = write_onnx(artefact, tensors, folder / "onnx") if with_onnx else ()
    return Exported(artefact=artefact, megabytes=megabytes, onnx=onnx)


def register_model(root: Path, model: Path, name: str) -> str:
    """Register an exported MLflow model where the study is tracked, as its ensemble's; return the model's URI.

    Raises:
        ValueError: If the name is none for MLflow, the study is being written to, or MLflow does not take it.
    """
    check_model_name(name)
    paths = StudyPaths(root)
    with opened_to_change(paths):
        tracking = read_tracking(paths)
        uri = tracking.uri if tracking is not None else None
        try:
            return register(uri or sqlite_uri(paths.tracking), paths, model, name)
        except ConnectionError as error:
            raise ValueError(f"--register: {error}; the bundle is whole") from error


def check_model_name(name: str) -> None:
    """Refuse what MLflow takes for no name of a model.

    Raises:
        ValueError: If it has characters with a meaning in MLflow's URIs or filters, or none at all.
    """
    if not name.strip() or set(name) & set("/:'\"%"):
        raise ValueError(f"--register takes a name without / : % and quotes, not {name!r}")


def _write_model(artefact: Artefact, bundle: Path, out: Path) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (artefact.stored_side, artefact.stored_side), "grey").save(picture, "PNG")
    serving = Serving(
        loader="spine_ray.ship.served",
        code=Path(spine_ray.__file__).parent,
        column=COLUMN,
        example=picture.getvalue(),
        classes=artefact.classes,
        versions=package_versions((*PACKAGES, "pandas")),
    )
    save_served_model(bundle, serving, out)
