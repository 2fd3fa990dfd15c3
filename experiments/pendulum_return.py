"""What a return on Pendulum-v1 is worth."""

from typing import Any

from experiments import results, session
from rlhf_jax.run_folder import RunFolder

OPTIMUM = -137.8  # By dynamic programming over the reset distribution.
RANDOM = -1231.0  # Uniformly random actions.


def normalise(value: Any) -> Any:
    """Returns a return, or an array of them, so that 0 acts at random and 1 is optimal."""
    return (value - RANDOM) / (OPTIMUM - RANDOM)


def summarise(run: RunFolder, result: results.Result, clock: session.Clock) -> dict[str, Any]:
    """Returns the summary of a run whose conditions have their normalised mean, too."""
    summary = results.summarise(run, result, clock)
    rows = {name: {**row, "normalised": normalise(row["mean"])} for name, row in summary["conditions"].items()}
    return {**summary, "conditions": rows, "optimum": OPTIMUM}
