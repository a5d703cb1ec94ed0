import hashlib
import itertools

import numpy as np
import pytest
from scipy.stats import kstest

from spine_ray.core.seeds import derive_seed, uniform

KEYS = 100_000
WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15


def splitmix(value):
    """The next output of SplitMix64 from a state, in whole numbers without bounds."""
    value = (value + GOLDEN) % WORD
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB % WORD
    return value ^ value >> 31


def naive_uniform(key, stream):
    return (splitmix((splitmix(key) + (stream + 1) * GOLDEN) % WORD) >> 11) / 2**53


@pytest.fixture(scope="module", params=["counting", "random"])
def keys(request):
    if request.param == "counting":
        return np.arange(KEYS, dtype=np.uint64)
    return np.random.default_rng(0).integers(0, WORD, KEYS, dtype=np.uint64)


def test_the_reference_is_splitmix64():
    # The published outputs from the state 0.
    assert splitmix(0) == 0xE220A8397B1DCDAF
    assert splitmix(GOLDEN) == 0x6E789E6AA1B965F4


@pytest.mark.parametrize("stream", [0, 1, 7, 8 * 29 + 4, 2**40])
def test_numbers_equal_the_reference_in_whole_numbers_even_where_words_overflow(stream):
    keys = [0, 1, 2**32, 2**63, WORD - 1, WORD - GOLDEN]
    expected = [naive_uniform(key, stream) for key in keys]
    assert uniform(np.array(keys, np.uint64), stream).tolist() == expected


def test_numbers_depend_on_the_key_alone_and_not_on_its_row(keys):
    order = np.random.default_rng(1).permutation(KEYS)
    np.testing.assert_array_equal(uniform(keys, 3)[order], uniform(keys[order], 3))
    np.testing.assert_array_equal(uniform(keys, 3)[:10], uniform(keys[:10], 3))


def test_keys_are_left_as_they_are(keys):
    before = keys.copy()
    uniform(keys, 0)
    np.testing.assert_array_equal(keys, before)


def test_numbers_are_uniform_from_0_to_below_1(keys):
    numbers = uniform(keys, 0)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    # Five standard errors: sqrt(1/12/n) of the mean, sqrt(1/180/n) of the variance.
    assert abs(numbers.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / KEYS)
    assert abs(numbers.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / KEYS)
    assert kstest(numbers, "uniform").pvalue > 1e-4


def test_streams_and_neighbouring_keys_are_uncorrelated(keys):
    series = [uniform(keys, stream) - 0.5 for stream in range(16)]
    series.append(np.roll(series[0], 1))
    correlations = [12 * (one * other).mean() for one, other in itertools.combinations(series, 2)]
    assert np.abs(correlations).max() < 5 / np.sqrt(KEYS)


def test_a_seed_is_63_bits_of_the_sha256_of_its_names():
    expected = int(hashlib.sha256(b"7/epoch/refit/3").hexdigest()[:16], 16) // 2
    assert derive_seed(7, "epoch", "refit", 3) == expected
    assert 0 <= expected < 2**63


def test_seeds_differ_in_every_name_and_in_their_order():
    seeds = [derive_seed(seed, *names) for seed in range(5) for names in itertools.product(range(5), "abc")]
    assert len(set(seeds)) == len(seeds)
    assert derive_seed(0, "a", "b") != derive_seed(0, "b", "a")
