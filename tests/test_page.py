"""The labelling page in a real browser: what is shown is what is answered, and what is meant is what is stored."""

import numpy as np
import pytest
from browser import CONFLICT, LENGTH, NO_NETWORK

from rlhf_jax.environments import rendering
from rlhf_jax.labelling import clips
from rlhf_jax.labelling.desk import REPEAT_AFTER

BUTTONS = {
    "left": "answer-left",
    "right": "answer-right",
    "tie": "answer-tie",
    "cannot_tell": "answer-cannot-tell",
    "skip": "skip",
}
KEYS = {"left": "ArrowLeft", "right": "ArrowRight", "tie": "ArrowUp", "cannot_tell": "ArrowDown", "skip": "s"}


def test_clips_move_in_step_and_differ(visit):
    _, tab = visit.start([False])
    seen = tab.page.evaluate("""async () => {
      const small = new OffscreenCanvas(48, 48).getContext("2d", { willReadFrequently: true });
      const look = (side) => {
        small.drawImage(document.getElementById(side), 0, 0, 48, 48);
        const { data } = small.getImageData(0, 0, 48, 48);
        return data.reduce((sum, value, index) => (sum * 31 + value * index) % 65521, 0);
      };
      const seen = new Map();
      while (seen.size < 8) {
        await new Promise(requestAnimationFrame);
        const looks = [look("left"), look("right")];
        seen.set(looks.join(), looks);
      }
      return [...seen.values()];
    }""")
    left, right = zip(*seen, strict=True)
    # Were one a frame ahead of the other at times, one look of it would go with two of the other.
    assert len(set(left)) == len(set(right)) == len(seen) == 8
    assert not set(left) & set(right)


@pytest.mark.parametrize("swapped", [False, True])
def test_frames_are_those_of_the_pair_in_the_order_that_the_server_chose(visit, swapped):
    run, tab = visit.start([swapped])
    record = run.store.segments([1])[0]
    for frame in (1, 12, LENGTH):
        tab.page.fill("#scrubber", str(frame))
        for side, slot in (("left", swapped), ("right", not swapped)):
            drawn = rendering.frames("Pendulum-v1", clips.moments(record, int(slot)), clips.SIZE)[frame - 1]
            np.testing.assert_array_equal(tab.picture(side), drawn)
            assert tab.attribute(side, "aria-label") == f"{side} clip, frame {frame} of {LENGTH}"


@pytest.mark.parametrize("by", ["button", "key"])
def test_each_button_and_key_stores_its_answer_for_the_slot_that_was_shown(visit, by):
    swapped = [False] * 5 + [True] * 5
    run, tab = visit.start([*swapped, False])
    for pair, answer in enumerate([*BUTTONS] * 2, 1):
        tab.asks(pair)
        if by == "button":
            tab.click(BUTTONS[answer])
        else:
            tab.press(KEYS[answer])
    tab.asks(11)
    label = {"left": [1.0, 0.0], "right": [0.0, 1.0], "tie": [0.5, 0.5]}
    assert run.rows() == [
        (pair, answer, side, label.get(answer, [None, None])[side])
        for pair, (answer, side) in enumerate(zip([*BUTTONS] * 2, swapped, strict=True), 1)
    ]
    assert run.desk.open_pairs() == [11, 5, 10]  # what was skipped comes last


def test_the_clip_that_is_chosen_is_the_one_that_was_seen_on_that_side(visit):
    upright, swapped = [0, 1, 0, 1], [False, False, True, True]
    run, tab = visit.start(swapped, upright)
    for pair in (1, 2, 3, 4):
        tab.asks(pair)
        tab.press(KEYS[tab.upright_side()])
    tab.is_in("waiting")
    assert [label for *_, label in run.rows()] == [1.0 - slot for slot in upright]
    assert {answer for _, answer, *_ in run.rows()} == {"left", "right"}


