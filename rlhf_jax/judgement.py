"""How well a learnt reward agrees with the truth about a rollout, beside what a perfect model would reach."""

import jax
import jax.numpy as jnp

from rlhf_jax import bradley_terry, diagnostics, reward_ensemble, segments, teacher
from rlhf_jax.config import Config
from rlhf_jax.diagnostics import Reliability
from rlhf_jax.normalisation import Moments
from rlhf_jax.reward_ensemble import RewardEnsemble
from rlhf_jax.rollout import Rollout
from rlhf_jax.segments import Windows

METRICS = (
    "heldout_accuracy",
    "heldout_log_likelihood",
    "teacher_accuracy",
    "teacher_log_likelihood",
    "calibration_error",
    "correlation",
    "rank_correlation",
    "segment_correlation",
    "segment_rank_correlation",
    "spread",
)
_RANKED_STEPS = 1024  # Sorting all steps of a rollout would cost more than the reward fit.


def judge(
    ensemble: RewardEnsemble, rewards: jax.Array, steps: Rollout, scale: Moments, *, config: Config
) -> tuple[dict[str, jax.Array], Reliability]:
    """Compares the learnt reward with the true one on a rollout that it has not learnt from.

    The teacher is not asked: what it would say is known as probabilities, so that nothing is left to chance.

    Args:
      ensemble: the learnt reward.
      rewards: `[M, T, N]` reward of each step as each member predicts it.
      steps: `[T, N]` the rollout.
      scale: moments of segment returns by which the teacher measures.
      config: the settings.

    Returns:
      `heldout_accuracy` on pairs that the teacher would not call a tie, and `heldout_log_likelihood` in nats per pair;
      `teacher_accuracy` and `teacher_log_likelihood`, what a perfect model would reach on them; `calibration_error`;
      `correlation` and `rank_correlation`, Pearson's and Spearman's, over steps; `segment_correlation` and
      `segment_rank_correlation` over segments; and `spread` of the ensemble. And the reliability of its probabilities.
    """
    predicted = reward_ensemble.mean_reward(ensemble, rewards)
    windows, distinct = _pairs(steps, config.queries.segment_length)
    member_returns, returns, true = (
        segments.cut(values, windows, config.queries.segment_length)
        for values in (jnp.moveaxis(rewards, 0, -1), predicted, steps.true_reward)
    )
    opinion = teacher.opinion(true, scale, config=config.teacher)
    model = bradley_terry.preference_probability(jnp.moveaxis(member_returns.sum(2), -1, 0), config.reward.error_rate)
    pair_metrics, reliability = _judge_pairs(model.mean(0), opinion, distinct)
    # An odd stride, which goes through all environments if their number is a power of two.
    ranked = slice(None, None, (predicted.size // _RANKED_STEPS) | 1)
    return pair_metrics | {
        "correlation": diagnostics.correlation(predicted, steps.true_reward),
        "rank_correlation": diagnostics.rank_correlation(predicted.ravel()[ranked], steps.true_reward.ravel()[ranked]),
        "segment_correlation": diagnostics.correlation(returns.sum(-1), true.sum(-1)),
        "segment_rank_correlation": diagnostics.rank_correlation(returns.sum(-1), true.sum(-1)),
        "spread": diagnostics.ensemble_spread(rewards),
    }, reliability


def _judge_pairs(
    model: jax.Array, opinion: teacher.Opinion, distinct: jax.Array
) -> tuple[dict[str, jax.Array], Reliability]:
    """Compares `[P]` probabilities of the model with the opinion of the teacher."""
    decided = distinct * (opinion.first + opinion.second)
    right = distinct * jnp.where(model > 0.5, opinion.first, opinion.second)
    answered, label = distinct * (1.0 - opinion.silence), opinion.expected_label
    log_likelihood = jax.scipy.special.xlogy(label, model) + jax.scipy.special.xlog1py(1.0 - label, -model)
    best_accuracy, best_log_likelihood = teacher.ceiling(opinion, distinct)
    reliability = diagnostics.reliability(model, label, answered)
    return {
        "heldout_accuracy": right.sum() / decided.sum(),
        "heldout_log_likelihood": (answered * log_likelihood).sum() / answered.sum(),
        "teacher_accuracy": best_accuracy,
        "teacher_log_likelihood": best_log_likelihood,
        "calibration_error": diagnostics.calibration_error(reliability),
    }, reliability


def _pairs(steps: Rollout, length: int) -> tuple[Windows, jax.Array]:
    """Returns `[P, 2]` windows that do not overlap nor cross a reset, and which pairs are of different ones.

    Those of a pair lie in different environments and half a rollout apart. They are not drawn, because a draw costs
    more than all that is done with it.
    """
    valid = segments.valid_starts(steps.done, length)[::length]
    first_valid, num_envs = jnp.argsort(~valid.ravel()), valid.shape[1]
    index = jnp.arange(valid.size // 2)
    index = jnp.stack([index, jnp.roll(index, 1) + valid.size // 2], -1) % jnp.maximum(valid.sum(), 1)
    window = first_valid[index]
    distinct = (window[:, 0] != window[:, 1]) & valid.any()
    return Windows(start=window // num_envs * length, env=window % num_envs), distinct
