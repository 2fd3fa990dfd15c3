"""Figure 2 of Christiano et al. 2017, in its style, on Gym's swing-up Pendulum-v1.

The claim: an agent that is told which of two short clips is better, 350, 700 or 1400 times, does nearly as well as
one that is given the true reward. All conditions and seeds are lanes of one compiled program.

    python -m experiments.pendulum --seeds 8
"""

import time

_STARTED = time.perf_counter()

from pathlib import Path  # noqa: E402

from absl import flags  # noqa: E402

import rlhf_jax  # noqa: E402
from experiments import command_line, figures, pendulum_return, results, run_flags, session, study, sweep  # noqa: E402
from rlhf_jax import run_folder, settings  # noqa: E402

for module in (run_flags, sweep, command_line):
    flags.adopt_module_key_flags(module)
_SEEDS = flags.DEFINE_integer("seeds", 8, "Agents per condition.", lower_bound=1)
_LABELS = flags.DEFINE_list(
    "labels", ["350", "700", "1400"], "Label budgets, a condition each, beside the true reward."
)


def conditions(labels: list[str], assignments: list[str]) -> dict[str, rlhf_jax.Config]:
    """Returns the settings of each condition: the true reward, and every label budget.

    Raises:
      ValueError: a budget is not a positive whole number, or a setting is unknown or wrong.
    """
    run_flags.refuse_settings("labels.budget", "labels.max_budget", "use_true_reward", "reward.frozen")
    return sweep.swept(run_flags.true_reward_and_labels(settings.override(rlhf_jax.Config(), assignments), labels))


def draw(run: run_folder.RunFolder, result: results.Result) -> list[Path]:
    """Draws the figure and a GIF of the agents on the true reward and on the most labels; returns the files."""
    figure = run.path / "figure2.png"
    figures.learning_curves(
        figure,
        result.env_steps,
        {name: metrics["return"] for name, metrics in result.metrics.items()},
        optimum=pendulum_return.OPTIMUM,
        title="Pendulum-v1 from preferences",
        xlabel="environment steps",
        ylabel=f"true return of an episode\ninterquartile mean of {len(run.seeds)} seeds, 95 % interval",
    )
    names = list(run.conditions)
    return [figure, *(results.animate(run, result, name) for name in (names[0], names[-1]))]


def check(lanes: dict[str, rlhf_jax.Config]) -> None:
    """Checks the settings of every condition; raises ValueError."""
    for config in lanes.values():
        rlhf_jax.make(config.env)  # A name that is none is said to be none.
        if config.env != "Pendulum-v1":
            raise ValueError(f"env = {config.env!r}; this experiment is about Pendulum-v1")
    run_flags.check(lanes)


def main() -> None:
    """Trains, evaluates, draws and reports."""
    clock = session.Clock(_STARTED)
    session.say("starting")
    run = run_flags.open_run(
        "pendulum",
        lambda: conditions(_LABELS.value, run_flags.SET.value),
        check,
        seeds=_SEEDS.value,
        settled=("seeds", "labels", "sweep"),
    )
    study.conduct(run, clock, draw, pendulum_return.summarise)


if __name__ == "__main__":
    command_line.run("pendulum", main)
