"""What the audit says: findings, each with its level, its line for people and its rows."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["error", "warning", "fact"]
LEVELS: tuple[Level, ...] = ("error", "warning", "fact")


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that the audit saw."""

    level: Level
    """`error`: do not train before it is mended; `warning`: results may mislead; `fact`: good to know."""
    kind: str
    """Short stable name, for programs."""
    message: str
    """One line for people."""
    rows: tuple[str, ...] = ()
    """The sample ids it is about; for pictures that are left out, which have none, their paths."""

    def __post_init__(self) -> None:
        """Refuse an unknown level."""
        if self.level not in LEVELS:
            raise ValueError(f"finding.level must be one of {', '.join(LEVELS)}, not {self.level!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Audit:
    """All findings, errors first."""

    findings: tuple[Finding, ...]

    @classmethod
    def ordered(cls, findings: Iterable[Finding]) -> "Audit":
        """Return an audit of these findings, errors first, else in their order."""
        return cls(findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))))

    def of(self, level: Level) -> tuple[Finding, ...]:
        """Return the findings of one level."""
        return tuple(finding for finding in self.findings if finding.level == level)

    def to_dict(self) -> dict[str, Any]:
        """Return the audit as plain values for JSON."""
        return {"findings": [{**asdict(finding), "rows": list(finding.rows)} for finding in self.findings]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Audit":
        """Build the audit that `to_dict` wrote."""
        findings = (Finding(**{**finding, "rows": tuple(finding["rows"])}) for finding in values["findings"])
        return cls(findings=tuple(findings))
