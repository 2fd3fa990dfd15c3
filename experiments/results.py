"""What a run found: its agents evaluated, as arrays, summary, table and clips."""

import csv
import dataclasses
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import evaluation, figures, seed_statistics, session, tables
from rlhf_jax import diagnostics, parallel, run_folder, settings, train_state
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment, rendering
from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.label_store import LabelStore
from rlhf_jax.run_folder import RunFolder

ALARM_WINDOW = 5  # iterations
_over_optimisation = jax.jit(jax.vmap(partial(diagnostics.over_optimisation, window=ALARM_WINDOW)))


@dataclasses.dataclass(frozen=True)
class Result:
    """What a study found, by condition.

    env_steps: [points] environment steps of one agent after each iteration.
    metrics: `[seeds, points]` arrays of each metric of `rlhf_jax.training`.
    evaluation: `[seeds, ...]` arrays of what `experiments.evaluation` finds.
    """

    env_steps: np.ndarray
    metrics: dict[str, dict[str, np.ndarray]]
    evaluation: dict[str, dict[str, np.ndarray]]


def conclude(
    run: RunFolder,
    states: train_state.TrainState,
    metrics: dict[str, np.ndarray],
    lanes: Config,
    env: Environment,
    clock: session.Clock,
) -> Result:
    """Evaluates the trained agents and writes the arrays of every condition.

    Args:
      run: the run.
      states: `[A]` agents.
      metrics: `[A, iterations]` of their training.
      lanes: `[A]` settings.
      env: the environment.
      clock: measures it.
    """
    env, starts = evaluation.shortened(env), evaluation.plan(env).starts
    # Without their buffers, agents of different budgets are evaluated by one compiled program.
    buffers = jax.tree.map(lambda x: np.zeros((run.num_agents, 0), x.dtype), states.preferences)
    states = dataclasses.replace(states, preferences=buffers)
    what = f"evaluating {session.how_many(run)} on the same {starts} starts"
    if env.emulated:
        minutes = evaluation.EMULATED_MINUTES
        what = f"evaluating {session.how_many(run)} in {starts} games each, of {minutes} minutes at most"
    judged = not all(config.use_true_reward for config in run.conditions.values())
    with clock.phase("evaluate", what):
        one = lambda state, config: evaluation.evaluate(state, judged, env=env, config=config)  # noqa: E731
        found = jax.device_get(parallel.over_agents(one, run.num_agents, env.emulated)(states, lanes))
    config = run.config
    points = len(next(iter(metrics.values()))[0])
    steps = config.num_envs * config.rollout_length * np.arange(1, points + 1)
    result = Result(steps, run.by_condition(metrics), run.by_condition(found))
    _write_arrays(run, result)
    return result


def together(parts: Sequence[Result], conditions: Sequence[str]) -> Result:
    """Returns the results of several programs as one, with the conditions in this order."""
    metrics = {name: values for part in parts for name, values in part.metrics.items()}
    found = {name: values for part in parts for name, values in part.evaluation.items()}
    return Result(
        parts[0].env_steps,
        {name: metrics[name] for name in conditions},
        {name: found[name] for name in conditions},
    )


def outline(run: RunFolder, clock: session.Clock) -> dict[str, Any]:
    """Returns what every `summary.json` holds."""
    return {
        "experiment": run.experiment,
        "device": run_folder.device(),
        "seeds": run.seeds,
        "wall_seconds": clock.wall_seconds(),
        "cpu_seconds": session.cpu_seconds(),
    }


def summarise(run: RunFolder, result: Result, clock: session.Clock) -> dict[str, Any]:
    """Returns what `summary.json` holds."""
    return outline(run, clock) | {
        "env_steps_per_agent": int(result.env_steps[-1]),
        "conditions": {name: _row(config, result, name) for name, config in run.conditions.items()},
    }


