"""MinAtar's games and a small Pong from synthetic preferences, with the paper's Atari settings scaled to them.

The claim: agents that are told which of two clips of 25 steps is better do nearly as well as those that see the score.

    python -m experiments.minatar --env Breakout-MinAtar
"""

import time

_STARTED = time.perf_counter()

from absl import flags  # noqa: E402

from experiments import command_line, pixels, run_flags, sweep  # noqa: E402

for module in (run_flags, sweep, pixels):
    flags.adopt_module_key_flags(module)
GAMES = (
    "Breakout-MinAtar",
    "Asterix-MinAtar",
    "Freeway-MinAtar",
    "SpaceInvaders-MinAtar",
    "Pong-misc",
)
_ENV = flags.DEFINE_enum("env", GAMES[0], GAMES, "The game.")
_LABELS = flags.DEFINE_list("labels", ["1400"], "Label budgets, a condition each, beside the true reward.")


def main() -> None:
    """Trains, evaluates, draws and reports."""
    pixels.run("minatar", _ENV.value, _LABELS.value, _STARTED, "env")


if __name__ == "__main__":
    command_line.run("minatar", main)
