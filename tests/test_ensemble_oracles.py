"""What the selector is held against, and where each oracle lives.

1  Loss = mean loss - disagreement, to 1e-12: test_ensemble_contributions.py, test_ensemble_pool.py.
2  Brute force: the search and the local search here; the front at every cost in test_ensemble_front.py.
3  The certificate of convexity: here for 200 models; against expectation maximisation in test_ensemble_objective.py.
4  Two experts and an all-rounder, closed form: test_ensemble_greedy.py.
5  Copies, noise, permutations: here through the whole selection; the search alone in test_ensemble_greedy.py,
   scaled and shifted logits in test_ensemble_selection.py.
6  Complementary skills under a family cap: here; the search alone in test_ensemble_greedy.py.
7  The members of the plain loop on probabilities of the true class: here; AutoGluon itself in benchmarks/selector.py.
8  Bounds of majority votes (Theisen et al. 2023): test_ensemble_contributions.py.
9  The interval of the cross-fitted gain: here; the optimism that cross-fit removes in test_ensemble_honest.py.
10 Temperatures: here; one model alone in test_ensemble_calibrate.py.
11 Shapley values and leaving out: test_ensemble_contributions.py.
12 Costs and budgets: test_ensemble_price.py, test_ensemble_front.py.
13 Published tables: not reproduced, because the project holds no copy of them.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest

from spine_ray.ensemble import Ensemble, select
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.candidates import Candidates
from spine_ray.ensemble.choose import calibrate, model_of
from spine_ray.ensemble.greedy import Problem, Rules, Traits, pose, slopes, walk
from spine_ray.ensemble.metrics import log_loss
from spine_ray.ensemble.objective import OBJECTIVES, gap
from spine_ray.ensemble.polish import mean_encoding, objective_of, polish, search
from spine_ray.ensemble.pool import PoolName, floored, pooled
from spine_ray.ensemble.price import as_cost
from spine_ray.ensemble.selection import pooled_log_probs

POOLS: tuple[PoolName, ...] = ("log", "prob")


def _traits(members: int) -> Traits:
    return Traits(
        families=tuple(f"f{index}" for index in range(members)),
        resolutions=(64,) * members,
        costs=(as_cost(1.0),) * members,
    )


def _problem(values: np.ndarray, labels: np.ndarray, pool: PoolName, **rules: Any) -> Problem:
    encodings = np.stack([OBJECTIVES[pool].encode(value, labels) for value in values])
    given = Rules(**{"tie_band": 0.0, "max_members": len(values), **rules})
    return pose(encodings, OBJECTIVES[pool], _traits(len(values)), given, len(labels))


def _families_of_models(seed: int, members: int, rows: int, signal: float = 1.3) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated log-probabilities of models that err alike within four families, and the labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, rows)
    shared = rng.normal(size=(4, rows, 3))[np.arange(members) % 4]
    quality = signal * rng.uniform(0.8, 1.2, size=(members, 1, 1))
    logits = quality * np.eye(3)[labels] + 0.7 * shared + 0.7 * rng.normal(size=(members, rows, 3))
    return floored(np.stack([log_probs(block, fit_temperature(block, labels)) for block in logits])), labels


def _select(logits: np.ndarray, labels: np.ndarray, **options: Any) -> Ensemble:
    given = {
        "families": [f"f{index}" for index in range(len(logits))],
        "resolutions": [64] * len(logits),
        "costs": [1.0] * len(logits),
        "folds": np.arange(len(labels)) % 4,
    }
    return select(logits.astype(np.float32), labels, **{**given, **options})


# Oracle 2


def _losses_of_all_subsets(values: np.ndarray, labels: np.ndarray, pool: PoolName) -> np.ndarray:
    """Log-loss of the uniform pool of each non-empty subset, (2^members - 1,), the single models at powers of 2."""
    members, rows, classes = values.shape
    masks = (np.arange(1, 2**members)[:, None] >> np.arange(members)) & 1
    shares = masks / masks.sum(axis=1, keepdims=True)
    every = np.arange(rows)
    if pool == "prob":
        return np.asarray(-np.log(shares @ np.exp(values[:, every, labels])).mean(axis=1))
    mean = (shares @ values.reshape(members, -1)).reshape(-1, rows, classes)
    return np.asarray((np.log(np.exp(mean).sum(axis=2)) - mean[:, every, labels]).mean(axis=1))


@pytest.mark.parametrize("pool", POOLS)
def test_search_is_no_worse_on_average_than_the_best_of_4095_subsets(pool: PoolName) -> None:
    searched, local = [], []
    for seed in range(8):
        values, labels = _families_of_models(seed, members=12, rows=150)
        losses = _losses_of_all_subsets(values, labels, pool)
        unit = losses[2 ** np.arange(12) - 1].min() - losses.min()  # what the best subset gains over one model
        problem = _problem(values, labels, pool)
        found = search(problem)
        loss = log_loss(pooled(pool, values[list(found.members)], found.weights), labels)
        searched.append((loss - losses.min()) / unit)
        local.append((objective_of(problem, polish(problem, dict.fromkeys(range(12), 1))) - losses.min()) / unit)
    assert np.mean(searched) <= 0.0
    assert np.mean(local) <= 0.04  # dropping and swapping alone, from all members at equal weight


# Oracle 3


def test_more_steps_lose_less_and_stay_within_their_certificate_of_the_best_weights() -> None:
    values, labels = _families_of_models(0, members=200, rows=1_000)
    truth = np.exp(values[:, np.arange(1_000), labels])
    weights = np.full(200, 1 / 200)
    for _ in range(5_000):  # expectation maximisation, which converges to the best convex weights
        weights *= (truth / (weights @ truth)).mean(axis=1)
    optimum = -np.log(weights @ truth).mean()
    assert (truth / (weights @ truth)).mean(axis=1).max() - 1 < 1e-4  # its own certificate
    losses = []
    for steps in (5, 10, 25, 50, 100):
        problem = _problem(values, labels, "prob", max_steps=steps)
        found = search(problem)
        mean = mean_encoding(problem, dict(zip(found.members, found.counts, strict=True)))
        losses.append(log_loss(pooled("prob", values[list(found.members)], found.weights), labels))
        assert -1e-4 <= losses[-1] - optimum <= gap(*slopes(problem, mean)) + 1e-6
    assert (np.diff(losses) < 0).all()
    assert losses[2] - optimum < 0.1 * (problem.losses.min() - optimum)  # 25 steps: nine tenths of what there is


# Oracles 5 and 6


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("seed", range(5))
def test_models_of_random_labels_get_no_weight_even_for_free(seed: int, pool: PoolName) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 800)
    able = 1.5 * np.eye(3)[labels] + rng.normal(size=(3, 800, 3))
    unable = 1.5 * np.eye(3)[rng.integers(0, 3, (5, 800))] + rng.normal(size=(5, 800, 3))
    found = _select(np.concatenate([unable, able]), labels, pool=pool, costs=[0.0] * 5 + [1.0] * 3)
    assert set(found.members) == {5, 6, 7}


def _two_models_of_which_one_is_copied(copies: int) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Logits, labels and costs; of the copies the last is the cheapest."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    first, second = 1.5 * np.eye(3)[labels] + rng.normal(size=(2, 300, 3))
    return np.stack([second, *[first] * copies]), labels, {"costs": [1.0, *np.linspace(3.0, 2.0, copies)]}


@pytest.mark.parametrize("copies", [2, 5, 70])
def test_copies_are_one_member_and_are_paid_once(copies: int) -> None:
    logits, labels, costs = _two_models_of_which_one_is_copied(copies)
    found = _select(logits, labels, families=["a", *["b"] * copies], **costs)
    assert set(found.members) == {0, copies}
    assert found.report["cost"] == pytest.approx(3.0)
    assert found.weights == _select(logits[[0, copies]], labels, costs=[1.0, 2.0]).weights


def test_two_good_models_of_one_family_are_found_among_more_families_than_the_short_list_holds() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 300)
    signal = np.array([2.0, 1.9, *[0.3] * 70])[:, None, None]
    logits = signal * np.eye(3)[labels] + rng.normal(size=(72, 300, 3))
    found = _select(logits, labels, families=["good", "good", *(f"weak {index}" for index in range(70))])
    assert {0, 1} <= set(found.members)


@pytest.mark.parametrize("seed", range(3))
def test_the_whole_selection_does_not_depend_on_the_order_of_candidates_rows_and_classes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, 240)
    logits = (1.5 * np.eye(3)[labels] + rng.normal(size=(6, 240, 3))).astype(np.float32)
    folds, costs = np.arange(240) % 4, np.array([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
    names = np.array(list("aabbcc"))
    members, rows, classes = rng.permutation(6), rng.permutation(240), rng.permutation(3)
    groups = np.arange(240)  # the names of the rows: by them they are dealt again
    found = _select(logits, labels, folds=folds, groups=groups, costs=costs, families=names)
    again = _select(
        logits[np.ix_(members, rows, classes)],
        np.argsort(classes)[labels[rows]],
        folds=folds[rows],
        groups=groups[rows],
        costs=costs[members],
        families=names[members],
    )
    assert [int(members[index]) for index in again.members] == list(found.members)
    np.testing.assert_allclose(again.weights, found.weights, rtol=1e-12)
    assert again.final_temperature == pytest.approx(found.final_temperature, rel=1e-6)
    assert again.report["cross_fit"] == pytest.approx(found.report["cross_fit"], abs=1e-5)


def test_three_disjoint_skills_are_pooled_and_a_cap_of_one_a_family_allows_it() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    knows = np.arange(600) // 200
    logits = 3.0 * np.eye(3)[labels] * (knows == np.arange(3)[:, None])[..., None] + rng.normal(size=(3, 600, 3))
    found = _select(logits, labels, max_per_family=1)
    assert set(found.members) == {0, 1, 2}
    assert found.report["answer"] == "ensemble"
    assert found.report["cross_fit"]["low"] > 0.1
    assert len(_select(logits, labels, max_per_family=1, families=["same"] * 3).members) == 1


# Oracle 7


def _plain_loop(truth: np.ndarray, steps: int) -> list[int]:
    """Caruana's greedy selection with replacement on probabilities of the true class, (members, samples)."""
    total, picks = np.zeros(truth.shape[1]), []
    for step in range(1, steps + 1):
        losses = [-np.log((total + each) / step).mean() for each in truth]
        picks.append(int(np.argmin(losses)))
        total = total + truth[picks[-1]]
    return picks


