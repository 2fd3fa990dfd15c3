"""Labels through HTTP by the true reward, as a person would by the page.

python tests/scripted_labeller.py http://127.0.0.1:8000/ RUN
"""

import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from rlhf_jax.labelling.label_store import LabelStore


class Client:
    """Somebody with a browser."""

    def __init__(self, address: str, labeller: str = "script") -> None:
        self.address, _, self._token = address.partition("?token=")
        self.labeller, self.tab = labeller, uuid.uuid4().hex

    def get(self, path: str) -> bytes:
        """Returns what a GET returns."""
        return self._request(path, None)

    def post(self, path: str, **fields: object) -> dict:
        """Returns what a POST of these fields by this labeller returns."""
        body = {"labeller": self.labeller, "tab": self.tab, **fields}
        return json.loads(self._request(path, json.dumps(body).encode()))

    def _request(self, path: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"} | (
            {"Authorization": f"Bearer {self._token}"} if self._token else {}
        )
        request = urllib.request.Request(self.address.rstrip("/") + path, body, headers)
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read()

    def answer(self, status: dict, pair: dict, answer: str, **more: object) -> dict:
        """Answers a pair."""
        fields = {"pair": pair["id"], "swapped": pair["swapped"], "token": uuid.uuid4().hex, "change": False, **more}
        return self.post("/api/answer", run=status["run"], answer=answer, **fields)


def better_side(store: LabelStore, pair: dict) -> str:
    """Returns what somebody answers who sees the true reward."""
    first, second = store.segments([pair["id"]])[0]["true_reward"].sum(-1)
    if first == second:
        return "tie"
    return "left" if (first > second) != pair["swapped"] else "right"


def label(address: str, store: LabelStore, labeller: str = "script") -> int:
    """Answers until the training is done; returns how many answers were given."""
    client, given = Client(address, labeller), 0
    reply = client.post("/api/pair")
    while reply["status"]["phase"] not in ("finished", "stopped"):
        if reply["pair"] is None:
            time.sleep(0.02)
            reply = client.post("/api/pair")
            continue
        client.get(reply["pair"]["left"])
        client.get(reply["pair"]["right"])
        reply = client.answer(reply["status"], reply["pair"], better_side(store, reply["pair"]))
        given += 1
    return given


if __name__ == "__main__":
    folder = Path(sys.argv[2]) / "labels.sqlite"
    try:
        print(label(sys.argv[1], LabelStore(folder, read_only=True)))
    except (urllib.error.URLError, ConnectionError) as error:
        sys.exit(f"the page is gone: {error}")