def test_a_pair_is_shown_again_the_other_way_round(visit):
    run = visit.run([False] * (REPEAT_AFTER + 2), repeat_share=1.0)
    for pair in range(1, REPEAT_AFTER + 2):
        run.say(pair, "left")
    address = run.start()
    named = {"origin": address.rstrip("/"), "localStorage": [{"name": "rlhf_jax.labeller", "value": "anonymous"}]}
    tab = visit.tab(address, storage_state={"cookies": [], "origins": [named]})
    tab.asks(1)
    assert tab.upright_side() == "right"
    tab.press("ArrowRight")
    tab.asks(2 + REPEAT_AFTER)
    row = run.store.answers()[-1]
    assert (row.pair, row.answer, row.swapped, row.repeat, row.label) == (1, "right", True, True, 1.0)
    tab.says("repeats", "1 of 1 repeated pair answered the same.")


@pytest.mark.parametrize("key", ["u", "Control+z"])
def test_undo_shows_the_pair_again(visit, key):
    run, tab = visit.start([True, False])
    tab.press(key)
    tab.says("notice", "There is nothing to undo.")
    tab.asks(1)
    tab.press("ArrowLeft")
    tab.asks(2)
    tab.allowed.append(NO_NETWORK)
    tab.page.route("**/api/pair", lambda route: route.abort())  # the reply itself brings the pair
    tab.press(key)
    tab.asks(1)
    tab.page.unroute("**/api/pair")
    tab.says("sureness-line", "taken back")
    assert run.store.in_force() == {} and tab.upright_side() == "right"
    tab.press("ArrowRight")
    tab.asks(2)
    assert run.rows() == [(1, "left", True, 0.0), (1, "undo", True, None), (1, "right", True, 1.0)]


def test_an_answer_is_changed_by_keyboard_alone(visit):
    run, tab = visit.start([True, False, False])
    for pair, key in ((1, "ArrowLeft"), (2, "ArrowUp")):
        tab.asks(pair)
        tab.press(key)
    tab.asks(3)
    tab.press("h")
    tab.expect("#history-list li").to_have_count(2)
    tab.press("ArrowLeft")  # answers nothing while the dialog is open
    while tab.page.evaluate("document.activeElement.dataset.pair") != "1":
        tab.press("Tab")
    tab.press("Enter")
    tab.is_in("changing")
    assert tab.attribute("answer-left", "aria-current") == "true" and tab.upright_side() == "right"
    tab.press("ArrowRight")
    tab.asks(3)
    assert run.rows() == [(1, "left", True, 0.0), (2, "tie", False, 0.5), (1, "right", True, 1.0)]
    assert run.store.in_force()[1].label == 1.0


def test_escape_keeps_the_answer(visit):
    run, tab = visit.start([False, False])
    tab.press("ArrowLeft")
    tab.asks(2)
    tab.press("h")
    tab.page.click("#history-list button")
    tab.is_in("changing")
    tab.press("s")  # one cannot skip what was answered
    tab.press("Escape")
    tab.asks(2)
    tab.says("sureness-line", "The answer stays as it was.")
    tab.press("h")
    tab.press("Escape")
    tab.expect("#history").not_to_be_visible()
    tab.press("ArrowUp")
    tab.is_in("waiting")
    assert run.rows() == [(1, "left", False, 1.0), (2, "tie", False, 0.5)]


def test_two_labellers_share_the_pairs(visit):
    run, first = visit.start([False, True] * 3)
    second = visit.tab(run.address)
    for tab, name in ((first, "ann"), (second, "bob")):
        tab.page.fill("#labeller", name)
        tab.page.press("#labeller", "Enter")
    for _ in range(3):
        assert first.asks() != second.asks()
        for tab in (first, second):
            pair = tab.asks()
            tab.press("ArrowLeft")
            tab.expect("body").not_to_have_attribute("data-pair", str(pair))
    first.is_in("waiting")
    second.is_in("waiting")
    assert sorted(run.store.in_force()) == [1, 2, 3, 4, 5, 6] and len(run.rows()) == 6
    assert sorted(row.labeller for row in run.store.answers()) == ["ann"] * 3 + ["bob"] * 3
    first.says("counts", "6 / 20 labels")


