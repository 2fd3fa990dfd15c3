"""Many people at one desk: whatever they do, in whatever order, no pair is answered twice and nothing is lost."""

import random
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from label_stores import LAYOUT, noise
from offices import Office
from services import Service

from rlhf_jax.labelling.desk import REPEAT_SHARE, Conflict
from rlhf_jax.labelling.label_store import PREFERENCES, LabelStore


@pytest.fixture
def hurried():
    """Threads take turns so often that they meet wherever they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Labeller:
    """Does what a person might, at random."""

    def __init__(self, office, name, rng):
        self.office, self.name, self.rng = office, name, rng
        self.screens = [f"{name}-1", f"{name}-2"]
        self.seen = None
        self.conflicts = Counter()

    def act(self):
        """Does one thing."""
        screen, chance = self.rng.choice(self.screens), self.rng.random()
        try:
            if chance < 0.06:
                self.office.undo(screen, self.name)
            elif chance < 0.12 and self.office.in_force():
                pair = self.rng.choice(list(self.office.in_force()))
                self.office.answer(screen, pair, self.rng.choice(PREFERENCES), labeller=self.name, change=True)
            elif chance < 0.2 and self.seen:  # a page that lost its connection, or another tab of the same page
                self.office.answer(*self.seen, labeller=self.name)
            elif (showing := self.office.desk.next(screen, self.name)) is not None:
                self.seen = (screen, showing.pair, self.rng.choice((*PREFERENCES, "skip")), showing.swapped)
                if chance < 0.8:
                    self.office.answer(*self.seen, labeller=self.name)
        except Conflict as conflict:
            self.conflicts[str(conflict).partition(" ")[2]] += 1


def first_answers(rows):
    """What is in force after these rows, told apart from the store's own account; no pair is answered twice."""
    in_force = {}
    for row in rows:
        if row.repeat:
            assert row.pair in in_force and row.swapped != (row.pair % 3 == 0)
        elif row.answer == "undo":
            assert in_force.pop(row.pair).labeller == row.labeller
        elif row.answer != "skip":
            in_force[row.pair] = row
    return {pair: row.answer for pair, row in in_force.items()}


@pytest.mark.parametrize("seed", range(3))
def test_whatever_people_do_nothing_is_lost(tmp_path, seed):
    rng = random.Random(seed)
    office = Office(tmp_path / "labels.sqlite", 120, repeat_share=0.5)
    people = [Labeller(office, f"labeller-{i}", rng) for i in range(8)]
    for _ in range(1200):
        rng.choice(people).act()
        office.clock.now += rng.choice((0.0, 1.0, 5.0, 60.0))
        if rng.random() < 0.01:
            office.restart()
        if rng.random() < 0.01:
            office.desk.ask(office.store.ask(noise(LAYOUT, 1), 0, [office.store.num_pairs() % 3 == 2]))
        shown = [showing.pair for showing in office.desk._showings.values()]
        assert len(shown) == len(set(shown))
        assert set(office.desk.open_pairs()) == set(range(1, office.store.num_pairs() + 1)) - set(office.in_force())
    assert first_answers(office.store.answers()) == office.in_force()
    assert len(office.rows()) > 300 and office.desk.agreement()[0] > 3
    assert len(sum((person.conflicts for person in people), Counter())) >= 2
    office.store.close()


def test_eight_at_once_answer_every_pair_once(tmp_path, hurried):
    office = Office(tmp_path / "labels.sqlite", 200, repeat_share=REPEAT_SHARE)
    confirmed = [[] for _ in range(8)]

    def work(number):
        name, rng = f"labeller-{number}", random.Random(number)
        while (showing := office.desk.next(name, name)) is not None:
            assert office.desk.next(name, name) == showing
            said = rng.choice((*PREFERENCES, "skip"))
            token = f"{name}-{len(confirmed[number])}"
            stored = office.desk.answer(name, name, showing.pair, said, swapped=showing.swapped, token=token)
            confirmed[number].append(stored)

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(8), timeout=60.0)) == [None] * 8
    said = [row for rows in confirmed for row in rows]
    assert sorted(row.id for row in said) == list(range(1, len(said) + 1))
    assert sorted(said, key=lambda row: row.id) == office.store.answers()
    given = Counter(row.pair for row in said if row.answer != "skip" and not row.repeat)
    assert given == {pair: 1 for pair in range(1, 201)}
    office.store.close()


def work(service, labeller, confirmed, failures):
    """Answers until there is nothing left, some requests twice, as after a lost connection."""
    rng = random.Random(labeller)
    try:
        while (pair := service.pair(f"tab-of-{labeller}", labeller)) is not None:
            change = {"pair": pair["id"], "swapped": pair["swapped"], "labeller": labeller, "tab": f"tab-of-{labeller}"}
            token = f"{labeller}-{len(confirmed):05}"
            fields = service.fields(**change, answer=rng.choice((*PREFERENCES, "skip"))) | {"token": token}
            for _ in range(rng.choice((1, 1, 2))):
                assert service.post("/api/answer", fields).status == 200
            confirmed.append((pair["id"], fields["answer"], labeller, token))
    except BaseException as error:
        failures.append(error)
        raise


def test_eight_labellers_at_once_lose_nothing_and_do_nothing_twice(tmp_path):
    service = Service(tmp_path / "labels.sqlite", 160, repeat_share=0.05)
    confirmed, failures = [[] for _ in range(8)], []
    threads = [threading.Thread(target=work, args=(service, f"labeller{i}", confirmed[i], failures)) for i in range(8)]
    for thread in threads:
        thread.start()
    for pair in service.store.ask(noise(LAYOUT, 40), 1, [False] * 40):
        service.desk.ask([pair])
    for thread in threads:
        thread.join(timeout=60.0)
    assert not failures and not any(thread.is_alive() for thread in threads)
    service.close()
    service.store.close()
    store = LabelStore(tmp_path / "labels.sqlite", read_only=True)
    rows = [(row.pair, row.answer, row.labeller, row.token) for row in store.answers()]
    assert sorted(rows) == sorted(row for rows in confirmed for row in rows)
    given = sorted(row.pair for row in store.answers() if row.answer != "skip" and not row.repeat)
    assert given == list(range(1, 201))
    assert all(len(rows) > 5 for rows in confirmed)
    store.close()
