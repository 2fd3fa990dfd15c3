"""Checkpoints: bit for bit or not at all."""

import gc
import shutil
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import checkpoint

# Orbax leaves its other reads unfinished when one fails. Python says so, in thousands of lines, when it finds them.
unfinished_reads = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def tree(scale=1.0):
    """Something like a training state: typed keys, scalars, several types, and NaN."""
    key = jax.random.key(3)
    return {
        "states": {
            "keys": jax.random.split(key, 3),
            "kernel": scale * jax.random.normal(key, (3, 40, 8)),
            "iteration": jnp.arange(3, dtype=jnp.int32),
            "filled": jnp.array([[True, False], [False, True], [True, True]]),
            "empty": (),
        },
        "metrics": {"return": np.array([[np.nan, -1.5], [np.inf, 1e-45]], np.float32), "count": np.arange(4)},
    }


def shapes(of):
    """The tree in the abstract."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), of)


def assert_same(actual, expected):
    """Same structure, types and bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == jnp.asarray(b).dtype and a.shape == b.shape
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(jnp.asarray(b)).tobytes()


def refused(folder, iteration, like):
    """The line with which it refuses to restore."""
    with pytest.raises(ValueError) as error:
        checkpoint.restore(folder, iteration, like)
    message = str(error.value)
    assert "\n" not in message and f"checkpoint {iteration} in {folder}" in message
    assert len(message.partition("another program: ")[2]) <= 200
    del error
    gc.collect()  # That it finds them here, and not in the middle of another test.
    return message


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with one checkpoint, not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoint.save(folder, 7, tree())
    return folder


@pytest.mark.parametrize("like", [tree, lambda: shapes(tree()), lambda: tree(scale=0.0)])
def test_restored_is_what_was_saved(like, saved):
    restored = checkpoint.restore(saved, 7, like())
    assert_same(restored, tree())
    draws = [jax.random.normal(t["states"]["keys"][1], (4,)) for t in (restored, tree())]
    np.testing.assert_array_equal(*draws)


def test_what_is_not_asked_for_is_not_read(saved):
    like, expected = shapes(tree()), tree()
    like["states"]["kernel"] = like["metrics"]["count"] = ...
    restored = checkpoint.restore(saved, 7, like)
    assert restored["states"].pop("kernel") is restored["metrics"].pop("count") is ...
    del expected["states"]["kernel"], expected["metrics"]["count"]
    assert_same(restored, expected)


def test_relative_paths_will_do(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    relative = saved.relative_to(saved.parent)
    assert checkpoint.latest(relative) == 7
    assert_same(checkpoint.restore(relative, 7, tree()), tree())


def test_latest_of_nothing_is_none_and_makes_no_folder(tmp_path):
    assert checkpoint.latest(tmp_path / "none") is None
    assert checkpoint.latest(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@unfinished_reads
def test_two_newest_are_kept(tmp_path):
    for iteration in (3, 10, 25, 100):
        checkpoint.save(tmp_path, iteration, tree(scale=iteration))
        assert checkpoint.latest(tmp_path) == iteration
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [25, 100]
    for iteration in (25, 100):
        assert_same(checkpoint.restore(tmp_path, iteration, tree()), tree(scale=iteration))
    refused(tmp_path, 10, tree())


def test_half_written_checkpoint_is_not_the_latest(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    shutil.copytree(folder / "7", folder / "9.orbax-checkpoint-tmp-1234")
    assert checkpoint.latest(folder) == 7
    assert_same(checkpoint.restore(folder, 7, tree()), tree())


@unfinished_reads
@pytest.mark.parametrize("damage", ["delete", "halve", "empty"])
def test_damaged_checkpoint_is_refused_or_harmless(damage, saved, tmp_path):
    files = [path.relative_to(saved) for path in sorted(saved.rglob("*")) if path.is_file()]
    refusals = []
    for i, file in enumerate(files):
        folder = tmp_path / str(i)
        shutil.copytree(saved, folder)
        content = (folder / file).read_bytes()
        (folder / file).unlink()
        if damage != "delete":
            (folder / file).write_bytes(content[: len(content) // 2 if damage == "halve" else 0])
        try:
            assert_same(checkpoint.restore(folder, 7, tree()), tree())
        except ValueError:
            refusals.append(file)
            refused(folder, 7, tree())
    # Some files are copies or notes. The largest holds the numbers.
    largest = max(files, key=lambda file: (saved / file).stat().st_size)
    assert largest in refusals and len(refusals) >= 3


@unfinished_reads
def test_checkpoint_without_its_content_is_refused(saved, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(saved, folder)
    shutil.rmtree(folder / "7" / "default")
    refused(folder, 7, tree())
    refused(folder, 8, tree())


@unfinished_reads
@pytest.mark.parametrize("change", ["shape", "rank", "key", "more", "fewer", "nested"])
def test_foreign_checkpoint_is_refused(change, saved):
    like = shapes(tree())
    states = like["states"]
    if change == "shape":
        states["kernel"] = jax.ShapeDtypeStruct((3, 40, 9), jnp.float32)
    elif change == "rank":
        states["iteration"] = jax.ShapeDtypeStruct((), jnp.int32)
    elif change == "key":
        states["keys"] = jax.ShapeDtypeStruct((3, 2), jnp.uint32)
    elif change == "more":
        states["another"] = jax.ShapeDtypeStruct((3,), jnp.float32)
    elif change == "fewer":
        del states["filled"]
    else:
        states["kernel"] = {"kernel": states["kernel"]}
    refused(saved, 7, like)


@unfinished_reads
def test_reads_that_end_after_a_refusal_are_not_told_of(tmp_path, monkeypatch):
    """Without care for them, about one in eight of these was."""
    told, arrays = [], {str(i): np.ones((6, 8)) for i in range(60)}
    tell = lambda unraisable: told.append((unraisable.object, str(unraisable.exc_value)))  # noqa: E731
    monkeypatch.setattr(sys, "unraisablehook", tell)
    checkpoint.save(tmp_path, 7, arrays)
    for _ in range(10):
        refused(tmp_path, 7, {name: np.ones((6, 9)) for name in arrays})
    assert (None, "Event loop is closed") not in told
    assert sys.unraisablehook.otherwise is tell
    others = [(None, "another"), ("somebody's", "Event loop is closed")]
    for name, error in others:
        sys.unraisablehook(types.SimpleNamespace(object=name, exc_value=error))
    assert told[-2:] == others
