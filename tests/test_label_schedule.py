"""How many labels are due when."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import queries
from rlhf_jax.config import Config, LabelConfig


def config_of(iterations=60, num_envs=16, rollout_length=200, **labels):
    """A config that says everything that the schedule depends on."""
    labels = {
        "budget": 700,
        "max_budget": 1400,
        "capacity": None,
        "initial_fraction": 0.25,
        "warmup": 4,
        "schedule": "hyperbolic",
        "half_life": 50_000.0,
    } | labels
    return Config(iterations=iterations, num_envs=num_envs, rollout_length=rollout_length, labels=LabelConfig(**labels))


# The share of the other labels that has come after 1, 2 and 3 half-lives, where all end.
SHARES = {
    "constant": [1 / 3, 2 / 3, 1.0],
    "hyperbolic": [0.5, 0.792481250, 1.0],  # log 2, log 3, log 4
    "inverse_quadratic": [0.628798544, 0.886395633, 1.0],  # arctan 1, arctan 2, arctan 3
    "exponential": [4 / 7, 6 / 7, 1.0],  # 1/2, 3/4, 7/8
}


def test_every_schedule_has_its_literals():
    assert set(SHARES) == set(queries.SCHEDULES)


@pytest.mark.parametrize("schedule", SHARES)
def test_schedule_literals(schedule):
    """A quarter over two iterations, then the rest in three iterations of a half-life each."""
    config = config_of(
        iterations=5,
        num_envs=10,
        rollout_length=10,
        warmup=2,
        half_life=100.0,
        initial_fraction=0.25,
        schedule=schedule,
    )
    expected = [0.0, 0.125, 0.25, *(0.25 + 0.75 * share for share in SHARES[schedule])]
    np.testing.assert_allclose(queries.schedule(config), expected, rtol=1e-8)


@pytest.mark.parametrize("initial_fraction", [0.0, 0.25, 1.0])
@pytest.mark.parametrize(("iterations", "warmup"), [(60, 4), (7, 1), (500, 20)])
@pytest.mark.parametrize("schedule", SHARES)
def test_schedule_rises_from_zero_to_one(schedule, iterations, warmup, initial_fraction):
    config = config_of(iterations=iterations, warmup=warmup, initial_fraction=initial_fraction, schedule=schedule)
    share = queries.schedule(config)
    assert share.shape == (iterations + 1,)
    assert share[0] == 0.0
    assert share[-1] == pytest.approx(1.0, abs=1e-12)
    assert share[warmup] == pytest.approx(initial_fraction, abs=1e-12)
    assert (np.diff(share) >= 0).all()


def test_warm_up_is_even():
    share = queries.schedule(config_of(warmup=5, initial_fraction=0.3))
    np.testing.assert_allclose(np.diff(share[:6]), np.full(5, 0.06))


@pytest.mark.parametrize("half_life", [1e4, 2e4])
@pytest.mark.parametrize(
    ("schedule", "after_two"), [("hyperbolic", 1 / 3), ("inverse_quadratic", 1 / 5), ("exponential", 1 / 4)]
)
def test_rate_halves_at_the_half_life(schedule, after_two, half_life):
    """Iterations of 10 steps are a fine ruler of the rates, 1 / (1 + t), 1 / (1 + t²) and 2⁻ᵗ."""
    config = config_of(iterations=5001, num_envs=1, rollout_length=10, warmup=1, half_life=half_life, schedule=schedule)
    rate = np.diff(queries.schedule(config)[1:])
    half = int(half_life / 10)
    np.testing.assert_allclose([rate[half] / rate[0], rate[2 * half] / rate[0]], [1 / 2, after_two], rtol=2e-3)


def test_rate_of_the_constant_schedule_stays():
    rate = np.diff(queries.schedule(config_of(schedule="constant"))[4:])
    np.testing.assert_allclose(rate, np.full(56, 0.75 / 56), rtol=1e-9)


@pytest.mark.parametrize("schedule", SHARES)
def test_all_can_be_asked_before_training(schedule):
    """700 labels in the four iterations of the warm-up, none later."""
    config = config_of(initial_fraction=1.0, schedule=schedule)
    due = [int(queries.labels_by(jnp.array(i), config=config)) for i in (0, 1, 2, 3, 4, 5, 30, 60)]
    assert due == [0, 175, 350, 525, 700, 700, 700, 700]
    assert queries.slots(config) == 350  # of the largest budget, 1400


@pytest.mark.parametrize("schedule", SHARES)
@pytest.mark.parametrize(("warmup", "initial_fraction"), [(1, 0.25), (4, 0.0), (7, 1 / 3), (4, 1.0)])
def test_lanes_reach_their_budgets_within_the_slots(warmup, initial_fraction, schedule):
    """One program for several budgets: each starts at 0, ends at its budget and never outgrows Q on the way."""
    config = config_of(warmup=warmup, initial_fraction=initial_fraction, schedule=schedule)
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
