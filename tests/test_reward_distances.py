"""Distances of rewards against sums over a small world, and against themselves after shaping."""

import itertools

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import probes
import pytest
import tiny
from gymnax.environments import spaces

from rlhf_jax import environments, reward_distances, reward_ensemble, rollout
from rlhf_jax.config import RewardConfig

PLACES, ACTIONS, GAMMA = 4, 2, 0.9


@flax.struct.dataclass
class Place:
    """State of the ring; its names are not in alphabetical order.

    where: [] place.
    time: [] steps since the reset.
    """

    where: jax.Array
    time: jax.Array


class Ring(probes.Probe):
    """Four places in a ring: action 0 goes on by one and action 1 by two. Who steps on `trap` has ended the episode."""

    trap = -1

    def observation_space(self, params):
        return spaces.Box(0.0, 1.0, (PLACES,))

    def observe(self, state):
        return jax.nn.one_hot(state.where, PLACES)

    def reset(self, key, params):
        state = Place(jax.random.randint(key, (), 0, PLACES), jnp.zeros((), jnp.int32))
        return self.observe(state), state

    def step(self, key, state, action, params):
        after = Place((state.where + 1 + action) % PLACES, state.time + 1)
        terminated = after.where == self.trap
        start = self.reset(key, params)
        observation, carried = jax.tree.map(
            lambda a, b: jnp.where(terminated, a, b), start, (self.observe(after), after)
        )
        reward = state.where + 10.0 * action
        return observation, carried, reward, terminated, jnp.zeros((), bool), {"final_observation": self.observe(after)}


class Trap(Ring):
    """The same with a trap in place 3."""

    trap = 3


def table_reward(table):
    """A reward by a table of what it pays from place to place, which it reads off the observations."""
    table = jnp.asarray(table, jnp.float32)
    return lambda steps: table[steps.start.observation.argmax(-1), steps.action, steps.end.observation.argmax(-1)]


def at(where):
    """Situations in these places."""
    state = Place(jnp.asarray(where), jnp.zeros(len(where), jnp.int32))
    return reward_distances.Situation(state, jax.nn.one_hot(state.where, PLACES))


def transitions(rows):
    """Transitions from rows of place, action, place."""
    start, action, end = np.array(rows).T
    return reward_distances.Transition(at(start), jnp.asarray(action), at(end))


def random_table(seed):
    return np.random.default_rng(seed).normal(size=(PLACES, ACTIONS, PLACES))


def shaped(table, scale=3.0, shift=0.7):
    """The same reward scaled, shifted, and shaped by a potential of about its own size."""
    potential = np.array([0.5, -1.0, 2.0, 0.3])
    return scale * table + shift + GAMMA * potential[None, None, :] - potential[:, None, None]


def distance_by_correlation(a, b):
    """The definition, in float64."""
    return np.sqrt((1.0 - np.corrcoef(a, b)[0, 1]) / 2.0)


EVERYWHERE = [(s, a, (s + 1 + a) % PLACES) for s, a in itertools.product(range(PLACES), range(ACTIONS))]


def test_canonicalised_epic_literal():
    """R = 1 only from 0 by action 1 to 2, over the two draws (0, 1, 2) and (2, 1, 0), with γ = ½.

    (0, 1, 2): 1 + ½ (½ × 0 − 1 + ½ × 0 − 0) − ½ × ½ = ¼; (2, 1, 0): 0 + ½ (½ × 1 − 0 + ½ × 0 − 0) − ¼ = 0.
    """
    table = np.zeros((PLACES, ACTIONS, PLACES))
    table[0, 1, 2] = 1.0
    rows = [(0, 1, 2), (2, 1, 0)]
    canonical = reward_distances.canonicalised_epic(table_reward(table), transitions(rows), transitions(rows), 0.5)
    np.testing.assert_allclose(canonical, [0.25, 0.0], atol=1e-7)


