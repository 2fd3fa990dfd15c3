"""Environments: names, wrapping, Gymnasium as a peer, and the contract that all of them keep."""

import functools

import flax.struct
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from gymnax.environments import spaces

from rlhf_jax import environments

# Name, horizon, shape of an observation, whether actions are continuous, and how many there are.
CONTRACTS = [
    ("Pendulum-v1", 200, (3,), True, 1),
    ("CartPole-v1", 500, (4,), False, 2),
    ("Acrobot-v1", 500, (6,), False, 3),
    ("MountainCarContinuous-v0", 999, (2,), True, 1),
]
NAMES = [contract[0] for contract in CONTRACTS]


@pytest.mark.parametrize(("name", "nearest"), [("Pendulm-v1", "Pendulum-v1"), ("cartpole", "CartPole-v1")])
def test_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"unknown environment '{name}'; did you mean .*{nearest}.*[?]"):
        environments.make(name)


@flax.struct.dataclass
class NoLimit:
    """Parameters without a time limit."""


class Tuple:
    """A space that is neither a box nor discrete."""


class TupleActions(probes.Probe):
    """A probe with such actions."""

    def action_space(self, params):
        return Tuple()


@pytest.mark.parametrize("params", [NoLimit(), probes.Params(max_steps_in_episode=0)])
def test_wrap_needs_a_time_limit(params):
    with pytest.raises(ValueError, match="Probe has max_steps_in_episode = 0; a time limit"):
        environments.wrap(probes.Probe(), params)


def test_wrap_needs_a_box_or_discrete_actions():
    with pytest.raises(ValueError, match="mine has a Tuple action space; Box and Discrete"):
        environments.wrap(TupleActions(), name="mine")


def test_wrap_takes_name_and_params_from_the_environment():
    env = environments.wrap(probes.Probe(length=3))
    assert (env.name, env.horizon) == ("Probe", 6)


@pytest.mark.parametrize(
    ("action", "torque"), [(-1.0, -2.0), (-0.5, -1.0), (0.0, 0.0), (0.75, 1.5), (1.0, 2.0), (-7.0, -2.0), (1.01, 2.0)]
)
def test_actions_are_scaled_to_the_box_and_clipped(action, torque):
    env = environments.make("Pendulum-v1")
    _, state = env.reset(jax.random.key(0))
    assert env.step(jax.random.key(1), state, jnp.array([action]))[0].last_u == torque


def test_clipping_does_not_rely_on_the_environment():
    """Pendulum would clip its torque by itself; a probe that pays −4 (a − ½)² would not."""
    env = probes.make(probes.Choice(continuous=True))
    _, state = env.reset(jax.random.key(0))
    rewards = [env.step(jax.random.key(1), state, jnp.array([action]))[1].reward for action in (-1.0, -9.0, 1.0, 9.0)]
    assert rewards == [-9.0, -9.0, -1.0, -1.0]


class TwoBounds(probes.Probe):
    """A probe whose two action dimensions have bounds of their own."""

    def action_space(self, params):
        return spaces.Box(jnp.array([-1.0, 0.0]), jnp.array([1.0, 10.0]), (2,))


def test_every_dimension_is_scaled_to_its_own_bounds():
    env = environments.wrap(TwoBounds())
    assert env.action_shape == (2,)
    np.testing.assert_allclose(env.native_action(jnp.array([0.5, 0.5])), [0.5, 7.5])
    np.testing.assert_allclose(env.native_action(jnp.array([-2.0, -2.0])), [-1.0, 0.0])


def test_actions_have_a_shape_and_a_type():
    pendulum, acrobot = environments.make("Pendulum-v1"), environments.make("Acrobot-v1")
    assert (pendulum.action_shape, pendulum.action_dtype) == ((1,), jnp.float32)
    assert (acrobot.action_shape, acrobot.action_dtype) == ((), jnp.int32)


