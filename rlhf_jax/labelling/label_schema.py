"""How the SQLite file of labels is laid out, made and opened."""

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

VERSION = 1

_SCHEMA = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE pairs (
  id INTEGER PRIMARY KEY,      -- counts from 1
  iteration INTEGER NOT NULL,  -- of the training that asked, from 0
  swapped INTEGER NOT NULL,    -- slot 1 is shown on the left
  segments BLOB NOT NULL       -- one record, see run.layout
);
CREATE TABLE answers (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  pair INTEGER NOT NULL REFERENCES pairs,
  answer TEXT NOT NULL CHECK (answer IN ('left', 'right', 'tie', 'cannot_tell', 'skip', 'undo')),
  swapped INTEGER NOT NULL,    -- slot 1 was shown on the left
  repeat INTEGER NOT NULL,     -- shown again to see whether the labeller agrees with themselves
  labeller TEXT NOT NULL,
  shown REAL NOT NULL,         -- seconds since 1970
  answered REAL NOT NULL,
  iteration INTEGER NOT NULL,  -- of the training at that time
  probability REAL,            -- that slot 0 is better, as the model saw it then; NULL before the first fit
  token TEXT NOT NULL UNIQUE   -- of the request, so that one that is sent again is stored once
);
CREATE TABLE learnt (position INTEGER PRIMARY KEY, pair INTEGER NOT NULL REFERENCES pairs);
CREATE TRIGGER answers_are_not_changed BEFORE UPDATE ON answers BEGIN SELECT RAISE(ABORT, 'answers are kept'); END;
CREATE TRIGGER answers_are_not_removed BEFORE DELETE ON answers BEGIN SELECT RAISE(ABORT, 'answers are kept'); END;
CREATE TRIGGER answers_are_not_replaced BEFORE INSERT ON answers
WHEN EXISTS (SELECT 1 FROM answers WHERE id = NEW.id OR token = NEW.token)
BEGIN SELECT RAISE(ABORT, 'answers are kept'); END;
"""


def make(path: Path, run: dict[str, Any]) -> None:
    """Makes a file without pairs. It appears whole or, if the process is killed meanwhile, not at all.

    Args:
      path: of the file; a file that is there is replaced.
      run: rows of the table of that name, as JSON.
    """
    db = sqlite3.connect(":memory:")
    db.executescript(_SCHEMA)
    db.executemany("INSERT INTO run VALUES (?, ?)", [(name, json.dumps(value)) for name, value in run.items()])
    db.commit()
    db.execute(f"PRAGMA user_version = {VERSION}")
    content = db.serialize()
    db.close()
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Waits until the names of the files in a folder are on disk."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def connect(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Opens a file that is there. One that is not of this version, or damaged, is left as it is.

    Raises:
      ValueError: it is not a file of labels, of another version, damaged, or cannot be written.
    """
    # SQLite opens what it may not write, too, and says so only at the first answer.
    if not (read_only or os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids)):
        raise ValueError("it may not be written")
    address = f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
    try:
        db = sqlite3.connect(address, uri=True, check_same_thread=False, timeout=10.0)
    except sqlite3.Error as error:
        raise ValueError(str(error)) from None
    try:
        _check(db)
        if not read_only:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")  # Wait for the disk at every commit.
    except (sqlite3.Error, ValueError) as error:
        db.close()
        raise ValueError(str(error)) from None
    return db


def _check(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version != VERSION:
        raise ValueError(f"its version is {version}; this is version {VERSION}")
    # Better now than in the middle of a training.
    if db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise ValueError("it is damaged")