def test_canonicalised_epic_against_loops():
    table, means = random_table(0), [(0, 1, 3), (2, 0, 1), (1, 1, 1), (3, 0, 0), (3, 1, 2)]
    expected = [
        table[s, a, t]
        + np.mean([GAMMA * table[t, A, T] - table[s, A, T] - GAMMA * table[S, A, T] for S, A, T in means])
        for s, a, t in EVERYWHERE
    ]
    canonical = reward_distances.canonicalised_epic(
        table_reward(table), transitions(EVERYWHERE), transitions(means), GAMMA
    )
    np.testing.assert_allclose(canonical, expected, rtol=1e-5, atol=1e-6)


def test_canonicalised_dard_literal():
    """R(0, 0, 1) = 1 and R(3, 0, 1) = 0.2, which no one can step, and 0 else; A = 0 and γ = ½.

    (3, 0, 0) has S′ = 0 and S″ = 1: 0 + ½ R(0, 0, 1) − R(3, 0, 0) − ½ R(0, 0, 1) = 0. (2, 1, 0) has S′ = 3 and S″ = 1:
    0 + ½ R(0, 0, 1) − R(2, 0, 3) − ½ R(3, 0, 1) = 0.4; with a successor of S′ for S″ it would be ½.
    """
    table = np.zeros((PLACES, ACTIONS, PLACES))
    table[0, 0, 1] = 1.0
    table[3, 0, 1] = 0.2
    steps = transitions([(3, 0, 0), (2, 1, 0)])
    canonical, counted = reward_distances.canonicalised_dard(
        jax.random.key(0), table_reward(table), steps, jnp.array([0]), 0.5, env=probes.make(Ring())
    )
    np.testing.assert_allclose(canonical, [0.0, 0.4], atol=1e-7)
    assert counted.all()


def test_canonicalised_dard_against_loops_and_around_a_trap():
    """The mean is over the actions that do not end the episode; place 1 by action 1 and place 2 by action 0 do."""
    table, actions = random_table(1), [0, 1, 1, 0, 1]
    for env, trap in ((Ring(), -1), (Trap(), 3)):
        expected = []
        for s, a, t in EVERYWHERE:
            draws = [(A, (s + 1 + A) % PLACES, (t + 1 + A) % PLACES) for A in actions]
            alive = [(A, S, T) for A, S, T in draws if trap != S]
            terms = [GAMMA * table[t, A, T] - table[s, A, S] - GAMMA * table[S, A, T] for A, S, T in alive]
            expected.append(table[s, a, t] + np.mean(terms))
        canonical, counted = reward_distances.canonicalised_dard(
            jax.random.key(0), table_reward(table), transitions(EVERYWHERE), jnp.array(actions), GAMMA,
            env=probes.make(env),
        )  # fmt: skip
        np.testing.assert_allclose(canonical, expected, rtol=1e-5, atol=1e-6)
        assert counted.all()


def test_pearson_distance_literal():
    """ρ = −½ of the first three: √1.5 / √2 = √0.75; the fourth is not counted."""
    a, b, counted = jnp.array([1.0, 2.0, 3.0, 99.0]), jnp.array([2.0, 3.0, 1.0, 7.0]), jnp.arange(4) < 3
    np.testing.assert_allclose(reward_distances.pearson_distance(a, b, counted), 0.8660254, rtol=1e-6)
    np.testing.assert_allclose(reward_distances.pearson_distance(a, -4.0 * a + 1.0, counted), 1.0, rtol=1e-6)
    assert reward_distances.pearson_distance(a, 4.0 * a + 1.0, counted) < 1e-6
    constant, varied = jnp.full(1000, 0.1).at[0].set(5.0), jnp.arange(1000.0)
    assert jnp.isnan(reward_distances.pearson_distance(varied, constant, varied > 0))


def test_pearson_distance_keeps_its_digits_near_zero():
    """Noise of a thousandth: √(1 − ρ) by the correlation in float32 would be off by several per cent."""
    a, noise = np.random.default_rng(2).normal(size=(2, 512))
    a, b = np.float32(a), np.float32(a + 5e-4 * noise)
    distance = reward_distances.pearson_distance(jnp.asarray(a), jnp.asarray(b), jnp.ones(512, bool))
    expected = distance_by_correlation(np.float64(a), np.float64(b))
    assert expected < 3e-4
    np.testing.assert_allclose(distance, expected, rtol=1e-3)


