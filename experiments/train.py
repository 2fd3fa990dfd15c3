"""Trains policies, several seeds at once, on the true reward or on the reward that an earlier run learnt.

    python -m experiments.train --env CartPole-v1 --reward true
    python -m experiments.train --reward results/reward
    python -m experiments.train --reward results/reward --nofrozen --labels 200

A stored reward stays as it is, or learns on: from the preferences that it has learnt from already, and from more labels
by the synthetic teacher. With people in its place: experiments.human --reward.
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
from functools import partial  # noqa: E402

from absl import flags  # noqa: E402

from experiments import command_line, results, run_flags, session, stored_reward, study, sweep  # noqa: E402
from experiments.stored_reward import StoredReward  # noqa: E402
from rlhf_jax import checkpoint, presets, run_folder, settings  # noqa: E402
from rlhf_jax.run_folder import RunFolder  # noqa: E402

for module in (run_flags, sweep, stored_reward, command_line):
    flags.adopt_module_key_flags(module)
TRUE = "true"
_ENV = flags.DEFINE_string(
    "env", None, "Name of the environment; that of a stored reward, or Pendulum-v1, if not given."
)
_REWARD = flags.DEFINE_string("reward", TRUE, "What to learn from: true, or the folder of a run that learnt a reward.")
_FROZEN = flags.DEFINE_boolean("frozen", True, "Keep a stored reward as it is, instead of learning on.")
_LABELS = flags.DEFINE_integer("labels", 0, "More labels by the synthetic teacher, with --nofrozen.", lower_bound=0)
_SEEDS = flags.DEFINE_integer("seeds", 8, "Agents.", lower_bound=1)

_DECIDED = ["env", "use_true_reward", "reward.frozen", "reward.targets"]
_DECIDED += ["labels.budget", "labels.max_budget", "labels.capacity"]


def true_reward() -> run_flags.Conditions:
    """Returns the settings of agents that are given the true reward.

    Raises:
      ValueError: a setting is unknown or wrong, or a flag has no say.
    """
    for name in ("frozen", "labels", "condition", "reward_seed"):
        if flags.FLAGS[name].present:
            raise ValueError(f"--{name.replace('frozen', '[no]frozen')} has no say with --reward {TRUE}")
    config = settings.override(presets.preset(_ENV.value or "Pendulum-v1"), run_flags.SET.value)
    return sweep.swept({"true_reward": run_flags.without_preferences(config)}, *_DECIDED)


def learnt_reward(stored: StoredReward) -> run_flags.Conditions:
    """Returns the settings of agents that start with a stored reward.

    Raises:
      ValueError: a setting is unknown or wrong, or conflicts with the reward.
    """
    if _FROZEN.value == bool(_LABELS.value):
        raise ValueError(
            f"--labels {_LABELS.value}: a frozen reward takes none, and with --nofrozen at least 1 is needed"
        )
    config = stored.settings(_ENV.value, run_flags.SET.value)
    count = stored.num_labels + _LABELS.value
    labels = dataclasses.replace(config.labels, budget=_LABELS.value, max_budget=max(_LABELS.value, 1), capacity=count)
    reward = dataclasses.replace(config.reward, frozen=_FROZEN.value)
    lanes = {f"labels_{count}": dataclasses.replace(config, labels=labels, reward=reward)}
    return sweep.swept(lanes, *_DECIDED, *stored_reward.SHARED)


def open_run() -> RunFolder:
    """Opens the folder of the run, new or resumed; a new one holds the stored reward as its first checkpoint.

    Raises:
      BadInput: something that was asked for is wrong.
    """
    stored = None
    settled = ("env", "reward", "frozen", "labels", "seeds", "sweep", "condition", "reward_seed")
    with command_line.refusing():
        run_flags.refuse_settings(*_DECIDED)
        if _REWARD.value != TRUE and not run_flags.RESUME.value:
            stored = stored_reward.load(_REWARD.value)
    conditions = true_reward if stored is None else partial(learnt_reward, stored)
    run = run_flags.open_run("train", conditions, run_flags.check, seeds=_SEEDS.value, settled=settled)
    if stored is not None:
        session.say(f"starting with the reward of {stored.path}, learnt from {stored.num_labels} labels")
        run_folder.start(run, stored.state)
    elif not _started(run):
        raise command_line.BadInput(f"{run.path} was stopped before its start was saved; start again in another folder")
    return run


def _started(run: RunFolder) -> bool:
    """Returns whether all that the agents start with is there: for those on the true reward that is nothing."""
    learning = [part for part in run.programs() if not part.config.use_true_reward]
    return all(checkpoint.latest(part.checkpoints) is not None for part in learning)


def title(run: RunFolder) -> str:
    """Returns what the run is about, in words."""
    name, config = next(iter(run.conditions.items()))
    if config.use_true_reward:
        return f"{config.env}, on the true reward"
    kind = "a frozen reward" if config.reward.frozen else "a reward that learns on"
    return f"{config.env}, on {kind}: {name.split('/')[0].removeprefix('labels_')} labels"


def main() -> None:
    """Trains, evaluates, draws and reports."""
    clock = session.Clock(_STARTED)
    session.say("starting")
    run = open_run()
    study.conduct(run, clock, partial(results.draw, title=title(run)))


if __name__ == "__main__":
    command_line.run("train", main)
