"""What the numbers of a training mean, in words: its labels, its fit, its returns, and whether its reward is exploited.

Each function takes arrays over seeds and returns a `Verdict`, or None if the run did not record what it needs. A number
is the median of the seeds, with the least and the largest of them in brackets where they differ; a return is their
interquartile mean with its 95 % bootstrap interval. The words are chosen by the thresholds below, and by nothing else.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from typing import NamedTuple

import numpy as np

from experiments import results, seed_statistics, tables
from experiments.captions import minus

TAIL = 5
"""Iterations at the end of which the mean is taken."""
WINDOW = results.ALARM_WINDOW
"""Iterations over which the alarm smooths; it needs four times as many to start."""
_MOST_BETWEEN = 7  # iterations from one known return to the next; beyond that the alarm takes every step for noise
FEW_SEEDS = 5
"""Below these a bootstrap interval is too narrow."""
MANY_UNDECIDED = 0.3
"""Share of ties, or of queries without an answer, that is worth a look."""
LARGE_KL = 0.05
"""KL divergence of an update of the policy, in nats, that is worth a look."""


class Verdict(NamedTuple):
    """What one aspect of a run means.

    topic: of what it speaks.
    text: whole sentences.
    brief: the same in a few words, for an overview; empty if it is not worth any.
    notable: whether it is worth a look.
    """

    topic: str
    text: str
    brief: str = ""
    notable: bool = False


def tail(values: np.ndarray) -> np.ndarray:
    """Returns the `[S]` mean of the known ones of the last iterations of `[S, P]`; NaN where none is known."""
    values = values[:, -TAIL:]
    known = np.isfinite(values)
    count, total = known.sum(1), np.where(known, values, 0.0).sum(1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


def over_seeds(values: np.ndarray, digits: int = 2) -> str:
    """Returns the median of the seeds, such as `0.91 [0.88, 0.93]`; a dash if none is known."""
    known = values[np.isfinite(values)]
    if not known.size:
        return "–"
    parts = {"min": known.min(), "median": np.median(known), "max": known.max()}
    return minus(tables.ranged({name: float(value) for name, value in parts.items()}, digits))


def middle(values: np.ndarray) -> float:
    """Returns the median of the seeds of which the value is known."""
    return float(np.median(values[np.isfinite(values)]))


def needs(count: int) -> Callable[[Callable[..., Verdict]], Callable[..., Verdict | None]]:
    """Decorates a verdict: it becomes None where one of its first arguments was not recorded, or holds no number."""

    def decorate(function: Callable[..., Verdict]) -> Callable[..., Verdict | None]:
        @wraps(function)
        def guarded(*args, **named) -> Verdict | None:
            if any(values is None or not np.isfinite(values).any() for values in args[:count]):
                return None
            return function(*args, **named)

        return guarded

    return decorate


def word(value: float, words: Mapping[float, str], otherwise: str) -> str:
    """Returns the first word whose threshold the value reaches; the thresholds fall."""
    return next((text for threshold, text in words.items() if value >= threshold), otherwise)


@needs(1)
def labels(
    labels: np.ndarray,
    answers: np.ndarray | None,
    ties: np.ndarray | None,
    silences: np.ndarray | None,
    *,
    budget: int | None,
) -> Verdict:
    """Says how many labels were used, and how many of the answers were none.

    Args:
      labels: `[S, P]` so far, after each iteration, those of earlier runs included.
      answers: `[S, P]` of each iteration, if recorded.
      ties: `[S, P]` of them that are ties, if recorded.
      silences: `[S, P]` queries of each iteration that got no answer, if recorded.
      budget: of labels.
    """
    used = labels[:, -1]
    text = f"Labels: {over_seeds(used, 0)}"
    text += f" of a budget of {budget}." if budget and used.max() < budget else "."
    answered, notable = 0.0 if answers is None else np.nansum(answers), False
    if ties is not None and answered > 0:
        share = np.nansum(ties) / answered
        notable |= share >= MANY_UNDECIDED
        text += f" {_percent(share)} of the answers were ties"
        text += ", which teach less than choices." if share >= MANY_UNDECIDED else "."
    if silences is not None and answered + np.nansum(silences) > 0:
        share = np.nansum(silences) / (answered + np.nansum(silences))
        notable |= share >= MANY_UNDECIDED
        text += f" {_percent(share)} of the queries got no answer." if share else " Every query got an answer."
    return Verdict("Labels", text, notable=bool(notable))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share else "None"


@needs(1)
def returns(
    values: np.ndarray,
    *,
    normalised: float | None = None,
    reference: tuple[str, np.ndarray] | None = None,
    acting: str = "The trained policy, without exploring,",
) -> Verdict:
    """Says what the policy earns, and whether that differs from another condition.

    Args:
      values: `[S]` true return.
      normalised: mean of the same, 0 for random actions and 1 for the optimum.
      reference: name and `[S]` returns of what it is compared with.
      acting: who earns it, in words.
    """
    known = values[np.isfinite(values)]
    brief = with_interval(known)
    text = f"{acting} earns a true return of {brief} in an episode"
    if len(values) > 1:
        text += f", the worst of {len(known)} seeds {minus(f'{known.min():.1f}')}"
    if normalised is not None:
        text += f"; {minus(f'{100 * normalised:.0f}')} % of the way from random actions to the optimum"
    text += "."
    if len(known) < len(values):
        text += f" That of {len(values) - len(known)} more is not known."
    elif reference is not None:
        text += " " + _compared(values, *reference)
    if len(known) == 1:
        text += " One seed says nothing about chance."
    elif len(known) < FEW_SEEDS:
        text += f" Of {len(known)} seeds such intervals are too narrow."
    return Verdict("Return", text, f"return {brief}")


def with_interval(values: np.ndarray) -> str:
    """Returns the interquartile mean of the seeds and its 95 % interval, such as `−163.0 [−170.1, −158.8]`."""
    mean = f"{seed_statistics.interquartile_mean(values):.1f}"
    if len(values) == 1:
        return minus(mean)
    low, high = seed_statistics.bootstrap_interval(values)
    return minus(f"{mean} [{low:.1f}, {high:.1f}]")


def _compared(values: np.ndarray, name: str, others: np.ndarray) -> str:
    """Seeds are resampled together, because agents of one seed start alike."""

    def difference(pair: np.ndarray) -> np.ndarray:
        mean = seed_statistics.interquartile_mean(pair)
        return mean[..., 0] - mean[..., 1]

    pair = np.stack([values, others], -1)
    gap = difference(pair)
    words = f"{abs(gap):.1f} {'more' if gap > 0 else 'less'} than {name}"
    if len(values) == 1:
        return f"That is {words}."
    low, high = (end[0] for end in seed_statistics.bootstrap_interval(pair, difference))
    interval = minus(f"[{low:.1f}, {high:.1f}]")
    if low <= 0 <= high:
        return f"That is {words}, but the 95 % interval of the difference, {interval}, includes 0."
    return f"That is {words}; the 95 % interval of the difference is {interval}."


@needs(2)
def exploitation(proxy: np.ndarray, truth: np.ndarray, alarm: np.ndarray) -> Verdict:
    """Says whether, where and in which seeds the learnt reward was exploited.

    Args:
      proxy: `[S, P]` predicted return.
      truth: `[S, P]` true return.
      alarm: `[S, P]` of `results.alarms`.
    """
    (seeds, points), known = alarm.shape, int(np.isfinite(truth).sum(1).max())
    if points < 4 * WINDOW:
        return Verdict("Exploitation", f"{points} iterations are too few to tell; {4 * WINDOW} are needed.")
    if points > _MOST_BETWEEN * known:
        return Verdict("Exploitation", f"In {known} of {points} iterations did an episode end, too few to tell.")
    raised = alarm.any(1)
    if not raised.any():
        return Verdict(
            "Exploitation",
            "No sign of the learnt reward being exploited: "
            + ("in no seed did" if seeds > 1 else "at no point did")
            + " the proxy rise while the true return fell by more than their noise.",
            "no sign of exploitation",
        )
    first, last = alarm.argmax(1)[raised] + 1, np.flatnonzero(alarm.any(0))[-1] + 1
    lasting = alarm[:, -1].sum()
    brief = f"the proxy rose while the true return fell from iteration {first.min()}"
    brief += "" if lasting else f" to {last}"
    brief += f" in {raised.sum()} of {seeds} seeds" if seeds > 1 else ""
    text = brief[0].upper() + brief[1:]
    if len(first) > 1 and first.min() != first.max():
        text += f", first at {', '.join(map(str, np.sort(first)))}"
    if lasting:
        text += f"; at the end the alarm is still on in {lasting} of them" if seeds > 1 else "; the alarm is still on"
        text += ". The policy may have found what the learnt reward overrates; labels about its late episodes can tell."
    else:
        text += ". After that there is no alarm any more."
    return Verdict("Exploitation", text, brief, notable=True)


@needs(2)
def fit(
    train: np.ndarray,
    validation: np.ndarray,
    *,
    accuracy: np.ndarray | None,
    l2: np.ndarray | None,
    low: float,
    high: float,
    unit: str,
) -> Verdict:
    """Says whether the reward is fitted too closely, by the ratio of its losses.

    Args:
      train: `[S, P]` loss on the labels that a member is fitted to.
      validation: `[S, P]` loss on the others.
      accuracy: `[S, P]` on the others, if recorded.
      l2: `[S, P]` coefficient of the squared weights, if recorded.
      low, high: the band of the ratio, outside of which the coefficient moves.
      unit: of the losses.
    """
    losses = tail(train), tail(validation)
    ratio = np.divide(losses[1], losses[0], out=np.full(len(train), np.nan), where=losses[0] > 0)
    known = ratio[np.isfinite(ratio)]
    if not known.size:
        return Verdict("Fit", "The training loss is 0, so the ratio of the losses says nothing.")
    text = f"Training loss {over_seeds(losses[0])}, validation loss {over_seeds(losses[1])} {unit}: "
    text += f"a ratio of {over_seeds(known)}. "
    above, below = (known > high).sum(), (known < low).sum()
    inside = len(known) - above - below
    parts = {"above": above, "within": inside, "below": below}
    places = ", ".join(f"{count} of {len(known)} seeds {where}" for where, count in parts.items() if count)
    text += f"Against the band of {low:g} to {high:g} that an adaptive L2 aims at: {places}."
    if above:
        text += " Above it a member knows the labels that it is fitted to better than others: it overfits."
    if accuracy is not None and np.isfinite(tail(accuracy)).any():
        text += f" Accuracy of its members on labels that they are not fitted to: {over_seeds(tail(accuracy))}."
    if l2 is not None and np.isfinite(l2[:, -1]).any():
        text += " L2 coefficient at the end: " + minus(f"{middle(l2[:, -1]):.1e}") + "."
    return Verdict("Fit", text, notable=bool(above > len(known) / 2))


@needs(2)
def policy(entropy: np.ndarray, kl: np.ndarray) -> Verdict:
    """Says how the policy moved: `[S, P]` entropy and KL divergence of an update, in nats."""
    begun = entropy[:, np.isfinite(entropy).all(0)]
    text = f"Entropy of the policy: {over_seeds(begun[:, 0])} at first, " if begun.size else ""
    text += f"{over_seeds(tail(entropy))} nats at the end. KL divergence of an update: {over_seeds(tail(kl), 4)} nats"
    large = bool(middle(tail(kl)) > LARGE_KL)
    text += "; steps as large as that can undo what was learnt." if large else "."
    return Verdict("Policy", text, notable=large)
