"""What is no request at all, connections that break, and who may talk to the server."""

import contextlib
import json
import socket
import urllib.parse

import pytest
from services import POST, TAB, Service, draw, raw, written

from rlhf_jax.environments import rendering
from rlhf_jax.labelling import security, server
from rlhf_jax.labelling.application import static_files


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The stores' environment can be drawn."""
    monkeypatch.setitem(rendering.RENDERERS, "Tiny", draw)


@pytest.fixture
def terminal(caplog):
    """What the server writes on the terminal."""
    with written(caplog) as terminal:
        yield terminal


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A service that is sent all kinds of things."""
    service = Service(tmp_path_factory.mktemp("attacked") / "labels.sqlite", 1)
    yield service
    service.close()
    service.store.close()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A service that other machines could reach."""
    service = Service(tmp_path_factory.mktemp("guarded") / "labels.sqlite", 2, host="0.0.0.0")
    yield service
    service.close()
    service.store.close()


NOT_HTTP = {
    "noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) + b"\r\n\r\n",
    "words": b"hello\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "a negative length": b"POST /api/pair HTTP/1.1\r\nHost: {host}\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"POST /api/pair HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "two hosts": b"GET /api/status HTTP/1.1\r\nHost: {host}\r\nHost: evil.example\r\n\r\n",
    "an unknown coding": b"POST /api/pair HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: zip\r\n\r\n",
    "a header without end": b"GET / HTTP/1.1\r\nHost: {host}\r\nX: " + b"x" * 70_000,
    "a folded host": b"GET / HTTP/1.1\r\n Host: {host}\r\n\r\n",
    "spaces in the path": b"GET /api/ status HTTP/1.1\r\nHost: {host}\r\n\r\n",
}


@pytest.mark.parametrize("case", NOT_HTTP)
def test_what_is_not_http_is_refused_like_all_else(attacked, case, terminal):
    received = raw(attacked.port, NOT_HTTP[case].replace(b"{host}", attacked.host.encode()))
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    for name, value in security.RESPONSE_HEADERS.items():
        assert f"{name}: {value}".lower().encode() in head.lower()
    assert set(json.loads(body)) == {"error"}
    assert attacked.get("/api/status").status == 200
    assert not terminal.records


def test_http_of_old_needs_a_host_too(attacked):
    received = raw(attacked.port, b"GET /api/status HTTP/1.0\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 421 ") and b"content-security-policy: " in received


def test_a_body_in_pieces_is_read_up_to_the_limit(attacked):
    good = json.dumps({"labeller": "eve", "tab": TAB}).encode()
    chunks = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in good) + b"0\r\n\r\n"
    start = POST.replace(b"{host}", attacked.host.encode()) + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert raw(attacked.port, start + chunks).startswith(b"HTTP/1.1 200 ")
    assert raw(attacked.port, start + (b"400\r\n" + b" " * 0x400 + b"\r\n") * 5).startswith(b"HTTP/1.1 413 ")


def test_a_piece_that_is_none_hangs_up(attacked, terminal):
    start = POST.replace(b"{host}", attacked.host.encode()) + b"Transfer-Encoding: chunked\r\n\r\n"
    raw(attacked.port, start + b"zzz\r\nnothing\r\n")
    assert attacked.get("/api/status").status == 200
    assert not terminal.records


def test_a_body_that_never_comes_is_not_waited_for(attacked, monkeypatch, terminal):
    monkeypatch.setattr(security, "BODY_SECONDS", 0.2)
    start = POST.replace(b"{host}", attacked.host.encode())
    assert b" 408 " in raw(attacked.port, start + b"Connection: close\r\nContent-Length: 50\r\n\r\n{").splitlines()[0]
    assert not terminal.records


def test_a_browser_that_leaves_in_the_middle_is_no_error(attacked, terminal):
    start = POST.replace(b"{host}", attacked.host.encode())
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", attacked.port)) as connection:
            connection.sendall(start + b'Content-Length: 50\r\n\r\n{"labeller"')
        with socket.create_connection(("127.0.0.1", attacked.port)) as connection:
            connection.sendall(b"GET /api/clips/1/0.png HTTP/1.1\r\nHost: " + attacked.host.encode() + b"\r\n\r\n")
    assert attacked.get("/api/status").status == 200
    assert not terminal.records


