"""What every request must be before the page looks at it, and what every response says to the browser."""

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BODY = 4096  # bytes; an answer is a tenth of that
BODY_SECONDS = 10.0

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
RESPONSE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # A clip of pair 1 of the next run has the same address.
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not answered; the message says why, the status is a 4xx."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def refusal(error: Refused) -> JSONResponse:
    """Returns the response to a refused request."""
    return JSONResponse({"error": str(error)}, error.status)


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """Lets through what comes from the page itself, or from a program that holds the token.

    A browser that was lured to another site can send requests to this machine, too. They carry that site's name: as
    Host if it made its name point here (DNS rebinding), as Origin if its script posts across. Neither is let through.
    """

    def __init__(self, app: ASGIApp, *, host: str, port: int, token: str | None, open_paths: Iterable[str]) -> None:
        """Takes the application, where it listens, the token that is needed, if any, and what needs no token."""
        self._app, self._host, self._port, self._token = app, host, port, token
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers or refuses one request."""
        app = self._app
        try:
            self._check(scope)
        except Refused as error:
            app = refusal(error)
        await app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_ours(host):
            raise Refused(421, f"this server is not {host[:100]!r}")
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            raise Refused(403, f"requests from {origin[:100]!r} are not answered")
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and scope["path"] != "/":
            raise Refused(403, "requests from other sites are not answered")
        if self._token is not None and scope["path"] not in self._open_paths:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            given = given or Request(scope).query_params.get("token", "")
            if not hmac.compare_digest(given.encode(), self._token.encode()):
                raise Refused(401, "the token in the address is missing or wrong; it was printed when the run started")

    def _is_ours(self, host: str) -> bool:
        host = host.lower()
        name = host.removesuffix(f":{self._port}")
        if name == host and self._port != 80:  # the one port that browsers leave out
            return False
        if name in _LOOPBACK:
            return True
        if is_loopback(self._host):
            return False
        # Whoever rebinds a name cannot rebind an address, and a machine's own name only on its own network.
        return name in (self._host.lower(), socket.gethostname().lower()) or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


async def read_body(request: Request) -> bytes:
    """Returns the body of a request.

    Raises:
      Refused: it is larger than any that makes sense, or does not come.
    """
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise Refused(413, f"the request has more than {MAX_BODY} bytes")
    except (TimeoutError, ClientDisconnect):
        raise Refused(408, "the request was cut off") from None
    return body
