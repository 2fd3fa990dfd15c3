"""Who is shown which pair, and what may be said about it."""

import dataclasses
import random
import threading
import time
from collections.abc import Callable, Mapping

from rlhf_jax.labelling.label_store import PREFERENCES, Answer, LabelStore

LEASE_SECONDS = 120.0
"""How long a pair is kept for the one who is looking at it, after they were last heard of."""

REPEAT_SHARE = 0.05
REPEAT_AFTER = 10
"""A repeat comes after at least so many other answers of the same labeller."""


class Conflict(Exception):
    """An answer that cannot be taken because of what happened meanwhile; the message says what."""


@dataclasses.dataclass
class Showing:
    """A pair on somebody's screen.

    pair: which.
    swapped: whether slot 1 is on the left.
    repeat: whether it was answered before, and is shown to see if the labeller agrees with themselves.
    since: when it appeared, seconds since 1970.
    until: when it goes back.
    """

    pair: int
    swapped: bool
    repeat: bool
    since: float
    until: float


class Desk:
    """Hands out the pairs that have no answer; no pair is on two screens at once. Safe to use from several threads.

    A screen is one tab of a browser. A labeller is whoever goes by a name, on any number of screens.
    """

    def __init__(
        self, store: LabelStore, *, repeat_share: float = REPEAT_SHARE, clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._repeat_share, self._clock = store, repeat_share, clock
        self._changed = threading.Condition()
        self._showings: dict[str, Showing] = {}
        answered = store.in_force()
        # In the order in which they are handed out: as asked, those that were skipped last.
        self._open = dict.fromkeys(pair for pair in range(1, store.num_pairs() + 1) if pair not in answered)
        self._put_off = {answer.pair for answer in store.answers() if answer.repeat and answer.answer == "skip"}
        self._probabilities: dict[int, float] = {}
        self._iteration = 0

    @property
    def waiting(self) -> int:
        """How many pairs have no answer yet."""
        with self._changed:
            return len(self._open)

    def open_pairs(self) -> list[int]:
        """Returns the pairs that have no answer yet."""
        with self._changed:
            return list(self._open)

    def ask(self, pairs: list[int]) -> None:
        """Adds pairs to hand out."""
        with self._changed:
            self._open |= dict.fromkeys(pairs)
            self._changed.notify_all()

    def tell(self, iteration: int, probabilities: Mapping[int, float]) -> None:
        """Notes what the model thinks by now: with which probability slot 0 of each of these pairs is better."""
        with self._changed:
            self._iteration = iteration
            self._probabilities |= probabilities

    def wait(self, waiting: int, timeout: float) -> bool:
        """Waits until at most so many pairs have no answer; returns whether that came within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._open) <= waiting, timeout)

    def next(self, screen: str, labeller: str) -> Showing | None:
        """Returns what this screen shows: what it shows already, or else the next pair; None if there is none."""
        with self._changed:
            now = self._clock()
            showing = self._current(screen, now) or self._choose(labeller, now)
            if showing is not None:
                showing.until = now + LEASE_SECONDS
                self._showings[screen] = showing
            return showing

    def _current(self, screen: str, now: float) -> Showing | None:
        """Returns what the screen shows, if it is still its to answer."""
        showing = self._showings.get(screen)
        if showing is None or showing.until < now or not (showing.repeat or showing.pair in self._open):
            self._showings.pop(screen, None)
            return None
        return showing

    def _choose(self, labeller: str, now: float) -> Showing | None:
        taken = {showing.pair for screen in list(self._showings) if (showing := self._current(screen, now))}
        for pair in self._repeats(labeller):
            if pair not in taken:
                return Showing(pair, not self._store.swapped(pair), True, now, now)
        for pair in self._open:
            if pair not in taken:
                return Showing(pair, self._store.swapped(pair), False, now, now)
        return None

    def upcoming(self, count: int) -> list[int]:
        """Returns the pairs that will be handed out next, so that their pictures can be made ready."""
        with self._changed:
            now = self._clock()
            taken = {showing.pair for screen in list(self._showings) if (showing := self._current(screen, now))}
            return [pair for pair in self._open if pair not in taken][:count]

    def _repeats(self, labeller: str) -> list[int]:
        """Returns the pairs that this labeller is due to see again."""
        done = self._store.in_force(repeat=True).keys() | self._put_off
        own = [answer for answer in self._store.in_force().values() if answer.labeller == labeller]
        own.sort(key=lambda answer: answer.id)
        return [a.pair for a in own[:-REPEAT_AFTER] if a.pair not in done and self._is_repeated(a.pair)]

    def _is_repeated(self, pair: int) -> bool:
        # Not drawn but derived, so that a run that is resumed repeats the same pairs.
        return random.Random(f"{self._store.source.run} {pair}").random() < self._repeat_share

    def answer(
        self, screen: str, labeller: str, pair: int, answer: str, *, swapped: bool, token: str, change: bool = False
    ) -> Answer:
        """Takes what somebody said about a pair; it is on disk when this returns.

        Args:
          screen: where it was shown.
          labeller: who says it.
          pair: about which pair.
          answer: one of `PREFERENCES`, or "skip", which puts the pair behind the others.
          swapped: whether slot 1 was on the left.
          token: names the request; the same one again is stored once.
          change: whether an earlier answer is replaced.

        Raises:
          Conflict: the pair is not theirs to answer.
        """
        with self._changed:
            if (stored := self._store.stored(token)) is not None:
                return stored
            now = self._clock()
            showing = self._current(screen, now)
            showing = showing if showing is not None and showing.pair == pair else None
            repeat = showing is not None and showing.repeat and not change
            self._check(screen, pair, swapped, repeat=repeat, change=change)
            since = showing.since if showing is not None else now
            stored = self._record(pair, answer, swapped, repeat, labeller, since, token)
            if showing is not None:
                del self._showings[screen]
            if answer == "skip" and repeat:
                self._put_off.add(pair)
            elif answer in PREFERENCES and not repeat:
                self._open.pop(pair, None)
            elif answer == "skip" and pair in self._open:
                self._open[pair] = self._open.pop(pair)
            self._changed.notify_all()
            return stored

    def _check(self, screen: str, pair: int, swapped: bool, *, repeat: bool, change: bool) -> None:
        if swapped != (self._store.swapped(pair) != repeat):
            raise Conflict(f"pair {pair} is shown with its clips the other way round")
        if repeat or (change and pair not in self._open):
            return
        if pair not in self._open:
            raise Conflict(f"pair {pair} was answered already")
        others = [other for other, showing in self._showings.items() if other != screen and showing.pair == pair]
        if any(self._current(other, self._clock()) for other in others):
            raise Conflict(f"pair {pair} is with another labeller by now")

    def _record(
        self, pair: int, answer: str, swapped: bool, repeat: bool, labeller: str, since: float, token: str
    ) -> Answer:
        return self._store.record(
            Answer(
                pair=pair,
                answer=answer,
                swapped=swapped,
                repeat=repeat,
                labeller=labeller,
                shown=since,
                answered=self._clock(),
                iteration=self._iteration,
                probability=self._probabilities.get(pair),
                token=token,
            )
        )

    def undo(self, screen: str, labeller: str, token: str) -> Showing | None:
        """Takes back this labeller's newest answer that is in force and shows its pair again; None if there is none."""
        with self._changed:
            now = self._clock()
            if (stored := self._store.stored(token)) is not None:
                return self._current(screen, now) if stored.answer == "undo" else None
            in_force = [*self._store.in_force().values(), *self._store.in_force(repeat=True).values()]
            last = max((a for a in in_force if a.labeller == labeller), key=lambda a: a.id, default=None)
            if last is None:
                return None
            self._record(last.pair, "undo", last.swapped, last.repeat, labeller, now, token)
            if not last.repeat:
                self._open = {last.pair: None} | self._open
            showing = Showing(last.pair, last.swapped, last.repeat, now, now + LEASE_SECONDS)
            self._showings[screen] = showing
            return showing

    def agreement(self) -> tuple[int, int]:
        """Returns how many answered pairs were shown again, and how many of those were answered alike."""
        answers, again = self._store.in_force(), self._store.in_force(repeat=True)
        both = [(answers[pair], answer) for pair, answer in again.items() if pair in answers]
        return len(both), sum(first.label == second.label for first, second in both)
