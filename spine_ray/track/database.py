"""The MLflow database of a study, made anew from its ledger where it is lost: everything in it is derived."""

from collections.abc import Iterable, Iterator

from spine_ray.study.events import EpochDone, Event
from spine_ray.study.ledger import read_ledger
from spine_ray.study.paths import StudyPaths
from spine_ray.track.records import Entry
from spine_ray.track.spool import Spool


def begin_database(paths: StudyPaths) -> int:
    """Have everything that the ledger tells wait in the spool, for a database that does not exist yet.

    Whoever writes to the database next, a search or `compare`, delivers the spool first.

    Returns:
        How many entries wait.
    """
    events = read_ledger(paths.ledger)
    paths.spool.unlink(missing_ok=True)  # what waited there is among them
    Spool(paths.spool).append(entries_of(events))
    return len(events)


def entries_of(events: Iterable[Event]) -> Iterator[Entry]:
    """Return what to track of a history, with the times at which it happened.

    The ledger keeps no time of an epoch: it is that of the trial's start and the seconds of its epochs since.
    """
    clocks: dict[str, float] = {}
    for event in events:
        if isinstance(event, EpochDone):
            clocks[event.trial_id] += event.seconds
        else:
            clocks[event.trial_id] = event.time
        yield Entry(at_ms=int(1000 * clocks[event.trial_id]), content=event)
