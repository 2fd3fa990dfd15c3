"""Timings: of calls in turn, on two clocks, and what is said about many of them."""

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

import jax


class Seconds(NamedTuple):
    """How long something took: on the clock, and on the processor over all threads."""

    wall: float
    processor: float


def cost(seconds: Seconds) -> float:
    """Returns processor seconds on a CPU, which other jobs on it disturb least, and wall seconds on anything else."""
    return seconds.processor if jax.default_backend() == "cpu" else seconds.wall


def timed(call: Callable[[], Any], number: int = 1) -> Seconds:
    """Returns the seconds of one of so many calls, whose results are waited for."""
    wall, processor = time.perf_counter(), time.process_time()
    for _ in range(number):
        jax.block_until_ready(call())
    return Seconds((time.perf_counter() - wall) / number, (time.process_time() - processor) / number)


def in_turn(calls: dict[str, Callable[[], Any]], repeats: int, sample_seconds: float = 0.0) -> dict[str, list[Seconds]]:
    """Times things in turn, A B A B, so that whatever slows the machine slows them alike.

    Args:
      calls: what to time; each is called once or twice before, to compile and warm up.
      repeats: timings of each.
      sample_seconds: a short call is repeated until one timing lasts about this long.
    """
    numbers = {}
    for name, call in calls.items():
        jax.block_until_ready(call())
        numbers[name] = math.ceil(sample_seconds / timed(call).wall) if sample_seconds else 1
    samples: dict[str, list[Seconds]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            samples[name].append(timed(call, numbers[name]))
    return samples


def typical(samples: Sequence[Seconds]) -> Seconds:
    """Returns the median of each kind of seconds."""
    return Seconds(median([s.wall for s in samples]), median([s.processor for s in samples]))


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the least, the median and the largest."""
    return {"min": min(values), "median": median(values), "max": max(values)}
