"""Labelling by program: what the page in a browser does, without one."""

import json
import urllib.request
import uuid
from typing import Any


class Client:
    """Somebody at a screen. Raises `urllib.error.HTTPError` where the server refuses."""

    def __init__(self, address: str, labeller: str = "program") -> None:
        """Takes the address of the page, as it was printed, and a name."""
        self._address, _, self._token = address.rstrip("/").partition("/?token=")
        self._labeller, self._tab = labeller, uuid.uuid4().hex

    def pair(self) -> dict[str, Any]:
        """Returns the `pair` to look at, None if there is none just now, and the `status` of the run."""
        return self._post("/api/pair")

    def answer(
        self, status: dict[str, Any], pair: dict[str, Any], answer: str, *, token: str | None = None
    ) -> dict[str, Any]:
        """Answers a pair; returns what `pair` does, and the model's `probability` that the left clip is better.

        Args:
          status: of the run.
          pair: as it was handed out.
          answer: "left", "right", "tie", "cannot_tell" or "skip".
          token: names the request, so that it can be sent again; a random one if None.
        """
        token = token or uuid.uuid4().hex
        about = {"run": status["run"], "pair": pair["id"], "swapped": pair["swapped"]}
        return self._post("/api/answer", answer=answer, token=token, change=False, **about)

    def get(self, path: str) -> bytes:
        """Returns what is at a path of the page, such as `pair["left"]`, a PNG."""
        return self._request(path, None)

    def _post(self, path: str, **fields: object) -> dict[str, Any]:
        body = {"labeller": self._labeller, "tab": self._tab, **fields}
        return json.loads(self._request(path, json.dumps(body).encode()))

    def _request(self, path: str, body: bytes | None) -> bytes:
        headers = {"Content-Type": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._address + path, body, headers)
        with urllib.request.urlopen(request, timeout=30.0) as response:
            return response.read()
