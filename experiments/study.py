"""Trains every condition of an experiment over every seed, in as few compiled programs as their shapes allow."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import rlhf_jax
from experiments import command_line, results, session
from experiments.command_line import Stopped
from rlhf_jax import parallel, run_folder, train_state, training
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.run_folder import RunFolder

_STOPPING = "stopping after this chunk; press Ctrl-C again to stop at once and lose it"


def conduct(
    run: RunFolder,
    clock: session.Clock,
    draw: Callable[[RunFolder, results.Result], list[Path]],
    summarise: Callable[[RunFolder, results.Result, session.Clock], dict[str, Any]] = results.summarise,
    describe: Callable[[dict[str, Any]], str] = results.table,
) -> None:
    """Trains, evaluates, draws and reports.

    Args:
      run: the run.
      clock: measures it, since the process started.
      draw: returns the files that it has drawn.
      summarise: returns what is written to `summary.json`.
      describe: makes of that what is printed.
    """
    clock.phases["import"] = time.perf_counter() - clock.started
    result = run_study(run, rlhf_jax.make(run.config.env), clock)
    with clock.phase("evaluate", "drawing"):
        files = draw(run, result)
    results.report(run, summarise(run, result, clock), files, describe)


def run_study(run: RunFolder, env: Environment, clock: session.Clock) -> results.Result:
    """Trains, evaluates, and writes the arrays of every condition; goes on from the newest checkpoint if there is one.

    Args:
      run: the run.
      env: its environment.
      clock: measures it.

    Raises:
      BadInput: the checkpoint is damaged or of another program; said before anything compiles.
      Stopped: interrupted, or a loss, reward or answer became NaN or infinite.
    """
    with contextlib.ExitStack() as stack:
        with command_line.refusing():
            stack.enter_context(run_folder.claim(run))
        programs = run.programs()
        starts = [session.restore(program) for program in programs]
        (run.path / "metrics.jsonl").write_text("")
        for program, start in zip(programs, starts, strict=True):
            session.append_metrics(program, start.metrics, 0)
        try:
            found = []
            for i, (program, start) in enumerate(zip(programs, starts, strict=True)):
                if len(programs) > 1:
                    session.say(f"program {i + 1} of {len(programs)}: {', '.join(program.conditions)}")
                found.append(_run_program(program, start, env, clock))
        except KeyboardInterrupt:
            raise Stopped(f"interrupted; go on with --out {run.path} --resume") from None
    result = results.together(found, list(run.conditions))
    results.write_table(run, result)
    return result


def _run_program(run: RunFolder, start: session.Start, env: Environment, clock: session.Clock) -> results.Result:
    """Trains and evaluates conditions that are lanes of one program."""
    lanes = parallel.lanes([config for config in run.conditions.values() for _ in run.seeds])
    states, metrics = _train(run, start, env, lanes, clock)
    return results.conclude(run, states, metrics, lanes, env, clock)


def _train(
    run: RunFolder, start: session.Start, env: Environment, lanes: Config, clock: session.Clock
) -> tuple[train_state.TrainState, dict[str, np.ndarray]]:
    total = run.config.iterations
    chunk = session.chunk(total, env)
    if start.done == total:
        return start.take(), start.metrics
    step = parallel.over_agents(
        lambda state, config: training.advance(state, chunk, env=env, config=config), run.num_agents, env.emulated
    )
    with clock.phase("compile", f"compiling one program for {session.how_many(run)} on {run_folder.device()}"):
        begin = _beginning(run, start, env, lanes)
        advance = step.lower(run_folder.abstract_states(run), lanes).compile()
    with clock.phase("train", f"training {total} iterations of {session.how_many(run)}: {', '.join(run.conditions)}"):
        return _loop(run, advance, begin, lanes, start.metrics, range(start.done, total, chunk))


def _beginning(
    run: RunFolder, start: session.Start, env: Environment, lanes: Config
) -> Callable[[], train_state.TrainState]:
    """Returns what makes new agents or hands over those of the checkpoint, once, and keeps no reference to them."""
    over_agents = partial(parallel.over_agents, num_agents=run.num_agents, abreast=env.emulated)
    if start.states is None:
        keys = parallel.agent_keys(run.seeds * len(run.conditions))
        init = over_agents(lambda key, config: train_state.init(key, env=env, config=config))
        return partial(init.lower(keys, lanes).compile(), keys, lanes)
    if not env.emulated:
        return start.take
    if start.done:
        session.say(session.GAMES_BEGIN_ANEW)
    restart = over_agents(lambda state, config: train_state.restart(state, env=env, config=config))
    return lambda: restart(start.take(), lanes)


def _loop(
    run: RunFolder,
    advance: Callable,
    begin: Callable[[], train_state.TrainState],
    lanes: Config,
    metrics: dict[str, np.ndarray],
    starts: range,
) -> tuple[train_state.TrainState, dict[str, np.ndarray]]:
    """Advances all agents chunk by chunk; between chunks it reports, saves, and looks for trouble.

    Nobody else holds the states that `begin` returns, so that of images no more than those before and after a chunk are
    in memory.
    """
    states = begin()
    progress, now_and_then = Progress(run, starts), session.Saver(partial(session.save, run))
    with session.interruptible(_STOPPING) as interrupted:
        for done in starts:
            advanced, chunk = advance(states, lanes)
            chunk = jax.device_get(chunk)
            bad = np.argwhere(~chunk["finite"])
            if bad.size:
                session.save(run, done, states, metrics)
                agent, iteration = bad[np.argmin(bad[:, 1])]
                good = f"the last good checkpoint is iteration {done} in {run.checkpoints}"
                raise Stopped(
                    f"{run.agent_name(agent)}: a loss, reward, parameter or answer of the teacher became NaN or "
                    f"infinite in iteration {done + iteration + 1}; {good if done else 'there is no checkpoint yet'}"
                )
            states = advanced
            metrics = {k: np.concatenate([metrics[k], v], 1) if metrics else v for k, v in chunk.items()}
            session.append_metrics(run, chunk, done)
            done += starts.step
            progress.show(done, chunk)
            if done - starts.step < run.config.labels.warmup <= done or done == starts.stop:
                _say_if_nothing_is_learnt(run, metrics)
            if interrupted() and done < starts.stop:
                session.save(run, done, states, metrics)
                raise Stopped(f"stopped at iteration {done}, which is saved; go on with --out {run.path} --resume")
            now_and_then(done, states, metrics)
    session.say("saving")
    session.save(run, starts.stop, states, metrics)
    return states, metrics


def _say_if_nothing_is_learnt(run: RunFolder, metrics: dict[str, np.ndarray]) -> None:
    """Says of which conditions no answer so far prefers one clip to the other."""
    for name, found in run.by_condition(metrics).items():
        config = run.conditions[name]
        answers, ties, silences = (found[key].sum(1) for key in ("answers", "ties", "silences"))
        asks = not (config.use_true_reward or config.reward.frozen or config.reward.targets)
        if asks and (answers == ties).all() and (answers + silences).any():
            session.say(
                f"{name}: nothing to learn from so far, no answer prefers one clip to the other "
                f"({int(ties.sum())} ties, {int(silences.sum())} queries without an answer)"
            )


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
            mean = known.mean() if known.size else np.nan
            decimals = 1 if abs(mean) < 100 else 0  # 0.4 of Breakout is not 0.
            parts.append(f"{name} {f'{mean:.{decimals}f}' if known.size else '–'} ({values['labels'].max()})")
        line = (
            f"[{'█' * width}{'·' * (20 - width)}] iteration {done}/{self._starts.stop}, {left:.0f} s left; "
            f"return (labels): {', '.join(parts)}"
        )
        session.show(line, last=done == self._starts.stop)