def _row(config: Config, result: Result, name: str) -> dict[str, Any]:
    found = result.evaluation[name]
    returns = found["return"]
    judged = {} if config.use_true_reward else _judged(found)
    return {
        "labels": int(result.metrics[name]["labels"][:, -1].max()),
        "eval_return": returns,
        "mean": returns.mean(),
        "iqm": seed_statistics.interquartile_mean(returns),
        "ci95": list(seed_statistics.bootstrap_interval(returns)),
        "exploring_return": found["exploring_return"],
        **{key: found[key] for key in evaluation.MEASURES.get(config.env, {})},
        "reward_accuracy": judged["on_policy.accuracy"].mean() if judged else None,
        "reward_correlation": judged["on_policy.correlation"].mean() if judged else None,
        "reward": {key: values.mean() for key, values in judged.items()},
        **_course(config, result.metrics[name]),
    }


def _course(config: Config, metrics: dict[str, np.ndarray]) -> dict[str, Any]:
    """Returns what the training of a learnt reward went through.

    `tie_rate` and `silence_rate` are shares of this run's queries; `alarms` is the first iteration, of each seed, in
    which the learnt return had risen and the true one fallen by more than noise, None where that never was.
    """
    if config.use_true_reward:
        return dict.fromkeys(("tie_rate", "silence_rate", "alarms"))
    ties, silences = float(metrics["ties"].sum()), float(metrics["silences"].sum())
    asked = max(float(metrics["answers"].sum()) + silences, 1.0)
    fired = alarms(metrics["predicted_return"], metrics["return"])
    first = [int(seed.argmax()) + 1 if seed.any() else None for seed in fired]
    return {"tie_rate": ties / asked, "silence_rate": silences / asked, "alarms": first}


