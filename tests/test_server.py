"""The page's server, over a socket: what it answers, and that it ends as it should."""

import http.client
import queue
import socket
import threading
import time

import label_stores
import pytest
from label_stores import INSTRUCTION, LENGTH, SOURCE
from services import POST, TAB, Service, draw, written

from rlhf_jax.environments import rendering
from rlhf_jax.labelling import clips, server
from rlhf_jax.labelling.desk import REPEAT_AFTER
from rlhf_jax.labelling.label_store import LabelStore


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The stores' environment can be drawn."""
    monkeypatch.setitem(rendering.RENDERERS, "Tiny", draw)


@pytest.fixture
def terminal(caplog):
    """What the server writes on the terminal."""
    with written(caplog) as terminal:
        yield terminal


@pytest.fixture
def service(tmp_path):
    service = Service(tmp_path / "labels.sqlite", 4)
    yield service
    service.close()
    service.store.close()


def test_the_page_says_what_is_going_on(service):
    service.progress.say("initial", "Training begins after 10 initial labels.")
    service.answer(service.pair())
    status = service.get("/api/status").json()
    assert status.pop("seconds") >= 0.0
    assert status == {
        "run": SOURCE.run,
        "env": "Tiny",
        "instruction": INSTRUCTION,
        "legend": "",
        "mode": "asynchronous",
        "answered": 1,
        "budget": 500,
        "waiting": 3,
        "initial_missing": 9,
        "iterations": 40,
        "fps": 20,
        "repeats": {"shown": 0, "agreed": 0},
        "sureness": [None],
        "phase": "initial",
        "message": "Training begins after 10 initial labels.",
        "iteration": 0,
        "series": {"iteration": [], "predicted_return": [], "labels": []},
    }


def test_a_pair_comes_with_its_clips(service):
    shown = [service.pair(f"tab-{number:05}", "eve") for number in range(4)]
    assert [pair["id"] for pair in shown] == [1, 2, 3, 4]
    assert shown[2] == {
        "id": 3,
        "swapped": True,
        "left": "/api/clips/3/1.png",
        "right": "/api/clips/3/0.png",
        "frames": LENGTH,
        "columns": 3,
        "size": clips.SIZE,
    }
    for pair in shown:
        slots = (1, 0) if pair["swapped"] else (0, 1)
        for side, slot in zip(("left", "right"), slots, strict=True):
            reply = service.get(pair[side])
            assert reply.headers["content-type"] == "image/png"
            assert reply.body == clips.sheet("Tiny", service.store.segments([pair["id"]])[0], slot)
    assert service.pair("another-tab") is None


def test_an_answer_brings_the_next_pair_and_what_the_model_thought(service):
    service.desk.tell(7, {1: 0.25, 3: 0.25})
    pair = service.pair()
    reply = service.answer(pair, "right").json()
    assert set(reply) == {"probability", "pair", "status"}
    assert reply["probability"] == 0.25 and reply["pair"]["id"] == 2
    assert reply["status"]["sureness"] == [0.75], "the right clip was slot 1"
    reply = service.answer(reply["pair"]).json()
    assert reply["probability"] is None and reply["status"]["sureness"] == [0.75, None]
    reply = service.answer(reply["pair"], "left").json()
    assert reply["probability"] == 0.75 and reply["status"]["sureness"] == [0.75, None, 0.75], "the clips were swapped"
    assert [row.label for row in service.store.answers()] == [0.0, 1.0, 0.0]


def test_an_answer_that_is_sent_again_is_stored_once(service):
    service.pair()
    fields = service.fields()
    first, again = (service.post("/api/answer", fields).json() for _ in range(2))
    assert first["pair"] == again["pair"] and first["pair"]["id"] == 2
    assert service.rows() == [(1, "left", "eve")]
    assert service.post("/api/answer", fields | {"answer": "right"}).status == 409


def test_undo_brings_the_pair_back(service):
    undo = {"run": SOURCE.run, "labeller": "eve", "tab": TAB, "token": "undo-0001"}
    assert service.post("/api/undo", undo).json()["pair"] is None
    pair = service.pair()
    service.answer(pair, "tie")
    for _ in range(2):
        reply = service.post("/api/undo", undo).json()
        assert reply["pair"] == pair and reply["status"]["answered"] == 0
    assert service.rows() == [(1, "tie", "eve"), (1, "undo", "eve")]


