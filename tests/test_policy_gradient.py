"""Policy gradient on a given reward: formulas against literal numbers and NumPy, and learning on a probe."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import reference
from offline_data import CHOICE, column, small, steps_of

from rlhf_jax import environments, ppo
from rlhf_jax.environments import FixedHorizon
from rlhf_jax.offline import agent as agents
from rlhf_jax.offline import policy_gradient
from rlhf_jax.offline.config import OfflineConfig


def test_reward_to_go_literal():
    """Two episodes, of three steps and of two, and one that runs on."""
    rewards, done = column(1.0, 2.0, 4.0, 8.0, 16.0, 32.0), column(False, False, True, False, True, False)
    assert policy_gradient.reward_to_go(rewards, done)[:, 0].tolist() == [7, 6, 4, 24, 16, 32]


def test_reward_to_go_against_numpy():
    rng = np.random.default_rng(1)
    rewards, done = rng.normal(size=(30, 4)).astype(np.float32), rng.random((30, 4)) < 0.2
    expected = reference.generalised_advantages(rewards, 0 * rewards, 0 * rewards, done, done, 1.0, 1.0)
    np.testing.assert_allclose(
        policy_gradient.reward_to_go(jnp.asarray(rewards), jnp.asarray(done)), expected, rtol=1e-4
    )


def test_episodes_are_taken_for_when_they_begin():
    """Episodes of 3, 2 and 2 steps; those that begin in the first four steps are the first two, to their ends."""
    mask, age = policy_gradient.episodes_begun(column(False, False, True, False, True, False, True), 4)
    assert mask[:, 0].tolist() == [True] * 5 + [False] * 2
    assert age[:, 0].tolist() == [0, 1, 2, 0, 1, 0, 1]


def test_advantages_literal():
    """Ages 0, 1, 0 and 0, 1, 2: the means are (5 + 1 + 3) / 3 = 3, (4 + 2) / 2 = 3 and 7."""
    to_go, age = jnp.array([[5.0, 3.0], [4.0, 2.0], [1.0, 7.0]]), jnp.array([[0, 0], [1, 1], [0, 2]])
    advantages = policy_gradient.advantages(to_go, age, jnp.ones((3, 2), bool))
    assert advantages.tolist() == [[2, 0], [1, -1], [-2, 0]]
    masked = policy_gradient.advantages(to_go, age, jnp.array([[True, True], [True, True], [False, True]]))
    assert masked.tolist() == [[1, -1], [1, -1], [0, 0]]


@pytest.mark.parametrize(("rewards", "direction"), [((1.0, 1.0, -1.0, -1.0), 1.0), ((-1.0, -1.0, 1.0, 1.0), -1.0)])
def test_policy_gradient_moves_towards_what_was_paid(rewards, direction):
    """Four episodes of one step; Adam's first step is the learning rate along the sign of the gradient."""
    config = OfflineConfig().policy_gradient
    state = policy_gradient.init(jax.random.key(0), env=CHOICE, config=config)
    steps = steps_of(jnp.array([[1, 1, 0, 0]]), jnp.ones((1, 4), bool))
    after = policy_gradient.update(state, steps, jnp.array([rewards]), 1, env=CHOICE, config=config)
    bias = after.actor["params"]["Dense_1"]["bias"] - state.actor["params"]["Dense_1"]["bias"]
    np.testing.assert_allclose(bias, [-0.01 * direction, 0.01 * direction], rtol=1e-4)


def chosen(actor, env, config):
    """Probability of action 1 where the probe shows 0."""
    logits = policy_gradient.distribution(actor, jnp.zeros(env.observation_shape), env=env, hidden=config.hidden).logits
    return float(jax.nn.softmax(logits)[1])


@pytest.mark.parametrize("algorithm", ["policy_gradient", "ppo"])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_agent_learns_from_the_reward_that_it_is_given(algorithm, sign):
    config = small("policy_gradient.learning_rate=0.1", "ppo.learning_rate=0.03", algorithm=algorithm)
    agent, actors, metrics = train(algorithm, config)(jnp.float32(sign))
    probability = chosen(agent.actor, CHOICE, config)
    assert probability > 0.9 if sign > 0 else probability < 0.1
    np.testing.assert_allclose(metrics["predicted_return"], sign * metrics["return"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(metrics["length"], 1.0)
    assert metrics["finite"].all() and agent.epoch == 30
    jax.tree.map(lambda all_of_them, last: np.testing.assert_array_equal(all_of_them[-1], last), actors, agent.actor)


def test_ppo_acts_by_the_policy_that_it_improves():
    """The standard deviation of continuous actions is 1.65 in what it does and in what it learns."""
    env, config = probes.make(probes.Probe(continuous=True)), small(algorithm="ppo")
    start = agents.init(jax.random.key(0), env=env, config=config)
    _, steps, _ = agents.epoch(start, lambda steps: steps.true_reward, env=env, config=config)
    expected = ppo.distribution(start.learner, steps.observation, env=env, config=config.ppo).log_prob(steps.action)
    np.testing.assert_allclose(steps.log_prob, expected, rtol=1e-5)


@functools.cache
def train(algorithm, config):
    """Thirty epochs on the true reward times a number."""
    del algorithm

    def run(sign):
        start = agents.init(jax.random.key(3), env=CHOICE, config=config)
        return agents.advance(start, lambda steps: sign * steps.true_reward, 30, env=CHOICE, config=config)

    return jax.jit(run)


def test_constant_reward_teaches_nothing_where_all_episodes_last_as_long():
    """And it does where they do not: an agent that can make episodes longer is paid for it."""

    class Staying(probes.Delayed):
        """Ends at once unless action 1 is taken."""

        def step(self, key, state, action, params):
            observation, after, reward, terminated, truncated, info = super().step(key, state, action, params)
            over = terminated | (action == 0)
            return observation, after, reward, over, truncated, info

    base, config = Staying(3), small("policy_gradient.learning_rate=0.1")
    moved = []
    for env in (environments.wrap(FixedHorizon(base)), environments.wrap(base)):
        start = agents.init(jax.random.key(4), env=env, config=config)
        learn = functools.partial(agents.advance, reward=lambda steps: jnp.ones(steps.done.shape), num_epochs=3)
        agent, _, _ = jax.jit(functools.partial(learn, env=env, config=config))(start)
        same = jax.tree.map(lambda a, b: bool((a == b).all()), start.actor, agent.actor)
        moved.append(not all(jax.tree.leaves(same)))
    assert moved == [False, True]


def test_rollouts_last_until_all_that_begin_in_time_have_ended():
    config = OfflineConfig(num_envs=4, epoch_steps=40)
    clock = probes.Clock(length=3)  # its limit is six steps
    assert agents.rollout_length(environments.wrap(clock), config) == 15
    assert agents.rollout_length(environments.wrap(FixedHorizon(clock)), config) == 12
