"""Randomness as a pure function of names: no hidden state, so a resumed run equals an uninterrupted one."""

import hashlib

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def derive_seed(seed: int, *names: object) -> int:
    """Return a 63-bit seed that depends on the study's seed and on the names, and on nothing else."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def uniform(keys: npt.NDArray[np.uint64], stream: int) -> npt.NDArray[np.float64]:
    """Return one number in [0, 1) for each key, a pure function of (key, stream).

    The mixer is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), applied twice.

    Args:
        keys: (images,), any 64-bit values.
        stream: Which of several independent numbers of a key.
    """
    offset = np.uint64((stream + 1) * int(_GOLDEN) % 2**64)  # in Python, because numpy warns of a scalar's overflow
    mixed = _mix(_mix(keys) + offset)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    mixed = values + _GOLDEN
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))
