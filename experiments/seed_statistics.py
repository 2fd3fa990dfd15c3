"""Statistics over seeds: interquartile mean, bootstrap intervals, probability of improvement. Host only.

Reference: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice".
"""

from collections.abc import Callable

import numpy as np


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Returns the mean of the middle half of the seeds.

    Sorted seed i of S stands for the quantiles [i/S, (i+1)/S] and weighs as much as lies within [1/4, 3/4], so that the
    middle is half of the seeds for every S.

    Args:
      values: `[S, ...]` one value for each seed.

    Returns:
      `[...]` means; NaN where any seed is NaN.
    """
    values = np.asarray(values, np.float64)
    seeds = values.shape[0]
    edges = np.arange(seeds + 1)
    weights = np.diff(np.clip(edges, 0.25 * seeds, 0.75 * seeds)) / (0.5 * seeds)
    # A NaN sorts last, where its weight may be 0, but 0 · NaN is NaN; so one lost seed is never passed over.
    return np.einsum("s,s...->...", weights, np.sort(values, axis=0))


def bootstrap_interval(
    values: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray] = interquartile_mean,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the percentile bootstrap interval of a statistic over seeds.

    The same resampled seeds serve all trailing axes. Read it with care below about 5 seeds, where it is too narrow.

    Args:
      values: `[S, ...]` one value for each seed.
      statistic: maps `[S, ...]` to `[...]` along the first axis.
      level: share of the resamples inside the interval, in (0, 1).
      samples: number of resamples.
      seed: of the resampling, so that a figure can be drawn again.

    Returns:
      `[...]` lower and `[...]` upper ends; NaN where any seed is NaN.
    """
    values = np.asarray(values, np.float64)
    chosen = np.random.default_rng(seed).integers(values.shape[0], size=(values.shape[0], samples))
    low, high = np.quantile(statistic(values[chosen]), [0.5 - 0.5 * level, 0.5 + 0.5 * level], axis=0)
    unknown = np.isnan(values).any(axis=0)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def held(values: np.ndarray) -> np.ndarray:
    """Returns curves in which the last known value of a seed counts until its next one.

    Args:
      values: `[S, P]` values at P points; NaN where unknown, as the return is while no episode ends.

    Returns:
      `[S, P]` values; NaN only before the first and after the last known one of each seed.
    """
    values = np.asarray(values, np.float64)
    points, known = np.arange(values.shape[1]), ~np.isnan(values)
    last = np.maximum.accumulate(np.where(known, points, 0), axis=1)
    within = np.flip(np.logical_or.accumulate(np.flip(known, 1), axis=1), 1)
    return np.where(within, np.take_along_axis(values, last, 1), np.nan)


def improvement(values: np.ndarray, baseline: np.ndarray, samples: int = 2000, seed: int = 0) -> tuple[float, ...]:
    """Returns the probability that a new run of one kind is better than one of another.

        P(X > Y) = mean over all pairs of [x > y] + ½ [x = y]

    Args:
      values: `[S]` X, of one kind.
      baseline: `[S′]` Y, of the other.
      samples: number of resamples.
      seed: of the resampling.

    Returns:
      The probability, and the lower and the upper end of its 95 % bootstrap interval; the seeds of both are resampled
      apart from each other.
    """
    rng = np.random.default_rng(seed)
    wins = 0.5 * (1.0 + np.sign(np.subtract.outer(np.asarray(values, np.float64), np.asarray(baseline, np.float64))))
    rows = rng.integers(wins.shape[0], size=(samples, wins.shape[0]))
    columns = rng.integers(wins.shape[1], size=(samples, wins.shape[1]))
    resampled = wins[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    return float(wins.mean()), *(float(end) for end in np.quantile(resampled, [0.025, 0.975]))
