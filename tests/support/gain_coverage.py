"""The interval of the cross-fitted gain against the truth: studies drawn at random whose posterior is known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from spine_ray.ensemble import Ensemble, select
from spine_ray.ensemble.calibrate import fit_temperature, log_probs
from spine_ray.ensemble.pool import PoolName, floored, pooled


def select_logits(logits: np.ndarray, labels: np.ndarray, **options: Any) -> Ensemble:
    given = {
        "families": [f"f{index}" for index in range(len(logits))],
        "resolutions": [64] * len(logits),
        "costs": [1.0] * len(logits),
        "folds": np.arange(len(labels)) % 4,
    }
    return select(logits.astype(np.float32), labels, **{**given, **options})


CHUNK, CHUNKS = 50_000, 4
Drawn = tuple[np.ndarray, np.ndarray]
"""Logits of the true posterior, (samples, classes), and of the models, (members, samples, classes)."""
Draw = Callable[[np.random.Generator, int], Drawn]
Labelled = tuple[np.ndarray, np.ndarray]
"""Logits of the models, float32, and labels, (samples,)."""


def equal(rng: np.random.Generator, rows: int) -> Drawn:
    """Six models with errors of their own and of one size: none is better than another."""
    truth = 1.5 * rng.normal(size=(rows, 3))
    return truth, truth + 0.6 * rng.normal(size=(6, rows, 3))


def nearly_equal(rng: np.random.Generator, rows: int) -> Drawn:
    """Six models that share much of their errors; the rest is of rising size."""
    truth = 1.5 * rng.normal(size=(rows, 3))
    own = np.linspace(0.3, 0.6, 6)[:, None, None] * rng.normal(size=(6, rows, 3))
    return truth, truth + 0.5 * rng.normal(size=(rows, 3)) + own


def complementary(rng: np.random.Generator, rows: int) -> Drawn:
    """Three skills, each held by two of the models, which see little of the others."""
    skills = 1.2 * rng.normal(size=(3, rows, 3))
    truth = skills.sum(axis=0)
    return truth, truth / 3 + skills[np.arange(6) % 3] * 2 / 3 + 0.4 * rng.normal(size=(6, rows, 3))


def sample(draw: Draw, rng: np.random.Generator, rows: int) -> Labelled:
    """Return the models' logits, (members, samples, classes), and labels drawn from the true posterior."""
    truth, logits = draw(rng, rows)
    return logits.astype(np.float32), (truth + rng.gumbel(size=(rows, 3))).argmax(axis=1)


@dataclass(frozen=True)
class FreshRows:
    """Rows that no selection saw, each with its true posterior: less noise than as many labels would have.

    In chunks: logits less those of class 0, (members, classes, samples), and posteriors, (classes, samples), float32.
    """

    chunks: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def drawn(cls, draw: Draw) -> "FreshRows":
        rng = np.random.default_rng(10**6)
        return cls([cls.chunk(*draw(rng, CHUNK)) for _ in range(CHUNKS)])

    @staticmethod
    def chunk(truth: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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


def fixed_model(
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


def claimed_and_true_gain(
    fresh: FreshRows, logits: np.ndarray, labels: np.ndarray, seed: int
) -> tuple[float, float, float]:
    """The interval of the cross-fitted gain, and the true gain of what was picked on all rows."""
    found = select_logits(logits, labels, costs=[0.0] * 6, folds=np.arange(len(labels)) % 4, seed=seed)
    considered, losses = found.report["considered"], found.report["pool_log_loss"]
    ensemble = fixed_model(logits, labels, considered["members"], considered["weights"], min(losses, key=losses.get))
    if found.report["answer"] == "ensemble":
        assert (found.members, found.weights, found.pool) == (ensemble.members, ensemble.weights, ensemble.pool)
        assert found.final_temperature == pytest.approx(ensemble.final_temperature)
    single = fixed_model(logits, labels, [found.report["best_single"]], [1.0], "log")
    interval = found.report["cross_fit"]
    return interval["low"], interval["high"], fresh.loss(single) - fresh.loss(ensemble)


def claimed_and_true_gains(draw: Draw, seeds: range) -> list[tuple[float, float, float]]:
    fresh = FreshRows.drawn(draw)
    drawn = [sample(draw, np.random.default_rng(seed), 320) for seed in seeds]
    return [claimed_and_true_gain(fresh, *study, seed) for seed, study in zip(seeds, drawn, strict=True)]
