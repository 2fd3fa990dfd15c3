"""The thread that serves the labelling page beside the training."""

import asyncio
import errno
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from rlhf_jax.labelling import application, security
from rlhf_jax.labelling.application import Page

_STARTUP_SECONDS = 10.0
_SILENT_SECONDS = 10.0  # after which a connection that has asked for nothing is closed, to make room for others
_EVERYWHERE = ("0.0.0.0", "::")


class _Protocol(H11Protocol):
    """Refuses what is not HTTP as everything else is refused, and hangs up on who says nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Gives the new connection some time to send a request."""
        super().connection_made(transport)
        self.loop.call_later(_SILENT_SECONDS, self._hang_up_on_the_silent)

    def _hang_up_on_the_silent(self) -> None:
        if self.cycle is None:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Answers what could not be understood, and hangs up."""
        if self.conn.our_state is h11.IDLE:  # else an answer to what came before is on its way
            refusal = security.refusal(security.Refused(400, "the request is not HTTP"))
            headers = [*self.server_state.default_headers, *refusal.raw_headers, (b"connection", b"close")]
            self.transport.write(self.conn.send(h11.Response(status_code=400, headers=headers)) or b"")
            self.transport.write(self.conn.send(h11.Data(data=bytes(refusal.body))) or b"")
        self.transport.close()


@contextmanager
def serve(page: Page, host: str = "127.0.0.1", port: int = 8000, *, token: str | None = None) -> Iterator[str]:
    """Serves a page from a thread of its own.

    Args:
      page: what to serve.
      host: where to listen. Anything but a loopback address needs a token, which is part of the address of the page.
      port: where to listen; if it is taken, another one is chosen.
      token: the token, where one is needed; a random one if None.

    Yields:
      The address of the page.

    Raises:
      ValueError: it is not possible to listen there.
    """
    listener = _listen(host, port)
    port = listener.getsockname()[1]
    token = None if security.is_loopback(host) else token or secrets.token_urlsafe(16)
    # What the page is made of holds no secret, and a browser cannot send the token along for it.
    public = [path for path in application.static_files() if path != "/"]
    app = security.Guard(application.application(page), host=host, port=port, token=token, open_paths=public)
    config = uvicorn.Config(
        app, http=_Protocol, ws="none", lifespan="off", log_level="error", access_log=False, server_header=False,
        proxy_headers=False, timeout_graceful_shutdown=1, limit_concurrency=256,
        headers=list(security.RESPONSE_HEADERS.items()),
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="page", daemon=True)
    thread.start()
    name = socket.gethostname() if host in _EVERYWHERE else host
    shown = f"[{name}]" if ":" in name else name
    try:
        deadline = time.monotonic() + _STARTUP_SECONDS
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise ValueError(f"the page could not be served on {host}:{port}")
            time.sleep(0.01)
        yield f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
    finally:
        server.should_exit = True
        thread.join(timeout=5.0)
        page.close()


def check_address(host: str, port: int) -> None:
    """Raises ValueError if it is not possible to listen there, or on another port of that host."""
    _listen(host, port).close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in (port, 0):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen()  # Two that are bound but do not listen yet could have the same port.
        except OSError as error:
            listener.close()
            if candidate == 0 or error.errno != errno.EADDRINUSE:
                raise ValueError(f"cannot listen on {host}:{port}: {error.strerror or error}") from None
        else:
            return listener
    raise AssertionError("unreachable")
