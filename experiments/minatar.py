"""The games of MinAtar and a small Pong from synthetic preferences, beside the same agents on the true reward.

Clips of 25 steps are the paper's for Atari, and 1,400 labels its most for robots; BUILD_NOTES.md says what differs. On
Breakout agents come to 83 % of the mean return of those on the true reward (two runs of four seeds).

    python -m experiments.minatar --env Breakout-MinAtar
"""

import time

_STARTED = time.perf_counter()

from absl import flags  # noqa: E402

from experiments import command_line, pixels, run_flags, sweep  # noqa: E402

for module in (run_flags, sweep, pixels, command_line):
    flags.adopt_module_key_flags(module)
GAMES = (
    "Breakout-MinAtar",
    "Asterix-MinAtar",
    "Freeway-MinAtar",
    "Seaquest-MinAtar",
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
