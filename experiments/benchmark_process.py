"""Whole programs, timed from outside: the figure with a cold and a warm compilation cache, and the peer beside it."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from experiments.session import say
from experiments.timing import spread

CONDITIONS = 4  # Of experiments.pendulum: the true reward, and 350, 700 and 1400 labels.
LABELS = 700  # Of the condition that is looked at, and of the peer.
MAX_LABELS = 1400
_PHASES = ("wall", "processor", "compile")
_ROOT = Path(__file__).resolve().parents[1]


class ChildFailed(Exception):
    """A program that was to be timed ended with an error; what it printed says why."""


@dataclasses.dataclass(frozen=True)
class Child:
    """What a finished program cost.

    wall: seconds.
    processor: user and system seconds, over all its threads and children.
    peak_mib: largest resident memory.
    stdout: what it printed.
    """

    wall: float
    processor: float
    peak_mib: float
    stdout: str


def run_child(command: Sequence[str], environment: dict[str, str]) -> Child:
    """Runs a program to its end; its standard error is shown as it comes.

    Linux lets a new program inherit the peak memory of the one that starts it: call this while this process is smaller
    than the program will be.

    Raises:
      ChildFailed: it ended with an error.
    """
    with tempfile.TemporaryFile("w+") as stdout:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=stdout, stdin=subprocess.DEVNULL, cwd=_ROOT, env=environment)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise ChildFailed(f"{' '.join(command)} ended with status {process.returncode}")
        stdout.seek(0)
        unit = 2**20 if sys.platform == "darwin" else 2**10  # macOS counts ru_maxrss in bytes, Linux in KiB.
        return Child(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit, stdout.read())


@dataclasses.dataclass(frozen=True)
class Figure:
    """How to run `experiments.pendulum`.

    seeds: agents of each condition.
    assignments: settings, as `--set` takes them.
    environment: variables of the process, beside the compilation cache.
    """

    seeds: int
    assignments: Sequence[str]
    environment: dict[str, str]

    @property
    def agents(self) -> int:
        """How many agents share what it costs."""
        return CONDITIONS * self.seeds


@dataclasses.dataclass(frozen=True)
class Peer:
    """How to run the peer.

    python: of its virtual environment.
    runs: how often, each with another seed.
    flags: further flags of `benchmark_peer.py`.
    """

    python: str
    runs: int
    flags: Sequence[str]


def find_peer(python: str | None, runs: int, peer_flags: Sequence[str]) -> Peer | None:
    """Returns the peer of this Python, or none if no Python is given.

    Raises:
      ValueError: it cannot be started, or lacks the peer's library.
    """
    if python is None:
        return None
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('imitation') is None)"
    path = os.path.abspath(python)  # Not resolved: a virtual environment is known by the link that starts it.
    try:
        missing = subprocess.run([path, "-c", code], capture_output=True).returncode
    except OSError as error:
        raise ValueError(f"--peer-python {python} cannot be run: {error.strerror}") from None
    if missing:
        raise ValueError(f"--peer-python {python} has no imitation; give the Python of an environment that has it")
    return Peer(path, runs, peer_flags)


def run_figure(figure: Figure, cache: Path) -> dict[str, Any]:
    """Runs `experiments.pendulum` in a process of its own and returns what it cost.

    Args:
      figure: how.
      cache: folder of compiled programs; new and empty for a cold start.

    Raises:
      ChildFailed: it ended with an error.
    """
    with tempfile.TemporaryDirectory(prefix="rlhf_jax_run_") as folder:
        command = [sys.executable, "-m", "experiments.pendulum", "--seeds", str(figure.seeds), "--out", folder]
        for assignment in figure.assignments:
            command += ["--set", assignment]
        child = run_child(command, figure.environment | {"JAX_COMPILATION_CACHE_DIR": str(cache)})
        summary = json.loads((Path(folder) / "summary.json").read_text())
    return {
        "wall_seconds": child.wall,
        "processor_seconds": child.processor,
        "wall_seconds_per_agent": child.wall / figure.agents,
        "processor_seconds_per_agent": child.processor / figure.agents,
        "compile_seconds": summary["wall_seconds"]["compile"],
        "phases": summary["wall_seconds"],
        "cores_busy": child.processor / child.wall,
        "peak_mib": child.peak_mib,
        "env_steps_per_agent": summary["env_steps_per_agent"],
        "returns": {name: row["mean"] for name, row in summary["conditions"].items()},
    }


def cold_and_warm(figure: Figure) -> dict[str, Any]:
    """Runs the figure twice with one new cache: the first run compiles everything, the second finds it compiled."""
    with tempfile.TemporaryDirectory(prefix="rlhf_jax_cache_") as cache:
        say(f"figure, cold: {CONDITIONS} conditions × {figure.seeds} seeds, a new compilation cache")
        cold = run_figure(figure, Path(cache))
        say("figure, warm: the same again with the cache that it left")
        warm = run_figure(figure, Path(cache))
    ratios = {f"{key}_cold_over_warm": cold[f"{key}_seconds"] / warm[f"{key}_seconds"] for key in _PHASES}
    return {"agents": figure.agents, "cold": cold, "warm": warm, **ratios}


def _pairs(peer: Peer, figure: Figure) -> Iterator[dict[str, Any]]:
    """Yields runs of ours and of the peer, in turn."""
    for i in range(peer.runs):
        with tempfile.TemporaryDirectory(prefix="rlhf_jax_cache_") as cache:
            say(f"against the peer, {i + 1} of {peer.runs}: ours, cold")
            ours = run_figure(figure, Path(cache))
        say(f"against the peer, {i + 1} of {peer.runs}: the peer, seed {i}")
        script = str(_ROOT / "experiments" / "benchmark_peer.py")
        child = run_child([peer.python, script, "--seed", str(i), *peer.flags], figure.environment)
        theirs = json.loads(child.stdout.splitlines()[-1])
        yield {
            "ours": ours,
            "peer": theirs | {"peak_mib": child.peak_mib},
            "processor_ratio": theirs["cpu_seconds"] / ours["processor_seconds_per_agent"],
        }


def against_peer(peer: Peer, figure: Figure) -> dict[str, Any]:
    """Runs the figure, cold, and one agent of the peer in turn, and compares what an agent costs.

    Ours is the whole process, start, compiling, evaluation and drawing included, shared by its agents; the peer's ends
    with its training. So the ratio errs in the peer's favour.

    Raises:
      ChildFailed: one of them ended with an error.
    """
    runs = list(_pairs(peer, figure))
    return {
        "runs": runs,
        "agents": figure.agents,
        "ours_processor_seconds_per_agent": spread([run["ours"]["processor_seconds_per_agent"] for run in runs]),
        "peer_processor_seconds_per_agent": spread([run["peer"]["cpu_seconds"] for run in runs]),
        "processor_ratio": spread([run["processor_ratio"] for run in runs]),
        "ours_return": spread([run["ours"]["returns"][f"labels_{LABELS}"] for run in runs]),
        "peer_return": spread([run["peer"]["return_mean"] for run in runs]),
    }
