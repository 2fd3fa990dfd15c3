"""Every verdict about the conditions of a run."""

import numpy as np

from experiments import results, reward_map, seed_statistics
from experiments.reporting import reward_verdicts, verdicts
from experiments.reporting.record import ConditionRecord, RunRecord
from experiments.reporting.verdicts import Verdict

REFERENCES = ("true_reward", "full")
"""Conditions that the others are compared with; the best of the others where a run has none of them."""


def judge(condition: ConditionRecord, run: RunRecord) -> dict[str, Verdict | None]:
    """Returns the verdict on each topic; None where the run did not record what it needs."""
    metric, settings = condition.metrics.get, condition.settings
    found = {"Return": _return_verdict(condition, run)}
    if condition.learns_reward:
        found |= {
            "Labels": verdicts.labels(
                metric("labels"),
                metric("answers"),
                metric("ties"),
                metric("silences"),
                budget=settings.get("labels.budget"),
            ),
            "Accuracy": reward_verdicts.accuracy(metric("heldout_accuracy"), metric("teacher_accuracy")),
            "Log-likelihood": reward_verdicts.log_likelihood(
                metric("heldout_log_likelihood"), metric("teacher_log_likelihood")
            ),
            **_judgement_verdicts(condition),
            "Exploitation": verdicts.exploitation(metric("predicted_return"), metric("return"), alarm(condition)),
            "Fit": verdicts.fit(
                metric("train_loss"),
                metric("validation_loss"),
                accuracy=metric("accuracy"),
                l2=metric("l2"),
                low=settings.get("reward.l2_low", 1.1),
                high=settings.get("reward.l2_high", 1.5),
                unit="squared spreads of returns" if settings.get("reward.targets") else "nats",
            ),
        }
    return found | {"Policy": verdicts.policy(metric("entropy"), metric("kl"))}


def _judgement_verdicts(condition: ConditionRecord) -> dict[str, Verdict | None]:
    """Prefers what was measured at the end to what was measured in training, where both were."""
    judgement, metrics = condition.judgement, condition.metrics
    in_training = {key: verdicts.tail(metrics[key]) for key in ("calibration_error", "spread") if key in metrics}
    where = "on the states of its policy" if "on_policy.spread" in judgement else "on the last rollouts"
    return {
        "Calibration": reward_verdicts.calibration(
            judgement.get("on_policy.calibration_error", in_training.get("calibration_error")), condition.reliability
        ),
        "Correlation": reward_verdicts.correlations(judgement)
        or reward_verdicts.training_correlation(metrics.get("correlation")),
        "Distance": reward_verdicts.distances(judgement),
        "Map": _map(condition),
        "Ensemble": reward_verdicts.spread(
            judgement.get("on_policy.spread", in_training.get("spread")),
            where,
            members=condition.settings.get("reward.members"),
        ),
    }


def _map(condition: ConditionRecord) -> Verdict | None:
    where = plane(condition)
    if where is None or condition.reward_map is None:
        return None
    return reward_verdicts.plane(reward_map.agreement(where, condition.reward_map))


def plane(condition: ConditionRecord) -> reward_map.Plane | None:
    """Returns where the map of the condition lies, if it has one that this version can draw."""
    known, maps = reward_map.PLANES.get(condition.settings.get("env", "")), condition.reward_map
    if known is None or maps is None or maps.shape[1:] != known.reward.shape or not np.isfinite(maps).all():
        return None
    return known


def alarm(condition: ConditionRecord) -> np.ndarray | None:
    """Returns the `[seeds, points]` alarm that the reward is exploited, if the run recorded what it needs."""
    proxy, truth = (condition.metrics.get(key) for key in ("predicted_return", "return"))
    return None if proxy is None or truth is None else results.alarms(proxy, truth)


def final_returns(condition: ConditionRecord) -> tuple[np.ndarray | None, bool]:
    """Returns the `[seeds]` returns at the end, if any, and whether they are those of training."""
    if condition.eval_returns is not None:
        return condition.eval_returns, False
    returns = condition.metrics.get("return")
    return (None if returns is None else verdicts.tail(returns)), True


def _return_verdict(condition: ConditionRecord, run: RunRecord) -> Verdict | None:
    values, in_training = final_returns(condition)
    others = {}
    for other in run.conditions:
        theirs, kind = final_returns(other)
        if theirs is not None and kind == in_training and np.isfinite(theirs).all():
            others[other.name] = theirs
    reference = next((name for name in REFERENCES if name in others), None)
    if reference is None and others:
        reference = max(others, key=lambda name: float(seed_statistics.interquartile_mean(others[name])))
    compared = None if reference in (None, condition.name) else (reference, others[reference])
    acting = "In training, exploring, the policy" if in_training else "The trained policy, without exploring,"
    if condition.explores:
        acting = "The trained policy, exploring as in training,"
    return verdicts.returns(values, normalised=condition.normalised, reference=compared, acting=acting)
