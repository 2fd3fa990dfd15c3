"""The buffer of answers against `collections.deque`, its bootstrap against the Poisson distribution."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import reference
from scipy import stats

from rlhf_jax import preferences
from rlhf_jax.queries import Queries
from rlhf_jax.teacher import Answers

add = jax.jit(preferences.add)


def batch(ids, weights):
    """Queries and answers that can be told by their ids, with a tie, a 0 and a 1 in turn for labels."""
    ids = jnp.asarray(ids)
    content = ids[:, None, None, None] + jnp.arange(6.0).reshape(1, 2, 3, 1) / 100
    queries = Queries(
        observation=content,
        action=jnp.broadcast_to(ids[:, None, None], (len(ids), 2, 3)).astype(jnp.int32),
        state={},
        true_reward=jnp.zeros((len(ids), 2, 3)),
        asked=jnp.asarray(weights) > 0,
    )
    return queries, Answers(label=ids % 3 / 2, weight=jnp.asarray(weights, jnp.float32))


def empty(capacity, members=2):
    """A buffer for segments of three steps."""
    return preferences.init(env=probes.make(probes.Probe()), capacity=capacity, length=3, members=members)


def contents(buffer):
    """The ids in the buffer, oldest first."""
    newest = int(buffer.added) % buffer.filled.shape[0]
    order = np.roll(np.arange(buffer.filled.shape[0]), -newest)
    return [int(buffer.action[i, 0, 0]) for i in order if buffer.filled[i]]


def test_continuous_actions_keep_their_shape():
    env = probes.make(probes.Probe(continuous=True))
    buffer = preferences.init(env=env, capacity=5, length=3, members=2)
    assert buffer.action.shape == (5, 2, 3, 1)
    assert buffer.action.dtype == jnp.float32


def test_new_buffer_is_empty():
    buffer = empty(5, members=3)
    assert buffer.observation.shape == (5, 2, 3, 1)
    assert buffer.action.shape == (5, 2, 3)
    assert buffer.action.dtype == jnp.int32
    assert buffer.multiplicity.shape == (3, 5)
    assert not buffer.filled.any()
    assert not buffer.multiplicity.any()
    assert buffer.added == 0


@pytest.mark.parametrize("capacity", [4, 7, 100])
def test_ring_buffer_against_deque(capacity):
    """Twelve adds of four rows each, a random part of them answered, into a buffer that wraps (or does not)."""
    rng = np.random.default_rng(capacity)
    buffer, expected = empty(capacity), reference.RingBuffer(capacity)
    for i in range(12):
        ids = np.arange(4.0 * i + 1, 4.0 * i + 5)
        weights = (rng.random(4) < 0.6) * rng.random(4)
        buffer = add(jax.random.key(i), buffer, *batch(ids, weights))
        expected.add(ids.tolist(), weights)
        assert contents(buffer) == list(expected.rows)
        assert buffer.added == expected.added
    assert expected.added > 20


def test_all_fields_of_a_row_belong_together():
    buffer = empty(7)
    for i in range(5):
        buffer = add(jax.random.key(i), buffer, *batch(np.arange(4.0 * i, 4.0 * i + 4), np.array([1.0, 0, 1, 1])))
    ids = np.asarray(buffer.action[:, 0, 0], np.float32)
    queries, answers = batch(ids, np.ones(7))
    np.testing.assert_array_equal(buffer.observation, queries.observation)
    np.testing.assert_array_equal(buffer.action, queries.action)
    np.testing.assert_array_equal(buffer.label, answers.label)


def test_rows_of_weight_zero_change_nothing():
    before = add(jax.random.key(0), empty(5), *batch([1.0, 2, 3, 4], [1, 1, 1, 1]))
    after = add(jax.random.key(1), before, *batch([5.0, 6, 7, 8], [0, 0, 0, 0]))
    jax.tree.map(np.testing.assert_array_equal, before, after)


def test_bootstrap_sample_is_fixed_when_a_row_is_added():
    """The rows that are not overwritten keep their multiplicity; the others draw a new one."""
    before = add(jax.random.key(0), empty(100, members=50), *batch([1.0, 2, 3, 4], [1, 1, 1, 1]))
    after = add(jax.random.key(1), before, *batch([5.0, 6, 7, 8], [1, 1, 1, 1]))
    np.testing.assert_array_equal(before.multiplicity[:, :4], after.multiplicity[:, :4])
    assert not before.multiplicity[:, 4:].any()
    assert after.multiplicity[:, 4:8].any(0).all()


@functools.cache
def multiplicities():
    """The multiplicity of 8,000 rows in the samples of three members."""
    buffer = add(jax.random.key(2), empty(8000, members=3), *batch(np.arange(8000.0), np.ones(8000)))
    return np.asarray(buffer.multiplicity)


def test_multiplicity_is_poisson():
    """A share 1/e of the labels is out of a member's bag; the rest follow the Poisson distribution of mean 1."""
    drawn = multiplicities()
    assert abs((drawn == 0).mean() - 0.36787944) < 0.01  # 3.2 standard errors
    observed = np.append(np.bincount(drawn.ravel(), minlength=8)[:5], (drawn >= 5).sum())
    expected = np.append(stats.poisson.pmf(np.arange(5), 1), stats.poisson.sf(4, 1)) * drawn.size
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_members_draw_their_samples_independently():
    correlation = np.corrcoef(multiplicities())
    assert np.abs(correlation[np.triu_indices(3, 1)]).max() < 0.05


def test_without_bootstrap_every_member_has_every_row_once():
    queries, answers = batch([1, 2, 3], [1, 0, 1])
    buffer = preferences.add(jax.random.key(0), empty(4), queries, answers, bootstrap=False)
    np.testing.assert_array_equal(buffer.multiplicity, [[1, 1, 0, 0], [1, 1, 0, 0]])


@pytest.mark.parametrize("added, capacity", [(0, 5), (3, 3), (3, 9), (4, 4), (6, 4), (6, 7), (9, 12)])
def test_another_buffer_takes_over_what_is_kept(added, capacity):
    buffer = empty(4)
    for i in range(added):
        buffer = add(jax.random.key(i), buffer, *batch([i + 1.0], [1.0]))
    kept = contents(buffer)
    multiplicity = {int(a): m.tolist() for a, m in zip(buffer.action[:, 0, 0], buffer.multiplicity.T, strict=True)}
    buffer = preferences.resize(buffer, capacity)
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), buffer)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), empty(capacity))
    assert int(buffer.added) == len(kept) and buffer.action[: len(kept), 0, 0].tolist() == kept
    assert buffer.filled.tolist() == [True] * len(kept) + [False] * (capacity - len(kept))
    assert buffer.label.tolist() == [i % 3 / 2 for i in kept] + [0.0] * (capacity - len(kept))
    assert [m.tolist() for m in buffer.multiplicity.T[: len(kept)]] == [multiplicity[i] for i in kept]
    # It goes on as if it had held nothing else.
    buffer = add(jax.random.key(99), buffer, *batch([77.0], [1.0]))
    assert contents(buffer) == [*kept, 77][-capacity:]


def test_answers_that_were_taken_back_stay_so_in_another_buffer():
    buffer = add(jax.random.key(0), empty(4), *batch([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]))
    buffer = dataclasses.replace(buffer, filled=buffer.filled.at[1].set(False))
    buffer = preferences.resize(buffer, 6)
    assert contents(buffer) == [1, 3] and int(buffer.added) == 3
