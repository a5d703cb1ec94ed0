"""How a study is known to MLflow: by which name that no other has, and on which server."""

import uuid
from dataclasses import asdict, dataclass

from spine_ray.study.paths import StudyPaths, read_json, replace_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracking:
    """What has to be known to find the study's runs again."""

    study_id: str
    """Random: two studies on one server may have one name."""
    uri: str | None
    """Of the server, without a password; None for the database in the study."""


def read_tracking(paths: StudyPaths) -> Tracking | None:
    """Return how the study is tracked; None where it never was.

    Raises:
        ValueError: If the file is damaged.
    """
    if not paths.tracking_record.exists():
        return None
    values = read_json(paths.tracking_record)
    try:
        return Tracking(**values)
    except TypeError as error:
        raise ValueError(f"{paths.tracking_record} is damaged: {error}") from error


def keep_tracking(paths: StudyPaths, uri: str | None) -> Tracking:
    """Keep where the study is tracked from now on.

    Raises:
        ValueError: If what was kept before is damaged.
    """
    known = read_tracking(paths)
    tracking = Tracking(study_id=known.study_id if known else uuid.uuid4().hex, uri=uri)
    if tracking != known:
        replace_json(paths.tracking_record, asdict(tracking))
    return tracking
