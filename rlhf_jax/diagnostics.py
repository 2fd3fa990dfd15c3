"""Why a run works: how well the learnt reward agrees with the true one."""

import flax.struct
import jax
import jax.numpy as jnp

from rlhf_jax import reward_ensemble, segments
from rlhf_jax.bradley_terry import preference_logit
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.reward_ensemble import RewardEnsemble
from rlhf_jax.rollout import Rollout


def judge_reward(
    key: jax.Array, ensemble: RewardEnsemble, steps: Rollout, *, env: Environment, config: Config, num_pairs: int = 1024
) -> dict[str, jax.Array]:
    """Compares the learnt reward with the true one on a rollout, which should hold nothing that was labelled.

    Args:
      key: consumed.
      ensemble: the learnt reward.
      steps: `[T, N]` the rollout to judge on.
      env: the environment.
      config: the settings.
      num_pairs: pairs of segments, drawn uniformly from the rollout.

    Returns:
      `accuracy`, the share of the pairs that the learnt reward orders as their true returns are, and `correlation`,
      Pearson's, of both rewards over all steps.
    """
    predicted = reward_ensemble.predict(ensemble, steps.observation, steps.action, env=env, config=config.reward)
    length = config.queries.segment_length
    pairs = segments.sample(key, segments.valid_starts(steps.done, length), (num_pairs, 2))
    predicted_order, true_order = (
        preference_logit(segments.window_sums(reward, length)[pairs.start, pairs.env]) > 0
        for reward in (predicted, steps.true_reward)
    )
    return {
        "accuracy": (predicted_order == true_order).mean(),
        "correlation": correlation(predicted, steps.true_reward),
    }


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
    * more than four standard errors of the difference of two windows, with the noise taken from what is left within the
      windows so far after a line was fitted to each. Four, since the best of many noisy windows lies above their mean.

    So it does not depend on the scales of the curves, nor on anything after the point.

    Args:
      proxy: `[P]` predicted return of the policy after each iteration; all by one reward, or each normalised alike.
      truth: `[P]` its true return; like the proxy, NaN where it is not known, such as where no episode ended.
      window: points of a window, 4 or more; it is used if at least half of its points are known.

    Returns:
      `[P]` the alarm.

    Reference: Gao et al. 2023, "Scaling laws for reward model overoptimization", for the phenomenon.
    """
    smooth_truth, smooth_proxy = _smoothed(truth, window), _smoothed(proxy, window)
    known = jnp.isfinite(smooth_truth.mean + smooth_proxy.mean)
    best = _best_so_far(jnp.where(known, smooth_truth.mean, -jnp.inf))
    since = jnp.concatenate([jnp.zeros(window, jnp.int32), best])[: truth.size]
    changed = _falls_clearly(smooth_truth, since, 1.0) & _falls_clearly(smooth_proxy, since, -1.0)
    return changed & (jnp.arange(truth.size) >= window)


@flax.struct.dataclass
class _Smoothed:
    """A curve by windows, each of which ends with its point.

    mean: [P] mean of what is known; NaN where that is too little.
    count: [P] how many points are.
    variance: [P] of the noise, from the windows so far.
    extent: [P] range of the means so far.
    """

    mean: jax.Array
    count: jax.Array
    variance: jax.Array
    extent: jax.Array


def _falls_clearly(curve: _Smoothed, since: jax.Array, sign: float) -> jax.Array:
    """Returns `[P]` whether the curve, times a sign, has fallen since that point; false where it is not known."""
    error = jnp.sqrt(curve.variance * (1.0 / curve.count + 1.0 / curve.count[since]))
    return sign * (curve.mean[since] - curve.mean) > jnp.maximum(4.0 * error, 0.1 * curve.extent)


def _smoothed(curve: jax.Array, window: int) -> _Smoothed:
    offset = jnp.arange(window) - (window - 1)
    index = jnp.arange(curve.size)[:, None] + offset[None]
    values = curve[jnp.maximum(index, 0)]
    known = (index >= 0) & jnp.isfinite(values)
    count = known.sum(1)
    used = (2 * count >= window) & (index[:, 0] >= 0)
    level, time = _centred(values, known), _centred(jnp.broadcast_to(offset, index.shape), known)
    slope = (time * level).sum(1) / jnp.maximum(jnp.square(time).sum(1), 1e-9)
    residual = jnp.where(used, jnp.square(level - slope[:, None] * time).sum(1), 0.0)
    freedom = jnp.where(used, jnp.maximum(count - 2, 0), 0)
    mean = jnp.where(used, jnp.where(known, values, 0.0).sum(1) / count, jnp.nan)
    highest = jax.lax.cummax(jnp.where(used, mean, -jnp.inf))
    lowest = jax.lax.cummin(jnp.where(used, mean, jnp.inf))
    return _Smoothed(mean, count, jnp.cumsum(residual) / jnp.cumsum(freedom), highest - lowest)


def _centred(values: jax.Array, known: jax.Array) -> jax.Array:
    mean = jnp.where(known, values, 0.0).sum(1, keepdims=True) / jnp.maximum(known.sum(1, keepdims=True), 1)
    return jnp.where(known, values - mean, 0.0)


def _best_so_far(values: jax.Array) -> jax.Array:
    """Returns `[P]` where the highest value so far is; the last one of equals."""

    def later_if_higher(a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]):
        higher = b[0] >= a[0]
        return jnp.where(higher, b[0], a[0]), jnp.where(higher, b[1], a[1])

    return jax.lax.associative_scan(later_if_higher, (values, jnp.arange(values.size)))[1]
