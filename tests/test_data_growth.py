import numpy as np
import pytest

from spine_ray.data.growth import Growth, grow, growth_findings, is_grown
from spine_ray.data.rows import Row
from spine_ray.data.samples import Samples

FOLDS = 4


def table(ids: list[int], *, groups: dict[int, int] | None = None, labels: dict[int, int] | None = None) -> Samples:
    """Rows whose class is their number modulo 2, dealt in turn to the test split and four folds."""
    folds = [row % (FOLDS + 1) - 1 for row in range(len(ids))]
    return Samples(
        sample_ids=tuple(f"id{each:04d}" for each in ids),
        paths=tuple(f"{each}.png" for each in ids),
        labels=np.array([(labels or {}).get(each, each % 2) for each in ids]),
        classes=("ant", "bee"),
        groups=np.array([(groups or {}).get(each, each) for each in ids]),
        splits=tuple("test" if fold < 0 else "dev" for fold in folds),
        folds=np.array(folds),
    )


def rows_of(samples: Samples, **given: Row) -> list[Row]:
    return [
        given.get(sample_id, Row(path=path, class_name="ant"))
        for sample_id, path in zip(samples.sample_ids, samples.paths, strict=True)
    ]


def folds_by_id(samples: Samples) -> dict[str, int]:
    return dict(zip(samples.sample_ids, samples.folds.tolist(), strict=True))


def test_old_rows_keep_their_folds_wherever_the_new_ones_come_in() -> None:
    stored, fresh = table(list(range(100, 200))), table(list(range(250)))
    grown, growth = grow(stored, fresh, rows_of(fresh), seed=0)
    now, before = folds_by_id(grown), folds_by_id(stored)
    assert {name: now[name] for name in before} == before
    assert growth == Growth(added=tuple(f"id{each:04d}" for each in [*range(100), *range(200, 250)]))


@pytest.mark.parametrize("seed", range(5))
def test_new_rows_fill_every_part_of_every_class_alike(seed: int) -> None:
    stored, fresh = table(list(range(50))), table(list(range(450)))
    grown, _ = grow(stored, fresh, rows_of(fresh), seed=seed)
    counts = np.array([np.bincount(grown.labels[grown.folds == fold]) for fold in range(-1, FOLDS)])
    assert np.abs(counts - 45).max() <= 1  # 450 rows, 5 parts of equal share, 2 classes


def test_a_new_row_goes_where_an_old_row_of_its_group_is() -> None:
    stored = table(list(range(20)))
    fresh = table(list(range(40)), groups={20 + each: each for each in range(20)})
    grown, _ = grow(stored, fresh, rows_of(fresh), seed=0)
    now = folds_by_id(grown)
    assert all(now[f"id{each + 20:04d}"] == now[f"id{each:04d}"] for each in range(20))


def test_new_rows_of_one_group_stay_together() -> None:
    stored = table(list(range(20)))
    fresh = table(list(range(60)), groups={each: 1000 + each % 3 for each in range(20, 60)})
    grown, _ = grow(stored, fresh, rows_of(fresh), seed=0)
    new = grown.groups >= 1000
    assert {group: len(set(grown.folds[grown.groups == group].tolist())) for group in set(grown.groups[new])} == {
        1000: 1, 1001: 1, 1002: 1
    }  # fmt: skip


def test_split_and_fold_of_the_source_are_followed() -> None:
    stored, fresh = table(list(range(20))), table(list(range(24)))
    given = {
        "id0020": Row(path="20.png", class_name="ant", split="test"),
        "id0021": Row(path="21.png", class_name="bee", split="dev", fold=3),
    }
    grown, _ = grow(stored, fresh, rows_of(fresh, **given), seed=0)
    now = folds_by_id(grown)
    assert (now["id0020"], now["id0021"]) == (-1, 3)
    assert now["id0022"] >= 0 and now["id0023"] >= 0, "the source has a test split, and they are not in it"


def test_relabelled_and_removed_rows_are_named() -> None:
    stored = table(list(range(20)))
    fresh = table(list(range(2, 20)), labels={4: 1})
    grown, growth = grow(stored, fresh, rows_of(fresh), seed=0)
    assert growth == Growth(relabelled=("id0004",), removed=("id0000", "id0001"))
    assert grown.version != stored.version
    relabelled, removed = growth_findings(growth)
    assert (relabelled.level, relabelled.kind, removed.level, removed.kind) == (
        "warning", "relabelled", "warning", "removed",
    )  # fmt: skip
    assert relabelled.message == "1 picture has another class than the study knew"
    assert removed.message == "2 pictures of the study are no longer there"


def test_a_dealing_is_the_same_every_time_and_another_for_another_seed() -> None:
    stored, fresh = table(list(range(50))), table(list(range(150)))
    one, again = (grow(stored, fresh, rows_of(fresh), seed=1)[0] for _ in range(2))
    other = grow(stored, fresh, rows_of(fresh), seed=2)[0]
    assert one.fold_fingerprint == again.fold_fingerprint != other.fold_fingerprint


@pytest.mark.parametrize(("kept", "expected"), [(20, True), (10, True), (9, False)])
def test_data_of_which_half_is_gone_is_other_data(kept: int, expected: bool) -> None:
    assert is_grown(table(list(range(20))), table(list(range(20 - kept, 60)))) is expected
