"""The label store: what was said stays said, and others may read it meanwhile."""

import contextlib
import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import label_stores
import numpy as np
import pytest
from label_stores import LAYOUT, SOURCE, noise, row

from rlhf_jax.environments import Environment
from rlhf_jax.labelling.label_store import LabelStore, new_source
from rlhf_jax.labelling.pairs import layout


@pytest.fixture
def path(tmp_path):
    """Where a store is made; a name that has to be quoted in an address."""
    return tmp_path / "labels #1?50%.sqlite"


def by_sql(path, sql, *values):
    """What another program gets from the file, or does to it."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        return db.execute(sql, values).fetchall()


def test_pairs_come_back_bit_for_bit(path):
    records = noise(LAYOUT, 7)
    with contextlib.closing(LabelStore.create(path, SOURCE)) as store:
        assert store.ask(records[:4], 2, [False, True, False, False]) == [1, 2, 3, 4]
        assert store.ask(records[4:], 5, [True, False, True]) == [5, 6, 7]
    for read_only in (False, True):
        with contextlib.closing(LabelStore(path, read_only=read_only)) as store:
            assert store.source == SOURCE
            assert store.num_pairs() == 7
            assert [store.iteration(pair) for pair in range(1, 8)] == [2] * 4 + [5] * 3
            assert [store.swapped(pair) for pair in range(1, 8)] == [False, True, False, False, True, False, True]
            got = store.segments([7, 2, 2, 1])
            assert got.dtype == LAYOUT and got.tobytes() == records[[6, 1, 1, 0]].tobytes()
            assert len(store.segments([])) == 0


def test_an_environment_is_named_with_its_parameters():
    @dataclasses.dataclass(frozen=True)
    class Named:
        name = "Tiny"
        params = None

        def named_state(self, params):
            return {"gravity": np.float32(9.5), "size": np.arange(2)}

    env: Environment = Named()  # type: ignore[assignment]
    source = new_source(env, LAYOUT, "keep it upright")
    assert dataclasses.replace(source, run="") == dataclasses.replace(
        SOURCE, run="", env_params={"gravity": 9.5, "size": [0, 1]}, instruction="keep it upright"
    )
    assert source.run != new_source(env, LAYOUT).run


def test_records_of_another_environment_are_refused(path):
    with contextlib.closing(label_stores.make(path)) as store:
        other = np.dtype([("observation", np.float32, (2, 5, 2))])
        with pytest.raises(ValueError):
            store.ask(np.zeros(1, other), 0, [False])
        assert store.num_pairs() == 0


HISTORY = (
    row(1, "left", "a"),
    row(2, "right", "b", swapped=True, probability=None),
    row(3, "skip", "c"),
    row(1, "right", "d", labeller="ü"),
    row(2, "undo", "e", swapped=True),
    row(4, "tie", "f"),
    row(4, "left", "g", repeat=True, swapped=True),
    row(5, "cannot_tell", "h"),
    row(6, "left", "i"),
    row(6, "undo", "j"),
    row(6, "right", "k"),
    row(4, "skip", "l"),
    row(5, "left", "m", repeat=True),
    row(5, "undo", "n", repeat=True),
)


def test_the_newest_answer_of_a_pair_is_in_force(path):
    store = label_stores.make(path, 6)
    stored = [store.record(answer) for answer in HISTORY]
    assert [answer.id for answer in stored] == list(range(1, len(HISTORY) + 1))
    for _ in range(2):
        assert [dataclasses.replace(answer, id=0) for answer in store.answers()] == list(HISTORY)
        assert {pair: answer.token for pair, answer in store.in_force().items()} == {1: "d", 4: "f", 5: "h", 6: "k"}
        assert {pair: answer.token for pair, answer in store.in_force(repeat=True).items()} == {4: "g"}
        store.close()
        store = LabelStore(path)
    store.close()


@pytest.mark.parametrize(
    "answer, swapped, label",
    [
        ("left", False, 1.0),
        ("left", True, 0.0),
        ("right", False, 0.0),
        ("right", True, 1.0),
        ("tie", False, 0.5),
        ("tie", True, 0.5),
        ("cannot_tell", False, None),
        ("skip", True, None),
        ("undo", False, None),
    ],
)
def test_a_label_is_the_share_of_slot_0(answer, swapped, label):
    assert row(1, answer, swapped=swapped).label == label


def test_a_request_that_is_sent_again_is_stored_once(path):
    store = label_stores.make(path, 2)
    first = store.record(row(1, "left", "same"))
    assert store.record(row(1, "left", "same", answered=99.0)) == first
    store.close()
    store = LabelStore(path)
    assert store.stored("same") == first and store.stored("other") is None
    assert store.record(row(1, "right", "same")) == first
    assert store.answers() == [first]
    store.close()


@pytest.mark.parametrize("sql", ["UPDATE answers SET answer = 'right'", "DELETE FROM answers", "REPLACE INTO answers"])
def test_the_file_itself_keeps_answers(path, sql):
    store = label_stores.make(path, 1)
    store.record(row(1, "left", "a"))
    if sql.startswith("REPLACE"):
        sql += " SELECT id, pair, 'right', swapped, repeat, labeller, 0, 0, 0, NULL, token FROM answers"
    with pytest.raises(sqlite3.IntegrityError, match="answers are kept"):
        by_sql(path, sql)
    assert by_sql(path, "SELECT answer FROM answers") == [("left",)]
    store.close()


def test_the_file_takes_no_other_answer(path):
    store = label_stores.make(path, 1)
    with pytest.raises(sqlite3.IntegrityError):
        store.record(row(1, "both"))
    assert store.answers() == [] and store.in_force() == {}
    store.record(row(1, "left"))
    store.close()


def test_every_commit_waits_for_the_disk(path):
    # A process that is killed loses nothing either way; only a power cut would tell.
    with contextlib.closing(label_stores.make(path, 1)) as store:
        assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
        assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_what_could_not_be_written_did_not_happen(path):
    store = label_stores.make(path, 2)
    store.record(row(1, "left", "a"))
    with contextlib.closing(sqlite3.connect(path)) as other:
        store._db.execute("PRAGMA busy_timeout = 1")
        other.execute("BEGIN IMMEDIATE")
        for attempt in (
            lambda: store.record(row(2, "left", "b")),
            lambda: store.ask(noise(LAYOUT, 1), 0, [False]),
            lambda: store.learn([1], 0),
        ):
            with pytest.raises(sqlite3.OperationalError):
                attempt()
    assert store.num_pairs() == 2 and store.stored("b") is None and list(store.in_force()) == [1]
    assert store.record(row(2, "left", "b")).id == 2
    assert store.ask(noise(LAYOUT, 1), 0, [False]) == [3]
    store.close()
    store = LabelStore(path)
    assert store.num_pairs() == 3 and store.learnt() == [] and list(store.in_force()) == [1, 2]
    store.close()


def test_what_the_buffer_was_given_is_noted(path):
    store = label_stores.make(path, 9)
    store.learn([3, 1], 0)
    store.learn([4, 2, 5], 2)
    assert store.learnt() == [3, 1, 4, 2, 5]
    store.learn([7, 6], 3)
    store.close()
    store = LabelStore(path)
    assert store.learnt() == [3, 1, 4, 7, 6]
    store.close()


def test_one_who_reads_only_cannot_write(path):
    label_stores.make(path, 1).close()
    with contextlib.closing(LabelStore(path, read_only=True)) as store:
        with pytest.raises(sqlite3.OperationalError):
            store.record(row(1))
        assert store.answers() == []


def test_others_read_while_one_writes(path):
    writer = label_stores.make(path, 2)
    script = (
        "import sys; from pathlib import Path; from rlhf_jax.labelling.label_store import LabelStore\n"
        "store = LabelStore(Path(sys.argv[1]), read_only=True)\n"
        "print(len(store.answers()), flush=True)\n"
        "sys.stdin.readline()\n"
        "print(store.segments([3])[0].tobytes().hex(), flush=True)\n"
        "print(len(LabelStore(Path(sys.argv[1]), read_only=True).answers()))\n"
    )
    writer.record(row(1, "left", "a"))
    reader = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout.readline() == "1\n"
    new = noise(LAYOUT, 1, seed=1)
    writer.ask(new, 1, [False])
    writer.record(row(2, "left", "b"))
    output, _ = reader.communicate("\n", timeout=60)
    assert output.split() == [new.tobytes().hex(), "2"]
    assert reader.returncode == 0
    writer.close()


WRITER = """
import itertools, sys
from pathlib import Path
import label_stores
from rlhf_jax.labelling.label_store import LabelStore
store = LabelStore(Path(sys.argv[1]))
for number in itertools.count():
    pair, = store.ask(label_stores.noise(label_stores.LAYOUT, 1, number), number, [False])
    token = store.record(label_stores.row(pair, "left", f"{sys.argv[2]}-{number}")).token
    print(token, flush=True)