@pytest.fixture(scope="module")
def world():
    """The trap, covered by a rollout of uniformly random actions, and both distances by name."""
    env = probes.make(Trap(length=20))
    state = rollout.init(jax.random.key(0), env=env, num_envs=6)

    def policy(key, observation):
        actions = reward_distances.uniform_actions(key, observation.shape[0], env=env)
        return actions, jnp.zeros(observation.shape[0])

    steps = rollout.rollout(jax.random.key(1), state, policy, env=env, num_steps=40)[1]
    covered = reward_distances.coverage(steps, env=env, num_samples=100)
    common = {"env": env, "discount": GAMMA, "num_means": 16}

    def distances(first, second):
        key = jax.random.key(2)
        return (
            reward_distances.epic_distance(key, first, second, *covered, **common),
            reward_distances.dard_distance(key, first, second, *covered, **common),
        )

    return env, steps, covered, distances


def test_coverage(world):
    """Transitions of the rollout, spread over it, each with the state that it led to, unless it ended an episode."""
    *_, (covered, counted), _ = world
    start, end = covered.start.state.where, (covered.start.state.where + 1 + covered.action) % PLACES
    np.testing.assert_array_equal(covered.start.observation.argmax(-1), start)
    np.testing.assert_array_equal(covered.end.observation.argmax(-1), end)
    np.testing.assert_array_equal(counted, end != Trap.trap)
    np.testing.assert_array_equal(covered.end.state.where[counted], end[counted])
    np.testing.assert_array_equal(covered.end.state.time[counted], covered.start.state.time[counted] + 1)
    assert 0.1 < (~counted).mean() < 0.6


