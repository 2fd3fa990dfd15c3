"""Small label stores, without an environment behind them."""

import numpy as np

from rlhf_jax.labelling.label_store import Answer, LabelStore, Source

LENGTH = 5
LAYOUT = np.dtype(
    [
        ("observation", np.float32, (2, LENGTH, 3)),
        ("action", np.int32, (2, LENGTH)),
        ("true_reward", np.float32, (2, LENGTH)),
        ("state.time", np.int32, (2, LENGTH)),
        ("state.board.alive", np.bool_, (2, LENGTH, 4)),
        ("state.board.colour", np.uint8, (2, LENGTH)),
    ]
)
INSTRUCTION = '<script>alert("1 & 2")</script> ü'
SOURCE = Source("0123456789abcdef", "Tiny", {"gravity": 9.5, "size": [1, 2]}, LAYOUT, INSTRUCTION)


def noise(dtype, count, seed=0):
    """Records of random bits, so NaN and −0 too; Booleans are 0 or 1."""
    records = np.frombuffer(np.random.default_rng(seed).bytes(count * dtype.itemsize), dtype).copy()
    for name in dtype.names:
        if dtype[name].base == np.bool_:
            records[name] = records[name].view(np.uint8) % 2
    return records


def make(path, count=0, source=SOURCE):
    """A store of so many pairs, every third of which shows slot 1 on the left."""
    store = LabelStore.create(path, source)
    store.ask(noise(source.layout, count), 0, [i % 3 == 2 for i in range(count)])
    return store


def row(pair, answer="left", token=None, **more):
    """An answer to a pair."""
    fields = {
        "swapped": False,
        "repeat": False,
        "labeller": "eve",
        "shown": 10.25,
        "answered": 11.5,
        "iteration": 3,
        "probability": 0.1,
    }
    return Answer(pair, answer, **fields | more, token=token or f"token-{pair}-{answer}")


class Clock:
    """A clock that is set by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now
