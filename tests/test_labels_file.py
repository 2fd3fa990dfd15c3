"""Labels in a file: whole in any program that reads NumPy, merged once, and nothing else is taken for one."""

import dataclasses
import json
import pickle
import zipfile
from contextlib import closing

import label_stores
import numpy as np
import pytest
from label_stores import LAYOUT, LENGTH, SOURCE, row

from rlhf_jax.labelling import labels_file
from rlhf_jax.labelling.label_store import LabelStore

ROWS = [
    row(1, "left", "a", probability=None, iteration=0),
    row(3, "right", "b", swapped=True, labeller="Zoë 🙂 'x'", probability=1 / 3, shown=1e9 + 1 / 7),
    row(2, "skip", "c"),
    row(1, "right", "d", swapped=True),  # thought better of it
    row(1, "left", "e", swapped=True, repeat=True),
    row(4, "tie", "f"),
    row(5, "cannot_tell", "g"),
    row(3, "undo", "h", swapped=True),
    row(3, "right", "i"),
]
LABELS = [1.0, np.nan, 0.0, 0.5, np.nan, np.nan]  # pair 6 was never answered


@pytest.fixture
def store(tmp_path):
    """A store with every kind of row."""
    (tmp_path / "first").mkdir()
    with closing(label_stores.make(tmp_path / "first" / "labels.sqlite", 6)) as opened:
        opened.add(np.zeros(0, LAYOUT), [], [], ROWS)
        yield opened


@pytest.fixture
def other(tmp_path):
    """An empty store of the same kind."""
    (tmp_path / "second").mkdir()
    source = dataclasses.replace(SOURCE, run="x")
    with closing(label_stores.make(tmp_path / "second" / "labels.sqlite", source=source)) as opened:
        yield opened


@pytest.fixture
def file(store, tmp_path):
    """The store in a file."""
    path = tmp_path / "labels.npz"
    labels_file.write(path, labels_file.collect(store))
    return path


def contents(store):
    """What a store holds, in a form that can be compared; numbers of rows may differ."""
    labels = labels_file.collect(store)
    rows = [dataclasses.replace(answer, id=0) for answer in labels.answers]
    return labels.records.tobytes(), labels.iteration.tolist(), labels.swapped.tolist(), rows


def test_file_is_read_as_it_was_written_bit_for_bit(store, file):
    written, read = labels_file.collect(store), labels_file.read(file)
    assert read.source == written.source == SOURCE
    assert read.records.dtype == LAYOUT and read.records.tobytes() == written.records.tobytes()
    for name in ("iteration", "swapped", "label"):
        np.testing.assert_array_equal(getattr(read, name), getattr(written, name))
    assert read.answers == [dataclasses.replace(answer, id=0) for answer in written.answers] == ROWS


def test_numpy_alone_reads_the_file(file):
    with np.load(file, allow_pickle=False) as arrays:
        arrays = dict(arrays)
    assert (arrays["format"], arrays["version"], arrays["env"]) == ("rlhf_jax labels", 1, "Tiny")
    assert json.loads(str(arrays["env_params"])) == SOURCE.env_params
    assert arrays["segment_length"] == LENGTH and arrays["instruction"] == SOURCE.instruction
    assert str(arrays["created"]).endswith("+00:00") and str(arrays["library"])
    assert arrays["pairs.observation"].shape == (6, 2, LENGTH, 3)
    assert arrays["pairs.state.board.alive"].dtype == bool
    np.testing.assert_array_equal(arrays["pairs.label"], LABELS)
    np.testing.assert_array_equal(arrays["pairs.swapped"], [False, False, True, False, False, True])
    np.testing.assert_array_equal(arrays["answers.pair"], [answer.pair - 1 for answer in ROWS])
    assert np.isnan(arrays["answers.probability"][0]) and arrays["answers.probability"][1] == 1 / 3
    assert arrays["answers.labeller"][1] == "Zoë 🙂 'x'"


def test_store_without_a_pair_or_an_answer_has_a_file(other, tmp_path):
    labels_file.write(tmp_path / "empty.npz", labels_file.collect(other))
    read = labels_file.read(tmp_path / "empty.npz")
    assert len(read.records) == 0 and read.answers == [] and read.source.layout == LAYOUT


