"""One contract, kept by every environment that agents are trained in: spaces, types, randomness, ends, and pictures.

The environments are as users get them, with their own time limits: the first episodes begin shortly before theirs.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import rlhf_jax
from rlhf_jax.environments import rendering
from rlhf_jax.environments.rendering import Moment

ENVS, STEPS, LEFT = 4, 40, 3
"""How many environments are played abreast, for how many steps, and how many of them the first time limit leaves."""


class Contract(NamedTuple):
    """What an environment says of itself; `random` is whether its first observation is."""

    name: str
    horizon: int
    shape: tuple[int, ...]
    dtype: type
    continuous: bool
    action_size: int
    random: bool = True


CONTRACTS = [
    Contract("Pendulum-v1", 200, (3,), np.float32, True, 1),
    Contract("CartPole-v1", 500, (4,), np.float32, False, 2),
    Contract("Acrobot-v1", 500, (6,), np.float32, False, 3),
    Contract("MountainCar-v0", 200, (2,), np.float32, False, 3),
    Contract("MountainCarContinuous-v0", 999, (2,), np.float32, True, 1),
    Contract("PointRobot-misc", 100, (6,), np.float32, True, 2),
    Contract("MovingDot-v0", 250, (84, 84, 4), np.uint8, False, 5),
    Contract("MovingDotNoFrameskip-v0", 1000, (210, 160, 3), np.uint8, False, 5),
    Contract("Breakout-MinAtar", 1000, (10, 10, 4), np.bool_, False, 3),
    Contract("Asterix-MinAtar", 1000, (10, 10, 4), np.bool_, False, 5, random=False),
    Contract("Freeway-MinAtar", 2500, (10, 10, 7), np.bool_, False, 3),
    Contract("SpaceInvaders-MinAtar", 1000, (10, 10, 6), np.bool_, False, 4, random=False),
    Contract("Seaquest-MinAtar", 1000, (10, 10, 10), np.bool_, False, 6, random=False),
    Contract("Pong-misc", 1000, (30, 40, 3), np.bool_, False, 3, random=False),
]
every_environment = pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract.name)


class Played(NamedTuple):
    """`[STEPS, ENVS, ...]` what was seen and done, the states then, what came of it, and the steps taken since a reset.

    first: `[ENVS, ...]` the first observations.
    """

    first: np.ndarray
    observation: np.ndarray
    action: np.ndarray
    state: dict[str, np.ndarray]
    step: rlhf_jax.environments.Step
    time: np.ndarray


make = functools.cache(rlhf_jax.make)  # Every object is traced anew, which takes seconds.


@functools.cache
def player(name):
    """A compiled function from a key and a time, in steps after the reset, to what random actions lead to then."""
    env = make(name)

    def step(carry, key):
        observation, state = carry
        key_action, key_step = jax.random.split(key)
        action = jax.random.randint(key_action, (ENVS,), 0, env.action_size)
        if env.continuous:
            action = jax.random.uniform(key_action, (ENVS, env.action_size), minval=-1.0, maxval=1.0)
        after, step = env.step_many(key_step, state, action)
        return (step.observation, after), (observation, action, env.named_state(state), step, after.time)

    def run(key, time):
        key_reset, key_steps = jax.random.split(key)
        first, state = env.reset_many(key_reset, ENVS)
        state = state.replace(time=jnp.full((ENVS,), time, state.time.dtype))
        return Played(first, *jax.lax.scan(step, (first, state), jax.random.split(key_steps, STEPS))[1])

    # Compiling takes most of the time of these tests; forty steps are soon done also by a slow program.
    return tiny.quick_jit(run)


@functools.cache
def played(name, left, seed):
    """What random actions lead to, on the host, the time limit being `left` steps away at first."""
    horizon = next(contract.horizon for contract in CONTRACTS if contract.name == name)
    return jax.tree.map(np.asarray, player(name)(jax.random.key(seed), horizon - left))


@every_environment
def test_it_is_as_it_says(contract):
    env = make(contract.name)
    assert (env.name, env.horizon, env.observation_shape) == contract[:3]
    assert (env.observation_dtype, env.continuous, env.action_size) == contract[3:6]
    space = env.base.action_space(env.params)
    if env.continuous:
        for end, bound in ((-1.0, space.low), (1.0, space.high)):
            bounds = np.broadcast_to(bound, env.action_shape)
            np.testing.assert_allclose(env.native_action(jnp.full(env.action_shape, end)), bounds)
    else:
        assert space.n == env.action_size


@every_environment
def test_shapes_and_types(contract):
    play = played(contract.name, LEFT, 0)
    seen = (play.observation, play.step.observation, play.step.final_observation)
    for values, shape, dtype in (
        (play.first, (ENVS, *contract.shape), contract.dtype),
        *((observation, (STEPS, ENVS, *contract.shape), contract.dtype) for observation in seen),
        (play.step.reward, (STEPS, ENVS), np.float32),
        (play.step.terminated, (STEPS, ENVS), bool),
        (play.step.truncated, (STEPS, ENVS), bool),
    ):
        assert values.shape == shape and values.dtype == dtype
    assert np.isfinite(play.step.reward).all()


@every_environment
def test_one_alone_has_the_same_shapes_and_fixed_types(contract):
    """A state whose types changed with the first step could not be carried by a loop."""
    env = make(contract.name)
    observation, state = jax.eval_shape(env.reset, jax.random.key(0))
    action = jax.ShapeDtypeStruct(env.action_shape, env.action_dtype)
    after, step = jax.eval_shape(env.step, jax.random.key(0), state, action)
    for seen in (observation, step.observation, step.final_observation):
        assert (seen.shape, seen.dtype) == (contract.shape, contract.dtype)
    assert jax.tree.structure(state) == jax.tree.structure(after)
    for before, leaf in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (before.shape, before.dtype, before.weak_type) == (leaf.shape, leaf.dtype, leaf.weak_type)


@every_environment
def test_many_are_each_alone(contract):
    """The third of four is what it would be by itself, from the same state, action and share of the key.

    It is the last step of an episode, because in many environments only the next start is random.
    """
    env, play, key = make(contract.name), played(contract.name, LEFT, 0), jax.random.key(7)
    _, states = tiny.quick_jit(functools.partial(env.reset_many, num_envs=ENVS))(key)
    states = states.replace(time=jnp.full((ENVS,), contract.horizon - 1, states.time.dtype))
    after, many = tiny.quick_jit(env.step_many)(key, states, play.action[0])
    one = jax.tree.map(lambda x: x[2], (jax.random.split(key, ENVS), states, play.action[0]))
    alone = tiny.quick_jit(env.step)(*one)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: close(np.asarray(a[2], float), np.asarray(b, float)), (after, many), alone)


@every_environment
def test_observations_are_within_their_space(contract):
    env, play = make(contract.name), played(contract.name, LEFT, 0)
    space = env.base.observation_space(env.params)
    for seen in (play.observation, play.step.final_observation):
        # A sine may be larger than 1 by a rounding.
        assert (seen >= np.asarray(space.low) - 1e-6).all() and (seen <= np.asarray(space.high) + 1e-6).all()
    if contract.dtype == np.uint8:
        assert play.observation.max() == 255
    if contract.dtype == np.bool_:
        assert play.observation.any((0, 1, 2, 3)).sum() >= 3


@every_environment
def test_it_ends_at_its_time_limit_and_begins_anew(contract):
    """The limit is three steps away at first; whoever ends earlier starts anew and is as far from it as can be."""
    play = played(contract.name, LEFT, 0)
    time = np.full(ENVS, contract.horizon - LEFT)
    for t in range(STEPS):
        time = time + 1
        np.testing.assert_array_equal(play.step.truncated[t], time == contract.horizon)
        time = np.where(play.step.terminated[t] | play.step.truncated[t], 0, time)
        np.testing.assert_array_equal(play.time[t], time)
    assert play.step.truncated.any()
    assert not (play.step.terminated & play.step.truncated).any()
    if contract.name in ("CartPole-v1", "Breakout-MinAtar"):
        assert play.step.terminated.any()


def equal(one, other):
    """`[STEPS, ENVS]` whether observations are equal but for roundings, which programs do in different orders."""
    close = np.isclose(one, other, rtol=1e-5, atol=1e-6) if one.dtype == np.float32 else one == other
    return close.all(tuple(range(2, one.ndim)))


@every_environment
def test_final_observation_is_what_the_action_led_to(contract):
    """It is what is seen next unless an episode ends, and what would have been seen then without the time limit."""
    cut, whole = played(contract.name, LEFT, 0), played(contract.name, contract.horizon, 0)
    np.testing.assert_array_equal(cut.observation[0], cut.first)
    np.testing.assert_array_equal(cut.observation[1:], cut.step.observation[:-1])
    done = cut.step.terminated | cut.step.truncated
    same = equal(cut.step.observation, cut.step.final_observation)
    assert same[~done].all() and not same[done].all()
    lasts = ~whole.step.terminated[:LEFT].any(0)
    assert lasts.any()
    seen = (whole.step.final_observation, whole.step.observation, cut.step.final_observation)
    if contract.name == "PointRobot-misc":
        seen = tuple(observation[..., :-1] for observation in seen)  # The last number is the time.
    for observation in seen[:2]:
        assert equal(observation, seen[2])[:LEFT, lasts].all()
    np.testing.assert_array_equal(cut.step.reward[:LEFT, lasts], whole.step.reward[:LEFT, lasts])


@every_environment
def test_the_key_decides(contract):
    play = played(contract.name, LEFT, 0)
    again = jax.tree.map(np.asarray, player(contract.name)(jax.random.key(0), contract.horizon - LEFT))
    jax.tree.map(np.testing.assert_array_equal, play, again)
    other = played(contract.name, LEFT, 1)
    assert (play.observation != other.observation).any()
    starts = np.concatenate([play.first, other.first])
    assert (starts != starts[:1]).any() == contract.random


@every_environment
def test_it_can_be_drawn(contract):
    play, steps = played(contract.name, contract.horizon, 0), slice(0, 12)
    state = {name: values[steps, 0] for name, values in play.state.items()}
    moments = Moment(play.observation[steps, 0], play.action[steps, 0], state)
    clip = rendering.frames(contract.name, moments, 64)
    assert clip.shape == (12, 64, 64, 3) and clip.dtype == np.uint8
    assert (clip[1:] != clip[:-1]).any((1, 2, 3)).sum() >= 3


@pytest.mark.parametrize("name", ["PongNoFrameskip-v4", "EnduroNoFrameskip-v4"])
def test_atari_keeps_what_of_it_an_emulator_can(name):
    """Games are played many at a time, and begin anew a step after their end, so that there is no other observation."""
    env = make(name)

    @jax.jit
    def run(key):
        def step(carry, action):
            observation, state = carry
            state, step = env.step_many(key, state, jnp.full((ENVS,), action))
            return (step.observation, state), (observation, step)

        return jax.lax.scan(step, env.reset_many(key, ENVS), jnp.arange(STEPS) % env.action_size)[1]

    observation, step = jax.tree.map(np.asarray, run(jax.random.key(0)))
    assert observation.shape == (STEPS, ENVS, 84, 84, 4) == (STEPS, ENVS, *env.observation_shape)
    assert observation.dtype == env.observation_dtype == np.uint8
    assert step.reward.dtype == np.float32 and not step.terminated.any() and not step.truncated.any()
    np.testing.assert_array_equal(observation[1:], step.observation[:-1])
    np.testing.assert_array_equal(step.final_observation, step.observation)
    np.testing.assert_array_equal(run(jax.random.key(0))[0], observation)
    assert (run(jax.random.key(1))[0] != observation).any()
    clip = rendering.frames(env.name, Moment(observation[:, 0], np.arange(STEPS) % env.action_size), 64)
    assert clip.shape == (STEPS, 64, 64, 3) and (clip[1:] != clip[:-1]).any((1, 2, 3)).sum() >= 3
