"""Stored trajectories, preferences between them, and the reward that is learnt from these."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from offline_data import LINEAR, TWO, linear_reward, some_trajectories, steps_of

from rlhf_jax.offline import trajectories, trajectory_reward
from rlhf_jax.offline.trajectories import Pairs


def test_trajectories_are_first_episodes():
    """Two environments, five steps: the first ends after two and after four."""
    done = jnp.array([[False, False], [True, False], [False, False], [True, True], [False, False]])
    observation = jnp.arange(10.0).reshape(5, 2, 1)
    data = trajectories.from_rollout(steps_of(jnp.zeros((5, 2), jnp.int32), done, observation), jnp.array([2.0, 4.0]))
    assert data.mask.tolist() == [[True, True, False, False, False], [True, True, True, True, False]]
    assert data.observation[..., 0].tolist() == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]


def test_moments_do_not_see_padding():
    data = some_trajectories([3, 7, 5])
    moments = trajectories.observation_moments(data)
    real = np.asarray(data.observation, np.float64)[np.asarray(data.mask)]
    np.testing.assert_allclose(moments.count, 15)
    np.testing.assert_allclose(moments.mean, real.mean(0), rtol=1e-5)
    np.testing.assert_allclose(moments.std, real.std(0), rtol=1e-5)


def test_preferences_literal():
    pairs = jnp.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]])
    assert trajectories.preference(pairs).tolist() == [1.0, 0.0, 0.5]


def test_pairs_are_of_different_trajectories_and_use_all():
    returns = jnp.array([1.0, 5.0, 5.0, 9.0])
    pairs = trajectories.compare(jax.random.key(5), returns, 300)
    first, second = np.asarray(pairs.index).T
    assert (first != second).all() and len(set(zip(first.tolist(), second.tolist(), strict=True))) == 12
    expected = [1.0 if returns[i] > returns[j] else 0.5 if returns[i] == returns[j] else 0.0 for i, j in pairs.index]
    np.testing.assert_array_equal(pairs.label, expected)


@pytest.mark.parametrize(
    ("returns", "labels", "words"),
    [
        ([], [], "no reward can be learnt from 0 trajectories and 0 pairs"),
        ([1.0, 2.0], [], "from 2 trajectories and 0 pairs"),
        ([1.0, np.nan, np.inf], [1.0], "2 of 3 true returns are NaN or infinite"),
        ([7.0, 7.0], [0.5, 0.5], r"all 2 pairs of trajectories tie \(returns from 7 to 7\)"),
    ],
)
def test_data_without_a_lesson_are_refused(returns, labels, words):
    with pytest.raises(ValueError, match=words):
        trajectories.check(np.array(returns), np.array(labels))
    trajectories.check(np.array([7.0, 8.0]), np.array([0.5, 0.0]))


def test_predicted_returns_do_not_count_padding():
    data = some_trajectories([2, 5])
    kernel, bias = [0.5, -1.0, 0.25, 2.0], 0.125
    returns = trajectory_reward.returns(linear_reward(kernel, bias), data, env=TWO, config=LINEAR)
    expected = [
        sum(
            np.dot(kernel, [*data.observation[i, t], data.action[i, t] == 0, data.action[i, t] == 1]) + bias
            for t in range(length)
        )
        for i, length in enumerate([2, 5])
    ]
    np.testing.assert_allclose(returns, expected, rtol=1e-5)


def test_the_zero_of_a_reward_matters_between_trajectories_of_different_length():
    """One more in every step moves the log-odds of a pair by the difference of the lengths, 2 − 5."""
    data = some_trajectories([2, 5])
    low, high = (
        trajectory_reward.returns(linear_reward([0.0] * 4, b), data, env=TWO, config=LINEAR) for b in (0.0, 1.0)
    )
    assert (high[0] - high[1]) - (low[0] - low[1]) == -3.0


def test_accuracy_leaves_ties_out():
    pairs = Pairs(jnp.array([[0, 1], [1, 2], [2, 0], [0, 2]]), jnp.array([1.0, 1.0, 0.5, 0.0]))
    # Predicted: 3 > 1, right; 1 < 2, wrong; a tie; 3 > 2, wrong.
    np.testing.assert_allclose(trajectory_reward.accuracy(jnp.array([3.0, 1.0, 2.0]), pairs), 1 / 3)


@functools.cache
def fitted(longer_is_better):
    """A linear reward fitted to preferences for the longer, or for the shorter, of random trajectories."""
    data = some_trajectories([1, 3, 4, 6, 7, 9, 12, 15])
    sign = 1.0 if longer_is_better else -1.0
    pairs = trajectories.compare(jax.random.key(6), sign * data.true_return, 60)
    fit = functools.partial(trajectory_reward.fit, env=TWO, config=LINEAR)
    return data, pairs, *jax.jit(fit)(jax.random.key(7), data, pairs)


@pytest.mark.parametrize("longer_is_better", [True, False])
def test_fit_learns_the_sign_of_a_step_from_lengths(longer_is_better):
    data, pairs, reward, info = fitted(longer_is_better)
    predicted = np.asarray(trajectory_reward.returns(reward, data, env=TWO, config=LINEAR))
    assert info["accuracy"][-1] > 0.95 and info["loss"][-1] < 0.2
    steps = trajectory_reward.predict(reward, data.observation, data.action, env=TWO, config=LINEAR)
    steps = np.asarray(steps)[np.asarray(data.mask)]
    assert (steps.mean() > 0) == longer_is_better
    np.testing.assert_allclose(np.sqrt(np.square(steps).mean()), 1.0, rtol=1e-4)
    # Unit scale is a division and no shift: with the scale undone, the loss is that of the fit, but for its last step.
    returns = predicted[np.asarray(pairs.index)] * float(reward.scale)
    probability = reference.sigmoid(returns[:, 0] - returns[:, 1])
    label = np.asarray(pairs.label)
    nats = -(label * np.log(probability) + (1 - label) * np.log(1 - probability)).mean()
    np.testing.assert_allclose(nats, info["loss"][-1], rtol=0.1)


def test_fit_begins_undecided():
    np.testing.assert_allclose(fitted(True)[3]["loss"][0], np.log(2), rtol=0.05)


def test_weights_but_not_biases_are_shrunk():
    assert trajectory_reward.squared_weights(linear_reward([1.0, 2.0, 3.0, 4.0], 100.0)) == 30.0
