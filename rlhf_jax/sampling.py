"""Draws of rows in proportion to whole-number weights."""

import jax
import jax.numpy as jnp


def draw(key: jax.Array, weights: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draws row numbers with replacement, each with probability proportional to its weight.

    One cumulative sum and a binary search, because a categorical draw would need noise for every row.

    Args:
      key: consumed.
      weights: `[R]` non-negative whole numbers or booleans, whose sum is below 2²⁴; if all are zero, row 0 is drawn
        and must not be used.
      shape: how many rows to draw.

    Returns:
      Row numbers, of this shape.
    """
    cumulative = jnp.cumsum(weights.astype(jnp.int32))
    total = cumulative[-1]
    rank = jnp.minimum((jax.random.uniform(key, shape) * total).astype(jnp.int32), total - 1)
    return jnp.where(total > 0, jnp.searchsorted(cumulative, rank, side="right"), 0)
