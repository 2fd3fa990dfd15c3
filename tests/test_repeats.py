"""Pairs that are shown again: swapped, late, to whoever answered, and without a trace in the labels."""

import label_stores
import pytest
from label_stores import LAYOUT, noise
from offices import Office

from rlhf_jax.labelling.desk import LEASE_SECONDS, REPEAT_AFTER, REPEAT_SHARE, Conflict


@pytest.fixture
def repeating(tmp_path):
    """Every pair is shown again."""
    office = Office(tmp_path / "labels.sqlite", 30, repeat_share=1.0)
    yield office
    office.store.close()


def answered(office, count, screen="a"):
    """Answers so many pairs that were never shown before."""
    return [office.say(screen).pair for _ in range(count)]


def test_a_repeat_is_swapped_and_late_and_changes_no_label(repeating):
    assert answered(repeating, REPEAT_AFTER + 1) == list(range(1, REPEAT_AFTER + 2))
    before = repeating.store.in_force()
    assert before[1].swapped is False
    again = repeating.desk.next("a", "a")
    assert (again.pair, again.swapped, again.repeat) == (1, True, True)
    stored = repeating.answer("a", 1, "left", swapped=True)
    assert stored.repeat and repeating.store.in_force() == before
    assert repeating.desk.agreement() == (1, 0), "left twice means the other clip the second time"
    assert repeating.next("a") == REPEAT_AFTER + 2, "one more first answer before the next repeat"
    repeating.say("a")
    assert repeating.next("a") == 2
    repeating.say("a", "right")
    assert repeating.desk.agreement() == (2, 1)
    repeating.restart()
    assert repeating.desk.agreement() == (2, 1)
    assert repeating.next("a") == REPEAT_AFTER + 3, "no pair is repeated twice"


def test_pairs_that_are_due_again_are_expected_beside_those_without_an_answer(repeating):
    answered(repeating, REPEAT_AFTER + 1)
    waiting = list(range(REPEAT_AFTER + 2, 31))
    assert repeating.desk.expected() == [*waiting, *range(1, REPEAT_AFTER + 2)]
    assert repeating.say("a").repeat
    assert repeating.desk.expected() == [*waiting, *range(2, REPEAT_AFTER + 2)]


def test_a_repeat_is_not_counted_as_waiting(repeating):
    answered(repeating, REPEAT_AFTER + 1)
    waiting = repeating.desk.waiting
    repeating.say("a", "tie")
    assert repeating.desk.waiting == waiting == 19
    assert 1 not in repeating.desk.open_pairs()


def test_only_those_who_answered_see_a_pair_again(repeating):
    answered(repeating, REPEAT_AFTER)
    answered(repeating, REPEAT_AFTER, screen="b")
    assert not repeating.desk.next("c", "c").repeat
    assert not repeating.desk.next("a", "a").repeat, "ten other answers of their own come first"
    repeating.say("a")
    assert repeating.next("a") == 1
    assert repeating.next("a", "b") != 1, "another name at the same screen"


def test_a_repeat_is_on_one_screen(repeating):
    answered(repeating, REPEAT_AFTER + 1)
    assert repeating.next("tab1", "a") == 1
    assert repeating.next("tab2", "a") != 1
    repeating.clock.now += LEASE_SECONDS + 1.0
    assert repeating.next("tab3", "a") == 1, "the first tab was closed"


def test_a_repeat_that_is_skipped_does_not_come_back(repeating):
    answered(repeating, REPEAT_AFTER + 1)
    assert repeating.say("a", "skip").repeat
    assert repeating.next("a") == REPEAT_AFTER + 2
    repeating.restart()
    assert repeating.next("a") == REPEAT_AFTER + 2
    assert repeating.desk.agreement() == (0, 0) and repeating.desk.waiting == 19


def test_a_repeat_is_taken_back(repeating):
    answered(repeating, REPEAT_AFTER + 1)
    repeating.say("a", "tie")
    before = repeating.in_force()
    assert repeating.undo("a") == 1
    again = repeating.desk.next("a", "a")
    assert again.repeat and again.swapped
    assert repeating.in_force() == before and repeating.desk.agreement() == (0, 0)
    repeating.say("a", "right")
    assert repeating.desk.agreement() == (1, 1)
    assert repeating.undo("a") == 1 and repeating.undo("a") == REPEAT_AFTER + 1


def test_a_repeat_whose_first_answer_is_taken_back_is_off_the_desk(repeating):
    answered(repeating, REPEAT_AFTER + 1)
    assert repeating.desk.next("a", "a").repeat
    for number in range(REPEAT_AFTER + 1):
        assert repeating.undo("tab2", "a") == REPEAT_AFTER + 1 - number
    assert [repeating.desk.next(*who).repeat for who in (("a", "a"), ("tab2", "a"))] == [False, False]
    assert repeating.next("a") != repeating.next("tab2", "a") == 1


def test_a_repeat_of_an_answer_that_was_taken_back_is_not_undone(repeating):
    answered(repeating, REPEAT_AFTER + 1)
    repeating.say("a", "tie")
    repeating.answer("a", 1, "right", change=True)
    assert repeating.undo("a") == 1 and repeating.desk.agreement() == (0, 0)
    assert repeating.undo("a") == REPEAT_AFTER + 1, "its repeat stands for nothing now"
    repeating.desk.undo("a", "a", repeating.token())
    repeating.answer("b", 1, "tie")
    assert repeating.desk.agreement() == (1, 1)


def test_the_answer_to_a_repeat_can_be_changed_from_the_history(repeating):
    answered(repeating, REPEAT_AFTER + 1)
    assert repeating.desk.next("a", "a").repeat
    assert not repeating.answer("a", 1, "tie", swapped=False, change=True).repeat
    assert repeating.in_force()[1] == "tie"
    assert repeating.next("a") == 2, "it was just answered"


def test_a_repeat_on_a_screen_that_was_forgotten_is_refused(repeating):
    answered(repeating, REPEAT_AFTER + 1)
    assert repeating.desk.next("a", "a").repeat
    repeating.restart()
    with pytest.raises(Conflict, match="answered already"):
        repeating.answer("a", 1, swapped=True)
    assert repeating.desk.next("a", "a").repeat


def test_one_in_twenty_is_repeated(tmp_path):
    office = Office(tmp_path / "labels.sqlite", 2000, repeat_share=REPEAT_SHARE)
    office.store.add(noise(LAYOUT, 0), [], [], [label_stores.row(pair, token=str(pair)) for pair in range(1, 2001)])
    office.restart()
    repeats = 0
    while (showing := office.desk.next("a", "eve")) is not None:
        office.answer("a", showing.pair, "right", showing.swapped, "eve")
        repeats += showing.repeat
    assert 70 <= repeats <= 130
    assert office.desk.agreement()[0] == repeats
    office.store.close()
