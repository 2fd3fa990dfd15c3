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
from statistics import median
from typing import Any

from experiments.study import say

CONDITIONS = 4  # Of experiments.pendulum: the true reward, and 350, 700 and 1400 labels.
PEER_CONDITION = "labels_700"  # What the peer is trained on too.
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


def spread(values: Sequence[float]) -> dict[str, float]:
    """Returns the least, the median and the largest."""
    return {"min": min(values), "median": median(values), "max": max(values)}


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


def figure(cache: Path, seeds: int, assignments: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    """Runs `experiments.pendulum` in a process of its own and returns what it cost.

    Args:
      cache: folder of compiled programs; new and empty for a cold start.
      seeds: agents of each condition.
      assignments: settings, as `--set` takes them.
      environment: variables of the process, beside the cache.

    Raises:
      ChildFailed: it ended with an error.
    """
    with tempfile.TemporaryDirectory(prefix="rlhf_jax_run_") as folder:
        command = [sys.executable, "-m", "experiments.pendulum", "--seeds", str(seeds), "--out", folder]
        for assignment in assignments:
            command += ["--set", assignment]
        child = run_child(command, environment | {"JAX_COMPILATION_CACHE_DIR": str(cache)})
        summary = json.loads((Path(folder) / "summary.json").read_text())
    agents = CONDITIONS * seeds
    return {
        "wall_seconds": child.wall,
        "processor_seconds": child.processor,
        "wall_seconds_per_agent": child.wall / agents,
        "processor_seconds_per_agent": child.processor / agents,
        "compile_seconds": summary["wall_seconds"]["compile"],
        "phases": summary["wall_seconds"],
        "cores_busy": child.processor / child.wall,
        "peak_mib": child.peak_mib,
        "env_steps_per_agent": summary["env_steps_per_agent"],
        "returns": {name: row["mean"] for name, row in summary["conditions"].items()},
    }


def cold_and_warm(seeds: int, assignments: Sequence[str], environment: dict[str, str]) -> dict[str, Any]:
    """Runs the figure twice with one new cache: the first run compiles everything, the second finds it compiled."""
    with tempfile.TemporaryDirectory(prefix="rlhf_jax_cache_") as cache:
        say(f"figure, cold: {CONDITIONS} conditions × {seeds} seeds, a new compilation cache")
        cold = figure(Path(cache), seeds, assignments, environment)
        say("figure, warm: the same again with the cache that it left")
        warm = figure(Path(cache), seeds, assignments, environment)
    return {
        "agents": CONDITIONS * seeds,
        "cold": cold,
        "warm": warm,
        "compile_cold_over_warm": cold["compile_seconds"] / warm["compile_seconds"],
        "wall_cold_over_warm": cold["wall_seconds"] / warm["wall_seconds"],
    }


def has_imitation(python: str) -> bool:
    """Returns whether this Python can be started and finds the peer's library."""
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('imitation') is None)"
    try:
        return subprocess.run([python, "-c", code], capture_output=True).returncode == 0
    except OSError:
        return False


def _pairs(
    python: str,
    runs: int,
    seeds: int,
    assignments: Sequence[str],
    peer_flags: Sequence[str],
    environment: dict[str, str],
) -> Iterator[dict[str, Any]]:
    script = str(_ROOT / "experiments" / "benchmark_peer.py")
    for i in range(runs):
        with tempfile.TemporaryDirectory(prefix="rlhf_jax_cache_") as cache:
            say(f"against the peer, {i + 1} of {runs}: ours, cold")
            ours = figure(Path(cache), seeds, assignments, environment)
        say(f"against the peer, {i + 1} of {runs}: the peer, seed {i}")
        child = run_child([python, script, "--seed", str(i), *peer_flags], environment)
        theirs = json.loads(child.stdout.splitlines()[-1])
        yield {
            "ours": ours,
            "peer": theirs | {"peak_mib": child.peak_mib},
            "processor_ratio": theirs["cpu_seconds"] / ours["processor_seconds_per_agent"],
        }


def against_peer(
    python: str,
    runs: int,
    seeds: int,
    assignments: Sequence[str],
    peer_flags: Sequence[str],
    environment: dict[str, str],
) -> dict[str, Any]:
    """Runs the figure, cold, and one agent of the peer in turn, and compares what an agent costs.

    Ours is the whole process, start, compiling, evaluation and drawing included, shared by its agents; the peer's ends
    with its training. So the ratio errs in the peer's favour.

    Args:
      python: of the peer's environment.
      runs: how often.
      seeds: agents of each of our conditions.
      assignments: our settings, as `--set` takes them.
      peer_flags: further flags of `benchmark_peer.py`.
      environment: variables of the processes.

    Raises:
      ChildFailed: one of them ended with an error.
    """
    pairs = list(_pairs(python, runs, seeds, assignments, peer_flags, environment))
    return {
        "runs": pairs,
        "agents": CONDITIONS * seeds,
        "ours_processor_seconds_per_agent": spread([pair["ours"]["processor_seconds_per_agent"] for pair in pairs]),
        "peer_processor_seconds_per_agent": spread([pair["peer"]["cpu_seconds"] for pair in pairs]),
        "processor_ratio": spread([pair["processor_ratio"] for pair in pairs]),
        "ours_return": spread([pair["ours"]["returns"][PEER_CONDITION] for pair in pairs]),
        "peer_return": spread([pair["peer"]["return_mean"] for pair in pairs]),
    }