@pytest.mark.parametrize("seed", range(3))
def test_picks_are_those_of_the_plain_loop_for_200_models(seed: int) -> None:
    values, labels = _families_of_models(seed, members=200, rows=2_000)
    problem = _problem(values, labels, "prob", max_steps=25)
    assert list(walk(problem).picks) == _plain_loop(problem.encodings[:, 0].astype(np.float64), 25)


# Oracle 10


def test_temperatures_are_the_scales_of_the_posteriors_and_the_pool_of_equals_is_sharpened() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200_000)
    evidence = np.eye(3)[labels] + rng.normal(size=(4, 200_000, 3))  # its own posterior: softmax of itself
    scales = (0.3, 1.0, 2.5, 8.0)
    logits = np.stack([scale * each for scale, each in zip(scales, evidence, strict=True)]).astype(np.float32)
    candidates = Candidates(
        logits=logits,
        kept=(0, 1, 2, 3),
        rows=None,
        labels=labels,
        groups=np.arange(len(labels)),
        traits=_traits(4),
        rules=Rules(),
        screen=None,
    )
    calibrated, _ = calibrate(candidates, ())
    assert [calibrated.temperatures[member] for member in range(4)] == pytest.approx(scales, rel=0.01)
    pools = {pool: model_of(candidates, calibrated, range(4), [0.25] * 4, pool).final_temperature for pool in POOLS}
    assert pools["prob"] < 0.9
    assert pools["log"] == pytest.approx(0.25, rel=0.01)  # independent evidence adds up: the mean times four


