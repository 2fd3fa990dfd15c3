"""A buffer of answered queries, with the bootstrap sample of every ensemble member."""

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax.environments import Environment
from rlhf_jax.queries import Queries
from rlhf_jax.teacher import Answers

# P(X ≤ k) for a Poisson variable of mean 1, k = 0 … 6: how often one label enters a bootstrap sample as large as the
# data. A label is out of a member's bag with probability 1/e, the share that the paper holds out for validation.
_POISSON_CDF = (0.36787944, 0.73575888, 0.91969860, 0.98101184, 0.99634015, 0.99940582, 0.99991676)


@flax.struct.dataclass
class Preferences:
    """Up to C answered queries; the oldest make room for the newest.

    observation: [C, 2, L, ...] of both segments.
    action: [C, 2, L, ...] of both segments.
    label: [C] share of the preference that goes to slot 0.
    filled: [C] whether the row holds an answer.
    multiplicity: [M, C] how often the row is in each member's bootstrap sample, fixed when it is added.
    added: [] answers added so far, those that have been dropped again included.
    """

    observation: jax.Array
    action: jax.Array
    label: jax.Array
    filled: jax.Array
    multiplicity: jax.Array
    added: jax.Array


def init(*, env: Environment, capacity: int, length: int, members: int) -> Preferences:
    """Returns an empty buffer.

    Args:
      env: gives the shapes of observations and actions.
      capacity: C.
      length: L, steps of a segment.
      members: M.
    """
    rows = (capacity, 2, length)
    return Preferences(
        observation=jnp.zeros((*rows, *env.observation_shape), env.observation_dtype),
        action=jnp.zeros((*rows, *env.action_shape), env.action_dtype),
        label=jnp.zeros(capacity),
        filled=jnp.zeros(capacity, bool),
        multiplicity=jnp.zeros((members, capacity), jnp.int32),
        added=jnp.zeros((), jnp.int32),
    )


def add(
    key: jax.Array, preferences: Preferences, queries: Queries, answers: Answers, *, bootstrap: bool = True
) -> Preferences:
    """Adds the answers of positive weight, and draws how often each is in every member's bootstrap sample.

    Drawing the multiplicity from a Poisson distribution of mean 1 is the bootstrap of a stream: it needs no knowledge
    of how much data there will be.

    Args:
      key: consumed.
      preferences: the buffer.
      queries: Q pairs, Q ≤ C.
      answers: their answers.
      bootstrap: whether members differ in what they learn from; if not, each has every row once.

    Returns:
      The buffer with them.

    Reference: Oza and Russell 2001, "Online bagging and boosting".
    """
    members, capacity = preferences.multiplicity.shape
    given = answers.weight > 0
    rank = jnp.cumsum(given) - 1
    # Rows of pairs without an answer lie beyond the end, where scatters are dropped.
    row = jnp.where(given, (preferences.added + rank) % capacity, capacity)
    uniform = jax.random.uniform(key, (members, given.shape[0]))
    if not bootstrap:
        uniform = jnp.full_like(uniform, 0.5)  # between P(X = 0) and P(X ≤ 1): once
    multiplicity = (uniform[..., None] > jnp.asarray(_POISSON_CDF)[None, None]).sum(-1)
    return Preferences(
        observation=preferences.observation.at[row].set(queries.observation, mode="drop"),
        action=preferences.action.at[row].set(queries.action, mode="drop"),
        label=preferences.label.at[row].set(answers.label, mode="drop"),
        filled=preferences.filled.at[row].set(True, mode="drop"),
        multiplicity=preferences.multiplicity.at[:, row].set(multiplicity, mode="drop"),
        added=preferences.added + given.sum(),
    )


def resize(preferences: Preferences, capacity: int) -> Preferences:
    """Moves the answers to a buffer of another size, oldest first, as if no earlier ones had been dropped.

    Args:
      preferences: C rows.
      capacity: of the new buffer, at least the number of answers in the old one.
    """
    old = preferences.label.shape[0]
    kept = jnp.minimum(preferences.added, old)
    row = (preferences.added - kept + jnp.arange(capacity)) % old

    def move(values: jax.Array) -> jax.Array:
        moved = values[row]
        is_kept = (jnp.arange(capacity) < kept).reshape(-1, *(1 for _ in moved.shape[1:]))
        return jnp.where(is_kept, moved, jnp.zeros_like(moved))

    return Preferences(
        observation=move(preferences.observation),
        action=move(preferences.action),
        label=move(preferences.label),
        filled=move(preferences.filled),
        multiplicity=move(preferences.multiplicity.T).T,
        added=kept,
    )
