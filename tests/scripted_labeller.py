"""Labels through HTTP as a person would by the page: by the true reward, or by how often an agent does something.

    python tests/scripted_labeller.py http://127.0.0.1:8000/ RUN
    python tests/scripted_labeller.py http://127.0.0.1:8000/ RUN 1 7 8

Numbers are actions that are liked, such as those of Enduro that accelerate. They stand for a person who likes speed:
the score says nothing until a car is passed, which chance hardly ever does. Clips are fetched, answers go by what is
stored.
"""

import math
import sys
import time
import urllib.error
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rlhf_jax.labelling.client import Client
from rlhf_jax.labelling.label_store import LabelStore


def better_side(store: LabelStore, pair: dict, liked: Sequence[int] = ()) -> str:
    """Returns what somebody answers who sees the true reward, or who likes these actions."""
    record = store.segments([pair["id"]])[0]
    first, second = (np.isin(record["action"], liked) if liked else record["true_reward"]).sum(-1)
    if first == second:
        return "tie"
    return "left" if (first > second) != pair["swapped"] else "right"


def label(address: str, store: LabelStore, count: float = math.inf, liked: Sequence[int] = ()) -> int:
    """Answers until the training is done, or so many pairs; returns how many answers were given."""
    client, given = Client(address), 0
    reply = client.pair()
    while given < count and reply["status"]["phase"] not in ("finished", "stopped"):
        if reply["pair"] is None:
            time.sleep(0.02)
            reply = client.pair()
            continue
        client.get(reply["pair"]["left"])
        client.get(reply["pair"]["right"])
        reply = client.answer(reply["status"], reply["pair"], better_side(store, reply["pair"], liked))
        given += 1
    return given


if __name__ == "__main__":
    labels = LabelStore(Path(sys.argv[2]) / "labels.sqlite", read_only=True)
    try:
        print(label(sys.argv[1], labels, liked=[int(action) for action in sys.argv[3:]]))
    except (urllib.error.URLError, ConnectionError) as error:
        sys.exit(f"the page is gone: {error}")
