"""The loop of a run, over chunks that a stand-in computes: what it holds, saves and says."""

import weakref
from types import SimpleNamespace

import numpy as np
import pytest

import rlhf_jax
from experiments import results, session, study
from experiments.command_line import BadInput, Stopped
from rlhf_jax import run_folder

CONFIG = rlhf_jax.Config(iterations=6)


class States:
    """Stands for the states of all agents after so many chunks."""

    def __init__(self, chunks):
        self.chunks = chunks


@pytest.fixture
def run(tmp_path):
    return run_folder.create(tmp_path / "run", "pendulum", {"labels_700": CONFIG}, range(1))


@pytest.fixture
def saved(monkeypatch):
    """What would have been written as checkpoints: iterations done and chunks of the states."""
    found = []
    monkeypatch.setattr(session, "save", lambda run, done, states, metrics: found.append((done, states.chunks)))
    return found


def looped(run, *, bad_chunk=None):
    """Runs the loop for three chunks of two iterations; returns how many states were alive whenever one was begun."""
    alive, counts = weakref.WeakSet(), []

    def made(chunks):
        states = States(chunks)
        alive.add(states)
        return states

    def advance(states, lanes):
        counts.append(len(alive))
        metrics = dict.fromkeys(("return", "labels", "answers", "ties", "silences"), np.ones((1, 2)))
        return made(states.chunks + 1), metrics | {"finite": np.full((1, 2), states.chunks != bad_chunk)}

    states, metrics = study._loop(run, advance, lambda: made(0), None, {}, range(0, 6, 2))
    assert states.chunks == 3 and metrics["return"].shape == (1, 6)
    return counts


@pytest.mark.parametrize(
    "env, total, chunk", [("Pendulum-v1", 200, 10), ("Breakout-MinAtar", 200, 4), ("Pong-misc", 7, 1)]
)
def test_images_are_reported_more_often(env, total, chunk):
    assert session.chunk(total, rlhf_jax.make(env)) == chunk


def test_the_table_gives_no_interval_to_one_seed():
    row = {"labels": 9, "mean": 2.0, "iqm": 2.0, "ci95": [2.0, 2.0], "eval_return": [2.0]}
    summary = {"conditions": {"labels_9": row}, "wall_seconds": {"total": 1.0}, "cpu_seconds": 1.0}
    assert results.table(summary).splitlines()[1].split() == ["labels_9", "9", "2.0", "2.0", "–", "2.0"]


def test_a_run_holds_the_states_before_a_chunk_and_no_earlier_ones(run, saved):
    assert looped(run) == [1, 1, 1]
    assert saved == [(6, 3)]


def test_a_resumed_run_begins_with_what_was_saved_and_compiles_nothing_for_it(run):
    saved_states = States(1)
    start = session.Start(2, saved_states, {})
    assert study._beginning(run, start, SimpleNamespace(emulated=False), None)() is saved_states
    assert start.states is None


@pytest.mark.parametrize("limit, said", [(0, "reading the newest checkpoint\n"), (2**60, "")])
def test_a_large_checkpoint_is_said_to_be_read(limit, said, run, monkeypatch, capsys):
    monkeypatch.setattr(session, "_LARGE", limit)
    run.checkpoints.mkdir(parents=True)
    (run.checkpoints / "2").mkdir()
    with pytest.raises(BadInput):
        session.restore(run)
    assert capsys.readouterr().err == said


def test_the_states_before_a_chunk_that_is_not_finite_are_saved(run, saved):
    with pytest.raises(Stopped, match=r"in iteration 3; the last good checkpoint is iteration 2 in"):
        looped(run, bad_chunk=1)
    assert saved == [(2, 1)]


def test_states_are_given_away_once():
    start = session.Start(4, States(2), {})
    assert start.take().chunks == 2 and start.states is None


def test_checkpoints_are_a_minute_apart_and_take_no_more_than_a_tenth_of_the_time(monkeypatch):
    now, written = [1000.0], []

    def write(what):
        now[0] += 30.0
        written.append(what)

    monkeypatch.setattr(session.time, "perf_counter", lambda: now[0])
    save = session.Saver(write)
    for minute in range(12):
        now[0] += 61.0
        save(minute)
    # The first after a minute. Half a minute of writing is a tenth of five, and five times 61 s are more than that.
    assert written == [0, 5, 10]