# Oracle 9

CHUNK, CHUNKS = 50_000, 4
Drawn = tuple[np.ndarray, np.ndarray]
"""Logits of the true posterior, (samples, classes), and of the models, (members, samples, classes)."""
Draw = Callable[[np.random.Generator, int], Drawn]
Labelled = tuple[np.ndarray, np.ndarray]
"""Logits of the models, float32, and labels, (samples,)."""


def _equal(rng: np.random.Generator, rows: int) -> Drawn:
    """Six models with errors of their own and of one size: none is better than another."""
    truth = 1.5 * rng.normal(size=(rows, 3))
    return truth, truth + 0.6 * rng.normal(size=(6, rows, 3))


def _nearly_equal(rng: np.random.Generator, rows: int) -> Drawn:
    """Six models that share much of their errors; the rest is of rising size."""
    truth = 1.5 * rng.normal(size=(rows, 3))
    own = np.linspace(0.3, 0.6, 6)[:, None, None] * rng.normal(size=(6, rows, 3))
    return truth, truth + 0.5 * rng.normal(size=(rows, 3)) + own


def _complementary(rng: np.random.Generator, rows: int) -> Drawn:
    """Three skills, each held by two of the models, which see little of the others."""
    skills = 1.2 * rng.normal(size=(3, rows, 3))
    truth = skills.sum(axis=0)
    return truth, truth / 3 + skills[np.arange(6) % 3] * 2 / 3 + 0.4 * rng.normal(size=(6, rows, 3))


def _sample(draw: Draw, rng: np.random.Generator, rows: int) -> Labelled:
    """Return the models' logits, (members, samples, classes), and labels drawn from the true posterior."""
    truth, logits = draw(rng, rows)
    return logits.astype(np.float32), (truth + rng.gumbel(size=(rows, 3))).argmax(axis=1)


