"""Statistics over seeds against scipy, theory and literals."""

import numpy as np
import pytest
from scipy import stats

from experiments import seed_statistics


@pytest.mark.parametrize(
    "values, expected",
    [
        ([7.0], 7.0),
        ([1.0, 4.0], 2.5),
        ([100.0, 1.0, 2.0], (0.25 * 1 + 2 + 0.25 * 100) / 1.5),
        ([1000.0, 3.0, 1.0, -1000.0], 2.0),
        ([0.0, 1.0, 2.0, 4.0, 100.0], (0.75 * 1 + 2 + 0.75 * 4) / 2.5),
        ([9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, -9.0], 3.5),
    ],
)
def test_interquartile_mean_is_the_mean_of_the_middle_half(values, expected):
    np.testing.assert_allclose(seed_statistics.interquartile_mean(np.array(values)), expected)


@pytest.mark.parametrize("seeds", [4, 8, 20])
def test_interquartile_mean_agrees_with_scipy_where_a_quarter_is_whole(seeds):
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(seeds).normal(size=(seeds, 5, 3))
    np.testing.assert_allclose(seed_statistics.interquartile_mean(values), stats.trim_mean(values, 0.25, axis=0))


@pytest.mark.parametrize("seeds", range(1, 12))
def test_interquartile_mean_agrees_with_four_copies_of_each_seed(seeds):
    # Four copies make the quarter whole without moving the quantiles.
    values = np.random.default_rng(seeds).normal(size=(seeds, 3))
    middle = np.sort(np.repeat(values, 4, axis=0), axis=0)[seeds : 3 * seeds].mean(axis=0)
    np.testing.assert_allclose(seed_statistics.interquartile_mean(values), middle)


def test_interquartile_mean_never_passes_over_a_lost_seed():
    values = np.arange(16.0).reshape(8, 2)
    values[3, 0] = np.nan
    result = seed_statistics.interquartile_mean(values)
    assert np.isnan(result[0]) and result[1] == 8.0


@pytest.mark.parametrize("seeds", [3, 8, 10])
def test_bootstrap_interval_contains_the_statistic(seeds):
    values = np.random.default_rng(1).normal(size=(seeds, 40))
    low, high = seed_statistics.bootstrap_interval(values)
    middle = seed_statistics.interquartile_mean(values)
    assert low.shape == high.shape == (40,)
    assert np.all(low < middle) and np.all(middle < high)


def test_bootstrap_interval_of_identical_seeds_is_a_point():
    low, high = seed_statistics.bootstrap_interval(np.tile([1.0, -2.0, 3.0], (8, 1)))
    np.testing.assert_allclose(low, [1.0, -2.0, 3.0])
    np.testing.assert_allclose(high, [1.0, -2.0, 3.0])


def test_bootstrap_interval_of_the_mean_has_the_width_of_theory():
    values = np.random.default_rng(2).normal(size=400)
    low, high = seed_statistics.bootstrap_interval(values, statistic=lambda x: x.mean(axis=0), level=0.95, samples=4000)
    np.testing.assert_allclose(high - low, 2 * 1.96 * values.std() / 20.0, rtol=0.06)
    inner_low, inner_high = seed_statistics.bootstrap_interval(values, statistic=lambda x: x.mean(axis=0), level=0.5)
    assert low < inner_low < inner_high < high


def test_bootstrap_interval_repeats_with_its_seed_and_marks_lost_points():
    values = np.random.default_rng(0).normal(size=(8, 40))
    values[2, 5] = np.nan
    first, second = seed_statistics.bootstrap_interval(values), seed_statistics.bootstrap_interval(values)
    np.testing.assert_array_equal(first, second)
    assert np.isnan(first[0][5]) and np.isnan(first[1][5]) and np.isfinite(np.delete(first, 5, axis=1)).all()
    low, high = seed_statistics.bootstrap_interval(values, statistic=lambda x: np.nanmean(x, axis=0))
    assert np.isnan(low[5]) and np.isnan(high[5])
    assert not np.array_equal(first, seed_statistics.bootstrap_interval(values, seed=1), equal_nan=True)


def test_held_fills_gaps_and_nothing_before_or_after():
    nan = np.nan
    values = np.array([[nan, 1.0, nan, nan, 4.0], [2.0, nan, 3.0, nan, nan], [nan] * 5])
    expected = [[nan, 1.0, 1.0, 1.0, 4.0], [2.0, 2.0, 3.0, nan, nan], [nan] * 5]
    np.testing.assert_array_equal(seed_statistics.held(values), expected)


def test_improvement_literals():
    # 2 beats 0 and 1, and 1 beats 0 and ties 1: (1 + 1 + 1 + ½) / 4.
    assert seed_statistics.improvement(np.array([1.0, 2.0]), np.array([0.0, 1.0]))[0] == 0.875
    assert seed_statistics.improvement(np.array([3.0, 4.0]), np.array([1.0, 2.0, 0.0])) == (1.0, 1.0, 1.0)
    assert seed_statistics.improvement(np.full(8, 5.0), np.full(8, 5.0)) == (0.5, 0.5, 0.5)


def test_improvement_is_that_of_the_rank_sum_test_and_its_interval_covers():
    rng = np.random.default_rng(3)
    x, y = rng.normal(0.5, size=12), rng.normal(size=10)
    better, low, high = seed_statistics.improvement(x, y)
    assert better == pytest.approx(stats.mannwhitneyu(x, y).statistic / 120)
    truth, covered = stats.norm.cdf(0.5 / np.sqrt(2)), 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        _, low, high = seed_statistics.improvement(
            rng.normal(0.5, size=16), rng.normal(size=16), samples=400, seed=seed
        )
        covered += low <= truth <= high
    assert 87 <= covered <= 99
