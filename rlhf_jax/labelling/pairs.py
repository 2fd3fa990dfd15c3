"""Pairs of segments as NumPy records: one record holds all that was asked about, whatever the environment."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.environments import Environment
from rlhf_jax.queries import Queries

_STATE = "state."


def layout(env: Environment, length: int) -> np.dtype:
    """Returns the record of a pair of segments.

    Args:
      env: gives the shapes and types of observations, actions and states.
      length: L, steps of a segment.

    Returns:
      Fields `observation`, `action`, `true_reward` and `state.<name>` for each part of the environment's own state, all
      `[2, L, ...]`.
    """
    _, state = jax.eval_shape(env.reset, jax.random.key(0))
    observation = jax.eval_shape(lambda key: env.reset(key)[0], jax.random.key(0))
    fields = {
        "observation": observation,
        "action": jax.ShapeDtypeStruct(env.action_shape, env.action_dtype),
        "true_reward": jax.ShapeDtypeStruct((), jnp.float32),
        **{_STATE + name: part for name, part in env.named_state(state).items()},
    }
    return np.dtype([(name, part.dtype, (2, length, *part.shape)) for name, part in fields.items()])


def segment_length(record: np.dtype) -> int:
    """Returns L, the steps of a segment in records of this layout."""
    return record["true_reward"].shape[1]


def to_json(layout: np.dtype) -> list[list[Any]]:
    """Returns the layout of a record as names, types and shapes."""
    return [[name, layout[name].base.str, list(layout[name].shape)] for name in layout.names or ()]


def from_json(fields: list[list[Any]]) -> np.dtype:
    """Returns the layout that `to_json` wrote."""
    return np.dtype([(name, kind, tuple(shape)) for name, kind, shape in fields])


def to_records(queries: Queries, record: np.dtype) -> np.ndarray:
    """Returns the queries that are asked as `[P]` records of this layout."""
    asked = np.asarray(queries.asked)
    records = np.zeros(int(asked.sum()), record)
    for name in record.names or ():
        values = queries.state[name.removeprefix(_STATE)] if name.startswith(_STATE) else getattr(queries, name)
        records[name] = np.asarray(values)[asked]
    return records


def to_queries(records: np.ndarray, num_slots: int) -> Queries:
    """Returns `[P]` records as `num_slots` queries, of which the first P are asked and the others empty."""
    padded = np.zeros(num_slots, records.dtype)
    padded[: len(records)] = records
    return Queries(
        observation=jnp.asarray(padded["observation"]),
        action=jnp.asarray(padded["action"]),
        state={name: jnp.asarray(values) for name, values in states(padded).items()},
        true_reward=jnp.asarray(padded["true_reward"]),
        asked=jnp.arange(num_slots) < len(records),
    )


def states(records: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the parts of the environment's own state in these records, by name."""
    names = [name for name in records.dtype.names or () if name.startswith(_STATE)]
    return {name.removeprefix(_STATE): records[name] for name in names}
