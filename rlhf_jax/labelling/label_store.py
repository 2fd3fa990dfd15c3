"""The pairs that people were asked about and what they said, in an SQLite file.

run        what the pairs are about: environment, layout of a record, instruction
pairs      what was asked, and which slot is shown on the left
answers    what was said; rows are added, never changed or removed, and the newest of a pair is in force
learnt     which pairs the preference buffer of the run holds, in its order

An answer is on disk before `record` returns. Other processes may read the file meanwhile.
"""

import dataclasses
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax.environments import Environment
from rlhf_jax.labelling import label_schema, pairs
from rlhf_jax.labelling.pairs import from_json, to_json

MAX_NAME = 40
"""Characters of a labeller's name."""

PREFERENCES = ("left", "right", "tie", "cannot_tell")
ANSWERS = (*PREFERENCES, "skip", "undo")
"""What may be said about a pair, and what a row may say; `left` and `right` are as shown."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One row of what people said.

    pair: which pair.
    answer: one of `ANSWERS`.
    swapped: whether slot 1 was shown on the left.
    repeat: whether it was shown to see if the labeller agrees with themselves; such an answer teaches nothing.
    labeller: who.
    shown: when the pair appeared, seconds since 1970; `answered` where that is not known, as of a changed answer.
    answered: when the answer came.
    iteration: of the training at that time.
    probability: that slot 0 is better, as the model saw it then, or, of an answer that is changed or taken back, when
      the pair was last due; None before the first fit.
    token: names the request.
    id: number of the row, in order of arrival; 0 before it is stored.
    """

    pair: int
    answer: str
    swapped: bool
    repeat: bool
    labeller: str
    shown: float
    answered: float
    iteration: int
    probability: float | None
    token: str
    id: int = 0

    @property
    def label(self) -> float | None:
        """Share of the preference that goes to slot 0; None if it says nothing about it."""
        if self.answer == "tie":
            return 0.5
        if self.answer not in ("left", "right"):
            return None
        return float((self.answer == "left") != self.swapped)


@dataclasses.dataclass(frozen=True)
class Source:
    """What the pairs of a store are about.

    run: random name of the store, so that a page or a file cannot mistake it for another.
    env: name of the environment.
    env_params: its parameters.
    layout: record of a pair, see `pairs.layout`.
    instruction: the question in words, or "".
    """

    run: str
    env: str
    env_params: dict[str, Any]
    layout: np.dtype
    instruction: str


def new_source(env: Environment, layout: np.dtype, instruction: str = "") -> Source:
    """Returns the source of a new store, under a random name."""
    params = {name: np.asarray(value).tolist() for name, value in env.named_state(env.params).items()}
    return Source(secrets.token_hex(8), env.name, params, layout, instruction)


