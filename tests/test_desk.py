"""The desk: no pair is on two screens, nothing said is lost, and every answer can be taken back."""

import threading

import pytest
from label_stores import LAYOUT, noise
from offices import Office

from rlhf_jax.labelling.desk import LEASE_SECONDS, QUIET_SECONDS, Conflict
from rlhf_jax.labelling.label_store import PREFERENCES


@pytest.fixture
def office(tmp_path):
    office = Office(tmp_path / "labels.sqlite", 4)
    yield office
    office.store.close()


def test_no_pair_is_on_two_screens(office):
    assert [office.next(screen) for screen in "abcd"] == [1, 2, 3, 4]
    assert office.next("e") is None
    assert [office.next(screen) for screen in "dcba"] == [4, 3, 2, 1]


def test_two_tabs_of_one_labeller_see_different_pairs(office):
    assert [office.next(tab, "eve") for tab in ("tab1", "tab2", "tab1")] == [1, 2, 1]


def test_a_refresh_keeps_the_pair_and_when_it_appeared(office):
    first = office.desk.next("a", "eve")
    office.clock.now += 30.0
    assert office.desk.next("a", "eve") == first
    office.clock.now += 12.0
    assert office.say("a", labeller="eve").shown == 1000.0
    (row,) = office.store.answers()
    assert row.answered == 1042.0


def test_another_name_at_the_same_screen_keeps_the_pair(office):
    assert office.next("a", "eve") == office.next("a", "bob") == 1
    assert office.say("a", labeller="bob").labeller == "bob"


def test_a_pair_that_is_not_answered_in_time_goes_back_when_somebody_needs_it(office):
    for _ in range(12):
        assert [office.next(screen) for screen in "abcd"] == [1, 2, 3, 4]
        office.clock.now += LEASE_SECONDS / 12
        assert office.next("e") is None
    assert [office.next(screen) for screen in "abcd"] == [1, 2, 3, 4]
    office.clock.now += 0.1
    assert office.next("e") == 1
    assert office.next("a") == 2, "the next one that is not looked at"
    assert office.next("b") == 3


def test_a_screen_that_is_heard_of_no_more_gives_its_pair_back(office):
    assert [office.next(screen) for screen in "abcd"] == [1, 2, 3, 4]
    office.clock.now += QUIET_SECONDS
    assert office.next("e") is None
    assert [office.next(screen) for screen in "acd"] == [1, 3, 4]
    office.clock.now += 0.1
    assert office.next("e") == 2
    with pytest.raises(Conflict, match="another labeller"):
        office.answer("b", 2)


def test_looking_longer_does_not_keep_a_pair_from_others(office):
    assert [office.next(screen) for screen in "abcd"] == [1, 2, 3, 4]
    for _ in range(13):
        office.clock.now += 10.0
        assert office.next("a") == 1, "it stays while nobody else needs it"
    assert office.next("e") == 1
    with pytest.raises(Conflict, match="another labeller"):
        office.answer("a", 1)
    assert office.say("e").pair == 1


def test_pairs_that_nobody_looks_at_come_before_those_that_went_back(office):
    assert office.next("a") == 1
    office.clock.now += 2 * LEASE_SECONDS
    assert office.next("b") == 2
    assert office.next("a") == 1


def test_a_late_answer_counts_if_nobody_else_has_the_pair(office):
    assert office.next("a") == 1
    office.clock.now += 10 * LEASE_SECONDS
    assert office.answer("a", 1).shown == 1000.0
    assert office.in_force() == {1: "left"}


def test_a_late_answer_takes_the_pair_off_the_screen_of_one_who_is_late_too(office):
    assert office.next("a") == 1
    for screen in "bcd":
        office.next(screen)
    office.clock.now += 2 * LEASE_SECONDS
    assert office.next("e") == 1
    office.clock.now += 2 * LEASE_SECONDS
    office.answer("a", 1, "tie")
    with pytest.raises(Conflict, match="answered already"):
        office.answer("e", 1)
    assert office.next("e") != 1


