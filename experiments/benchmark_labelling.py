"""The labelling page beside a training in the same process: how long people wait for it, and how long it for them.

The part of the people is played by a process of its own:

    python -m experiments.benchmark_labelling ADDRESS ANSWERS

With 0 answers it only looks at the page, until it is killed.
"""

import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import tables
from experiments.benchmark_process import ChildFailed
from experiments.timing import spread
from rlhf_jax import train_state, training
from rlhf_jax.config import Config
from rlhf_jax.environments import Environment
from rlhf_jax.labelling import label_store, pairs
from rlhf_jax.labelling.client import Client
from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.label_store import Answer, LabelStore
from rlhf_jax.labelling.progress import Progress
from rlhf_jax.teacher import Answers

_STORED = 1000
_THINKING_SECONDS = 0.3  # faster than people are
_POLL_SECONDS = 1.0  # of an open page that nobody uses


class Training:
    """The same iteration of a training again and again, driven from the host as one with people is."""

    def __init__(self, config: Config, env: Environment) -> None:
        self._propose, self._absorb = training.halves(env=env, config=config)
        state = train_state.init(jax.random.key(0), env=env, config=config)
        _, _, self.queries, _ = self._propose(state)
        self._state = dataclasses.replace(state, iteration=jnp.int32(config.labels.warmup))
        self.run(0.0)

    def run(self, seconds: float) -> float:
        """Trains for about so long; returns the wall seconds of an iteration."""
        start, count = time.perf_counter(), 0
        while not count or time.perf_counter() - start < seconds:
            _, steps, asked, _ = self._propose(self._state)
            nothing = jnp.zeros(asked.asked.shape)
            jax.block_until_ready(self._absorb(self._state, steps, asked, Answers(nothing, nothing)))
            count += 1
        return (time.perf_counter() - start) / count


def measure(config: Config, env: Environment, answers: int, repeats: int, sample_seconds: float) -> dict[str, Any]:
    """Measures waiting times on the page while the agent trains, and the training while a page is open and idle.

    Args:
      config: of the training.
      env: its environment.
      answers: how many to give.
      repeats: timings of the training with and without the page, in turn.
      sample_seconds: how long each of them lasts.
    """
    from rlhf_jax.labelling import server  # Here, not above: it needs the extra "human".
    from rlhf_jax.labelling.application import Page, Plan

    agent = Training(config, env)
    layout = pairs.layout(env, config.queries.segment_length)
    records = np.resize(pairs.to_records(agent.queries, layout), answers + 1)
    with tempfile.TemporaryDirectory() as folder:
        store = LabelStore.create(Path(folder) / "labels.sqlite", label_store.new_source(env, layout))
        store.ask(records, 0, [False] * len(records))
        page = Page(store, Desk(store, repeat_share=0.0), Progress(), Plan(answers, 0, config.iterations, False))
        with server.serve(page, port=0) as address:
            waiting = _answer(agent, address, answers)
            ratios = _beside_an_idle_page(agent, address, repeats, sample_seconds)
        store.close()
        load = _load_seconds(Path(folder), store.source, records[:1], repeats)
    return {**waiting, "training_ratio_with_idle_page": spread(ratios), "stored": _STORED, "load_seconds": load}


def _people(address: str, answers: int) -> subprocess.Popen:
    command = [sys.executable, "-m", "experiments.benchmark_labelling", address, str(answers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def _answer(agent: Training, address: str, answers: int) -> dict[str, Any]:
    """Trains while somebody answers; returns milliseconds."""
    child = _people(address, answers)
    while child.poll() is None:
        agent.run(0.1)
    if child.returncode or child.stdout is None:
        raise ChildFailed(f"the labeller ended with exit status {child.returncode}")
    milliseconds = json.loads(child.stdout.read())
    return {
        name: {f"p{share}": float(np.percentile(values, share)) for share in (50, 99)} | {"max": max(values)}
        for name, values in milliseconds.items()
    }


def _beside_an_idle_page(agent: Training, address: str, repeats: int, sample_seconds: float) -> list[float]:
    """Trains with and without somebody whose page is open, in turn; returns the ratios of wall seconds."""
    child = _people(address, 0)
    ratios = []
    try:
        assert child.stdout is not None
        child.stdout.readline()  # It is there.
        for _ in range(repeats):
            with_page = agent.run(sample_seconds)
            child.send_signal(signal.SIGSTOP)
            ratios.append(with_page / agent.run(sample_seconds))
            child.send_signal(signal.SIGCONT)
    finally:
        child.kill()
        child.wait()
    return ratios


def _load_seconds(folder: Path, source: label_store.Source, record: np.ndarray, repeats: int) -> dict[str, float]:
    """Returns how long it takes to open a store and read all its pairs."""
    path = folder / "many.sqlite"
    store = LabelStore.create(path, source)
    store.ask(np.resize(record, _STORED), 0, [False] * _STORED)
    for pair in range(1, _STORED + 1):
        store.record(Answer(pair, "left", False, False, "program", 0.0, 1.0, 0, 0.5, str(pair)))
    store.close()
    samples = []
    for _ in range(repeats):
        start = time.perf_counter()
        store = LabelStore(path)
        store.segments(store.in_force())
        samples.append(time.perf_counter() - start)
        store.close()
    return spread(samples)


def table(labelling: dict[str, Any]) -> list[str]:
    """Returns this part of the report."""
    rows = [["labelling page, training beside it", "p50 ms", "p99 ms", "max ms"]]
    for name, label in (("pair", "pair and both clips"), ("answer", "answer acknowledged, on disk")):
        rows.append([f"  {label}", *(f"{labelling[name][key]:.1f}" for key in ("p50", "p99", "max"))])
    ratio = tables.ranged(labelling["training_ratio_with_idle_page"])
    load = tables.ranged(labelling["load_seconds"], 3)
    return [
        *tables.columns(rows),
        f"  wall time of an iteration with an open page ÷ without: {ratio}",
        f"  seconds to load {labelling['stored']:,} labels: {load}",
    ]


def answer(address: str, answers: int) -> dict[str, list[float]]:
    """Answers so many pairs; returns milliseconds until a pair with its clips was there, and until an answer was."""
    client = Client(address)
    milliseconds: dict[str, list[float]] = {"pair": [], "answer": []}
    for _ in range(answers):
        start = time.perf_counter()
        reply = client.pair()
        for side in ("left", "right"):
            client.get(reply["pair"][side])
        milliseconds["pair"].append(1e3 * (time.perf_counter() - start))
        time.sleep(_THINKING_SECONDS)
        start = time.perf_counter()
        client.answer(reply["status"], reply["pair"], "left")
        milliseconds["answer"].append(1e3 * (time.perf_counter() - start))
    return milliseconds


def look(address: str) -> None:
    """Keeps a page open, for ever, and does nothing on it."""
    client = Client(address)
    while True:
        client.get("/api/status")
        print(flush=True)
        time.sleep(_POLL_SECONDS)


if __name__ == "__main__":
    if int(sys.argv[2]):
        print(json.dumps(answer(sys.argv[1], int(sys.argv[2]))))
    else:
        look(sys.argv[1])
