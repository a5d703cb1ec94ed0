"""The MLflow model: a bundle with signature, example and pinned requirements, ready for `mlflow models serve`."""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """What MLflow has to know of a model that it did not train."""

    loader: str
    """Module with `_load_pyfunc`, which is given the bundle's path."""
    code: Path
    """Folder of the package that the module belongs to; it travels with the model."""
    column: str
    """Of the input: bytes of picture files."""
    example: bytes
    """One picture file."""
    classes: Sequence[str]
    versions: Mapping[str, str]
    """Packages to pin."""


def _columns(classes: Sequence[str]) -> list[ColSpec | TensorSpec]:
    """Return the columns of predictions; of a picture that cannot be read there are but the name and the error."""
    texts, numbers = ("class", "error"), ("confidence", "disagreement", *(f"p_{name}" for name in classes))
    return [
        ColSpec(DataType.string, "sample"),
        ColSpec(DataType.long, "members"),
        *(ColSpec(DataType.string, name, required=False) for name in texts),
        *(ColSpec(DataType.float, name, required=False) for name in numbers),
    ]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow from talking of its own steps."""
    log = logging.getLogger("mlflow")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def save_served_model(bundle: Path, serving: Serving, folder: Path) -> None:
    """Write the MLflow model of a bundle into a folder that does not exist yet; nothing is pickled."""
    signature = ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, serving.column)]), outputs=Schema(_columns(serving.classes))
    )
    pinned = [f"{package}=={version}" for package, version in serving.versions.items()]
    with _quiet():
        mlflow.pyfunc.save_model(
            folder,
            loader_module=serving.loader,
            data_path=str(bundle),
            code_paths=[str(serving.code)],
            signature=signature,
            input_example=pd.DataFrame({serving.column: [serving.example]}),
            pip_requirements=[f"mlflow=={mlflow.__version__}", *pinned],
        )