def test_connections_that_say_nothing_do_not_keep_others_out(attacked):
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", attacked.port)))
        assert attacked.get("/api/status").status == 200


def test_one_connection_carries_many_requests(attacked):
    one = b"GET /api/status HTTP/1.1\r\nHost: " + attacked.host.encode() + b"\r\n"
    received = raw(attacked.port, (one + b"\r\n") * 5 + one + b"Connection: close\r\n\r\n")
    assert received.count(b"HTTP/1.1 200 OK") == 6


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_the_page_itself_is_answered(attacked, site):
    headers = {"Origin": f"http://{attacked.host}", "Sec-Fetch-Site": site}
    assert attacked.ask("GET", "/api/status", headers=headers).status == 200
    localhost = {"Host": f"LOCALHOST:{attacked.port}", "Origin": f"http://LOCALHOST:{attacked.port}"}
    assert attacked.ask("GET", "/api/status", headers=localhost).status == 200


def test_a_link_to_the_page_may_be_followed(attacked):
    assert attacked.get("/", Sec_Fetch_Site="cross-site").status == 200


def test_the_page_is_made_of_its_own_files(attacked):
    files = static_files()
    assert {"/", "/page.js", "/page.css"} <= files.keys()
    for path, (content, kind) in files.items():
        reply = attacked.get(path)
        assert reply.status == 200 and reply.body == content
        assert reply.headers["content-type"].split(";")[0] == kind
    assert attacked.get("/").headers["content-type"] == "text/html; charset=utf-8"
    assert attacked.ask("HEAD", "/").body == b""


@pytest.mark.parametrize("path", ["/", "/api/status", "/api/history", "/api/clips/1/0.png", "/nothing"])
def test_another_machine_needs_the_token(guarded, path):
    expected = 404 if path == "/nothing" else 200
    assert len(guarded.token) > 16
    wrong = guarded.token[:-1] + ("a" if guarded.token[-1] != "a" else "b")
    assert guarded.get(path).status == 401 and guarded.get(path).error()
    for token in (wrong, "", guarded.token + "x", guarded.token[:-1], "%ED%A0%80", "ü"):
        assert guarded.get(path, Authorization=f"Bearer {token}").status == 401
        assert guarded.get(f"{path}?token={urllib.parse.quote(token)}").status == 401
    assert guarded.get(path, Authorization=f"Bearer {guarded.token}").status == expected
    assert guarded.get(f"{path}?token={guarded.token}").status == expected
    assert guarded.get(path, Authorization=f"Bearer {wrong}").error().count(guarded.token) == 0


def test_an_answer_of_another_machine_needs_the_token(guarded):
    fields = guarded.fields()
    assert guarded.post("/api/answer", fields).status == 401
    assert guarded.rows() == []
    assert guarded.post("/api/answer", fields, Authorization=f"Bearer {guarded.token}").status == 200
    assert guarded.rows() == [(1, "left", "eve")]


def test_what_the_page_is_made_of_needs_no_token(guarded):
    for path in static_files().keys() - {"/"}:
        assert guarded.get(path).status == 200
        assert guarded.get(f"/{path}").status == 401


def test_other_machines_may_use_an_address_but_no_name(guarded):
    token = {"Authorization": f"Bearer {guarded.token}"}
    for name in ("192.0.2.1", "[2001:db8::1]", "localhost", "0.0.0.0", socket.gethostname()):
        assert guarded.ask("GET", "/api/status", headers=token | {"Host": f"{name}:{guarded.port}"}).status == 200
    for name in ("evil.example", "192.0.2.1.evil.example", "[evil]", ""):
        reply = guarded.ask("GET", "/api/status", headers=token | {"Host": f"{name}:{guarded.port}"})
        assert reply.status == 421 and reply.error()


def test_who_says_nothing_makes_room_for_others(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_SILENT_SECONDS", 0.1)
    service = Service(tmp_path / "labels.sqlite", 1)
    with contextlib.ExitStack() as stack:
        address = ("127.0.0.1", service.port)
        silent = [stack.enter_context(socket.create_connection(address, timeout=20.0)) for _ in range(300)]
        assert [connection.recv(1) for connection in silent] == [b""] * 300
        assert service.get("/api/status").status == 200
    service.close()
    service.store.close()
