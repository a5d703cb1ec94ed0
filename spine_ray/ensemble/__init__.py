"""Calibration, pools and the greedy selector on OOF logits. Knows numpy, nothing of disks or models."""

from spine_ray.ensemble.price import Amount, Cost
from spine_ray.ensemble.selection import Ensemble, select

__all__ = ["Amount", "Cost", "Ensemble", "select"]