def alarms(proxy: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Returns whether the learnt reward is being exploited, `[seeds, points]`.

    Args:
      proxy: `[seeds, points]` predicted returns.
      truth: `[seeds, points]` true returns; NaN while no episode ended, where the last one that did counts.
    """
    curves = (jax.numpy.asarray(curve, jax.numpy.float32) for curve in (proxy, seed_statistics.held(truth)))
    return np.asarray(_over_optimisation(*curves))


def _judged(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns `[seeds]` of each metric of the learnt reward."""
    return {key: values for key, values in found.items() if key.split(".")[0] in evaluation.JUDGED}


def answers(run: RunFolder) -> dict[str, Any]:
    """Returns what was said about the pairs of a run, for `summary.json`."""
    with closing(LabelStore(run.path / run_folder.LABELS)) as store:
        rows, in_force = store.answers(), store.in_force().values()
        shown, agreed = Desk(store).agreement()
    seconds = [row.answered - row.shown for row in rows if row.answered > row.shown]
    return {
        "answers": dict(Counter(row.answer for row in in_force)),
        "undone": sum(row.answer == "undo" for row in rows),
        "skipped": sum(row.answer == "skip" for row in rows),
        "repeats": {"shown": shown, "agreed": agreed},
        "labellers": dict(Counter(row.labeller for row in in_force)),
        "median_seconds_per_answer": statistics.median(seconds) if seconds else None,
    }


def report(
    run: RunFolder,
    summary: dict[str, Any],
    files: Sequence[Path],
    describe: Callable[[dict[str, Any]], str],
) -> None:
    """Writes `summary.json`, and prints it as text, and where everything is."""
    summary = run_folder.plain(summary)
    run_folder.write_json(run.path / "summary.json", summary)
    print(describe(summary))
    for file in [*files, run.path / "summary.json", run.path]:
        print(file)


def table(summary: dict[str, Any]) -> str:
    """Returns the result as text."""
    measured = [key for measures in evaluation.MEASURES.values() for key in measures]
    shown = ("exploring_return", "normalised", *measured, "reward_accuracy", "reward_correlation")
    extra = [key for key in shown if any(key in row for row in summary["conditions"].values())]
    titles = ["condition", "labels", "mean", "IQM", "95 % interval", "worst"]
    rows = [titles + [key.removeprefix("reward_").replace("_", " ") for key in extra]]
    for name, row in summary["conditions"].items():
        mean, iqm, worst = (f"{value:.1f}" for value in (row["mean"], row["iqm"], min(row["eval_return"])))
        judged = ["–" if row[key] is None else f"{np.mean(row[key]):.3f}" for key in extra]
        rows.append([name, str(row["labels"]), mean, iqm, tables.interval(row), worst, *judged])
    return "\n".join([*tables.columns(rows), seconds(summary)])


def seconds(summary: dict[str, Any]) -> str:
    """Returns how long a run took, as text."""
    phases = ", ".join(f"{name} {value:.1f}" for name, value in summary["wall_seconds"].items())
    return f"wall seconds: {phases}; processor seconds: {summary['cpu_seconds']:.1f}"


def draw(run: RunFolder, result: Result, title: str) -> list[Path]:
    """Draws how every condition went, and its first agent if the environment can be drawn; returns the files.

    Args:
      run: the run.
      result: what it found.
      title: of the figures, in words.
    """
    words = {
        "return": ("returns", "true return of an episode"),
        "predicted_return": ("predicted_returns", "mean predicted reward × time limit"),
        "labels": ("labels", "labels"),
    }
    learnt = {name: config for name, config in run.conditions.items() if not config.use_true_reward}
    asking = [name for name, config in learnt.items() if not config.reward.frozen]
    files = []
    for key, (file, ylabel) in words.items():
        names = {"return": run.conditions, "predicted_return": learnt, "labels": asking}[key]
        if names:
            files.append(run.path / f"{file}.png")
            curves = {
                name: result.metrics[name][key].astype(float) if name in names else None for name in run.conditions
            }
            axes = {"xlabel": "environment steps", "ylabel": ylabel}
            figures.learning_curves(files[-1], result.env_steps, curves, optimum=None, title=title, **axes)
    drawable = [name for name, config in run.conditions.items() if rendering.can_draw(config.env)]
    return [*files, *(animate(run, result, name) for name in drawable)]


def animate(run: RunFolder, result: Result, name: str) -> Path:
    """Draws the first agent of a condition in a few episodes side by side; returns the GIF."""
    env, found = run.conditions[name].env, result.evaluation[name]
    first = jax.tree.map(lambda x: x[0], {key: found[key] for key in ("observation", "action", "state")})
    episodes = [jax.tree.map(lambda x, i=i: x[:, i], first) for i in range(evaluation.CLIPS)]
    frames = np.stack([rendering.frames(env, rendering.Moment(**episode))[::2] for episode in episodes])
    file = run.path / f"{name.replace('/', ' ')}.gif"
    figures.animation(file, figures.tile(frames, columns=evaluation.CLIPS), fps=20)
    return file


def _write_arrays(run: RunFolder, result: Result) -> None:
    files = {"return": "returns", "predicted_return": "predicted_returns", "labels": "labels"}
    reward = ("train_loss", "validation_loss", "accuracy", "correlation", "l2")
    for name, metrics in result.metrics.items():
        folder, found = run.path / name, result.evaluation[name]
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "env_steps.npy", result.env_steps)
        np.save(folder / "eval_returns.npy", found["return"])
        if not run.conditions[name].use_true_reward:
            judged: dict[str, Any] = dict(_judged(found))
            np.savez(folder / "judgement.npz", **judged)
            for key in ("reliability", "reward_map"):
                if key in found:
                    np.save(folder / f"{key}.npy", found[key])
        for key, file in files.items():
            np.save(folder / f"{file}.npy", metrics[key])
        for key in reward:
            np.save(folder / f"reward_{key}.npy", metrics[key])


def write_table(run: RunFolder, result: Result) -> Path:
    """Writes `table.csv`, one line per agent: its condition, seed, the settings that conditions differ in, and results.

    The metrics of the learnt reward are left empty for agents on the true one.
    """
    flat = {name: settings.to_dict(config, flat=True) for name, config in run.conditions.items()}
    first = next(iter(flat.values()))
    differing = [path for path in first if any(values[path] != first[path] for values in flat.values())]
    judged = list(dict.fromkeys(key for found in result.evaluation.values() for key in _judged(found)))
    file = run.path / "table.csv"
    with file.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["condition", "seed", *differing, "labels", "eval_return", "exploring_return", *judged])
        for name, config in run.conditions.items():
            found, labels = result.evaluation[name], result.metrics[name]["labels"][:, -1]
            for row, seed in enumerate(run.seeds):
                metrics = ["" if config.use_true_reward else float(found[key][row]) for key in judged]
                values = [flat[name][path] for path in differing]
                returns = [float(found[key][row]) for key in ("return", "exploring_return")]
                writer.writerow([name, seed, *values, int(labels[row]), *returns, *metrics])
    return file
