"""What the numbers about a learnt reward mean, in words; see `experiments.reporting.verdicts`."""

from collections.abc import Mapping

import numpy as np

from experiments.captions import minus
from experiments.reporting.reward_figures import CHANCE_ACCURACY, CHANCE_LOG_LIKELIHOOD
from experiments.reporting.verdicts import Verdict, middle, needs, over_seeds, tail, word

REACHED = {0.95: "nearly all", 0.8: "most", 0.5: "a part"}
"""Least share of the way from chance to the ceiling, and what to call it."""
NO_ROOM = 0.02
"""Ceilings nearer to chance than this leave nothing to learn."""
CORRELATION = {0.95: "very high", 0.85: "high", 0.6: "moderate", 0.2: "low", -0.2: "none to speak of"}
"""Least correlation of each word; what is below the last one runs the wrong way."""
LOW_CORRELATION = 0.6
"""What is below this is explained."""
RANK_GAP = 0.1
"""What Spearman's correlation has to be below Pearson's for that to be said."""
DISTANCE = {0.75: "nearer to the opposite", 0.6: "hardly related", 0.35: "rather different", 0.15: "similar"}
"""Least EPIC or DARD distance of each word; what is below the last one is close. 0.71 is no relation at all."""
FAR = 0.6
"""A distance from which on it is worth a look."""
SPREAD = {0.9: "have little in common", 0.5: "differ much", 0.2: "differ somewhat"}
"""Least spread of each word; what is below the last one agrees closely."""
CONFIDENCE_GAP = 0.02
"""Mean distance of probabilities from the answers, towards certainty or away from it, that is given a name."""
CHANCE_FACTOR = 1.5
"""A calibration error up to so many times that of a perfect model, by chance, is not held against a reward."""

STATES = {"random": "random actions", "on_policy": "actions as in training", "expert": "the trained policy"}
"""The states of a judgement, in words."""
_MEANS_LOW = {
    "random": "it says little about what an untrained policy meets, so learning may start the wrong way",
    "on_policy": "it tells apart poorly what the policy meets while it learns, so more training need not help",
    "expert": "episodes of a good policy look alike, which lowers every correlation; it matters if training goes on",
}


@needs(1)
def accuracy(heldout: np.ndarray, ceiling: np.ndarray | None) -> Verdict:
    """Says how often the learnt reward agrees with its teacher, of how often a perfect model would.

    Args:
      heldout: `[S, P]` accuracy on pairs that were not learnt from yet.
      ceiling: `[S, P]` that of a perfect model of the teacher, if recorded.
    """
    reached = tail(heldout)
    text = f"On pairs that it had not learnt from it agrees with the teacher with accuracy {over_seeds(reached)}"
    brief = f"accuracy {middle(reached):.2f}"
    if ceiling is None or not np.isfinite(tail(ceiling)).any():
        return Verdict("Accuracy", f"{text}; chance is {CHANCE_ACCURACY:g}.", brief)
    possible = tail(ceiling)
    brief += f" of a possible {middle(possible):.2f}"
    text += f" of a possible {over_seeds(possible)}"
    room = middle(possible) - CHANCE_ACCURACY
    if room < NO_ROOM:
        return Verdict(
            "Accuracy", f"{text}: this teacher's answers are chance, and nothing can be learnt.", brief, True
        )
    share = (middle(reached) - CHANCE_ACCURACY) / room
    words = word(share, REACHED, "little" if share > 0 else "nothing")
    text += f": {words} of what this teacher allows beyond chance."
    return Verdict("Accuracy", text, brief, notable=share < min(REACHED))


@needs(1)
def log_likelihood(heldout: np.ndarray, ceiling: np.ndarray | None) -> Verdict:
    """Says how probable the learnt reward finds the answers, in nats per pair; the arguments are as for `accuracy`."""
    reached = tail(heldout)
    text = f"It gives the answers a log-likelihood of {over_seeds(reached)} nats per pair"
    if ceiling is not None and np.isfinite(tail(ceiling)).any():
        text += f" of a possible {over_seeds(tail(ceiling))}"
    chance = minus(f"{CHANCE_LOG_LIKELIHOOD:.2f}")
    if middle(reached) < CHANCE_LOG_LIKELIHOOD:
        return Verdict("Log-likelihood", f"{text}. Saying ½ to every pair gives {chance}, which is better.", "", True)
    return Verdict("Log-likelihood", f"{text}; saying ½ to every pair gives {chance}.")


def calibration_by_chance(bins: np.ndarray) -> np.ndarray:
    """Returns the `[S]` calibration error that perfect models would show at most, because pairs are few.

    In bin b, where n pairs have probability p, the mean answer is off by √(2 p (1 − p) / π n) on average. Pairs count
    in two bins that mirror each other, half in each, so that n is twice the weight of the bin.

    Args:
      bins: `[S, B, 3]`; see `rlhf_jax.diagnostics.Reliability`.
    """
    weight = np.nan_to_num(bins[..., 2])
    p = np.nan_to_num(bins[..., 0])
    off = np.sqrt(2 * p * (1 - p) / (np.pi * np.maximum(2 * weight, 1e-9)))
    return (weight * off).sum(1) / np.maximum(weight.sum(1), 1e-9)


