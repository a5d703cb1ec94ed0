"""What each search changed in a study, as it is kept and told: search by search."""

from dataclasses import asdict, dataclass
from typing import Any

from spine_ray.data.counted import counted
from spine_ray.study.paths import StudyPaths, copy_of, read_either, read_json, replace_json, write_twice


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What one search changed; log-losses are OOF, on the rows that the choice was made on; lower is better."""

    time: str
    """UTC, ISO 8601."""
    command: str
    seconds: float
    """Wall time of the search."""
    added: tuple[str, ...]
    """Trials that ended."""
    device_seconds: float
    """What those took."""
    members: tuple[str, ...]
    came: tuple[str, ...]
    """Members that were none before."""
    left: tuple[str, ...]
    """Members that are none any more."""
    log_loss: float
    log_loss_before: float | None
    gain: float | None
    """By how much the ensemble's log-loss fell, on the same rows."""
    gain_low: float | None
    gain_high: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return the change as plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Change":
        """Build the change that `to_dict` wrote."""
        names = ("added", "members", "came", "left")
        return cls(**{**values, **{name: tuple(values[name]) for name in names}})

    @property
    def lines(self) -> tuple[str, ...]:
        """The change in words, for a reader who knows the study."""
        trials = counted(len(self.added), "trial", "trials")
        lines = [f"{trials} added in {self.seconds:.0f} s, {self.device_seconds:.0f} s of them on workers"]
        if self.gain is None or self.log_loss_before is None:
            return tuple(lines)
        if not self.came and not self.left:
            lines.append("the members are the same")
        lines += [f"came in: {', '.join(self.came)}"] if self.came else []
        lines += [f"went out: {', '.join(self.left)}"] if self.left else []
        lines.append(
            f"OOF log-loss {self.log_loss_before:.4f} before, {self.log_loss:.4f} now: {self.gain:+.4f} better "
            f"({self.gain_low:+.4f} to {self.gain_high:+.4f} over rows; chosen on them, so somewhat optimistic)"
        )
        return tuple(lines)


def keep_change(paths: StudyPaths, change: Change) -> None:
    """Add a change to the study's history."""
    changes = [each.to_dict() for each in (*stored_history(paths), change)]
    write_twice(paths.history, lambda place: replace_json(place, changes))


def stored_history(paths: StudyPaths) -> list[Change]:
    """Return what each finished search changed, the oldest first.

    Raises:
        ValueError: If the file is damaged.
    """
    if not paths.history.exists() and not copy_of(paths.history).exists():
        return []
    try:
        return [Change.from_dict(values) for values in read_either(paths.history, read_json)]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{paths.history} is damaged: {error}") from error
