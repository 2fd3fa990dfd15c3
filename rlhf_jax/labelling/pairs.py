"""Pairs of segments as NumPy records: one record holds all that was asked about, whatever the environment."""

import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.environments import Environment
from rlhf_jax.queries import Queries

_STATE = "state."
_LARGE = 2**16  # bytes


def layout(env: Environment, length: int) -> np.dtype:
    """Returns the record of a pair of segments.

    Args:
      env: gives the shapes and types of observations, actions and states.
      length: L, steps of a segment.

    Returns:
      Fields `observation`, `action`, `true_reward` and `state.<name>` for each part of the environment's own state, all
      `[2, L, ...]`.
    """
    # Of one environment in a batch, because games in an emulator are only played so.
    _, state = jax.eval_shape(lambda key: env.reset_many(key, 1), jax.random.key(0))
    state = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in env.named_state(state).items()}
    fields = {
        "observation": jax.ShapeDtypeStruct(env.observation_shape, env.observation_dtype),
        "action": jax.ShapeDtypeStruct(env.action_shape, env.action_dtype),
        "true_reward": jax.ShapeDtypeStruct((), jnp.float32),
        **{_STATE + name: part for name, part in state.items()},
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


def pack(record: np.ndarray) -> bytes:
    """Returns a record in bytes; one of pictures, which is a megabyte, compressed to about a hundredth."""
    plain = record.tobytes()
    return zlib.compress(plain, 1) if record.dtype.itemsize > _LARGE else plain


def fits(size: int, record: np.dtype) -> bool:
    """Returns whether a record of this layout may be packed in so many bytes."""
    return size > 0 if record.itemsize > _LARGE else size == record.itemsize


def unpack(packed: Sequence[bytes], record: np.dtype) -> np.ndarray:
    """Returns the `[P]` records of this layout that `pack` wrote; raises ValueError if one is damaged."""
    try:
        parts = [zlib.decompress(part) for part in packed] if record.itemsize > _LARGE else packed
        return np.frombuffer(b"".join(parts), record)
    except (zlib.error, ValueError) as error:
        raise ValueError(f"a stored pair is damaged: {error}") from None


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
