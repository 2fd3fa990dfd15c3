"""Who is shown which pair, and what may be said about it."""

import dataclasses
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping

from rlhf_jax.labelling.label_store import PREFERENCES, Answer, LabelStore

LEASE_SECONDS = 120.0
"""How long a pair is kept for the one who is looking at it; after that, until somebody else could have it."""

QUIET_SECONDS = 15.0
"""After how long without a word a screen is taken to be gone; an open page asks once a second."""

REPEAT_SHARE = 0.05
REPEAT_AFTER = 10
"""A repeat comes after at least so many other answers of the same labeller."""


class Conflict(Exception):
    """An answer that cannot be taken because of what happened meanwhile; the message says what."""


@dataclasses.dataclass(frozen=True)
class Showing:
    """A pair on somebody's screen.

    pair: which.
    swapped: whether slot 1 is on the left.
    repeat: whether it was answered before, and is shown to see if the labeller agrees with themselves.
    labeller: who it was shown to.
    since: when it appeared, seconds since 1970.
    """

    pair: int
    swapped: bool
    repeat: bool
    labeller: str
    since: float


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
        self._heard: dict[str, float] = {}  # when each of these screens was last heard of
        # In the order in which they are handed out: as asked, but what was skipped last and what was undone first.
        self._open: OrderedDict[int, None] = OrderedDict()
        self._to_repeat: set[int] = set()
        self._put_off: set[int] = set()
        self._probabilities: dict[int, float] = {}
        self._iteration = 0
        self._on_asking: Callable[[], None] = lambda: None
        self.ask(list(range(1, store.num_pairs() + 1)))
        for answer in store.answers():
            self._take_note(answer)

    def _take_note(self, answer: Answer) -> None:
        """Does what follows from a row of the store."""
        pair = answer.pair
        if answer.repeat:
            if answer.answer == "skip":
                self._put_off.add(pair)
        elif answer.answer in PREFERENCES:
            self._open.pop(pair, None)
        elif answer.answer == "undo":
            self._open[pair] = None
            self._open.move_to_end(pair, last=False)
        elif pair in self._open:
            self._open.move_to_end(pair)
        self._take_away(pair)

    @property
    def waiting(self) -> int:
        """How many pairs have no answer yet."""
        with self._changed:
            return len(self._open)

    def open_pairs(self) -> list[int]:
        """Returns the pairs that have no answer yet."""
        with self._changed:
            return list(self._open)

    def expected(self) -> list[int]:
        """Returns the pairs that may be shown next: without an answer, or to be seen again by who answered them."""
        with self._changed:
            return [*self._open, *sorted(self._due_again() & self._store.in_force().keys())]

    def ask(self, pairs: list[int]) -> None:
        """Adds pairs to hand out."""
        with self._changed:
            self._open.update(dict.fromkeys(pairs))
            self._to_repeat.update(pair for pair in pairs if self._is_repeated(pair))
            self._changed.notify_all()
            self._on_asking()

    def when_asking(self, listener: Callable[[], None]) -> None:
        """Calls this function, which must not take long, whenever there are new pairs."""
        with self._changed:
            self._on_asking = listener

    def tell(self, iteration: int, probabilities: Mapping[int, float]) -> None:
        """Notes what the model thinks by now: with which probability slot 0 is better.

        Of pairs that are not told again the last word is kept, for answers that are taken back or changed. To ask the
        model then would keep all who answer waiting: with one core, until an iteration of the training is over.

        Args:
          iteration: of the training.
          probabilities: of the pairs that are `expected`; none before the first fit.
        """
        with self._changed:
            self._iteration = iteration
            self._probabilities.update(probabilities)

    def wait(self, waiting: int, timeout: float) -> bool:
        """Waits until at most so many pairs have no answer; returns whether that came within `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._open) <= waiting, timeout)

    def next(self, screen: str, labeller: str) -> Showing | None:
        """Returns what this screen shows: what it shows already, or else the next pair; None if there is none."""
        with self._changed:
            showing = self._showings.get(screen)
            if showing is None or (showing.repeat and showing.labeller != labeller):
                showing = self._choose(labeller)
                self._show(screen, showing)
            if showing is not None:
                self._heard[screen] = self._clock()
            return showing

    def leave(self, screen: str) -> None:
        """Takes back what this screen shows, because nobody looks at it any more."""
        with self._changed:
            self._show(screen, None)

    def _show(self, screen: str, showing: Showing | None) -> None:
        self._showings.pop(screen, None)
        if showing is not None:
            self._take_away(showing.pair)
            self._showings[screen] = showing
            self._heard[screen] = self._clock()

    def _take_away(self, pair: int) -> None:
        """Takes a pair off whichever screen shows it."""
        for screen in [screen for screen, showing in self._showings.items() if showing.pair == pair]:
            del self._showings[screen]

    def _choose(self, labeller: str) -> Showing | None:
        now = self._clock()
        kept = {showing.pair: self._is_kept(screen) for screen, showing in self._showings.items()}
        for pair in self._repeats(labeller):
            if not kept.get(pair):
                return Showing(pair, not self._store.swapped(pair), True, labeller, now)
        free = (pair for pair in self._open if pair not in kept)
        lapsed = (pair for pair in self._open if not kept.get(pair))
        chosen = next(free, None) or next(lapsed, None)
        return None if chosen is None else Showing(chosen, self._store.swapped(chosen), False, labeller, now)

    def _is_kept(self, screen: str) -> bool:
        now = self._clock()
        return now <= min(self._showings[screen].since + LEASE_SECONDS, self._heard[screen] + QUIET_SECONDS)

    def upcoming(self, count: int) -> list[int]:
        """Returns the pairs that will be handed out next, so that their pictures can be made ready."""
        with self._changed:
            shown = {showing.pair for showing in self._showings.values()}
            return [pair for pair in self._open if pair not in shown][:count]

    def _repeats(self, labeller: str) -> list[int]:
        """Returns the pairs that this labeller is due to see again."""
        due = self._due_again()
        own = [answer for answer in self._store.in_force().values() if answer.labeller == labeller]
        own.sort(key=lambda answer: answer.id)
        return [answer.pair for answer in own[:-REPEAT_AFTER] if answer.pair in due]

    def _due_again(self) -> set[int]:
        return self._to_repeat - self._store.in_force(repeat=True).keys() - self._put_off

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
                if (stored.pair, stored.answer, stored.labeller) != (pair, answer, labeller):
                    raise Conflict("the request has the token of another one")
                return stored
            showing = self._showings.get(screen)
            if showing is not None and (showing.pair != pair or (showing.repeat and showing.labeller != labeller)):
                showing = None
            repeat = showing is not None and showing.repeat and not change
            self._check(screen, pair, answer, swapped, repeat=repeat, change=change)
            now = self._clock()
            since = now if showing is None else showing.since  # A past answer is looked at unseen by the desk.
            return self._record(Showing(pair, swapped, repeat, labeller, since), answer, token, now)

    def _check(self, screen: str, pair: int, answer: str, swapped: bool, *, repeat: bool, change: bool) -> None:
        changed = change and answer != "skip" and pair in self._store.in_force()
        if not repeat and not changed:
            if pair not in self._open:
                raise Conflict(f"pair {pair} was answered already")
            others = [other for other, showing in self._showings.items() if other != screen and showing.pair == pair]
            if any(self._is_kept(other) for other in others):
                raise Conflict(f"pair {pair} is with another labeller by now")
        if swapped != (self._store.swapped(pair) != repeat):
            raise Conflict(f"pair {pair} is shown with its clips the other way round")

    def _record(self, showing: Showing, answer: str, token: str, now: float) -> Answer:
        stored = self._store.record(
            Answer(
                pair=showing.pair,
                answer=answer,
                swapped=showing.swapped,
                repeat=showing.repeat,
                labeller=showing.labeller,
                shown=showing.since,
                answered=now,
                iteration=self._iteration,
                probability=self._probabilities.get(showing.pair),
                token=token,
            )
        )
        self._take_note(stored)
        self._changed.notify_all()
        return stored

    def undo(self, screen: str, labeller: str, token: str) -> Showing | None:
        """Takes back this labeller's newest answer that is in force and shows its pair again; None if there is none."""
        with self._changed:
            if (stored := self._store.stored(token)) is not None:
                if (stored.answer, stored.labeller) != ("undo", labeller):
                    raise Conflict("the request has the token of another one")
                return self._showings.get(screen)
            last = max(self._undoable(labeller), key=lambda answer: answer.id, default=None)
            if last is None:
                return None
            showing = Showing(last.pair, last.swapped, last.repeat, labeller, self._clock())
            self._record(showing, "undo", token, showing.since)
            self._show(screen, showing)
            return showing

    def _undoable(self, labeller: str) -> list[Answer]:
        answers, again = self._store.in_force(), self._store.in_force(repeat=True)
        in_force = [*answers.values(), *(answer for pair, answer in again.items() if pair in answers)]
        return [answer for answer in in_force if answer.labeller == labeller]

    def agreement(self) -> tuple[int, int]:
        """Returns how many answered pairs were shown again, and how many of those were answered alike."""
        answers, again = self._store.in_force(), self._store.in_force(repeat=True)
        both = [(answers[pair], answer) for pair, answer in again.items() if pair in answers]
        return len(both), sum(first.label == second.label for first, second in both)
