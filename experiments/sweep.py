"""Sweeps: every condition with several values of a setting. Those of numbers are lanes of one compiled program."""

import itertools
from collections.abc import Sequence

from absl import flags

from experiments import run_flags
from experiments.run_flags import Conditions
from rlhf_jax import settings
from rlhf_jax.config import Config

SWEEP = flags.DEFINE_multi_string(
    "sweep",
    [],
    "A setting and its values, such as ppo.learning_rate=1e-3,3e-3; may be repeated, for all combinations. Numbers "
    "are lanes of one program; a setting that shapes the program compiles one for each value.",
)

_SHARED = ("env", "iterations", "num_envs", "rollout_length", "use_true_reward", "labels.budget", "labels.max_budget")
# What has no say where the true reward is given.
_LEARNING_THE_REWARD = ("queries.", "labels.", "teacher.", "reward.")


def swept(conditions: Conditions, *decided: str) -> Conditions:
    """Returns every condition with each combination of the swept values, named such as `labels_700/reward.l2=1e-3`.

    Agents on the true reward are not repeated for settings that have no say there.

    Args:
      conditions: settings by name.
      decided: paths of settings that something else decides.

    Raises:
      ValueError: a sweep is not of the form path=value,value, or a setting is unknown, wrong, or decided elsewhere.
    """
    values = dict(_parse(text, (*_SHARED, *decided)) for text in SWEEP.value)
    if len(values) < len(SWEEP.value):
        raise ValueError(f"--sweep names a setting twice: {', '.join(SWEEP.value)}")
    idle = [path for path in values if all(_is_idle(path, config) for config in conditions.values())]
    if idle:
        raise ValueError(f"--sweep {idle[0]} has no say here: every agent is given the true reward")
    out: Conditions = {}
    for name, config in conditions.items():
        paths = [path for path in values if not _is_idle(path, config)]
        for combination in itertools.product(*(values[path] for path in paths)):
            assignments = [f"{path}={value}" for path, value in zip(paths, combination, strict=True)]
            full_name = "/".join([name, ",".join(assignments)]) if paths else name
            out[full_name] = settings.override(config, assignments)
    return out


def _is_idle(path: str, config: Config) -> bool:
    return config.use_true_reward and path.startswith(_LEARNING_THE_REWARD)


def _parse(text: str, fixed: Sequence[str]) -> tuple[str, Sequence[str]]:
    path, equals, listed = text.partition("=")
    path, values = path.strip(), [value.strip() for value in listed.split(",")]
    if not equals or not all(values):
        raise ValueError(f"--sweep {text!r} is not of the form path=value,value, such as ppo.learning_rate=1e-3,3e-3")
    if len(set(values)) < len(values):
        raise ValueError(f"--sweep {text!r} names a value twice")
    if path in fixed or path.endswith("hidden"):
        raise ValueError(
            f"--sweep {path} is not possible: all conditions share it, this experiment decides it, or it is a list"
        )
    if any(assignment.split("=")[0].strip() == path for assignment in run_flags.SET.value):
        raise ValueError(f"{path} is named by both --set and --sweep; name it once")
    return path, values
