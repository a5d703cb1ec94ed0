"""A bundle as MLflow serves it: pictures in a column of bytes, predictions in columns. MLflow finds `_load_pyfunc`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spine_ray.data.albums import listed_album
from spine_ray.ship.bundle import open_bundle
from spine_ray.ship.run import Predictor
from spine_ray.ship.table import columns_of

if TYPE_CHECKING:
    import pandas as pd

COLUMN = "image"
"""Of the input: the bytes of a picture file, base64 where it travels as JSON."""


class ServedBundle:
    """What MLflow calls."""

    def __init__(self, root: Path) -> None:
        """Open a bundle and build its members.

        Raises:
            ValueError: If it is damaged.
        """
        artefact, tensors = open_bundle(root)
        self._classes, self._predictor = artefact.classes, Predictor(artefact, tensors)

    def predict(self, model_input: "pd.DataFrame", params: dict[str, Any] | None = None) -> "pd.DataFrame":
        """Return one row a picture, as `python -m spine_ray.predict` writes them."""
        import pandas as pd  # here: MLflow brings it, and nothing else that predicts needs it

        contents = [bytes(content or b"") for content in model_input[COLUMN]]
        blocks = [columns_of(block, self._classes) for block in self._predictor.predict(listed_album(contents))]
        frame = pd.concat([pd.DataFrame(block) for block in blocks], ignore_index=True)
        numbers = [name for name in frame if name not in ("sample", "class", "members", "error")]
        return frame.astype(dict.fromkeys(numbers, np.float32))


def _load_pyfunc(path: str) -> ServedBundle:
    """Return the model at a path; the name is MLflow's."""
    return ServedBundle(Path(path))
