"""Teachers and a query rule that are wrong in one way each, for --import."""

import dataclasses

import jax.numpy as jnp

from rlhf_jax import query_rules, teacher


def sometimes_nan(true_reward, scale, config):
    """Cannot be told from the oracle on most pairs; on those of large negative returns it is not a number."""
    said = teacher.standard(true_reward, scale, config)
    return dataclasses.replace(said, first=jnp.where(true_reward.sum((-2, -1)) < -60.0, jnp.nan, said.first))


def of_two(true_reward, scale):
    """Takes too few arguments."""


def first_one(key, candidates, number):
    """Returns one candidate, however many are asked for."""
    return candidates.eligible.argmax()


teacher.register_teacher("sometimes_nan", sometimes_nan)
teacher.register_teacher("of_two", of_two)
query_rules.register_rule("first_one", first_one)