@pytest.mark.parametrize("answer", PREFERENCES)
def test_an_answer_is_stored_as_it_was_said(office, answer):
    office.desk.tell(7, {3: 0.25})
    for screen in "ab":
        office.next(screen)
    assert office.next("c", "eve") == 3
    office.clock.now += 4.5
    stored = office.answer("c", 3, answer, labeller="eve")
    assert (stored.pair, stored.answer, stored.swapped, stored.repeat) == (3, answer, True, False)
    assert (stored.labeller, stored.iteration, stored.probability) == ("eve", 7, 0.25)
    assert (stored.shown, stored.answered) == (1000.0, 1004.5)
    assert office.store.answers() == [stored]
    assert office.desk.waiting == 3 and office.desk.open_pairs() == [1, 2, 4]


def test_what_the_model_thought_of_a_pair_when_it_was_due_stays_with_its_changes(office):
    office.desk.tell(3, {1: 0.25})
    office.say("a")
    office.desk.tell(4, {2: 0.5})
    changed = office.answer("a", 1, "right", change=True)
    assert (changed.iteration, changed.probability) == (4, 0.25)
    office.desk.tell(5, {1: 0.75})
    assert office.answer("a", 1, "tie", change=True).probability == 0.75


def test_what_is_skipped_comes_back_last(office):
    office.say("a", "skip")
    assert office.next("a") == 2
    office.say("a", "skip")
    assert office.desk.open_pairs() == [3, 4, 1, 2] and office.desk.waiting == 4
    office.restart()
    assert office.desk.open_pairs() == [3, 4, 1, 2]
    assert [office.say("a").pair for _ in range(4)] == [3, 4, 1, 2]
    assert office.next("a") is None


def test_the_only_pair_that_is_left_comes_back_at_once(office):
    for _ in range(3):
        office.say("a")
    assert office.say("a", "skip").pair == 4
    assert office.next("a") == 4


def test_pairs_that_are_asked_later_are_handed_out_too(office):
    for _ in range(4):
        office.say("a")
    assert office.next("a") is None
    office.desk.ask(office.store.ask(noise(LAYOUT, 2), 1, [False, True]))
    assert office.desk.waiting == 2 and office.next("a") == 5


def test_the_training_is_told_when_answers_are_in(office):
    assert not office.desk.wait(3, timeout=0.0)
    waited = []
    thread = threading.Thread(target=lambda: waited.append(office.desk.wait(3, timeout=60.0)))
    thread.start()
    office.say("a")
    thread.join(timeout=20.0)
    assert waited == [True], "at once, not when the time is up"


def test_the_pairs_to_draw_next_are_those_that_are_on_no_screen(office):
    office.next("a")
    assert office.desk.upcoming(2) == [2, 3] and office.desk.upcoming(9) == [2, 3, 4]


def test_a_request_that_is_sent_again_is_one_answer(office):
    office.next("a")
    first = office.answer("a", 1, token="same")
    assert office.answer("a", 1, token="same") == first
    office.restart()
    assert office.answer("a", 1, token="same") == first
    assert office.rows() == [(1, "left")]


@pytest.mark.parametrize("other", [{"pair": 2}, {"answer": "right"}, {"labeller": "bob"}])
def test_a_token_is_for_one_answer(office, other):
    office.answer("a", 1, token="same")
    fields = {"pair": 1, "answer": "left", "labeller": None} | other
    with pytest.raises(Conflict, match="token"):
        office.answer("a", **fields, token="same")
    with pytest.raises(Conflict, match="token"):
        office.undo("a", token="same")
    assert office.rows() == [(1, "left")]


def test_an_answer_to_what_somebody_else_has_is_refused(office):
    office.next("a")
    for change in (False, True):
        with pytest.raises(Conflict, match="another labeller"):
            office.answer("b", 1, change=change)
    office.say("a")
    with pytest.raises(Conflict, match="answered already"):
        office.answer("b", 1)
    assert office.rows() == [(1, "left")]


def test_an_answer_with_the_clips_the_other_way_round_is_refused(office):
    for change in (False, True):
        with pytest.raises(Conflict, match="other way round"):
            office.answer("a", office.next("a"), swapped=True, change=change)
    office.say("a")
    with pytest.raises(Conflict, match="other way round"):
        office.answer("a", 1, swapped=True, change=True)


