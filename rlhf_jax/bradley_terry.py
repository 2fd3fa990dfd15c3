"""Bradley–Terry model of a choice between two segments (Christiano et al. 2017, §2.2.3).

Segment returns are sums of predicted rewards over the steps of a segment, undiscounted.
"""

import chex
import jax
import jax.numpy as jnp


def preference_logit(returns: jax.Array) -> jax.Array:
    """Returns the log-odds that slot 0 is preferred to slot 1.

        log P[0 ≻ 1] − log P[1 ≻ 0] = Σₜ r̂(oₜ⁰, aₜ⁰) − Σₜ r̂(oₜ¹, aₜ¹)

    Args:
      returns: `[..., 2]` undiscounted predicted return of each segment.

    Returns:
      `[...]` log-odds.

    Reference: Christiano et al. 2017, eq. 1.
    """
    chex.assert_axis_dimension(returns, -1, 2)
    return returns[..., 0] - returns[..., 1]


def preference_probability(returns: jax.Array, error_rate: jax.Array | float = 0.0) -> jax.Array:
    """Returns the probability that a fallible person prefers slot 0.

        P′[0 ≻ 1] = (1 − ε) σ(logit) + ε / 2

    Args:
      returns: `[..., 2]` undiscounted predicted return of each segment.
      error_rate: ε, the share of answers that are uniformly random; the paper's is 0.1.

    Returns:
      `[...]` probabilities in [ε/2, 1 − ε/2].

    Reference: Christiano et al. 2017, §2.2.3, third modification.
    """
    probability = jax.nn.sigmoid(preference_logit(returns))
    return (1.0 - error_rate) * probability + 0.5 * error_rate


def cross_entropy(returns: jax.Array, labels: jax.Array, error_rate: jax.Array | float = 0.0) -> jax.Array:
    """Returns the loss of each pair, in nats.

        −μ log P′[0 ≻ 1] − (1 − μ) log P′[1 ≻ 0]

    Both logarithms are taken of the sum of two exponentials, so that ε = 0 is exact for confident models.

    Args:
      returns: `[..., 2]` undiscounted predicted return of each segment.
      labels: `[...]` μ, the share of the preference that goes to slot 0: 1, 0, or ½ for a tie.
      error_rate: ε, the share of answers that are uniformly random.

    Returns:
      `[...]` losses.

    Reference: Christiano et al. 2017, §2.2.3, the displayed loss.
    """
    logit = preference_logit(returns)
    log_certain = jnp.log1p(-jnp.asarray(error_rate))
    log_random = jnp.log(0.5 * jnp.asarray(error_rate))
    log_first = jnp.logaddexp(log_certain + jax.nn.log_sigmoid(logit), log_random)
    log_second = jnp.logaddexp(log_certain + jax.nn.log_sigmoid(-logit), log_random)
    return -labels * log_first - (1.0 - labels) * log_second
