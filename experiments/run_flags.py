"""The flags that every training has, and the run folder that they lead to."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags

import rlhf_jax
from experiments import command_line, memory, session
from rlhf_jax import run_folder, settings
from rlhf_jax.environments.atari import AtariEnvironment
from rlhf_jax.run_folder import RunFolder

SEED = flags.DEFINE_integer("seed", 0, "Seed of the first agent; the others follow.", lower_bound=0)
OUT = flags.DEFINE_string("out", None, "Folder of the run; results/<experiment>/<time> if not given.")
SET = flags.DEFINE_multi_string("set", [], "A setting, such as ppo.learning_rate=3e-4; may be repeated.")
RESUME = flags.DEFINE_boolean("resume", False, "Go on with the run in --out from its newest checkpoint.")

Conditions = dict[str, rlhf_jax.Config]


def open_run(
    experiment: str,
    conditions: Callable[[], Conditions],
    check: Callable[[Conditions], None],
    *,
    seeds: int,
    settled: Sequence[str],
) -> RunFolder:
    """Opens the folder of the run, new or resumed, after checking all that was asked for.

    Args:
      experiment: its name.
      conditions: returns the settings of each condition of a new run; raises ValueError.
      check: checks them; raises ValueError.
      seeds: agents per condition of a new run.
      settled: flags of the experiment that have no say with --resume.

    Raises:
      BadInput: something of it is wrong.
    """
    with command_line.refusing():
        if RESUME.value:
            return _resumed(experiment, check, [*settled, "seed", "set"])
        lanes = conditions()
        check(lanes)
        _check_memory(lanes, seeds)
        numbers = range(SEED.value, SEED.value + seeds)
        if numbers[-1] >= 2**32:
            raise ValueError(f"--seed {SEED.value} with {seeds} seeds goes beyond {2**32 - 1}")
        out = Path(OUT.value or f"results/{experiment}/{time.strftime('%Y-%m-%d-%H%M%S')}")
        return run_folder.create(out, experiment, lanes, numbers)


def _check_memory(conditions: Conditions, seeds: int) -> None:
    """Says what training in the compiled loop takes; offline learning has no such settings, and takes little."""
    memory.check({name: config for name, config in conditions.items() if isinstance(config, rlhf_jax.Config)}, seeds)


def _resumed(experiment: str, check: Callable[[Conditions], None], settled: Sequence[str]) -> RunFolder:
    ignored = [name for name in settled if flags.FLAGS[name].present]
    if ignored:
        raise ValueError(f"--{ignored[0]} has no say with --resume: the run's config.json has it")
    if OUT.value is None:
        raise ValueError("--resume needs the run's folder as --out")
    run = run_folder.load(Path(OUT.value))
    if run.experiment != experiment:
        raise ValueError(f"{run.path} is a run of experiments.{run.experiment}, not of experiments.{experiment}")
    check(run.conditions)
    _check_memory(run.conditions, len(run.seeds))
    return run


def check(conditions: Conditions) -> None:
    """Checks the settings of every condition, and says what may mislead; raises ValueError."""
    envs = {name: rlhf_jax.make(name) for name in dict.fromkeys(config.env for config in conditions.values())}
    for config in conditions.values():
        settings.validate(config, envs[config.env])
    for env in envs.values():
        if isinstance(env, AtariEnvironment) and not env.blanked:
            session.say(f"{env.name}: where the score stands is not known, so it is not blanked; a reward may read it")


def true_reward_and_labels(base: rlhf_jax.Config, texts: Sequence[str]) -> Conditions:
    """Returns the settings of agents on the true reward, and on every label budget of --labels.

    Raises:
      ValueError: a budget is no positive whole number, or named twice.
    """
    budgets = label_budgets(texts)
    lanes = {}
    for budget in [0, *budgets]:
        name = f"labels_{budget}" if budget else "true_reward"
        limits = dataclasses.replace(base.labels, budget=budget, max_budget=budgets[-1])
        lanes[name] = dataclasses.replace(base, use_true_reward=budget == 0, labels=limits)
    return lanes


def without_preferences(config: rlhf_jax.Config) -> rlhf_jax.Config:
    """Returns the settings of an agent on the true reward in a program without queries, answers and fits.

    The one member that is left is never looked at; it gives the state its shape.
    """
    return dataclasses.replace(
        config,
        use_true_reward=True,
        labels=dataclasses.replace(config.labels, budget=0, max_budget=0, capacity=None),
        reward=dataclasses.replace(config.reward, members=1),
    )


def label_budgets(texts: Sequence[str]) -> list[int]:
    """Returns the values of --labels in order; raises ValueError if one is no positive whole number, or named twice."""
    if not texts or not all(text.isdecimal() and int(text) > 0 for text in texts):
        raise ValueError(f"--labels {','.join(texts)} must be positive whole numbers, such as 350,700,1400")
    budgets = sorted(int(text) for text in texts)
    if len(set(budgets)) < len(budgets):
        raise ValueError(f"--labels {','.join(texts)} names a budget twice")
    return budgets


def refuse_settings(*names: str) -> None:
    """Raises ValueError if --set names a setting that a flag of the experiment decides."""
    for name in names:
        if any(text.split("=")[0].strip() == name for text in SET.value):
            raise ValueError(f"--set {name} has no say here: this experiment decides it")
