"""Rollouts against a plain Python loop over the environment."""

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest

from rlhf_jax import environments, rollout


def clock_policy(key, observation):
    """Acts on the parity of the time that the clock shows; the log-probability tells the time as well."""
    del key
    return (observation[:, 0] % 2).astype(jnp.int32), -0.1 * observation[:, 0]


def coin_policy(key, observation):
    """Tosses a coin for every environment, or for every dimension of a continuous action."""
    return jax.random.uniform(key, (observation.shape[0], 1), minval=-1.0), jnp.zeros(observation.shape[0])


def clocks(env, times):
    """Environments that stand at these times."""
    state = probes.State(jnp.asarray(times), jnp.ones(len(times)))
    return rollout.EnvironmentState(state, jax.vmap(env.base.observe)(state), jnp.zeros(len(times)))


@pytest.mark.parametrize("terminates", [True, False])
def test_rollout_against_a_python_loop(terminates):
    """Three clocks out of phase, ten steps, episodes of four: every field of every step, resets included."""
    env = probes.make(probes.Clock(length=4, terminates=terminates))
    start = clocks(env, [0, 1, 3])
    end, steps, info = rollout.rollout(jax.random.key(0), start, clock_policy, env=env, num_steps=10)

    returns, ended = np.zeros(3), []
    for n in range(3):
        state = jax.tree.map(lambda x, n=n: x[n], start.state)
        observation = start.observation[n]
        for t in range(10):
            action, log_prob = clock_policy(None, observation[None])
            state, step = env.step(jax.random.key(99), state, action[0])
            np.testing.assert_array_equal(steps.observation[t, n], observation)
            assert steps.action[t, n] == action[0]
            assert steps.log_prob[t, n] == log_prob[0]
            np.testing.assert_array_equal(steps.next_observation[t, n], step.final_observation)
            assert steps.true_reward[t, n] == step.reward
            assert (steps.terminated[t, n], steps.truncated[t, n]) == (step.terminated, step.truncated)
            returns[n] += step.reward
            if step.done:
                ended.append(returns[n])
                returns[n] = 0.0
            observation = step.observation
        np.testing.assert_array_equal(end.observation[n], observation)
    assert info["episodes"] == len(ended) == 7
    np.testing.assert_allclose(info["return"], np.mean(ended))
    np.testing.assert_allclose(end.episode_return, returns)


def test_rollout_literal():
    """One clock of three steps: it shows 0, 1, 2, is led to 3, and starts again; it pays the time plus its parity."""
    env = probes.make(probes.Clock(length=3))
    _, steps, info = rollout.rollout(jax.random.key(0), clocks(env, [1]), clock_policy, env=env, num_steps=6)
    assert steps.observation[:, 0, 0].tolist() == [1, 2, 0, 1, 2, 0]
    assert steps.next_observation[:, 0, 0].tolist() == [2, 3, 1, 2, 3, 1]
    assert steps.action[:, 0].tolist() == [1, 0, 0, 1, 0, 0]
    assert steps.true_reward[:, 0].tolist() == [2, 2, 0, 2, 2, 0]
    assert steps.done[:, 0].tolist() == [False, True, False] * 2
    assert (info["episodes"], info["return"]) == (2, 4.0)


def test_episode_returns_span_rollouts():
    """Episodes of five steps pay 0 + 2 + 2 + 4 + 4 = 12, told where they end: in rollouts 2, 4 and 5 of three steps."""
    env = probes.make(probes.Clock(length=5))
    state = rollout.init(jax.random.key(1), env=env, num_envs=2)
    episodes, returns = [], []
    for i in range(5):
        state, _, info = rollout.rollout(jax.random.key(i), state, clock_policy, env=env, num_steps=3)
        episodes.append(int(info["episodes"]))
        returns.append(float(info["return"]))
    assert episodes == [0, 2, 0, 2, 2]
    np.testing.assert_array_equal(returns, [np.nan, 12.0, np.nan, 12.0, 12.0])


def test_environments_and_steps_have_randomness_of_their_own():
    env = probes.make(probes.Sign())
    start = rollout.init(jax.random.key(2), env=env, num_envs=50)
    observation = rollout.rollout(jax.random.key(3), start, coin_policy, env=env, num_steps=20)[1].observation[..., 0]
    assert 0.4 < (observation > 0).mean() < 0.6
    assert (observation[:, 0] != observation[:, 1]).any()
    assert (observation[1] != observation[2]).any()


@pytest.mark.parametrize("terminates", [True, False])
def test_evaluate_counts_first_episodes_only(terminates):
    """Four steps pay 0 + 2 + 2 + 4; the horizon of those that terminate is eight steps and holds two episodes."""
    env = probes.make(probes.Clock(length=4, terminates=terminates))
    returns, steps = rollout.evaluate(jax.random.key(4), clock_policy, env=env, num_episodes=5)
    assert steps.done.sum(0).tolist() == [2 if terminates else 1] * 5
    assert returns.tolist() == [8.0] * 5


def test_evaluate_has_fixed_starts():
    """The same key gives the same episodes, another key others; all of them whole."""
    env = environments.make("Pendulum-v1")
    evaluate = jax.jit(lambda key: rollout.evaluate(key, coin_policy, env=env, num_episodes=8))
    (first, steps), (again, _), (other, _) = (evaluate(jax.random.key(seed)) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()
    assert len(set(first.tolist())) == 8
    assert steps.truncated.sum() == 8
    assert steps.truncated[-1].all()
    np.testing.assert_allclose(first, np.asarray(steps.true_reward, np.float64).sum(0), rtol=1e-5)


def test_an_episode_is_played_to_its_end_however_little_is_kept():
    """Returns are those of whole episodes, which end at different times; only the first steps are returned."""
    env = environments.make("CartPole-v1")

    def policy(key, observation):
        # It looks only at what it sees, so that it plays alike whatever keys the rest of the episode is given.
        return (observation[:, 2] > 0).astype(int), jnp.zeros(len(observation))

    whole, _ = rollout.evaluate(jax.random.key(1), policy, env=env, num_episodes=6)
    part, steps = rollout.evaluate(jax.random.key(1), policy, env=env, num_episodes=6, kept_steps=20)
    assert steps.true_reward.shape == (20, 6)
    assert len(set(whole.tolist())) > 1 and (whole > 20).all()
    np.testing.assert_array_equal(part, whole)
