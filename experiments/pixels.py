"""What the experiments on images share: agents on the true reward and on label budgets, their curves and clips."""

from functools import partial

from absl import flags

from experiments import results, run_flags, session, study, sweep
from rlhf_jax import presets, settings

SEEDS = flags.DEFINE_integer("seeds", 4, "Agents per condition.", lower_bound=1)


def conditions(env_name: str, labels: list[str]) -> run_flags.Conditions:
    """Returns the settings of each condition: the true reward, and every label budget.

    The agents on the true reward are a program of their own, without queries, answers and fits.

    Args:
      env_name: the environment.
      labels: the budgets, as text.

    Raises:
      ValueError: a budget is not a positive whole number, or a setting is unknown or wrong.
    """
    run_flags.refuse_settings("env", "labels.budget", "labels.max_budget", "use_true_reward", "reward.frozen")
    base = settings.override(presets.preset(env_name), run_flags.SET.value)
    lanes = run_flags.true_reward_and_labels(base, labels)
    return sweep.swept(lanes | {"true_reward": run_flags.without_preferences(lanes["true_reward"])})


def run(experiment: str, env_name: str, labels: list[str], started: float, *settled: str) -> None:
    """Trains, evaluates, draws and reports.

    Args:
      experiment: its name.
      env_name: the environment.
      labels: the budgets, as text.
      started: when the process did, by `time.perf_counter`.
      settled: flags of the experiment that have no say with --resume, beside those that all have.
    """
    clock = session.Clock(started)
    session.say("starting")
    folder = run_flags.open_run(
        experiment,
        lambda: conditions(env_name, labels),
        run_flags.check,
        seeds=SEEDS.value,
        settled=("seeds", "labels", "sweep", *settled),
    )
    study.conduct(folder, clock, partial(results.draw, title=f"{folder.config.env} from preferences"))
