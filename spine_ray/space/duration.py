"""Durations as people write them."""

import re

_FORM = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(text: str | int | float) -> float:
    """Return a duration such as `90s`, `30m`, `1.5h` or plain seconds, in s.

    Raises:
        ValueError: If it has another form or is zero.
    """
    match = _FORM.fullmatch(str(text).strip())
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if seconds <= 0:
        raise ValueError(f"a duration is written 90s, 30m, 2h or as plain seconds, above 0; not {text!r}")
    return seconds
