"""What every run does around its loop: it says what it does, measures it, saves it, and stops in good order."""

import dataclasses
import json
import math
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from experiments.command_line import BadInput
from rlhf_jax import checkpoint, parallel, run_folder, train_state
from rlhf_jax.environments import Environment
from rlhf_jax.run_folder import RunFolder

_SECONDS_BETWEEN_CHECKPOINTS, _SHARE_OF_CHECKPOINTS = 60.0, 0.1  # 1,400 pairs of pictures take 15 s an agent.
_REPORTS, _REPORTS_OF_IMAGES = 12, 48  # A round with images takes seconds.
_LARGE = 2**27  # numbers in the preferences of all agents, which take seconds to read
GAMES_BEGIN_ANEW = "the state of an emulator is in no checkpoint: all games begin anew"


@dataclasses.dataclass
class Start:
    """Where a run stands: iterations done, the states of all agents then, and the metrics until then."""

    done: int = 0
    states: train_state.TrainState | None = None
    metrics: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def take(self) -> train_state.TrainState:
        """Returns the states, where there are some, and keeps them no longer: with images they are gigabytes."""
        states, self.states = self.states, None
        assert states is not None
        return states


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


def how_many(run: RunFolder) -> str:
    """Returns how many agents there are, in words."""
    return f"{run.num_agents} agent{'s' * (run.num_agents > 1)}"


def say(message: str) -> None:
    """Prints a line at once."""
    print(message, file=sys.stderr, flush=True)


def show(line: str, *, last: bool) -> None:
    """Prints a line of progress at once; on a terminal it replaces the one before, until the last one."""
    terminal = sys.stderr.isatty()
    print(
        f"\r{line}\033[K" if terminal else line, end="" if terminal and not last else "\n", file=sys.stderr, flush=True
    )


def cpu_seconds() -> float:
    """Returns user and system seconds of this process since it started, over all cores."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def restore(run: RunFolder) -> Start:
    """Returns what the newest checkpoint holds; nothing if there is none."""
    done = checkpoint.latest(run.checkpoints)
    if done is None:
        return Start()
    states = run_folder.abstract_states(run)
    if math.prod(states.preferences.observation.shape) > _LARGE:
        say("reading the newest checkpoint")
    like = {"states": states, "metrics": run_folder.abstract_metrics(run, done)}
    try:
        tree = checkpoint.restore(run.checkpoints, done, like)
    except ValueError as error:
        raise BadInput(str(error)) from error
    if done:
        say(f"going on from iteration {done} of {run.config.iterations}")
    states = parallel.place(tree["states"], run.num_agents, run.emulated)
    return Start(done, states, jax.device_get(tree["metrics"]))


def chunk(total: int, env: Environment) -> int:
    """Returns how many of `total` rounds a compiled program does at once.

    It is the largest number that divides them into enough reports: one program, and progress is seen and can be saved.
    """
    reports = _REPORTS_OF_IMAGES if len(env.observation_shape) == 3 else _REPORTS
    return max(n for n in range(1, max(1, total // reports) + 1) if total % n == 0)


def save(run: RunFolder, iteration: int, states: Any, metrics: dict[str, np.ndarray]) -> None:
    """Writes a checkpoint, unless it is there already or nothing was done."""
    if iteration and checkpoint.latest(run.checkpoints) != iteration:
        checkpoint.save(run.checkpoints, iteration, {"states": states, "metrics": metrics})


class Saver:
    """Saves a run now and then: at least a minute apart, and for no more than a tenth of the time."""

    def __init__(self, write: Callable[..., None]) -> None:
        """Waits for the first time.

        Args:
          write: writes a checkpoint of what the saver is given.
        """
        self._write, self._saved, self._pause = write, time.perf_counter(), _SECONDS_BETWEEN_CHECKPOINTS

    def __call__(self, *what: Any) -> None:
        """Writes a checkpoint if it is time to."""
        begun = time.perf_counter()
        if begun - self._saved > self._pause:
            self._write(*what)
            self._saved = time.perf_counter()
            took = self._saved - begun
            self._pause = max(_SECONDS_BETWEEN_CHECKPOINTS, took / _SHARE_OF_CHECKPOINTS)


@contextmanager
def interruptible(notice: str) -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag, because an exception inside a compiled call would lose what it computes.

    Args:
      notice: what to say then.
    """
    seen: list[int] = []

    def handle(number: int, frame: Any) -> None:
        del frame
        if seen:
            raise KeyboardInterrupt
        seen.append(number)
        say(f"\n{notice}")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(seen)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def append_metrics(run: RunFolder, metrics: dict[str, np.ndarray], first: int) -> None:
    """Adds the `[A, K]` metrics of the K iterations after the first `first` ones to metrics.jsonl."""
    columns = next(iter(metrics.values())).shape[1] if metrics else 0
    conditions = run.by_condition(metrics)
    with (run.path / "metrics.jsonl").open("a") as file:
        for column in range(columns):
            for name, values in conditions.items():
                row = {"iteration": first + column + 1, "condition": name}
                row |= {key: run_folder.plain(value[:, column]) for key, value in values.items()}
                file.write(json.dumps(row) + "\n")
