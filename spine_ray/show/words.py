"""How numbers are written, everywhere the same: log-loss with four decimals, shares in percent, time in words."""

import unicodedata
from collections.abc import Mapping

NOTHING = "-"
"""Stands where a number does not exist."""
MOST_PARTS = 8
"""Entries that are written of a list; of a longer one how many more there are."""
_COMMANDING = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode's categories of what moves a cursor, breaks a line or is half a character."""
_TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""What turns the direction of writing, so that a name reads as another."""


def one_line(text: str, most: int | None = None) -> str:
    """Write a text of the user's on one line, in which nothing commands a terminal: such characters are spelt out.

    Args:
        text: Anything.
        most: Characters to show; None for all.
    """
    seen = text if text.isprintable() else "".join(_spelt(character) for character in text)
    return seen if most is None or len(seen) <= most else f"{seen[: most - 1]}\u2026"


def loss_text(value: float | None) -> str:
    """Write a log-loss, or a difference of two, with four decimals."""
    return NOTHING if value is None else f"{value:.4f}"


def change_text(value: float | None) -> str:
    """Write a difference of log-losses with its sign."""
    return NOTHING if value is None else f"{value:+.4f}"


def interval_text(low: float | None, high: float | None) -> str:
    """Write the interval of a log-loss."""
    return NOTHING if low is None or high is None else f"{low:.4f} to {high:.4f}"


def share_text(value: float | None) -> str:
    """Write a share from 0 to 1, such as an accuracy, in percent."""
    return NOTHING if value is None else f"{100 * value:.1f} %"


def freeze_text(freeze: float) -> str:
    """Write a freeze depth, 0.00 (all trained) to 1.00 (head only)."""
    return f"{freeze:.2f}"


def fold_text(fold: int) -> str:
    """Write a fold, from 0, as people count; -1 is all of them at once."""
    return f"fold {fold + 1}" if fold >= 0 else "all folds"


def minutes_text(minutes: float | None) -> str:
    """Write minutes with the decimals that matter."""
    if minutes is None:
        return NOTHING
    return f"{minutes:.0f}" if minutes >= 100 else f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2f}"


def duration_text(seconds: float | None) -> str:
    """Write a duration in its two largest units."""
    if seconds is None:
        return NOTHING
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def count_text(value: float | None) -> str:
    """Write a large count with three digits and k, M, G or T."""
    if value is None:
        return NOTHING
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # 999.5 of the next smaller unit would round up to four digits.
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}" if value < 999.5 * size else f"{value / size:.0f}{unit}"
    return f"{value:.3g}"


def rate_text(value: float | None) -> str:
    """Write images per second."""
    if value is None:
        return NOTHING
    return count_text(value) if value >= 10_000 else f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def number_text(value: object) -> str:
    """Write evidence whose meaning is not known here: whole numbers as they are, others with four digits."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name_text(str(name))} {number_text(part)}" for name, part in value.items())
    if isinstance(value, (list, tuple)):
        # Two measured numbers are an interval; whole ones are a list, such as of classes.
        is_interval = len(value) == 2 and all(isinstance(part, float) for part in value)
        shown = [*map(number_text, value[:MOST_PARTS]), *_rest(len(value))]
        return (" to " if is_interval else ", ").join(shown) or "none"
    return one_line(str(value))


def name_text(name: str) -> str:
    """Write a name of the program's as words."""
    return name.replace("log_loss", "log-loss").replace("_", " ")


def times_text(count: int) -> str:
    """Write how often something happened."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def _rest(parts: int) -> list[str]:
    return [f"and {parts - MOST_PARTS} more"] if parts > MOST_PARTS else []


def _spelt(character: str) -> str:
    if character in _TURNING or unicodedata.category(character) in _COMMANDING:
        return character.encode("unicode_escape").decode()
    return character
