"""Why a run works: how well the learnt reward agrees with the true one."""

import flax.struct
import jax
import jax.numpy as jnp


def correlation(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns Pearson's correlation of all entries of two arrays of one shape; NaN if one of them is constant."""
    a, b = a - a.mean(), b - b.mean()
    return (a * b).sum() / jnp.sqrt(jnp.square(a).sum() * jnp.square(b).sum())


def rank_correlation(a: jax.Array, b: jax.Array) -> jax.Array:
    """Returns Spearman's correlation of all entries of two arrays of one shape; NaN if one of them is constant.

    It is Pearson's of the ranks, where equal entries share the mean of theirs.
    """
    return correlation(_centred_ranks(a.ravel()), _centred_ranks(b.ravel()))


def _centred_ranks(values: jax.Array) -> jax.Array:
    # Rank less mean rank, as a whole number below and above, so that the ranks of a constant are zero exactly.
    ordered = jnp.sort(values)
    below = jnp.searchsorted(ordered, values, side="left")
    not_above = jnp.searchsorted(ordered, values, side="right")
    return (below + not_above - values.size) / values.size


@flax.struct.dataclass
class Reliability:
    """How often what a model calls likely comes true.

    predicted: [B] mean probability that the model gave, by bin; NaN in an empty one.
    observed: [B] mean label of the same pairs.
    count: [B] their weight.
    """

    predicted: jax.Array
    observed: jax.Array
    count: jax.Array


def reliability(probability: jax.Array, label: jax.Array, weight: jax.Array, bins: int = 10) -> Reliability:
    """Sorts pairs into bins of equal width by the probability that a model gave to slot 0.

    Which segment is in which slot means nothing, so every pair counts half as it is and half with its slots swapped:
    as (p, μ) in bin b and as (1 − p, 1 − μ) in bin B − 1 − b. The bins of both sides then mirror each other.

    Args:
      probability: `[K]` that slot 0 is preferred.
      label: `[K]` μ, 1, 0 or ½, or the expected label if the answer is not drawn.
      weight: `[K]` weight of each pair; one of weight 0 is ignored, whatever it holds.
      bins: B.

    Returns:
      The reliability, whose counts add up to the weight of all pairs.
    """
    present = weight > 0
    probability, label = jnp.where(present, probability, 0.0), jnp.where(present, label, 0.0)
    index = jnp.clip((probability * bins).astype(jnp.int32), 0, bins - 1)
    share = 0.5 * weight[:, None] * jax.nn.one_hot(index, bins)
    direct, swapped = share.sum(0), share[:, ::-1].sum(0)
    count = direct + swapped
    predicted, observed = (
        (jnp.vecdot(share, x[:, None], axis=0) + jnp.vecdot(share[:, ::-1], 1.0 - x[:, None], axis=0)) / count
        for x in (probability, label)
    )
    return Reliability(predicted, observed, count)


def calibration_error(bins: Reliability) -> jax.Array:
    """Returns the expected calibration error, Σ_b count_b |observed_b − predicted_b| / Σ_b count_b; NaN of no pairs.

    Reference: Guo et al. 2017, "On calibration of modern neural networks", eq. 3.
    """
    gap = jnp.where(bins.count > 0, jnp.abs(bins.observed - bins.predicted), 0.0)
    return (bins.count * gap).sum() / bins.count.sum()


def ensemble_spread(member_rewards: jax.Array) -> jax.Array:
    """Returns how far the members of an ensemble disagree, whatever their scales and offsets.

    Args:
      member_rewards: `[M, ...]` reward of each step as each member predicts it.

    Returns:
      `[]` mean over the steps of the standard deviation over the members, after each was given zero mean and unit
      standard deviation: 0 if all are alike, about 1 if they have nothing in common; NaN if one of them is constant.
    """
    rewards = member_rewards.reshape(member_rewards.shape[0], -1)
    rewards = rewards - rewards.mean(1, keepdims=True)
    return (rewards / rewards.std(1, keepdims=True)).std(0).mean()


def over_optimisation(proxy: jax.Array, truth: jax.Array, window: int) -> jax.Array:
    """Tells where a policy exploits its learnt reward: that still rises while the true return falls.

    Both curves are smoothed by windows. A point is compared with the earlier window, without overlap, in which the true
    return was best. It gives the alarm if since then the true return has fallen and the proxy has risen, each by

    * more than a tenth of the range that its smoothed curve has had so far, and
    * more than 3.5 standard errors of the difference of two windows. That is much, since the best of many noisy windows
      lies above their mean.

    So it does not depend on the scales of the curves, nor on anything after the point. It needs four windows to start.

    Args:
      proxy: `[P]` predicted return of the policy after each iteration; all by one reward, or each normalised alike.
      truth: `[P]` its true return; like the proxy, NaN where it is not known, such as where no episode ended.
      window: points of a window, such as 5; it is used if half of its points, rounded down, are known.

    Returns:
      `[P]` the alarm.

    Reference: Gao et al. 2023, "Scaling laws for reward model overoptimization", for the phenomenon.
    """
    smooth_proxy, smooth_truth = _windowed_mean(proxy, window), _windowed_mean(truth, window)
    known = jnp.isfinite(smooth_proxy + smooth_truth)
    best = _best_so_far(jnp.where(known, smooth_truth, -jnp.inf))
    since = jnp.concatenate([jnp.zeros(window, jnp.int32), best])[: truth.size]
    return _has_risen(smooth_proxy, since, window) & _has_risen(-smooth_truth, since, window)


def _windowed_mean(curve: jax.Array, window: int) -> jax.Array:
    """Returns the `[P]` mean of the window that ends with each point; NaN where too little of it is known."""
    index = jnp.arange(curve.size)[:, None] - jnp.arange(window)[None]
    values = curve[jnp.maximum(index, 0)]
    known = jnp.isfinite(values)
    mean = jnp.where(known, values, 0.0).sum(1) / known.sum(1)
    return jnp.where((known.sum(1) >= window // 2) & (index[:, -1] >= 0), mean, jnp.nan)


def _has_risen(smooth: jax.Array, since: jax.Array, window: int) -> jax.Array:
    """Returns `[P]` whether the smoothed curve has clearly risen since those points; false where it is not known."""
    # Noise by the second difference of windows side by side: a trend leaves it alone, and noise that lasts does not.
    earlier, before = (jnp.concatenate([jnp.full(lag, jnp.nan), smooth])[: smooth.size] for lag in (window, 2 * window))
    bend = jnp.square(smooth - 2.0 * earlier + before)
    count = jnp.cumsum(jnp.isfinite(bend))
    # Six variances of a mean are in a second difference, and two in a difference.
    error = jnp.sqrt(jnp.cumsum(jnp.where(jnp.isfinite(bend), bend, 0.0)) / (3 * count))
    known = jnp.isfinite(smooth)
    highest = jax.lax.cummax(jnp.where(known, smooth, -jnp.inf))
    lowest = jax.lax.cummin(jnp.where(known, smooth, jnp.inf))
    clearly = jnp.maximum(3.5 * error, 0.1 * (highest - lowest))
    return (smooth - smooth[since] > clearly) & (count >= window)


def _best_so_far(values: jax.Array) -> jax.Array:
    """Returns `[P]` where the highest value so far is; the last one of equals."""

    def later_if_higher(a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]):
        higher = b[0] >= a[0]
        return jnp.where(higher, b[0], a[0]), jnp.where(higher, b[1], a[1])

    return jax.lax.associative_scan(later_if_higher, (values, jnp.arange(values.size)))[1]
