"""Gathers initial preferences and nothing more: the untrained policy acts, and pairs of its clips are asked about.

    python -m experiments.gather --env Pendulum-v1 --labels 200
    python -m experiments.gather --env Pendulum-v1 --labels 200 --teacher human --instruction "keep it upright"

The answers are in labels.sqlite in the run's folder, for experiments.labels, fit and human.
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
import random  # noqa: E402
from contextlib import closing  # noqa: E402
from functools import partial  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

import rlhf_jax  # noqa: E402
from experiments import command_line, labelling_session, results, run_flags, session  # noqa: E402
from experiments.labelling_session import LabellingSession  # noqa: E402
from rlhf_jax import parallel, presets, reward_ensemble, run_folder, settings, train_state, training  # noqa: E402
from rlhf_jax.environments import Environment, rendering  # noqa: E402
from rlhf_jax.labelling import labels_file, pairs  # noqa: E402
from rlhf_jax.labelling.label_store import Answer, LabelStore, Source, new_source  # noqa: E402
from rlhf_jax.labelling.labels_file import Labels  # noqa: E402
from rlhf_jax.run_folder import RunFolder  # noqa: E402
from rlhf_jax.train_state import TrainState  # noqa: E402

SYNTHETIC = "synthetic"
"""The synthetic teacher's name as a labeller."""

for module in (run_flags, labelling_session, command_line):
    flags.adopt_module_key_flags(module)
_ENV = flags.DEFINE_string("env", "Pendulum-v1", "Name of the environment.")
_LABELS = flags.DEFINE_integer("labels", 200, "Pairs to ask about.", lower_bound=1)
_TEACHER = flags.DEFINE_enum(
    "teacher",
    SYNTHETIC,
    [SYNTHETIC, "human"],
    "Who answers: the teacher of the settings, by the true reward, or people.",
)


def conditions() -> run_flags.Conditions:
    """Returns the settings of the run: those of a training in which every label is an initial one.

    Raises:
      ValueError: a setting is unknown or wrong.
    """
    decided = "env iterations use_true_reward labels.budget labels.max_budget labels.initial_fraction"
    run_flags.refuse_settings(*decided.split(), "reward.targets", "reward.frozen")
    preset = presets.for_people if _TEACHER.value == "human" else presets.preset
    config = settings.override(preset(_ENV.value), run_flags.SET.value)
    count = _LABELS.value
    labels = dataclasses.replace(config.labels, initial_fraction=1.0, budget=count, max_budget=count)
    config = dataclasses.replace(config, iterations=labels.warmup + 1, labels=labels)
    return {f"labels_{_LABELS.value}": config}


def check(lanes: run_flags.Conditions) -> None:
    """Checks the settings; raises ValueError."""
    run_flags.check(lanes)
    if _TEACHER.value == "human":
        for config in lanes.values():
            rendering.require(config.env)
        labelling_session.check_page()
    unused = ["synchronous"] if _TEACHER.value == "human" else ["synchronous", "instruction", "host", "port"]
    for name in unused:
        if flags.FLAGS[name].present:
            raise ValueError(f"--{name} has no say with --teacher {_TEACHER.value}")


def check_teacher(run: RunFolder) -> None:
    """Raises BadInput if a run that is gone on with was answered by another teacher."""
    path = run.path / run_folder.LABELS
    if path.exists():
        with command_line.refusing(), closing(LabelStore(path, read_only=True)) as store:
            oracle = {answer.labeller for answer in store.answers()} == {SYNTHETIC}
            if store.num_pairs() and oracle != (_TEACHER.value == SYNTHETIC):
                raise ValueError(f"--teacher {_TEACHER.value} is not who answers in {run.path}; name the other one")


def ask_people(run: RunFolder, clock: session.Clock) -> None:
    """Serves the page until people have answered every initial pair."""
    (config,) = run.conditions.values()
    with LabellingSession(run) as labelling:
        labelling.train(clock, until=config.labels.warmup)
        labelling.say("finished", "All initial pairs have an answer, thank you.")


