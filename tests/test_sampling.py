"""Weighted draws against their frequencies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlhf_jax import sampling


@pytest.mark.parametrize("weights", [[0, 1, 3, 0, 2, 0], [5, 0, 0, 1], [1] * 50, [0, 4000, 1000, 0]])
def test_rows_are_drawn_in_proportion_to_their_weights(weights):
    """Never a row of weight 0; chi-square over the others."""
    weights = np.array(weights)
    rows = sampling.draw(jax.random.key(0), jnp.asarray(weights), (100, 120))
    assert rows.shape == (100, 120)
    observed = np.bincount(np.asarray(rows).ravel(), minlength=len(weights))
    assert observed.shape == weights.shape
    assert observed[weights == 0].sum() == 0
    expected = 12_000 * weights[weights > 0] / weights.sum()
    assert stats.chisquare(observed[weights > 0], expected).pvalue > 1e-3


def test_draws_are_independent():
    rows = np.asarray(sampling.draw(jax.random.key(1), jnp.ones(4, jnp.int32), (4000, 2)))
    table = np.histogram2d(rows[:, 0], rows[:, 1], bins=4)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_mask_counts_as_weights():
    rows = sampling.draw(jax.random.key(2), jnp.array([False, True, False, True]), (200,))
    assert set(rows.tolist()) == {1, 3}


def test_nothing_to_draw_gives_the_first_row():
    """It must not be used, but it lies within bounds; so do lanes that have nothing beside others that have."""
    weights = jnp.array([[0, 0, 0], [0, 0, 2]])
    rows = jax.vmap(lambda w: sampling.draw(jax.random.key(3), w, (20,)))(weights)
    assert rows.tolist() == [[0] * 20, [2] * 20]


def test_same_key_gives_the_same_rows():
    first, again, other = (sampling.draw(jax.random.key(seed), jnp.ones(99, bool), (10,)) for seed in (4, 4, 5))
    assert first.tolist() == again.tolist() != other.tolist()
