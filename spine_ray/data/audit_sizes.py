"""What the audit says of sizes: how large the pictures are, and how many must be enlarged for the inputs asked for."""

from collections.abc import Iterator

import numpy as np

from spine_ray.data.evidence import Evidence
from spine_ray.data.findings import Finding
from spine_ray.data.inspection import short_sides


def size_findings(evidence: Evidence) -> Iterator[Finding]:
    """Say the spread of the short sides, and warn where many pictures are smaller than a resolution."""
    yield from _upsampled(evidence)
    sides = short_sides(evidence.inspection)
    message = f"short side {sides.min()} to {sides.max()} px, median {np.median(sides):g} px"
    yield Finding(level="fact", kind="resolution", message=message)


def _upsampled(evidence: Evidence) -> Iterator[Finding]:
    sides = np.array([min(look.size) for look in evidence.looks])
    shares = {side: float((sides < side).mean()) for side in sorted(set(evidence.resolutions))}
    high = [side for side, share in shares.items() if share > evidence.limits.upsampled]
    if high:
        told = ", ".join(f"{share:.0%} for {side} px" for side, share in shares.items())
        yield Finding(
            level="warning",
            kind="upsampled",
            message=f"many pictures are smaller than the input and are enlarged: {told}; "
            "more px bring cost, not detail",
            rows=evidence.ids(np.flatnonzero(sides < high[0])),
        )
