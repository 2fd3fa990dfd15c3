"""Segments: short windows of a rollout that stay within one episode (Christiano et al. 2017, §2.2)."""

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax import sampling


@flax.struct.dataclass
class Windows:
    """Where segments lie in a rollout, for any shape of them.

    start: [...] first step.
    env: [...] environment.
    """

    start: jax.Array
    env: jax.Array


def valid_starts(done: jax.Array, length: int) -> jax.Array:
    """Returns where a segment may start without crossing a reset.

    Args:
      done: `[T, N]` the step was the last of its episode. A segment may end with such a step, not go on after it.
      length: L, at most T.

    Returns:
      `[T − L + 1, N]` whether the L steps from here belong to one episode.
    """
    crossed = window_sums(done.astype(jnp.float32), length) - done[length - 1 :]
    return crossed < 0.5


def window_sums(values: jax.Array, length: int) -> jax.Array:
    """Returns the sum over every window of L steps.

    Args:
      values: `[T, ...]`.
      length: L, at most T.

    Returns:
      `[T − L + 1, ...]`, where entry t is the sum over steps t to t + L − 1.
    """
    total = jnp.concatenate([jnp.zeros_like(values[:1]), jnp.cumsum(values, 0)])
    return total[length:] - total[:-length]


def sample(key: jax.Array, valid: jax.Array, shape: tuple[int, ...]) -> Windows:
    """Draws segments uniformly, with replacement, from those that do not cross a reset.

    Args:
      key: consumed.
      valid: `[S, N]` where a segment may start; if nowhere, the first window is returned and must not be used.
      shape: how many to draw.

    Returns:
      Windows of this shape.
    """
    index = sampling.draw(key, valid.reshape(-1), shape)
    return Windows(start=index // valid.shape[1], env=index % valid.shape[1])


def cut(values: jax.Array, windows: Windows, length: int) -> jax.Array:
    """Cuts the segments out of `[T, N, ...]` values of a rollout.

    Returns:
      `[*windows, L, ...]`.
    """
    steps = windows.start[..., None] + jnp.arange(length).reshape((1,) * windows.start.ndim + (-1,))
    return values[steps, windows.env[..., None]]