"""


def test_what_was_confirmed_outlives_a_kill(path):
    label_stores.make(path).close()
    confirmed = []
    folders = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    for attempt in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(attempt)],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": folders},
        )
        confirmed += [writer.stdout.readline().strip() for _ in range(20 + 7 * attempt)]
        writer.send_signal(signal.SIGKILL)
        confirmed += writer.stdout.read().split()
        assert writer.wait() == -signal.SIGKILL
    store = LabelStore(path)
    assert len(confirmed) >= 81
    stored = [answer.token for answer in store.answers()]
    assert set(confirmed) <= set(stored) and len(stored) <= len(confirmed) + 3
    assert [answer.pair for answer in store.answers()] == sorted({answer.pair for answer in store.answers()})
    first = store.segments([answer.pair for answer in store.answers()[:20]])
    assert first.tobytes() == b"".join(noise(LAYOUT, 1, i).tobytes() for i in range(20))
    store.close()


def test_a_thousand_answers_load_in_a_handful_of_statements(path, monkeypatch):
    store = label_stores.make(path, 1000)
    store.add(noise(LAYOUT, 0), [], [], [row(pair, token=str(pair)) for pair in range(1, 1001)])
    store.close()
    statements = []
    connect = sqlite3.connect

    def traced(*args, **kwargs):
        db = connect(*args, **kwargs)
        db.set_trace_callback(statements.append)
        return db

    monkeypatch.setattr(sqlite3, "connect", traced)
    store = LabelStore(path)
    assert store.num_pairs() == len(store.in_force()) == 1000
    assert 0 < len(statements) < 12
    store.close()


def test_pairs_of_a_real_environment_are_kept(path):
    import rlhf_jax

    env = rlhf_jax.make("Pendulum-v1")
    source = new_source(env, layout(env, 6))
    records = noise(source.layout, 3)
    store = LabelStore.create(path, source)
    store.ask(records, 0, [False] * 3)
    store.close()
    store = LabelStore(path)
    assert store.source == source and store.source.env_params["max_speed"] == 8.0
    assert store.segments([1, 2, 3]).tobytes() == records.tobytes()
    store.close()
