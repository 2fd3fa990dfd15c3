"""What the page may send, field by field."""

import json
import re
from collections.abc import Callable
from typing import Any

from rlhf_jax.labelling.label_store import MAX_NAME, PREFERENCES
from rlhf_jax.labelling.security import Refused

_NAME = re.compile(r"[0-9A-Za-z_-]{8,64}")
_LARGEST = 2**31


def _labeller(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= MAX_NAME and value.isprintable()


def _identifier(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _pair(value: Any) -> bool:
    return type(value) is int and 0 < value < _LARGEST


_ANSWERS = (*PREFERENCES, "skip")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "run": (_identifier, "the name of the run, as /api/status gives it"),
    "labeller": (_labeller, f"a name of 1 to {MAX_NAME} printable characters"),
    "tab": (_identifier, "8 to 64 letters, digits, - or _"),
    "token": (_identifier, "8 to 64 letters, digits, - or _"),
    "pair": (_pair, "the number of a pair"),
    "answer": (lambda value: value in _ANSWERS, "one of " + ", ".join(_ANSWERS)),
    "swapped": (lambda value: isinstance(value, bool), "true or false"),
    "change": (lambda value: isinstance(value, bool), "true or false"),
}


def parse(body: bytes, content_type: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the fields of a request.

    Args:
      body: JSON.
      content_type: what it says it is.
      names: the fields that it must have, and no others.

    Raises:
      Refused: it is anything else; the message names the field and what is allowed.
    """
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise Refused(415, f"the request is {content_type[:60]!r}, not application/json")
    try:
        fields = json.loads(body.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise Refused(400, "the request is not JSON") from None
    if not isinstance(fields, dict):
        raise Refused(400, "the request is not a JSON object")
    if missing := [name for name in names if name not in fields]:
        raise Refused(400, f"{missing[0]!r} is missing")
    if unknown := sorted(set(fields) - set(names)):
        raise Refused(400, f"{unknown[0][:60]!r} is not a field of this request; it has {', '.join(names)}")
    for name in names:
        fits, allowed = _FIELDS[name]
        if not fits(fields[name]):
            raise Refused(422, f"{name} = {json.dumps(fields[name])[:60]}; it must be {allowed}")
    return fields


def number(text: str, name: str, smallest: int, largest: int) -> int:
    """Returns a whole number from `smallest` to `largest` out of an address.

    Raises:
      Refused: it is anything else.
    """
    if not re.fullmatch(r"[0-9]{1,10}", text) or not smallest <= int(text) <= largest:
        raise Refused(422, f"{name} = {text[:60]!r}; it must be a whole number from {smallest} to {largest}")
    return int(text)


def _refuse_constant(text: str) -> None:
    raise ValueError(text)