@dataclass(frozen=True)
class _Fresh:
    """Rows that no selection saw, each with its true posterior: less noise than as many labels would have.

    In chunks: logits less those of class 0, (members, classes, samples), and posteriors, (classes, samples), float32.
    """

    chunks: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def drawn(cls, draw: Draw) -> "_Fresh":
        rng = np.random.default_rng(10**6)
        return cls([cls._chunk(*draw(rng, CHUNK)) for _ in range(CHUNKS)])

    @staticmethod
    def _chunk(truth: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shifted = (logits - logits[..., :1]).transpose(0, 2, 1)
        posterior = np.exp(log_probs(truth)).T
        return np.ascontiguousarray(shifted, np.float32), np.ascontiguousarray(posterior, np.float32)

    def loss(self, model: Ensemble) -> float:
        """The log-loss of a model, as `pooled_log_probs` gives it but for the floor, which these logits do not meet."""
        return float(np.mean([self._chunk_loss(model, *chunk) for chunk in self.chunks]))

    @staticmethod
    def _chunk_loss(model: Ensemble, logits: np.ndarray, posterior: np.ndarray) -> float:
        total = np.zeros(logits.shape[1:], np.float32)
        for member, weight, temperature in zip(model.members, model.weights, model.temperatures, strict=True):
            scaled = logits[member] * np.float32(1 / temperature)
            if model.pool == "prob":
                np.exp(scaled, out=scaled)
                scaled /= scaled.sum(axis=0)
            total += np.float32(weight) * scaled
        if model.pool == "prob":
            np.log(total, out=total)
        total *= np.float32(1 / model.final_temperature)
        expected = (posterior * total).sum(axis=0).mean(dtype=np.float64)
        return float(np.log(np.exp(total).sum(axis=0)).mean(dtype=np.float64) - expected)


def _model(
    logits: np.ndarray, labels: np.ndarray, members: list[int], weights: list[float], pool: PoolName
) -> Ensemble:
    """Members and weights with the temperatures that a selection on these rows gives them."""
    temperatures = tuple(fit_temperature(logits[member], labels) for member in members)
    final = 1.0
    if len(members) > 1:
        pairs = zip(members, temperatures, strict=True)
        values = np.stack([floored(log_probs(logits[member], each)) for member, each in pairs])
        final = fit_temperature(pooled(pool, values, weights), labels)
    return Ensemble(
        members=tuple(members), weights=tuple(weights), temperatures=temperatures, final_temperature=final, pool=pool,
        trajectory=(), certificate=None, report={},
    )  # fmt: skip


def _claimed_and_true(fresh: _Fresh, logits: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float, float]:
    """The interval of the cross-fitted gain, and the true gain of what was picked on all rows."""
    found = _select(logits, labels, costs=[0.0] * 6, folds=np.arange(len(labels)) % 4, seed=seed)
    considered, losses = found.report["considered"], found.report["pool_log_loss"]
    ensemble = _model(logits, labels, considered["members"], considered["weights"], min(losses, key=losses.get))
    if found.report["answer"] == "ensemble":
        assert (found.members, found.weights, found.pool) == (ensemble.members, ensemble.weights, ensemble.pool)
        assert found.final_temperature == pytest.approx(ensemble.final_temperature)
    single = _model(logits, labels, [found.report["best_single"]], [1.0], "log")
    interval = found.report["cross_fit"]
    return interval["low"], interval["high"], fresh.loss(single) - fresh.loss(ensemble)


def _studies(draw: Draw, seeds: range) -> list[tuple[float, float, float]]:
    fresh = _Fresh.drawn(draw)
    drawn = [_sample(draw, np.random.default_rng(seed), 320) for seed in seeds]
    return [_claimed_and_true(fresh, *study, seed) for seed, study in zip(seeds, drawn, strict=True)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("draw", [_equal, _nearly_equal, _complementary])
def test_the_interval_of_the_cross_fitted_gain_covers_the_true_gain_in_nine_of_ten_studies(draw: Draw) -> None:
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        halves = pool.map(_studies, [draw, draw], [range(100), range(100, 200)])
        low, high, gain = np.array([study for half in halves for study in half]).T
    assert ((low <= gain) & (gain <= high)).mean() >= 0.9


@pytest.mark.parametrize("pool", POOLS)
def test_the_loss_on_fresh_rows_is_that_of_the_pooled_log_probabilities(pool: PoolName) -> None:
    logits, labels = _sample(_complementary, np.random.default_rng(0), 2_000)
    model = _model(logits, labels, [0, 1, 5], [0.5, 0.3, 0.2], pool)
    fresh = _Fresh([_Fresh._chunk(50.0 * np.eye(3)[labels], logits)])  # a posterior that is sure of the label
    expected = log_loss(pooled_log_probs(model, logits[[0, 1, 5]]), labels)
    assert fresh.loss(model) == pytest.approx(expected, abs=1e-6)


def test_copies_of_one_model_are_answered_by_the_single_model_for_every_seed() -> None:
    for seed in range(40):
        logits, labels = _sample(_equal, np.random.default_rng(seed), 320)
        found = _select(np.repeat(logits[:1], 6, axis=0), labels, folds=np.arange(320) % 5, seed=seed)
        assert found.report["answer"] == "single"
        assert len(found.members) == 1
