"""Trains every condition of an experiment over every seed, as one compiled program, and writes the run's folder."""

import dataclasses
import json
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.command_line import BadInput, Stopped
from rlhf_jax import checkpoint, diagnostics, parallel, ppo, rollout, run_folder, training
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.run_folder import RunFolder

# The first key whose 512 starts are as hard as the average: their optimal mean return on Pendulum-v1 is −138.0 by
# dynamic programming, against −137.9 over all starts. Among the first eight keys it ranges from −133.3 to −138.0.
EVALUATION_KEY = 1
EVALUATION_STARTS = 512
CLIPS = 4
_EXPLORING_EPISODES = 32
_SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclasses.dataclass
class Clock:
    """Wall seconds of each phase, and of the process."""

    started: float
    phases: dict[str, float] = dataclasses.field(default_factory=dict)

    @contextmanager
    def phase(self, name: str, what: str) -> Iterator[None]:
        """Says what is being done, and measures it."""
        say(what)
        start = time.perf_counter()
        yield
        self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - start

    def wall_seconds(self) -> dict[str, float]:
        """Returns the seconds of each phase and in total."""
        return {**self.phases, "total": time.perf_counter() - self.started}


@dataclasses.dataclass(frozen=True)
class Result:
    """What a study found, by condition.

    env_steps: [points] environment steps of one agent after each iteration.
    metrics: `[seeds, points]` arrays of each metric of `rlhf_jax.training`.
    evaluation: `[seeds, ...]` arrays: `return` over the fixed starts, `observation` and `action` of the first clips,
      `accuracy` and `correlation` of the learnt reward.
    """

    env_steps: np.ndarray
    metrics: dict[str, dict[str, np.ndarray]]
    evaluation: dict[str, dict[str, np.ndarray]]


def say(message: str) -> None:
    """Prints a line at once."""
    print(message, file=sys.stderr, flush=True)


