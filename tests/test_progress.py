"""Progress: what is going on, for the page and the terminal, which neither floods nor stops the training."""

import io
import math
import sys

import pytest

from rlhf_jax.labelling import progress
from rlhf_jax.labelling.progress import Progress


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self):
        return True


class Gone(Terminal):
    """Somebody closed it."""

    def write(self, text):
        raise BrokenPipeError(text)


def test_the_page_is_told_the_phase_the_iteration_and_the_curves():
    shown = Progress()
    assert shown.snapshot()["phase"] == "starting" and shown.snapshot()["iteration"] == 0
    shown.say("training", "The agent trains.")
    shown.add(3, {"predicted_return": 1.5, "labels": 7, "other": 1})
    shown.add(4, {"predicted_return": math.nan, "labels": 8})
    snapshot = shown.snapshot()
    assert (snapshot["phase"], snapshot["message"], snapshot["iteration"]) == ("training", "The agent trains.", 4)
    assert snapshot["series"] == {"iteration": [3, 4], "predicted_return": [1.5, None], "labels": [7.0, 8.0]}
    assert snapshot["seconds"] >= 0.0


@pytest.mark.parametrize("points", [1, 2, 499, 500, 501, 1000, 4321])
def test_a_long_curve_is_thinned_and_keeps_its_ends(points):
    shown = Progress()
    for i in range(points):
        shown.add(i + 1, {"predicted_return": float(i), "labels": i})
    series = shown.snapshot()["series"]
    assert min(points, 200) <= len(series["iteration"]) <= 500
    assert series["iteration"][0] == 1 and series["iteration"][-1] == points
    assert sorted(set(series["iteration"])) == series["iteration"]
    assert series["predicted_return"] == [i - 1.0 for i in series["iteration"]]


def test_a_log_gets_a_line_for_news_and_one_now_and_then(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    shown = Progress()
    shown.say("initial", "3 are missing.")
    shown.say("initial", "2 are missing.")
    now[0] += 6.0
    shown.say("initial", "1 is missing.")
    shown.say("initial", "1 is missing.")
    shown.say("training", "Iteration 1.")
    shown.say("waiting", "The agent waits.")
    shown.say("finished", "Done.")
    assert sys.stderr.getvalue() == "3 are missing.\n1 is missing.\nIteration 1.\nDone.\n"


def test_a_terminal_has_one_line_that_changes(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = Progress()
    for text in ("3 are missing.", "3 are missing.", "2 are missing."):
        shown.say("initial", text)
    assert sys.stderr.getvalue() == "\r3 are missing.\033[K\r2 are missing.\033[K"


def test_a_terminal_that_is_gone_does_not_stop_the_training(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Gone())
    shown = Progress()
    shown.say("training", "Iteration 1.")
    assert shown.snapshot()["message"] == "Iteration 1."
