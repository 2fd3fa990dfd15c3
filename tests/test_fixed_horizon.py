"""Episodes without early ends: literal numbers on a clock, and CartPole inside and outside."""

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from gymnax.environments import spaces

from rlhf_jax import environments, rollout
from rlhf_jax.environments import FixedHorizon


def parity_policy(key, observation):
    """Acts on the parity of the time that a clock shows; 1 in the absorbing state."""
    del key
    absorbed = observation[:, 1] == 1
    return jnp.where(absorbed, 1, observation[:, 0] % 2).astype(jnp.int32), jnp.zeros(observation.shape[0])


def left(key, observation):
    del key
    return jnp.zeros(observation.shape[0], jnp.int32), jnp.zeros(observation.shape[0])


def play(env, policy, num_steps, num_envs=1):
    start = rollout.init(jax.random.key(0), env=env, num_envs=num_envs)
    return rollout.rollout(jax.random.key(1), start, policy, env=env, num_steps=num_steps)[1:]


def test_early_end_becomes_an_absorbing_state_that_pays_nothing():
    """A clock of three steps with a limit of six pays time + action: 0, 2, 2, and then nothing until the limit."""
    env = environments.wrap(FixedHorizon(probes.Clock(length=3)))
    assert (env.horizon, env.observation_shape, env.name) == (6, (2,), "Probe with a fixed horizon")
    steps, info = play(env, parity_policy, 8)
    shown = [[0, 0], [1, 0], [2, 0], [0, 1], [0, 1], [0, 1], [0, 0], [1, 0]]
    assert steps.observation[:, 0].tolist() == shown
    assert steps.next_observation[:, 0].tolist() == [*shown[1:6], [0, 1], [1, 0], [2, 0]]
    assert steps.true_reward[:, 0].tolist() == [0, 2, 2, 0, 0, 0, 0, 2]
    assert not steps.terminated.any()
    assert steps.truncated[:, 0].tolist() == [False] * 5 + [True] + [False] * 2
    assert (info["episodes"], info["return"]) == (1, 4.0)


def test_without_early_ends_it_only_adds_a_zero_to_the_observation():
    inside, outside = (
        environments.wrap(base) for base in (probes.Clock(4, False), FixedHorizon(probes.Clock(4, False)))
    )
    (before, _), (after, _) = (play(env, left, 10) for env in (inside, outside))
    np.testing.assert_array_equal(after.observation, np.pad(before.observation, ((0, 0), (0, 0), (0, 1))))
    for name in ("true_reward", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))


def test_end_in_the_last_step_is_told_by_the_last_observation():
    """A clock that ends exactly at the limit: both ends at once are a truncation in the absorbing state."""
    params = probes.Params(3)
    env = environments.wrap(FixedHorizon(probes.Clock(length=3)), params)
    steps, _ = play(env, parity_policy, 4)
    assert steps.true_reward[:, 0].tolist() == [0, 2, 2, 0]
    assert (steps.terminated.any(), steps.truncated[:, 0].tolist()) == (False, [False, False, True, False])
    assert steps.next_observation[2, 0].tolist() == [0, 1] and steps.observation[3, 0].tolist() == [0, 0]


def test_cartpole_falls_from_the_same_starts_after_the_same_time():
    made = environments.make("CartPole-v1")
    params = made.params.replace(max_steps_in_episode=15)
    inside, outside = (environments.wrap(base, params) for base in (made.base, FixedHorizon(made.base)))
    evaluate = lambda env: rollout.evaluate(jax.random.key(2), left, env=env, num_episodes=16)  # noqa: E731
    (returns, before), (same, after) = evaluate(inside), evaluate(outside)
    np.testing.assert_array_equal(same, returns)
    assert len(set(returns.tolist())) > 1 and (returns < 15).all()
    np.testing.assert_array_equal(after.observation[0, :, :4], before.observation[0])
    # Absorbed from the step after the fall on, and all of it looks the same.
    absorbed = np.asarray(after.observation[..., 4])
    np.testing.assert_array_equal(absorbed.sum(0), 15 - returns)
    assert (np.asarray(after.observation)[absorbed == 1] == [0, 0, 0, 0, 1]).all()
    assert after.done.sum() == 16 and after.done[-1].all()


def test_observation_space_holds_the_absorbing_state():
    class Positive(probes.Probe):
        def observation_space(self, params):
            return spaces.Box(1.0, 5.0, (2,))

    space = FixedHorizon(Positive()).observation_space(None)
    assert (np.asarray(space.low).tolist(), np.asarray(space.high).tolist()) == ([0, 0, 0], [5, 5, 1])


def test_images_are_refused():
    class Image(probes.Probe):
        def observation_space(self, params):
            return spaces.Box(0.0, 1.0, (10, 10, 4))

    with pytest.raises(ValueError, match=r"Probe observes arrays of shape \(10, 10, 4\); a vector is needed"):
        environments.wrap(FixedHorizon(Image()))
