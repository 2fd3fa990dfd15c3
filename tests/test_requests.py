"""What the page may send: each field is what it says, or one line says why not."""

import json
import sys

import pytest

from rlhf_jax.labelling import requests, security
from rlhf_jax.labelling.security import Refused

GOOD = {
    "run": "0123456789abcdef",
    "pair": 1,
    "answer": "left",
    "swapped": False,
    "labeller": "eve",
    "tab": "tab-of-eve",
    "token": "token_of-1",
    "change": False,
}
FIELDS = tuple(GOOD)


def refused(body, content_type="application/json", names=FIELDS):
    """Status and the one line with which a request is refused."""
    with pytest.raises(Refused) as error:
        requests.parse(body if isinstance(body, bytes) else json.dumps(body).encode(), content_type, names)
    assert "\n" not in str(error.value) and str(error.value).isprintable() and len(str(error.value)) < 250
    return error.value.status, str(error.value)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"labeller": "Zoë O'Hara <b>"},
        {"labeller": "x" * 40},
        {"labeller": "  eve "},
        {"answer": "skip"},
        {"answer": "cannot_tell"},
        {"pair": 2**31 - 1},
        {"token": "a" * 64},
        {"swapped": True, "change": True},
    ],
)
@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8"])
def test_what_fits_is_returned(change, content_type):
    assert requests.parse(json.dumps(GOOD | change).encode(), content_type, FIELDS) == GOOD | change


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [None, "", [], ["left"], {}, 1.0, -1, 0, 10**400, "\0", "a\nb", "\ud800", "\u202e"])
def test_every_field_has_its_type(name, value):
    status, line = refused(GOOD | {name: value})
    assert status == 422 and line.startswith(f"{name} = ")


@pytest.mark.parametrize(
    "name, value",
    [
        ("pair", True),
        ("pair", "1"),
        ("pair", 2**31),
        ("swapped", 1),
        ("change", "false"),
        ("answer", "undo"),
        ("answer", "Left"),
        ("labeller", "x" * 41),
        ("labeller", " \t "),
        ("labeller", "eve\u200b"),
        ("tab", "short"),
        ("tab", "x" * 65),
        ("tab", "../../../etc/passwd"),
        ("token", "with space"),
        ("token", "ümlautümlaut"),
        ("token", "newline-\n"),
        ("run", "another run"),
    ],
)
def test_every_field_has_its_range(name, value):
    status, line = refused(GOOD | {name: value})
    assert status == 422 and line.startswith(f"{name} = ")


@pytest.mark.parametrize("name", FIELDS)
def test_no_field_may_be_missing(name):
    assert refused({key: value for key, value in GOOD.items() if key != name}) == (400, f"'{name}' is missing")


@pytest.mark.parametrize("name", ["pairs", "__proto__", "", "\ud800", "x" * 3000, "a\nb"])
def test_no_field_may_be_added(name):
    status, line = refused(GOOD | {name: 1})
    assert status == 400 and "is not a field" in line


@pytest.mark.parametrize("body", [b"", b"{", b"null", b"[]", b"7", b'"x"', b"\xff\xfe", b"{'a': 1}", b'{"pair": NaN}'])
def test_only_a_json_object_is_a_request(body):
    assert refused(body)[0] == 400


@pytest.mark.parametrize("nested", [b"[" * 4000, b'{"pair":' * 500, b'{"pair":' + b"[" * 1800 + b"]" * 1800 + b"}"])
def test_nesting_is_no_way_in(nested):
    assert refused(nested, names=("pair",))[0] in (400, 422)


@pytest.mark.parametrize("depth", [10, 100, 500, 900, 950, 990, 1500])
def test_nesting_of_any_depth_is_refused(depth):
    value = b"[" * depth + b"]" * depth
    assert refused(b'{"pair":' + value + b"}", names=("pair",))[0] in (400, 422)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
def test_what_json_does_not_have_is_no_json(number):
    assert refused(b'{"pair":' + number + b"}", names=("pair",)) == (400, "the request is not JSON")


def test_digits_without_end_are_refused():
    for digits in (b"9" * 4000, b"1e400", b"-1e400"):
        assert refused(b'{"pair":' + digits + b"}", names=("pair",))[0] == 422
    limit = sys.get_int_max_str_digits()
    assert refused(b'{"pair":' + b"9" * (limit + 1) + b"}", names=("pair",))[0] == 400


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp", "é" * 500]
)
def test_only_json_is_read(kind):
    assert refused(GOOD, kind)[0] == 415


@pytest.mark.parametrize("text, value", [("0", 0), ("7", 7), ("007", 7)])
def test_a_number_in_an_address(text, value):
    assert requests.number(text, "slot", 0, 7) == value


@pytest.mark.parametrize(
    "text", ["", "-1", "8", "1.0", "+1", " 1", "1\n", "٣", "²", "0x1", "1e0", "..", "9" * 11, "1" * 5000]
)
def test_what_is_no_number_in_an_address(text):
    with pytest.raises(Refused) as error:
        requests.number(text, "slot", 0, 7)
    assert error.value.status == 422 and "from 0 to 7" in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "host, loopback",
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("[::1]", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("localhost.example.org", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_only_this_machine_needs_no_token(host, loopback):
    assert security.is_loopback(host) is loopback
