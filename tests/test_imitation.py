"""Behavioural cloning and inverse reinforcement learning: formulas against literal numbers, and both on a probe."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from offline_data import CHOICE, LINEAR, TWO, column, linear_reward, small, some_trajectories, steps_of

from rlhf_jax.offline import behavioural_cloning, inverse_rl, policy_gradient
from rlhf_jax.offline.config import CloningConfig
from rlhf_jax.offline.trajectories import Trajectories


def test_likelihood_of_actions_against_numpy():
    data, rng = some_trajectories([2, 4, 3]), np.random.default_rng(8)
    first, second = rng.normal(size=(2, 3)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    layers = {"Dense_0": (first, np.ones(3)), "Dense_1": (second, np.zeros(2))}
    actor = {"params": {name: {"kernel": jnp.asarray(w), "bias": jnp.asarray(b)} for name, (w, b) in layers.items()}}
    found = behavioural_cloning.negative_log_likelihood(actor, data, env=TWO, hidden=(3,))
    nats = []
    for i, t in np.argwhere(np.asarray(data.mask)):
        logits = np.maximum(np.asarray(data.observation[i, t]) @ first + 1, 0) @ second
        nats.append(np.log(np.exp(logits).sum()) - logits[data.action[i, t]])
    np.testing.assert_allclose(found, np.mean(nats), rtol=1e-5)


def test_cloning_does_what_was_done():
    """Actions are the sign of the first number shown; the padding says otherwise."""
    data = some_trajectories([20, 40, 30])
    shown = jnp.where(data.mask, data.observation[..., 0] > 0, False)
    data = dataclasses.replace(data, action=shown.astype(jnp.int32))
    clone = functools.partial(
        behavioural_cloning.clone, env=TWO, hidden=(8,), config=CloningConfig(fit_steps=60, learning_rate=0.05)
    )
    actor, losses = jax.jit(clone)(jax.random.key(9), data)
    modes = policy_gradient.distribution(actor, data.observation, env=TWO, hidden=(8,)).mode()
    assert np.asarray(modes == data.action)[np.asarray(data.mask)].mean() > 0.95
    np.testing.assert_allclose(losses[0], np.log(2), rtol=0.05)


def test_gradient_of_inverse_rl_is_the_expert_s_features_less_the_policy_s():
    """Two states (1, 0) and (0, 1); the expert stays in the second for three steps, the policy in the first for one.

    The expert has two episodes: (1,0)a0 (0,1)a1 (0,1)a1 and (0,1)a1; sums of features per episode: state (½, 3/2),
    action (½, 3/2), 2 steps. The policy has one in the time that counts, (1,0)a0 (1,0)a0 (1,0)a1: state (3, 0), action
    (2, 1), 3 steps.
    """
    states = jnp.eye(2)
    expert = Trajectories(
        states[jnp.array([[0, 1, 1], [1, 0, 0]])],
        jnp.array([[0, 1, 1], [1, 0, 0]]),
        jnp.array([[True, True, True], [True, False, False]]),
        jnp.zeros(2),
    )
    done = column(False, False, True, False)
    own = steps_of(column(0, 0, 1, 1), done, states[jnp.array([0, 0, 0, 1])][:, None])
    gradient = inverse_rl.reward_gradient(
        linear_reward([0.3, -0.2, 0.1, 0.7], 0.5),
        inverse_rl.visits_of(expert),
        inverse_rl.visits_in(own, 3),
        env=TWO,
        config=LINEAR,
    )["params"]["Dense_0"]
    np.testing.assert_allclose(gradient["kernel"][:, 0], [0.5 - 3, 1.5 - 0, 0.5 - 2, 1.5 - 1], atol=1e-6)
    np.testing.assert_allclose(gradient["bias"], [2 - 3], atol=1e-6)


@pytest.mark.parametrize(("share", "expected"), [(0.75, 0.6535), (0.25, 0.3465)])
def test_inverse_rl_does_as_the_expert_does_and_not_what_pays(share, expected):
    """An expert that takes action 1 three times of four, or once, is followed, though the probe pays for action 1.

    The soft policy of a reward w for action 1 and −w for the other takes it with logit p = 2 w, and the reward weighs
    the gap against its squared weights: w = (share − p) / λ. With λ = 0.3 that is p = 0.6535 or 0.3465. Policy and
    reward circle around it, so it is the mean over epochs that is there.
    """
    np.testing.assert_allclose(np.log(expected / (1 - expected)), 2 * (share - expected) / 0.3, atol=0.01)
    count = 16
    action = (jnp.arange(count) < share * count).astype(jnp.int32)[:, None]
    data = Trajectories(jnp.zeros((count, 1, 1)), action, jnp.ones((count, 1), bool), jnp.zeros(count))
    metrics = explainer()(data)
    assert abs(0.5 + 0.5 * metrics["return"][50:].mean() - expected) < 0.05
    assert metrics["finite"].all()


@functools.cache
def explainer():
    """A hundred and fifty epochs of inverse RL with a linear reward."""
    settled = "reward.hidden=() inverse_rl.l2=0.3 inverse_rl.learning_rate=0.1 policy_gradient.learning_rate=0.1"
    config = small(*settled.split(), "num_envs=256", "epoch_steps=256")

    def run(data):
        start = inverse_rl.init(jax.random.key(10), data, env=CHOICE, config=config)
        return inverse_rl.advance(start, data, 150, env=CHOICE, config=config)[1]

    return jax.jit(run)
