"""Environments: names, wrapping, the units of actions, and Gymnasium as a peer."""

import sys

import flax.struct
import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
from gymnax.environments import spaces

from rlhf_jax import environments


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Pendulm-v1", "Pendulum-v1"),
        ("cartpole", "CartPole-v1"),
        ("PongNoFramskip-v4", "PongNoFrameskip-v4"),
        ("EnduroNoFrameskip", "EnduroNoFrameskip-v4"),
        ("MovingDotNoFrameskip-v4", "MovingDotNoFrameskip-v0"),
    ],
)
def test_unknown_name_is_answered_with_the_nearest(name, nearest):
    with pytest.raises(ValueError, match=f"unknown environment '{name}'; did you mean .*{nearest}.*[?]"):
        environments.make(name)


@pytest.mark.parametrize("installed", [True, False])
def test_who_asks_for_an_atari_game_by_another_name_is_told_what_it_needs(monkeypatch, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ValueError, match="unknown environment 'enduro'") as error:
        environments.make("enduro")
    assert str(error.value).endswith('PongNoFrameskip-v4, which need ale-py: pip install -e ".[atari]"') != installed


def test_data_that_are_not_here_are_said_to_be_missing(monkeypatch):
    def download(name):
        raise OSError("no route to host")

    monkeypatch.setattr(gymnax, "make", download)
    with pytest.raises(ValueError, match=r"^MNISTBandit-bsuite cannot be made: no route to host$"):
        environments.make("MNISTBandit-bsuite")


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("MovingDot-v0", np.full((2, 84, 84, 4), 255.0), True),
        ("MovingDot-v0", np.full((84, 84, 4), 0.5), False),
        ("MovingDot-v0", np.full((84, 84, 4), 256), False),
        ("Breakout-MinAtar", np.ones((10, 10, 4), np.float32), True),
        ("Breakout-MinAtar", np.full((10, 10, 4), 255, np.uint8), False),
        ("Pendulum-v1", np.array([1, 0, 8]), True),
    ],
)
def test_observations_of_another_type_lose_nothing_or_are_refused(name, given, kept):
    env = environments.make(name)
    if kept:
        np.testing.assert_array_equal(env.observations(given), given)
        assert env.observations(given).dtype == env.observation_dtype
    else:
        with pytest.raises(ValueError, match=f"^observations of type {given.dtype}: those of {name} are"):
            env.observations(given)


def test_observations_of_another_shape_are_refused():
    for shape in ((4, 84, 84), (84, 84), ()):
        with pytest.raises(ValueError, match="those of MovingDot-v0 end in"):
            environments.make("MovingDot-v0").observations(np.zeros(shape, np.uint8))


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
