"""Clips: a sheet holds the renderer's frames in reading order, and is drawn once."""

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import label_stores
import numpy as np
import pytest
from label_stores import LAYOUT, LENGTH
from PIL import Image

from rlhf_jax.environments import rendering
from rlhf_jax.labelling import clips
from rlhf_jax.labelling.clips import ClipCache

SIZE = 16


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """An environment whose picture is a colour code of all that the renderer is given."""

    def draw(moment, size):
        code = [moment.observation[0] * 50, moment.action * 3, moment.state["board.colour"]]
        picture = np.empty((size, size, 3), np.uint8)
        picture[:] = (np.nan_to_num(code) % 256).astype(np.uint8)
        picture[: size // 2, : size // 2] = 255 * bool(moment.state["board.alive"][3])
        return picture

    monkeypatch.setitem(rendering.RENDERERS, "Tiny", draw)


def segments():
    """One pair, every step of which looks different."""
    record = np.zeros(1, LAYOUT)[0]
    for slot in range(2):
        record["observation"][slot, :, 0] = np.arange(LENGTH) / LENGTH + 3 * slot
        record["action"][slot] = np.arange(LENGTH) + 40 * slot
        record["state.board.colour"][slot] = np.arange(LENGTH) * 20 + slot
        record["state.board.alive"][slot, :, 3] = np.arange(LENGTH) % 2 == slot
    return record


@pytest.mark.parametrize("slot", [0, 1])
def test_a_sheet_holds_the_frames_in_reading_order(slot):
    sheet = Image.open(io.BytesIO(clips.sheet("Tiny", segments(), slot, SIZE)))
    assert sheet.format == "PNG" and sheet.mode == "RGB" and sheet.size == (3 * SIZE, 2 * SIZE)
    picture = np.asarray(sheet)
    frames = rendering.frames("Tiny", clips.moments(segments(), slot), SIZE)
    assert len({frame.tobytes() for frame in frames}) == LENGTH
    across = clips.columns(LENGTH)
    for t, frame in enumerate(frames):
        y, x = SIZE * (t // across), SIZE * (t % across)
        assert (picture[y : y + SIZE, x : x + SIZE] == frame).all()
    assert not picture[SIZE:, 2 * SIZE :].any(), "what is left of the grid is black"


def test_a_sheet_is_of_one_segment():
    record = segments()
    moments = clips.moments(record, 1)
    assert moments.observation.shape == (LENGTH, 3) and moments.action.shape == (LENGTH,)
    assert set(moments.state) == {"time", "board.alive", "board.colour"}
    for values, name in ((moments.action, "action"), (moments.state["board.colour"], "state.board.colour")):
        assert (values == record[name][1]).all()


@pytest.mark.parametrize("frames, across", [(1, 1), (2, 2), (4, 2), (5, 3), (9, 3), (25, 5), (30, 6)])
def test_a_sheet_is_about_square(frames, across):
    assert clips.columns(frames) == across


@pytest.fixture
def drawn():
    """What was drawn, in order."""
    return []


@pytest.fixture
def cache(drawn):
    """A cache over something quick to draw."""

    def draw(pair, slot):
        drawn.append((pair, slot))
        return f"{pair} {slot}".encode()

    cache = ClipCache(draw)
    yield cache
    cache.close()


def test_a_sheet_is_drawn_once(cache, drawn):
    cache.prepare(3)
    cache.prepare(3)
    assert cache.sheet(3, 0).result() == b"3 0" and cache.sheet(3, 1).result() == b"3 1"
    assert cache.sheet(3, 1).result() == b"3 1"
    assert drawn == [(3, 0), (3, 1)]


def test_many_who_want_the_same_sheet_wait_for_one_drawing(cache, drawn):
    with ThreadPoolExecutor(8) as threads:
        sheets = list(threads.map(lambda i: cache.sheet(1 + i % 2, 0).result(), range(64)))
    assert sheets == [b"1 0", b"2 0"] * 32
    assert sorted(drawn) == [(1, 0), (2, 0)]


def test_a_drawing_that_failed_is_tried_again(drawn):
    def draw(pair, slot):
        drawn.append((pair, slot))
        if len(drawn) < 3:
            raise ValueError("no ink")
        return b"picture"

    cache = ClipCache(draw)
    for _ in range(2):
        with pytest.raises(ValueError, match="no ink"):
            cache.sheet(1, 0).result()
    assert cache.sheet(1, 0).result() == cache.sheet(1, 0).result() == b"picture"
    assert drawn == [(1, 0)] * 3
    cache.close()


def test_sheets_that_nobody_looks_at_make_room(cache, drawn, monkeypatch):
    monkeypatch.setattr(clips, "_KEPT", 4)
    for pair in (1, 2, 1, 3):
        cache.prepare(pair)
        cache.sheet(pair, 1).result()
    assert drawn == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    cache.sheet(1, 0).result()
    assert len(drawn) == 6, "it was looked at after pair 2 was"
    cache.sheet(2, 0).result()
    assert drawn[6:] == [(2, 0)]


def test_closing_ends_the_thread():
    before = set(threading.enumerate())
    cache = ClipCache(lambda pair, slot: b"")
    cache.prepare(1)
    (worker,) = set(threading.enumerate()) - before
    cache.close()
    assert not worker.is_alive()


def test_a_pair_of_a_store_is_drawn(tmp_path):
    store = label_stores.make(tmp_path / "labels.sqlite", 2)
    (record,) = store.segments([2])
    assert Image.open(io.BytesIO(clips.sheet("Tiny", record, 0))).size == (3 * clips.SIZE, 2 * clips.SIZE)
    store.close()
