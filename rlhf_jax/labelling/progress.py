"""What a run with people is doing, for its page and its terminal."""

import contextlib
import math
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

_SECONDS_BETWEEN_LINES = 5.0
_POINTS = 500  # of a curve, at most; longer ones are thinned


class Progress:
    """What is going on, said at once; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._phase, self._message = "starting", "The agent is being prepared."
        self._series: dict[str, list[float | None]] = {"iteration": [], "predicted_return": [], "labels": []}
        self._printed, self._printed_at = "", -math.inf

    def say(self, phase: str, message: str) -> None:
        """Says what is going on.

        Args:
          phase: "starting", "initial", "training", "waiting", "finished" or "stopped".
          message: a sentence.
        """
        with self._lock:
            # Training and waiting take turns with every answer, which is news to nobody.
            news = phase != self._phase and not {phase, self._phase} <= {"training", "waiting"}
            self._phase, self._message = phase, message
            self._print(message, news)

    def _print(self, message: str, at_once: bool) -> None:
        """Prints a line; on a terminal it replaces the one before, elsewhere there is one every few seconds."""
        over = self._phase in ("finished", "stopped")
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if message == self._printed or not (terminal or at_once or now > self._printed_at + _SECONDS_BETWEEN_LINES):
            return
        self._printed, self._printed_at = message, now
        line = f"\r{message}\033[K" + "\n" * over if terminal else f"{message}\n"
        with contextlib.suppress(OSError):  # A terminal that is gone does not stop the training.
            print(line, end="", file=sys.stderr, flush=True)

    def add(self, iteration: int, metrics: Mapping[str, Any]) -> None:
        """Adds a point to the curves."""
        with self._lock:
            self._series["iteration"].append(iteration)
            for name in ("predicted_return", "labels"):
                value = float(metrics[name])
                self._series[name].append(value if math.isfinite(value) else None)

    def snapshot(self) -> dict[str, Any]:
        """Returns phase, message, seconds since the start, the iteration, and the curves."""
        with self._lock:
            stride = len(self._series["iteration"]) // _POINTS + 1
            series = {name: [*values[:-1:stride], *values[-1:]] for name, values in self._series.items()}
            return {
                "phase": self._phase,
                "message": self._message,
                "seconds": round(time.monotonic() - self._started, 1),
                "iteration": series["iteration"][-1] if series["iteration"] else 0,
                "series": series,
            }
