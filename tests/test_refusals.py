"""Bad requests: each gets one line, stores nothing, and the next good one is answered."""

import pytest
from services import TAB, Service


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    """A service that is sent all kinds of things: pair 1 is on Bob's screen, pair 2 has his answer."""
    service = Service(tmp_path_factory.mktemp("attacked") / "labels.sqlite", 6)
    two = service.pair("tab-of-bob-2", "bob"), service.pair("tab-of-bob", "bob")
    service.answer(two[1], tab="tab-of-bob", labeller="bob")
    yield service
    service.close()
    service.store.close()


BAD_HEADERS = {
    "a name that was made to point here": (421, {"Host": "evil.example:{port}"}),
    "a name that begins like ours": (421, {"Host": "127.0.0.1.evil.example:{port}"}),
    "a name that ends like ours": (421, {"Host": "evil.example#127.0.0.1:{port}"}),
    "another port": (421, {"Host": "127.0.0.1:1"}),
    "no port": (421, {"Host": "127.0.0.1"}),
    "a port without end": (421, {"Host": "127.0.0.1:" + "1" * 6000}),
    "a port that is none": (421, {"Host": "127.0.0.1:²"}),
    "the port twice": (421, {"Host": "127.0.0.1:{port}:{port}"}),
    "an address of another machine": (421, {"Host": "192.0.2.1:{port}"}),
    "an empty host": (421, {"Host": ""}),
    "no host": (400, {"Host": None}),
    "another site": (403, {"Origin": "http://evil.example"}),
    "another port of this machine": (403, {"Origin": "http://127.0.0.1:1"}),
    "another scheme": (403, {"Origin": "https://127.0.0.1:{port}"}),
    "a file or a sandbox": (403, {"Origin": "null"}),
    "an empty origin": (403, {"Origin": ""}),
    "the other name of this machine": (403, {"Origin": "http://localhost:{port}"}),
    "a cross-site fetch": (403, {"Sec-Fetch-Site": "cross-site"}),
    "a fetch from a neighbour": (403, {"Sec-Fetch-Site": "same-site"}),
}


@pytest.mark.parametrize("case", BAD_HEADERS)
@pytest.mark.parametrize("method, path", [("GET", "/api/status"), ("POST", "/api/pair"), ("GET", "/page.js")])
def test_only_the_page_itself_is_served(attacked, case, method, path):
    status, headers = BAD_HEADERS[case]
    headers = {k: v and v.replace("{port}", str(attacked.port)).encode("latin-1") for k, v in headers.items()}
    body = {"labeller": "eve", "tab": TAB} if method == "POST" else None
    reply = attacked.ask(method, path, body, headers | {"Content-Type": "application/json"})
    assert reply.status == status and reply.error()
    assert attacked.get("/api/status").status == 200


BAD_ADDRESSES = [
    (404, "GET", "/nothing"),
    (404, "GET", "/api"),
    (404, "GET", "/api/"),
    (404, "GET", "/api/status/"),
    (404, "GET", "//api/status"),
    (404, "GET", "/API/status"),
    (404, "GET", "/index.html"),
    (404, "GET", "/page.py"),
    (404, "GET", "/labels.sqlite"),
    (404, "GET", "/../labels.sqlite"),
    (404, "GET", "/../../../../../../etc/passwd"),
    (404, "GET", "/%2e%2e/%2e%2e/etc/passwd"),
    (404, "GET", "/..%2f..%2fetc%2fpasswd"),
    (404, "GET", "/page.js%00.png"),
    (404, "GET", "/page.js/../../application.py"),
    (404, "GET", "//etc/passwd"),
    (404, "GET", "//evil.example/api/status/"),
    (404, "GET", "file:///etc/passwd"),
    (404, "GET", "http://evil.example/"),
    (404, "GET", "/api/clips/1/0"),
    (404, "GET", "/api/clips/1/0.gif"),
    (404, "GET", "/api/clips/1/../../../0.png"),
    (422, "GET", "/api/clips/%2e%2e/0.png"),
    (422, "GET", "/api/clips/1/%2e%2e.png"),
    (404, "GET", "/api/clips/..%2f1/0.png"),
    (422, "GET", "/api/clips/0/0.png"),
    (422, "GET", "/api/clips/7/0.png"),
    (422, "GET", "/api/clips/-1/0.png"),
    (422, "GET", "/api/clips/1/2.png"),
    (422, "GET", "/api/clips/1/-1.png"),
    (422, "GET", "/api/clips/1.0/0.png"),
    (422, "GET", "/api/clips/%D9%A1/0.png"),
    (422, "GET", "/api/clips/" + "1" * 5000 + "/0.png"),
    (422, "GET", "/api/history?limit=-1"),
    (422, "GET", "/api/history?limit=0"),
    (422, "GET", "/api/history?limit=101"),
    (422, "GET", "/api/history?limit=ten"),
    (422, "GET", "/api/history?before=-1"),
    (422, "GET", "/api/history?before=%00"),
    (422, "GET", "/api/history?before=" + "9" * 5000),
    (405, "GET", "/api/pair"),
    (405, "GET", "/api/answer"),
    (405, "GET", "/api/undo"),
    (405, "POST", "/api/status"),
    (405, "POST", "/api/history"),
    (405, "POST", "/api/clips/1/0.png"),
    (405, "POST", "/"),
    (405, "DELETE", "/api/answer"),
    (405, "PUT", "/api/answer"),
    (405, "PATCH", "/api/answer"),
    (405, "OPTIONS", "/api/answer"),
    (405, "TRACE", "/"),
    (405, "BREW", "/"),
    (404, "CONNECT", "evil.example:443"),
]


