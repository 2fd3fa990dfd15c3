"""Running moments of a stream of batches (Chan, Golub and LeVeque 1979)."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp


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
        """`[...]` population standard deviation; 1 where nothing has varied yet."""
        variance = self.m2 / jnp.maximum(self.count, 1.0)
        return jnp.where(variance > 1e-8, jnp.sqrt(jnp.maximum(variance, 1e-8)), 1.0)


def init(shape: Sequence[int] = ()) -> Moments:
    """Returns moments of an empty stream of samples of this shape."""
    return Moments(count=jnp.zeros(()), mean=jnp.zeros(shape), m2=jnp.zeros(shape))


def update(moments: Moments, batch: jax.Array) -> Moments:
    """Adds a batch to the stream.

    The merge of two samples is exact, so the order and the sizes of the batches do not matter:

        δ = μ_b − μ_a,   μ = μ_a + δ n_b / n,   M₂ = M₂_a + M₂_b + δ² n_a n_b / n

    Args:
      moments: the stream so far; samples of shape `[...]`.
      batch: `[..., *sample]` any number of leading batch axes.

    Returns:
      The moments of both together.
    """
    axes = tuple(range(batch.ndim - moments.mean.ndim))
    batch = batch.astype(jnp.float32)
    batch_count = batch.size / moments.mean.size
    # Deviations from one of the samples, so that the mean of equal samples is exact and they do not seem to vary.
    first = batch[(0,) * len(axes)]
    batch_mean = first + (batch - jnp.expand_dims(first, axes)).mean(axes)
    batch_m2 = jnp.square(batch - jnp.expand_dims(batch_mean, axes)).sum(axes)

    count = moments.count + batch_count
    delta = batch_mean - moments.mean
    return Moments(
        count=count,
        mean=moments.mean + delta * batch_count / count,
        m2=moments.m2 + batch_m2 + jnp.square(delta) * moments.count * batch_count / count,
    )


def normalise(moments: Moments, values: jax.Array, limit: float = 10.0) -> jax.Array:
    """Returns `values` with zero mean and unit standard deviation, clipped to ±`limit`."""
    axes = tuple(range(values.ndim - moments.mean.ndim))
    mean, std = jnp.expand_dims(moments.mean, axes), jnp.expand_dims(moments.std, axes)
    return jnp.clip((values - mean) / std, -limit, limit)
