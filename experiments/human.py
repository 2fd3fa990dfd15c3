"""People in place of the teacher: serves a page on which they choose between clips, and trains on what they say.

    python -m experiments.human --env Pendulum-v1 --labels 200 --instruction "keep it upright"
    python -m experiments.human --reward results/reward --labels 100

The address of the page is printed. An answer is in labels.sqlite, in the run's folder, before the page confirms it.
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
from functools import partial  # noqa: E402

from absl import flags  # noqa: E402

from experiments import command_line, labelling_session, results, run_flags, session, stored_reward  # noqa: E402
from experiments.labelling_session import LabellingSession  # noqa: E402
from experiments.stored_reward import StoredReward  # noqa: E402
from rlhf_jax import presets, run_folder, settings  # noqa: E402
from rlhf_jax.environments import rendering  # noqa: E402
from rlhf_jax.labelling import labels_file  # noqa: E402
from rlhf_jax.run_folder import RunFolder  # noqa: E402

for module in (run_flags, labelling_session, stored_reward, command_line):
    flags.adopt_module_key_flags(module)
_ENV = flags.DEFINE_string("env", None, "Name of the environment; Pendulum-v1, or that of --reward, if not given.")
_LABELS = flags.DEFINE_integer("labels", 200, "Answers that are wanted, beside those in --reward.", lower_bound=1)
_REWARD = flags.DEFINE_string("reward", None, "Folder of a run with labels and a reward, such as by experiments.fit.")


def conditions(stored: StoredReward | None, initial: int) -> run_flags.Conditions:
    """Returns the settings of the run.

    Args:
      stored: the reward that it starts with, if any.
      initial: how many pairs of an earlier run it begins with, in place of the initial labels.

    Raises:
      ValueError: a setting is unknown or wrong, or conflicts with the reward.
    """
    decided = "env labels.budget labels.max_budget use_true_reward reward.targets reward.frozen"
    run_flags.refuse_settings(*decided.split())
    budget = initial + _LABELS.value
    if stored is None:
        config = settings.override(presets.for_people(_ENV.value or "Pendulum-v1"), run_flags.SET.value)
        labels = config.labels
    else:
        run_flags.refuse_settings("labels.initial_fraction", "labels.capacity")
        config = stored.settings(_ENV.value, run_flags.SET.value)
        labels = dataclasses.replace(config.labels, initial_fraction=initial / budget)
    labels = dataclasses.replace(labels, budget=budget, max_budget=budget)
    return {f"labels_{budget}": dataclasses.replace(config, labels=labels)}


def check(lanes: run_flags.Conditions) -> None:
    """Checks the settings; raises ValueError."""
    run_flags.check(lanes)
    for config in lanes.values():
        rendering.require(config.env)
    labelling_session.check_page()


def open_run() -> RunFolder:
    """Opens the folder of the run, new or resumed.

    Raises:
      BadInput: something that was asked for is wrong.
    """
    settled = ("env", "labels", "instruction", "reward", "condition", "reward_seed")
    if _REWARD.value is None or run_flags.RESUME.value:
        run = run_flags.open_run("human", partial(conditions, None, 0), check, seeds=1, settled=settled)
        if run_flags.RESUME.value and not (run.path / run_folder.LABELS).exists():
            # It may have been about to be handed a stored reward.
            raise command_line.BadInput(f"{run.path} was stopped before it began; start again in another folder")
        return run
    with command_line.refusing():
        stored, question = stored_reward.load(_REWARD.value), labelling_session.instruction()
        labels, learnt = labels_file.load(stored.path), stored_reward.learnt_pairs(stored)
        initial = len({answer.pair for answer in labels.answers})
        run = run_flags.open_run("human", partial(conditions, stored, initial), check, seeds=1, settled=settled)
        session.say(f"starting with the reward of {stored.path}, learnt from {stored.num_labels} labels")
        stored_reward.hand_over(stored, labels, learnt, run, question)
    return run


def main() -> None:
    """Serves the page, trains, evaluates, draws and reports."""
    clock = session.Clock(_STARTED)
    session.say("starting")
    run = open_run()
    (config,) = run.conditions.values()
    seconds = config.queries.segment_length / rendering.STEPS_PER_SECOND
    if seconds < 1:
        session.say(f"clips of {config.queries.segment_length} steps last {seconds:.2f} s, which is hard to see")
    with LabellingSession(run) as labelling:
        clock.phases["import"] = time.perf_counter() - _STARTED
        states, metrics = labelling.train(clock)
        labelling.say("finished", "Training is done, thank you. The agent is being evaluated.")
        result = results.conclude(run, states, metrics, labelling.lanes, labelling.env, clock)
        results.write_table(run, result)
        with clock.phase("evaluate", "drawing"):
            count = int(metrics["labels"].max())
            files = results.draw(run, result, f"{config.env} from {count} human labels")
    summary = results.summarise(run, result, clock) | results.answers(run)
    results.report(run, summary, [*files, run.path / run_folder.LABELS], results.table)


if __name__ == "__main__":
    command_line.run("human", main)
