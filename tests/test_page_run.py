"""The labelling page in a real browser: what it says of the run, how the clips are played, what it lets in and out."""

import re
import socket

import pytest
from browser import LENGTH, NO_NETWORK

from rlhf_jax.labelling import application


def test_waiting_says_for_what_and_ends_when_a_pair_comes(visit):
    run = visit.run(initial=2)
    run.progress.say("initial", "Training begins after 2 initial labels: 2 are missing.")
    tab = visit.tab(run.start())
    tab.is_in("waiting")
    tab.says("curtain-text", "Training begins after 2 initial labels: 2 are missing.")
    tab.says("message", "Training begins after 2 initial labels: 2 are missing.")
    tab.says("initial", "2 initial labels still missing.")
    tab.expect("#curtain").to_be_visible()
    tab.press("ArrowLeft")
    tab.is_in("waiting")
    run.ask([False])
    tab.asks(1)
    tab.expect("#curtain").not_to_be_visible()
    tab.press("ArrowLeft")
    tab.says("initial", "1 initial label still missing.")
    run.ask([True])
    tab.asks(2)
    run.progress.say("training", "The agent trains.")
    tab.press("ArrowLeft")
    tab.expect("#initial").to_be_empty()
    tab.says("curtain-text", "The agent trains.")
    assert len(run.rows()) == 2


def test_a_run_that_is_over_says_so_and_wants_no_answer(visit):
    run, tab = visit.start([False, False])
    tab.press("ArrowLeft")
    tab.asks(2)
    for phase, title in (("finished", "The run has finished"), ("stopped", "The run has stopped")):
        run.progress.say(phase, "The labels are kept.")
        tab.is_in("over")
        tab.says("curtain-title", title)
        tab.says("curtain-text", "The labels are kept.")
        for key in ("ArrowLeft", "u", "s"):
            tab.press(key)
            tab.is_in("over")
    assert len(run.rows()) == 1


def test_the_page_says_how_the_run_goes(visit):
    run = visit.run([False, True, False], initial=0, instruction="keep it upright")
    run.desk.tell(7, {1: 0.9, 2: 0.25})
    for iteration in range(8):
        run.progress.add(iteration, {"predicted_return": iteration - 4.5, "labels": 2 * iteration})
    tab = visit.tab(run.start())
    tab.asks(1)
    tab.says("env", "Pendulum-v1")
    tab.says("instruction", "Goal: keep it upright")
    tab.says("iteration", "7 / 60")
    tab.says("waiting", "3")
    tab.says("mode", "asynchronous")
    tab.expect("#charts [role=img]").to_have_count(3)
    tab.press("ArrowLeft")
    tab.says("sureness-line", "The model gave your choice 90 %.")
    tab.asks(2)
    tab.press("ArrowLeft")  # slot 1
    tab.says("sureness-line", "The model gave your choice 75 %.")
    tab.says("counts", "2 / 20 labels")
    tab.says("waiting", "1")
    labels = [element.get_attribute("aria-label") for element in tab.page.query_selector_all("#charts svg")]
    assert labels == [
        "Predicted return: 2.50 at iteration 7; −4.50 at iteration 0.",
        "Labels learnt from: 14 at iteration 7; 0 at iteration 0.",
        "How sure the model was: 75 % for your newest answer; it agreed with 2 of the 2 newest.",
    ]


def test_play_pause_frames_speed_and_scrubber(visit):
    _, tab = visit.start([False])
    tab.expect("#play").to_have_attribute("aria-label", "Pause")
    tab.press("Space")
    tab.expect("#play").to_have_attribute("aria-label", "Play")
    tab.page.fill("#scrubber", "10")
    standing = tab.picture("left")
    tab.press(".")
    assert tab.frame() == 11 and (tab.picture("left") != standing).any()
    tab.press(",")
    assert tab.frame() == 10 and (tab.picture("left") == standing).all()
    for name, frame in (("forward", 11), ("back", 10), ("back", 9)):
        tab.click(name)
        assert tab.frame() == frame
    tab.page.fill("#scrubber", str(LENGTH))
    tab.says("frame", f"{LENGTH} / {LENGTH}")
    tab.press(".")  # around
    assert tab.frame() == 1
    tab.click("left")
    tab.expect("#play").to_have_attribute("aria-label", "Pause")
    for key, speed in (("+", "2"), ("+", "2"), ("-", "1"), ("-", "0.5"), ("-", "0.25"), ("-", "0.25")):
        tab.press(key)
        assert tab.page.input_value("#speed") == speed


def test_the_scrubber_keeps_the_arrows_to_itself_and_no_other_key(visit):
    run, tab = visit.start([False, False])
    tab.page.focus("#scrubber")
    tab.press("Home")
    assert tab.frame() == 1
    tab.press("ArrowRight")
    tab.press("ArrowUp")
    assert tab.frame() == 3
    tab.press(".")
    assert tab.frame() == 4 and run.rows() == []
    tab.press("s")
    tab.asks(2)
    assert run.rows() == [(1, "skip", False, None)]


def test_speed_is_that_of_the_clips_and_they_start_again(visit):
    _, tab = visit.start([False])
    clock = tab.page.clock
    clock.install()
    tab.page.reload()
    tab.asks(1)
    clock.pause_at(clock_now(tab) + 1000)

    def frames_in(milliseconds):
        tab.page.fill("#scrubber", "1")
        tab.press("Space")
        clock.run_for(milliseconds)
        shown = tab.frame()
        tab.press("Space")
        return shown - 1

    for speed, frames in (("1", 10), ("2", 20), ("0.5", 5)):
        tab.page.select_option("#speed", speed)
        assert abs(frames_in(500) - frames) <= 1
    tab.page.select_option("#speed", "2")
    assert frames_in(1100) == LENGTH - 1  # it stays on the last frame for a moment
    assert frames_in(1600) < 10


