"""Trials with and without stored activations, and the claim that both are the same."""

import numpy as np

from spine_ray.core.trial import TrialRun

PLENTY = 10**9
ROWS, FOLDS = 40, 2
CHUNKS = 2
"""Of 36 rows."""

FOLD_OF = np.random.default_rng(0).permutation(np.r_[np.full(4, -1), np.arange(36) % FOLDS]).astype(np.int8)
DEV = np.flatnonzero(FOLD_OF >= 0)


def run_all(run):
    records = []
    while not run.is_done:
        records.append(run.next_epoch())
    return records


def run_trial(network, config, task):
    """Run a trial; return its OOF logits, its records and how often the prefix was passed."""
    calls = []
    network.split.prefix.register_forward_hook(lambda *_: calls.append(1))
    trial = TrialRun(config, task, FOLD_OF, network, FOLDS)
    records = run_all(trial)
    return trial.oof_logits(), records, len(calls)


def files(cache):
    return {path.name: path for path in sorted(cache.glob("activations/*/*.npy"))}


def assert_storage_changes_no_bit(config, task, make_network, cache):
    """Run a trial of two epochs with and without room for its activations; both end with the same bits."""
    computed, records, _ = run_trial(make_network(config, task), config, task)
    assert files(cache) == {}
    stored, stored_records, calls = run_trial(make_network(config, task, activation_bytes=PLENTY), config, task)
    assert list(files(cache)) == ["scoring.npy", "view-000.npy", "view-001.npy"]
    assert calls == 1 + CHUNKS * 3
    np.testing.assert_array_equal(stored, computed)
    assert len(np.unique(stored[DEV], axis=0)) > len(DEV) // 3
    for one, other in zip(records, stored_records, strict=True):
        assert (one.train_loss, one.log_loss, one.views, one.note) == (
            *(other.train_loss, other.log_loss, other.views, other.note),
        )