class LabelStore:
    """The pairs and answers of one run; safe to use from several threads."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Opens a store.

        Raises:
          ValueError: there is none, or it is damaged, or of another version.
        """
        if not path.is_file():
            raise ValueError(f"there are no labels: {path} does not exist")
        self.path = path
        self._lock = threading.RLock()
        try:
            self._db = label_schema.connect(path, read_only=read_only)
            self._load()
        except ValueError as error:
            raise ValueError(f"{path} cannot be opened: {error}") from None
        self._by_token = {answer.token: answer for answer in self._answers}
        self._in_force: dict[tuple[int, bool], Answer] = {}
        for answer in self._answers:
            self._take_note(answer)

    @classmethod
    def create(cls, path: Path, source: Source) -> "LabelStore":
        """Makes an empty store.

        Raises:
          ValueError: the file exists or cannot be written.
        """
        if path.exists():
            raise ValueError(f"{path} exists already; labels are never written over")
        try:
            label_schema.make(path, dataclasses.asdict(source) | {"layout": to_json(source.layout)})
        except OSError as error:
            raise ValueError(f"{path} cannot be written: {error.strerror}") from None
        return cls(path)

    def _load(self) -> None:
        try:
            self.source = _source(dict(self._db.execute("SELECT name, value FROM run")))
            self._answers = [_answer(row) for row in self._db.execute(_SELECT_ANSWERS)]
            rows = list(self._db.execute("SELECT id, iteration, swapped, length(segments) FROM pairs ORDER BY id"))
        except (sqlite3.Error, LookupError, TypeError, ValueError) as error:
            self._db.close()
            raise ValueError(f"it is damaged: {error}") from None
        whole = all(row[0] == number and pairs.fits(row[3], self.source.layout) for number, row in enumerate(rows, 1))
        if not whole or any(not 0 < a.pair <= len(rows) for a in self._answers):
            self._db.close()
            raise ValueError("it is damaged: pairs are missing")
        self._pairs = [row[:3] for row in rows]

    def close(self) -> None:
        """Closes the file; the store cannot be used any more."""
        with self._lock:
            self._db.close()

    def ask(self, records: np.ndarray, iteration: int, swapped: Sequence[bool]) -> list[int]:
        """Adds pairs to ask about, as `add` does, all of one iteration; returns their numbers, which count from 1."""
        with self._lock:
            first = len(self._pairs) + 1
            self.add(records, [iteration] * len(records), swapped, [])
            return list(range(first, len(self._pairs) + 1))

    def record(self, answer: Answer) -> Answer:
        """Stores an answer, and returns it with its number once it is on disk.

        One whose token is known is not stored again: the answer that is there is returned.
        """
        with self._lock:
            if answer.token not in self._by_token:
                self.add(np.zeros(0, self.source.layout), [], [], [answer])
            return self._by_token[answer.token]

    def add(
        self, records: np.ndarray, iterations: Sequence[int], swapped: Sequence[bool], answers: Sequence[Answer]
    ) -> None:
        """Adds pairs and answers, all of them or, if something is wrong, none.

        Args:
          records: `[P]` of the store's layout; their numbers go on from those of the pairs that are there.
          iterations: `[P]` of the training that asked.
          swapped: `[P]` whether slot 1 is shown on the left.
          answers: about these pairs or earlier ones, oldest first, with tokens that are new to the store.
        """
        if records.dtype != self.source.layout:
            raise ValueError(f"records are {records.dtype}, not {self.source.layout}")
        with self._lock:
            first, stored = len(self._pairs) + 1, []
            rows = [
                (number, int(iteration), bool(side), pairs.pack(record))
                for number, (record, iteration, side) in enumerate(
                    zip(records, iterations, swapped, strict=True), first
                )
            ]
            with self._db:
                self._db.executemany("INSERT INTO pairs VALUES (?, ?, ?, ?)", rows)
                for answer in answers:
                    cursor = self._db.execute(_INSERT_ANSWER, dataclasses.astuple(answer)[:-1])
                    stored.append(dataclasses.replace(answer, id=cursor.lastrowid or 0))
            self._pairs += [row[:3] for row in rows]
            self._answers += stored
            for answer in stored:
                self._by_token[answer.token] = answer
                self._take_note(answer)

    def _take_note(self, answer: Answer) -> None:
        if answer.answer == "undo":
            self._in_force.pop((answer.pair, answer.repeat), None)
        elif answer.answer != "skip":
            self._in_force[answer.pair, answer.repeat] = answer

    def stored(self, token: str) -> Answer | None:
        """Returns the answer that this request brought, if it did."""
        with self._lock:
            return self._by_token.get(token)

    def answers(self) -> list[Answer]:
        """Returns every row, oldest first."""
        with self._lock:
            return list(self._answers)

    def in_force(self, *, repeat: bool = False) -> dict[int, Answer]:
        """Returns the answer that counts for each pair that has one; or those of the pairs that were shown again."""
        with self._lock:
            return {pair: answer for (pair, again), answer in self._in_force.items() if again == repeat}

    def num_pairs(self) -> int:
        """Returns how many pairs were asked about so far."""
        with self._lock:
            return len(self._pairs)

    def iteration(self, pair: int) -> int:
        """Returns in which iteration of the training, from 0, this pair was asked."""
        with self._lock:
            return self._pairs[pair - 1][1]

    def swapped(self, pair: int) -> bool:
        """Returns whether slot 1 of this pair is shown on the left, when it is shown for the first time."""
        with self._lock:
            return bool(self._pairs[pair - 1][2])

    def segments(self, numbers: Iterable[int]) -> np.ndarray:
        """Returns the records of the pairs of these numbers, in this order."""
        with self._lock:
            query, wanted = "SELECT segments FROM pairs WHERE id = ?", list(numbers)
            blobs = [self._db.execute(query, (i,)).fetchone()[0] for i in wanted]
        return pairs.unpack(blobs, self.source.layout)

    def learnt(self) -> list[int]:
        """Returns the pairs that the preference buffer was given, in order."""
        with self._lock:
            return [pair for (pair,) in self._db.execute("SELECT pair FROM learnt ORDER BY position")]

    def learn(self, numbers: Sequence[int], position: int) -> None:
        """Notes that the buffer is given these pairs after its first `position`; what was noted after those is void."""
        with self._lock, self._db:
            self._db.execute("DELETE FROM learnt WHERE position >= ?", (position,))
            self._db.executemany("INSERT INTO learnt VALUES (?, ?)", list(enumerate(numbers, position)))


_COLUMNS = [field.name for field in dataclasses.fields(Answer)]
_SELECT_ANSWERS = f"SELECT {', '.join(_COLUMNS)} FROM answers ORDER BY id"
_INSERT_ANSWER = f"INSERT INTO answers ({', '.join(_COLUMNS[:-1])}) VALUES ({', '.join('?' * (len(_COLUMNS) - 1))})"


def _answer(row: tuple) -> Answer:
    values = dict(zip(_COLUMNS, row, strict=True))
    return Answer(**values | {"swapped": bool(values["swapped"]), "repeat": bool(values["repeat"])})


def _source(texts: dict[str, str]) -> Source:
    values = {name: json.loads(text) for name, text in texts.items()}
    return Source(**values | {"layout": from_json(values["layout"])})
