"""Choose and combine image-classifier backbones with evidence."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from spine_ray.climb.opened import OpenStudy

__version__ = "0.1.0"


def open_study(root: "str | Path") -> "OpenStudy":
    """Open a study to look at its tables, its ensemble, and to predict.

    Raises:
        ValueError: If there is no study at `root`, or no trial of it was completed.
    """
    from spine_ray.climb.opened import open_study as opened  # here: importing the package loads nothing else

    return opened(root)