def test_a_pair_that_is_not_on_the_desk_yet_cannot_be_answered(office):
    (pair,) = office.store.ask(noise(LAYOUT, 1), 1, [False])
    for change in (False, True):
        with pytest.raises(Conflict):
            office.answer("a", pair, change=change)
    office.desk.ask([pair])
    assert office.answer("a", pair).pair == 5


def test_an_answer_is_changed(office):
    office.desk.next("a", "a")
    office.say("a", "left")
    office.next("a")
    changed = office.answer("a", 1, "tie", change=True)
    assert changed.repeat is False and office.in_force() == {1: "tie"}
    assert office.rows() == [(1, "left"), (1, "tie")]
    assert office.next("a") == 2, "what is on the screen stays there"
    office.restart()
    assert office.in_force() == {1: "tie"} and office.desk.open_pairs() == [2, 3, 4]


def test_anybody_may_change_an_answer_and_it_is_theirs_then(office):
    office.say("a", "left")
    assert office.answer("b", 1, "right", change=True).labeller == "b"
    assert office.undo("a") is None
    assert office.undo("b") == 1


def test_an_answer_is_not_changed_to_a_skip(office):
    office.say("a", "left")
    with pytest.raises(Conflict):
        office.answer("a", 1, "skip", change=True)
    assert office.rows() == [(1, "left")]


def test_undo_takes_back_the_newest_and_shows_it_again(office):
    office.say("a", "left")
    office.clock.now += 5.0
    office.say("a", "right")
    assert office.next("a") == 3
    assert office.undo("a") == 2
    assert office.in_force() == {1: "left"} and office.desk.waiting == 3
    assert office.next("a") == 2 and office.next("b") == 3
    office.say("a", "tie")
    assert office.in_force() == {1: "left", 2: "tie"}
    assert office.rows() == [(1, "left"), (2, "right"), (2, "undo"), (2, "tie")]


def test_several_undos_go_back_step_by_step(office):
    for _ in range(3):
        office.say("a")
    assert [office.undo("a") for _ in range(5)] == [3, 2, 1, None, None]
    assert office.in_force() == {} and office.desk.open_pairs() == [1, 2, 3, 4]
    assert office.next("a") == 1 and office.next("b") == 2
    office.restart()
    assert office.desk.open_pairs() == [1, 2, 3, 4]


def test_undo_is_of_ones_own_answers(office):
    office.say("a")
    office.say("b")
    assert office.undo("b") == 2
    assert office.undo("b") is None
    assert office.in_force() == {1: "left"}
    assert office.undo("tab", labeller="a") == 1, "from any of their screens"


def test_there_is_nothing_to_undo(office):
    assert office.undo("a") is None
    office.say("a", "skip")
    assert office.undo("a") is None
    assert office.rows() == [(1, "skip")]


def test_an_undo_that_is_sent_again_takes_back_one_answer(office):
    office.say("a")
    office.say("a")
    assert office.undo("a", token="same") == 2
    assert office.undo("a", token="same") == 2
    office.restart()
    assert office.undo("a", token="same") is None, "the screen shows nothing yet"
    assert office.in_force() == {1: "left"} and office.next("a") == 2


def test_undo_after_a_change_takes_the_answer_back_altogether(office):
    office.say("a", "left")
    office.answer("a", 1, "right", change=True)
    assert office.undo("a") == 1
    assert office.in_force() == {} and office.undo("a") is None


def test_a_restart_in_the_middle_forgets_only_the_screens(office):
    office.say("a", "left")
    office.say("a", "skip")
    office.next("b")
    assert office.next("a") == 4
    office.restart()
    assert office.desk.open_pairs() == [3, 4, 2]
    assert office.answer("a", 4).shown == office.clock.now, "a page that was open may answer"
    assert office.next("b") == 3
    office.restart()
    assert office.next("c") == 3
    with pytest.raises(Conflict, match="another labeller"):
        office.answer("b", 3)
