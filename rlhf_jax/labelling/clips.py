"""The clips of a pair as PNG sheets: all frames of one clip in a grid, which the page plays."""

import io
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from PIL import Image

from rlhf_jax.environments import rendering
from rlhf_jax.environments.rendering import Moment
from rlhf_jax.labelling import pairs

SIZE = 192  # pixels; the page enlarges them about twice
_KEPT = 256  # sheets, of about 80 kB each


def moments(record: np.ndarray, slot: int) -> Moment:
    """Returns one segment of a pair, `[L, ...]`, as renderers take it.

    Args:
      record: one record of `pairs.layout`.
      slot: 0 or 1.
    """
    state = {name: values[slot] for name, values in pairs.states(record).items()}
    return Moment(record["observation"][slot], record["action"][slot], state)


def columns(num_frames: int) -> int:
    """Returns how many frames stand side by side in a sheet."""
    return math.ceil(math.sqrt(num_frames))


def sheet(env: str, record: np.ndarray, slot: int, size: int = SIZE) -> bytes:
    """Draws one clip of a pair.

    Args:
      env: name of the environment.
      record: one record of `pairs.layout`.
      slot: 0 or 1.
      size: height and width of a frame in pixels.

    Returns:
      A PNG with `columns` frames in a row, in reading order.
    """
    frames = rendering.frames(env, moments(record, slot), size)
    across = columns(len(frames))
    down = -(-len(frames) // across)
    grid = np.zeros((down * across, size, size, 3), np.uint8)
    grid[: len(frames)] = frames
    picture = grid.reshape(down, across, size, size, 3).swapaxes(1, 2).reshape(down * size, across * size, 3)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=1)
    return file.getvalue()


class ClipCache:
    """Draws sheets on a thread of its own, ahead of time where it is told what will be shown."""

    def __init__(self, draw: Callable[[int, int], bytes]) -> None:
        """Takes the function that draws the sheet of a pair and a slot."""
        self._draw = draw
        self._lock = threading.Lock()
        self._sheets: OrderedDict[tuple[int, int], Future[bytes]] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, "clips")

    def prepare(self, pair: int) -> None:
        """Sees to it that both clips of a pair are drawn soon."""
        for slot in (0, 1):
            self.sheet(pair, slot)

    def sheet(self, pair: int, slot: int) -> Future[bytes]:
        """Returns the sheet, which is there at once if it was prepared; one that failed is tried again."""
        with self._lock:
            key = pair, slot
            if key not in self._sheets or _has_failed(self._sheets[key]):
                self._sheets[key] = self._worker.submit(self._draw, pair, slot)
            self._sheets.move_to_end(key)
            while len(self._sheets) > _KEPT:
                self._sheets.popitem(last=False)
            return self._sheets[key]

    def close(self) -> None:
        """Stops drawing."""
        self._worker.shutdown(cancel_futures=True)


def _has_failed(sheet: Future[bytes]) -> bool:
    return sheet.done() and (sheet.cancelled() or sheet.exception() is not None)
