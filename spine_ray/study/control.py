"""The shuffled-label control on disk: what a trial says when its labels mean nothing."""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spine_ray.data.samples import Samples
from spine_ray.study.checked import checked_logits, checked_table
from spine_ray.study.paths import StudyPaths, read_table, replace_table


def write_control(
    paths: StudyPaths,
    samples: Samples,
    labels: npt.NDArray[np.int64],
    logits: npt.NDArray[np.float32],
) -> None:
    """Write the control's held-out logits.

    Args:
        paths: The study.
        samples: The study's rows.
        labels: (images,) the shuffled labels.
        logits: (images, classes); rows that were not held out are NaN and left out.
    """
    rows = np.flatnonzero(np.isfinite(logits).all(axis=1))
    columns = {
        "sample_id": pa.array([samples.sample_ids[row] for row in rows]),
        "label": pa.array(labels[rows].astype(np.int32)),
        "logits": pa.FixedSizeListArray.from_arrays(pa.array(logits[rows].reshape(-1)), logits.shape[1]),
    }
    replace_table(paths.control, pa.table(columns))


def read_control(paths: StudyPaths) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]] | None:
    """Return the control's shuffled labels (rows,) and logits (rows, classes), or None.

    None where no control was run, or where it diverged and so says nothing.

    Raises:
        ValueError: If the file is damaged.
    """
    if not paths.control.exists():
        return None
    table = checked_logits(read_table(paths.control, ("label", "logits")), paths.control)
    if not len(table):
        return None
    width = table.schema.field("logits").type.list_size
    logits = table.column("logits").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    labels = checked_table(table, {"label": pa.int64()}, (), paths.control).column("label")
    return labels.to_numpy(), np.asarray(logits.reshape(-1, width), np.float32)