def clock_now(tab):
    """What time the page thinks it is, in seconds."""
    return tab.page.evaluate("Date.now()") / 1000


def test_typing_a_name_answers_nothing(visit):
    run, tab = visit.start([False, False])
    tab.click("labeller")
    tab.page.keyboard.type("su h")
    for key in ("ArrowLeft", "ArrowUp", "Control+z"):
        tab.press(key)
    assert tab.page.get_attribute("body", "data-state") == "asking" and run.rows() == []
    tab.page.fill("#labeller", " su\u200b hu ")
    tab.press("Enter")
    tab.press("ArrowLeft")
    tab.asks(2)
    assert run.store.answers()[0].labeller == "su hu"
    assert visit_again(tab).page.input_value("#labeller").strip() == "su\u200b hu"


def visit_again(tab):
    """The page after it was loaded anew."""
    tab.page.reload()
    tab.asks()
    return tab


@pytest.mark.parametrize("key", ["ArrowLeft", "Enter"])
def test_a_key_that_is_held_answers_once(visit, key):
    run, tab = visit.start([False, False])
    if key == "Enter":
        tab.page.focus("#answer-left")
    for _ in range(3):
        tab.page.keyboard.down(key)
    tab.asks(2)
    for _ in range(3):
        tab.page.keyboard.down(key)
    assert tab.page.get_attribute("body", "data-pair") == "2" and len(run.rows()) == 1
    tab.page.keyboard.up(key)
    tab.press(key)
    tab.is_in("waiting")
    assert len(run.rows()) == 2


def test_html_is_shown_as_the_text_it_is(visit):
    html = "<img src=x onerror=alert(1)><b>bold</b>"
    run, tab = visit.start([False, False], instruction=html)
    run.progress.say("training", html)
    tab.expect("#instruction").to_have_text(f"Goal: {html}")
    tab.page.fill("#labeller", html)
    tab.press("Enter")
    tab.press("ArrowLeft")
    tab.asks(2)
    tab.press("h")
    tab.expect(".row-who").to_have_text(html)
    tab.expect("#message").to_have_text(html)
    tab.expect(":is(#instruction, #message, .row-who, .toast) *").to_have_count(0)
    assert run.store.answers()[0].labeller == html


def test_nothing_inline_and_nothing_inline_would_run(visit):
    files = application.static_files()
    page = files["/"][0].decode()
    assert not re.search(r"<style|\sstyle=|\son\w+\s*=|javascript:|<script(?![^>]*\ssrc=)", page)
    assert not re.search(
        r"""["'(]\s*(https?:)?//(?!www\.w3\.org/2000/svg)""", "".join(b.decode() for b, _ in files.values())
    )
    _, tab = visit.start([False])
    tab.allowed.append(r"(Executing|Applying) inline .* violates")
    tab.page.evaluate("""() => {
      for (const [name, text] of [["script", "window.ran = true"], ["style", "body { display: none }"]]) {
        const element = document.createElement(name);
        element.textContent = text;
        document.head.append(element);
      }
    }""")
    assert tab.page.evaluate("window.ran === undefined")
    tab.expect("body").to_be_visible()
    assert len(tab.problems) == 2


@pytest.mark.parametrize("host", ["127.0.0.1", socket.gethostname()])
def test_the_page_works_with_a_token_and_over_plain_http(visit, host):
    run = visit.run([False, True])
    address = run.start(host="0.0.0.0")
    assert "?token=" in address
    tab = visit.tab(address.replace("0.0.0.0", host))
    tab.allowed += [NO_NETWORK, r"Failed to load resource: .* status of 401"]
    tab.asks(1)
    assert tab.upright_side() == "left"
    tab.press("ArrowLeft")
    tab.asks(2)
    assert len(run.rows()) == 1
    tab.page.reload()
    tab.asks(2)
    run.stop()
    run.start(run.port, host="0.0.0.0")  # with a token that the page does not know
    tab.is_in("refused")
    tab.says("curtain-text", "the token in the address is missing or wrong")


def test_a_tab_that_is_left_says_so_and_asks_at_once_when_it_is_back(visit):
    _, tab = visit.start([False])
    tab.allowed.append(NO_NETWORK)
    tab.page.clock.install()
    tab.page.reload()
    tab.asks(1)
    tab.page.clock.pause_at(clock_now(tab) + 1000)
    tab.page.clock.run_for(100)
    tab.page.route("**/api/leave", lambda route: route.abort())
    with tab.page.expect_request("**/api/leave") as left:
        tab.page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert left.value.method == "POST" and left.value.headers["content-type"] == "application/json"
    assert left.value.post_data_json == {"tab": tab.page.evaluate("sessionStorage['rlhf_jax.tab']")}
    with tab.page.expect_request("**/api/pair"):
        tab.page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        tab.page.clock.run_for(200)
    tab.asks(1)
    tab.expect("#banner").to_be_empty()


def test_the_pair_of_a_tab_that_is_left_goes_to_another_at_once(visit):
    run, tab = visit.start([False])
    other = visit.tab(run.address)
    other.is_in("waiting")
    tab.page.goto("about:blank")
    other.asks(1)
    tab.page.go_back()
    tab.is_in("waiting")