def test_nothing_is_written_over_and_nothing_is_left_behind(store, file, tmp_path):
    before = file.read_bytes()
    with pytest.raises(ValueError, match="written over"):
        labels_file.write(file, labels_file.collect(store))
    assert file.read_bytes() == before
    with pytest.raises(ValueError, match="cannot be written"):
        labels_file.write(tmp_path / "missing" / "labels.npz", labels_file.collect(store))
    broken = dataclasses.replace(labels_file.collect(store), iteration=np.array([object()] * 6))
    with pytest.raises(ValueError):
        labels_file.write(tmp_path / "broken.npz", broken)
    assert {path.name for path in tmp_path.iterdir()} == {"first", "labels.npz"}


def test_labels_are_merged_once(store, other, file):
    numbers, new = labels_file.merge(other, labels_file.read(file))
    assert numbers == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5} and new == len(ROWS)
    assert contents(other)[3] == ROWS and other.num_pairs() == 5  # pair 6 has no answer
    assert other.segments(range(1, 6)).tobytes() == store.segments(range(1, 6)).tobytes()
    assert {i: a.label for i, a in other.in_force().items()} == {i: a.label for i, a in store.in_force().items()}
    before = contents(other)
    assert labels_file.merge(other, labels_file.read(file)) == (numbers, 0)
    assert contents(other) == before
    with closing(LabelStore(other.path)) as reopened:
        assert contents(reopened) == before


def test_what_was_said_since_is_added_to_the_pairs_that_are_there(store, other):
    own = label_stores.noise(LAYOUT, 2, seed=9)
    other.ask(own, 7, [True, False])
    other.record(row(1, "tie", "own"))
    assert labels_file.merge(other, labels_file.collect(store))[0] == {1: 3, 2: 4, 3: 5, 4: 6, 5: 7}
    store.record(row(1, "tie", "later"))
    store.record(row(6, "left", "first of its pair"))
    numbers, new = labels_file.merge(other, labels_file.collect(store))
    assert numbers[1] == 3 and numbers[6] == 8 and new == 2 and other.num_pairs() == 8
    assert {i: a.label for i, a in other.in_force().items()} == {1: 0.5, 3: 0.5, 5: 0.0, 6: 0.5, 7: None, 8: 1.0}
    assert other.segments([1, 2, 8]).tobytes() == own.tobytes() + store.segments([6]).tobytes()
    assert other.iteration(1) == 7 and other.swapped(8) and not other.swapped(3)


