"""What a run found: its agents evaluated on fixed starts, as arrays, summary, table and clips."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import figures, session
from rlhf_jax import diagnostics, parallel, ppo, rollout, run_folder, training
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment, rendering
from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.label_store import LabelStore
from rlhf_jax.run_folder import RunFolder

# The first key whose 512 starts are as hard as the average: their optimal mean return on Pendulum-v1 is −138.0 by
# dynamic programming, against −137.9 over all starts. Among the first eight keys it ranges from −133.3 to −138.0.
EVALUATION_KEY = 1
EVALUATION_STARTS = 512
CLIPS = 4
_EXPLORING_EPISODES = 32


@dataclasses.dataclass(frozen=True)
class Result:
    """What a study found, by condition.

    env_steps: [points] environment steps of one agent after each iteration.
    metrics: `[seeds, points]` arrays of each metric of `rlhf_jax.training`.
    evaluation: `[seeds, ...]` arrays: `return` over the fixed starts; `observation`, `action` and `state` of the first
      episodes; `accuracy` and `correlation` of the learnt reward.
    """

    env_steps: np.ndarray
    metrics: dict[str, dict[str, np.ndarray]]
    evaluation: dict[str, dict[str, np.ndarray]]


def conclude(
    run: RunFolder,
    states: training.TrainState,
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
    with clock.phase("evaluate", f"evaluating {run.num_agents} agents on the same {EVALUATION_STARTS} starts"):
        one = lambda state, config: evaluate(state, env=env, config=config)  # noqa: E731
        evaluation = jax.device_get(parallel.over_agents(one, run.num_agents)(states, lanes))
    config = next(iter(run.conditions.values()))
    points = len(next(iter(metrics.values()))[0])
    steps = config.num_envs * config.rollout_length * np.arange(1, points + 1)
    result = Result(steps, run.by_condition(metrics), run.by_condition(evaluation))
    _write_arrays(run, result)
    return result


def evaluate(state: training.TrainState, *, env: Environment, config: Config) -> dict[str, jax.Array]:
    """Plays the deterministic policy from the fixed starts, and judges the learnt reward on episodes that explore.

    Both are one rollout, because two would take twice as long to compile. The best episodes look too much alike to
    judge a reward on.
    """
    num_episodes = EVALUATION_STARTS + _EXPLORING_EPISODES
    explores = jnp.arange(num_episodes).reshape(-1, *(1 for _ in env.action_shape)) >= EVALUATION_STARTS

    def policy(key: jax.Array, observation: jax.Array) -> tuple[jax.Array, jax.Array]:
        actions = ppo.distribution(state.agent, observation, env=env, config=config.ppo)
        action = jnp.where(explores, actions.sample(key), actions.mode())
        return action, actions.log_prob(action)

    key_starts, key_judge = jax.random.key(EVALUATION_KEY), jax.random.key(EVALUATION_KEY + 1)
    returns, steps = rollout.evaluate(key_starts, policy, env=env, num_episodes=num_episodes)
    exploring = jax.tree.map(lambda x: x[:, EVALUATION_STARTS:], steps)
    judged = diagnostics.judge_reward(key_judge, state.ensemble, exploring, env=env, config=config)
    clips = jax.tree.map(
        lambda x: x[:, :CLIPS], {"observation": steps.observation, "action": steps.action, "state": steps.state}
    )
    return {"return": returns[:EVALUATION_STARTS].mean(), **clips, **judged}


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
    evaluation = result.evaluation[name]
    returns = evaluation["return"]
    judged = not config.use_true_reward
    return {
        "labels": int(result.metrics[name]["labels"][:, -1].max()),
        "eval_return": returns,
        "mean": returns.mean(),
        "iqm": figures.interquartile_mean(returns),
        "ci95": list(figures.bootstrap_interval(returns)),
        "reward_accuracy": evaluation["accuracy"].mean() if judged else None,
        "reward_correlation": evaluation["correlation"].mean() if judged else None,
    }


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
    describe: Callable[[dict[str, Any]], str] | None = None,
) -> None:
    """Writes `summary.json`, and prints it as text, by default as a table, and where everything is."""
    summary = run_folder.plain(summary)
    run_folder.write_json(run.path / "summary.json", summary)
    print((describe or table)(summary))
    for file in [*files, run.path / "summary.json", run.path]:
        print(file)


def table(summary: dict[str, Any]) -> str:
    """Returns the result as text."""
    shown = ("normalised", "reward_accuracy", "reward_correlation")
    extra = [key for key in shown if any(key in row for row in summary["conditions"].values())]
    titles = "".join(f"{key.removeprefix('reward_'):>13}" for key in extra)
    lines = [f"{'condition':<13}{'labels':>8}{'mean':>9}{'IQM':>9}   {'95 % interval':<18}{'worst':>8}{titles}"]
    for name, row in summary["conditions"].items():
        interval = f"[{row['ci95'][0]:.1f}, {row['ci95'][1]:.1f}]"
        judged = "".join(f"{row[key]:>13.3f}" if row[key] is not None else f"{'–':>13}" for key in extra)
        lines.append(
            f"{name:<13}{row['labels']:>8}{row['mean']:>9.1f}{row['iqm']:>9.1f}   {interval:<18}"
            f"{min(row['eval_return']):>8.1f}{judged}"
        )
    seconds = ", ".join(f"{name} {value:.1f}" for name, value in summary["wall_seconds"].items())
    lines.append(f"wall seconds: {seconds}; processor seconds: {summary['cpu_seconds']:.1f}")
    return "\n".join(lines)


def draw(run: RunFolder, result: Result, title: str) -> list[Path]:
    """Draws how every condition went, and its first agent if the environment can be drawn; returns the files.

    Args:
      run: the run.
      result: what it found.
      title: of the figures, in words.
    """
    words = {
        "return": ("returns", "true return of an episode"),
        "predicted_return": ("predicted_returns", "predicted return of an episode"),
        "labels": ("labels", "labels"),
    }
    learnt = {name: config for name, config in run.conditions.items() if not config.use_true_reward}
    asking = [name for name, config in learnt.items() if not config.reward.frozen]
    files = []
    for key, (file, ylabel) in words.items():
        names = {"return": run.conditions, "predicted_return": learnt, "labels": asking}[key]
        if names:
            files.append(run.path / f"{file}.png")
            curves = {name: result.metrics[name][key].astype(float) for name in names}
            axes = {"xlabel": "environment steps", "ylabel": ylabel}
            figures.learning_curves(files[-1], result.env_steps, curves, optimum=None, title=title, **axes)
    drawable = [name for name, config in run.conditions.items() if config.env in rendering.RENDERERS]
    return [*files, *(animate(run, result, name) for name in drawable)]


def animate(run: RunFolder, result: Result, name: str) -> Path:
    """Draws the first agent of a condition in a few episodes side by side; returns the GIF."""
    env, evaluation = run.conditions[name].env, result.evaluation[name]
    first = jax.tree.map(lambda x: x[0], {key: evaluation[key] for key in ("observation", "action", "state")})
    episodes = [jax.tree.map(lambda x, i=i: x[:, i], first) for i in range(CLIPS)]
    frames = np.stack([rendering.frames(env, rendering.Moment(**episode))[::2] for episode in episodes])
    file = run.path / f"{name}.gif"
    figures.animation(file, figures.tile(frames, columns=CLIPS), fps=20)
    return file


def _write_arrays(run: RunFolder, result: Result) -> None:
    files = {"return": "returns", "predicted_return": "predicted_returns", "labels": "labels"}
    reward = ("train_loss", "validation_loss", "accuracy", "correlation", "l2")
    for name, metrics in result.metrics.items():
        folder = run.path / name
        folder.mkdir(exist_ok=True)
        np.save(folder / "env_steps.npy", result.env_steps)
        np.save(folder / "eval_returns.npy", result.evaluation[name]["return"])
        for key, file in files.items():
            np.save(folder / f"{file}.npy", metrics[key])
        for key in reward:
            np.save(folder / f"reward_{key}.npy", metrics[key])
