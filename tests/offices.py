"""A desk with a clock that is set by hand."""

import label_stores
from label_stores import Clock

from rlhf_jax.labelling.desk import Desk
from rlhf_jax.labelling.label_store import LabelStore


class Office:
    """A desk, its store and its clock."""

    def __init__(self, path, pairs=0, repeat_share=0.0):
        self.store = label_stores.make(path, pairs)
        self.clock, self.repeat_share, self.requests = Clock(), repeat_share, 0
        self.restart()

    def restart(self):
        """The same after the process was killed and started again."""
        path = self.store.path
        self.store.close()
        self.store = LabelStore(path)
        self.desk = Desk(self.store, repeat_share=self.repeat_share, clock=self.clock)

    def token(self):
        """A name that no other request has."""
        self.requests += 1
        return f"request-{self.requests}"

    def next(self, screen, labeller=None):
        """The pair on a screen; its labeller goes by the name of the screen unless told otherwise."""
        showing = self.desk.next(screen, labeller or screen)
        return None if showing is None else showing.pair

    def say(self, screen, answer="left", labeller=None):
        """Answers what is on a screen."""
        showing = self.desk.next(screen, labeller or screen)
        return self.answer(screen, showing.pair, answer, showing.swapped, labeller)

    def answer(self, screen, pair, answer="left", swapped=None, labeller=None, **more):
        """Answers a pair as somebody would who saw it for the first time."""
        swapped = self.store.swapped(pair) if swapped is None else swapped
        more = {"token": self.token()} | more
        return self.desk.answer(screen, labeller or screen, pair, answer, swapped=swapped, **more)

    def undo(self, screen, labeller=None, token=None):
        """The pair that an undo brings back."""
        showing = self.desk.undo(screen, labeller or screen, token or self.token())
        return None if showing is None else showing.pair

    def in_force(self):
        """What counts for each pair."""
        return {pair: answer.answer for pair, answer in self.store.in_force().items()}

    def rows(self):
        """All that was ever said."""
        return [(row.pair, row.answer) for row in self.store.answers()]
