"""Fits the reward ensemble to stored preferences, of runs and of exported files; nobody is asked and nothing acts.

    python -m experiments.fit results/gather/<time> --out results/reward
    python -m experiments.fit mine.npz hers.npz --out results/reward

All of them must be about the same environment and segments of one length. The folder of the new run holds the labels
and, as its checkpoint, an untrained agent with the reward, for experiments.train and human.
"""

import time

_STARTED = time.perf_counter()

import dataclasses  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from contextlib import ExitStack, closing  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from absl import flags  # noqa: E402

import rlhf_jax  # noqa: E402
from experiments import command_line, results, run_flags, session  # noqa: E402
from rlhf_jax import (  # noqa: E402
    checkpoint,
    normalisation,
    parallel,
    preferences,
    presets,
    reward_ensemble,
    run_folder,
    settings,
    train_state,
)
from rlhf_jax.environments import Environment  # noqa: E402
from rlhf_jax.labelling import labels_file, pairs  # noqa: E402
from rlhf_jax.labelling.label_store import LabelStore  # noqa: E402
from rlhf_jax.labelling.labels_file import Labels  # noqa: E402
from rlhf_jax.queries import Queries  # noqa: E402
from rlhf_jax.run_folder import RunFolder  # noqa: E402
from rlhf_jax.teacher import Answers  # noqa: E402
from rlhf_jax.train_state import TrainState  # noqa: E402

for flag in (run_flags.SEED, run_flags.OUT, run_flags.SET):
    flags.declare_key_flag(flag.name)
_ROUNDS = flags.DEFINE_integer("rounds", 200, "Fits of reward.fit_steps gradient steps each.", lower_bound=1)

_LAST_ROUNDS = 20


def together(paths: Sequence[str]) -> Labels:
    """Returns the labels of all folders and files, each answer once.

    Raises:
      ValueError: one of them is none, or they cannot be put together, no answer says which clip is better, or what was
        seen or done is not a number.
    """
    labels = [labels_file.load(Path(path)) for path in paths]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        source = labels_file.source_for(labels[0])
        store = stack.enter_context(closing(LabelStore.create(folder / run_folder.LABELS, source)))
        for path, more in zip(paths, labels, strict=True):
            labels_file.check_alike(path, more.source, store.source)
            labels_file.merge(store, more)
        merged = labels_file.collect(store)
    if not np.isin(merged.label, (0.0, 1.0)).any():
        raise ValueError(
            f"there is nothing to learn from in {', '.join(paths)}: no answer prefers one clip to the other"
        )
    for name in ("observation", "action"):
        if not np.isfinite(merged.records[name]).all():
            raise ValueError(f"{', '.join(paths)}: {name} holds values that are NaN or infinite")
    return merged


def conditions(labels: Labels) -> run_flags.Conditions:
    """Returns the settings of the run.

    Raises:
      ValueError: a setting is unknown or wrong.
    """
    decided = "env queries.segment_length labels.budget labels.max_budget labels.capacity use_true_reward"
    run_flags.refuse_settings(*decided.split(), "reward.frozen", "reward.targets")
    config = settings.override(presets.preset(labels.source.env), run_flags.SET.value)
    count = int((~np.isnan(labels.label)).sum())
    return {
        f"labels_{count}": dataclasses.replace(
            config,
            queries=dataclasses.replace(config.queries, segment_length=pairs.segment_length(labels.source.layout)),
            labels=dataclasses.replace(config.labels, budget=count, max_budget=count),
        )
    }


def begin(key: jax.Array, asked: Queries, label: jax.Array, *, env: Environment, config: rlhf_jax.Config) -> TrainState:
    """Returns an untrained agent that has been told the `[Q]` labels of these queries, and has seen no other steps."""
    key_agent, key_add = jax.random.split(key)
    state = train_state.init(key_agent, env=env, config=config)
    answers = Answers(label=label.astype(jnp.float32), weight=asked.asked.astype(jnp.float32))
    observation = state.agent.observation
    if config.normalise_observations and env.measured:
        observation = normalisation.update(observation, asked.observation)
    return dataclasses.replace(
        state,
        agent=dataclasses.replace(state.agent, observation=observation),
        preferences=preferences.add(key_add, state.preferences, asked, answers, bootstrap=config.reward.bootstrap),
    )


