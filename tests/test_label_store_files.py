"""Files that are no label store, or are damaged, or may not be written: one line, and they are left alone."""

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path

import label_stores
import pytest
from label_stores import SOURCE, row

from rlhf_jax.labelling.label_store import LabelStore

NOBODY = 65534


@pytest.fixture
def path(tmp_path):
    """Where a store is made; a name that has to be quoted in an address."""
    return tmp_path / "labels #1?50%.sqlite"


def refused(path, *, read_only=False):
    """The one line with which a file is refused; it is left as it was, and nothing is put beside it."""
    before = {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}
    with pytest.raises(ValueError) as error:
        LabelStore(path, read_only=read_only)
    assert {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()} == before
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value).removeprefix(str(path))


def by_sql(path, sql, *values):
    """What another program gets from the file, or does to it."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        return db.execute(sql, values).fetchall()


def test_a_missing_file_is_not_made(path):
    assert "does not exist" in refused(path) and "does not exist" in refused(path, read_only=True)
    assert "does not exist" in refused(path.parent)


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("content", [b"", b"labels\n", b"SQLite format 3\0", bytes(range(256)) * 64])
def test_a_file_that_is_no_store_is_left_alone(path, content, read_only):
    path.write_bytes(content)
    assert "cannot be opened" in refused(path, read_only=read_only)


def test_the_database_of_another_program_is_left_alone(path):
    by_sql(path, "CREATE TABLE bookmarks (address TEXT)")
    assert "its version is 0" in refused(path)
    assert by_sql(path, "PRAGMA journal_mode") == [("delete",)]


def test_another_version_is_left_alone(path):
    label_stores.make(path, 1).close()
    by_sql(path, "PRAGMA user_version = 2")
    assert refused(path) == " cannot be opened: its version is 2; this is version 1"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(path, share):
    label_stores.make(path, 300).close()
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert "cannot be opened" in refused(path)


def test_a_file_that_was_damaged_is_refused(path):
    label_stores.make(path, 300).close()
    content = path.read_bytes()
    page = 4096
    unnoticed = 0
    for start in range(0, len(content), 7 * page):
        path.write_bytes(content[:start] + bytes(page) + content[start + page :])
        try:
            LabelStore(path).close()
        except ValueError as error:
            assert "cannot be opened" in str(error)
        else:
            unnoticed += 1
    assert unnoticed == 0


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM run WHERE name = 'layout'",
        "UPDATE run SET value = 'x' WHERE name = 'layout'",
        "UPDATE run SET value = '[[\"a\", \"?\", [2]]]' WHERE name = 'layout'",
        "UPDATE run SET value = '[1, 2]' WHERE name = 'layout'",
        "UPDATE run SET value = '7' WHERE name = 'layout'",
        "INSERT INTO run VALUES ('more', '1')",
        "DELETE FROM pairs WHERE id = 2",
        "UPDATE pairs SET id = 9 WHERE id = 3",
        "UPDATE pairs SET segments = x'00' WHERE id = 1",
        "INSERT INTO answers VALUES (9, 4, 'left', 0, 0, 'eve', 0, 0, 0, NULL, 'z')",
        "INSERT INTO answers VALUES (9, 0, 'left', 0, 0, 'eve', 0, 0, 0, NULL, 'z')",
        "ALTER TABLE answers DROP COLUMN probability",
        "DROP TABLE answers",
        "DROP TABLE pairs",
    ],
)
def test_a_store_that_makes_no_sense_is_refused(path, sql):
    store = label_stores.make(path, 3)
    store.record(row(1, "left", "a"))
    store.close()
    by_sql(path, "PRAGMA journal_mode = DELETE")
    by_sql(path, sql)
    with pytest.raises(ValueError) as error:
        LabelStore(path)
    assert "it is damaged" in str(error.value) and "\n" not in str(error.value)


def test_an_existing_file_is_never_written_over(path):
    path.write_bytes(b"dear to somebody")
    with pytest.raises(ValueError, match="never written over"):
        LabelStore.create(path, SOURCE)
    assert path.read_bytes() == b"dear to somebody"


def test_a_store_needs_a_folder(path):
    with pytest.raises(ValueError, match="cannot be written: No such file or directory"):
        LabelStore.create(path / "deeper.sqlite", SOURCE)


def test_a_store_whose_making_was_cut_off_is_made_anew(path):
    path.with_name(f"{path.name}.partial").write_bytes(b"SQLite format 3\0 and no more")
    label_stores.make(path, 1).close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@contextlib.contextmanager
def rights_of_others():
    """Without the rights of the one who may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_store_that_may_not_be_written_is_refused_and_can_be_read():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "labels.sqlite"
        label_stores.make(path, 2).close()
        path.chmod(0o444)
        folder.chmod(0o777)
        with rights_of_others():
            assert refused(path) == " cannot be opened: it may not be written"
            with contextlib.closing(LabelStore(path, read_only=True)) as store:
                assert store.num_pairs() == 2
        folder.chmod(0o555)
        with rights_of_others(), pytest.raises(ValueError, match="cannot be written: Permission denied"):
            LabelStore.create(folder / "new.sqlite", SOURCE)
        folder.chmod(0o755)
