"""What the audit judges: the looked-at rows and what was made of them, side by side."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from spine_ray.data.folds import sample_rows
from spine_ray.data.inspection import Inspection, Look
from spine_ray.data.limits import AuditLimits
from spine_ray.data.near import NearCopies
from spine_ray.data.rows import Row
from spine_ray.data.samples import Samples


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """One inspection, the samples that were built from it, and what they are measured by."""

    inspection: Inspection
    samples: Samples
    near: NearCopies = field(default_factory=NearCopies)
    limits: AuditLimits = field(default_factory=AuditLimits)
    resolutions: tuple[int, ...] = ()
    """Sides of the inputs that will be trained on, px; none: sizes are told, not judged."""

    def __post_init__(self) -> None:
        """Refuse samples of another inspection."""
        if len(self.inspection.readable) != len(self.samples.sample_ids):
            raise ValueError(
                f"an inspection with {len(self.inspection.readable)} readable pictures is none of "
                f"{len(self.samples.sample_ids)} samples"
            )

    @cached_property
    def source_rows(self) -> tuple[int, ...]:
        """The row of the source that each sample is, (samples,)."""
        return sample_rows(self.inspection)

    @cached_property
    def looks(self) -> list[Look]:
        """The look at each sample."""
        return [self.inspection.looks[row] for row in self.source_rows]

    @cached_property
    def rows(self) -> list[Row]:
        """Each sample as its source describes it."""
        return [self.inspection.source.rows[row] for row in self.source_rows]

    def ids(self, samples: Iterable[int] | np.ndarray) -> tuple[str, ...]:
        """Return the sample ids of some samples."""
        return tuple(self.samples.sample_ids[sample] for sample in samples)

    def near_groups(self) -> list[np.ndarray]:
        """Return the samples of each group of near copies, exact copies of them included."""
        return self._as_samples(self.near.groups())

    def near_crowds(self) -> list[np.ndarray]:
        """Return the samples of each group that was too large to believe."""
        return self._as_samples(self.near.crowds)

    def _as_samples(self, groups: Iterable[Iterable[int]]) -> list[np.ndarray]:
        digests = [look.digest for look in self.looks]
        samples_of: dict[str, list[int]] = {}
        for sample, digest in enumerate(digests):
            samples_of.setdefault(digest, []).append(sample)
        looks = self.inspection.looks
        return [
            np.array(sorted(sample for row in rows for sample in samples_of[looks[row].digest]), np.int64)
            for rows in groups
        ]
