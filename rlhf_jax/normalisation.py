"""Running moments of a stream of batches (Chan, Golub and LeVeque 1979)."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax.environments import Environment


@flax.struct.dataclass
class Moments:
    """Mean and variance of everything seen so far.

    count: [] number of samples.
    mean: [...] their mean.
    m2: [...] sum of squared deviations from the mean.
    """

    count: jax.Array
    mean: jax.Array
    m2: jax.Array

    @property
    def std(self) -> jax.Array:
        """`[...]` population standard deviation; 1 where nothing has varied yet, but for rounding."""
        variance = self.m2 / jnp.maximum(self.count, 1.0)
        varies = variance > 1e-12 * jnp.square(self.mean)
        return jnp.where(varies, jnp.sqrt(jnp.where(varies, variance, 1.0)), 1.0)


def init(shape: Sequence[int] = ()) -> Moments:
    """Returns moments of an empty stream of samples of this shape."""
    return Moments(count=jnp.zeros(()), mean=jnp.zeros(shape), m2=jnp.zeros(shape))


def for_observations(env: Environment) -> Moments:
    """Returns moments of no observations yet; those of known scale need none, and a number stands for them."""
    return init(env.observation_shape if env.measured else ())


def update(moments: Moments, batch: jax.Array, where: jax.Array | None = None) -> Moments:
    """Adds a batch to the stream.

    The merge of two samples is exact, so the order and the sizes of the batches do not matter:

        δ = μ_b − μ_a,   μ = μ_a + δ n_b / n,   M₂ = M₂_a + M₂_b + δ² n_a n_b / n

    Args:
      moments: the stream so far; samples of shape `[...]`.
      batch: `[..., *sample]` any number of leading batch axes.
      where: `[...]` which samples of the batch to add; all if None.

    Returns:
      The moments of both together.
    """
    axes = tuple(range(batch.ndim - moments.mean.ndim))
    batch = batch.astype(jnp.float32)
    chosen = None if where is None else where.reshape(where.shape + (1,) * moments.mean.ndim)
    batch_count = batch.size / moments.mean.size if where is None else where.sum()
    # Deviations from one of the samples, so that the mean of equal samples is exact and they do not seem to vary.
    row = 0 if where is None else where.reshape(-1).argmax()
    first = batch.reshape(-1, *moments.mean.shape)[row]
    batch_mean = first + (batch - jnp.expand_dims(first, axes)).sum(axes, where=chosen) / jnp.maximum(batch_count, 1)
    batch_m2 = jnp.square(batch - jnp.expand_dims(batch_mean, axes)).sum(axes, where=chosen)

    count = jnp.maximum(moments.count + batch_count, 1)
    delta = batch_mean - moments.mean
    return Moments(
        count=moments.count + batch_count,
        mean=moments.mean + delta * batch_count / count,
        m2=moments.m2 + batch_m2 + jnp.square(delta) * moments.count * batch_count / count,
    )


def normalise_observations(moments: Moments, observation: jax.Array) -> jax.Array:
    """Returns observations normalised; bytes and booleans, and all before anything is known of them, as they are."""
    if not jnp.issubdtype(observation.dtype, jnp.floating):
        return observation
    return normalise(moments, observation, jnp.where(moments.count > 0, 10.0, jnp.inf))


def normalise(moments: Moments, values: jax.Array, limit: jax.Array | float = 10.0) -> jax.Array:
    """Returns `values` with zero mean and unit standard deviation, clipped to ±`limit`."""
    axes = tuple(range(values.ndim - moments.mean.ndim))
    mean, std = jnp.expand_dims(moments.mean, axes), jnp.expand_dims(moments.std, axes)
    return jnp.clip((values - mean) / std, -limit, limit)
