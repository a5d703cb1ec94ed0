import numpy as np
import pytest

from spine_ray.ensemble import select
from spine_ray.ensemble.candidates import Candidates
from spine_ray.ensemble.choose import calibrate, choose
from spine_ray.ensemble.greedy import Rules, Traits
from spine_ray.ensemble.metrics import row_losses
from spine_ray.ensemble.price import as_cost
from spine_ray.ensemble.sizes import losses_by_size

ROWS, CLASSES, MEMBERS = 600, 4, 6


def cohort(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of models that each know something of their own, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, ROWS)
    shared = rng.normal(size=(ROWS, CLASSES))
    own = rng.normal(size=(MEMBERS, ROWS, CLASSES))
    return (2.0 * np.eye(CLASSES)[labels] + 0.5 * shared + own).astype(np.float32), labels


def candidates(**rules: object) -> Candidates:
    logits, labels = cohort()
    costs = tuple(as_cost(1.0) for _ in range(MEMBERS))
    families = tuple(f"f{member}" for member in range(MEMBERS))
    return Candidates(
        logits=logits, kept=tuple(range(MEMBERS)), rows=None, labels=labels, groups=np.arange(ROWS),
        traits=Traits(families=families, resolutions=(64,) * MEMBERS, costs=costs), rules=Rules(**rules), screen=None,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("pool", ["log", "prob"])
@pytest.mark.parametrize("pinned", [(), (2, 5)])
def test_every_size_is_what_the_greedy_way_had_found_by_then(pool, pinned) -> None:
    every = candidates(pinned=pinned)
    seen, unseen = every.on(np.arange(0, ROWS, 2)), every.on(np.arange(1, ROWS, 2))
    calibrated, problems = calibrate(seen, (pool,))
    chosen = choose(seen, calibrated, pool, problems[pool])
    losses = losses_by_size(seen, unseen, calibrated, chosen)
    size = len(chosen.model.members)
    assert losses.shape == (8, ROWS // 2)
    assert size >= 3
    # From its own size on, the selection itself answers.
    whole = row_losses(chosen.model.apply(unseen), unseen.labels)
    assert all(np.array_equal(losses[place], whole) for place in range(size - 1, 8))
    if pinned:  # fewer than the pinned there cannot be
        assert np.array_equal(losses[0], losses[1])
    else:
        alone = calibrated.alone(calibrated.short[chosen.selection.picks[0]])
        np.testing.assert_allclose(losses[0], row_losses(alone.apply(unseen), unseen.labels), atol=1e-12)
    means = losses.mean(axis=1)
    assert means[size - 1] < means[0]


def test_a_smaller_limit_gives_the_same_smaller_ensembles() -> None:
    """Cut to two members, the greedy way is the one that was never allowed more, before members are swapped."""
    every = candidates()
    seen, unseen = every.on(np.arange(0, ROWS, 2)), every.on(np.arange(1, ROWS, 2))
    calibrated, problems = calibrate(seen, ("log",))
    losses = losses_by_size(seen, unseen, calibrated, choose(seen, calibrated, "log", problems["log"]))
    few = candidates(max_members=2).on(np.arange(0, ROWS, 2))
    found, small = calibrate(few, ("log",))
    two = choose(few, found, "log", small["log"]).model.apply(unseen)
    assert losses[1].mean() == pytest.approx(row_losses(two, unseen.labels).mean(), abs=0.02)


def test_the_report_counts_members_up_to_the_gain_of_the_whole() -> None:
    logits, labels = cohort()
    report = select(
        logits, labels, families=["a"] * MEMBERS, resolutions=[64] * MEMBERS, costs=[1.0] * MEMBERS,
        folds=np.arange(ROWS) % 3,
    ).report  # fmt: skip
    rows = report["cross_fit_by_members"]
    assert [row["members"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[0]["gain"] == pytest.approx(0.0, abs=1e-9)  # one member is the best single
    assert {name: rows[-1][name] for name in ("gain", "low", "high")} == report["cross_fit"]
    assert all(row["low"] <= row["gain"] <= row["high"] for row in rows)


def test_without_folds_nothing_is_counted() -> None:
    logits, labels = cohort()
    report = select(logits, labels, families=["a"] * MEMBERS, resolutions=[64] * MEMBERS, costs=[1.0] * MEMBERS).report
    assert report["cross_fit_by_members"] == []