def ask_teacher(run: RunFolder, clock: session.Clock) -> None:
    """Does the same rounds with the synthetic teacher, whose answers are stored as those of people are.

    Gathering that was cut short begins again: the same answers are merged with those that are there.
    """
    (config,) = run.conditions.values()
    env, path = rlhf_jax.make(config.env), run.path / run_folder.LABELS
    with clock.phase("gather", f"asking the synthetic teacher about {config.labels.budget} pairs"):
        if not path.exists():
            LabelStore.create(path, new_source(env, pairs.layout(env, config.queries.segment_length))).close()
        key = parallel.agent_keys(run.seeds)[0]
        state = jax.jit(partial(train_state.init, env=env, config=config))(key)
        with closing(LabelStore(path)) as store:
            state, labels, metrics = _rounds(state, store.source, env=env, config=config)
            numbers, _ = labels_file.merge(store, labels)
            said = np.flatnonzero(~np.isnan(labels.label)) + 1
            store.learn([numbers[pair] for pair in said.tolist()], 0)
    (run.path / "metrics.jsonl").write_text("")
    session.append_metrics(run, metrics, 0)
    session.save(run, int(state.iteration), jax.tree.map(lambda x: x[None], state), metrics)


def _rounds(
    state: TrainState, source: Source, *, env: Environment, config: rlhf_jax.Config
) -> tuple[TrainState, Labels, dict[str, np.ndarray]]:
    """Returns the agent after the warm-up, what it asked with the answers, and `[1, warmup]` metrics."""
    propose, absorb = training.halves(env=env, config=config)
    label = jax.jit(partial(training.label, config=config))
    judge = jax.jit(partial(reward_ensemble.preference_probability, env=env, config=config.reward))
    parts, rows = [], []
    for iteration in range(config.labels.warmup):
        acted, steps, asked, acting = propose(state)
        answers = label(acted, asked)
        probability = judge(state.ensemble, asked.observation, asked.action)
        known = jnp.where(state.preferences.added > 0, probability, jnp.nan)
        state, learning = absorb(acted, steps, asked, answers)
        given = np.asarray(asked.asked)
        records = pairs.to_records(asked, source.layout)
        if not learning["finite"]:
            raise command_line.Stopped(f"a reward or an answer became NaN or infinite in round {iteration + 1}")
        label_or_none = jnp.where(answers.weight > 0, answers.label, jnp.nan)
        parts.append((records, np.full(len(records), iteration), label_or_none[given], known[given]))
        rows.append(acting | learning)
        last = iteration + 1 == config.labels.warmup
        session.show(
            f"round {iteration + 1}/{config.labels.warmup}: {sum(len(p[0]) for p in parts)} answers", last=last
        )
    metrics = {name: np.stack([np.asarray(row[name]) for row in rows])[None] for name in rows[0]}
    columns = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return state, _labels(source, *columns), metrics


def _labels(
    source: Source, records: np.ndarray, iterations: np.ndarray, label: np.ndarray, probability: np.ndarray
) -> Labels:
    """Returns what the synthetic teacher said as if on the page: of clips on the left and on the right."""
    sides = random.Random(source.run)
    swapped = np.array([sides.random() < 0.5 for _ in records])
    words = np.where(label == 0.5, "tie", np.where((label == 1.0) != swapped, "left", "right"))
    words = np.where(np.isnan(label), "cannot_tell", words)
    now = time.time()
    answers = [
        Answer(
            pair=i + 1,
            answer=str(words[i]),
            swapped=bool(swapped[i]),
            repeat=False,
            labeller=SYNTHETIC,
            shown=now,
            answered=now,
            iteration=int(iterations[i]),
            probability=None if np.isnan(probability[i]) else float(probability[i]),
            token=f"{source.run} {i + 1}",
        )
        for i in range(len(records))
    ]
    return Labels(source, records, iterations, swapped, label.astype(np.float64), answers)


def describe(summary: dict[str, Any]) -> str:
    """Returns what was gathered, in words."""
    said = ", ".join(f"{count} {answer.replace('_', ' ')}" for answer, count in summary["answers"].items())
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in summary["wall_seconds"].items())
    moot = "" if {"left", "right"} & set(summary["answers"]) else "; no clip is preferred to another: nothing to learn"
    return f"{sum(summary['answers'].values())} answers: {said}{moot}\nwall seconds: {seconds}"


def main() -> None:
    """Gathers, and reports."""
    clock = session.Clock(_STARTED)
    session.say("starting")
    run = run_flags.open_run("gather", conditions, check, seeds=1, settled=("env", "labels", "instruction"))
    clock.phases["import"] = time.perf_counter() - _STARTED
    check_teacher(run)
    try:
        (ask_teacher if _TEACHER.value == SYNTHETIC else ask_people)(run, clock)
    except KeyboardInterrupt:
        raise command_line.Stopped(f"interrupted; go on with --out {run.path} --resume") from None
    results.report(run, results.outline(run, clock) | results.answers(run), [run.path / run_folder.LABELS], describe)


if __name__ == "__main__":
    command_line.run("gather", main)