@pytest.mark.parametrize("status, method, path", BAD_ADDRESSES)
def test_what_is_not_there_is_not_served(attacked, status, method, path):
    reply = attacked.ask(method, path)
    assert reply.status == status and reply.error()
    assert ("allow" in reply.headers) == (status == 405)
    assert attacked.get("/api/status").status == 200


BAD_BODIES = {
    "nothing": (400, b""),
    "no JSON": (400, b"answer=left"),
    "not a number": (400, b'{"pair": NaN}'),
    "no text": (400, b"\xff\xfe\x00"),
    "an array": (400, b"[]"),
    "a word": (400, b'"left"'),
    "deep nesting": (400, b"[" * 4000),
    "deep nesting of a field": (400, b'{"pair":' * 500),
    "too much": (413, b" " * 4097),
    "far too much": (413, b" " * 300_000),
}


@pytest.mark.parametrize("case", BAD_BODIES)
@pytest.mark.parametrize("path", ["/api/answer", "/api/undo", "/api/pair"])
def test_only_requests_of_the_documented_form_are_read(attacked, case, path):
    status, body = BAD_BODIES[case]
    before = attacked.rows()
    reply = attacked.post(path, body)
    assert reply.status == status and reply.error()
    assert attacked.rows() == before and attacked.get("/api/status").status == 200


BAD_ANSWERS = {
    "a pair that is not there": (422, {"pair": 7}),
    "pair 0": (422, {"pair": 0}),
    "a pair in words": (422, {"pair": "1"}),
    "a pair that is true": (422, {"pair": True}),
    "half a pair": (422, {"pair": 1.5}),
    "a list of pairs": (422, {"pair": [1]}),
    "no answer": (422, {"answer": None}),
    "undo as an answer": (422, {"answer": "undo"}),
    "an answer of one's own": (422, {"answer": "both"}),
    "swapped as a number": (422, {"swapped": 0}),
    "change in words": (422, {"change": "true"}),
    "no name": (422, {"labeller": ""}),
    "a name of spaces": (422, {"labeller": "   "}),
    "a long name": (422, {"labeller": "e" * 41}),
    "a name of two lines": (422, {"labeller": "eve\nbob"}),
    "a name that turns the text around": (422, {"labeller": "eve\u202ebob"}),
    "half a character": (422, {"labeller": "\ud800"}),
    "a short tab": (422, {"tab": "t"}),
    "a path as a tab": (422, {"tab": "../../labels.sqlite"}),
    "SQL as a token": (422, {"token": "'; DROP TABLE answers; --"}),
    "one field too many": (400, {"repeat": True}),
    "another run": (409, {"run": "fedcba9876543210", "pair": 4}),
    "clips the other way round": (409, {"pair": 4, "swapped": True}),
    "what another tab shows": (409, {"pair": 1}),
    "a change of what another tab shows": (409, {"pair": 1, "change": True}),
    "what was answered already": (409, {"pair": 2}),
    "a skip of what was answered already": (409, {"pair": 2, "answer": "skip", "change": True}),
}


@pytest.mark.parametrize("case", BAD_ANSWERS)
def test_only_answers_that_make_sense_are_stored(attacked, case):
    status, change = BAD_ANSWERS[case]
    before = attacked.rows()
    reply = attacked.post("/api/answer", attacked.fields(**change))
    assert reply.status == status and reply.error()
    assert attacked.rows() == before == [(2, "left", "bob")]
    assert attacked.get("/api/status").json()["answered"] == 1


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_a_form_of_another_site_is_not_read(attacked, kind):
    reply = attacked.post("/api/answer", attacked.fields(pair=3, swapped=True), Content_Type=kind)
    assert reply.status == 415 and reply.error()
    assert attacked.rows() == [(2, "left", "bob")]


@pytest.mark.parametrize("name", ["run", "pair", "answer", "swapped", "labeller", "tab", "token", "change"])
def test_an_answer_has_every_field(attacked, name):
    fields = attacked.fields(pair=4)
    del fields[name]
    reply = attacked.post("/api/answer", fields)
    assert reply.status == 400 and reply.error() == f"'{name}' is missing"
