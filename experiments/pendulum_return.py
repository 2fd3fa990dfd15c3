"""What a return on Pendulum-v1 is worth."""

from typing import Any

OPTIMUM = -137.8  # By dynamic programming over the reset distribution.
RANDOM = -1231.0  # Uniformly random actions.


def normalise(value: Any) -> Any:
    """Returns a return, or an array of them, so that 0 acts at random and 1 is optimal."""
    return (value - RANDOM) / (OPTIMUM - RANDOM)


def normalised(summary: dict[str, Any]) -> dict[str, Any]:
    """Returns a summary whose conditions have their normalised mean, too."""
    rows = {name: {**row, "normalised": normalise(row["mean"])} for name, row in summary["conditions"].items()}
    return {**summary, "conditions": rows, "optimum": OPTIMUM}
