"""Diagnostics of a learnt reward against scipy, loops and numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlhf_jax import diagnostics


def test_rank_correlation_literal():
    """Ranks 1, 2, 3, 4 and 2, 1, 4, 3: 1 − 6 × 4 / (4 × 15) = 0.6; only the order counts."""
    a, b = jnp.array([[-5.0, 0.1], [0.2, 900.0]]), jnp.array([[2.0, 1.0], [40.0, 3.0]])
    np.testing.assert_allclose(diagnostics.rank_correlation(a, b), 0.6, rtol=1e-6)
    np.testing.assert_allclose(diagnostics.rank_correlation(a, -a), -1.0, rtol=1e-6)


@pytest.mark.parametrize("values", [3, 20, 10_000])
def test_rank_correlation_against_scipy(values):
    """Few values make many ties."""
    a, b = np.random.default_rng(values).integers(0, values, (2, 500)).astype(np.float32)
    b = b + 0.5 * a
    np.testing.assert_allclose(diagnostics.rank_correlation(a, b), stats.spearmanr(a, b).statistic, atol=1e-6)


def test_rank_correlation_of_a_constant_is_nan():
    varied = jnp.arange(6400.0)
    assert jnp.isnan(diagnostics.rank_correlation(varied, jnp.full(6400, 0.1)))
    assert jnp.isnan(diagnostics.rank_correlation(jnp.full(6400, 0.1), varied))


def test_reliability_literal():
    """Two bins of two pairs: 0.9 came true, 0.3 counts as 0.7 for the other slot, which was preferred, twice."""
    bins = diagnostics.reliability(jnp.array([0.9, 0.3]), jnp.array([1.0, 0.0]), jnp.array([1.0, 2.0]), bins=2)
    np.testing.assert_allclose(bins.predicted, [0.7 / 3, 2.3 / 3], rtol=1e-6)
    np.testing.assert_allclose(bins.observed, [0.0, 1.0], atol=1e-6)
    np.testing.assert_allclose(bins.count, [1.5, 1.5])
    np.testing.assert_allclose(diagnostics.calibration_error(bins), 0.7 / 3, rtol=1e-6)


def test_calibration_error_literal():
    """(2 × 0.1 + 6 × 0.05) / 8; the empty bin is left out."""
    bins = diagnostics.Reliability(
        predicted=jnp.array([0.1, jnp.nan, 0.9]),
        observed=jnp.array([0.2, jnp.nan, 0.85]),
        count=jnp.array([2.0, 0.0, 6.0]),
    )
    np.testing.assert_allclose(diagnostics.calibration_error(bins), 0.0625, rtol=1e-5)
    assert jnp.isnan(diagnostics.calibration_error(diagnostics.reliability(jnp.ones(3), jnp.ones(3), jnp.zeros(3))))


@pytest.mark.parametrize("num_bins", [5, 10])
def test_reliability_against_a_loop(num_bins):
    """Every pair twice, once with its slots swapped, into bins by the half-open intervals of the first."""
    rng = np.random.default_rng(0)
    probability = rng.beta(0.5, 0.5, 300)
    probability[:4] = [0.0, 0.5, 1.0, 0.2]
    label, weight = rng.choice([0.0, 0.5, 0.8, 1.0], 300), rng.integers(0, 3, 300).astype(float)
    content: list[list] = [[] for _ in range(num_bins)]
    for p, mu, w in zip(probability, label, weight, strict=True):
        index = next(i for i in reversed(range(num_bins)) if np.float32(p) >= np.float32(i / num_bins))
        content[index].append((p, mu, w / 2))
        content[num_bins - 1 - index].append((1 - p, 1 - mu, w / 2))
    predicted, observed, count = (np.zeros(num_bins) for _ in range(3))
    for i, rows in enumerate(content):
        p, mu, w = np.array(rows).T
        predicted[i], observed[i], count[i] = (p * w).sum() / w.sum(), (mu * w).sum() / w.sum(), w.sum()

    label[weight == 0] = np.nan
    bins = diagnostics.reliability(*(jnp.asarray(x, jnp.float32) for x in (probability, label, weight)), num_bins)
    np.testing.assert_allclose(bins.predicted, predicted, rtol=1e-5)
    np.testing.assert_allclose(bins.observed, observed, rtol=1e-5)
    np.testing.assert_allclose(bins.count, count)
    np.testing.assert_allclose(bins.predicted + bins.predicted[::-1], 1.0, rtol=1e-5)
    expected = (count * np.abs(observed - predicted)).sum() / weight.sum()
    np.testing.assert_allclose(diagnostics.calibration_error(bins), expected, rtol=1e-4)


def test_swapping_the_slots_of_some_pairs_changes_no_bin():
    rng = np.random.default_rng(1)
    probability, swap = jnp.asarray(rng.random(200)), jnp.asarray(rng.random(200) < 0.5)
    label = jnp.asarray(rng.choice([0.0, 0.5, 1.0], 200))
    before = diagnostics.reliability(probability, label, jnp.ones(200))
    after = diagnostics.reliability(
        jnp.where(swap, 1 - probability, probability), jnp.where(swap, 1 - label, label), jnp.ones(200)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), before, after)


def test_ensemble_spread_literal():
    """Members −1, 1 and 1, −1 disagree by 1 in each step, whatever their scales; equal ones not at all."""
    opposed = jnp.array([[-1.0, 1.0], [510.0, 490.0]])
    np.testing.assert_allclose(diagnostics.ensemble_spread(opposed), 1.0, rtol=1e-5)
    np.testing.assert_allclose(diagnostics.ensemble_spread(opposed * jnp.array([[1.0], [-1.0]])), 0.0, atol=1e-5)


def test_ensemble_spread_against_numpy():
    members = np.random.default_rng(2).normal(size=(3, 20, 4)) * np.array([1.0, 7.0, 0.1])[:, None, None] + 5.0
    normal = (members - members.mean((1, 2), keepdims=True)) / members.std((1, 2), keepdims=True)
    spread = diagnostics.ensemble_spread(jnp.asarray(members, jnp.float32))
    np.testing.assert_allclose(spread, normal.std(0).mean(), rtol=1e-4)


POINTS, WINDOW, ONSET = 60, 5, 30
TIME = np.arange(POINTS)
RISE = TIME / POINTS
LEARNT = np.minimum(TIME / 20, 1.0)
EXPLOITED = np.where(TIME < ONSET, TIME / ONSET, 2.0 - TIME / ONSET)
alarms = jax.jit(jax.vmap(lambda proxy, truth: diagnostics.over_optimisation(proxy, truth, WINDOW)))


def noisy(curve, noise, seed, runs=200):
    """Runs that differ in their noise."""
    return curve + noise * np.random.default_rng(seed).normal(size=(runs, POINTS))


@pytest.mark.parametrize("noise", [0.0, 0.01, 0.05, 0.2, 1.0])
@pytest.mark.parametrize(
    ("proxy", "truth"), [(0 * TIME, 0 * TIME), (RISE, RISE), (LEARNT, LEARNT), (RISE, LEARNT), (-RISE, -RISE)]
)
def test_no_alarm_about_noise(proxy, truth, noise):
    """Of 200 runs on a plateau, while both rise, while the proxy alone goes on, or both fall, three may err."""
    assert alarms(noisy(proxy, noise, 3), noisy(truth, noise, 4)).any(1).sum() <= 3


def test_alarm_soon_after_the_onset():
    """Within two windows, and not before, whatever the scales; and it lasts."""
    alarm = alarms(np.stack([RISE, 1e3 * RISE - 7.0]), np.stack([EXPLOITED, 0.01 * EXPLOITED - 40.0]))
    assert not alarm[:, : ONSET + 1].any()
    assert alarm[:, ONSET + 2 * WINDOW :].all()
    assert not alarms(np.stack([-RISE, EXPLOITED]), np.stack([EXPLOITED, RISE])).any()


def test_no_alarm_about_a_trifle():
    """A parabola has hardly any noise, so what counts is a tenth of the range that its windows have had so far."""
    truth = -(((TIME - 40) / 40.0) ** 2)
    smooth = np.convolve(truth, np.ones(WINDOW) / WINDOW, "valid")
    fall, extent = np.maximum.accumulate(smooth) - smooth, smooth.max() - smooth.min()
    alarm = alarms(RISE[None], truth[None])[0, WINDOW - 1 :]
    np.testing.assert_array_equal(alarm, fall > 0.1 * extent)
    assert 2 <= alarm.sum() <= 10


@pytest.mark.parametrize(("gaps", "windows"), [("none", 3), ("every other", 3), ("random", 4)])
def test_alarm_in_spite_of_noise_and_gaps(gaps, windows):
    """Nearly all of 200 noisy runs alarm within a few windows, and none before, though no episode ended at times."""
    truth, proxy = noisy(EXPLOITED, 0.05, 5), noisy(RISE, 0.05, 7)
    if gaps == "every other":
        truth[:, ::2] = np.nan
    elif gaps == "random":
        truth[np.random.default_rng(6).random(truth.shape) < 0.3] = np.nan
    alarm = alarms(proxy, truth)
    assert alarm[:, : ONSET + windows * WINDOW].any(1).mean() > 0.95
    assert alarm[:, :ONSET].any(1).mean() < 0.02


def test_alarm_looks_back_only():
    """What comes later changes nothing that was said before."""
    proxy, truth = noisy(RISE, 0.1, 8, runs=20), noisy(EXPLOITED, 0.1, 9, runs=20)
    before = alarms(proxy, truth)
    proxy[:, 45:], truth[:, 45:] = 9.0, np.nan
    np.testing.assert_array_equal(alarms(proxy, truth)[:, :45], before[:, :45])
    assert before[:, :45].any()
