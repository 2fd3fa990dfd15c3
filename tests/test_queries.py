"""Which pairs are asked about, and how many when."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

from rlhf_jax import queries
from rlhf_jax.config import Config, LabelConfig, QueryConfig
from rlhf_jax.rollout import Rollout

LENGTH = 3


def config_of(iterations=60, num_envs=16, rollout_length=200, **labels):
    """A config that says everything that the schedule depends on."""
    labels = {
        "budget": 700,
        "max_budget": 1400,
        "capacity": None,
        "initial_fraction": 0.25,
        "warmup": 4,
        "half_life": 50_000.0,
    } | labels
    return Config(iterations=iterations, num_envs=num_envs, rollout_length=rollout_length, labels=LabelConfig(**labels))


def test_schedule_literals():
    """A quarter over two iterations, then the rest as log(1 + s / h), with s = 100, 200, 300 and h = 100."""
    config = config_of(iterations=5, num_envs=10, rollout_length=10, warmup=2, half_life=100.0)
    # In the end 0.25 + 0.75 · log(2, 3, 4) / log 4.
    np.testing.assert_allclose(queries.schedule(config), [0.0, 0.125, 0.25, 0.625, 0.844360938, 1.0], rtol=1e-8)


@pytest.mark.parametrize("initial_fraction", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("iterations", "warmup"), [(60, 4), (7, 1), (500, 20)])
def test_schedule_rises_from_zero_to_one(iterations, warmup, initial_fraction):
    share = queries.schedule(config_of(iterations=iterations, warmup=warmup, initial_fraction=initial_fraction))
    assert share.shape == (iterations + 1,)
    assert share[0] == 0.0
    assert share[-1] == pytest.approx(1.0, abs=1e-12)
    assert share[warmup] == pytest.approx(initial_fraction, abs=1e-12)
    assert (np.diff(share) >= 0).all()


def test_warm_up_is_even():
    share = queries.schedule(config_of(warmup=5, initial_fraction=0.3))
    np.testing.assert_allclose(np.diff(share[:6]), np.full(5, 0.06))


@pytest.mark.parametrize("half_life", [1e4, 2e4])
def test_rate_halves_at_the_half_life(half_life):
    """Iterations of 10 steps are a fine ruler: the rate is h / (s + h), so ½ at s = h and ⅓ at s = 2h."""
    share = queries.schedule(config_of(iterations=5001, num_envs=1, rollout_length=10, warmup=1, half_life=half_life))
    rate = np.diff(share[1:])
    half = int(half_life / 10)
    np.testing.assert_allclose([rate[half] / rate[0], rate[2 * half] / rate[0]], [1 / 2, 1 / 3], rtol=2e-3)


@pytest.mark.parametrize("warmup", [1, 4, 7])
@pytest.mark.parametrize("initial_fraction", [0.0, 0.25, 1 / 3])
def test_lanes_reach_their_budgets_within_the_slots(warmup, initial_fraction):
    """One program for several budgets: each starts at 0, ends at its budget and never outgrows Q on the way."""
    config = config_of(warmup=warmup, initial_fraction=initial_fraction)
    budgets = jnp.array([1, 350, 700, 1400])

    def due(budget, iteration):
        labels = dataclasses.replace(config.labels, budget=budget)
        return queries.labels_by(iteration, config=dataclasses.replace(config, labels=labels))

    lanes = jax.jit(jax.vmap(jax.vmap(due, (None, 0)), (0, None)))(budgets, jnp.arange(61))
    assert lanes[:, 0].tolist() == [0, 0, 0, 0]
    assert lanes[:, -1].tolist() == [1, 350, 700, 1400]
    increases = np.diff(lanes, axis=1)
    assert increases.min() >= 0
    assert increases.max() <= queries.slots(config) <= increases.max() + 1


def test_slots_literal():
    """350 labels in 4 warm-up iterations are 87½ each, more than in any later one."""
    assert queries.slots(config_of()) == 88


def test_disagreement_against_numpy():
    returns = np.random.default_rng(0).normal(scale=3.0, size=(4, 50, 2))
    expected = np.var(reference.sigmoid(returns[..., 0] - returns[..., 1]), axis=0)
    np.testing.assert_allclose(queries.disagreement(jnp.asarray(returns, jnp.float32)), expected, rtol=1e-4, atol=1e-7)


def rollout_of(done=None, steps=20, num_envs=3):
    """A rollout in which every step can be told from its observation, 10 t + n."""
    step = 10.0 * jnp.arange(steps)[:, None] + jnp.arange(num_envs)[None]
    done = jnp.zeros((steps, num_envs), bool) if done is None else done
    return Rollout(
        observation=jnp.stack([step, -step], -1),
        action=step[..., None] + 0.5,
        state={"step": step},
        log_prob=jnp.zeros((steps, num_envs)),
        next_observation=jnp.zeros((steps, num_envs, 2)),
        terminated=done,
        truncated=jnp.zeros((steps, num_envs), bool),
        true_reward=2.0 * step,
    )


def select(rewards, count, *, selection="disagreement", num_slots=4, candidates=5, done=None, seed=0):
    """Selects from such a rollout."""
    config = QueryConfig(segment_length=LENGTH, candidates=candidates, selection=selection)
    rollout = rollout_of(done)
    return queries.select(jax.random.key(seed), rollout, rewards, count, num_slots=num_slots, config=config)


def random_rewards(seed=0):
    return jax.random.normal(jax.random.key(seed), (3, 20, 3))


def places(asked):
    """Returns `[Q, 2]` start and environment of the segments, read off their first observation."""
    first = np.asarray(asked.observation[:, :, 0, 0]).astype(int)
    return first // 10, first % 10


@pytest.mark.parametrize("selection", ["disagreement", "uniform"])
def test_queries_are_slices_of_the_rollout(selection):
    asked, rollout = select(random_rewards(), 3, selection=selection), rollout_of()
    assert asked.observation.shape == (4, 2, LENGTH, 2)
    start, env = places(asked)
    for q in range(4):
        for slot in range(2):
            window = slice(start[q, slot], start[q, slot] + LENGTH), env[q, slot]
            np.testing.assert_array_equal(asked.observation[q, slot], rollout.observation[window])
            np.testing.assert_array_equal(asked.action[q, slot], rollout.action[window])
            np.testing.assert_array_equal(asked.true_reward[q, slot], rollout.true_reward[window])


@pytest.mark.parametrize("count", [0, 1, 3, 4])
@pytest.mark.parametrize("selection", ["disagreement", "uniform"])
def test_exactly_count_are_asked(selection, count):
    asked = select(random_rewards(), jnp.array(count), selection=selection).asked
    assert asked.tolist() == [q < count for q in range(4)]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_disagreement_picks_the_largest_variance_among_its_candidates(count):
    """Of 20 candidates only the first 5 · count are looked at, and the `count` best of them are asked."""
    # The same draw of 20 candidates, all kept: without any disagreement ties leave them in order.
    candidates = places(select(jnp.zeros((3, 20, 3)), 20, num_slots=20, candidates=1))
    rewards = random_rewards()
    returns = reference.window_sums(np.moveaxis(np.asarray(rewards, np.float64), 0, -1), LENGTH)[candidates]
    variance = np.var(reference.sigmoid(returns[:, 0] - returns[:, 1]), axis=-1)
    best = np.argsort(-variance[: 5 * count])[:count]
    chosen = np.stack(places(select(rewards, count)), -1)[:count]
    np.testing.assert_array_equal(chosen, np.stack(candidates, -1)[best])


def test_uniform_ignores_the_ensemble():
    first, second = (select(random_rewards(seed), 3, selection="uniform") for seed in (0, 1))
    np.testing.assert_array_equal(first.observation, second.observation)
    first, second = (select(random_rewards(seed), 3) for seed in (0, 1))
    assert (first.observation != second.observation).any()


def test_segments_never_cross_a_reset():
    done = jnp.zeros((20, 3), bool).at[7, 0].set(True).at[3:18:4, 1].set(True).at[:, 2].set(True)
    start, env = places(select(random_rewards(), 50, num_slots=50, candidates=2, done=done))
    valid = reference.valid_starts(np.asarray(done), LENGTH)
    assert set(env.ravel()) == {0, 1}
    assert valid[start, env].all()


@pytest.mark.parametrize("selection", ["disagreement", "uniform"])
def test_nothing_is_asked_if_every_window_crosses_a_reset(selection):
    asked = select(random_rewards(), 3, selection=selection, done=jnp.ones((20, 3), bool))
    assert not asked.asked.any()
