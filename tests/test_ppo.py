"""PPO: its formulas against literal numbers, the whole of it on probe environments."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import reference
import tiny

from rlhf_jax import normalisation, ppo, rollout
from rlhf_jax.config import PPOConfig

CONFIG = PPOConfig(
    epochs=4,
    minibatches=4,
    hidden=(16,),
    clip_value=False,
    initial_std=1.0,
    learning_rate=1e-2,
    learning_rate_decay=1.0,
    discount=0.5,
    trace_decay=0.9,
    clip=0.2,
    value_coefficient=0.5,
    entropy_coefficient=0.0,
    max_grad_norm=0.5,
)


def column(*values):
    """One environment's `[T, 1]` values."""
    return jnp.array(values)[:, None]


@pytest.mark.parametrize(
    ("terminated", "truncated", "expected"),
    [
        # δ = r + ½ V′ − V = (2.5, 4.5, 8.5) with bootstrap, γλ = ¼; the δ of a terminated step lacks the 4.
        (False, False, [2.5 + 0.25 * 6.625, 4.5 + 0.25 * 8.5, 8.5]),
        (False, True, [2.5 + 0.25 * 4.5, 4.5, 8.5]),
        (True, False, [2.5 + 0.25 * 0.5, 0.5, 8.5]),
        (True, True, [2.5 + 0.25 * 0.5, 0.5, 8.5]),
    ],
)
def test_advantages_when_the_middle_step_ends(terminated, truncated, expected):
    """Truncation bootstraps and stops the trace, termination does not even bootstrap."""
    advantages = ppo.generalised_advantages(
        column(1.0, 2.0, 6.0),
        column(2.5, 1.5, 1.5),
        column(8.0, 8.0, 8.0),
        column(False, terminated, False),
        column(False, terminated or truncated, False),
        discount=0.5,
        trace_decay=0.5,
    )
    np.testing.assert_allclose(advantages[:, 0], expected)


@pytest.mark.parametrize(("discount", "trace_decay"), [(0.99, 0.95), (0.9, 1.0), (1.0, 0.0)])
def test_advantages_against_numpy(discount, trace_decay):
    rng = np.random.default_rng(0)
    rewards, values, next_values = rng.normal(size=(3, 40, 5)).astype(np.float32)
    terminated, truncated = rng.random((2, 40, 5)) < 0.1
    done = terminated | truncated
    arguments = rewards, values, next_values, terminated, done
    advantages = ppo.generalised_advantages(*map(jnp.asarray, arguments), discount=discount, trace_decay=trace_decay)
    expected = reference.generalised_advantages(*arguments, discount, trace_decay)
    np.testing.assert_allclose(advantages, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective", "slope"),
    [
        (1.1, 2.0, 2.2, 2.0),
        (1.5, 2.0, 2.4, 0.0),  # better already: no more to gain beyond 1 + ε
        (0.5, 2.0, 1.0, 2.0),  # worse: pulled back however far
        (0.9, -2.0, -1.8, -2.0),
        (0.5, -2.0, -1.6, 0.0),
        (1.5, -2.0, -3.0, -2.0),
    ],
)
def test_clipped_surrogate(ratio, advantage, objective, slope):
    value, gradient = jax.value_and_grad(ppo.clipped_surrogate)(jnp.array(ratio), jnp.array(advantage), 0.2)
    np.testing.assert_allclose([value, gradient], [objective, slope], rtol=1e-6)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        (None, [0.5, 0.125, 2.0]),
        (0.25, [1.53125, 0.28125, 2.0]),  # half of 1.75², of 0.75² and of 2²: a move away is not excused
    ],
)
def test_value_error(clip, expected):
    """The critic moved from 1 to 2 with target 3; to 1½ with target 2; from 1 to 0 with target 2."""
    value, target = jnp.array([2.0, 1.5, 0.0]), jnp.array([3.0, 2.0, 2.0])
    np.testing.assert_allclose(ppo.value_error(value, jnp.ones(3), target, clip), expected)


def test_value_error_stops_pulling_beyond_the_clip():
    gradient = jax.vmap(jax.grad(ppo.value_error), in_axes=(0, 0, 0, None))
    slopes = gradient(jnp.array([2.0, 1.1]), jnp.ones(2), jnp.array([3.0, 3.0]), 0.25)
    np.testing.assert_allclose(slopes, [0.0, -1.9], rtol=1e-6)


@functools.cache
def one_update():
    """An agent with some moments, a function that improves it on one rollout, and its environment."""
    env = probes.make(probes.Match())
    key_init, key_env, key_act = jax.random.split(jax.random.key(0), 3)
    moments = normalisation.update(normalisation.init((1,)), jnp.array([[1.0], [4.0]]))
    state = ppo.init(key_init, env=env, config=CONFIG).replace(observation=moments)
    policy = ppo.sampling_policy(state, env=env, config=CONFIG)
    start = rollout.init(key_env, env=env, num_envs=4)
    steps = rollout.rollout(key_act, start, policy, env=env, num_steps=8)[1]

    @tiny.quick_jit
    def update(key, progress, learning_rate_decay):
        config = dataclasses.replace(CONFIG, learning_rate_decay=learning_rate_decay)
        return ppo.update(key, state, steps, steps.true_reward, progress, env=env, config=config)

    return state, update


