"""Segments of a rollout against loops and slices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy import stats

from rlhf_jax import segments


@pytest.mark.parametrize("length", [1, 2, 5, 12])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 1.0])
def test_valid_starts_against_brute_force(length, rate):
    done = np.random.default_rng(0).random((12, 30)) < rate
    np.testing.assert_array_equal(
        segments.valid_starts(jnp.asarray(done), length), reference.valid_starts(done, length)
    )


def test_a_segment_may_end_with_its_episode_but_not_go_on():
    done = jnp.array([False, False, True, False, False, False])[:, None]
    assert segments.valid_starts(done, 3)[:, 0].tolist() == [True, False, False, True]
    assert segments.valid_starts(done, 1)[:, 0].tolist() == [True] * 6


@pytest.mark.parametrize("length", [1, 3, 10])
def test_window_sums_against_brute_force(length):
    values = np.random.default_rng(1).normal(size=(10, 4, 2)).astype(np.float32)
    sums = segments.window_sums(jnp.asarray(values), length)
    assert sums.shape == (11 - length, 4, 2)
    np.testing.assert_allclose(sums, reference.window_sums(values, length), rtol=1e-4, atol=1e-5)


def test_window_sums_literal():
    assert segments.window_sums(jnp.array([1.0, 2.0, 4.0, 8.0]), 2).tolist() == [3.0, 6.0, 12.0]


def test_sample_is_uniform_over_valid_windows_and_never_crosses():
    """Frequencies of 9,000 draws over the 3 × 7 starts: none where invalid, chi-square elsewhere."""
    done = np.random.default_rng(2).random((9, 7)) < 0.15
    valid = reference.valid_starts(done, 3)
    assert 10 < valid.sum() < 49
    windows = segments.sample(jax.random.key(0), jnp.asarray(valid), (3000, 3))
    assert windows.start.shape == windows.env.shape == (3000, 3)
    counts = np.zeros(valid.shape)
    np.add.at(counts, (np.asarray(windows.start).ravel(), np.asarray(windows.env).ravel()), 1)
    assert counts[~valid].sum() == 0
    assert stats.chisquare(counts[valid]).pvalue > 1e-3


def test_slots_of_a_pair_are_drawn_independently():
    windows = segments.sample(jax.random.key(1), jnp.ones((2, 2), bool), (4000, 2))
    index = np.asarray(windows.start * 2 + windows.env)
    table = np.histogram2d(index[:, 0], index[:, 1], bins=4)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("start", [(0, 0), (4, 2), (2, 1)])
def test_sample_finds_the_only_valid_window(start):
    valid = jnp.zeros((5, 3), bool).at[start].set(True)
    windows = segments.sample(jax.random.key(2), valid, (20,))
    assert set(windows.start.tolist()) == {start[0]}
    assert set(windows.env.tolist()) == {start[1]}


def test_sample_with_no_valid_window_returns_the_first():
    """Its content must not be used, but it lies within the rollout."""
    windows = segments.sample(jax.random.key(3), jnp.zeros((5, 3), bool), (4,))
    assert windows.start.tolist() == [0] * 4
    assert windows.env.tolist() == [0] * 4


def test_cut_equals_slices():
    rng = np.random.default_rng(3)
    values = rng.normal(size=(20, 3, 2)).astype(np.float32)
    start, env = rng.integers(0, 17, (6, 2)), rng.integers(0, 3, (6, 2))
    pieces = segments.cut(jnp.asarray(values), segments.Windows(jnp.asarray(start), jnp.asarray(env)), 4)
    assert pieces.shape == (6, 2, 4, 2)
    for q in range(6):
        for slot in range(2):
            expected = values[start[q, slot] : start[q, slot] + 4, env[q, slot]]
            np.testing.assert_array_equal(pieces[q, slot], expected)


def test_cut_keeps_dtype_of_discrete_actions():
    actions = jnp.arange(12, dtype=jnp.int32).reshape(6, 2)
    pieces = segments.cut(actions, segments.Windows(jnp.array(1), jnp.array(0)), 3)
    assert pieces.dtype == jnp.int32
    assert pieces.tolist() == [2, 4, 6]
