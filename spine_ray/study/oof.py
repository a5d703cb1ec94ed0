"""OOF logits on disk: refused unless every dev row is there exactly once, finite, with the study's classes."""

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from spine_ray.data.samples import Samples
from spine_ray.study.checked import checked_logits
from spine_ray.study.paths import StudyPaths, read_table, replace_table


def write_oof(paths: StudyPaths, trial_id: str, samples: Samples, logits: npt.NDArray[np.float32]) -> Path:
    """Write a completed trial's OOF logits.

    Args:
        paths: The study.
        trial_id: Whose logits.
        samples: The study's rows.
        logits: (images, classes) for all rows in the order of `samples`; rows of the test split are not read.

    Raises:
        ValueError: If the shape is not the study's or a dev row is missing or not finite.
    """
    dev = samples.dev
    expected = (len(samples.sample_ids), len(samples.classes))
    if logits.shape != expected:
        raise ValueError(f"OOF logits of {trial_id} have shape {logits.shape}, not {expected}")
    finite = np.isfinite(logits[dev]).all(axis=1)
    if not finite.all():
        raise ValueError(f"OOF logits of {trial_id} are missing or not finite in {int((~finite).sum())} dev rows")
    flat = pa.array(np.ascontiguousarray(logits[dev], np.float32).reshape(-1))
    table = pa.table(
        {
            "sample_id": pa.array([samples.sample_ids[row] for row in dev]),
            "fold": pa.array(samples.folds[dev].astype(np.int32)),
            "label": pa.array(samples.labels[dev].astype(np.int32)),
            "logits": pa.FixedSizeListArray.from_arrays(flat, expected[1]),
        }
    )
    path = paths.oof(trial_id)
    replace_table(path, table.replace_schema_metadata({"classes": "\n".join(samples.classes)}))
    return path


def read_oof(paths: StudyPaths, trial_id: str, samples: Samples) -> npt.NDArray[np.float32]:
    """Return a trial's OOF logits, (dev rows, classes), in the order of `samples.dev`.

    Raises:
        ValueError: If the file is missing or damaged, or its rows are not exactly the study's dev rows.
    """
    path = paths.oof(trial_id)
    table = checked_logits(read_table(path, ("sample_id", "logits")), path)
    found = table.column("sample_id").to_pylist()
    expected = [samples.sample_ids[row] for row in samples.dev]
    if found != expected and Counter(found) != Counter(expected):
        raise ValueError(f"{path} has {len(found)} rows that are not the study's {len(expected)} dev rows")
    width = table.schema.field("logits").type.list_size
    if width != len(samples.classes):
        raise ValueError(f"{path} has {width} classes, the study {len(samples.classes)}")
    logits = table.column("logits").combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    if not np.isfinite(logits).all():
        raise ValueError(f"{path} has logits that are not finite")
    if found == expected:
        return np.asarray(logits, np.float32)
    places = {sample_id: place for place, sample_id in enumerate(found)}
    order = np.array([places[sample_id] for sample_id in expected])
    return np.asarray(logits[order], np.float32)
