"""Which files of a study are damaged, what that costs, and what can be done about it before anything is read."""

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from time import time

from spine_ray.data.samples import Samples
from spine_ray.study.hold import Hold, held
from spine_ray.study.ledger import Ledger, append_event, mend_ledger, open_ledger
from spine_ray.study.oof import read_oof
from spine_ray.study.paths import (
    PART,
    DamagedError,
    StudyPaths,
    copy_of,
    read_bytes,
    read_either,
    read_json,
    read_table,
    replace_bytes,
)
from spine_ray.study.record import read_record
from spine_ray.study.shipped import check_refit
from spine_ray.study.tables import read_samples
from spine_ray.study.trials import Trial, trials_from_events

_ANEW = "it is written anew by the next search"


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """A file of a study that does not hold what it should."""

    path: Path
    remedy: str
    """What becomes of it."""
    trial: Trial | None = None
    """Whose OOF logits it held, where they are needed."""

    @property
    def has_copy(self) -> bool:
        """Whether nothing is lost."""
        return self.remedy.startswith(_FROM_COPY)


_FROM_COPY = "taken from its copy"


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What was found, in the order in which it is mended."""

    ledger: Ledger
    damages: tuple[Damage, ...]

    def lacks(self, path: Path) -> bool:
        """Whether a file is not there, or damaged."""
        return not path.exists() or any(each.path == path for each in self.damages)

    @property
    def lines(self) -> tuple[str, ...]:
        """The damages for people."""
        others = (
            f"{each.path} is {'damaged' if each.path.exists() else 'missing'}: {each.remedy}" for each in self.damages
        )
        return (*_ledger_lines(self.ledger), *others)


def survey(paths: StudyPaths) -> Survey:
    """Look at every file of a study that exists; nothing is written.

    Raises:
        ValueError: If there is no study that can be opened; with what to do.
    """
    read_record(paths.root)
    ledger = open_ledger(paths.ledger)
    damages = [*_kept_twice(paths), *_others(paths)]
    with contextlib.suppress(DamagedError):  # without rows there is nothing to compare OOF logits with
        samples = read_either(paths.samples, read_samples)
        damages += _oof(paths, samples, trials_from_events(ledger.events))
    return Survey(ledger=ledger, damages=tuple(damages))


def mend(paths: StudyPaths) -> tuple[str, ...]:
    """Restore what has a copy, set aside what is damaged, and have lost trials trained again; the study is held.

    Returns:
        What was found and done, for people; empty where all is well or there is no study yet.

    Raises:
        ValueError: If there is a study that cannot be opened; with what to do.
        CannotWriteError: If the disk is full, or nothing may be written there.
    """
    if not paths.record.exists() and not copy_of(paths.record).exists():
        return ()
    found = survey(paths)
    lines = found.lines  # they say what is there now
    for leftover in paths.root.rglob(f".*{PART}"):  # of writers that died: this process is the only one now
        leftover.unlink()
    mend_ledger(paths.ledger, found.ledger)
    for damage in found.damages:
        if damage.has_copy:
            replace_bytes(damage.path, copy_of(damage.path).read_bytes())
        else:
            for path in (damage.path, copy_of(damage.path)):
                _set_aside(paths, path)
        if damage.trial is not None:  # started once more and not ended: that is what the next search goes on with
            append_event(paths.ledger, replace(damage.trial.started, time=time()))
    for path in paths.kept_twice:
        if path != paths.ledger and path.exists():
            _renew_copy(path)
    return lines


@dataclass(frozen=True, slots=True)
class Opened:
    """A study that is held and mended."""

    hold: Hold
    lines: tuple[str, ...]
    """What there is to say of that."""


@contextlib.contextmanager
def opened_to_change(paths: StudyPaths) -> Iterator[Opened]:
    """Hold a study and mend it; it need not exist yet.

    Raises:
        ValueError: If another process holds it, or it cannot be opened; with what to do.
        CannotWriteError: If the disk is full, or nothing may be written there.
    """
    with held(paths) as hold:
        left = hold.before
        told = (f"the study was left by {left.words}, which ended without letting go: taken over",) if left else ()
        yield Opened(hold, (*told, *mend(paths)))


def _set_aside(paths: StudyPaths, path: Path) -> None:
    """Move a file to where nothing is read back from, if it is there."""
    if path.exists():
        aside = paths.damaged / path.relative_to(paths.root)
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.replace(aside)


def _renew_copy(path: Path) -> None:
    content, copy = path.read_bytes(), copy_of(path)
    if not copy.exists() or copy.read_bytes() != content:
        replace_bytes(copy, content)


def _ledger_lines(ledger: Ledger) -> Iterator[str]:
    if ledger.restored and not ledger.is_ahead:
        yield f"ledger.jsonl is damaged: {ledger.restored} of its {len(ledger.lines)} lines are {_FROM_COPY}"
    elif ledger.torn:
        yield "ledger.jsonl ends in a line that was cut short when its search died: it is dropped"
    if ledger.lost:
        yield f"ledger.jsonl is damaged: {ledger.lost} of its lines are lost; the trials they told of are tried again"


def _kept_twice(paths: StudyPaths) -> Iterator[Damage]:
    """Look at what has a copy."""
    lost = {
        paths.samples: "its rows are dealt anew from the data",
        paths.costs: "costs are measured again by the next search",
        paths.ensemble: "wishes and test results are lost with it; the next search or `select` chooses anew",
        paths.history: "what earlier searches changed is lost",
    }
    for path in paths.kept_twice:
        if path == paths.ledger or not (path.exists() or copy_of(path).exists()):
            continue
        check = _check_json if path.suffix == ".json" else _check_table
        if _is_whole(path, check):
            continue
        has_copy = _is_whole(copy_of(path), check)
        yield Damage(path=path, remedy=_FROM_COPY if has_copy else lost[path])


def _others(paths: StudyPaths) -> Iterator[Damage]:
    """Look at what can be made again."""
    again = "it is made again by the next search"
    checks: tuple[tuple[Path, Callable[[Path], None], str], ...] = (
        *((path, _check_json, _ANEW) for path in (paths.audit, paths.comparison, paths.plan, paths.gates)),
        (paths.checks, _check_json, again),
        (paths.trials, _check_table, _ANEW),
        (paths.control, _check_table, again),
        (paths.contact_sheet, _check_picture, again),
        (paths.report, _check_page, _ANEW),
        (paths.tracking, _check_database, "its runs are written anew from the ledger"),
        (paths.tracking_record, _check_json, "MLflow gets to know the study anew"),
        *((path, check_refit, "the member is fitted again by the next search") for path in paths.refits()),
        *((path, _check_space, "the search that runs it writes it anew") for path in paths.spaces()),
    )
    for path, check, remedy in checks:
        if path.exists() and not _is_whole(path, check):
            yield Damage(path=path, remedy=remedy)


def _oof(paths: StudyPaths, samples: Samples, trials: dict[str, Trial]) -> Iterator[Damage]:
    """Look at the OOF logits of all trials that completed on the present rows."""
    for trial in trials.values():
        if not trial.is_completed or not trial.is_of(samples.version):
            continue
        try:
            read_oof(paths, trial.trial_id, samples)
        except ValueError:
            path = paths.oof(trial.trial_id)
            yield Damage(path=path, remedy="its trial is trained again by the next search", trial=trial)


def _is_whole(path: Path, check: Callable[[Path], object]) -> bool:
    try:
        check(path)
    except DamagedError:
        return False
    return True


def _check_json(path: Path) -> None:
    read_json(path)


def _check_table(path: Path) -> None:
    read_table(path, ())


def _check_page(path: Path) -> None:
    _check_end(path, b"</html>")


def _check_space(path: Path) -> None:
    _check_end(path, b"\n...")


def _check_picture(path: Path) -> None:
    _check_end(path, b"IEND\xaeB`\x82")


def _check_end(path: Path, end: bytes) -> None:
    if not read_bytes(path).rstrip(b"\n").endswith(end):
        raise DamagedError(f"{path} is cut short")


def _check_database(path: Path) -> None:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            (told,), (page,), (pages,), (tables,) = (
                opened.execute(question).fetchone()
                for question in (
                    "PRAGMA quick_check(1)",
                    "PRAGMA page_size",
                    "PRAGMA page_count",
                    "SELECT count(*) FROM sqlite_master",
                )
            )
    except sqlite3.OperationalError:  # it is in use, or was left in the middle of a write that SQLite itself takes back
        return
    except sqlite3.DatabaseError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    if told != "ok" or not tables or path.stat().st_size < page * pages:
        raise DamagedError(f"{path} is damaged")
