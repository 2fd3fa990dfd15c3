"""Labels through HTTP by the true reward, as a person would by the page.

python tests/scripted_labeller.py http://127.0.0.1:8000/ RUN
"""

import math
import sys
import time
import urllib.error
from pathlib import Path

from rlhf_jax.labelling.client import Client
from rlhf_jax.labelling.label_store import LabelStore


def better_side(store: LabelStore, pair: dict) -> str:
    """Returns what somebody answers who sees the true reward."""
    first, second = store.segments([pair["id"]])[0]["true_reward"].sum(-1)
    if first == second:
        return "tie"
    return "left" if (first > second) != pair["swapped"] else "right"


def label(address: str, store: LabelStore, count: float = math.inf) -> int:
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
        reply = client.answer(reply["status"], reply["pair"], better_side(store, reply["pair"]))
        given += 1
    return given


if __name__ == "__main__":
    labels = LabelStore(Path(sys.argv[2]) / "labels.sqlite", read_only=True)
    try:
        print(label(sys.argv[1], labels))
    except (urllib.error.URLError, ConnectionError) as error:
        sys.exit(f"the page is gone: {error}")
