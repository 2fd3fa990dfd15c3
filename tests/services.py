"""A served page over a small store, and a client without manners."""

import contextlib
import http.client
import json
import logging
import socket
import urllib.parse

import label_stores
import numpy as np
from label_stores import SOURCE

from rlhf_jax.labelling import security, server
from rlhf_jax.labelling.application import Page, Plan
from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.progress import Progress

TAB = "tab-of-eve"


def draw(moment, size):
    """A picture that costs nothing."""
    return np.full((size, size, 3), moment.state["time"] % 256, np.uint8)


class Reply:
    """What came back: status, headers and body."""

    def __init__(self, response):
        self.status, self.headers, self.body = response.status, response.headers, response.read()
        assert {name: self.headers[name] for name in security.RESPONSE_HEADERS} == security.RESPONSE_HEADERS
        assert all(len(self.headers.get_all(name)) == 1 for name in security.RESPONSE_HEADERS)
        assert "server" not in self.headers

    def json(self):
        """The body as JSON, which says that it is."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)

    def error(self):
        """The one line with which a request was refused."""
        fields = self.json()
        assert 400 <= self.status < 500 and set(fields) == {"error"}
        assert b"\n" not in self.body and fields["error"].isprintable() and 0 < len(fields["error"]) < 300
        return fields["error"]


class Service:
    """A page that is served, and what is behind it."""

    def __init__(self, path, pairs=0, *, store=None, repeat_share=0.0, host="127.0.0.1", port=0):
        self.store = store or label_stores.make(path, pairs)
        self.desk, self.progress = Desk(self.store, repeat_share=repeat_share), Progress()
        self.page = Page(self.store, self.desk, self.progress, Plan(500, 10, 40, synchronous=False))
        self._serving = server.serve(self.page, host, port)
        self.address = self._serving.__enter__()
        parts = urllib.parse.urlsplit(self.address)
        self.port, self.token = parts.port, urllib.parse.parse_qs(parts.query).get("token", [""])[0]
        self.host = f"127.0.0.1:{self.port}"
        self.requests = 0

    def close(self):
        """Stops serving."""
        self._serving.__exit__(None, None, None)

    def ask(self, method, path, body=None, headers=None):
        """Sends one request, on a connection of its own; Host as a browser would unless the headers have another."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with contextlib.closing(connection):
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            body = json.dumps(body).encode() if isinstance(body, (dict, list)) else body
            headers = (
                {"Host": self.host} | ({"Content-Length": str(len(body))} if body is not None else {}) | (headers or {})
            )
            for name, value in headers.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            return Reply(connection.getresponse())

    def get(self, path, **headers):
        """A GET, as the page does it."""
        return self.ask("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, path, fields, **headers):
        """A POST, as the page does it."""
        headers = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        return self.ask("POST", path, fields, headers)

    def pair(self, tab=TAB, labeller="eve"):
        """The pair that a tab shows, as the page is told."""
        return self.post("/api/pair", {"labeller": labeller, "tab": tab}).json()["pair"]

    def fields(self, **change):
        """An answer to the first pair."""
        self.requests += 1
        fields = {"run": SOURCE.run, "pair": 1, "answer": "left", "swapped": False, "labeller": "eve", "tab": TAB}
        return fields | {"token": f"request-{self.requests}", "change": False} | change

    def answer(self, pair, answer="left", tab=TAB, labeller="eve"):
        """Answers a pair as the page does."""
        change = {"pair": pair["id"], "swapped": pair["swapped"], "answer": answer, "tab": tab, "labeller": labeller}
        return self.post("/api/answer", self.fields(**change))

    def rows(self):
        """All that is stored."""
        return [(row.pair, row.answer, row.labeller) for row in self.store.answers()]


def raw(port, data, patience=10.0):
    """What comes back for these bytes until the server hangs up or says no more."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as connection:
        connection.sendall(data)
        received = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
        return received


POST = b"POST /api/pair HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"


@contextlib.contextmanager
def written(caplog):
    """What servers write on the terminal."""
    caplog.set_level(logging.WARNING)
    logging.getLogger("uvicorn").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("uvicorn").removeHandler(caplog.handler)