def cpu_seconds() -> float:
    """Returns user and system seconds of this process since it started, over all cores."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run_study(run: RunFolder, env: Environment, clock: Clock) -> Result:
    """Trains, evaluates, and writes the arrays of every condition; goes on from the newest checkpoint if there is one.

    Raises:
      BadInput: the checkpoint is damaged or of another program; said before anything compiles.
      Stopped: interrupted, or a loss or reward became NaN or infinite.
    """
    configs = [config for config in run.conditions.values() for _ in run.seeds]
    keys = parallel.agent_keys(run.seeds * len(run.conditions))
    lanes = parallel.lanes(configs)
    states, metrics = _train(run, env, keys, lanes, clock)
    with clock.phase("evaluate", f"evaluating {run.num_agents} agents on the same {EVALUATION_STARTS} starts"):
        one = lambda state, config: evaluate(state, env=env, config=config)  # noqa: E731
        evaluation = jax.device_get(parallel.over_agents(one, run.num_agents)(states, lanes))
    config = configs[0]
    steps = config.num_envs * config.rollout_length * np.arange(1, config.iterations + 1)
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
    clips = {"observation": steps.observation[:, :CLIPS], "action": steps.action[:, :CLIPS]}
    return {"return": returns[:EVALUATION_STARTS].mean(), **clips, **judged}


def _train(
    run: RunFolder, env: Environment, keys: jax.Array, lanes: Config, clock: Clock
) -> tuple[training.TrainState, dict[str, np.ndarray]]:
    total = next(iter(run.conditions.values())).iterations
    # The largest chunk that divides the run into at least twelve: one program, and progress is seen and can be saved.
    chunk = max(n for n in range(1, max(1, total // 12) + 1) if total % n == 0)
    init = parallel.over_agents(lambda key, config: training.init(key, env=env, config=config), run.num_agents)
    step = parallel.over_agents(
        lambda state, config: training.advance(state, chunk, env=env, config=config), run.num_agents
    )
    done, states, metrics = _restore(run)
    with clock.phase("compile", f"compiling one program for {run.num_agents} agents on {run_folder.device()}"):
        start = init.lower(keys, lanes).compile()
        advance = step.lower(run_folder.abstract_states(run), lanes).compile()
    if states is None:
        states = start(keys, lanes)
    agents = f"{len(run.conditions)} conditions × {len(run.seeds)} seeds"
    with clock.phase("train", f"training {total} iterations of {agents}"):
        return _loop(run, advance, states, lanes, metrics, range(done, total, chunk))


def _restore(run: RunFolder) -> tuple[int, training.TrainState | None, dict[str, np.ndarray]]:
    """Returns the iterations done, the states and the metrics of the newest checkpoint; nothing if there is none."""
    done = checkpoint.latest(run.checkpoints)
    if done is None:
        return 0, None, {}
    like = {"states": run_folder.abstract_states(run), "metrics": run_folder.abstract_metrics(run, done)}
    try:
        tree = checkpoint.restore(run.checkpoints, done, like)
    except ValueError as error:
        raise BadInput(str(error)) from error
    say(f"going on from iteration {done} of {next(iter(run.conditions.values())).iterations}")
    return done, parallel.place(tree["states"], run.num_agents), jax.device_get(tree["metrics"])


def _loop(
    run: RunFolder, advance: Callable, states: Any, lanes: Config, metrics: dict[str, np.ndarray], starts: range
) -> tuple[training.TrainState, dict[str, np.ndarray]]:
    """Advances all agents chunk by chunk; between chunks it reports, saves, and looks for trouble."""
    progress = Progress(run, starts)
    saved = time.perf_counter()
    (run.path / "metrics.jsonl").write_text("")
    _append_metrics(run, metrics, 0)
    with _interruptible() as interrupted:
        for done in starts:
            before = states, metrics
            states, chunk = advance(states, lanes)
            chunk = jax.device_get(chunk)
            bad = np.argwhere(~chunk["finite"])
            if bad.size:
                _save(run, done, *before)
                agent, iteration = bad[np.argmin(bad[:, 1])]
                good = f"the last good checkpoint is iteration {done} in {run.checkpoints}"
                raise Stopped(
                    f"{run.agent_name(agent)}: a loss, reward or parameter became NaN or infinite in iteration "
                    f"{done + iteration + 1}; {good if done else 'there is no checkpoint yet'}"
                )
            metrics = {k: np.concatenate([metrics[k], v], 1) if metrics else v for k, v in chunk.items()}
            _append_metrics(run, chunk, done)
            done += starts.step
            progress.show(done, chunk)
            if interrupted() and done < starts.stop:
                _save(run, done, states, metrics)
                raise Stopped(f"stopped at iteration {done}, which is saved; go on with --out {run.path} --resume")
            if time.perf_counter() - saved > _SECONDS_BETWEEN_CHECKPOINTS:
                _save(run, done, states, metrics)
                saved = time.perf_counter()
    if len(starts):
        _save(run, starts.stop, states, metrics)
    return states, metrics


def _save(run: RunFolder, iteration: int, states: Any, metrics: dict[str, np.ndarray]) -> None:
    if iteration and checkpoint.latest(run.checkpoints) != iteration:
        checkpoint.save(run.checkpoints, iteration, {"states": states, "metrics": metrics})


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag, because an exception inside a compiled call would lose what it computes."""
    seen: list[int] = []

    def handle(number: int, frame: Any) -> None:
        del frame
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        say("\nstopping after this chunk; press Ctrl-C again to stop at once and lose it")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


class Progress:
    """A line on standard error: iteration, labels, return of each condition, time left."""

    def __init__(self, run: RunFolder, starts: range) -> None:
        self._run, self._starts, self._began = run, starts, time.perf_counter()

    def show(self, done: int, chunk: dict[str, np.ndarray]) -> None:
        """Shows the end of a chunk; on a terminal it replaces the line before."""
        per_iteration = (time.perf_counter() - self._began) / (done - self._starts.start)
        left = per_iteration * (self._starts.stop - done)
        width = 20 * done // self._starts.stop
        returns = self._run.by_condition({key: chunk[key][:, -1] for key in ("return", "labels")})
        parts = []
        for name, values in returns.items():
            known = values["return"][np.isfinite(values["return"])]
            parts.append(f"{name} {f'{known.mean():.0f}' if known.size else '–'} ({values['labels'].max()})")
        line = (
            f"[{'█' * width}{'·' * (20 - width)}] iteration {done}/{self._starts.stop}, {left:.0f} s left; "
            f"return (labels): {', '.join(parts)}"
        )
        tty = sys.stderr.isatty()
        last = done == self._starts.stop
        print(f"\r{line}\033[K" if tty else line, end="" if tty and not last else "\n", file=sys.stderr, flush=True)


def _append_metrics(run: RunFolder, metrics: dict[str, np.ndarray], first: int) -> None:
    columns = next(iter(metrics.values())).shape[1] if metrics else 0
    conditions = run.by_condition(metrics)
    with (run.path / "metrics.jsonl").open("a") as file:
        for column in range(columns):
            for name, values in conditions.items():
                row = {"iteration": first + column + 1, "condition": name}
                row |= {key: run_folder.plain(value[:, column]) for key, value in values.items()}
                file.write(json.dumps(row) + "\n")


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