def test_undo_takes_back_nothing_of_another_who_gave_no_name(visit):
    run, first = visit.start([False, True, False])
    second = visit.tab(run.address)
    first_pair, _ = first.asks(), second.asks()
    first.press("ArrowLeft")
    first.asks(3)
    second.press("u")
    second.says("notice", "There is nothing to undo.")
    assert list(run.store.in_force()) == [first_pair]
    names = {tab.attribute("labeller", "placeholder") for tab in (first, second)}
    first.page.reload()
    assert first.attribute("labeller", "placeholder") in names and len(names) == 2


@pytest.mark.parametrize("before", ["", "addEventListener('pagehide', (event) => event.stopImmediatePropagation());"])
def test_refresh_in_the_middle_shows_the_same_pair(visit, before):
    run, tab = visit.start([False, True, False])
    tab.page.add_init_script(before)  # whether or not the server hears that the page is left
    tab.page.reload()
    tab.asks(1)
    tab.press("ArrowLeft")
    tab.asks(2)
    other = visit.tab(run.address)
    other.asks(3)
    tab.page.reload()
    assert tab.asks() == 2
    tab.press("ArrowLeft")
    tab.is_in("waiting")
    assert run.rows() == [(1, "left", False, 1.0), (2, "left", True, 0.0)]


def test_a_server_that_comes_back_has_the_pair_and_the_answer_given_meanwhile(visit):
    run, tab = visit.start([True, False])
    tab.allowed.append(NO_NETWORK)
    run.stop()
    tab.says("banner", "Connection lost; trying again…")
    run.restart()
    tab.says("banner", "Connected again.")
    assert tab.asks() == 1
    run.stop()
    tab.press("ArrowLeft")
    tab.says("banner", "Your answer is kept.")
    assert run.rows() == []
    run.restart()
    tab.says("banner", "Connected again.")
    tab.asks(2)
    assert run.rows() == [(1, "left", True, 0.0)]
    tab.expect("#banner").to_be_empty()


def test_an_answer_after_the_connection_was_seen_to_be_lost_is_said_to_be_kept(visit):
    """The page asks for its status all the time, and may find the server gone before anybody answers."""
    run, tab = visit.start([True, False])
    tab.allowed.append(NO_NETWORK)
    run.stop()
    tab.says("banner", "Connection lost; trying again…")
    tab.press("ArrowLeft")
    tab.says("banner", "Your answer is kept.")
    run.restart()
    tab.asks(2)
    assert run.rows() == [(1, "left", True, 0.0)]


def test_an_answer_whose_reply_is_lost_is_stored_once(visit):
    run, tab = visit.start([True, False])
    tab.allowed.append(NO_NETWORK)
    sent = []

    def lose_first(route):
        sent.append(route.request.post_data)
        if len(sent) > 1:
            return route.continue_()
        route.fetch()
        return route.abort()

    tab.page.route("**/api/answer", lose_first)
    tab.page.reload()  # Seen once: a request of the page that was there before the route went past it.
    tab.asks(1)
    tab.press("ArrowLeft")
    tab.asks(2)
    assert len(sent) == 2 and sent[0] == sent[1]
    assert run.rows() == [(1, "left", True, 0.0)]


def test_another_run_in_the_place_of_the_one_before_gets_none_of_its_answers(visit):
    run, tab = visit.start([False, False])
    tab.allowed += [NO_NETWORK, CONFLICT]
    run.stop()
    tab.press("ArrowLeft")
    tab.says("banner", "Your answer is kept.")
    another = visit.run([True, True])
    another.start(run.port)
    tab.says("notice", "Another run has started; this page now shows it.")
    tab.asks(1)
    assert run.rows() == another.rows() == []
    tab.press("ArrowLeft")
    tab.asks(2)
    assert another.rows() == [(1, "left", True, 0.0)]