def confidence_gap(bins: np.ndarray) -> np.ndarray:
    """Returns the `[S]` mean of how much nearer to certainty `[S, B, 3]` probabilities are than the answers."""
    weight = np.nan_to_num(bins[..., 2])
    predicted, observed = np.nan_to_num(bins[..., 0]), np.nan_to_num(bins[..., 1])
    gap = np.sign(predicted - 0.5) * (predicted - observed)
    return (weight * gap).sum(1) / np.maximum(weight.sum(1), 1e-9)


@needs(1)
def calibration(error: np.ndarray, bins: np.ndarray | None) -> Verdict:
    """Says whether probabilities can be taken at their word.

    Args:
      error: `[S]` expected calibration error.
      bins: `[S, B, 3]` of the same pairs, if recorded.
    """
    text = f"Its probabilities are off by {over_seeds(error)} on average"
    if bins is None:
        return Verdict("Calibration", text + ".")
    chance, gap = middle(calibration_by_chance(bins)), middle(confidence_gap(bins))
    if middle(error) <= CHANCE_FACTOR * chance:
        return Verdict("Calibration", f"{text}, no more than chance explains with so few pairs (up to {chance:.2f}).")
    text += f", where chance explains {chance:.2f} at most. "
    if abs(gap) < CONFIDENCE_GAP:
        return Verdict("Calibration", text + "It is neither over- nor under-confident on the whole.")
    sure = "nearer to certainty than the answers are: over-confident"
    unsure = "further from certainty than the answers are: under-confident, which an error rate that the teacher does "
    unsure += "not have also brings about"
    text += f"They are {abs(gap):.2f} {sure if gap > 0 else unsure}."
    return Verdict("Calibration", text, "over-confident" if gap > 0 else "", notable=gap > 0)


def correlations(judgement: Mapping[str, np.ndarray]) -> Verdict | None:
    """Says how the learnt reward goes with the true one on each kind of states.

    Args:
      judgement: `[S]` of each "<states>.<metric>".
    """
    parts, low, notable = [], [], False
    for states, words in STATES.items():
        step, rank, segment = (
            judgement.get(f"{states}.{metric}") for metric in ("correlation", "rank_correlation", "segment_correlation")
        )
        if step is None or not np.isfinite(step).any():
            continue
        kind = word(middle(step), CORRELATION, "the wrong way round")
        part = f"under {words} {over_seeds(step)} per step"
        if segment is not None:
            part += f" and {over_seeds(segment)} per segment"
        parts.append(f"{part} ({kind})")
        if rank is not None and np.isfinite(rank).any() and middle(rank) < middle(step) - RANK_GAP:
            parts[-1] += f", but by rank {over_seeds(rank)}: it tells large differences better than small ones"
        if middle(step) < LOW_CORRELATION:
            low.append(f" Under {words}: {_MEANS_LOW[states]}.")
            notable |= states != "expert"
    if not parts:
        return None
    text = f"Correlation with the true reward, Pearson's: {'; '.join(parts)}.{''.join(low)}"
    return Verdict("Correlation", text, notable=notable)


@needs(1)
def training_correlation(values: np.ndarray) -> Verdict:
    """Says how the learnt reward goes with the true one on the last rollouts, `[S, P]`, where no judgement is."""
    kind = word(middle(tail(values)), CORRELATION, "the wrong way round")
    text = f"Correlation with the true reward on the last rollouts of training: {over_seeds(tail(values))} ({kind})."
    return Verdict("Correlation", text, notable=middle(tail(values)) < LOW_CORRELATION)


def distances(judgement: Mapping[str, np.ndarray]) -> Verdict | None:
    """Says how far the learnt reward is from the true one where what no policy can tell apart is taken out.

    Args:
      judgement: `[S]` of each "<states>.<metric>".
    """
    parts, farthest = [], 0.0
    for metric in ("epic", "dard"):
        known = {states: judgement.get(f"{states}.{metric}") for states in STATES}
        found = {states: values for states, values in known.items() if values is not None and np.isfinite(values).any()}
        if found:
            said = ", ".join(f"{over_seeds(values)} under {STATES[states]}" for states, values in found.items())
            far = max(middle(values) for values in found.values())
            parts.append(f"{metric.upper()} {said}: {word(far, DISTANCE, 'close')}{' at worst' * (len(found) > 1)}")
            farthest = max(farthest, far)
    if not parts:
        return None
    text = "; ".join(parts) + ". 0 is the same up to scale and potential shaping, 0.71 no relation, 1 the opposite."
    if len(parts) == 2:
        text += " DARD asks only about transitions that can happen."
    return Verdict("Distance", text, notable=farthest >= FAR)


@needs(1)
def spread(values: np.ndarray, where: str, *, members: int | None) -> Verdict:
    """Says how far the members of the ensemble are apart: `[S]`, in standard deviations of the reward."""
    if members == 1:
        return Verdict("Ensemble", "The reward is a single network, so there are no members that could disagree.")
    kind = word(middle(values), SPREAD, "agree closely")
    text = f"Its members {kind} {where}: {over_seeds(values)} standard deviations of the reward apart. "
    return Verdict(
        "Ensemble", text + "That they agree does not make them right.", notable=middle(values) >= max(SPREAD)
    )


@needs(1)
def plane(agreement: np.ndarray) -> Verdict:
    """Says how alike the maps of the learnt and of the true reward are, by their `[S]` correlation."""
    kind = word(middle(agreement), CORRELATION, "the wrong way round")
    text = f"Over the whole plane of states it correlates {over_seeds(agreement)} with the true reward ({kind}). All "
    text += "states count alike there, whether the policy visits them or not."
    return Verdict("Map", text, notable=middle(agreement) < LOW_CORRELATION)