def test_coverage_is_spread_over_steps_and_environments(world):
    """Of 120 transitions, about 20 of each of the six environments and about 15 of every five of the 39 steps."""
    env, steps, *_ = world
    time, lane = np.meshgrid(np.arange(40), np.arange(6), indexing="ij")
    for numbers, bins, expected in ((lane, 6, 20.0), (np.minimum(time, 38) // 5, 8, 15.4)):
        marked = steps.replace(action=jnp.asarray(numbers))
        counts = np.bincount(reward_distances.coverage(marked, env=env, num_samples=120)[0].action, minlength=bins)
        assert len(counts) == bins
        np.testing.assert_allclose(counts, expected, atol=6.0)


def test_true_reward(world):
    """What the simulator pays for the action in the state, wherever the transition is said to end."""
    reward = reward_distances.true_reward(jax.random.key(0), env=world[0])
    assert reward(transitions([(0, 1, 2), (2, 0, 0), (3, 1, 3)])).tolist() == [10.0, 2.0, 13.0]


@pytest.mark.parametrize("seed", [3, 4])
def test_shaping_scale_and_shift_do_not_count(world, seed):
    """Nor does it matter which reward is shaped; rewards that differ stay apart, and plain correlation is fooled."""
    *_, (covered, counted), distances = world
    table, other = random_table(seed), random_table(seed + 10)
    plain = [table_reward(x)(covered) for x in (table, shaped(table))]
    assert reward_distances.pearson_distance(*plain, counted) > 0.1
    assert max(distances(table_reward(table), table_reward(shaped(table)))) < 1e-5
    np.testing.assert_allclose(distances(table_reward(table), table_reward(-shaped(table))), 1.0, rtol=1e-5)
    apart = distances(table_reward(table), table_reward(other))
    assert min(apart) > 0.1
    np.testing.assert_allclose(distances(table_reward(shaped(other)), table_reward(table)), apart, rtol=1e-4)


def test_steps_that_cannot_be_canonicalised_are_not_counted():
    """With one draw of an action, which ends the episode for some, whose potential would be left over."""
    env, table = probes.make(Trap()), random_table(3)
    steps, counted = transitions(EVERYWHERE), jnp.array([t != Trap.trap for *_, t in EVERYWHERE])
    for seed in range(3):
        distance = reward_distances.dard_distance(
            jax.random.key(seed), table_reward(table), table_reward(shaped(table)), steps, counted,
            env=env, discount=GAMMA, num_means=1,
        )  # fmt: skip
        assert distance < 1e-5


def test_learnt_reward_in_a_mapped_program(world):
    """It does not see where a step ends; and mapped over ensembles, the distances are those of each alone."""
    env, _, (covered, _), distances = world
    config = RewardConfig(hidden=(8,))
    ensembles = jax.vmap(lambda key: reward_ensemble.init(key, env=env, config=config))(
        jax.random.split(jax.random.key(5))
    )
    truth = reward_distances.true_reward(jax.random.key(6), env=env)

    def judge(ensemble):
        learnt = reward_distances.learnt_reward(ensemble, env=env, config=config)
        return learnt(covered) - learnt(covered.replace(end=covered.start)), jnp.stack(distances(learnt, truth))

    difference, found = tiny.quick_jit(jax.vmap(judge))(ensembles)
    assert not difference.any()
    one = tiny.quick_jit(judge)
    alone = [one(jax.tree.map(lambda x, i=i: x[i], ensembles))[1] for i in range(2)]
    np.testing.assert_allclose(found, jnp.stack(alone), rtol=1e-4)
    assert (found[0] != found[1]).all()


def test_distances_against_loops(world):
    """From the canonical forms in float64 over the same draws, and Pearson's correlation by its definition."""
    env, _, (covered, counted), distances = world
    first, second = random_table(5), random_table(6)
    rows = np.stack([covered.start.state.where, covered.action, covered.end.observation.argmax(-1)], -1)[counted]
    means = reward_distances.independent_steps(jax.random.key(2), covered, env=env, num_means=16)
    draws = np.stack([means.action, means.end.state.where], -1)
    actions = reward_distances.uniform_actions(jax.random.split(jax.random.key(2))[0], 16, env=env)

    def epic(table, s, a, t):
        return table[s, a, t] + np.mean([GAMMA * table[t, A, T] - table[s, A, T] for A, T in draws])

    def dard(table, s, a, t):
        alive = [(A, (s + 1 + A) % PLACES, (t + 1 + A) % PLACES) for A in np.asarray(actions)]
        terms = [GAMMA * (table[t, A, T] - table[S, A, T]) - table[s, A, S] for A, S, T in alive if Trap.trap != S]
        return table[s, a, t] + np.mean(terms)

    expected = [
        distance_by_correlation(*([canonical(table, *row) for row in rows] for table in (first, second)))
        for canonical in (epic, dard)
    ]
    np.testing.assert_allclose(distances(table_reward(first), table_reward(second)), expected, rtol=1e-4)


def test_independent_steps_and_actions_are_uniform(world):
    env, _, (covered, _), _ = world
    means = reward_distances.independent_steps(jax.random.key(3), covered, env=env, num_means=64)
    assert means.size == 64
    assert 0.3 < means.action.mean() < 0.7
    few = reward_distances.independent_steps(jax.random.key(3), transitions(EVERYWHERE), env=env, num_means=5)
    assert few.start.state.where.tolist() == [0, 0, 1, 1, 2]
    assert few.end.state.where.tolist() == few.end.observation.argmax(-1).tolist() == [2, 0, 0, 1, 1]
    canonical = [
        reward_distances.canonicalised_epic(table_reward(x), covered, means, GAMMA)
        for x in (random_table(3), shaped(random_table(3), scale=1.0, shift=0.0))
    ]
    np.testing.assert_allclose(*canonical, atol=1e-5)
    pendulum = environments.make("Pendulum-v1")
    actions = reward_distances.uniform_actions(jax.random.key(4), 2000, env=pendulum)
    assert actions.shape == (2000, 1)
    np.testing.assert_allclose(np.quantile(actions, [0.0, 0.25, 0.5, 1.0]), [-1.0, -0.5, 0.0, 1.0], atol=0.06)
