"""Atari games from synthetic preferences, played in the Arcade Learning Environment: pip install -e ".[atari]".

    python -m experiments.atari --env PongNoFrameskip-v4 --labels 1400
    python -m experiments.atari --env EnduroNoFrameskip-v4 --labels 1400

The emulators step inside the compiled loop. Their state is in no checkpoint: a run that is resumed begins new games.
"""

import time

_STARTED = time.perf_counter()

from absl import flags  # noqa: E402

from experiments import command_line, pixels, run_flags, sweep  # noqa: E402
from rlhf_jax.environments import atari  # noqa: E402

for module in (run_flags, sweep, pixels, command_line):
    flags.adopt_module_key_flags(module)
_ENV = flags.DEFINE_string("env", "PongNoFrameskip-v4", "The game.")
# Four agents with 1,400 pairs of pictures each would take 16 GiB.
flags.set_default(pixels.SEEDS, 1)
_LABELS = flags.DEFINE_list("labels", ["1400"], "Label budgets, a condition each, beside the true reward.")


def main() -> None:
    """Trains, evaluates, draws and reports."""
    if not run_flags.RESUME.value:
        with command_line.refusing():
            atari.make(_ENV.value)
    pixels.run("atari", _ENV.value, _LABELS.value, _STARTED, "env")


if __name__ == "__main__":
    command_line.run("atari", main)
