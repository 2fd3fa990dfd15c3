"""MovingDot from synthetic preferences, seen as an Atari game is: the smallest environment of images.

The claim: 500 choices between clips of 12 frames teach an agent to move the dot to the middle and to keep it there.

    python -m experiments.moving_dot --seeds 4
"""

import time

_STARTED = time.perf_counter()

from absl import flags  # noqa: E402

from experiments import command_line, pixels, run_flags, sweep  # noqa: E402

for module in (run_flags, sweep, pixels, command_line):
    flags.adopt_module_key_flags(module)
_LABELS = flags.DEFINE_list("labels", ["500"], "Label budgets, a condition each, beside the true reward.")


def main() -> None:
    """Trains, evaluates, draws and reports."""
    pixels.run("moving_dot", "MovingDot-v0", _LABELS.value, _STARTED)


if __name__ == "__main__":
    command_line.run("moving_dot", main)