OTHERS = {
    "env": (dataclasses.replace(SOURCE, env="Other"), ["env = Tiny", "have Other"]),
    "parameters": (
        dataclasses.replace(SOURCE, env_params=SOURCE.env_params | {"gravity": 1.6}),
        ["env_params.gravity = 9.5", "have 1.6"],
    ),
    "another parameter": (
        dataclasses.replace(SOURCE, env_params=SOURCE.env_params | {"wind": 2.0}),
        ["env_params.wind = nothing", "have 2.0"],
    ),
    "segment length": (
        dataclasses.replace(SOURCE, layout=np.dtype([("true_reward", np.float32, (2, 7))])),
        ["segment length = 5", "have 7"],
    ),
    "layout": (
        dataclasses.replace(SOURCE, layout=np.dtype([(n, LAYOUT[n]) for n in LAYOUT.names if n != "state.time"])),
        ["type of state.time", "have nothing"],
    ),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_labels_of_another_kind_are_not_merged(kind, other):
    source, words = OTHERS[kind]
    labels = labels_file.Labels(source, label_stores.noise(source.layout, 1), *np.zeros((3, 1)), answers=[row(1)])
    with pytest.raises(ValueError) as error:
        labels_file.merge(other, labels)
    message = str(error.value)
    assert "\n" not in message and all(word in message for word in [*words, str(other.path)])
    assert other.num_pairs() == 0 and other.answers() == []


def test_another_order_of_bytes_is_read(file):
    with np.load(file) as arrays:
        swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    whole = labels_file.read(file)
    np.savez(file, **swapped)
    read = labels_file.read(file)
    assert read.records.dtype == LAYOUT and read.records.tobytes() == whole.records.tobytes()
    assert read.answers == whole.answers


def changed(**changes):
    """A damage: some arrays have other values, or are missing where None."""

    def damage(file):
        with np.load(file) as arrays:
            arrays = dict(arrays)
        for name, change in changes.items():
            name = name.replace("__", ".")
            if change is None:
                del arrays[name]
            else:
                arrays[name] = change(arrays[name]) if callable(change) else change
        np.savez(file, **arrays)

    return damage


def first(value):
    """An array with another first element."""
    return lambda array: np.concatenate(
        [np.asarray([value], array.dtype if array.dtype.kind != "U" else None), array[1:]]
    )


def without_its_end(file):
    file.write_bytes(file.read_bytes()[:-40])


def bit_flipped(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)


def no_array(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("format.npy", b"\x93NUMPY nonsense")


def one_array(file):
    with file.open("wb") as opened:
        np.save(opened, np.zeros(3))


REFUSED = {
    "cut off": (without_its_end, ["damaged"]),
    "a bit flipped": (bit_flipped, ["damaged"]),
    "empty": (lambda file: file.write_bytes(b""), ["damaged"]),
    "text": (lambda file: file.write_text("left,right\n"), ["damaged"]),
    "pickle": (lambda file: file.write_bytes(pickle.dumps({"format": "rlhf_jax labels"})), ["damaged"]),
    "one array": (one_array, ["damaged"]),
    "archive of something else": (no_array, ["damaged"]),
    "pickled objects": (changed(answers__answer=lambda array: array.astype(object)), ["damaged"]),
    "other arrays": (lambda file: np.savez(file, weights=np.zeros(3)), ["not a file of labels", "format"]),
    "another format": (changed(format=np.array("minari")), ["not a file of labels"]),
    "newer": (changed(version=np.array(2)), ["version 2", "version 1"]),
    "no environment": (changed(env=None), ["damaged", "no env"]),
    "no observations": (changed(pairs__observation=None), ["damaged", "no pairs.observation"]),
    "no answers": (changed(answers__answer=None), ["damaged", "no answers.answer"]),
    "fewer pairs": (changed(pairs__action=lambda array: array[1:]), ["damaged", "pairs.action", "[5, 2, 5]"]),
    "another length": (changed(segment_length=np.array(7)), ["damaged", "pairs.observation", "[6, 2, 7]"]),
    "fewer answers": (changed(answers__shown=lambda array: array[1:]), ["damaged", "answers.shown", "[9]"]),
    "answers as numbers": (changed(answers__answer=np.zeros(9)), ["damaged", "answers.answer is float64"]),
    "an unknown answer": (changed(answers__answer=first("maybe")), ["damaged", "'maybe'", "cannot_tell"]),
    "a pair too many": (changed(answers__pair=first(6)), ["damaged", "6 pairs"]),
    "a negative pair": (changed(answers__pair=first(-1)), ["damaged", "from -1"]),
    "a token twice": (changed(answers__token=first("b")), ["damaged", "answers.token"]),
    "a name with control characters": (
        changed(answers__labeller=first("\x1b[31m")),
        ["damaged", "labeller", "printable"],
    ),
    "parameters that are no JSON": (changed(env_params=np.array("{")), ["damaged"]),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_a_whole_file_of_labels_is_refused_in_one_line(kind, file):
    damage, words = REFUSED[kind]
    damage(file)
    with pytest.raises(ValueError) as error:
        labels_file.read(file)
    message = str(error.value)
    assert message.startswith(str(file)) and "\n" not in message
    assert all(word in message for word in words), message


def test_missing_files_and_folders_are_refused(tmp_path):
    for path, words in (
        (tmp_path / "missing.npz", "there are no labels: .* does not exist"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(ValueError, match=words):
            labels_file.read(path)
    with pytest.raises(ValueError, match=r"there are no labels: .*labels\.sqlite does not exist"):
        labels_file.load(tmp_path)


def test_folder_and_file_are_loaded_alike(store, file):
    from_folder, from_file = labels_file.load(store.path.parent), labels_file.load(file)
    assert from_folder.records.tobytes() == from_file.records.tobytes()
    assert [answer.token for answer in from_folder.answers] == [answer.token for answer in from_file.answers]