def test_action_features():
    """The reward network is told what the environment did: the clipped action, or its one-hot code."""
    pendulum, acrobot = environments.make("Pendulum-v1"), environments.make("Acrobot-v1")
    np.testing.assert_allclose(pendulum.action_features(jnp.array([[-3.0], [0.25]])), [[-1.0], [0.25]])
    assert acrobot.action_features(jnp.array([2, 0])).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_pendulum_equals_gymnasiums():
    """Two hundred random actions from the same state; float32 against float64, so errors may add up a little."""
    env = environments.make("Pendulum-v1")
    actions = np.random.default_rng(0).uniform(-1.2, 1.2, (200, 1)).astype(np.float32)
    keys = jax.random.split(jax.random.key(2), 200)
    observation, start = env.reset(jax.random.key(3))
    _, steps = jax.jit(
        lambda state: jax.lax.scan(lambda s, x: env.step(x[0], s, x[1]), state, (keys, jnp.asarray(actions)))
    )(start)

    peer = gymnasium.make("Pendulum-v1")
    peer.reset(seed=0)
    peer.unwrapped.state = np.array([start.theta, start.theta_dot], np.float64)
    np.testing.assert_allclose(peer.unwrapped._get_obs(), observation, rtol=1e-6)
    for t in range(200):
        expected, reward, terminated, truncated, _ = peer.step(2.0 * np.clip(actions[t], -1.0, 1.0))
        np.testing.assert_allclose(steps.final_observation[t], expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(steps.reward[t], reward, rtol=1e-4, atol=1e-4)
        assert (steps.terminated[t], steps.truncated[t]) == (terminated, truncated)


def some_action(env, key):
    """A random action in the library's form."""
    if env.continuous:
        return jax.random.uniform(key, (env.action_size,), minval=-1.0, maxval=1.0)
    return jax.random.randint(key, (), 0, env.action_size)


@functools.cache
def play(name, limit):
    """A compiled function that plays twelve random steps of an environment whose episodes are cut off at `limit`."""
    made = environments.make(name)
    env = environments.wrap(made.base, made.params.replace(max_steps_in_episode=limit), name=name)

    def run(key):
        key_reset, key_steps = jax.random.split(key)

        def step(carry, key):
            observation, state = carry
            key_action, key_step = jax.random.split(key)
            state, step = env.step(key_step, state, some_action(env, key_action))
            return (step.observation, state), (observation, step)

        return jax.lax.scan(step, env.reset(key_reset), jax.random.split(key_steps, 12))[1]

    return jax.jit(jax.vmap(run))


def keys():
    return jax.random.split(jax.random.key(4), 3)


@pytest.mark.parametrize(("name", "horizon", "shape", "continuous", "action_size"), CONTRACTS)
def test_contract_of_what_an_environment_says(name, horizon, shape, continuous, action_size):
    env = environments.make(name)
    assert (env.name, env.horizon, env.observation_shape) == (name, horizon, shape)
    assert (env.continuous, env.action_size) == (continuous, action_size)
    observations, step = play(name, 5)(keys())
    assert observations.shape == step.observation.shape == step.final_observation.shape == (3, 12, *shape)
    assert observations.dtype == step.observation.dtype == step.final_observation.dtype == jnp.float32
    for values, dtype in ((step.reward, jnp.float32), (step.terminated, bool), (step.truncated, bool)):
        assert values.shape == (3, 12)
        assert values.dtype == dtype
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(step))


@pytest.mark.parametrize("name", NAMES)
def test_contract_of_resets(name):
    """With a limit of five steps the fifth and tenth are truncated: their observation is kept, then a new start."""
    observations, step = play(name, 5)(keys())
    assert not step.terminated.any()
    np.testing.assert_array_equal(step.truncated, np.tile(np.arange(1, 13) % 5 == 0, (3, 1)))
    np.testing.assert_array_equal(step.done, step.truncated)
    np.testing.assert_array_equal(observations[:, 1:], step.observation[:, :-1])
    same = np.isclose(step.observation, step.final_observation, rtol=1e-5, atol=1e-6).all(-1)
    np.testing.assert_array_equal(same, ~step.done)


@pytest.mark.parametrize("name", NAMES)
def test_final_observation_is_what_the_action_led_to(name):
    """Up to the cut an episode is that of the same environment without it."""
    cut, whole = (play(name, limit)(keys())[1] for limit in (5, 1000))
    assert not whole.done.any()
    np.testing.assert_allclose(cut.final_observation[:, :5], whole.observation[:, :5], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(cut.reward[:, :5], whole.reward[:, :5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_contract_of_randomness(name):
    """The same key gives the same episode, also alone; different keys different ones."""
    run = play(name, 5)
    together, again = run(keys()), run(keys())
    jax.tree.map(np.testing.assert_array_equal, together, again)
    alone = run(keys()[1:2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[1], b[0], rtol=1e-5, atol=1e-6), together, alone)
    assert (together[0][0] != together[0][1]).any()