def test_the_history_is_read_page_by_page_and_changed(service):
    for answer in ("left", "tie", "right", "cannot_tell"):
        service.answer(service.pair(), answer)
    whole = service.get("/api/history").json()
    assert [(past["pair"], past["answer"]) for past in whole["answers"]] == [
        (4, "cannot_tell"),
        (3, "right"),
        (2, "tie"),
        (1, "left"),
    ]
    assert whole["more"] is False
    past = whole["answers"][1]
    assert set(past) >= {"id", "answered", "labeller", "probability", "left", "right", "swapped", "frames"}
    assert past["swapped"] is True and past["left"] == "/api/clips/3/1.png"
    page = service.get("/api/history?limit=3").json()
    assert page["answers"] == whole["answers"][:3] and page["more"] is True
    rest = service.get(f"/api/history?limit=3&before={page['answers'][-1]['id']}").json()
    assert rest == {"answers": whole["answers"][3:], "more": False}
    change = service.fields(pair=3, answer="left", swapped=True, change=True)
    assert service.post("/api/answer", change).status == 200
    newest = service.get("/api/history?limit=1").json()["answers"]
    assert [(past["pair"], past["answer"]) for past in newest] == [(3, "left")]


def test_what_people_write_is_only_ever_text(service):
    name = "<img src=x onerror=alert(1)>"
    service.answer(service.pair(labeller=name), labeller=f" {name}  ")
    for path in ("/api/status", "/api/history"):
        reply = service.get(path)
        assert reply.headers["content-type"] == "application/json"
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.json()["answers"][0]["labeller"] == name
    assert INSTRUCTION.encode() not in service.get("/").body


def test_a_repeat_looks_like_any_other_pair(tmp_path):
    service = Service(tmp_path / "labels.sqlite", 30, repeat_share=1.0)
    first = service.pair()
    for _ in range(REPEAT_AFTER + 1):
        service.answer(service.pair())
    again = service.pair()
    assert again["id"] == first["id"] and again["swapped"] != first["swapped"]
    assert again["left"] == first["right"] and set(again) == set(first)
    status = service.answer(again, "right").json()["status"]
    assert status["repeats"] == {"shown": 1, "agreed": 1} and status["answered"] == REPEAT_AFTER + 1
    assert [past["pair"] for past in service.get("/api/history").json()["answers"]] == list(range(11, 0, -1))
    service.close()
    service.store.close()


def test_a_renderer_that_fails_is_an_error_of_one_picture(service, monkeypatch, terminal):
    def broken(moment, size):
        raise RuntimeError("no ink")

    service.store.ask(label_stores.noise(SOURCE.layout, 1), 0, [False])
    monkeypatch.setitem(rendering.RENDERERS, "Tiny", broken)
    reply = service.get("/api/clips/5/0.png")  # the others were drawn when the page was made
    assert reply.status == 500 and set(reply.json()) == {"error"} and b"no ink" not in reply.body
    assert service.answer(service.pair()).status == 200
    deadline = time.monotonic() + 20.0
    while "no ink" not in terminal.text:
        assert time.monotonic() < deadline, "the terminal says more"
        time.sleep(0.01)
    monkeypatch.setitem(rendering.RENDERERS, "Tiny", draw)
    assert service.get("/api/clips/1/0.png").status == 200


def test_slow_pictures_do_not_hold_up_answers(service, monkeypatch):
    going = threading.Event()

    def slow(moment, size):
        going.wait(20.0)
        return draw(moment, size)

    monkeypatch.setitem(rendering.RENDERERS, "Tiny", slow)
    pair = service.pair()
    threads = [threading.Thread(target=service.get, args=(f"/api/clips/{1 + i % 4}/0.png",)) for i in range(60)]
    for thread in threads:
        thread.start()
    try:
        assert service.answer(pair).status == 200
        assert not going.is_set()
    finally:
        going.set()
    for thread in threads:
        thread.join(timeout=20.0)
    assert not any(thread.is_alive() for thread in threads)