def moved(before, after):
    """The largest change of any parameter."""
    return max(float(jnp.abs(a - b).max()) for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))


def test_update_learns_but_leaves_observation_moments_alone():
    before, update = one_update()
    after, info = update(jax.random.key(1), 0.0, 1.0)
    assert moved(before.observation, after.observation) == 0.0
    assert moved(before.actor, after.actor) > 1e-3
    assert moved(before.critic, after.critic) > 1e-3
    assert all(np.isfinite(value) for value in info.values())


def test_learning_rate_decays_linearly():
    """Nothing moves at the end of a full decay; half of it leaves half the rate, so a smaller step."""
    before, update = one_update()
    distance = [moved(before.critic, update(jax.random.key(1), 1.0, decay)[0].critic) for decay in (1.0, 0.5, 0.0)]
    assert distance[0] == 0.0
    assert 0.0 < distance[1] < 0.7 * distance[2]


@pytest.mark.parametrize(("num_steps", "num_envs"), [(8, 3), (5, 1), (1, 6)])
def test_shuffle_uses_every_step_once(num_steps, num_envs):
    """Every part of the order holds as many steps of each environment, and another key gives another order."""
    first, second = (np.asarray(ppo._shuffle(jax.random.key(seed), num_steps, num_envs)) for seed in (2, 3))
    assert sorted(first.ravel().tolist()) == list(range(num_steps * num_envs))
    for row in first:
        assert sorted((row % num_envs).tolist()) == list(range(num_envs))
    assert num_steps == 1 or (first != second).any()


def trained(probe, config=CONFIG, iterations=60):
    """Returns the actor's distribution and the critic's values as functions of the observation, after training."""
    env = probes.make(probe)

    def iteration(carry, inputs):
        environments, agent = carry
        key, progress = inputs
        key_act, key_learn = jax.random.split(key)
        policy = ppo.sampling_policy(agent, env=env, config=config)
        environments, steps, _ = rollout.rollout(key_act, environments, policy, env=env, num_steps=16)
        agent, _ = ppo.update(key_learn, agent, steps, steps.true_reward, progress, env=env, config=config)
        return (environments, agent), None

    @tiny.quick_jit
    def train(key):
        key_env, key_agent, key_loop = jax.random.split(key, 3)
        carry = rollout.init(key_env, env=env, num_envs=8), ppo.init(key_agent, env=env, config=config)
        inputs = jax.random.split(key_loop, iterations), jnp.arange(iterations) / iterations
        return jax.lax.scan(iteration, carry, inputs)[0][1]

    agent = train(jax.random.key(0))
    critic = ppo.networks(env, config)[2]
    return (
        lambda x: ppo.distribution(agent, jnp.atleast_1d(x), env=env, config=config),
        lambda x: float(critic.apply(agent.critic, jnp.array([x]))),
    )


# PPO scales rewards by 1 − γ = ½, so that an unending reward of 1 is worth 1 and a single one ½.


@pytest.mark.parametrize(("terminates", "expected"), [(True, 0.5), (False, 1.0)])
def test_probe_constant_value(terminates, expected):
    """A terminated episode is worth its one reward; a truncated one is bootstrapped as if it went on for ever."""
    _, value = trained(probes.Probe(terminates=terminates))
    assert value(0.0) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("clip_value", [False, True])
def test_probe_value_depends_on_observation(clip_value):
    _, value = trained(probes.Sign(), dataclasses.replace(CONFIG, clip_value=clip_value))
    assert value(1.0) == pytest.approx(0.5, abs=0.01)
    assert value(-1.0) == pytest.approx(-0.5, abs=0.01)


def test_probe_value_is_discounted():
    """½ in the last of three steps, and half as much with every step before it."""
    _, value = trained(probes.Delayed(length=3))
    assert [value(float(t)) for t in range(3)] == pytest.approx([0.125, 0.25, 0.5], abs=0.01)


def test_probe_action_decides_the_reward():
    distribution, value = trained(probes.Choice())
    assert distribution(0.0).mode() == 1
    assert jnp.exp(distribution(0.0).log_prob(jnp.array(1))) > 0.98
    assert value(0.0) == pytest.approx(0.5, abs=0.03)


def test_probe_continuous_action_decides_the_reward():
    distribution, _ = trained(probes.Choice(continuous=True))
    assert distribution(0.0).mode()[0] == pytest.approx(0.5, abs=0.03)
    assert distribution(0.0).log_std[0] < -2.0


def test_probe_best_action_depends_on_observation():
    distribution, value = trained(probes.Match())
    assert [int(distribution(x).mode()) for x in (-1.0, 1.0)] == [0, 1]
    assert value(1.0) == pytest.approx(0.5, abs=0.03)
    assert value(-1.0) == pytest.approx(0.5, abs=0.03)


def test_probe_best_action_depends_on_a_picture():
    """Through the trunk of convolutions, from bytes."""
    probe = probes.PicturedMatch()
    distribution, _ = trained(probe, CONFIG)
    shown = [probe.observe(probes.State(jnp.zeros(()), jnp.float32(sign))) for sign in (-1, 1)]
    assert [int(distribution(picture).mode()) for picture in shown] == [0, 1]