def fit(run: RunFolder, state: TrainState, *, env: Environment, config: rlhf_jax.Config) -> tuple[TrainState, dict]:
    """Fits the agent's reward to its preferences; returns the agent and the `[1, rounds]` metrics.

    Raises:
      Stopped: a loss became NaN or infinite.
    """
    chunk = session.chunk(_ROUNDS.value, env)
    rounds = jax.jit(partial(reward_ensemble.fit_rounds, num_rounds=chunk, env=env, config=config.reward))
    step = rounds.lower(state.key, state.ensemble, state.preferences, state.agent.observation).compile()
    ensemble, parts, began = state.ensemble, [], time.perf_counter()
    for done in range(chunk, _ROUNDS.value + 1, chunk):
        key = jax.random.fold_in(state.key, done)
        ensemble, info = step(key, ensemble, state.preferences, state.agent.observation)
        parts.append({name: np.asarray(values)[None] for name, values in info.items()})
        if not np.isfinite(parts[-1]["train_loss"]).all():
            raise command_line.Stopped(f"the training loss became NaN or infinite by round {done} of {_ROUNDS.value}")
        session.append_metrics(run, parts[-1], done - chunk)
        words = describe_fit(outcome(parts[-1]))
        left = (time.perf_counter() - began) / done * (_ROUNDS.value - done)
        session.show(f"round {done}/{_ROUNDS.value}, {left:.0f} s left: {words}", last=done == _ROUNDS.value)
    metrics = {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}
    return dataclasses.replace(state, ensemble=ensemble), metrics


def outcome(metrics: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns how good the fit is: means over the last rounds, each of which looks at a few pairs, and the last l2."""
    last = {name: values[0, -_LAST_ROUNDS:] for name, values in metrics.items()}
    means = {name: float(np.nanmean(values)) if np.isfinite(values).any() else np.nan for name, values in last.items()}
    return means | {"l2": float(metrics["l2"][0, -1])}


def describe_fit(found: dict[str, float]) -> str:
    """Returns how good the fit is, in words."""
    return (
        f"training loss {found['train_loss']:.3f}, validation loss {found['validation_loss']:.3f}, "
        f"accuracy {found['accuracy']:.3f}, l2 {found['l2']:.1e}"
    )


def describe(summary: dict[str, Any]) -> str:
    """Returns what was found, in words."""
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in summary["wall_seconds"].items())
    found = {name: np.nan if value is None else value for name, value in summary["fit"].items()}
    return f"{summary['labels']} labels, {summary['rounds']} rounds: {describe_fit(found)}\nwall seconds: {seconds}"


def main(*paths: str) -> None:
    """Reads the labels, fits, and reports."""
    clock = session.Clock(_STARTED)
    session.say(f"reading the labels of {', '.join(paths)}")
    with command_line.refusing():
        if run_flags.RESUME.value:
            raise ValueError("--resume has no say here: a fit is saved when it is done; start again in another folder")
        labels = together(paths)
    run = run_flags.open_run("fit", lambda: conditions(labels), run_flags.check, seeds=1, settled=())
    (config,) = run.conditions.values()
    env, told = rlhf_jax.make(config.env), np.flatnonzero(~np.isnan(labels.label))
    clock.phases["import"] = time.perf_counter() - _STARTED
    with clock.phase("fit", f"fitting {config.reward.members} reward networks to {len(told)} labels"):
        with closing(LabelStore.create(run.path / run_folder.LABELS, labels_file.source_for(labels))) as store:
            numbers, _ = labels_file.merge(store, labels)
            store.learn([numbers[row + 1] for row in told.tolist()], 0)
        start = jax.jit(partial(begin, env=env, config=config))
        asked = pairs.to_queries(labels.records[told], len(told))
        state = start(parallel.agent_keys(run.seeds)[0], asked, labels.label[told])
        state, metrics = fit(run, state, env=env, config=config)
        states = jax.tree.map(lambda x: x[None], state)
        checkpoint.save(run.checkpoints, 0, {"states": states, "metrics": {}})
    summary = results.outline(run, clock) | {"labels": len(told), "rounds": _ROUNDS.value, "fit": outcome(metrics)}
    results.report(run, summary, [run.path / run_folder.LABELS], describe)


if __name__ == "__main__":
    command_line.run("fit", main, "RUN_OR_FILE ...")