def test_a_full_disk_confirms_nothing(service):
    pair = service.pair()
    service.store._db.execute(f"PRAGMA max_page_count = {service.store._db.execute('PRAGMA page_count').fetchone()[0]}")
    fields = service.fields()
    status, given = 200, 0
    while status == 200 and given < 4:
        reply = service.answer(service.pair(), labeller="e" * 40)
        status, given = reply.status, given + (reply.status == 200)
    while status == 200:
        long = service.fields(answer="tie", change=True, labeller="e" * 40)
        status = service.post("/api/answer", long | {"token": f"{service.requests:064}"}).status
        given += status == 200
    assert status == 500 and len(service.rows()) == given and pair["id"] == 1
    assert service.get("/api/status").status == 200
    service.store._db.execute("PRAGMA max_page_count = 100000")
    assert service.post("/api/answer", fields | {"change": True}).status == 200
    assert len(LabelStore(service.store.path, read_only=True).answers()) == given + 1


def test_a_port_that_is_taken_is_left_alone(service):
    other = Service(service.store.path, store=service.store, port=service.port)
    assert other.port != service.port
    assert other.get("/api/status").status == service.get("/api/status").status == 200
    other.close()


def test_a_port_that_is_only_bound_is_taken_too(tmp_path):
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", 0))
        first = server._listen("127.0.0.1", bound.getsockname()[1])
        second = server._listen("127.0.0.1", bound.getsockname()[1])
        assert first.getsockname()[1] != second.getsockname()[1]
        first.close()
        second.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "not a host", "x" * 100])
def test_where_nobody_can_listen_is_one_line(service, host):
    with pytest.raises(ValueError) as error, server.serve(service.page, host, 0):
        pass
    assert "\n" not in str(error.value)


def serving():
    """The threads of the pages that are being served."""
    return [thread for thread in threading.enumerate() if thread.name == "page" or thread.name.startswith("clips")]


def test_closing_ends_everything_and_the_port_is_free_at_once(tmp_path):
    before = serving()
    service = Service(tmp_path / "labels.sqlite", 3)
    pair, port = service.pair(), service.port
    idle = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    idle.request("GET", "/api/status")
    idle.getresponse().read()
    service.answer(pair)
    service.close()
    assert not [thread for thread in serving() if thread not in before]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    again = Service(service.store.path, store=service.store, port=port)
    assert again.port == port, "although connections to the old one are still winding down"
    assert again.pair()["id"] == 2 and again.get("/api/status").json()["answered"] == 1
    idle.close()
    again.close()
    service.store.close()


def test_a_request_that_hangs_does_not_hold_up_the_end(tmp_path):
    before = serving()
    service = Service(tmp_path / "labels.sqlite", 1)
    with socket.create_connection(("127.0.0.1", service.port)) as hanging:
        hanging.sendall(POST.replace(b"{host}", service.host.encode()) + b"Content-Length: 50\r\n\r\n{")
        assert service.get("/api/status").status == 200
        service.close()
        assert not [thread for thread in serving() if thread not in before]
    service.store.close()


def test_a_tab_that_is_left_gives_its_pair_back(service):
    first = service.pair()
    assert service.pair(tab="tab-of-adam")["id"] != first["id"]
    assert service.post("/api/leave", {"tab": TAB}).json() == {}
    assert service.pair(tab="tab-of-lilith")["id"] == first["id"]
    assert service.post("/api/leave", {"tab": "tab-of-nobody"}).json() == {}


def test_clips_are_drawn_before_anybody_asks_for_them(tmp_path, monkeypatch):
    drawn = queue.SimpleQueue()
    monkeypatch.setattr(clips, "sheet", lambda env, record, slot: drawn.put(slot) or b"")
    service = Service(tmp_path / "labels.sqlite", 1)
    assert [drawn.get(timeout=20.0) for _ in range(2)] == [0, 1]
    service.desk.ask(service.store.ask(label_stores.noise(SOURCE.layout, 1), 0, [False]))
    assert [drawn.get(timeout=20.0) for _ in range(2)] == [0, 1]
    service.close()
    service.store.close()
