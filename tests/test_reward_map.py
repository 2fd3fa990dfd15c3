"""The plane of states against gymnax and literal numbers; the learnt map against the ensemble, state by state."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rlhf_jax
from experiments import reward_map
from rlhf_jax import reward_ensemble

PLANE = reward_map.PLANES["Pendulum-v1"]
RNG = np.random.default_rng(0)


def test_plane_of_the_pendulum_by_hand():
    assert PLANE.reward.shape == PLANE.observation.shape[:2] == (65, 65)
    middle, last = 32, 64
    np.testing.assert_allclose(PLANE.observation[middle, middle], [1.0, 0.0, 0.0], atol=1e-6)
    assert PLANE.reward[middle, middle] == 0.0
    np.testing.assert_allclose(PLANE.reward[last, 0], -(np.pi**2 + 6.4))
    np.testing.assert_allclose(PLANE.observation[last, middle], [1.0, 0.0, 8.0], atol=1e-6)
    np.testing.assert_allclose(PLANE.observation[middle, 48], [0.0, 1.0, 0.0], atol=1e-6)


def test_plane_of_the_pendulum_is_that_of_the_environment():
    env = rlhf_jax.make("Pendulum-v1")
    _, state = env.reset(jax.random.key(0))
    for row, column in [(32, 32), (5, 60), (64, 3), (40, 20)]:
        there = state.replace(
            theta=jnp.float32(PLANE.across.values[column]), theta_dot=jnp.float32(PLANE.up.values[row])
        )
        _, step = env.step(jax.random.key(1), there, jnp.zeros(1))
        np.testing.assert_allclose(PLANE.reward[row, column], step.reward, rtol=1e-4, atol=1e-5)
        seen = env.base.get_obs(there)
        np.testing.assert_allclose(PLANE.observation[row, column], seen, atol=1e-5)


def test_learnt_is_the_prediction_of_every_state_without_action(monkeypatch):
    env = rlhf_jax.make("Pendulum-v1")
    config = rlhf_jax.Config(reward=rlhf_jax.RewardConfig(hidden=(4,), members=2))
    small = reward_map.Plane(PLANE.across, PLANE.up, PLANE.observation[:3, :4], PLANE.reward[:3, :4])
    monkeypatch.setitem(reward_map.PLANES, "Pendulum-v1", small)
    one = reward_ensemble.init(jax.random.key(0), env=env, config=config.reward)
    agents = jax.tree.map(lambda x: jnp.stack([x, 1.5 * x]), one)
    learnt = jax.jit(jax.vmap(lambda ensemble: reward_map.learnt(ensemble, env=env, config=config)))(agents)
    assert learnt.shape == (2, 3, 4)
    second = jax.tree.map(lambda x: x[1], agents)
    alone = reward_ensemble.predict(
        second, jnp.asarray(small.observation[2, 1]), jnp.zeros(1), env=env, config=config.reward
    )
    np.testing.assert_allclose(learnt[1, 2, 1], alone, rtol=1e-5)
    assert np.unique(learnt).size == learnt.size


def test_learnt_of_a_set_of_actions_takes_the_first(monkeypatch):
    env = rlhf_jax.make("CartPole-v1")
    seen = {}
    monkeypatch.setattr(reward_ensemble, "predict", lambda *arrays, **_: seen.setdefault("action", arrays[2]))
    monkeypatch.setitem(reward_map.PLANES, "CartPole-v1", SimpleNamespace(observation=np.zeros((2, 3, 4))))
    reward_map.learnt(None, env=env, config=rlhf_jax.Config())
    assert seen["action"].shape == (2, 3) and seen["action"].dtype == jnp.int32


def test_on_true_scale_takes_scale_and_offset_away():
    np.testing.assert_allclose(reward_map.on_true_scale(PLANE, 3.0 * PLANE.reward + 5.0), PLANE.reward, atol=1e-9)


def test_on_true_scale_is_least_squares():
    rewards = PLANE.reward + RNG.normal(0.0, 3.0, PLANE.reward.shape)
    slope, offset = np.polyfit(rewards.ravel(), PLANE.reward.ravel(), 1)
    np.testing.assert_allclose(reward_map.on_true_scale(PLANE, rewards), slope * rewards + offset)


@pytest.mark.parametrize("rewards", [-PLANE.reward, np.full_like(PLANE.reward, 7.0)])
def test_on_true_scale_does_not_turn_a_reward_round(rewards):
    np.testing.assert_allclose(reward_map.on_true_scale(PLANE, rewards), PLANE.reward.mean())


def test_agreement_is_pearsons_and_unknown_of_a_constant():
    noisy = PLANE.reward + RNG.normal(0.0, 3.0, PLANE.reward.shape)
    maps = np.stack([noisy, -2.0 * PLANE.reward, np.ones_like(noisy)])
    found = reward_map.agreement(PLANE, maps)
    np.testing.assert_allclose(found[0], np.corrcoef(noisy.ravel(), PLANE.reward.ravel())[0, 1])
    np.testing.assert_allclose(found[1], -1.0)
    assert np.isnan(found[2])
