"""Slow, obvious NumPy versions of what the library computes, in float64 and with loops."""

from collections import deque
from typing import Any

import numpy as np


def sigmoid(x: Any) -> np.ndarray:
    """Returns 1 / (1 + exp(−x))."""
    return 1.0 / (1.0 + np.exp(-np.asarray(x, np.float64)))


def generalised_advantages(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    done: np.ndarray,
    discount: float,
    trace_decay: float,
) -> np.ndarray:
    """Returns Aₜ = Σₖ (γλ)ᵏ δₜ₊ₖ up to the end of the episode, by the double sum rather than the recursion."""
    steps, num_envs = rewards.shape
    advantages = np.zeros((steps, num_envs))
    for n in range(num_envs):
        for t in range(steps):
            for k in range(t, steps):
                bootstrap = 0.0 if terminated[k, n] else discount * next_values[k, n]
                error = rewards[k, n] + bootstrap - values[k, n]
                advantages[t, n] += (discount * trace_decay) ** (k - t) * error
                if done[k, n]:
                    break
    return advantages


def valid_starts(done: np.ndarray, length: int) -> np.ndarray:
    """Returns `[T − L + 1, N]` whether no episode ends before the last step of the window from here."""
    starts = done.shape[0] - length + 1
    return np.array([[not done[t : t + length - 1, n].any() for n in range(done.shape[1])] for t in range(starts)])


def window_sums(values: np.ndarray, length: int) -> np.ndarray:
    """Returns the sum over every window of L steps."""
    return np.stack([values[t : t + length].sum(0) for t in range(values.shape[0] - length + 1)])


def reward_network(params: dict, features: np.ndarray) -> np.ndarray:
    """Returns the output of a leaky-ReLU network with slope 0.01, from flax's `{"Dense_0": {"kernel", "bias"}, …}`."""
    x = np.asarray(features, np.float64)
    for i in range(len(params)):
        layer = params[f"Dense_{i}"]
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        if i < len(params) - 1:
            x = np.where(x > 0, x, 0.01 * x)
    return x[..., 0]


class RingBuffer:
    """The last `capacity` rows that were added."""

    def __init__(self, capacity: int):
        self.rows: deque = deque(maxlen=capacity)
        self.added = 0

    def add(self, rows: list, weights: np.ndarray) -> None:
        """Adds the rows of positive weight, in order."""
        for row, weight in zip(rows, weights, strict=True):
            if weight > 0:
                self.rows.append(row)
                self.added += 1
